"""Small networks of other libraries, and what must come back when their gates are taken out."""

from __future__ import annotations

import functools
import hashlib
import importlib
from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from senetzoo import SE, SiteMap
from senetzoo.nn.slots import POSITIONS, Position
from senetzoo.policies.algebra import Gate, Policy
from support.networks import on_meta, randomize


def everywhere(gate: Gate, sites: SiteMap) -> Policy:
    """`gate` at every position that `sites` has."""
    there = [p for p in POSITIONS if any(place.position == p for place in sites.places)]
    return reduce(add, [gate.at(p) for p in there])


# Its hidden units can't all be off, so that its gradients are never all zero.
SMOOTH = SE(4, act="silu")


def all_five(gate: Gate = SMOOTH) -> Policy:
    return reduce(add, [gate.at(position) for position in POSITIONS])


def randomize_gates(gates: Any, seed: int = 3) -> None:
    for index, gate in enumerate(gates.values()):
        randomize(gate, seed + index)


def traces(model: nn.Module) -> list[Any]:
    """All that a network is: modules, tensors, hooks, flags, in order and by identity."""
    found: list[Any] = []
    for name, module in model.named_modules(remove_duplicate=False):
        found.append((name, id(module), type(module)))
        for key, value in vars(module).items():
            if isinstance(value, dict):
                found.append((name, key, [(k, id(v)) for k, v in value.items()]))
            elif isinstance(value, (bool, int, float, str, tuple, type(None))):
                found.append((name, key, value))
            else:
                found.append((name, key, id(value)))
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found.append((name, id(tensor), tensor._version, tensor.requires_grad, tensor.stride()))
    return found


def values(model: nn.Module) -> list[Any]:
    """The same by value, for a copy: names, flags, kinds of hooks, and every bit of the tensors."""
    found: list[Any] = []
    for name, module in model.named_modules(remove_duplicate=False):
        plain = {k: v for k, v in vars(module).items() if isinstance(v, (bool, int, float, str))}
        hooks = [list(module._forward_hooks.values()), list(module._forward_pre_hooks.values())]
        found.append((name, type(module), list(vars(module)), plain, hooks))
    for name, tensor in model.state_dict().items():
        data = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        found.append((name, tensor.dtype, tensor.shape, hashlib.sha256(data).digest()))
    return found


# --- Small forms of what the tables know ---------------------------------------------------------


def _of(module: str, name: str, *args: Any, **options: Any) -> nn.Module:
    """What `name` of `module` builds."""
    model: nn.Module = getattr(importlib.import_module(module), name)(*args, **options)
    return model


def _resnet(library: str, block: str, depths: list[int], **options: Any) -> nn.Module:
    resnet = importlib.import_module(f"{library}.models.resnet")
    return _of(resnet.__name__, "ResNet", getattr(resnet, block), depths, num_classes=5, **options)


def _regnet() -> nn.Module:
    from torchvision.models import regnet

    parameters = regnet.BlockParams.from_init_params(
        depth=6, w_0=16, w_a=8.0, w_m=2.0, group_width=8, se_ratio=0.25
    )
    model: nn.Module = regnet.RegNet(parameters, num_classes=5)
    return model


def _filled(build: Callable[[], nn.Module], head: str = "", inputs: int = 0) -> nn.Module:
    """What `build` builds, with a small head and without its own, costly initialization."""
    model = on_meta(build)
    if head:
        setattr(model, head, nn.Linear(inputs, 5, device="meta"))
    model = model.to_empty(device="cpu")
    randomize(model)
    return model


_VGG = [8, "M", 16, 16, "M", 32, "M"]


def _vgg(norm: bool) -> nn.Module:
    from torchvision.models import vgg

    def build() -> nn.Module:
        layers = vgg.make_layers(_VGG, batch_norm=norm)
        return _of(vgg.__name__, "VGG", layers, num_classes=5, init_weights=False)

    return _filled(build, "classifier", 32 * 49)


def _swin(version: int) -> nn.Module:
    from torchvision.models import swin_transformer as swin

    second = {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2}
    model: nn.Module = swin.SwinTransformer(
        *([4, 4], 24, [2, 2], [2, 4], [4, 4]),
        num_classes=5,
        stochastic_depth_prob=0.0,
        **(second if version == 2 else {}),
    )
    return model


def _convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    model: nn.Module = ConvNeXt(
        [CNBlockConfig(16, 32, 1), CNBlockConfig(32, None, 2)],
        layer_scale=0.5,
        num_classes=5,
    )
    return model


