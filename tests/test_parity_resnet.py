"""The ResNet line against torchvision, timm and pytorchcv, on shared random weights in fp64."""

from __future__ import annotations

import pytest
import torch
from support.parity import compare_written_out

from senetzoo import config
from senetzoo.nn.stem import Stem


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_option_a_written_out(depth: int) -> None:
    compare_written_out(f"resnet{depth}a", (depth - 2) // 6, skips=True)


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
