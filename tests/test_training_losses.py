"""What each loss means: limits, identities, and what a paper's decision is."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from trainer_samples import trainer, weights

from hf_finetune.data import LabelSpace
from hf_finetune.errors import RecipeError, UserError
from hf_finetune.recipes.load import load_recipe
from hf_finetune.recipes.schema import Loss
from hf_finetune.training.class_weights import class_counts, class_shares, class_weights
from hf_finetune.training.coral import CoralHead, falling, put_in_form
from hf_finetune.training.l2_sp import StartingPoint
from hf_finetune.training.losses import loss_function, training_loss
from hf_finetune.training.objective import Objective
from hf_finetune.training.r_drop import divergence, draws_at_random

ONE, SEVERAL, NUMBERS = "single_label_classification", "multi_label_classification", "regression"
CATS = LabelSpace(ONE, ("cat", "dog", "eel"))


def logits_and_labels(rows=12, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, classes, generator=generator)
    return logits.requires_grad_(), torch.randint(0, classes, (rows,), generator=generator)


def loss_and_gradient(loss, logits, labels):
    value = loss(logits, labels)
    (gradient,) = torch.autograd.grad(value, logits)
    return value.detach(), gradient


def assert_same(one, other, logits, labels, **tolerance):
    for a, b in zip(loss_and_gradient(one, logits, labels), loss_and_gradient(other, logits, labels), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


class TestFocal:
    def test_gamma_0_is_cross_entropy(self):
        assert_same(training_loss(Loss(kind="focal", gamma=0), ONE), loss_function(ONE), *logits_and_labels())

    def test_gamma_0_is_bce_for_several_labels(self):
        logits, _ = logits_and_labels()
        labels = (torch.rand(12, 3) > 0.5).float()
        assert_same(training_loss(Loss(kind="focal", gamma=0), SEVERAL), loss_function(SEVERAL), logits, labels)

    def test_it_is_the_papers_formula(self):
        logits, labels = logits_and_labels()
        p = logits.softmax(-1)[torch.arange(12), labels]
        expected = (-((1 - p) ** 2) * p.log()).mean()
        torch.testing.assert_close(training_loss(Loss(kind="focal"), ONE)(logits, labels), expected)

    def test_a_sure_answer_has_a_finite_gradient(self):
        logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
        _, gradient = loss_and_gradient(training_loss(Loss(kind="focal", gamma=0.5), ONE), logits, torch.tensor([0]))
        assert gradient.isfinite().all()


class TestOneAgainstTheRest:
    def test_it_is_bce_with_one_hot_targets(self):
        logits, labels = logits_and_labels()
        expected = functional.binary_cross_entropy_with_logits(logits, functional.one_hot(labels, 3).float())
        torch.testing.assert_close(training_loss(Loss(kind="bce"), ONE)(logits, labels), expected)

    def test_smoothing_smooths_the_targets(self):
        logits, labels = logits_and_labels()
        smooth = functional.one_hot(labels, 3) * 0.9 + 0.1 / 3
        expected = functional.binary_cross_entropy_with_logits(logits, smooth)
        torch.testing.assert_close(training_loss(Loss(kind="bce"), ONE, 0.1)(logits, labels), expected)


class TestNumbers:
    x, y = torch.tensor([[0.3], [-2.0], [7.0]]), torch.tensor([0.0, 0.5, -1.0])

    def value(self, **settings):
        return training_loss(Loss(**settings), NUMBERS)(self.x, self.y).item()

    def test_huber_between_squared_and_absolute(self):
        assert self.value(kind="huber", delta=1e6) == pytest.approx(self.value(kind="mse") / 2)
        assert self.value(kind="huber", delta=1e-4) / 1e-4 == pytest.approx(self.value(kind="mae"), rel=1e-3)

    def test_auto_is_squared(self):
        assert self.value() == self.value(kind="mse") == pytest.approx((0.09 + 6.25 + 64) / 3)


class TestSoftLabels:
    """mixup and CutMix give shares; each loss takes lambda x loss(a) + (1 - lambda) x loss(b)."""

    @pytest.mark.parametrize("settings", [{}, {"kind": "focal"}, {"kind": "bce"}, {"kind": "coral"}])
    @pytest.mark.parametrize("weighted", [False, True])
    def test_every_loss_of_one_class_takes_them(self, settings, weighted):
        scale = torch.tensor([0.5, 1.0, 2.0]) if weighted else None
        loss = training_loss(Loss(**settings), ONE, 0.0, scale)
        logits, labels = logits_and_labels()
        other = labels.roll(1)
        soft = 0.3 * functional.one_hot(labels, 3) + 0.7 * functional.one_hot(other, 3)
        torch.testing.assert_close(loss(logits, soft), 0.3 * loss(logits, labels) + 0.7 * loss(logits, other))

    def test_one_hot_is_hard(self):
        for settings in ({}, {"kind": "focal"}, {"kind": "bce"}, {"kind": "coral"}, {"logit_adjustment": 1.0}):
            loss = training_loss(Loss(**settings), ONE, 0.1 if settings == {} else 0.0, None, torch.ones(3) / 3)
            logits, labels = logits_and_labels()
            torch.testing.assert_close(loss(logits, functional.one_hot(labels, 3).float()), loss(logits, labels))


class TestClassWeights:
    def test_they_equal_repeated_rows(self):
        """Weights 1, 2, 3: the loss of the whole split is that of a split with rows repeated as often."""
        for settings in ({}, {"kind": "focal"}, {"kind": "bce"}, {"kind": "coral"}):
            for smoothing in (0.0, 0.2):
                logits, labels = logits_and_labels()
                scale = class_weights((1, 2, 3), CATS, class_counts(labels, 3))
                repeated = torch.repeat_interleave(torch.arange(12), labels + 1)
                plain = training_loss(Loss(**settings), ONE, smoothing)
                assert_same(
                    training_loss(Loss(**settings), ONE, smoothing, scale),
                    lambda logits, labels, plain=plain, rows=repeated: plain(logits[rows], labels[rows]),
                    logits,
                    labels,
                )

    def test_two_halves_give_what_the_batch_gives(self):
        """Not so if each batch were divided by its own weights."""
        logits, labels = logits_and_labels()
        loss = training_loss(Loss(), ONE, 0.0, class_weights("balanced", CATS, class_counts(labels, 3)))
        halves = (loss(logits[:6], labels[:6]) + loss(logits[6:], labels[6:])) / 2
        torch.testing.assert_close(loss(logits, labels), halves)

    def test_balanced_gives_every_class_the_same_say(self):
        labels = [0] * 8 + [1] * 2
        scale = class_weights("balanced", CATS, class_counts(labels, 3))
        assert scale.tolist() == pytest.approx([10 / 16, 10 / 4, 1.0])  # no row is an eel

    def test_by_name_and_unknown_names(self):
        counts = class_counts([0, 1, 2], 3)
        assert class_weights({"eel": 4.0}, CATS, counts).tolist() == [0.5, 0.5, 2.0]
        with pytest.raises(UserError, match=r"names cow, and the classes are cat, dog, eel"):
            class_weights({"cow": 2.0}, CATS, counts)
        with pytest.raises(UserError, match="lists 2 weights, and there are 3 classes: cat, dog, eel"):
            class_weights((1.0, 2.0), CATS, counts)

    def test_several_labels_weigh_by_column(self):
        labels = LabelSpace(SEVERAL, ("a", "b"))
        scale = class_weights({"a": 3.0}, labels, class_counts([[1, 0], [1, 1]], 2))
        assert scale.tolist() == [1.5, 0.5]
        loss = training_loss(Loss(class_weights={"a": 3.0}), SEVERAL, 0.0, scale)
        logits, hot = torch.zeros(1, 2), torch.ones(1, 2)
        assert loss(logits, hot).item() == pytest.approx(loss_function(SEVERAL)(logits, hot).item())


class TestLogitAdjustment:
    shares = class_shares(class_counts([0] * 6 + [1] * 3 + [2], 3))

    def test_0_is_none(self):
        loss = training_loss(Loss(logit_adjustment=0), ONE, 0.0, None, self.shares)
        assert_same(loss, loss_function(ONE), *logits_and_labels(), rtol=0, atol=0)

    def test_1_adds_the_log_shares(self):
        logits, labels = logits_and_labels()
        loss = training_loss(Loss(logit_adjustment=1), ONE, 0.0, None, self.shares)
        torch.testing.assert_close(
            loss(logits, labels), functional.cross_entropy(logits + torch.tensor([0.6, 0.3, 0.1]).log(), labels)
        )

    def test_a_class_without_rows_is_finite(self):
        assert class_shares(class_counts([0, 0], 2)).log().isfinite().all()

    def test_validation_has_none(self):
        objective = Objective(
            ONE, training_loss(Loss(logit_adjustment=1), ONE, 0, None, self.shares), loss_function(ONE)
        )
        logits, labels = logits_and_labels()
        assert objective.loss(logits, labels, training=False) == functional.cross_entropy(logits, labels)
        assert objective.loss(logits, labels, training=True) != functional.cross_entropy(logits, labels)


class TestCoral:
    def test_it_is_the_papers_loss(self):
        """Sum over k of the binary cross-entropies of "above class k", whose logits are w x + b_k."""
        torch.manual_seed(0)
        score, b = torch.randn(9, 1), torch.tensor([2.0, 0.5, -1.0])
        above = score + b
        logits = functional.pad(above.cumsum(-1), (1, 0))
        labels = torch.randint(0, 4, (9,))
        targets = (labels.unsqueeze(1) > torch.arange(3)).float()
        expected = functional.binary_cross_entropy_with_logits(above, targets, reduction="none").sum(-1).mean()
        torch.testing.assert_close(training_loss(Loss(kind="coral"), ONE)(logits, labels), expected)

    def test_the_largest_logit_is_the_papers_decision(self):
        torch.manual_seed(0)
        layer = nn.Linear(5, 6)
        with torch.no_grad():
            layer.weight.mul_(20.0)
            layer.bias.copy_(torch.tensor([0.0, 2.0, 3.5, 3.0, 4.0, -3.0]))  # the differences do not all fall
        put_in_form(layer)
        logits = layer(4 * torch.randn(500, 5))
        above = logits.diff(dim=-1)
        assert (above.diff(dim=-1) <= 1e-4).all()  # rank-consistent: no chance rises with the class
        assert torch.equal(logits.argmax(-1), (above.sigmoid() > 0.5).sum(-1))
        assert len(logits.argmax(-1).unique()) > 3

    def test_one_weight_vector_and_falling_thresholds(self):
        layer = nn.Linear(5, 4)
        put_in_form(layer)
        steps = layer.weight.diff(dim=0)
        torch.testing.assert_close(steps, steps[:1].expand_as(steps))
        before = {name: value.clone() for name, value in layer.state_dict().items()}
        put_in_form(layer)
        for name, value in layer.state_dict().items():
            torch.testing.assert_close(value, before[name])

    def test_falling_is_isotonic_regression(self):
        from sklearn.isotonic import isotonic_regression

        for seed in range(20):
            values = torch.randn(9, generator=torch.Generator().manual_seed(seed)).double()
            expected = torch.tensor(isotonic_regression(values.numpy(), increasing=False).copy())
            torch.testing.assert_close(falling(values), expected)

    def test_training_keeps_the_form(self, tmp_path):
        run = trainer(
            tmp_path,
            "vit",
            extra={
                "objective": Objective(ONE, training_loss(Loss(kind="coral"), ONE), loss_function(ONE)),
                "callbacks": lambda applied: [CoralHead(applied.model.classifier)],
            },
        )
        run.train()
        steps = run.model.classifier.weight.diff(dim=0)
        torch.testing.assert_close(steps, steps[:1].expand_as(steps))
        assert (run.model.classifier.bias.diff().diff() <= 1e-6).all()

    def test_a_layer_without_biases_is_refused(self):
        with pytest.raises(UserError, match="weights and biases"):
            CoralHead(nn.Linear(4, 3, bias=False))


class TestRDrop:
    def test_0_is_one_pass(self, tmp_path):
        trained = []
        for folder, objective in (("a", Objective(ONE, loss_function(ONE), loss_function(ONE), 0.0)), ("b", None)):
            run = trainer(tmp_path / folder, "bert", extra={"objective": objective}, num_train_epochs=1)
            run.train()
            trained.append(weights(run.model))
        for name, tensor in trained[0].items():
            assert torch.equal(tensor, trained[1][name]), name

    def test_without_dropout_the_divergence_is_0(self, tmp_path):
        plain = Objective.plain(ONE)
        runs = {
            weight: trainer(
                tmp_path / str(weight),
                "vit",
                still=True,
                num_train_epochs=1,
                extra={"objective": Objective(ONE, plain.training, plain.validation, weight)},
            )
            for weight in (0.0, 5.0)
        }
        batch = next(iter(runs[0.0].get_train_dataloader()))
        losses = [run.compute_loss(run.model.train(), batch).item() for run in runs.values()]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)

    def test_it_is_the_mean_of_both_kl_divergences(self):
        one, other = torch.randn(7, 3), torch.randn(7, 3)
        p, q = (torch.distributions.Categorical(logits=logits) for logits in (one, other))
        kl = torch.distributions.kl_divergence
        torch.testing.assert_close(divergence(one, other, ONE), (kl(p, q) + kl(q, p)).mean() / 2)
        p, q = (torch.distributions.Bernoulli(logits=logits) for logits in (one, other))
        torch.testing.assert_close(divergence(one, other, SEVERAL), (kl(p, q) + kl(q, p)).mean() / 2)
        p, q = (torch.distributions.Normal(logits, 1.0) for logits in (one, other))
        torch.testing.assert_close(divergence(one, other, NUMBERS), (kl(p, q) + kl(q, p)).mean() / 2)

    def test_windows_of_a_text_stay_together(self):
        objective = Objective(ONE, loss_function(ONE), loss_function(ONE), 1.0)
        features = {"input_ids": torch.arange(3).unsqueeze(1), "text_of_window": torch.tensor([0, 0, 1])}
        doubled, labels = objective.inputs(features, torch.tensor([4, 5]))
        assert doubled["text_of_window"].tolist() == [0, 0, 1, 2, 2, 3]
        assert doubled["input_ids"].flatten().tolist() == [0, 1, 2, 0, 1, 2]
        assert labels.tolist() == [4, 5, 4, 5]

    def test_dropout_is_looked_for_where_it_works(self, tmp_path):
        from model_samples import tiny

        model = tiny("bert")
        assert draws_at_random(model)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        for module in model.modules():
            for name in ("dropout", "dropout_prob", "attention_dropout"):
                if isinstance(getattr(module, name, None), float):
                    setattr(module, name, 0.0)
        assert not draws_at_random(model)


class TestL2SP:
    def run(self, folder, weight, family="vit", **training):
        return trainer(
            folder,
            family,
            max_steps=6,
            eval_strategy="steps",
            eval_steps=6,
            save_steps=6,
            extra={"callbacks": lambda applied: [StartingPoint(applied, weight)]},
            **training,
        )

    @pytest.mark.parametrize("optim", ["adamw_torch", "sgd"])
    def test_an_infinite_weight_keeps_the_checkpoint(self, tmp_path, optim):
        run = self.run(tmp_path, 1e9, optim=optim)
        before = weights(run.model)
        run.train()
        for name, tensor in weights(run.model).items():
            if name.startswith("classifier"):
                assert not torch.equal(tensor, before[name]), name
            else:
                torch.testing.assert_close(tensor, before[name], rtol=0, atol=1e-6, msg=name)

    def test_0_changes_nothing(self, tmp_path):
        start = StartingPoint(trainer(tmp_path, "vit").applied, 0.0)
        parameter = nn.Parameter(torch.ones(2))
        start.start[id(parameter)] = torch.zeros(2)
        start.on_optimizer_step(None, None, None, optimizer=torch.optim.SGD([parameter], lr=1.0))
        assert parameter.tolist() == [1.0, 1.0]

    def test_the_step_minimises_penalty_and_distance(self, tmp_path):
        """argmin over w of lambda / 2 |w - w0|^2 + |w - step|^2 / (2 rate)."""
        start = StartingPoint(trainer(tmp_path, "vit").applied, 3.0)
        parameter = nn.Parameter(torch.tensor([2.0]))
        start.start[id(parameter)] = torch.tensor([1.0])
        start.on_optimizer_step(None, None, None, optimizer=torch.optim.SGD([parameter], lr=0.5))
        w = parameter.item()
        assert 3.0 * (w - 1.0) + (w - 2.0) / 0.5 == pytest.approx(0.0, abs=1e-6)

    def test_weight_decay_is_the_heads_alone(self, tmp_path):
        run = self.run(tmp_path, 0.1, weight_decay=0.3)
        names = {id(parameter): name for name, parameter in run.model.named_parameters()}
        groups = run.create_optimizer().param_groups
        decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
        assert decayed == {"classifier.weight"}

    def test_resumed_equals_uninterrupted(self, tmp_path):
        settings = {"eval_strategy": "steps", "eval_steps": 3, "save_steps": 3, "max_steps": 6}
        extra = {"callbacks": lambda applied: [StartingPoint(applied, 10.0)]}
        whole = trainer(tmp_path / "a", "vit", extra=extra, **settings)
        whole.train()
        part = trainer(tmp_path / "a", "vit", extra=extra, **settings)
        part.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoints" / "checkpoint-3"))
        for name, tensor in weights(whole.model).items():
            assert torch.equal(tensor, weights(part.model)[name]), name


class TestRefused:
    @pytest.mark.parametrize(
        ("pairs", "message"),
        [
            (["data.problem_type=regression", "loss.kind=focal"], "focal is not a loss of regression"),
            (["loss.gamma=3"], "use loss.kind=focal"),
            (["loss.delta=3"], "use loss.kind=huber"),
            (["loss.kind=mae", "loss.class_weights=balanced"], "are for classes, and loss.kind is mae"),
            (["loss.kind=bce", "loss.logit_adjustment=1"], "shifts the logits of a softmax, and loss.kind is bce"),
            (["loss.sampling=balanced", "loss.class_weights=balanced"], "together they overdo it: keep one"),
            (["loss.sampling=balanced", "training.train_sampling_strategy=sequential"], "are two orders: keep one"),
            (["strategy=lora", "loss.l2_sp=0.1"], "with strategy=lora none does"),
            (["strategy=scratch", "loss.l2_sp=0.1"], "strategy=scratch takes none from it"),
            (["loss.kind=coral", "training.label_smoothing_factor=0.1"], "without an order"),
            (["loss.kind=coral", "model.head=cosine"], "model.head.kind is cosine"),
            (["average.soup_size=2"], "add average.soup=greedy or uniform"),
            (["data.problem_type=multi_label_classification", "loss.class_weights=balanced"], "give weights by name"),
        ],
    )
    def test_by_the_recipe(self, pairs, message):
        with pytest.raises(RecipeError, match=message):
            load_recipe("digits", *pairs)

    def test_by_the_data(self):
        with pytest.raises(
            UserError, match=r"loss.kind=focal: the data is regression, which takes auto, mse, mae, huber"
        ):
            training_loss(Loss(kind="focal"), NUMBERS)
        with pytest.raises(UserError, match="logit_adjustment does not fit the data, which is multi label"):
            training_loss(Loss(logit_adjustment=1.0), SEVERAL)
