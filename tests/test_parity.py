"""Networks against those of torchvision, timm and pytorchcv, on shared random weights in fp64."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from support.inception import THEIRS, pad_all
from support.networks import on_meta
from support.parity import compare, from_library
from torch import nn
from torch.nn import functional

from senetzoo import NONE, SE, config
from senetzoo.zoo import create


@dataclass(frozen=True)
class Case:
    """One comparison.

    Args:
        name: Of our network.
        library: Whose names the other network has: a dialect.
        theirs: Its name there, or a function that builds it.
        changes: What ours has that the network called `name` has not.
        options: Arguments of theirs.
        size: Side of the images in pixels.
        gradients: Whether gradients are compared.
        train: Whether the training mode is compared.
        record: What the table of the docs calls theirs; None for a comparison that is not in it.
        id: Of the test.
        slow: Whether another row shows the same in less time.
    """

    name: str
    library: str
    theirs: str | Callable[..., nn.Module]
    changes: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    size: int = 64
    gradients: bool = False
    train: bool = True
    record: str | None = None
    id: str = ""
    slow: bool = False

    def run(self) -> None:
        def build() -> nn.Module:
            if isinstance(self.theirs, str):
                return from_library(self.library, self.theirs, **self.options)
            return self.theirs(**self.options)

        compare(
            lambda: config(self.name).replace(**self.changes).build(seed=0),
            build,
            self.library,
            size=self.size,
            gradients=self.gradients,
            train=self.train,
            record=(self.name, self.record) if self.record else None,
        )


def recorded(name: str, library: str, theirs: str, **fields: Any) -> Case:
    """A network of the registry against one that a library has a name for."""
    return Case(name, library, theirs, record=f"{library} {theirs}", **fields)


def rows(cases: Sequence[Case]) -> Any:
    def row(case: Case) -> Any:
        theirs = case.theirs if isinstance(case.theirs, str) else case.theirs.__name__
        words = (case.name, case.library, theirs, str(case.size), case.id)
        marks = [pytest.mark.slow] if case.slow else []
        return pytest.param(case.name, case, id="-".join(filter(None, words)), marks=marks)

    return [row(case) for case in cases]


# --- Networks that the libraries lack, made of theirs --------------------------------------------


def globally_pooled(name: str, **options: Any) -> nn.Module:
    """Of pytorchcv, whose pool before the classifier is global for one size of images alone."""
    model = from_library("pytorchcv", name, **options)
    model.get_submodule("features").final_pool = nn.AdaptiveAvgPool2d(1)
    return model


def wide_bottleneck() -> nn.Module:
    """One block a stage: the gradients of 69 million parameters are no better evidence."""
    models = importlib.import_module("torchvision.models.resnet")
    model: nn.Module = models.ResNet(models.Bottleneck, [1, 1, 1, 1], width_per_group=128)
    return model


def resnet_cifar(depth: int) -> nn.Module:
    models = importlib.import_module("pytorchcv.models.resnet_cifar")
    model: nn.Module = models.get_resnet_cifar(num_classes=10, blocks=depth, bottleneck=False)
    return model


def wide(blocks: int, factor: int) -> nn.Module:
    models = importlib.import_module("pytorchcv.models.wrn_cifar")
    model: nn.Module = models.get_wrn_cifar(num_classes=10, blocks=blocks, width_factor=factor)
    return model


def shallow_senet(form: str) -> nn.Module:
    """timm's network with one block a stage: the gradients of 115 million are no better proof."""
    if form == "ceil":
        models = importlib.import_module("timm.models.senet")
        fields: dict[str, Any] = {"groups": 64, "reduction": 16, "drop_rate": 0.0, "inplanes": 128}
        fields |= {"input_3x3": True, "downsample_kernel_size": 3, "downsample_padding": 1}
        model: nn.Module = models.SENet(models.SEBottleneck, (1, 1, 1, 1), **fields)
        return model
    models = importlib.import_module("timm.models.resnet")
    fields = {"cardinality": 64, "base_width": 4, "stem_type": "deep", "stem_width": 64}
    fields |= {"down_kernel_size": 3, "block_reduce_first": 2, "block_args": {"attn_layer": "se"}}
    model = models.ResNet(models.Bottleneck, (1, 1, 1, 1), **fields)
    return model


