"""The blocks of timm's counterparts of the networks of the zoo. Gates of its own stay.

A gate at ``standard`` comes after the block's own attention, and before its drop path.
"""

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

_M = "timm.models."
_V3 = ("InceptionA", "InceptionB", "InceptionC", "InceptionD", "InceptionE")
_V4 = ("InceptionA", "ReductionA", "InceptionB", "ReductionB", "InceptionC")
_SEVERAL = "the branch begins in several modules, and the skip takes the block's input too"

ROWS = (
    Row(
        (_M + "resnet.BasicBlock", _M + "resnet.Bottleneck"),
        pre=before("conv1"),
        inner=before("conv3|conv2"),
        standard=after("se|bn3|bn2", "bn3|bn2"),
        identity=skip("downsample"),
        post=after("", "bn3|bn2"),
    ),
    Row(
        (_M + "senet.SEResNetBlock", _M + "senet.Bottleneck"),
        pre=before("conv1"),
        inner=before("conv3|conv2"),
        standard=after("se_module", "bn3|bn2"),
        identity=skip("downsample"),
        post=after("", "bn3|bn2"),
    ),
    Row(
        (_M + "resnetv2.PreActBasic", _M + "resnetv2.PreActBottleneck"),
        pre=before("conv1"),
        inner=before("conv3|conv2"),
        standard=after("conv3|conv2"),
        identity=after("downsample", "conv3|conv2"),
        post=after("", "conv3|conv2"),
        lacks={"identity": INSIDE},
    ),
    Row(
        (_M + "resnetv2.Bottleneck",),
        pre=before("conv1"),
        inner=before("conv3"),
        standard=after("norm3", "conv3"),
        identity=skip("downsample"),
        post=after("", "conv3"),
    ),
    Row(
        (_M + "_efficientnet_blocks.DepthwiseSeparableConv",),
        pre=before("conv_s2d|conv_dw"),
        inner=before("conv_pw"),
        standard=after("bn2", "conv_pw"),
        identity=added("has_skip", "drop_path"),
        post=after("", "conv_pw"),
        adds="has_skip",
    ),
    Row(
        (_M + "_efficientnet_blocks.InvertedResidual",),
        pre=before("conv_s2d|conv_pw"),
        inner=before("conv_pwl"),
        standard=after("bn3", "conv_pwl"),
        identity=added("has_skip", "drop_path"),
        post=after("", "conv_pwl"),
        adds="has_skip",
    ),
    Row(
        (_M + "_efficientnet_blocks.EdgeResidual",),
        pre=before("conv_exp"),
        inner=before("conv_pwl"),
        standard=after("bn2", "conv_pwl"),
        identity=added("has_skip", "drop_path"),
        post=after("", "conv_pwl"),
        adds="has_skip",
    ),
    Row(
        (_M + "densenet.DenseLayer",),
        pre=before("norm1"),
        standard=after("", "conv2"),
        lacks=UNIT,
    ),
    whole(tuple(_M + "inception_v3." + name for name in _V3), r"Mixed_(\d)"),
    whole(
        tuple(_M + "inception_v4." + name for name in _V4), "opens", ("ReductionA", "ReductionB")
    ),
    whole(
        tuple(_M + "inception_resnet_v2." + name for name in ("Mixed_5b", "Mixed_6a", "Mixed_7a")),
        "opens",
        ("Mixed_6a", "Mixed_7a"),
    ),
    Row(
        tuple(_M + "inception_resnet_v2." + name for name in ("Block35", "Block17", "Block8")),
        standard=after("conv2d", scale="scale"),
        post=after("", "conv2d"),
        lacks={"pre": _SEVERAL, "identity": INSIDE, "inner": ONE_CONVOLUTION},
        stage="opens",
    ),
    Row(
        (_M + "swin_transformer.SwinTransformerBlock",),
        pre=before("norm1", branch="attn") + before("norm2", flat=True, branch="mlp"),
        standard=before("drop_path1", "norm1", branch="attn")
        + before("drop_path2", "norm2", flat=True, branch="mlp"),
        post=after("", "norm1", branch="mlp"),
        lacks={"identity": INSIDE, "inner": "there is no convolution in the block"},
        layout="nhwc",
    ),
)

PLAIN = (Plain((_M + "vgg.VGG",), "features"),)
