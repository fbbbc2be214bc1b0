"""The commands of docs/hub.md, and the README's of the Hub: each is run as it stands, on a Hub on loopback.

Training is cut short by a documented override (training.num_train_epochs, data.max_train_samples).
"""

import re
import shlex

import pytest
from conftest import REPOSITORY
from hub_process import TOKEN, CommandLine
from hub_server import LoopbackHub
from PIL import Image, ImageDraw

pytestmark = pytest.mark.long  # the push tests do the same from code
SHORT = ("training.num_train_epochs=1", "data.max_train_samples=200", "training.learning_rate=5e-4")


def commands(page):
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [line.partition("  #")[0].strip() for line in lines if re.match(r"hf-finetune .*YOU/", line)]


def photos(folder):
    for digit in range(10):
        (folder / str(digit)).mkdir(parents=True)
        for size in range(8, 20):
            image = Image.new("L", (24, 24))
            ImageDraw.Draw(image).text((6, 3), str(digit), fill=255, font_size=size)
            image.save(folder / str(digit) / f"{size}.png")


def test_every_command_of_the_page_runs(tmp_path):
    asked = [*commands("docs/hub.md"), *commands("README.md")]
    assert len(asked) >= 9 and {each.split()[1] for each in asked} == {"train", "push", "reproduce"}
    photos(tmp_path / "photos")
    with LoopbackHub({TOKEN: "YOU"}) as hub:
        line = CommandLine(tmp_path, hub.url)
        try:
            for command in asked:
                commit = hub.repo("YOU/digits").branches["main"] if ("model", "YOU/digits") in hub.repos else ""
                verb, *words = shlex.split(command.replace("COMMIT", commit))[1:]
                done = line(verb, *words, *(SHORT if verb == "train" else ()))
                allowed = (0, 1) if "photos/" in command else (0,)  # other data may score otherwise
                assert done.code in allowed, f"{command}\n{done.out}{done.err}"
        finally:
            line.close()
        assert hub.repo("YOU/tries").private and "second-try" in hub.repo("YOU/tries").branches
