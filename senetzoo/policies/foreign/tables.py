"""The blocks of torchvision, timm and pytorchcv, and where gates can sit in them.

None of these libraries is imported: a block is known by the name of its class. Gates of their own
stay: one at ``standard`` comes after the block's own attention, and before its drop path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

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


def _before(module: str, width: str = "", *, flat: bool = False, branch: Branch = "") -> Spots:
    return (Spot("before", module, width, flat=flat, branch=branch),)


def _after(module: str, width: str = "", *, scale: str = "", branch: Branch = "") -> Spots:
    return (Spot("after", module, width, Via(scale=scale), branch=branch),)


def _skip(attribute: str, switch: str = "") -> Spots:
    """After the projection under `attribute`, or put there where it is empty."""
    return (Spot("after", attribute, via=Via(replace=attribute, switch=switch)),)


def _added(switch: str, drop: str = "") -> Spots:
    """On the input that the block adds where its attribute `switch` is true."""
    return (Spot("after", "", via=Via(add=switch, drop=drop)),)


_ONE = "no convolution follows the spatial one and its activation"
_INSIDE = "the skip is added inside the block, by no module of its own"
_SEVERAL = "the branch begins in several modules, and the skip takes the block's input too"

UNIT: Mapping[Position, str] = {
    "identity": "there is no skip in the block",
    "post": "there is no sum in the block, so this is its standard position",
    "inner": _ONE,
}
"""What a block without a skip lacks."""


@dataclass(frozen=True)
class KnownBlock:
    """The places of one class of blocks, or of several alike.

    Args:
        classes: The module that they are in, and their names.
        pre: Where the branch's input passes.
        inner: Where the spatial convolution's activation passes.
        standard: Where the branch's output passes.
        identity: Where the skip passes.
        post: Where the block's output passes.
        lacks: Why a position is not there.
        stage: What opens a stage: a pattern to search the block's path with, whose group changes
            then, by default the block's parent; ``"skip"``, a block that does not add its input;
            ``"pool"``, a pooling layer before it; or a block of one of these classes.
        layout: Layout of the maps.
    """

    classes: str
    pre: Spots = ()
    inner: Spots = ()
    standard: Spots = ()
    identity: Spots = ()
    post: Spots = ()
    lacks: Mapping[Position, str] = field(default_factory=dict)
    stage: str | tuple[str, ...] = r"(.*)\."
    layout: Layout = "nchw"

    @property
    def adds(self) -> str:
        """Attribute that says whether the block adds its input: else it is one without a skip."""
        return next((spot.via.add for spot in self.identity), "")


def _residual(
    classes: str,
    pre: str,
    inner: str,
    standard: str,
    identity: Spots,
    width: str = "",
    **options: Any,
) -> KnownBlock:
    """Blocks with a sum, which run its skip as a module or say by an attribute that they add."""
    return KnownBlock(
        classes,
        _before(pre),
        _before(inner),
        _after(standard, width),
        identity,
        _after("", width),
        **{"lacks": {"inner": _ONE}, **options},
    )


def _whole(classes: str, stage: str | tuple[str, ...]) -> KnownBlock:
    """Blocks without a skip, whose input and output are all that passes from outside."""
    return KnownBlock(classes, _before(""), standard=_after(""), lacks=UNIT, stage=stage)


def _swin(block: str, pre: Spots, standard: Spots) -> KnownBlock:
    return KnownBlock(
        f"swin_transformer {block}",
        pre,
        standard=standard,
        post=_after("", "norm1", branch="mlp"),
        lacks={"identity": _INSIDE, "inner": "there is no convolution in the block"},
        layout="nhwc",
    )


_RES_CONNECT = _added("use_res_connect")
_HAS_SKIP = _added("has_skip", "drop_path")
_ABC = "InceptionA InceptionB InceptionC InceptionD InceptionE"
_LIBRARIES = {
    "torchvision": (
        _residual(
            "resnet BasicBlock Bottleneck", "conv1", "conv3|conv2", "bn3|bn2", _skip("downsample")
        ),
        _residual("regnet ResBottleneckBlock", "f.a", "f.c", "f.c", _skip("proj")),
        _residual(
            "mobilenetv2 InvertedResidual", "conv", "conv.-2", "conv", _RES_CONNECT, stage="skip"
        ),
        _residual(
            "mobilenetv3 InvertedResidual", "block", "block.-1", "block", _RES_CONNECT, stage="skip"
        ),
        _residual(
            "mnasnet _InvertedResidual", "layers", "layers.-2", "layers", _added("apply_residual")
        ),
        _residual(
            "efficientnet MBConv FusedMBConv",
            "block",
            "block.-1",
            "block",
            _added("use_res_connect", "stochastic_depth"),
        ),
        KnownBlock(
            "convnext CNBlock",
            _before("block"),
            # After the layer scale.
            standard=_before("stochastic_depth", "block.0"),
            post=_after("", "block.0"),
            lacks={"identity": _INSIDE, "inner": _ONE},
        ),
        KnownBlock(
            "densenet _DenseLayer", _before("norm1"), standard=_after("", "conv2"), lacks=UNIT
        ),
        _whole("googlenet Inception", r"inception(\d)"),
        _whole(f"inception {_ABC}", r"Mixed_(\d)"),
        _whole("squeezenet Fire", "pool"),
        _swin(
            "SwinTransformerBlock",
            _before("norm1", branch="attn") + _before("norm2", branch="mlp"),
            _after("attn", "norm1", branch="attn") + _after("mlp", "norm2", branch="mlp"),
        ),
        _swin(
            "SwinTransformerBlockV2",
            _before("attn", "norm1", branch="attn") + _before("mlp", "norm2", branch="mlp"),
            _after("norm1", branch="attn") + _after("norm2", branch="mlp"),
        ),
    ),
    "timm": (
        _residual(
            "resnet BasicBlock Bottleneck",
            "conv1",
            "conv3|conv2",
            "se|bn3|bn2",
            _skip("downsample"),
            "bn3|bn2",
        ),
        _residual(
            "senet SEResNetBlock Bottleneck",
            "conv1",
            "conv3|conv2",
            "se_module",
            _skip("downsample"),
            "bn3|bn2",
        ),
        _residual(
            "resnetv2 PreActBasic PreActBottleneck",
            "conv1",
            "conv3|conv2",
            "conv3|conv2",
            _after("downsample", "conv3|conv2"),
            "conv3|conv2",
            lacks={"identity": _INSIDE},
        ),
        _residual(
            "resnetv2 Bottleneck", "conv1", "conv3", "norm3", _skip("downsample"), width="conv3"
        ),
        _residual(
            "_efficientnet_blocks DepthwiseSeparableConv",
            "conv_s2d|conv_dw",
            "conv_pw",
            "bn2",
            _HAS_SKIP,
        ),
        _residual(
            "_efficientnet_blocks InvertedResidual",
            "conv_s2d|conv_pw",
            "conv_pwl",
            "bn3",
            _HAS_SKIP,
        ),
        _residual("_efficientnet_blocks EdgeResidual", "conv_exp", "conv_pwl", "bn2", _HAS_SKIP),
        KnownBlock(
            "densenet DenseLayer", _before("norm1"), standard=_after("", "conv2"), lacks=UNIT
        ),
        _whole(f"inception_v3 {_ABC}", r"Mixed_(\d)"),
        _whole(
            "inception_v4 InceptionA ReductionA InceptionB ReductionB InceptionC",
            ("ReductionA", "ReductionB"),
        ),
        _whole("inception_resnet_v2 Mixed_5b Mixed_6a Mixed_7a", ("Mixed_6a", "Mixed_7a")),
        KnownBlock(
            "inception_resnet_v2 Block35 Block17 Block8",
            standard=_after("conv2d", scale="scale"),
            post=_after("", "conv2d"),
            lacks={"pre": _SEVERAL, "identity": _INSIDE, "inner": _ONE},
            stage=(),
        ),
        _swin(
            "SwinTransformerBlock",
            _before("norm1", branch="attn") + _before("norm2", flat=True, branch="mlp"),
            _before("drop_path1", "norm1", branch="attn")
            + _before("drop_path2", "norm2", flat=True, branch="mlp"),
        ),
    ),
    "pytorchcv": tuple(
        _residual(
            classes,
            "body.conv1",
            "body.conv3|body.conv2",
            standard,
            _skip(attribute, "resize_identity"),
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
}

KNOWN: dict[str, KnownBlock] = {}
"""The row of each class of blocks by its full name."""

for _library, _rows in _LIBRARIES.items():
    for _row in _rows:
        _module, *_names = _row.classes.split()
        KNOWN |= {f"{_library}.models.{_module}.{name}": _row for name in _names}

PLAIN = {"torchvision.models.vgg.VGG", "torchvision.models.alexnet.AlexNet", "timm.models.vgg.VGG"}
"""Full names of the classes of networks whose convolutions stand in the sequence ``features``."""