def _efficientnet_v2() -> nn.Module:
    from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig

    stages = [
        FusedMBConvConfig(1, 3, 1, 16, 16, 2),
        FusedMBConvConfig(4, 3, 2, 16, 32, 2),
        MBConvConfig(4, 3, 2, 32, 48, 2),
    ]
    model: nn.Module = EfficientNet(stages, dropout=0.1, last_channel=64, num_classes=5)
    return model


def _shufflenet() -> nn.Module:
    return _of("torchvision.models", "ShuffleNetV2", [2, 2, 2], [24, 16, 32, 64, 128], 5)


def _timm_regnet(preact: bool) -> nn.Module:
    from timm.models.regnet import RegNet, RegNetCfg

    config = RegNetCfg(
        depth=6, w0=16, wa=24.0, wm=2.0, group_size=8, se_ratio=0.25, preact=preact, num_features=32
    )
    model: nn.Module = RegNet(config, num_classes=5)
    return model


def _timm_resnet_of(module: str, block: str, **options: Any) -> nn.Module:
    """timm's ResNet of blocks that stand in another module."""
    kind = getattr(importlib.import_module(f"timm.models.{module}"), block)
    return _of("timm.models.resnet", "ResNet", kind, _SHORT, num_classes=5, **options)


def _of_torchvision(name: str, **options: Any) -> nn.Module:
    return _of("torchvision.models", "get_model", name, num_classes=5, **options)


def _of_timm(name: str) -> nn.Module:
    return _of("timm", "create_model", name, num_classes=5)


def _timm_preact(block: str) -> nn.Module:
    from timm.layers.create_conv2d import create_conv2d
    from timm.layers.norm_act import BatchNormAct2d

    return _of(
        "timm.models.resnetv2",
        "ResNetV2",
        [2, 1],
        channels=(32, 64),
        num_classes=5,
        preact=block != "Bottleneck",
        basic=block == "PreActBasic",
        stem_chs=16,
        conv_layer=create_conv2d,
        norm_layer=BatchNormAct2d,
    )


def _timm_vgg() -> nn.Module:
    def build() -> nn.Module:
        model: Any = _of("timm.models", "VGG", _VGG, num_classes=5, norm_layer=nn.BatchNorm2d)
        model.pre_logits = nn.Identity()
        model.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5))
        return model  # type: ignore[no-any-return]

    return _filled(build)


def _timm_inception_resnet() -> nn.Module:
    # timm.models has a function of that name.
    inception = importlib.import_module("timm.models.inception_resnet_v2")
    layers = importlib.import_module("timm.layers.conv_bn_act")
    conv = functools.partial(layers.ConvNormAct, padding=0)
    return nn.Sequential(
        nn.Conv2d(3, 320, 3, 2),
        nn.Sequential(inception.Block35(0.17, conv), inception.Block35(0.17, conv)),
        inception.Mixed_6a(conv),
        inception.Block17(0.1, conv_block=conv),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(1088, 5),
    )


def _timm_swin() -> nn.Module:
    sizes: dict[str, Any] = {"depths": (2, 2), "num_heads": (2, 4), "window_size": 4}
    return _of("timm.models", "SwinTransformer", img_size=32, embed_dim=24, num_classes=5, **sizes)


def _pytorchcv_resnet(bottleneck: bool) -> nn.Module:
    widths = [[64, 64], [128], [256]] if bottleneck else [[16, 16], [32], [64]]
    cifar = "pytorchcv.models.resnet_cifar"
    return _of(cifar, "CIFARResNet", widths, 16, bottleneck, num_classes=5)


def _inception(name: str) -> Callable[[], nn.Module]:
    options: dict[str, Any] = {"aux_logits": False, "init_weights": False}
    return lambda: _filled(lambda: _of("torchvision.models", name, 5, **options))


Builder = tuple[Callable[[], nn.Module], int]
_DEEP: dict[str, Any] = {"stem_type": "deep", "avg_down": True, "drop_path_rate": 0.1}
_SHORT = [2, 1, 1, 1]