def narrow_alexnet() -> nn.Module:
    """torchvision's network with fewer hidden units, which are nine tenths of its parameters."""
    model: Any = from_library("torchvision", "alexnet", dropout=0.0)
    model.classifier[1] = nn.Linear(256 * 6 * 6, 64)
    model.classifier[4] = nn.Linear(64, 64)
    model.classifier[6] = nn.Linear(64, 1000)
    return model  # type: ignore[no-any-return]


def in_two_halves() -> nn.Module:
    """pytorchcv's network of 2012, which connects all channels, with the paper's two groups."""
    model = from_library("pytorchcv", "alexnet")
    for path in ("stage2.unit1", "stage3.unit2", "stage3.unit3"):
        block: Any = model.get_submodule(f"features.{path}")
        old = block.conv
        block.conv = nn.Conv2d(
            old.in_channels, old.out_channels, old.kernel_size, padding=old.padding, groups=2
        )
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def narrow_vgg(name: str) -> nn.Module:
    """The same of VGG."""
    model: Any = from_library("torchvision", name, dropout=0.0)
    model.classifier[0] = nn.Linear(512 * 7 * 7, 64)
    model.classifier[3] = nn.Linear(64, 64)
    model.classifier[6] = nn.Linear(64, 1000)
    return model  # type: ignore[no-any-return]


def vgg_with_lrn() -> nn.Module:
    """torchvision's A with the norm where Table 1 has it; test_parity_alexnet writes it out."""
    model: Any = narrow_vgg("vgg11")
    layers = list(model.features)
    layers.insert(2, nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0))
    model.features = nn.Sequential(*layers)
    return model  # type: ignore[no-any-return]


def vgg_c(name: str) -> nn.Module:
    """torchvision's D with the 1x1 convolutions of Table 1."""
    model: Any = narrow_vgg(name)
    convs = [i for i, layer in enumerate(model.features) if isinstance(layer, nn.Conv2d)]
    for index in (6, 9, 12):
        width = model.features[convs[index]].out_channels
        model.features[convs[index]] = nn.Conv2d(width, width, 1)
    return model  # type: ignore[no-any-return]


def densenet(growth: int, width: int) -> nn.Module:
    models = importlib.import_module("torchvision.models.densenet")
    model: nn.Module = models.DenseNet(growth, (1, 2, 2, 1), width)
    return model


def densenet264d() -> nn.Module:
    """timm's DenseNet-264d, of the depths of Table 1 but wider, with few layers."""
    models = importlib.import_module("timm.models.densenet")
    fields = {"growth_rate": 48, "block_config": (1, 2, 2, 1), "stem_type": "deep"}
    model: nn.Module = models.DenseNet(**fields)
    return model


def densenet_cifar() -> nn.Module:
    models = importlib.import_module("pytorchcv.models.densenet_cifar")
    fields = {"num_classes": 10, "blocks": 16, "growth_rate": 40, "bottleneck": True}
    model: nn.Module = models.get_densenet_cifar(**fields)
    return model


def narrow_mobilenet(width: float) -> nn.Module:
    """timm has names for the width 1 and above, and the function that makes all."""
    models: Any = importlib.import_module("timm.models.efficientnet")
    model: nn.Module = models._gen_mobilenet_v1("mobilenetv1_100", width)
    return model


def without_gates(name: str, **options: Any) -> nn.Module:
    """With its SE taken out, torchvision's network has our names to the last."""
    model = from_library("torchvision", name, **options)
    for module in model.modules():
        for child, part in module.named_children():
            if type(part).__name__ == "SqueezeExcitation":
                setattr(module, child, nn.Identity())
    return model


def padded_inception_v3(**options: Any) -> nn.Module:
    model = from_library("torchvision", "inception_v3", **options)
    stem = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_4a_3x3")
    pad_all(model, [model.get_submodule(name) for name in stem])
    model.maxpool1, model.maxpool2 = nn.Identity(), nn.Identity()
    for name in ("Mixed_6a", "Mixed_7a"):
        module: Any = model.get_submodule(name)

        def branches(x: Any, unpadded: Any = module._forward) -> list[Any]:
            return [*unpadded(x)[:-1], functional.max_pool2d(x, 3, 2, 1)]

        module._forward = branches
    return model


def shallow_inception_v4() -> nn.Module:
    """One module of each kind, on maps of more than one pixel."""
    model = from_library("timm", "inception_v4")
    first = {*range(6), 6, 10, 11, 18, 19}
    children = model.get_submodule("features").named_children()
    model.features = nn.Sequential(*(module for name, module in children if int(name) in first))
    return model


