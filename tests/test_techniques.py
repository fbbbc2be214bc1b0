"""docs/techniques.md says of every technique what it really does on every kind of model."""

import re

import pytest
from conftest import REPOSITORY
from technique_papers import PAPERS, papers
from technique_table import COLUMNS, TECHNIQUES, TEXT, outcome

from hf_finetune.recipes import schema

PAGE = REPOSITORY / "docs" / "techniques.md"


def written():
    return [pair for techniques in TECHNIQUES.values() for pairs in techniques.values() for pair in pairs]


def test_every_kind_and_every_named_choice_is_in_the_table():
    text = " ".join(written())
    for kind in (schema.Full, schema.HeadOnly, schema.Freeze, schema.Lora, schema.BitFit, schema.Norms, schema.Scratch,
                 schema.LpFt, schema.Gradual, schema.Stages, schema.Features, schema.Peft):  # fmt: skip
        assert f"strategy={kind.model_fields['kind'].default}" in text
    for section, model in (("model", schema.Model), ("loss", schema.Loss), ("average", schema.Average)):
        for field in set(model.model_fields) - {
            "checkpoint", "revision", "stem_weights", "gamma", "delta", "soup_size", "kind",
        }:  # fmt: skip
            assert f"{section}.{field}" in text, f"{section}.{field} is not in the table of techniques"
    for field in {**schema.ImageAugment.model_fields, **schema.TextAugment.model_fields}:
        assert field == "keep" or f"{{{field}: " in text


def test_the_page_has_every_technique():
    page = PAGE.read_text()
    for techniques in TECHNIQUES.values():
        for name in techniques:
            assert f"| {name} |" in page, f"run: python tests/technique_table.py > {PAGE.relative_to(REPOSITORY)}"


def test_every_technique_is_explained_with_its_source():
    assert set(PAPERS) == {name for techniques in TECHNIQUES.values() for name in techniques}
    assert papers() in PAGE.read_text(encoding="utf-8"), "python tests/technique_papers.py prints that part"


def cells():
    """(technique, what is written, column, what the page says) for one kind of model a technique, each kind in turn."""
    page = PAGE.read_text()
    reasons = dict(re.findall(r"^(\d+)\. (.*)$", page, re.M))
    lines = [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in page.splitlines()]
    rows = {line[0]: line[2:] for line in lines if len(line) == 2 + len(COLUMNS)}
    for number, (name, pairs) in enumerate((n, p) for group in TECHNIQUES.values() for n, p in group.items()):
        place = number % len(COLUMNS)
        said = rows[name][place]
        refused = re.fullmatch(r"refused \((\d+)\)", said)
        yield name, pairs, list(COLUMNS)[place], reasons[refused[1]] if refused else said


@pytest.mark.long  # every technique on every kind of model: two minutes
@pytest.mark.timeout(1200)
def test_the_page_is_what_the_runs_do(tmp_path):
    """A quarter of the table, that every technique is in; `technique_table.py` makes the whole."""
    for name, pairs, column, said in cells():
        result = outcome(COLUMNS[column], column in TEXT, pairs, tmp_path)
        assert result == said, f"{name} on {column}: the page is out of date, make it again"
