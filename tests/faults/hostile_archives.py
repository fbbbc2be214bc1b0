"""Archives of strangers: what is in them lies elsewhere, or is a million times larger."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from faults.hostile import CANARY

MEGABYTE = 2**20
ROWS = "text,label\n" + "".join(f"a text {n},{'ab'[n % 2]}\n" for n in range(40))


def zip_bomb(data: Path) -> None:
    """Says that it holds a terabyte."""
    with zipfile.ZipFile(data / "train.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/rows.csv", ROWS)
        archive.writestr("b/rows.csv", b"\0" * 10 * MEGABYTE)
        archive.filelist[1].file_size = 10**12


def zip_traversal(data: Path) -> None:
    with zipfile.ZipFile(data / "train.zip", "w") as archive:
        archive.writestr("rows.csv", ROWS)
        for up in ("../", "../../", "../../../../../../../.." + str(data.parent) + "/", str(data.parent) + "/"):
            archive.writestr(f"{up}{CANARY}", "unpacked outside")


def tar_traversal(data: Path) -> None:
    with tarfile.open(data / "rows.csv.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(data.parent)
        tar.addfile(link)
        for name in (f"../../{CANARY}", f"link/{CANARY}", str(data.parent / CANARY)):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))


def tar_with_a_hole(size):
    """A tar of GNU's old kind, whose only member has ten bytes and a hole."""
    block = bytearray(tarfile.TarInfo("a.txt").tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"%011o\0" % 512  # what is stored
    block[156:157] = tarfile.GNUTYPE_SPARSE
    for place, number in ((386, 0), (398, 10), (410, size), (422, 0), (483, size)):
        block[place : place + 12] = b"%011o\0" % number
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + b"x" * 10 + b"\0" * (502 + 1024)


def sparse_tar(data: Path) -> None:
    (data / "train.tar").write_bytes(tar_with_a_hole(8 * 10**9))


def packed_zeros(name: str, first: bytes, sixteens: int) -> Callable[[Path], None]:
    """Zeros, 16 MiB at a time, which 16 KB hold."""

    def make(data: Path) -> None:
        block = gzip.compress(b"\0" * 16 * MEGABYTE, 9)
        (data / name).write_bytes(gzip.compress(first) + block * sixteens)

    return make


def seven(data: Path) -> None:
    (data / "rows.csv.7z").write_bytes(b"7z\xbc\xaf\x27\x1c" + b"\0" * 100)
