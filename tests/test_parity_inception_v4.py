"""Inception v4 against timm and pytorchcv, on shared random weights in fp64."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import learnable, on_meta
from inception import (
    check_gates,
    check_graphs,
    check_levels,
    check_min_size,
    check_small_form,
    pad_all,
    shapes,
)
from parity import compare, from_the_pytorchcv, from_the_timm
from torch import nn

from senetzoo.errors import ConfigError
from senetzoo.models.inception_v4 import InceptionV4, InceptionV4Config
from senetzoo.nn.counting import count
from senetzoo.zoo import create


def their_pytorchcv() -> nn.Module:
    model = from_the_pytorchcv("inceptionv4")
    # Its pool is 8x8, which is global for 299x299 only.
    model.get_submodule("features").final_pool = nn.AdaptiveAvgPool2d(1)
    return model


def test_timm() -> None:
    compare(
        lambda: create("inception_v4", dropout=0.0, seed=0),
        lambda: from_the_timm("inception_v4"),
        "timm",
        size=75,
        record=("inception_v4", "timm inception_v4"),
    )


def test_timm_gradients() -> None:
    """One module of each kind, on maps of more than one pixel."""

    def shallow() -> nn.Module:
        model = from_the_timm("inception_v4")
        first = {*range(6), 6, 10, 11, 18, 19}
        children = model.get_submodule("features").named_children()
        model.features = nn.Sequential(*(module for name, module in children if int(name) in first))
        return model

    compare(
        lambda: InceptionV4Config(depths=(1, 1, 1), dropout=0.0).build(),
        shallow,
        "timm",
        size=107,
        gradients=True,
    )


def test_pytorchcv() -> None:
    compare(
        lambda: create("inception_v4", dropout=0.0, seed=0),
        their_pytorchcv,
        "pytorchcv",
        size=75,
        record=("inception_v4", "pytorchcv inceptionv4"),
    )


def test_small_form_is_the_padded_network() -> None:
    def padded() -> nn.Module:
        model = from_the_timm("inception_v4")
        pad_all(model, list(model.get_submodule("features").children())[:6])
        return model

    compare(
        lambda: create("inception_v4", stem="cifar", dropout=0.0, seed=0),
        padded,
        "timm",
        size=14,
    )


def build(**changes: Any) -> InceptionV4:
    model = on_meta(lambda: InceptionV4Config(**changes).build())
    assert isinstance(model, InceptionV4)
    return model


def test_parameters_and_macs() -> None:
    assert learnable(build()) == 42_679_816
    # timm's 12.28 and pytorchcv's 12.305 count norms or pools too.
    assert round(count(build()).macs / 1e9, 2) == 12.25


def test_figures() -> None:
    expected = {
        "stem.0": (32, 149),
        "stem.1": (32, 147),
        "stem.2": (64, 147),
        "stem.3": (160, 73),
        "stem.4": (192, 71),
        "stem.5": (384, 35),
        **{f"stage1.{i}": (384, 35) for i in range(4)},
        **{f"stage2.{i}": (1024, 17) for i in range(8)},
        **{f"stage3.{i}": (1536, 8) for i in range(4)},
    }
    assert shapes(build(), list(expected), 299) == list(expected.values())


def test_levels_and_forms() -> None:
    check_levels(build())
    check_small_form(InceptionV4Config())
    check_min_size(InceptionV4Config())
    check_min_size(InceptionV4Config(stem="cifar"))


def test_every_gate_runs_once() -> None:
    model = InceptionV4Config(stem="cifar", dropout=0.0, num_classes=10, depths=(2, 2, 2)).build()
    assert len(model.sites()) == 2 * (2 + 3 + 3)
    check_gates(model, ("pre", "standard"))


@pytest.mark.slow
def test_graphs() -> None:
    config = InceptionV4Config(stem="cifar", num_classes=10, depths=(1, 1, 1))
    check_graphs(config.build())


@pytest.mark.parametrize("depths", [(4, 7), 4, (4, 7, 0)])
def test_wrong_depths(depths: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        InceptionV4Config(depths=depths)
    assert str(caught.value) == (
        f"InceptionV4 got depths={depths!r}.\n"
        "depths is a tuple of 3 whole numbers of at least 1.\n"
        "Type for example: depths=(4, 7, 3)"
    )
