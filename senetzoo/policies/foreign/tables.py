"""The blocks of torchvision, timm and pytorchcv, and where gates can sit in them.

None of these libraries is imported: a block is known by the name of its class. Gates of their own
stay: one at ``standard`` comes after the block's own attention, and before its drop path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from senetzoo.nn.slots import Branch, Layout, Position
from senetzoo.policies.foreign.sitemap import HOOK, Via, When


@dataclass(frozen=True)
class Spot:
    """One place in a block.

    Args:
        when: Before or after the module.
        module: Its path in the block: empty for the block itself; ``"conv.-2"`` counts from the
            end, not up to the first; of ``"se|bn3"``, the first that is there.
        width: Path of the module whose channels count, where `module` has none to read.
        via: What else it takes.
        flat: Whether the map is flattened there, to the block's ``input_resolution``.
        branch: Residual branch that it belongs to, where the block has two.
    """

    when: When
    module: str
    width: str = ""
    via: Via = HOOK
    flat: bool = False
    branch: Branch = ""


Spots: TypeAlias = tuple[Spot, ...]


def before(module: str, width: str = "", *, flat: bool = False, branch: Branch = "") -> Spots:
    """Before a module."""
    return (Spot("before", module, width, flat=flat, branch=branch),)


def after(module: str, width: str = "", *, scale: str = "", branch: Branch = "") -> Spots:
    """After a module; `scale` is the block's attribute with the branch's factor."""
    return (Spot("after", module, width, Via(scale=scale), branch=branch),)


def skip(attribute: str, switch: str = "") -> Spots:
    """After the projection under `attribute`, or put there where it is empty."""
    return (Spot("after", attribute, via=Via(replace=attribute, switch=switch)),)


def added(switch: str, drop: str = "") -> Spots:
    """On the input that the block adds where its attribute `switch` is true."""
    return (Spot("after", "", via=Via(add=switch, drop=drop)),)


_ONE = "no convolution follows the spatial one and its activation"
_INSIDE = "the skip is added inside the block, by no module of its own"
_SEVERAL = "the branch begins in several modules, and the skip takes the block's input too"
_NONE = "there is no convolution in the block"

UNIT: Mapping[Position, str] = {
    "identity": "there is no skip in the block",
    "post": "there is no sum in the block, so this is its standard position",
    "inner": _ONE,
}
"""What a block without a skip lacks."""


@dataclass(frozen=True)
class Row:
    """The places of one class of blocks, or of several alike.

    Args:
        module: Full name of the module that the classes are in.
        classes: Their names, with spaces between.
        pre: Where the branch's input passes.
        inner: Where the spatial convolution's activation passes.
        standard: Where the branch's output passes.
        identity: Where the skip passes.
        post: Where the block's output passes.
        lacks: Why a position is not there.
        adds: Attribute that says whether the block adds its input; where it does not, it is a
            unit without `identity` and `post`.
        stage: What opens a stage: a pattern to search the block's path with, whose group changes
            then, by default the block's parent; ``"skip"``, a block that does not add its input;
            ``"pool"``, a pooling layer before it; or a block of one of these classes.
        layout: Layout of the maps.
    """

    module: str
    classes: str
    pre: Spots = ()
    inner: Spots = ()
    standard: Spots = ()
    identity: Spots = ()
    post: Spots = ()
    lacks: Mapping[Position, str] = field(default_factory=dict)
    adds: str = ""
    stage: str | tuple[str, ...] = r"(.*)\."
    layout: Layout = "nchw"


def _whole(module: str, classes: str, stage: str | tuple[str, ...]) -> Row:
    """Blocks without a skip, whose input and output are all that passes from outside."""
    return Row(module, classes, before(""), standard=after(""), lacks=UNIT, stage=stage)


def _inverted(
    module: str, classes: str, body: str, last: str, adds: str, drop: str = "", stage: str = ""
) -> Row:
    """Torchvision's inverted residuals: a sequence `body`, projected by its child `last`."""
    return Row(
        module,
        classes,
        pre=before(body),
        inner=before(f"{body}.{last}"),
        standard=after(body),
        identity=added(adds, drop),
        post=after(""),
        lacks={"inner": _ONE},
        adds=adds,
        stage=stage or Row.stage,
    )