def padded_inception_v4() -> nn.Module:
    model = from_library("timm", "inception_v4")
    pad_all(model, list(model.get_submodule("features").children())[:6])
    return model


def shallow_inception_resnet() -> nn.Module:
    """One block of each kind, on maps of more than one pixel."""
    model: Any = from_library("timm", "inception_resnet_v2")
    for name in ("repeat", "repeat_1", "repeat_2"):
        setattr(model, name, getattr(model, name)[:1])
    return model  # type: ignore[no-any-return]


def padded_inception_resnet_v1() -> nn.Module:
    model = globally_pooled("inceptionresnetv1", dropout_prob=0.0)
    stem = model.get_submodule("features.init_block")
    pad_all(model, [stem])
    stem.pool = nn.Identity()
    return model


def padded_inception_resnet_v2() -> nn.Module:
    model = from_library("timm", "inception_resnet_v2")
    pad_all(model, [model.get_submodule("conv2d_1a")])
    model.maxpool_3a, model.maxpool_5a = nn.Identity(), nn.Identity()
    return model


# --- Networks under their names ------------------------------------------------------------------

STILL: dict[str, Any] = {"dropout": 0.0}
TORCHVISION = [
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d"),
    *("resnext101_32x8d", "resnext101_64x4d", "wide_resnet50_2", "wide_resnet101_2"),
]
GRADIENTS = ["resnet18", "resnet50", "resnext50_32x4d"]
DENSENETS = ["densenet121", "densenet161", "densenet169", "densenet201"]
VGGS = [name + bn for name in ("vgg11", "vgg13", "vgg16", "vgg19") for bn in ("", "_bn")]

# fmt: off
NAMED = [
    *(recorded(name, "torchvision", name, gradients=name in GRADIENTS) for name in TORCHVISION),
    *(recorded(name, "torchvision", name) for name in DENSENETS),
    *(recorded(n, "torchvision", n, changes=STILL, options=STILL, size=32, slow=True)
         for n in VGGS),
    # timm rounds the hidden units to multiples of 8.
    *(Case(name, "timm", theirs, {"policy": SE(width="round8")}, gradients=name == "resnet18") for
         name, theirs in [("resnet18", "seresnet18"), ("resnet50", "seresnet50"),
         ("resnext50_32x4d", "seresnext50_32x4d")]),
    *(recorded(name, "pytorchcv", name.replace("se_", "se") + f"{bn}_cifar10", size=32,
         gradients=name in ("resnet20", "se_resnet20", "preresnet20")) for bn, names in
         [("", ["se_resnet20", "se_resnet56", *(f"{pre}resnet{depth}" for pre in ("", "pre") for
         depth in (20, 56, 110, 1001, 1202))]), ("bn", ["se_resnet164", *(f"{pre}resnet{depth}" for
         pre in ("", "pre") for depth in (164, 272, 542))])] for name in names),
    # Its stem has a norm and an activation; its 50 without a b has the stride on the 1x1.
    *(Case(name, "pytorchcv", globally_pooled, {"stem_norm": True, **changes}, {"name": theirs}) for
         name, theirs, changes in [("preresnet18", "preresnet18", {}), ("preresnet50",
         "preresnet50b", {}), ("preresnet50", "preresnet50", {"stride_on": "1x1"}),
         ("se_preresnet18", "sepreresnet18", {})]),
    # Those of few layers, and the deepest; its bottlenecks as here have a b.
    *(Case(name, "pytorchcv", globally_pooled, {"stem_norm": True} if "pre" in name else {},
         {"name": name + b}, record=f"pytorchcv {name}{b}") for b, names in [("", [f"{pre}resnet{n}"
         for pre in ("", "pre") for n in (10, 12, 14, 16, 26)]), ("b", [f"{pre}resnetbc{n}" for pre
         in ("", "pre") for n in (14, 26, 38)]), ("b", [f"preresnet{n}" for n in (200, 269)])]
         for name in names),
    # With SE it has a norm and an activation in the stem, and none at the end.
    *(Case(f"se_preresnet{depth}", "pytorchcv", theirs, {"stem_norm": True, "last_norm": False}, {},
         32, gradients=depth == 20) for depth, theirs in [(20, "sepreresnet20_cifar10"), (164,
         "sepreresnet164bn_cifar10")]),
    # 96 pixels: maps of 3x3 pixels, of which those of 7x7 overlap.
    *(Case(name, "torchvision", narrow_vgg, STILL | {"hidden": 64}, {"name": name}, size=96,
         gradients=True) for name in ("vgg11", "vgg11_bn")),
    *(Case(name, "torchvision", vgg_c, STILL | {"hidden": 64}, {"name": name.replace("_c", "")},
         gradients=name == "vgg16_c") for name in ("vgg16_c", "vgg16_c_bn")),
    # Both growth rates with few layers; all pools round at 65 pixels.
    *(Case(name, "torchvision", densenet, {"depths": (1, 2, 2, 1), "num_classes": 1000}, {"growth":
         growth, "width": width}, size=65, gradients=True) for name, growth, width in
         [("densenet121", 32, 64), ("densenet161", 48, 96)]),
]
# fmt: on


