"""BN-Inception against pytorchcv, and the SE paper's costs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import on_meta
from parity import compare, from_the_pytorchcv
from torch import nn

from senetzoo import config, create
from senetzoo.errors import ConfigError
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import count


def ghost(name: str, **changes: Any) -> Classifier:
    """The network on the meta device."""
    model = on_meta(lambda: config(name).replace(**changes).build(seed=0))
    assert isinstance(model, Classifier)
    return model


def test_pytorchcv() -> None:
    def theirs() -> nn.Module:
        model = from_the_pytorchcv("bninception")
        # For other images than those of 224 pixels.
        features = model.get_submodule("features")
        features.final_pool = nn.AdaptiveAvgPool2d(1)
        return model

    compare(
        lambda: create("bn_inception", seed=0),
        theirs,
        "pytorchcv",
        gradients=True,
    )


def test_pytorchcv_as_it_is() -> None:
    compare(
        lambda: create("bn_inception", seed=0),
        lambda: from_the_pytorchcv("bninception"),
        "pytorchcv",
        size=224,
        record=("bn_inception", "pytorchcv bninception"),
    )


def test_parameters_and_macs() -> None:
    plain, gated = (count(ghost(name)) for name in ("bn_inception", "se_bn_inception"))
    assert plain.params == 11_295_240
    # SE paper, Table 2: 2.03 and 2.04 billion. A gate costs 2 C C / 16.
    assert plain.macs / 1e9 == pytest.approx(2.03, abs=0.005)
    assert gated.macs / 1e9 == pytest.approx(2.04, abs=0.01)
    channels = (256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024)
    assert gated.macs - plain.macs == sum(2 * c * (c // 16) for c in channels)


def test_sites_are_the_modules_outputs() -> None:
    sites = [site for site in ghost("bn_inception").sites() if site.position == "standard"]
    assert [(site.stage, site.block, site.channels) for site in sites] == [
        (1, 1, 256),
        (1, 2, 320),
        (2, 1, 576),
        (2, 2, 576),
        (2, 3, 576),
        (2, 4, 608),
        (2, 5, 608),
        (3, 1, 1056),
        (3, 2, 1024),
        (3, 3, 1024),
    ]


def test_small_form() -> None:
    model = ghost("bn_inception", stem="cifar").eval()
    maps = model.feature_maps(torch.empty(1, 3, 32, 32, device="meta"))
    assert [y.shape[1:] for y in maps] == [(320, 32, 32), (608, 16, 16), (1024, 8, 8)]
    assert [(f.channels, 32 // f.stride) for f in model.feature_info] == [
        (320, 32), (608, 16), (1024, 8),
    ]  # fmt: skip


def test_odd_maps() -> None:
    """Maps of 29 and of 15 pixels, of which the reference's branches of stride 2 do not fit."""
    model = ghost("bn_inception").eval()
    x = torch.empty(1, 3, 239, 239, device="meta")
    assert [y.shape[2] for y in model.feature_maps(x)] == [30, 15, 8]
    x = torch.empty(1, 3, 232, 232, device="meta")
    assert [y.shape[2] for y in model.feature_maps(x)] == [29, 15, 8]
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        on_meta(lambda: from_the_pytorchcv("bninception"))(x)


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_the_smallest_image(stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ghost("bn_inception", stem=stem)
    monkeypatch.setattr(model, "check_input", lambda x: None)
    least = model.min_size
    for side in (least, least + 1, least + 16):
        model(torch.empty(2, 3, side, side, device="meta"))
    if least > 1:
        with pytest.raises(RuntimeError):
            model(torch.empty(2, 3, least - 1, least - 1, device="meta"))


def test_wrong_configs() -> None:
    with pytest.raises(ConfigError) as caught:
        create("bn_inception", stem="deep")
    assert str(caught.value) == (
        "BNInception got stem='deep'.\n"
        "BNInception has the forms 'imagenet' for images of 224x224 and 'cifar' for images of "
        "32x32 pixels.\n"
        "Leave stem out, or type stem='cifar'"
    )
