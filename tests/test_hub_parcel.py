"""What of a run is pushed, and in which words: places on this machine, a person's part of the README, errors."""

import getpass
import json
from pathlib import Path

import pytest
import yaml
from datasets import Dataset, DatasetDict
from evaluation_samples import image_model, text_model
from hub_card_check import errors_of_card
from hub_samples import download
from huggingface_hub import ModelCard
from test_publish_save import save

from hf_finetune.data import LabelSpace, load_data
from hf_finetune.errors import RecipeError, UserError
from hf_finetune.publish import card_pictures
from hf_finetune.publish.card import model_card
from hf_finetune.publish.card_facts import data_table, split_of_test
from hf_finetune.publish.licence import licence_of
from hf_finetune.publish.local_places import as_written, local_places, public_recipe, without
from hf_finetune.publish.own_part import _KINDS, files_of, marked, merge, recorded, words_of_a_person
from hf_finetune.publish.parcel import pack, recipe_for_others
from hf_finetune.publish.push import push_command
from hf_finetune.publish.retry import GivenUp, again, told
from hf_finetune.recipes import load_recipe
from hf_finetune.recipes.json_schema import json_schema
from hf_finetune.recipes.load import resolve


def as_text(parcel, name):
    return parcel[name].decode() if isinstance(parcel[name], bytes) else parcel[name].read_text()


# --- the files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["full", "lora", {"kind": "lora", "merge": True}])
@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_parcel_is_a_model_and_no_place_on_this_machine(tmp_path, kind, strategy):
    folder, *_ = save(tmp_path / "run", image_model() if kind == "image" else text_model(), strategy=strategy)
    for name in (
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "training_args.bin",
        "pytorch_model.bin",
        "state.json",
    ):
        (folder / name).write_text("x")
    (folder / "checkpoints" / "checkpoint-3").mkdir(parents=True)
    (folder / "checkpoints" / "checkpoint-3" / "model.safetensors").write_text("x")
    parcel = pack(folder, "me/there")
    adapter = {"adapter_config.json", "adapter_model.safetensors"} if strategy == "lora" else set()
    reader = {"preprocessor_config.json"} if kind == "image" else {"tokenizer.json", "tokenizer_config.json"}
    assert set(parcel) - {"report.html", "pictures/confusion_matrix.png"} == {
        "config.json",
        "model.safetensors",
        "recipe.yaml",
        "metrics.json",
        "README.md",
        *adapter,
        *reader,
    }
    for name in parcel:
        if not name.endswith((".safetensors", ".png")):
            assert str(tmp_path) not in as_text(parcel, name), name
    card = ModelCard(as_text(parcel, "README.md"))
    assert 'model="me/there"' in card.text and not errors_of_card(str(card))
    if adapter:  # its base is no checkpoint of the Hub: the repository holds it whole
        assert json.loads(as_text(parcel, "adapter_config.json"))["base_model_name_or_path"] == "me/there"


def test_code_of_a_models_own_goes_with_it_and_other_code_stays(tmp_path):
    folder, *_ = save(tmp_path / "run", image_model())
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForImageClassification": "custom_head.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "custom_head.py").write_text("from .custom_layers import Layer\nimport torch\n")
    for name in ("custom_layers.py", "torch.py", "mine.py"):
        (folder / name).write_text("")
    assert {name for name in pack(folder, "me/there") if name.endswith(".py")} == {"custom_head.py", "custom_layers.py"}


def test_what_is_no_finished_run_is_not_pushed(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.json"):
        pack(tmp_path, "me/there")
    folder, *_ = save(tmp_path / "run", image_model())
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="safetensors"):
        pack(folder, "me/there")


def test_the_report_loses_its_places(tmp_path, monkeypatch):
    folder, *_ = save(tmp_path / "run", image_model())
    user = getpass.getuser()
    monkeypatch.setenv("USER", user)
    places = f"{folder.resolve()}/x, {Path.home()}/photos, /home/{user}/y, /roots"
    _change(folder / "report.json", lambda data: data["data"].update(warnings=[places]))
    assert "./x, ~/photos, ~/y, /roots" in as_text(pack(folder, "me/there"), "report.html")


