"""Inception v4 against timm and pytorchcv, on shared random weights in fp64."""

from __future__ import annotations

from typing import Any

import pytest
from support.inception import (
    check_gates,
    check_graphs,
    check_levels,
    check_min_size,
    check_small_form,
    shapes,
)
from support.networks import learnable, on_meta

from senetzoo.models.inception_v4 import InceptionV4, InceptionV4Config
from senetzoo.nn.counting import count


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
