"""The ResNet line against torchvision, timm and pytorchcv, on shared random weights in fp64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.networks import (
    calibrate_on_next_batch,
    learnable,
    on_meta,
    randomize,
    relative_error,
)
from support.parity import TOLERANCE
from torch import Tensor, nn
from torch.nn import functional

from senetzoo import config
from senetzoo.nn.stem import Stem
from senetzoo.zoo import create


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_option_a_written_out(depth: int) -> None:
    """No library at hand has option A, so the whole network is written out here."""
    model = create(f"resnet{depth}a", seed=0).double()
    randomize(model)
    calibrate_on_next_batch(model)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        model(x)
        model.eval()
        state = model.state_dict()

        def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
            return functional.conv2d(x, state[f"{name}.weight"], stride=stride, padding=1)

        def norm(x: Tensor, name: str) -> Tensor:
            mean, var, weight, bias = (
                state[f"{name}.{part}"][:, None, None]
                for part in ("running_mean", "running_var", "weight", "bias")
            )
            out: Tensor = (x - mean) / (var + 1e-5).sqrt() * weight + bias
            return out

        y = norm(conv(x, "conv1"), "bn1").clamp(min=0)
        for stage in (1, 2, 3):
            for block in range((depth - 2) // 6):
                path = f"layer{stage}.{block}"
                stride = 2 if stage > 1 and block == 0 else 1
                skip = y
                if stride == 2:
                    skip = torch.zeros(2, 2 * y.shape[1], y.shape[2] // 2, y.shape[3] // 2).double()
                    quarter = y.shape[1] // 2
                    skip[:, quarter : quarter + y.shape[1]] = y[:, :, ::2, ::2]
                y = norm(conv(y, f"{path}.conv1", stride), f"{path}.bn1").clamp(min=0)
                y = norm(conv(y, f"{path}.conv2"), f"{path}.bn2")
                y = (y + skip).clamp(min=0)
        expected = y.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]
        assert relative_error(model(x), expected) < TOLERANCE


def test_resnet164() -> None:
    """9n + 2 layers with weights; pytorchcv publishes the number of parameters."""
    model = on_meta(lambda: create("resnet164", seed=0))
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    # A projection at the beginning of each stage is not counted.
    assert len(convs) - 3 + 1 == 164
    assert learnable(model) == 1_704_154


def test_smallest_image() -> None:
    """The unpadded pool of the Caffe form needs two pixels, the padded one none in particular."""
    caffe = config("resnet18").replace(pool="ceil")
    for spec, least in (
        (config("resnet18"), 1),
        (caffe, 3),
        (caffe.replace(stem="deep"), 3),
        (caffe.replace(stem=Stem(kernels=(3, 3), strides=(2, 2), pool=True)), 5),
        (caffe.replace(stem="cifar"), 1),
    ):
        assert spec.config.min_size == least
        model = spec.build(seed=0).to("meta").eval()
        assert model.forward_features(torch.empty(1, 3, least, least, device="meta")).numel() == 512
        if least > 1:
            with pytest.raises(RuntimeError):
                model.forward_features(torch.empty(1, 3, least - 1, least - 1, device="meta"))


def test_strict_loading_refuses_a_foreign_key() -> None:
    """The loads above are strict: one name more or less is an error."""
    state: dict[str, Any] = dict(create("resnet20", seed=0).state_dict())
    state["layer1.0.extra"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match="Unexpected key"):
        create("resnet20", seed=0).load_state_dict(state)
