"""Distillation: what the student learns is the teacher's, whatever family, processor and label order it has."""

import io
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from data_samples import private_cache  # noqa: F401  (caches of the test's own)
from datasets import Dataset, DatasetDict
from model_samples import batch, save_checkpoint, tiny
from PIL import Image
from run_samples import check_same, on_one_and_on_two_processes
from torch.nn import functional
from trainer_samples import weights

from hf_finetune import finetune
from hf_finetune.data import LabelSpace
from hf_finetune.errors import RecipeError, UserError
from hf_finetune.evaluation.predictor import Predictor
from hf_finetune.model import LoadedModel, find_anatomy
from hf_finetune.recipes import load_recipe
from hf_finetune.recipes.schema import Distill
from hf_finetune.training.distill import Distillation
from hf_finetune.training.same_pixels import SamePixels
from hf_finetune.training.targets import TargetScale
from hf_finetune.training.teacher import Answers, Teacher, inputs_of, load_teacher, places_of, pooled

ONE, SEVERAL, NUMBERS = "single_label_classification", "multi_label_classification", "regression"
NAMES = ["cat", "dog", "owl"]


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def images(labels, seed=0):
    generator = np.random.default_rng(seed)
    pixels = [generator.integers(0, 255, (12, 12, 3), dtype=np.uint8) for _ in labels]
    return Dataset.from_dict({"image": [{"bytes": png(one), "path": None} for one in pixels], "label": labels})


def both(rows, test=None):
    return DatasetDict({"train": rows, "test": test or rows.select(range(6))})


def classes(count, shift=0):
    return [NAMES[(row + shift) % 3] for row in range(count)]


def teacher_of(family, folder, names=NAMES, problem_type=None, **changes):
    """A finished classifier on disk; its answers are far from even."""
    save_checkpoint(family, folder, num_labels=len(names), id2label=dict(enumerate(names)), problem_type=problem_type)
    model = transformers.AutoConfig.from_pretrained(folder)
    assert list(model.id2label.values()) == list(names)
    return folder


@pytest.fixture
def folder(tmp_path):
    save_checkpoint("resnet", tmp_path / "resnet")
    teacher_of("vit", tmp_path / "teacher")
    return tmp_path


def recipe(folder, name, *pairs, student="resnet"):
    return load_recipe(
        "beans",
        f"model.checkpoint={folder / student}",
        "data.dataset=none",
        "data.augment=none",
        "data.image=image",
        "data.label=label",
        "data.train_split=train",
        "data.test_split=test",
        "data.validation=0.2",
        "strategy=full",
        "training.num_train_epochs=1",
        "training.per_device_train_batch_size=8",
        "training.learning_rate=0.01",
        "training.report_to=none",
        "evaluation.bootstrap=0",
        f"output_dir={folder / name}",
        *pairs,
    )


def taught(folder, *pairs):
    return (f"distill.teacher={folder / 'teacher'}", *pairs)


def finished(run):
    return weights(run.model)


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


