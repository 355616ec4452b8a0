"""The blocks of other libraries, and where gates can sit in them.

Blocks are recognized by the names of their classes. They keep their own attention: a gate at
``standard`` comes after it, and before drop path.
"""

from __future__ import annotations

from senetzoo.policies.foreign.known import (
    INSIDE,
    NO_SKIP,
    ONE,
    SEVERAL,
    UNIT,
    KnownBlock,
    Spots,
    added,
    after,
    before,
    residual,
    skip,
    whole,
)


def _swin(block: str, pre: Spots, standard: Spots) -> KnownBlock:
    return KnownBlock(
        f"swin_transformer {block}",
        pre,
        standard=standard,
        post=after("", "norm1", branch="mlp"),
        lacks={"identity": INSIDE, "inner": "there is no convolution in the block"},
        layout="nhwc",
    )


_RES_CONNECT = added("use_res_connect")
_HAS_SKIP = added("has_skip", "drop_path")
_LAST = "conv3_1x1|conv2_1x1|conv2_kxk"
_HALF = "only half of the channels go through the block, and no module joins both halves"
_ABC = "InceptionA InceptionB InceptionC InceptionD InceptionE"
_LIBRARIES = {
    "torchvision.models": (
        residual(
            "resnet BasicBlock Bottleneck", "conv1", "conv3|conv2", "bn3|bn2", skip("downsample")
        ),
        residual("regnet ResBottleneckBlock", "f.a", "f.c", "f.c", skip("proj")),
        residual(
            "mobilenetv2 InvertedResidual", "conv", "conv.-2", "conv", _RES_CONNECT, stage="skip"
        ),
        residual(
            "mobilenetv3 InvertedResidual", "block", "block.-1", "block", _RES_CONNECT, stage="skip"
        ),
        residual(
            "mnasnet _InvertedResidual", "layers", "layers.-2", "layers", added("apply_residual")
        ),
        residual(
            "efficientnet MBConv FusedMBConv",
            "block",
            "block.-1",
            "block",
            added("use_res_connect", "stochastic_depth"),
        ),
        KnownBlock(
            "convnext CNBlock",
            before("block"),
            # After the layer scale.
            standard=before("stochastic_depth", "block.0"),
            post=after("", "block.0"),
            lacks={"identity": INSIDE, "inner": ONE},
        ),
        KnownBlock(
            "shufflenetv2 InvertedResidual",
            before("branch2"),
            before("branch2.5"),
            after("branch2"),
            after("branch1.-1"),
            lacks={"identity": _HALF, "post": _HALF},
        ),
        KnownBlock(
            "densenet _DenseLayer", before("norm1"), standard=after("", "conv2"), lacks=UNIT
        ),
        whole("googlenet Inception", r"inception(\d)"),
        whole(f"inception {_ABC}", r"Mixed_(\d)"),
        whole("squeezenet Fire", "pool"),
        _swin(
            "SwinTransformerBlock",
            before("norm1", branch="attn") + before("norm2", branch="mlp"),
            after("attn", "norm1", branch="attn") + after("mlp", "norm2", branch="mlp"),
        ),
        _swin(
            "SwinTransformerBlockV2",
            before("attn", "norm1", branch="attn") + before("mlp", "norm2", branch="mlp"),
            after("norm1", branch="attn") + after("norm2", branch="mlp"),
        ),
    ),
    "timm.models": (
        residual(
            "resnet BasicBlock Bottleneck",
            "conv1",
            "conv3|conv2",
            "se|bn3|bn2",
            skip("downsample"),
            "bn3|bn2",
        ),
        residual(
            "senet SEResNetBlock Bottleneck",
            "conv1",
            "conv3|conv2",
            "se_module",
            skip("downsample"),
            "bn3|bn2",
        ),
        residual(
            "resnetv2 PreActBasic PreActBottleneck",
            "conv1",
            "conv3|conv2",
            "conv3|conv2",
            after("downsample", "conv3|conv2"),
            "conv3|conv2",
            lacks={"identity": INSIDE},
        ),
        residual(
            "resnetv2 Bottleneck", "conv1", "conv3", "norm3", skip("downsample"), width="conv3"
        ),
        residual(
            "res2net Bottle2neck", "conv1", "conv3", "se|bn3", skip("downsample"), width="bn3"
        ),
        residual("resnest ResNestBottleneck", "conv1", "conv3", "bn3", skip("downsample")),
        residual(
            "sknet SelectiveKernelBasic SelectiveKernelBottleneck",
            "conv1",
            "conv3|conv2",
            "se|conv3|conv2",
            skip("downsample"),
            width="conv3|conv2",
        ),
        residual(
            "regnet Bottleneck PreBottleneck",
            "conv1",
            "conv3",
            "conv3",
            after("downsample", "conv3"),
            lacks={"identity": NO_SKIP},
        ),
        residual(
            "byobnet BasicBlock BottleneckBlock EdgeBlock SelfAttnBlock",
            "conv1_1x1|conv1_kxk",
            _LAST,
            f"attn_last|{_LAST}",
            after("shortcut", _LAST),
            width=_LAST,
            lacks={"identity": NO_SKIP},
        ),
        whole("byobnet RepVggBlock MobileOneBlock", r"(.*)\."),
        residual(
            "cspnet BottleneckBlock",
            *("conv1", "conv3", "attn3", (), "conv3"),
            lacks={"identity": INSIDE},
        ),
        residual(
            "cspnet DarkBlock",
            *("conv1", (), "conv2", ()),
            lacks={"identity": INSIDE, "inner": ONE},
        ),
        residual("cspnet EdgeBlock", *("conv1", "conv2", "conv2", ()), lacks={"identity": INSIDE}),
        residual(
            "nfnet NormFreeBlock",
            "conv1",
            "conv3",
            "attn_last|conv3",
            after("downsample", "conv3"),
            width="conv3",
            lacks={"identity": INSIDE},
        ),
        residual(
            "dla DlaBasic DlaBottleneck DlaBottle2neck",
            *("conv1", "conv3|conv2", "bn3|bn2", ()),
            lacks={"identity": INSIDE},
        ),
        KnownBlock(
            "convnext ConvNeXtBlock",
            before("conv_dw"),
            # After the layer scale.
            standard=before("drop_path", "norm"),
            identity=after("shortcut", "conv_dw"),
            post=after("", "conv_dw"),
            lacks={"inner": ONE},
        ),
        residual(
            "_efficientnet_blocks UniversalInvertedResidual",
            before("dw_start", "pw_exp"),
            "pw_proj",
            "layer_scale",
            _HAS_SKIP,
            width="pw_proj",
        ),
        residual(
            "_efficientnet_blocks DepthwiseSeparableConv",
            "conv_s2d|conv_dw",
            "conv_pw",
            "bn2",
            _HAS_SKIP,
        ),
        residual(
            "_efficientnet_blocks InvertedResidual",
            "conv_s2d|conv_pw",
            "conv_pwl",
            "bn3",
            _HAS_SKIP,
        ),
        residual("_efficientnet_blocks EdgeResidual", "conv_exp", "conv_pwl", "bn2", _HAS_SKIP),
        KnownBlock("densenet DenseLayer", before("norm1"), standard=after("", "conv2"), lacks=UNIT),
        whole(f"inception_v3 {_ABC}", r"Mixed_(\d)"),
        whole(
            "inception_v4 InceptionA ReductionA InceptionB ReductionB InceptionC",
            ("ReductionA", "ReductionB"),
        ),
        whole("inception_resnet_v2 Mixed_5b Mixed_6a Mixed_7a", ("Mixed_6a", "Mixed_7a")),
        KnownBlock(
            "inception_resnet_v2 Block35 Block17 Block8",
            standard=after("conv2d", scale="scale"),
            post=after("", "conv2d"),
            lacks={"pre": SEVERAL, "identity": INSIDE, "inner": ONE},
            stage=(),
        ),
        _swin(
            "SwinTransformerBlock",
            before("norm1", branch="attn") + before("norm2", flat=True, branch="mlp"),
            before("drop_path1", "norm1", branch="attn")
            + before("drop_path2", "norm2", flat=True, branch="mlp"),
        ),
    ),
    "pytorchcv.models": tuple(
        residual(
            classes,
            "body.conv1",
            "body.conv3|body.conv2",
            standard,
            skip(attribute, "resize_identity"),
            "body.conv3.conv|body.conv2.conv",
        )
        for classes, standard, attribute in (
            ("resnet ResUnit", "body", "identity_conv"),
            ("resnext ResNeXtUnit", "body", "identity_conv"),
            ("resneta ResAUnit", "body", "identity_block"),
            ("seresnet SEResUnit", "se", "identity_conv"),
            ("seresnext SEResNeXtUnit", "se", "identity_conv"),
            ("senet SENetUnit", "se", "identity_conv"),
        )
    ),
    "transformers.models": (
        residual(
            "resnet.modeling_resnet ResNetBasicLayer ResNetBottleNeckLayer",
            *("layer", "layer.-1", "layer", after("shortcut", "layer"), "layer"),
        ),
        residual(
            "regnet.modeling_regnet RegNetXLayer RegNetYLayer",
            *("layer", "layer.-1", "layer", after("shortcut", "layer"), "layer"),
        ),
    ),
    # Not at the inner norms, which fuse() removes; each block is a stage of its own.
    "ultralytics.nn.modules": (
        whole(
            "block C1 C2 C2f C3 C3f RepC3 RepNCSPELAN4 A2C2f PSA C2PSA SPP SPPF SPPELAN HGBlock",
            "(.*)",
            dict.fromkeys(("identity", "post", "inner"), "only the whole block is known"),
        ),
    ),
}

KNOWN: dict[str, KnownBlock] = {}
"""Table row of each block class, by its full name."""

for _library, _rows in _LIBRARIES.items():
    for _row in _rows:
        _module, *_names = _row.classes.split()
        KNOWN |= {f"{_library}.{_module}.{name}": _row for name in _names}

PLAIN = {"torchvision.models.vgg.VGG", "torchvision.models.alexnet.AlexNet", "timm.models.vgg.VGG"}
"""Full names of network classes whose convolutions are in the sequence ``features``."""
