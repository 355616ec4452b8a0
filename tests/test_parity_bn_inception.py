"""BN-Inception against pytorchcv, and the SE paper's costs."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from support import networks
from support.networks import on_meta
from support.parity import from_library

from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import count

skeleton = partial(networks.skeleton, Classifier)


def test_parameters_and_macs() -> None:
    plain, gated = (count(skeleton(name)) for name in ("bn_inception", "se_bn_inception"))
    assert plain.params == 11_295_240
    # SE paper, Table 2: 2.03 and 2.04 billion. A gate costs 2 C C / 16.
    assert plain.macs / 1e9 == pytest.approx(2.03, abs=0.005)
    assert gated.macs / 1e9 == pytest.approx(2.04, abs=0.01)
    channels = (256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024)
    assert gated.macs - plain.macs == sum(2 * c * (c // 16) for c in channels)


def test_odd_maps() -> None:
    """Maps of 29 and of 15 pixels, of which the reference's branches of stride 2 do not fit."""
    model = skeleton("bn_inception").eval()
    x = torch.empty(1, 3, 239, 239, device="meta")
    assert [y.shape[2] for y in model.feature_maps(x)] == [30, 15, 8]
    x = torch.empty(1, 3, 232, 232, device="meta")
    assert [y.shape[2] for y in model.feature_maps(x)] == [29, 15, 8]
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        on_meta(lambda: from_library("pytorchcv", "bninception"))(x)