class TestTheLoss:
    def of(self, problem_type=ONE, scale=None, **settings):
        return Distillation(Distill(teacher="t", **settings), problem_type, scale=scale)

    def test_it_is_hintons(self):
        own, student, teacher = torch.tensor(3.0), torch.randn(5, 3), torch.randn(5, 3)
        loss = self.of(temperature=4.0, alpha=0.25).loss(own, student, [], {}, Answers(teacher, None))
        p, q = (torch.distributions.Categorical(logits=logits / 4) for logits in (teacher, student))
        kl = torch.distributions.kl_divergence(p, q).mean()
        torch.testing.assert_close(loss, 0.25 * 16 * kl + 0.75 * own)

    def test_a_student_that_answers_like_its_teacher_has_nothing_to_learn(self):
        logits = torch.randn(5, 3)
        assert self.of(alpha=1.0).loss(torch.tensor(9.0), logits, [], {}, Answers(logits + 2, None)) < 1e-6

    def test_of_several_labels_each_is_taught(self):
        own, student, teacher = torch.tensor(0.0), torch.randn(5, 3), torch.randn(5, 3)
        loss = self.of(SEVERAL, temperature=2.0, alpha=1.0).loss(own, student, [], {}, Answers(teacher, None))
        expected = 4 * functional.binary_cross_entropy((student / 2).sigmoid(), (teacher / 2).sigmoid())
        torch.testing.assert_close(loss, expected)

    def test_numbers_are_taught_in_the_targets_unit(self):
        """The student learns standard scores; the teacher answers in degrees."""
        scale = TargetScale.of(np.array([100.0, 200.0, 300.0]))
        student, teacher = torch.tensor([[0.5]]), torch.tensor([[250.0]])
        loss = self.of(NUMBERS, scale, alpha=1.0).loss(torch.tensor(0.0), student, [], {}, Answers(teacher, None))
        distance = (scale.natural(student) - teacher) / scale.std
        torch.testing.assert_close(loss, (distance**2).mean())

    def test_with_r_drop_both_passes_are_taught(self):
        teacher, one = torch.randn(4, 3), torch.randn(4, 3)
        distillation, own = self.of(alpha=0.5), torch.tensor(1.0)
        single = distillation.loss(own, one, [], {}, Answers(teacher, None))
        doubled = distillation.loss(own, torch.cat([one, one]), [], {}, Answers(teacher, None))
        torch.testing.assert_close(single, doubled)

    @pytest.mark.parametrize("on", ["logits", "both"])
    def test_parts_of_a_batch_add_up_to_it(self, on):
        """What accumulation and several processes stand on: the mean over rows."""
        logits, teacher, seen, features = torch.randn(8, 3), torch.randn(8, 3), torch.randn(8, 5), torch.randn(8, 4)
        distillation = self.of(on=on)
        distillation.projection = torch.nn.Linear(5, 4) if on == "both" else None
        rows = [slice(0, 8), slice(0, 4), slice(4, 8)]
        whole, first, second = (
            distillation.loss(torch.tensor(1.0), logits[r], [seen[r]], {}, Answers(teacher[r], features[r]))
            for r in rows
        )
        torch.testing.assert_close(whole, (first + second) / 2)


class TestLabels:
    def test_order_and_case_do_not_matter(self):
        assert places_of(LabelSpace(ONE, ("cat", "dog", "owl")), ["Owl", "CAT", "Dog"], "x") == [1, 2, 0]
        assert places_of(LabelSpace(ONE, ("a", "A")), ["A", "a"], "x") == [1, 0]

    def test_other_names_are_listed(self):
        with pytest.raises(UserError, match=r"teacher \(3\): cat, dog, fox\n  data \(3\): cat, dog, owl"):
            places_of(LabelSpace(ONE, tuple(NAMES)), ["cat", "dog", "fox"], "x")
        with pytest.raises(UserError, match="other labels"):
            places_of(LabelSpace(ONE, tuple(NAMES)), ["cat", "dog", "owl", "fox"], "x")

    def test_a_teacher_without_names_is_taken_in_the_datas_order(self, capsys):
        assert places_of(LabelSpace(ONE, tuple(NAMES)), ["LABEL_0", "LABEL_1", "LABEL_2"], "x") == [0, 1, 2]
        assert "does not name its labels" in capsys.readouterr().err

    def test_answers_are_in_the_datas_order(self, folder):
        """The same teacher, its output rows permuted with its names, teaches the same."""
        turned = transformers.ViTForImageClassification.from_pretrained(folder / "teacher")
        with torch.no_grad():
            for parameter in turned.classifier.parameters():
                parameter.copy_(parameter[[2, 0, 1]])
        turned.config.id2label = {0: "OWL", 1: "cat", 2: "dog"}
        turned.config.label2id = {"OWL": 0, "cat": 1, "dog": 2}
        turned.save_pretrained(folder / "turned")
        processor = transformers.AutoImageProcessor.from_pretrained(folder / "teacher")
        processor.save_pretrained(folder / "turned")
        rows = images(classes(7))
        answers = []
        for name in ("teacher", "turned"):
            chosen = recipe(folder, "run", f"distill.teacher={folder / name}", "distill.on=both")
            teacher = load_teacher(chosen, LabelSpace(ONE, tuple(NAMES)), False)
            answers.append(teacher.answer_all(rows, torch.device("cpu"), 3, 0, ""))
        torch.testing.assert_close(answers[0].logits, answers[1].logits)
        pixels = processor([Image.open(io.BytesIO(row["bytes"])) for row in rows["image"]], return_tensors="pt")
        model = transformers.ViTForImageClassification.from_pretrained(folder / "teacher").eval()
        with torch.no_grad():
            output = model(**pixels, output_hidden_states=True)
        torch.testing.assert_close(answers[0].logits, output.logits, rtol=1e-4, atol=1e-5)
        tokens = model.vit.layernorm(output.hidden_states[-1])[:, 0]
        assert answers[0].features.shape == (7, 16) and answers[0].features.dtype == torch.float16
        torch.testing.assert_close(
            answers[0].features.float(), functional.normalize(tokens.detach(), dim=-1), rtol=1e-2, atol=1e-3
        )


