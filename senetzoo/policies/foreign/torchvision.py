"""The blocks of torchvision's classifiers."""

from __future__ import annotations

from senetzoo.policies.foreign.rows import (
    INSIDE,
    ONE_CONVOLUTION,
    UNIT,
    Plain,
    Row,
    added,
    after,
    before,
    skip,
    whole,
)

_M = "torchvision.models."
_INCEPTION = ("InceptionA", "InceptionB", "InceptionC", "InceptionD", "InceptionE")

ROWS = (
    Row(
        (_M + "resnet.BasicBlock", _M + "resnet.Bottleneck"),
        pre=before("conv1"),
        inner=before("conv3|conv2"),
        standard=after("bn3|bn2"),
        identity=skip("downsample"),
        post=after(""),
    ),
    Row(
        (_M + "regnet.ResBottleneckBlock",),
        pre=before("f.a"),
        inner=before("f.c"),
        standard=after("f.c"),
        identity=skip("proj"),
        post=after(""),
    ),
    Row(
        (_M + "mobilenetv2.InvertedResidual",),
        pre=before("conv"),
        inner=before("conv.-2"),
        standard=after("conv"),
        identity=added("use_res_connect"),
        post=after(""),
        adds="use_res_connect",
        stage="skip",
    ),
    Row(
        (_M + "mobilenetv3.InvertedResidual",),
        pre=before("block"),
        inner=before("block.-1"),
        standard=after("block"),
        identity=added("use_res_connect"),
        post=after(""),
        adds="use_res_connect",
        stage="skip",
    ),
    Row(
        (_M + "mnasnet._InvertedResidual",),
        pre=before("layers"),
        inner=before("layers.-2"),
        standard=after("layers"),
        identity=added("apply_residual"),
        post=after(""),
        adds="apply_residual",
    ),
    Row(
        (_M + "efficientnet.MBConv", _M + "efficientnet.FusedMBConv"),
        pre=before("block"),
        inner=before("block.-1"),
        inner_needs="block",
        standard=after("block"),
        identity=added("use_res_connect", "stochastic_depth"),
        post=after(""),
        adds="use_res_connect",
    ),
    Row(
        (_M + "convnext.CNBlock",),
        pre=before("block"),
        # After the layer scale.
        standard=before("stochastic_depth", "block.0"),
        post=after("", "block.0"),
        lacks={"identity": INSIDE, "inner": ONE_CONVOLUTION},
    ),
    Row(
        (_M + "densenet._DenseLayer",),
        pre=before("norm1"),
        standard=after("", "conv2"),
        lacks=UNIT,
    ),
    whole((_M + "googlenet.Inception",), r"inception(\d)"),
    whole(tuple(_M + "inception." + name for name in _INCEPTION), r"Mixed_(\d)"),
    whole((_M + "squeezenet.Fire",), "pool"),
    Row(
        (_M + "swin_transformer.SwinTransformerBlock",),
        pre=before("norm1", branch="attn") + before("norm2", branch="mlp"),
        standard=after("attn", "norm1", branch="attn") + after("mlp", "norm2", branch="mlp"),
        post=after("", "norm1", branch="mlp"),
        lacks={"identity": INSIDE, "inner": "there is no convolution in the block"},
        layout="nhwc",
    ),
    Row(
        (_M + "swin_transformer.SwinTransformerBlockV2",),
        pre=before("attn", "norm1", branch="attn") + before("mlp", "norm2", branch="mlp"),
        standard=after("norm1", branch="attn") + after("norm2", branch="mlp"),
        post=after("", "norm1", branch="mlp"),
        lacks={"identity": INSIDE, "inner": "there is no convolution in the block"},
        layout="nhwc",
    ),
)

PLAIN = (Plain((_M + "vgg.VGG", _M + "alexnet.AlexNet"), "features"),)