def _change(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_the_report_shows_the_recipe_for_others(tmp_path):
    private = {"push": False, "repo": "secret-owner/secret-repo", "private": True}
    folder, *_ = save(
        tmp_path / "run",
        image_model(),
        hub=private,
        training={"report_to": ["tensorboard"], "run_name": "secret-run"},
    )
    assert "secret-run" in (folder / "report.html").read_text()
    page = as_text(pack(folder, "me/there"), "report.html")
    for private in ("secret-owner", "secret-repo", "secret-run", "tensorboard", str(tmp_path)):
        assert private not in page
    assert "runs/there" in page and "accuracy" in page and "<img" in page  # it is the whole page
    (folder / "report.html").unlink()  # who does not want samples shown deletes it
    assert "report.html" not in pack(folder, "me/there")


def test_places_are_found_as_html_and_json_write_them_and_those_of_the_machine_that_trained(tmp_path):
    folder, *_ = save(tmp_path / "run", image_model(), output_dir="out/it's & that")
    trained = {"home": "/people/alice", "cwd": "/people/alice/it's <here>"}
    _change(folder / "about.json", lambda about: about.update(trained=trained))
    found = "/people/alice/it's <here>/out/it's & that/x, /people/alice/it's <here>/photos, /people/alice/y"
    _change(folder / "report.json", lambda data: data["data"].update(warnings=[found]))
    _change(folder / "metrics.json", lambda metrics: metrics["train"].update(note=found))
    parcel = pack(folder, "me/there")
    for name in ("report.html", "metrics.json"):
        assert "./x, ./photos, ~/y" in as_text(parcel, name) and "alice" not in as_text(parcel, name)
    replacements = as_written({'/a/it\'s & "b"\\ü': "."})
    for written in ("/a/it's & \"b\"\\ü", "/a/it&#39;s &amp; &#34;b&#34;\\ü", "/a/it&#x27;s &amp; &quot;b&quot;\\ü",
                    json.dumps("/a/it's & \"b\"\\ü")[1:-1], "/a/it%27s%20%26%20%22b%22%5C%C3%BC"):  # fmt: skip
        assert without(f"<{written}/x>", replacements) == "<./x>"


def test_a_run_tells_where_it_was_made_and_which_splits_it_read(tmp_path):
    folder, *_ = save(tmp_path / "run", image_model())
    about = json.loads((folder / "about.json").read_text())
    assert about["trained"] == {"home": str(Path.home()), "cwd": str(Path.cwd())}


def test_the_split_that_was_read_is_named(tmp_path):
    recipe = load_recipe("sst2", "data.test_split=auto", "data.train_split=auto")
    share = {"splits": {"train": "all", "validation": 0.1, "test": 0.2}}
    assert split_of_test(recipe, share) == "all (20% held out)"
    assert split_of_test(recipe, {"splits": {"train": "train", "test": "validation"}}) == "validation"
    assert split_of_test(recipe, {}) is None  # nobody knows what auto meant
    table = data_table(recipe, share | {"rows": {"train": 80, "test": 20}})
    assert "| train | 80 | `all` |" in table and "| test | 20 | 20% of `all` |" in table
    card = model_card(recipe, LabelSpace("single_label_classification", ("a", "b")),
                      {"test": {"accuracy": 0.5, "samples": 20}}, "", about=share)  # fmt: skip
    index = yaml.safe_load(card.split("---")[1])["model-index"][0]["results"][0]["dataset"]
    assert index["split"] == "all (20% held out)"
    rows = {"text": ["good", "bad"] * 20, "label": [0, 1] * 20}
    recipe = load_recipe("sst2", "data.test_split=0.2", "data.train_split=auto", "data.validation=0.25")
    columns = recipe.data.model_copy(update={"text": "text", "label": "label"})
    data = load_data(recipe.model_copy(update={"data": columns}), DatasetDict(only=Dataset.from_dict(rows)))
    assert data.whence == {"train": "only", "validation": 0.25, "test": 0.2}


def test_the_licence_is_not_of_a_checkpoint_that_was_a_folder_here(tmp_path):
    folder, *_ = save(tmp_path / "run", image_model())
    (folder / "recipe.yaml").write_text(
        (folder / "recipe.yaml").read_text().replace(str(tmp_path / "run-base"), "owner/model")
    )
    _change(folder / "about.json", lambda about: about.update(local=["owner/model"]))
    recipe = recipe_for_others(folder, "me/there")
    assert recipe.model.checkpoint == "./model"
    assert licence_of(None, recipe) is None  # a Hub that is not there is not asked


# --- the recipe ------------------------------------------------------------------------------------------------------


def test_a_recipe_for_others_names_no_place_and_no_service(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("pretrained", "owner/photos"):
        Path(name).mkdir(parents=True)
    (tmp_path / "train.csv").write_text("")
    recipe = load_recipe(
        "cifar10",
        "model.checkpoint=pretrained",
        "data.dataset=owner/photos",  # a folder, though it looks like a data set of the Hub
        "distill={teacher: /srv/people/alice/runs/teacher}",
        "evaluation.metrics=[accuracy, evaluate:./my_metric, evaluate:owner/metric]",
        "training.report_to=[wandb]",
        "training.run_name=alice",
        "output_dir=/home/alice/runs/x",
        "hub.repo=alice/x",
        "hub.push=true",
    )
    public = public_recipe(recipe, "there")
    assert (public.model.checkpoint, public.data.dataset) == ("./pretrained", "./photos")
    assert public.distill.teacher == "./teacher" and public.output_dir == "runs/there"
    assert public.evaluation.metrics == ("accuracy", "evaluate:./my_metric", "evaluate:owner/metric")
    assert "alice" not in public.to_yaml() and "wandb" not in public.to_yaml() and not public.hub.push
    files = load_recipe("sst2", "data.dataset={train: /a/b/train.csv, test: [train.csv, 'C:\\data\\test.csv']}")
    assert public_recipe(files, "x").data.dataset == {"train": "./train.csv", "test": ("./train.csv", "./test.csv")}
    assert set(local_places(files)) == {"/a/b/train.csv", "train.csv", "C:\\data\\test.csv"}
    # What is gone by the time of the push was noted when the run was made.
    assert public_recipe(load_recipe("cifar10", "data.dataset=a/b"), "x", ("a/b",)).data.dataset == "./b"
    for name in ("cifar10", "digits", "sst2_lora", "two_labels", "sst2_distill"):
        whole = load_recipe(name)
        assert public_recipe(whole, Path(whole.output_dir).name) == whole.model_copy(update={"hub": type(whole.hub)()})


def test_a_strangers_recipe_pushes_nowhere(tmp_path, monkeypatch):
    theirs = load_recipe("digits", "hub.push=true", "hub.repo=them/theirs", "hub.private=true")
    download("them/digits", theirs, tmp_path, monkeypatch)
    resolved = resolve("hub:them/digits")
    mine = resolve("hub:them/digits", ["hub.push=true", "hub.repo=me/mine"])
    assert not resolved.recipe.hub.push and resolved.recipe.hub.repo is None and not resolved.recipe.hub.private
    assert len(resolved.notes) == 1 and "hub=" in resolved.notes[0]
    assert mine.recipe.hub.push and mine.recipe.hub.repo == "me/mine" and not mine.recipe.hub.private


@pytest.mark.parametrize("name", ["digits", "me/a--b", "me/a..b", "me/a.", "/b", "me/ä", "me/" + "x" * 99, "a/b/c"])
def test_a_repository_is_owner_and_name(name):
    with pytest.raises(RecipeError, match="owner/name"):
        load_recipe("digits", f"hub.repo={name}")


def test_a_push_needs_somewhere_to_go():
    with pytest.raises(RecipeError, match=r"hub\.repo.*hub\.push=true needs hub\.repo"):
        load_recipe("digits", "hub.push=true")


# --- the README ------------------------------------------------------------------------------------------------------

OLD = f"---\nlicense: mit\ntags:\n- mine\n- lora\n---\n\nAbove.\n\n{marked('# old')}\n\nBelow.\n"
NEW = f"---\nlicense: apache-2.0\ntags:\n- hf_finetune\n- full\n---\n\n{marked('# new')}\n"


def test_a_persons_words_and_metadata_stay():
    merged = merge(NEW, OLD)  # of an earlier version, without a record: nobody knows whose licence it is, and it stays
    assert not merged.edited and merged.text.index("Above.") < merged.text.index("# new") < merged.text.index("Below.")
    assert "# old" not in merged.text
    header = yaml.safe_load(merged.text.split("---")[1])
    assert header == {"license": "mit", "tags": ["hf_finetune", "full", "mine"]}
    assert merge(NEW, merged.text).text == merged.text
    assert merge(NEW, "").text == NEW and merge(NEW, NEW).text == NEW


FULL = "license: apache-2.0\nbase_model: a/old\ndatasets:\n- a/old\nlanguage: en\ntags:\n- hf_finetune\n- lora\n"


def test_of_the_metadata_only_what_a_person_changed_stays():
    ours = recorded(f"---\n{FULL}---\n\n{marked('# old')}\n", ["a.txt", "b.png"])
    assert files_of(ours) == {"a.txt", "b.png"} and files_of(OLD) == set() and not words_of_a_person(ours)
    new = recorded(f"---\nlibrary_name: transformers\ntags:\n- hf_finetune\n- full\n---\n\n{marked('# new')}\n")

    def header(old):
        return yaml.safe_load(merge(new, old).text.split("---")[1])

    plain = {"library_name": "transformers", "tags": ["hf_finetune", "full"]}
    assert header(ours) == plain  # our stale licence, base model and data set are gone
    assert header(ours.replace("apache-2.0", "mit")) == plain | {"license": "mit"}
    assert header(ours.replace("datasets:\n- a/old", "datasets:\n- me/mine")) == plain | {"datasets": ["me/mine"]}
    assert header(ours.replace("- lora\n", "- lora\n- birds\n"))["tags"] == ["hf_finetune", "full", "birds"]
    kept = merge(new, ours.replace("apache-2.0", "mit")).text
    assert header(kept)["license"] == "mit" and merge(new, kept).text == kept  # a third push knows it too
    by_hand = "---\nlicense: mit\nbase_model: me/base\n---\n\nMine.\n"
    assert header(by_hand) == plain | {"license": "mit", "base_model": "me/base"}


def test_a_readme_without_marks_is_a_persons_and_ours_goes_below():
    merged = merge(NEW, "# My model\n\nBy hand.\n")
    assert merged.text.index("By hand.") < merged.text.index("# new")


def test_our_part_changed_by_hand_is_kept_and_said():
    merged = merge(NEW, OLD.replace("# old", "# old, and corrected"))
    assert merged.edited and "# old, and corrected" in merged.text and "# new" in merged.text
    assert merge(NEW, merged.text).text.count("# old, and corrected") == 1


def test_whose_words_there_are():
    assert words_of_a_person(OLD) and words_of_a_person("Hello.") and words_of_a_person(NEW.replace("# new", "# mine"))
    assert not words_of_a_person(NEW) and not words_of_a_person("") and not words_of_a_person("---\na: b\n---\n")


def test_tags_of_earlier_runs_are_known_by_the_kinds_of_strategies():
    kinds = {each["properties"]["kind"]["const"] for each in json_schema()["$defs"].values() if "strategy" not in each
             and "const" in each.get("properties", {}).get("kind", {})}  # fmt: skip
    assert kinds >= _KINDS


# --- trying again, and what is said ----------------------------------------------------------------------------------


def test_only_what_may_pass_is_tried_again():
    calls = []

    def fails_twice():
        calls.append(1)
        if len(calls) < 3:
            raise ConnectionError("gone")
        return "there"

    assert again(fails_twice, (0.0, 0.0)) == "there" and len(calls) == 3
    calls.clear()
    with pytest.raises(GivenUp, match="after 1 attempts"):
        again(fails_twice, ())

    def wrong():
        calls.append(1)
        raise ValueError("bad metadata")

    calls.clear()
    with pytest.raises(GivenUp):
        again(wrong, (0.0, 0.0))
    assert len(calls) == 1


def test_an_error_shows_neither_token_nor_signature(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a-token-of-any-shape")
    error = RuntimeError("refused a-token-of-any-shape and hf_AbcdefghIjkl at https://s3/x?X-Amz-Signature=abc&y=1")
    assert told(error) == "refused *** and *** at https://s3/x"


def test_the_command_that_finishes_is_one_that_a_shell_reads():
    assert push_command(Path("runs/my run"), "me/x", True, "a b") == (
        "hf-finetune push 'runs/my run' --repo me/x --private --revision 'a b'"
    )


# --- pictures --------------------------------------------------------------------------------------------------------


def test_pictures_are_drawn_of_what_is_known():
    from io import BytesIO

    import numpy as np
    from PIL import Image

    history = [{"loss": 1.0 / step, "epoch": step / 2, "step": step} for step in range(1, 9)]
    history += [{"eval_loss": 0.5, "eval_accuracy": 0.9, "epoch": 1.0}, {"eval_loss": float("nan"), "epoch": 2.0}]
    two = Image.open(BytesIO(card_pictures.learning_curve(history, "accuracy")))
    one = Image.open(BytesIO(card_pictures.learning_curve(history, "macro_f1")))
    assert two.width > one.width and card_pictures.learning_curve(history[:1], None) is None
    names = ["cat", "dog", "a name that is far too long for a picture", "猫"]
    drawn = card_pictures.confusion_matrix(np.diag([9, 9, 9, 9]), names)
    assert Image.open(BytesIO(drawn)).format == "PNG"
    large = card_pictures.confusion_matrix(np.eye(60, dtype=int), [f"class {n}" for n in range(60)])
    assert len(large) < 300_000


# --- energy ----------------------------------------------------------------------------------------------------------


def test_energy_is_measured_where_codecarbon_is(tmp_path, monkeypatch):
    import importlib.util

    from hf_finetune.publish.card_facts import machine
    from hf_finetune.training import Energy

    monkeypatch.chdir(tmp_path)
    energy = Energy()
    sum(range(3_000_000))
    used = energy.stop()
    if importlib.util.find_spec("codecarbon") is None:
        assert used == {}
    else:
        assert used["energy_kwh"] > 0 and not list(tmp_path.iterdir())
    assert "Energy: about 0.02 Wh (estimated by codecarbon)" in machine({"train": {"energy_kwh": 2e-5}}, {})
    assert "Energy" not in machine({"train": {"seconds": 1.0}}, {})