def _efficient(name: str, first: str, last: str, norm: str) -> Row:
    """Timm's inverted residuals: from the convolution `first` to `last` and its norm."""
    return Row(
        "timm.models._efficientnet_blocks",
        name,
        pre=before(first),
        inner=before(last),
        standard=after(norm, last),
        identity=added("has_skip", "drop_path"),
        post=after("", last),
        adds="has_skip",
    )


def _swin(module: str, name: str, pre: Spots, standard: Spots) -> Row:
    return Row(
        module,
        name,
        pre=pre,
        standard=standard,
        post=after("", "norm1", branch="mlp"),
        lacks={"identity": _INSIDE, "inner": _NONE},
        layout="nhwc",
    )


def _pytorchcv(module: str, name: str, standard: str, attribute: str) -> Row:
    # Channels are read from the convolution: the module has a norm and an activation too.
    last = "body.conv3.conv|body.conv2.conv"
    return Row(
        f"pytorchcv.models.{module}",
        name,
        pre=before("body.conv1", "body.conv1.conv"),
        inner=before("body.conv3|body.conv2", last),
        standard=after(standard, last),
        identity=skip(attribute, "resize_identity"),
        post=after("", last),
    )


_ROWS = (
    Row(
        "torchvision.models.resnet",
        "BasicBlock Bottleneck",
        pre=before("conv1"),
        inner=before("conv3|conv2"),
        standard=after("bn3|bn2"),
        identity=skip("downsample"),
        post=after(""),
    ),
    Row(
        "torchvision.models.regnet",
        "ResBottleneckBlock",
        pre=before("f.a"),
        inner=before("f.c"),
        standard=after("f.c"),
        identity=skip("proj"),
        post=after(""),
    ),
    _inverted(
        "torchvision.models.mobilenetv2",
        "InvertedResidual",
        "conv",
        "-2",
        "use_res_connect",
        stage="skip",
    ),
    _inverted(
        "torchvision.models.mobilenetv3",
        "InvertedResidual",
        "block",
        "-1",
        "use_res_connect",
        stage="skip",
    ),
    _inverted("torchvision.models.mnasnet", "_InvertedResidual", "layers", "-2", "apply_residual"),
    _inverted(
        "torchvision.models.efficientnet",
        "MBConv FusedMBConv",
        "block",
        "-1",
        "use_res_connect",
        "stochastic_depth",
    ),
    Row(
        "torchvision.models.convnext",
        "CNBlock",
        pre=before("block"),
        # After the layer scale.
        standard=before("stochastic_depth", "block.0"),
        post=after("", "block.0"),
        lacks={"identity": _INSIDE, "inner": _ONE},
    ),
    Row(
        "torchvision.models.densenet",
        "_DenseLayer",
        pre=before("norm1"),
        standard=after("", "conv2"),
        lacks=UNIT,
    ),
    _whole("torchvision.models.googlenet", "Inception", r"inception(\d)"),
    _whole(
        "torchvision.models.inception",
        "InceptionA InceptionB InceptionC InceptionD InceptionE",
        r"Mixed_(\d)",
    ),
    _whole("torchvision.models.squeezenet", "Fire", "pool"),
    _swin(
        "torchvision.models.swin_transformer",
        "SwinTransformerBlock",
        before("norm1", branch="attn") + before("norm2", branch="mlp"),
        after("attn", "norm1", branch="attn") + after("mlp", "norm2", branch="mlp"),
    ),
    _swin(
        "torchvision.models.swin_transformer",
        "SwinTransformerBlockV2",
        before("attn", "norm1", branch="attn") + before("mlp", "norm2", branch="mlp"),
        after("norm1", branch="attn") + after("norm2", branch="mlp"),
    ),
    Row(
        "timm.models.resnet",
        "BasicBlock Bottleneck",
        pre=before("conv1"),
        inner=before("conv3|conv2"),
        standard=after("se|bn3|bn2", "bn3|bn2"),
        identity=skip("downsample"),
        post=after("", "bn3|bn2"),
    ),
    Row(
        "timm.models.senet",
        "SEResNetBlock Bottleneck",
        pre=before("conv1"),
        inner=before("conv3|conv2"),
        standard=after("se_module", "bn3|bn2"),
        identity=skip("downsample"),
        post=after("", "bn3|bn2"),
    ),
    Row(
        "timm.models.resnetv2",
        "PreActBasic PreActBottleneck",
        pre=before("conv1"),
        inner=before("conv3|conv2"),
        standard=after("conv3|conv2"),
        identity=after("downsample", "conv3|conv2"),
        post=after("", "conv3|conv2"),
        lacks={"identity": _INSIDE},
    ),
    Row(
        "timm.models.resnetv2",
        "Bottleneck",
        pre=before("conv1"),
        inner=before("conv3"),
        standard=after("norm3", "conv3"),
        identity=skip("downsample"),
        post=after("", "conv3"),
    ),
    _efficient("DepthwiseSeparableConv", "conv_s2d|conv_dw", "conv_pw", "bn2"),
    _efficient("InvertedResidual", "conv_s2d|conv_pw", "conv_pwl", "bn3"),
    _efficient("EdgeResidual", "conv_exp", "conv_pwl", "bn2"),
    Row(
        "timm.models.densenet",
        "DenseLayer",
        pre=before("norm1"),
        standard=after("", "conv2"),
        lacks=UNIT,
    ),
    _whole(
        "timm.models.inception_v3",
        "InceptionA InceptionB InceptionC InceptionD InceptionE",
        r"Mixed_(\d)",
    ),
    _whole(
        "timm.models.inception_v4",
        "InceptionA ReductionA InceptionB ReductionB InceptionC",
        ("ReductionA", "ReductionB"),
    ),
    _whole(
        "timm.models.inception_resnet_v2",
        "Mixed_5b Mixed_6a Mixed_7a",
        ("Mixed_6a", "Mixed_7a"),
    ),
    Row(
        "timm.models.inception_resnet_v2",
        "Block35 Block17 Block8",
        standard=after("conv2d", scale="scale"),
        post=after("", "conv2d"),
        lacks={"pre": _SEVERAL, "identity": _INSIDE, "inner": _ONE},
        stage=(),
    ),
    _swin(
        "timm.models.swin_transformer",
        "SwinTransformerBlock",
        before("norm1", branch="attn") + before("norm2", flat=True, branch="mlp"),
        before("drop_path1", "norm1", branch="attn")
        + before("drop_path2", "norm2", flat=True, branch="mlp"),
    ),
    _pytorchcv("resnet", "ResUnit", "body", "identity_conv"),
    _pytorchcv("resnext", "ResNeXtUnit", "body", "identity_conv"),
    _pytorchcv("resneta", "ResAUnit", "body", "identity_block"),
    _pytorchcv("seresnet", "SEResUnit", "se", "identity_conv"),
    _pytorchcv("seresnext", "SEResNeXtUnit", "se", "identity_conv"),
    _pytorchcv("senet", "SENetUnit", "se", "identity_conv"),
)

ROWS = {f"{row.module}.{name}": row for row in _ROWS for name in row.classes.split()}
"""The row of each class of blocks by its full name."""

PLAIN = {"torchvision.models.vgg.VGG", "torchvision.models.alexnet.AlexNet", "timm.models.vgg.VGG"}
"""Full names of the classes of networks whose convolutions stand in the sequence ``features``."""
