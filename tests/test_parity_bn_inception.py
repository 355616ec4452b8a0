"""BN-Inception against pytorchcv, and the SE paper's costs."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from support import networks
from support.networks import on_meta
from support.parity import from_library

from senetzoo.nn.classifier import Classifier

skeleton = partial(networks.skeleton, Classifier)


def test_odd_maps() -> None:
    """Maps of 29 and of 15 pixels, of which the reference's branches of stride 2 do not fit."""
    model = skeleton("bn_inception").eval()
    x = torch.empty(1, 3, 239, 239, device="meta")
    assert [y.shape[2] for y in model.feature_maps(x)] == [30, 15, 8]
    x = torch.empty(1, 3, 232, 232, device="meta")
    assert [y.shape[2] for y in model.feature_maps(x)] == [29, 15, 8]
    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        on_meta(lambda: from_library("pytorchcv", "bninception"))(x)