@pytest.mark.filterwarnings("ignore:The input has 32x32")
@pytest.mark.parametrize(("name", "case"), rows(NAMED))
def test_networks(name: str, case: Case) -> None:
    case.run()


# --- Forms of them, and networks that are compared in every run ----------------------------------

EFFICIENTNET: dict[str, Any] = {"dropout": 0.0, "drop_path": 0.0}
THEIR_EFFICIENTNET: dict[str, Any] = {"dropout": 0.0, "stochastic_depth_prob": 0.0}
THEIR_INCEPTION = {**THEIRS, "aux_logits": False}
CAFFE: dict[str, Any] = {"stride_on": "1x1", "pool": "ceil"}
EFFICIENT = Case("efficientnet_b0", "torchvision", "efficientnet_b0", EFFICIENTNET)
# Of these, 64 pixels leave too little for logits that differ.
DEEP = {"b7": 128, "v2_m": 128, "v2_l": 128}
GOOGLENET = recorded(
    "googlenet_bn", "torchvision", "googlenet", changes=STILL, options=THEIR_INCEPTION
)
INCEPTION = Case("inception_v3", "timm", "inception_v3", STILL, size=75)

# fmt: off
FORMS = [
    # The ResNets.
    Case("wide_resnet50_2", "torchvision", wide_bottleneck, {"depths": (1,) * 4}, gradients=True),
    # 65 pixels: the two forms of the pool give maps of different sizes there.
    Case("se_resnet50", "timm_legacy", "legacy_seresnet50", CAFFE, gradients=True),
    Case("se_resnet50", "timm_legacy", "legacy_seresnet50", CAFFE, size=65),
    Case("resnet50", "timm", "resnet50c", {"stem": "deep"}),
    *(Case(f"resnet{depth}", "pytorchcv", resnet_cifar, {}, {"depth": depth}, 32,
         record="pytorchcv get_resnet_cifar") for depth in (32, 44)),
    recorded("resnext101_32x4d", "timm", "resnext101_32x4d", slow=True),
    *(recorded(f"preresnet{depth}", "timm", f"resnetv2_{depth}", gradients=depth in (18, 50),
         slow=depth in (34, 101, 152)) for depth in (18, 34, 50, 101, 152)),
    # The last of its convolutions has no norm behind it either.
    Case("preresnet18", "timm", "resnetv2_18", {"stem": "deep"}, {"stem_type": "deep"}),
    # pytorchcv has no name for WRN-16-8, but it builds any depth and width.
    *(Case(f"wrn{blocks}_{factor}", "pytorchcv", wide, {}, {"blocks": blocks, "factor": factor}, 32,
         slow=(blocks, factor) != (16, 8),
         record=f"pytorchcv get_wrn_cifar({blocks}, {factor})") for blocks, factor in ((16, 8), (16,
         10), (28, 10), (40, 8))),
    # One block a stage, as wide as WRN-28-10: what is added to that is more of the same.
    Case("wrn28_10", "pytorchcv", wide, {"depths": (1,) * 3}, {"blocks": 10, "factor": 10}, 32),
    Case("wrn16_8", "pytorchcv", wide, {"widen": 2}, {"blocks": 16, "factor": 2}, 32, True),
    # SENet.
    *(Case("senet154", dialect, shallow_senet, STILL | {"depths": (1,) * 4, "pool": pool}, {"form":
         pool}, size, (pool, size) == ("padded", 64), id=pool) for pool, dialect in (("padded",
         "timm"), ("ceil", "timm_legacy")) for size in (64, 65)),
    *(Case("senet154", dialect, theirs, STILL | {"pool": pool}, {}, size, record=f"timm {theirs}",
         id=pool, slow=True) for pool, theirs, dialect in (("padded", "senet154", "timm"), ("ceil",
         "legacy_senet154", "timm_legacy")) for size in (64, 65)),
    # AlexNet and VGG.
    recorded("alexnet", "torchvision", "alexnet", changes=STILL, options=STILL, size=224,
         slow=True),
    # Sides that leave the head maps of 1x1 and of 3x3 pixels to average.
    *(Case("alexnet", "torchvision", narrow_alexnet, STILL | {"hidden": 64}, {}, size, True) for
         size in (64, 130)),
    Case("alexnet_2012", "pytorchcv", in_two_halves, STILL, size=227,
         record="pytorchcv alexnet, its convolutions 2, 4 and 5 in two groups"),
    Case("vgg11_lrn", "torchvision", vgg_with_lrn, STILL | {"hidden": 64}, gradients=True),
    # DenseNet; pytorchcv's DenseNet-40 compresses and has a stem of 2k channels, the paper's
    # does not.
    Case("densenet264", "timm", densenet264d, {"growth": 48, "width": 96, "stem": "deep", "depths":
         (1, 2, 2, 1)}, gradients=True),
    recorded("densenet_bc_100_12", "pytorchcv", "densenet100_k12_bc_cifar10", size=32),
    recorded("densenet_bc_190_40", "pytorchcv", "densenet190_k40_bc_cifar10", size=32,
         slow=True),
    Case("densenet_bc_190_40", "pytorchcv", densenet_cifar, {"depths": (2, 2, 2)}, {}, 32, True),
    Case("densenet40_12", "pytorchcv", "densenet40_k12_cifar10", {"compression": 0.5, "width": 24},
         {}, 32, True),
    # MobileNet and EfficientNet.
    recorded("mobilenet_v1", "timm", "mobilenetv1_100", gradients=True),
    Case("mobilenet_v1", "timm", "mobilenetv1_100", {"act": "relu"}, {"act_layer": "relu"},
         id="relu"),
    *(Case(f"mobilenet_v1_{round(100 * width):03}", "timm", narrow_mobilenet, {}, {"width": width},
         record=f"timm mobilenetv1_100 at width {width}",
         slow=width > 0.25) for width in (0.75, 0.5, 0.25)),
    replace(EFFICIENT, options=THEIR_EFFICIENTNET, gradients=True,
         record="torchvision efficientnet_b0"),
    replace(EFFICIENT, library="timm"),
    *(recorded(name, "torchvision", name, changes=STILL, options=STILL, gradients=True) for name in
         ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small")),
    *(Case(f"mobilenet_v2_{round(100 * width):03}", "torchvision", "mobilenet_v2", STILL, STILL |
         {"width_mult": width}, slow=width != 0.35, gradients=width == 0.35,
         record=f"torchvision mobilenet_v2 at width {width}") for width in (1.4, 0.75, 0.5, 0.35)),
    *(recorded(f"efficientnet_{size}", "torchvision", f"efficientnet_{size}", changes=EFFICIENTNET,
         options=THEIR_EFFICIENTNET, slow=size != "b2", size=DEEP.get(size, 64)) for size in
         ("b1", "b2", "b3", "b4", "b5", "b6", "b7", "v2_s", "v2_m", "v2_l")),
    *(recorded(name, "torchvision", name, gradients=name.endswith("_400mf"), slow=not
         name.endswith("_400mf")) for letter in "xy" for name in (f"regnet_{letter}_{size}" for size
         in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf"))),
    *(recorded(name, "torchvision", name, changes=STILL, options=STILL, slow=slow, gradients=not
         slow) for slow, names in ((False, ("squeezenet1_0", "squeezenet1_1", "mnasnet0_5")), (True,
         ("mnasnet0_75", "mnasnet1_0", "mnasnet1_3"))) for name in names),
    *(recorded(f"shufflenet_v2_x{width}", "torchvision", f"shufflenet_v2_x{width}", gradients=width
         == "0_5", slow=width != "0_5") for width in ("0_5", "1_0", "1_5", "2_0")),
    *(recorded(f"convnext_{size}", "torchvision", f"convnext_{size}", changes={"drop_path": 0.0},
         options={"stochastic_depth_prob": 0.0}, gradients=size == "tiny", slow=size == "small") for
         size in ("tiny", "small")),
    replace(EFFICIENT, theirs=without_gates, changes=EFFICIENTNET | {"policy": NONE},
         options=THEIR_EFFICIENTNET | {"name": "efficientnet_b0"}),
    recorded("xception", "timm", "legacy_xception", gradients=True),
    *(recorded(name, "timm", name, changes=STILL, gradients=not slow, slow=slow) for name, slow in
         (("repvgg_a0", False), ("repvgg_b0", True), ("ghostnet_100", False))),
    # By timm's names, and with its norms.
    *(Case(name, "timm", theirs, STILL | changes, {}, 64) for name, theirs, changes in
         [("mobilenet_v2_050", "mobilenetv2_050", {}), ("mobilenet_v3_large",
         "mobilenetv3_large_100", {"eps": 1e-5}), ("mobilenet_v3_small", "mobilenetv3_small_100",
         {"eps": 1e-5}), ("mnasnet0_5", "mnasnet_050", {}), ("regnet_y_400mf", "regnety_004", {}),
         ("convnext_tiny", "convnext_tiny", {"drop_path": 0.0})]),
    # Split and whole maps, in basic blocks and bottlenecks.
    *(recorded(name, "timm", name, gradients=name == "skresnet18", slow=name == "skresnet34") for
         name in ("skresnet18", "skresnet34", "skresnet50", "skresnext50_32x4d")),
    recorded("resnest50", "timm", "resnest50d", gradients=True),
    # The Inceptions.
    replace(GOOGLENET, gradients=True),
    replace(GOOGLENET, size=79),
    Case("bn_inception", "pytorchcv", globally_pooled, {}, {"name": "bninception"}, gradients=True),
    recorded("bn_inception", "pytorchcv", "bninception", size=224, slow=True),
    replace(INCEPTION, library="torchvision", options=THEIR_INCEPTION, size=107, gradients=True,
         record="torchvision inception_v3"),
    replace(INCEPTION, record="timm inception_v3"),
    Case("inception_v3", "torchvision", padded_inception_v3, STILL | {"stem": "cifar"},
         THEIR_INCEPTION, size=14),
    recorded("inception_v4", "timm", "inception_v4", changes=STILL, size=75),
    Case("inception_v4", "timm", shallow_inception_v4, STILL | {"depths": (1, 1, 1)}, {}, 107,
         True),
    Case("inception_v4", "pytorchcv", globally_pooled, STILL, {"name": "inceptionv4"}, 75,
         record="pytorchcv inceptionv4", slow=True),
    Case("inception_v4", "timm", padded_inception_v4, STILL | {"stem": "cifar"}, size=14),
    recorded("inception_resnet_v2", "timm", "inception_resnet_v2", changes=STILL, size=75),
    Case("inception_resnet_v2", "timm", shallow_inception_resnet, STILL | {"depths": (1, 1, 2)}, {},
         107, True),
    Case("inception_resnet_v1", "pytorchcv", globally_pooled, STILL, {"name": "inceptionresnetv1",
         "dropout_prob": 0.0}, 107, record="pytorchcv inceptionresnetv1", slow=True),
    Case("inception_resnet_v2", "pytorchcv", globally_pooled, STILL, {"name": "inceptionresnetv2"},
         75, record="pytorchcv inceptionresnetv2", slow=True),
    # In eval mode: its last norm, over two samples in training, lets next to none through.
    Case("inception_resnet_v1", "pytorchcv", globally_pooled, STILL, {"name": "inceptionresnetv1",
         "dropout_prob": 0.0}, 75, True, train=False),
    Case("inception_resnet_v1", "pytorchcv", padded_inception_resnet_v1, STILL | {"stem": "cifar"},
         size=14),
    Case("inception_resnet_v2", "timm", padded_inception_resnet_v2, STILL | {"stem": "cifar"},
         size=14, slow=True),
]
# fmt: on


# Its argument is not called `name`: no other network stands for one of these.
@pytest.mark.parametrize(("_name", "case"), rows(FORMS))
def test_forms(_name: str, case: Case) -> None:
    case.run()


@pytest.mark.parametrize("name", DENSENETS)
def test_keys_and_shapes_are_torchvisions_in_the_same_order(name: str) -> None:
    ours = on_meta(lambda: create(name, seed=0)).state_dict()
    theirs = on_meta(lambda: from_library("torchvision", name)).state_dict()
    assert [(k, v.shape) for k, v in ours.items()] == [(k, v.shape) for k, v in theirs.items()]