SMALL: dict[str, Builder] = {
    "torchvision basic": (lambda: _resnet("torchvision", "BasicBlock", _SHORT), 64),
    "torchvision bottleneck": (lambda: _resnet("torchvision", "Bottleneck", _SHORT), 64),
    "torchvision resnext": (
        lambda: _resnet("torchvision", "Bottleneck", [1, 2, 1, 1], groups=8, width_per_group=4),
        64,
    ),
    "torchvision regnet": (_regnet, 64),
    "torchvision vgg": (lambda: _vgg(False), 32),
    "torchvision vgg_bn": (lambda: _vgg(True), 32),
    "torchvision alexnet": (
        lambda: _filled(lambda: _of_torchvision("alexnet"), "classifier", 256 * 36),
        64,
    ),
    "torchvision densenet": (
        lambda: _of("torchvision.models", "DenseNet", 8, (2, 3, 2, 2), 16, num_classes=5),
        64,
    ),
    "torchvision googlenet": (_inception("GoogLeNet"), 64),
    "torchvision inception_v3": (_inception("Inception3"), 75),
    "torchvision mobilenet_v2": (lambda: _of_torchvision("mobilenet_v2", width_mult=0.25), 64),
    "torchvision mobilenet_v3_small": (lambda: _of_torchvision("mobilenet_v3_small"), 64),
    "torchvision mobilenet_v3_large": (
        lambda: _of_torchvision("mobilenet_v3_large", width_mult=0.25),
        64,
    ),
    "torchvision mnasnet": (lambda: _of_torchvision("mnasnet0_5"), 64),
    "torchvision efficientnet_b0": (lambda: _of_torchvision("efficientnet_b0"), 64),
    "torchvision squeezenet": (lambda: _of_torchvision("squeezenet1_1"), 64),
    "torchvision convnext": (_convnext, 32),
    "torchvision efficientnet_v2": (_efficientnet_v2, 64),
    "torchvision shufflenet": (_shufflenet, 64),
    "torchvision swin": (lambda: _swin(1), 32),
    "torchvision swin_v2": (lambda: _swin(2), 32),
    "timm basic": (lambda: _resnet("timm", "BasicBlock", _SHORT), 64),
    "timm bottleneck": (lambda: _resnet("timm", "Bottleneck", _SHORT), 64),
    "timm resnet d": (lambda: _resnet("timm", "Bottleneck", _SHORT, **_DEEP), 64),
    "timm seresnet": (
        lambda: _resnet("timm", "BasicBlock", _SHORT, block_args={"attn_layer": "se"}),
        64,
    ),
    "timm legacy_seresnet18": (lambda: _of_timm("legacy_seresnet18"), 64),
    "timm preact basic": (lambda: _timm_preact("PreActBasic"), 32),
    "timm preact bottleneck": (lambda: _timm_preact("PreActBottleneck"), 32),
    "timm resnetv2 bottleneck": (lambda: _timm_preact("Bottleneck"), 32),
    "timm vgg": (_timm_vgg, 32),
    "timm densenet": (lambda: _of("timm.models", "DenseNet", 8, (2, 3), num_classes=5), 64),
    "timm inception_v3": (lambda: _filled(lambda: _of_timm("inception_v3")), 75),
    "timm inception_resnet": (_timm_inception_resnet, 32),
    "timm mobilenetv1": (lambda: _of_timm("mobilenetv1_100"), 64),
    "timm mobilenetv2": (lambda: _of_timm("mobilenetv2_035"), 64),
    "timm mobilenetv3_small": (lambda: _of_timm("mobilenetv3_small_050"), 64),
    "timm efficientnet_b0": (lambda: _of_timm("efficientnet_b0"), 64),
    "timm efficientnet_es": (lambda: _of_timm("efficientnet_es"), 64),
    "timm regnet": (lambda: _timm_regnet(False), 64),
    "timm regnet preact": (lambda: _timm_regnet(True), 64),
    "timm convnext": (
        lambda: _of(
            "timm.models", "ConvNeXt", depths=(1, 2, 1, 1), dims=(8, 16, 24, 32), num_classes=5
        ),
        64,
    ),
    "timm mobilenetv4": (lambda: _of_timm("mobilenetv4_conv_small_035"), 64),
    "timm nfnet": (lambda: _of_timm("test_nfnet"), 64),
    "timm byobnet": (lambda: _of_timm("test_byobnet"), 64),
    "timm dla": (lambda: _of_timm("dla46_c"), 64),
    "timm res2net": (
        lambda: _timm_resnet_of("res2net", "Bottle2neck", base_width=8, block_args={"scale": 4}),
        64,
    ),
    "timm resnest": (lambda: _timm_resnet_of("resnest", "ResNestBottleneck"), 64),
    "timm sknet": (lambda: _timm_resnet_of("sknet", "SelectiveKernelBasic"), 64),
    "timm swin": (_timm_swin, 32),
    "pytorchcv basic": (lambda: _pytorchcv_resnet(False), 32),
    "pytorchcv bottleneck": (lambda: _pytorchcv_resnet(True), 32),
    "pytorchcv seresnet20": (
        lambda: _of("pytorchcv.model_provider", "get_model", "seresnet20_cifar10"),
        32,
    ),
}


def small(name: str) -> nn.Module:
    """The network called `name` in `SMALL`, from a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SMALL[name][0]()


def image(name: str, batch: int = 2) -> Tensor:
    """A batch of images for it."""
    side = SMALL[name][1]
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def at(sites: SiteMap) -> set[Position]:
    return {place.position for place in sites.places}