class TestRuns:
    def test_alpha_0_is_a_run_without_a_teacher(self, folder):
        data = both(images(classes(30)))
        plain = finetune(recipe(folder, "plain"), data=data)
        for on in ("logits", "both"):
            run = finetune(recipe(folder, on, *taught(folder, "distill.alpha=0", f"distill.on={on}")), data=data)
            assert_same(finished(run), finished(plain))
            assert run.metrics["validation"]["loss"] == plain.metrics["validation"]["loss"]

    def test_alpha_1_looks_at_no_label(self, folder):
        """Other labels of the same rows give the same weights; the teacher is followed."""
        generator = np.random.default_rng(1)
        labels = np.array(classes(40))
        runs = {}
        for name in ("right", "shuffled"):
            data = both(images(list(labels)))
            # The validation rows are a split of their own, so that the same rows train.
            data["validation"] = images(classes(9), seed=2)
            chosen = recipe(folder, name, *taught(folder, "distill.alpha=1"), "data.validation=validation")
            runs[name] = finetune(chosen, data=data)
            generator.shuffle(labels)
        assert_same(finished(runs["right"]), finished(runs["shuffled"]))

    def test_the_student_comes_to_agree_with_its_teacher(self, folder, capsys):
        rows = images(classes(40))
        pairs = ("training.num_train_epochs=12", "distill.alpha=1", "evaluation.best=loss")
        run = finetune(recipe(folder, "run", *taught(folder, *pairs)), data=both(rows))
        said = capsys.readouterr().out
        assert f"teacher {folder / 'teacher'} scores accuracy" in said and "answers of 32 rows computed once" in said
        assert set(run.metrics["train"]["teacher"]) == {"accuracy"}
        card = (run.path / "README.md").read_text()
        assert "distillation, arXiv:1503.02531" in card and str(folder) not in card
        teacher = transformers.pipeline("image-classification", model=str(folder / "teacher"))
        pictures = [Image.open(io.BytesIO(row["bytes"])) for row in rows["image"]]
        likely = [{one["label"]: one["score"] for one in answer} for answer in teacher(pictures)]
        mean = np.mean([[answer[name] for name in NAMES] for answer in likely], 0)
        found = [{one["label"]: one["score"] for one in answer} for answer in run.predict(pictures, top=3)]
        assert np.abs(np.mean([[answer[name] for name in NAMES] for answer in found], 0) - mean).max() < 0.1

    @pytest.mark.parametrize("on", ["logits", "features", "both"])
    def test_resumed_equals_uninterrupted(self, folder, on):
        data = both(images(classes(30)))
        pairs = taught(
            folder,
            f"distill.on={on}",
            "training.num_train_epochs=2",
            "training.save_total_limit=5",
        )
        whole = finetune(recipe(folder, "whole", *pairs), data=data)
        shutil.copytree(folder / "whole", folder / "parts")
        for name in ("metrics.json", "model.safetensors"):
            (folder / "parts" / name).unlink()
        shutil.rmtree(folder / "parts" / "checkpoints" / "checkpoint-6")
        again = finetune(recipe(folder, "parts", *pairs), data=data)
        assert_same(finished(again), finished(whole))
        last = [
            folder / name / "checkpoints" / "checkpoint-6" / "projection.safetensors" for name in ("whole", "parts")
        ]
        assert [path.exists() for path in last] == [on != "logits"] * 2
        if on != "logits":
            assert last[0].read_bytes() == last[1].read_bytes()
            assert last[0].read_bytes() != (last[0].parents[1] / "checkpoint-3" / last[0].name).read_bytes()

    def test_four_accumulated_batches_equal_one_four_times_as_large(self, folder):
        save_checkpoint("vit", folder / "vit", attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0)
        data = both(images(classes(40)))
        sizes = {"big": (16, 1), "small": (4, 4)}
        found = {}
        for name, (size, steps) in sizes.items():
            pairs = taught(
                folder,
                "distill.on=both",
                f"training.per_device_train_batch_size={size}",
                f"training.gradient_accumulation_steps={steps}",
                "training.optim=sgd",
                "training.max_steps=2",
            )
            found[name] = finished(finetune(recipe(folder, name, *pairs, student="vit"), data=data))
        for name, tensor in found["big"].items():
            torch.testing.assert_close(found["small"][name], tensor, rtol=1e-3, atol=1e-5)

    def test_with_changed_images_the_teacher_sees_the_same(self, folder, capsys):
        data = both(images(classes(30)))
        pairs = taught(folder, "distill.on=both", "data.augment=basic", "data.mixup=0.2")
        run = finetune(recipe(folder, "run", *pairs), data=data)
        assert "answers each batch as the student sees it" in capsys.readouterr().out
        assert all(torch.isfinite(tensor).all() for tensor in finished(run).values() if tensor.is_floating_point())

    @pytest.mark.parametrize(
        "strategy",
        [
            "lora",
            "lp_ft",
            "{kind: stages, stages: [{strategy: head, epochs: 1}, {strategy: full, epochs: 1}]}",
        ],
    )
    def test_every_strategy_that_learns(self, folder, strategy):
        save_checkpoint("vit", folder / "vit")
        data = both(images(classes(30)))
        pairs = taught(folder, "distill.on=both", f"strategy={strategy}")
        pairs = (*pairs, "training.learning_rate=null") if "stages" in strategy else pairs
        pairs = pairs if strategy == "lora" else (*pairs, "training.num_train_epochs=2")
        run = finetune(recipe(folder, "run", *pairs, student="vit"), data=data)
        steps = sorted((run.path / "checkpoints").glob("checkpoint-*/projection.safetensors"))
        assert steps and run.metrics["train"]["loss"] > 0

    def test_a_run_with_another_head_can_teach(self, folder):
        """A finished run of this package: its head's last layer is where the features come from."""
        data = both(images(classes(30)))
        head = "model.head={kind: mlp, hidden: [7]}"
        teacher = finetune(recipe(folder, "first", head), data=data)
        run = finetune(recipe(folder, "run", f"distill.teacher={teacher.path}", "distill.on=both"), data=data)
        assert run.metrics["train"]["teacher"]["accuracy"] == teacher.metrics["validation"]["accuracy"]

    def test_another_teacher_cannot_go_on(self, folder):
        data = both(images(classes(30)))
        finetune(recipe(folder, "run", *taught(folder)), data=data)
        (folder / "run" / "metrics.json").unlink()
        tiny("vit", seed=3, id2label=dict(enumerate(NAMES))).save_pretrained(folder / "teacher")
        with pytest.raises(UserError, match="The teacher's weights are not those"):
            finetune(recipe(folder, "run", *taught(folder)), data=data)

    def test_numbers(self, folder):
        teacher_of("vit", folder / "teacher", ["degrees"], problem_type=NUMBERS)
        data = both(images([float(200 + 30 * (row % 5)) for row in range(30)]))
        run = finetune(recipe(folder, "run", *taught(folder), "evaluation.metrics=null"), data=data)
        assert set(run.metrics["train"]["teacher"]) == {"mse"}
        with pytest.raises(UserError, match="answers regression, and the data is single label"):
            finetune(recipe(folder, "other", *taught(folder)), data=both(images(classes(30))))


