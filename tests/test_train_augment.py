"""Augmentation, losses and schedules against independent formulations."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from support.networks import message
from torch import Tensor, nn
from torch.nn import functional as F

import senetzoo
from senetzoo.errors import ConfigError
from senetzoo.train import augment
from senetzoo.train.augment import Draws
from senetzoo.train.experiment import Experiment
from senetzoo.train.optim import make_optimizer
from senetzoo.train.recipe import Recipe
from senetzoo.train.step import depths, loss_of

TINY = Recipe(name="tiny", model="lenet5", data="digits", phases=((32, 3),))


def draws(count: int, seed: int = 0, rows: slice | None = None) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), count, rows or slice(None))


def every(x: Tensor, given: Draws) -> Tensor:
    """Apply all functions to `x`, one after another."""
    images = (x.permute(0, 2, 3, 1) * 10).clamp(0, 255).to(torch.uint8)
    y = augment.crop_and_flip(images, torch.arange(len(images)), 8, True, given).permute(0, 3, 1, 2)
    y = augment.rotate_and_zoom(y.float(), 20.0, 0.1, given)
    y = augment.degrade(y, 0.1, 0.7, 1.5, (0.2, 0.3, 0.4), given)
    y = augment.erase(augment.cutout(y, 3, given), 0.5, given)
    return augment.mix(y, torch.arange(len(y)) % 3, 3, 0.2, 1.0, given)[0]


@pytest.mark.parametrize("seed", range(4))
def test_a_part_of_a_batch_is_what_the_whole_batch_has_there(seed: int) -> None:
    x = torch.rand(8, 3, 12, 12, generator=torch.Generator().manual_seed(seed)) * 25
    whole = every(x, draws(8, seed))
    first = every(x[:4], draws(8, seed, slice(0, 4)))
    torch.testing.assert_close(first, whole[:4])
    second = every(x[4:], draws(8, seed, slice(4, 8)))
    torch.testing.assert_close(second, whole[4:])


def test_cutout_clears_one_square_and_nothing_else() -> None:
    x = torch.rand(64, 3, 12, 12) + 1
    y = augment.cutout(x, 5, draws(64))
    gone = (y == 0).all(1)
    assert torch.equal(y.masked_select(~gone[:, None]), x.masked_select(~gone[:, None]))
    for mask in gone:
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        assert torch.equal(mask[rows][:, columns], torch.ones(len(rows), len(columns)).bool())
        # The border can cut a side to half of the square's.
        assert 3 <= len(rows) <= 5
        assert 3 <= len(columns) <= 5


def test_erasing_takes_its_share_of_images_and_area() -> None:
    x = torch.ones(2000, 1, 16, 16)
    y = augment.erase(x, 0.25, draws(2000))
    area = (y == 0).double().mean((1, 2, 3))
    hit = area > 0
    assert 0.2 < float(hit.double().mean()) < 0.3
    assert float(area.max()) < 0.4
    assert float(area[hit].min()) >= 1 / 256
    assert torch.equal(augment.erase(x[:5], 0.0, draws(5)), x[:5])


@pytest.mark.parametrize("seed", range(5))
def test_mixup_is_a_weighted_mean_of_pairs_and_their_labels(seed: int) -> None:
    x, labels = torch.randn(5, 2, 4, 4), torch.tensor([0, 1, 2, 0, 1])
    y, target = augment.mix(x, labels, 3, 0.8, 0.0, draws(5, seed))
    kept = float(target[0, 0])
    assert 0 < kept < 1
    for a, b in ((0, 1), (1, 0), (2, 3), (3, 2)):
        torch.testing.assert_close(y[a], kept * x[a] + (1 - kept) * x[b])
        expected = kept * F.one_hot(labels[a], 3) + (1 - kept) * F.one_hot(labels[b], 3)
        torch.testing.assert_close(target[a], expected)
    torch.testing.assert_close(y[4], x[4])  # without a partner
    torch.testing.assert_close(target.sum(1), torch.ones(5))


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_weighs_labels_by_the_pixels_that_stayed(seed: int) -> None:
    x, labels = torch.randn(4, 1, 9, 7), torch.tensor([0, 1, 2, 0])
    original = x.clone()
    y, target = augment.mix(x, labels, 3, 0.0, 1.0, draws(4, seed))
    assert torch.equal(x, original)
    for a, b in ((0, 1), (1, 0), (2, 3), (3, 2)):
        own, other = y[a] == x[a], y[a] == x[b]
        assert bool((own | other).all())
        stayed = float(own.double().mean())
        assert float(target[a, labels[a]]) == pytest.approx(stayed, abs=1e-6)
        assert float(target[a, labels[b]]) == pytest.approx(1 - stayed, abs=1e-6)


def test_weights_of_mixing_follow_the_beta_distribution() -> None:
    x, labels = torch.zeros(2, 1, 2, 2), torch.tensor([0, 1])
    seen = torch.stack(
        [augment.mix(x, labels, 2, 0.5, 0.0, draws(2, seed))[1][0, 0] for seed in range(600)]
    )
    ordered = torch.distributions.Beta(0.5, 0.5)
    assert float(seen.mean()) == pytest.approx(float(ordered.mean), abs=0.05)
    assert float(seen.var()) == pytest.approx(float(ordered.variance), abs=0.03)


def test_blur_is_torchvisions_and_noise_has_its_deviation() -> None:
    from torchvision.transforms.v2 import functional

    x = torch.randn(3, 3, 16, 16)
    ours = augment.degrade(x, 0.0, 1.0, 1.0, (1.0,) * 3, draws(3))
    theirs = functional.gaussian_blur(x, [7, 7], [1.0, 1.0])
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)

    std = (0.2, 0.25, 0.5)
    noisy = augment.degrade(torch.zeros(200, 3, 16, 16), 0.1, 0.0, 1.0, std, draws(200))
    expected = 0.1 / torch.tensor(std)
    torch.testing.assert_close(noisy.std((0, 2, 3)), expected, atol=0, rtol=0.02)

    flat = torch.full((1, 3, 16, 16), 0.7)
    worse = augment.degrade(flat, 0.0, 0.8, 2.0, std, draws(1))
    torch.testing.assert_close(worse, flat)
    checks = (torch.arange(16) % 2).float().expand(1, 3, 16, 16)
    gone = augment.degrade(checks, 0.0, 0.0, 2.0, std, draws(1))
    assert float(gone.var()) < 0.1 * float(checks.var())


def test_binary_cross_entropy_counts_every_class_of_a_mixed_image() -> None:
    recipe = TINY.replace(loss="bce")
    logits = torch.randn(4, 5)
    target = torch.tensor([[0.3, 0.7, 0, 0, 0], [1, 0, 0, 0, 0]])
    wanted = torch.tensor([[1.0, 1, 0, 0, 0], [1, 0, 0, 0, 0]])
    ours = loss_of(logits[:2], target, recipe)
    p = logits[:2].sigmoid()
    torch.testing.assert_close(ours, -(wanted * p.log() + (1 - wanted) * (1 - p).log()).mean())
    labels = torch.tensor([1, 0, 4, 2])
    by_label = loss_of(logits, labels, recipe)
    torch.testing.assert_close(by_label, loss_of(logits, F.one_hot(labels, 5).float(), recipe))


def test_mixed_targets_that_are_not_mixed_are_labels() -> None:
    recipe = TINY.replace(label_smoothing=0.1)
    logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
    hard = loss_of(logits, F.one_hot(labels, 4).float(), recipe)
    torch.testing.assert_close(hard, loss_of(logits, labels, recipe))


# Schedules and optimizers


@pytest.mark.parametrize("warmup", [0.3, 0.1])
def test_one_cycle_is_torchs(warmup: float) -> None:
    recipe = TINY.replace(schedule="one-cycle", warmup=warmup, lr=0.4)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=0.4)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.4, total_steps=60, pct_start=warmup, cycle_momentum=False
    )
    for step in range(60):
        assert recipe.lr * recipe.factor(step, 20) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_cosine_steps_and_constant() -> None:
    cosine = TINY.replace(schedule="cosine", warmup=0.0)
    for step in (0, 1, 17, 30, 59):
        expected = 0.5 * (1 + math.cos(math.pi * step / 60))
        assert cosine.factor(step, 20) == pytest.approx(expected)
    steps = TINY.replace(schedule="step", step_epochs=(1, 2), step_factor=0.5, warmup=0.0)
    assert [steps.factor(step, 2) for step in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    constant = TINY.replace(schedule="constant", warmup=0.0)
    assert {constant.factor(step, 2) for step in range(6)} == {1.0}


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lamb", "muon"])
def test_every_optimizer_learns_and_decays_weights_only(name: Any) -> None:
    recipe = TINY.replace(model="se_resnet20", optimizer=name, lr=0.01, weight_decay=0.3)
    model = recipe.network(4, 3).build(seed=0)
    optimizer = make_optimizer(model, recipe)
    names = {parameter: name for name, parameter in model.named_parameters()}
    decayed = {
        names[p] for g in optimizer.param_groups if g["weight_decay"] > 0 for p in g["params"]
    }
    assert {"conv1.weight", "fc.weight"} <= decayed
    assert not [n for n in decayed if "slots" in n or "bn" in n or n.endswith("bias")]
    groups = [[names[p] for p in group["params"]] for group in optimizer.param_groups]
    assert sorted(names.values()) == sorted(itertools.chain(*groups))
    # The first layer is not Muon's.
    muon = [g for g, of in zip(groups, optimizer.param_groups, strict=True) if of.get("muon")]
    assert ["layer1.0.conv1.weight" in group for group in muon] == [True] * (name == "muon")
    assert not any("conv1.weight" in group for group in muon)
    x, y = torch.randn(8, 3, 16, 16), torch.arange(8) % 4
    losses = []
    for _ in range(6):
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_swins_bias_tables_do_not_decay() -> None:
    recipe = TINY.replace(model="swin_t", optimizer="adamw")
    with torch.device("meta"):
        model = recipe.network(5, 3).build(seed=0)
    optimizer = make_optimizer(model, recipe)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed = [names[id(p)] for p in optimizer.param_groups[0]["params"]]
    assert not [name for name in decayed if "bias" in name]


# Gradients by depth


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("se_lenet", {"stage 1": 6, "stage 2": 6, "head": 6}),
        ("vgg11", {f"stage {n}": 2 if n < 3 else 4 for n in range(1, 6)} | {"head": 6}),
        ("resnet20", {"stem": 3, "stage 1": 18, "stage 2": 21, "stage 3": 21, "head": 2}),
        ("preresnet20", {"stem": 1, "stage 1": 18, "stage 2": 19, "stage 3": 19, "head": 4}),
    ],
)
def test_parameters_by_depth(name: str, expected: dict[str, int]) -> None:
    with torch.device("meta"):
        model = senetzoo.create(name, seed=0)
    found = depths(model)
    assert {key: len(indices) for key, indices in found.items()} == expected
    assert sorted(i for indices in found.values() for i in indices) == list(
        range(len(list(model.parameters())))
    )


# Recipes as values


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"stem": "5x3/2"}, "stem='5x3/2' isn't a stem.\n"
         "Use 'imagenet', 'cifar', 'deep', one like '3x3/2+pool', or a senetzoo.Stem."),
        ({"crop_scale": (0.9, 0.1)}, "The recipe got crop_scale=(0.9, 0.1).\n"
         "crop_scale is two increasing fractions of the area, or (0, 0)."),
        ({"schedule": "step", "step_epochs": (20, 10)}, "The recipe got step_epochs=(20, 10).\n"
         "step_epochs is increasing numbers of epochs, such as (60, 120, 160)."),
        ({"enlarge": 0.5}, "The recipe got enlarge=0.5.\nenlarge is a number of at least 1.\n"
         "Type for example: enlarge=1.0"),
        ({"stream": True}, "The recipe got stream=True.\nstream is only for data=hub."),
        ({"randaugment": 31}, "The recipe got randaugment=31.\n"
         "randaugment is a whole number from 0 to 30.\nType for example: randaugment=0"),
        ({"test_crop": 0.0}, "The recipe got test_crop=0.0.\n"
         "test_crop is a number above 0 and at most 1.\nType for example: test_crop=0.875"),
    ],
)  # fmt: skip
def test_more_values_that_can_not_train(changes: dict[str, Any], text: str) -> None:
    assert message(lambda: TINY.replace(**changes), ConfigError) == text


def test_variants_of_an_experiment() -> None:
    pair = Experiment(
        TINY, variants={"a": {"lr": 0.1}, "b": {"lr": 0.2, "batch": 8}}, quick={"batch": 4}
    )
    assert {variant: r.lr for variant, r in pair.recipes().items()} == {"a": 0.1, "b": 0.2}
    quick = pair.recipes(only=["b"], quick=True)["b"]
    assert (quick.phases, quick.batch, quick.compile) == (((32, 1),), 4, False)
    assert pair.recipes(changes={"momentum": 0.5})["a"].momentum == 0.5
    assert pair.recipes(only=["a"], changes={"lr": 0.5})["a"].lr == 0.5
    assert message(lambda: pair.recipes(changes={"lr": 0.5}), ConfigError) == (
        "--set lr=... doesn't fit tiny.\nIts variants differ in lr.\nChoose one: --only a"
    )
    assert message(lambda: pair.recipes(only=["aa"]), ConfigError) == (
        "The recipe tiny has no variant 'aa'.\nIts variants are a, b.\nDid you mean 'a'?"
    )
    assert message(lambda: Experiment(TINY).recipes(only=["a"]), ConfigError) == (
        "The recipe tiny has no variant 'a'.\nIt is a single run, without variants."
    )
