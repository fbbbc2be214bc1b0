"""Every container and mode of image becomes the RGB image that pipelines see."""

import numpy as np
import pytest
from data_samples import deep_grey, encoded, photo, rotated_by_exif
from PIL import Image
from transformers.image_utils import load_image

from hf_finetune.data import decode_image


def ordinary_images():
    picture = photo(1)
    transparent = picture.convert("RGBA")
    transparent.putalpha(Image.linear_gradient("L").resize(picture.size))
    palette = picture.quantize(16)
    return {
        "rgb.png": encoded(picture),
        "rgb.jpg": encoded(picture, "JPEG"),
        "rgb.webp": encoded(picture, "WEBP"),
        "rgb.bmp": encoded(picture, "BMP"),
        "grey.png": encoded(picture.convert("L")),
        "grey_alpha.png": encoded(transparent.convert("LA")),
        "alpha.png": encoded(transparent),
        "palette.png": encoded(palette),
        "palette_transparent.png": encoded(palette, transparency=3),
        "palette_half_transparent.png": encoded(palette, transparency=bytes(range(0, 256, 16))),
        "animated.gif": encoded(palette, "GIF", save_all=True, append_images=[photo(2).quantize(16)]),
        "bits.png": encoded(picture.convert("1")),
        "cmyk.jpg": encoded(picture.convert("CMYK"), "JPEG"),
        "cmyk.tif": encoded(picture.convert("CMYK"), "TIFF"),
        "turned.jpg": rotated_by_exif(picture),
    }


@pytest.mark.filterwarnings("ignore:Palette images")  # said by transformers' own loader
@pytest.mark.parametrize("name", ordinary_images())
def test_ordinary_modes_equal_what_pipelines_load(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(ordinary_images()[name])
    expected = np.asarray(load_image(str(path)))
    for value in (path, str(path), path.read_bytes(), {"bytes": path.read_bytes(), "path": None}, Image.open(path)):
        image = decode_image(value)
        assert image.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(image), expected)


def test_exif_rotation_is_applied():
    assert decode_image(rotated_by_exif(photo(1, (40, 30)))).size == (30, 40)


def test_bytes_win_over_the_path(tmp_path):
    assert decode_image({"bytes": encoded(photo(1, (7, 5))), "path": str(tmp_path / "missing.png")}).size == (7, 5)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(format):
    image = deep_grey(3)
    eight = np.asarray(photo(3).convert("L"))
    decoded = np.asarray(decode_image(encoded(image, format)))
    np.testing.assert_array_equal(decoded, np.repeat(eight[..., None], 3, axis=2))


def test_16_bit_grey_of_two_images_stays_comparable():
    dark = Image.fromarray(np.full((4, 4), 0x1000, np.uint16))
    assert np.asarray(decode_image(encoded(dark))).max() == round(0x1000 / 257)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[0.0, 25700.0, 65535.0]], np.float32), [0, 100, 255]),
        (np.array([[0.0, np.nan, 200.0]], np.float32), [0, 0, 200]),
        (np.array([[0, 25700, 65535]], np.int32), [0, 100, 255]),
        (np.array([[-5, 100, 255]], np.int32), [0, 100, 255]),
    ],
)
def test_modes_without_a_range_of_their_own(values, expected):
    decoded = np.asarray(decode_image(encoded(Image.fromarray(values), "TIFF")))
    assert decoded[0, :, 0].tolist() == expected


def broken_images():
    jpeg, png = encoded(photo(1, (200, 150)), "JPEG"), encoded(photo(1, (200, 150)))
    middle = len(png) // 2
    return {
        "nothing": None,
        "empty": b"",
        "text": b"not an image at all",
        "truncated jpeg": jpeg[: len(jpeg) // 2],
        "truncated png": png[:middle],
        "damaged png": png[:middle] + bytes(200) + png[middle + 200 :],
        "header alone": png[:20],
        "no file": "/no/such/file.png",
        "record of nothing": {"bytes": None, "path": None},
    }


@pytest.mark.parametrize("name", broken_images())
def test_broken_images_are_os_errors(name):
    with pytest.raises(OSError, match=r"\w"):
        decode_image(broken_images()[name])


def test_an_image_of_absurd_size_is_an_os_error(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(OSError, match="exceeds limit"):
        decode_image(encoded(photo(1)))