def test_several_labels(folder):
    teacher_of("vit", folder / "teacher", ["owl", "cat", "dog"], problem_type=SEVERAL)
    rows = images([[name] if row % 4 else ["cat", "dog"] for row, name in enumerate(classes(30))])
    run = finetune(recipe(folder, "run", *taught(folder), "evaluation.metrics=null"), data=both(rows))
    assert run.model.config.problem_type == SEVERAL and len(run.metrics["train"]["teacher"]) == 1


def test_bert_teaches_distilbert_with_another_tokenizer(tmp_path, capsys):
    """The teacher reads the texts by its own vocabulary."""
    teacher_of("bert", tmp_path / "teacher", ["no", "yes"])
    save_checkpoint("distilbert", tmp_path / "student")
    words = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2} | {letter: 3 + place for place, letter in enumerate("abcdefghijklmno")}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[SEP]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    other = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    other.save_pretrained(tmp_path / "teacher")
    texts = [("w5 abc " if row % 2 else "w7 no me ") * (1 + row % 3) for row in range(30)]
    rows = Dataset.from_dict({"text": texts, "label": ["yes" if row % 2 else "no" for row in range(30)]})
    run = finetune(
        load_recipe(
            "sst2",
            f"model.checkpoint={tmp_path / 'student'}",
            "data.dataset=none",
            "data.text=null",
            "data.label=null",
            "data.train_split=auto",
            "data.test_split=auto",
            "data.validation=0.2",
            "data.max_length=null",
            "training.num_train_epochs=1",
            "training.per_device_train_batch_size=8",
            "training.train_sampling_strategy=group_by_length",
            "evaluation.bootstrap=0",
            f"distill.teacher={tmp_path / 'teacher'}",
            "distill.on=both",
            f"output_dir={tmp_path / 'run'}",
        ),
        data=both(rows),
    )
    assert "a projection 16 -> 16 learns" in capsys.readouterr().out
    chosen = run.recipe
    teacher = load_teacher(chosen, LabelSpace(ONE, ("no", "yes")), False)
    found = teacher.answer_all(rows.add_column("id", range(30)), torch.device("cpu"), 4, 0, "").logits
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "teacher").eval()
    for row in (0, 1, 2):
        with torch.no_grad():
            alone = model(**other(texts[row], return_tensors="pt")).logits[0]
        torch.testing.assert_close(found[row], alone, rtol=1e-4, atol=1e-5)


