"""Stems: what they build, what they make of an image, and when they warn."""

from __future__ import annotations

import warnings

import pytest
import torch
from support.networks import message, on_meta, skeleton, tiny
from torch import nn

from senetzoo import SE, Stem
from senetzoo.errors import ConfigError
from senetzoo.models.resnet import ResNetConfig
from senetzoo.models.staged import ResNet
from senetzoo.nn.stem import CIFAR, DEEP, IMAGENET, as_stem
from senetzoo.policies.attach import attach
from senetzoo.registry import ENTRIES
from senetzoo.zoo import create

# The stem of one of the small-image networks of the field: 3x3 of stride 2, then the pool.
TYPED = Stem(kernels=(3,), strides=(2,), pool=True)
WIDE = Stem(kernels=(5, 3), strides=(1, 2), widths=(0.25, 1.0))


def build(name: str, stem: Stem | str) -> ResNet:
    return skeleton(ResNet, name, stem=stem)


def convolutions(model: ResNet) -> list[tuple[int, int, int]]:
    """Kernel, stride and width of each convolution of the stem."""
    return [
        (module.kernel_size[0], module.stride[0], module.out_channels)
        for module in model.conv1.modules()
        if isinstance(module, nn.Conv2d)
    ]


@pytest.mark.parametrize(
    ("stem", "layers", "pool", "stride"),
    [
        ("imagenet", [(7, 2, 64)], True, 4),
        ("cifar", [(3, 1, 64)], False, 1),
        ("deep", [(3, 2, 32), (3, 1, 32), (3, 1, 64)], True, 4),
        (TYPED, [(3, 2, 64)], True, 4),
        (WIDE, [(5, 1, 16), (3, 2, 64)], False, 2),
    ],
    ids=["imagenet", "cifar", "deep", "3x3/2+pool", "5x5,3x3/2"],
)
@pytest.mark.parametrize("name", ["resnet18", "se_resnext50_32x4d"])
def test_what_a_stem_builds(
    name: str, stem: Stem | str, layers: list[tuple[int, int, int]], pool: bool, stride: int
) -> None:
    model = build(name, stem)
    assert convolutions(model) == layers
    assert (model.maxpool is not None) == pool
    assert as_stem(stem).stride == stride
    assert model.spec.config.stem == as_stem(stem)
    # Three later stages halve the map.
    for size in (64, 224):
        features = model.forward_features(torch.empty(1, 3, size, size, device="meta"))
        assert features.shape[2:] == (size // stride // 8, size // stride // 8)
    assert model(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 1000)


TRUNKS = [
    name
    for name, entry in ENTRIES.items()
    if isinstance(entry.config, ResNetConfig) and not name.startswith("se_")
]


@pytest.mark.parametrize("name", TRUNKS)
def test_every_network_takes_the_stem_that_it_does_not_have(name: str) -> None:
    has = ENTRIES[name].config.stem
    stem, size = ("imagenet", 64) if has == CIFAR else ("cifar", 16)
    model = build(name, stem)
    later = 2 ** (len(model.stages()) - 1)
    # Two images: the norms inside the attention of SKNet and ResNeSt see one pixel of each.
    features = model.forward_features(torch.empty(2, 3, size, size, device="meta"))
    assert features.shape[2] == size // as_stem(stem).stride // later


@pytest.mark.parametrize("stem", ["imagenet", "cifar", "deep", TYPED, WIDE])
def test_networks_of_three_stages_take_every_stem(stem: Stem | str) -> None:
    features = build("resnet20", stem).forward_features(torch.empty(1, 3, 64, 64, device="meta"))
    assert features.shape == (1, 64, *(2 * [64 // as_stem(stem).stride // 4]))


def test_input_channels() -> None:
    for stem in ("imagenet", "deep"):
        with torch.device("meta"):
            model = create("resnet18", stem=stem, in_chans=5, seed=0)
        assert model(torch.empty(1, 5, 64, 64, device="meta")).shape == (1, 1000)
        with pytest.raises(ConfigError) as caught:
            model(torch.empty(1, 3, 64, 64, device="meta"))
        assert str(caught.value) == (
            "The network got an input of shape (1, 3, 64, 64).\n"
            "It takes images of shape (N, 5, H, W).\n"
            "Build it with in_chans=, the number of channels of your images"
        )
    assert message(lambda: model(torch.empty(5, 64, 64, device="meta")), ConfigError) == (
        "The network got an input of shape (5, 64, 64).\n"
        "It takes images of shape (N, 5, H, W).\n"
        "Type x.unsqueeze(0) for a single image"
    )


def test_names() -> None:
    assert (as_stem("imagenet"), as_stem("cifar"), as_stem("deep")) == (IMAGENET, CIFAR, DEEP)
    assert as_stem(TYPED) is TYPED
    assert as_stem("7x7/2+pool") == IMAGENET
    assert as_stem("5x5/1") == Stem(kernels=(5,), strides=(1,))
    assert Stem(kernels=[3], strides=[2], pool=True) == TYPED  # type: ignore[arg-type]
    assert hash(Stem(kernels=[3], strides=[2], pool=True)) == hash(TYPED)  # type: ignore[arg-type]


ODD = "kernels is a tuple of one or more odd whole numbers of at least 1."
STRIDES = "strides is a tuple of one or more whole numbers of at least 1."
EACH = (
    "Each convolution needs one of each, and the last width is 1.\n"
    "Type for example: Stem(kernels=(3,), strides=(2,), pool=True)"
)


@pytest.mark.parametrize(
    ("kernels", "strides", "widths", "text"),
    [
        ((3, 3), (1,), (),
         "Stem got the kernels (3, 3), the strides (1,) and the widths (1.0, 1.0).\n" + EACH),
        ((3, 3), (2, 1), (1.0, 0.5),
         "Stem got the kernels (3, 3), the strides (2, 1) and the widths (1.0, 0.5).\n" + EACH),
        ((), (), (), f"Stem got kernels=().\n{ODD}\nType for example: kernels=(3,)"),
        ((4,), (1,), (), f"Stem got kernels=(4,).\n{ODD}\nType for example: kernels=(3,)"),
        (3, (1,), (), f"Stem got kernels=3.\n{ODD}\nType for example: kernels=(3,)"),
        *(
            (
                (3, 3),
                strides,
                (),
                f"Stem got strides={strides!r}.\n{STRIDES}\nType for example: strides=(2,)",
            )
            for strides in ((2, 0), ("1",), (True,))
        ),
        *(
            (
                (3,),
                (1,),
                widths,
                f"Stem got widths={widths!r}.\nwidths is a tuple of numbers above 0.\n"
                "Type for example: widths=()",
            )
            for widths in ("1", (0.0, 1.0))
        ),
    ],
)  # fmt: skip
def test_bad_stems(
    kernels: tuple[int, ...], strides: tuple[int, ...], widths: tuple[float, ...], text: str
) -> None:
    assert (
        message(lambda: Stem(kernels=kernels, strides=strides, widths=widths), ConfigError) == text
    )


@pytest.mark.parametrize(
    ("name", "stem", "text"),
    [
        ("resnet18", "cifer", "stem='cifer' isn't a stem.\n"
         "Use 'imagenet', 'cifar', 'deep', one like '3x3/2+pool', or a senetzoo.Stem.\n"
         "Did you mean 'cifar'?"),
        ("resnet18", 7, "stem=7 isn't a stem.\n"
         "Use 'imagenet', 'cifar', 'deep', one like '3x3/2+pool', or a senetzoo.Stem."),
        ("lenet", "deep", "LeNet got stem='deep'.\n"
         "LeNet has only one stem, 'cifar' for images of 32x32 pixels.\n"
         "Leave out stem, or type stem='cifar'"),
        ("resnet20", Stem(kernels=(3, 3), strides=(1, 1), widths=(0.01, 1.0)),
         "width=16 with Stem(kernels=(3, 3), strides=(1, 1), widths=(0.01, 1.0), pool=False) "
         "leaves no channels.\n"
         "Each stem convolution has width times its entry in widths channels, at least 1.\n"
         "Type for example: width=64"),
    ],
)  # fmt: skip
def test_stems_that_do_not_fit(name: str, stem: Stem | str, text: str) -> None:
    assert message(lambda: create(name, stem=stem, seed=0), ConfigError) == text


WARNING = (
    "The input has {0} pixels, but the network is built for 224x224. "
    'For images under 64 pixels use stem="cifar".'
)


@pytest.mark.parametrize("stem", ["imagenet", "deep", TYPED], ids=["imagenet", "deep", "typed"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (63, 80), (80, 40)])
def test_a_small_image_warns_once(stem: Stem | str, height: int, width: int) -> None:
    model = tiny(stem=stem).eval()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            model(torch.zeros(1, 3, height, width))
    assert [str(w.message) for w in caught] == [WARNING.format(f"{height}x{width}")]
    # It points at the line that called the network.
    assert caught[0].filename == __file__


@pytest.mark.parametrize("name", ["resnet18", "vgg11"], ids=["method", "child"])
def test_the_warning_points_at_who_asks_for_features(name: str) -> None:
    model = on_meta(lambda: create(name, seed=0)).eval()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.feature_maps(torch.empty(1, 3, 32, 32, device="meta"))
    assert [str(w.message) for w in caught] == [WARNING.format("32x32")]
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("stem", "size"), [("imagenet", 64), ("deep", 64), ("cifar", 16), (WIDE, 16)]
)
def test_no_warning_where_there_is_no_reason(stem: Stem | str, size: int) -> None:
    model = tiny(stem=stem).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(torch.zeros(1, 3, size, size))


def test_compiled_in_one_graph_without_a_warning() -> None:
    model = tiny("bottleneck", stem="imagenet").eval()
    attach(model, SE(4) + SE(4).at("identity"), seed=0)
    x = torch.randn(1, 3, 32, 32)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        y = compiled(x)
    assert [w for w in caught if "stem" in str(w.message)] == []
    with pytest.warns(UserWarning, match="For images under 64 pixels"):
        torch.testing.assert_close(y, model(x))
