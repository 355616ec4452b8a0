"""Inception v3 against torchvision and timm, on shared random weights in fp64."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from support import networks
from support.inception import THEIRS, AllLogits
from support.networks import message
from support.parity import SAME, compare, from_library
from torch import Tensor

from senetzoo.errors import ConfigError
from senetzoo.models.inception_v3 import InceptionV3, InceptionV3Config
from senetzoo.nn.maps import AuxOutput


def test_torchvision_auxiliary_head() -> None:
    """At the smallest size that the head takes."""
    compare(
        lambda: AllLogits(InceptionV3Config(dropout=0.0, aux=True).build()),
        lambda: AllLogits(from_library("torchvision", "inception_v3", aux_logits=True, **THEIRS)),
        SAME,
        size=299,
    )


build = partial(networks.skeleton, InceptionV3, "inception_v3")


# --- The auxiliary head --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 32])
def test_auxiliary_output_of_the_small_form(size: int) -> None:
    model = build(aux=True, stem="cifar", num_classes=7)
    x = torch.empty(2, 3, size, size, device="meta")
    y = model(x)
    assert isinstance(y, AuxOutput)
    assert y.logits.shape == (2, 7)
    assert [logits.shape for logits in y.aux] == [(2, 7)]
    assert isinstance(model.eval()(x), Tensor)
    assert isinstance(build(stem="cifar")(x), Tensor)


def test_both_heads_follow_the_number_of_classes() -> None:
    model = build(aux=True)
    assert model.classifiers() == ("fc", "AuxLogits.fc")
    model.reset_classifier(7)
    y = model(torch.empty(2, 3, 299, 299, device="meta"))
    assert [logits.shape for logits in (y.logits, *y.aux)] == [(2, 7)] * 2


def test_auxiliary_head_says_what_size_it_takes() -> None:
    model = build(aux=True)
    model(torch.empty(2, 3, 299, 299, device="meta"))
    assert message(lambda: model(torch.empty(2, 3, 299, 298, device="meta")), ConfigError) == (
        "The auxiliary head got images of 299x298 pixels.\n"
        "In training it takes at least 299x299.\n"
        "Enlarge the images, or build it without aux=True"
    )
    # Smaller ones do not leave its last convolution a pixel.
    head = model.get_submodule("AuxLogits")
    maps = model.feature_maps(torch.empty(2, 3, 298, 298, device="meta"))
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        head(maps[1])
    assert model.eval()(torch.empty(2, 3, 75, 75, device="meta")).shape == (2, 1000)