# One of each kind of output layer: linear, after a pooling, behind a head of several layers, at every token.
@pytest.mark.parametrize(
    "family", ["deit", "swin", "resnet", "mobilenet_v2", "timm_vit", "timm_vgg", "bert", "roberta", "xlnet", "gpt2"]
)
def test_features_are_what_the_output_layer_receives(family):
    """One row a sample, as wide as the output layer says, and enough to give the logits where that layer is linear."""
    model = tiny(family, id2label=dict(enumerate(NAMES))).eval()
    loaded = LoadedModel(model, None, (), None, find_anatomy(model))
    teacher = Teacher("t", Predictor(loaded), [0, 1, 2], True)
    inputs = {name: value for name, value in batch(family).items() if name != "labels"}
    answers = teacher(inputs)
    assert answers.features.shape == (4, teacher.width)
    with inputs_of(teacher.output) as seen, torch.no_grad():
        logits = model(**inputs).logits
    torch.testing.assert_close(teacher.output(pooled(seen, inputs)) if family != "timm_vgg" else logits, logits)


def test_the_teachers_pixels_are_what_its_processor_gives():
    student = transformers.ViTImageProcessor(size={"height": 32, "width": 32})
    teacher = transformers.ViTImageProcessor(
        size={"height": 32, "width": 32}, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))
    seen, expected = (one(picture, return_tensors="pt")["pixel_values"] for one in (student, teacher))
    torch.testing.assert_close(SamePixels(student, teacher)(seen), expected, rtol=1e-4, atol=1e-4)
    larger = transformers.ViTImageProcessor(size={"height": 48, "width": 64})
    assert SamePixels(student, larger)(seen).shape == (1, 3, 48, 64)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["strategy=features"], "no teacher is asked"),
        (["strategy=head", "distill.on=features"], "with strategy=head nothing before it learns"),
        (["distill.on=features", "distill.alpha=1"], "leaves the output layer untrained"),
        (["distill.on=features", "distill.temperature=3"], "does not ask for them"),
        (["data.problem_type=regression", "distill.temperature=3", "evaluation.metrics=null"], "softens classes"),
        (["output_dir=t"], "where the student will be"),
        (["distill.alpha=1", "loss.kind=focal"], "looks at the teacher alone"),
        (["distill.alpha=1", "training.label_smoothing_factor=0.1"], "distill.alpha=1 takes none"),
        (["loss.kind=coral"], "other scores than a teacher's softmax"),
        (["model.in_channels=1", "data.mixup=0.2"], "both must take RGB"),
    ],
)
def test_what_cannot_go_together(pairs, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("digits", "distill.teacher=t", *pairs)


def test_hidden_words_cannot_be_shown_to_a_teacher():
    with pytest.raises(RecipeError, match="teacher with another tokenizer"):
        load_recipe("sst2", "distill.teacher=t", "data.augment.word_dropout=0.1")


def test_the_mean_gradient_of_the_projection(monkeypatch):
    """DDP does not know it, so it is averaged by hand."""
    distillation = Distillation(Distill(teacher="t"), ONE, projection=torch.nn.Linear(2, 2))
    for parameter in distillation.projection.parameters():
        parameter.grad = torch.ones_like(parameter)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: tensor.mul_(3.0))  # 1 here, 2 there
    distillation.on_pre_optimizer_step(SimpleNamespace(world_size=2), None, None)
    assert all((parameter.grad == 1.5).all() for parameter in distillation.projection.parameters())


JOB = (
    "recipe=digits", "model.checkpoint=package:digits-vit", "data.max_train_samples=101", "data.max_eval_samples=20",
    "training.num_train_epochs=1", "evaluation.bootstrap=0", "precision=no", "training.optim=sgd",
    "training.learning_rate=0.05", "distill.teacher=teacher", "distill.on=both",
)  # fmt: skip


@pytest.mark.long
@pytest.mark.distributed
@pytest.mark.parametrize("augment", ["none", "{pad_crop: 4}"])
def test_a_run_on_two_processes_equals_one(call, run_in, augment):
    run_in.folder.mkdir()
    teacher_of("resnet", run_in.folder / "teacher", [str(digit) for digit in range(10)])
    both = on_one_and_on_two_processes(call, run_in, (*JOB, f"data.augment={augment}"), 16)
    step = max((both.one / "checkpoints").glob("checkpoint-*"), key=lambda path: path.stat().st_mtime).name
    one, two = check_same(both, "model.safetensors", f"checkpoints/{step}/projection.safetensors")
    assert two["train"]["teacher"] == one["train"]["teacher"]
