"""GoogLeNet against torchvision, and the paper's form against its table and written out."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch
from support import networks
from support.inception import THEIRS, AllLogits
from support.networks import learnable, message, randomize, relative_error
from support.parity import SAME, TOLERANCE, compare, from_library
from torch import Tensor, nn
from torch.nn import functional

from senetzoo import create
from senetzoo.errors import ConfigError
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import Counts, count
from senetzoo.nn.maps import AuxOutput

FORMS = ["googlenet", "googlenet_bn"]

# Table 1 of the paper: channels and side after each row, and the row's widths.
TABLE: list[tuple[str, int, int, tuple[int, ...]]] = [
    ("conv1", 64, 112, ()),
    ("maxpool1", 64, 56, ()),
    ("conv3", 192, 56, ()),
    ("maxpool2", 192, 28, ()),
    ("inception3a", 256, 28, (64, 96, 128, 16, 32, 32)),
    ("inception3b", 480, 28, (128, 128, 192, 32, 96, 64)),
    ("maxpool3", 480, 14, ()),
    ("inception4a", 512, 14, (192, 96, 208, 16, 48, 64)),
    ("inception4b", 512, 14, (160, 112, 224, 24, 64, 64)),
    ("inception4c", 512, 14, (128, 128, 256, 24, 64, 64)),
    ("inception4d", 528, 14, (112, 144, 288, 32, 64, 64)),
    ("inception4e", 832, 14, (256, 160, 320, 32, 128, 128)),
    ("maxpool4", 832, 7, ()),
    ("inception5a", 832, 7, (256, 160, 320, 32, 128, 128)),
    ("inception5b", 1024, 7, (384, 192, 384, 48, 128, 128)),
    ("avgpool", 1024, 1, ()),
]


build = partial(networks.built, Classifier)
skeleton = partial(networks.skeleton, Classifier)


# --- torchvision ---------------------------------------------------------------------------------


def test_torchvision_with_auxiliary_heads() -> None:
    compare(
        lambda: AllLogits(build("googlenet_bn", aux=True, dropout=0.0, aux_dropout=0.0)),
        lambda: AllLogits(
            from_library("torchvision", "googlenet", aux_logits=True, dropout_aux=0.0, **THEIRS)
        ),
        SAME,
        gradients=True,
    )


def test_parameters_and_macs_are_torchvisions() -> None:
    counts = count(skeleton("googlenet_bn"))
    assert counts.params == 6_624_904
    assert counts.macs / 1e9 == pytest.approx(1.498, abs=0.0005)
    # Auxiliary heads do not run in eval mode, which MACs are counted in.
    assert count(skeleton("googlenet_bn", aux=True)) == Counts(13_004_888, counts.macs)


# --- The paper's form ----------------------------------------------------------------------------


def test_every_row_of_the_papers_table() -> None:
    model = skeleton("googlenet", aux=True)
    shapes: dict[str, torch.Size] = {}
    for path in [*(row[0] for row in TABLE), "aux1.pool", "aux2.pool", "aux1.conv", "fc"]:
        model.get_submodule(path).register_forward_hook(
            lambda _module, _inputs, output, path=path: shapes.update({path: output.shape})
        )
    model(torch.empty(2, 3, 224, 224, device="meta"))
    for path, channels, side, _ in TABLE:
        assert shapes[path] == (2, channels, side, side), path
    # Section 5: "a 4x4x512 output for the (4a), and 4x4x528 for the (4d) stage", then 1x1
    # convolutions with 128 filters.
    assert shapes["aux1.pool"] == (2, 512, 4, 4)
    assert shapes["aux2.pool"] == (2, 528, 4, 4)
    assert shapes["aux1.conv"] == (2, 128, 4, 4)
    assert shapes["fc"] == (2, 1000)


def test_parameters_of_the_papers_table() -> None:
    def conv(inputs: int, outputs: int, kernel: int) -> int:
        return (inputs * kernel * kernel + 1) * outputs

    total = conv(3, 64, 7) + conv(64, 64, 1) + conv(64, 192, 3)
    for (_, inputs, *_), (_, outputs, _, widths) in pairwise(TABLE):
        if widths:
            one, three_reduce, three, five_reduce, five, pool = widths
            assert one + three + five + pool == outputs
            total += conv(inputs, one, 1) + conv(inputs, pool, 1)
            total += conv(inputs, three_reduce, 1) + conv(three_reduce, three, 3)
            total += conv(inputs, five_reduce, 1) + conv(five_reduce, five, 5)
    total += 1024 * 1000 + 1000
    heads = sum(
        conv(inputs, 128, 1) + 2048 * 1024 + 1024 + 1024 * 1000 + 1000 for inputs in (512, 528)
    )
    assert total == 6_998_552
    assert learnable(skeleton("googlenet")) == total
    assert learnable(skeleton("googlenet", aux=True)) == total + heads


def test_macs_of_the_papers_form() -> None:
    # "1.5 billion multiply-adds at inference time" (Section 1) is said of a budget.
    assert count(skeleton("googlenet")).macs / 1e9 == pytest.approx(1.58, abs=0.005)


def written_out(state: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Logits, and those of both auxiliary heads, of the paper's network without dropout."""

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        weight, bias = state[f"{name}.conv.weight"], state[f"{name}.conv.bias"]
        return functional.conv2d(x, weight, bias, stride, padding).clamp(min=0)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: Tensor) -> Tensor:
        # Section 3.3 of the AlexNet paper, with k = 1 and alpha over the number of channels.
        padded = functional.pad(x**2, (0, 0, 0, 0, 2, 2))
        squares = sum(padded[:, shift : shift + x.shape[1]] for shift in range(5))
        return x / (1 + 1e-4 / 5 * squares) ** 0.75

    def pool(x: Tensor) -> Tensor:
        # Rounding up: what lies beyond the border does not count.
        right, below = (1 - side % 2 for side in x.shape[:1:-1])
        return functional.max_pool2d(functional.pad(x, (0, right, 0, below), value=-1e9), 3, 2)

    x = pool(conv(x, "conv1", 2, 3))
    x = pool(norm(conv(conv(norm(x), "conv2"), "conv3", 1, 1)))
    logits = []
    for name in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        if name in ("4a", "5a"):
            x = pool(x)
        path = f"inception{name}"
        x = torch.cat(
            [
                conv(x, f"{path}.branch1"),
                conv(conv(x, f"{path}.branch2.0"), f"{path}.branch2.1", 1, 1),
                conv(conv(x, f"{path}.branch3.0"), f"{path}.branch3.1", 1, 2),
                conv(functional.max_pool2d(x, 3, 1, 1), f"{path}.branch4.1"),
            ],
            1,
        )
        head = {"4a": "aux1", "4d": "aux2"}.get(name)
        if head is not None:
            y = functional.avg_pool2d(x, 5, 3)
            y = linear(conv(y, f"{head}.conv").flatten(1), f"{head}.fc1").clamp(min=0)
            logits.append(linear(y, f"{head}.fc2"))
    return [linear(x.mean((2, 3)), "fc"), *logits]


def test_the_papers_form_written_out() -> None:
    # 223 pixels make 14x14 at 4a as 224 do, and an odd side after it is rounded up.
    model = build("googlenet", aux=True, dropout=0.0, aux_dropout=0.0, num_classes=10).double()
    randomize(model)
    x = torch.randn(1, 3, 223, 223, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        expected = written_out(model.state_dict(), x)
        out = model(x)
        assert isinstance(out, AuxOutput)
        for ours, theirs in zip((out.logits, *out.aux), expected, strict=True):
            assert relative_error(ours, theirs) < 1e-12
        assert relative_error(model.eval()(x), expected[0]) < TOLERANCE


# --- Both ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMS)
def test_auxiliary_heads_are_asked_for(name: str) -> None:
    model = build(name, aux=True, stem="cifar", num_classes=5)
    x = torch.randn(2, 3, 32, 32)
    out = model(x)
    assert isinstance(out, AuxOutput)
    assert [y.shape for y in (out.logits, *out.aux)] == [(2, 5)] * 3
    model.reset_classifier(4)
    assert [y.shape for y in (model(x).logits, *model(x).aux)] == [(2, 4)] * 3
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert sorted(rates) == [0.4 if name == "googlenet" else 0.2, 0.7, 0.7]
    with torch.no_grad():
        assert model.eval()(x).shape == (2, 4)
        assert isinstance(build(name, stem="cifar").train()(x), Tensor)


def test_too_small_an_image() -> None:
    assert message(
        lambda: create("googlenet_bn", seed=0)(torch.zeros(1, 3, 14, 14)), ConfigError
    ) == (
        "The network got images of 14x14 pixels.\n"
        "This GoogLeNet takes at least 15x15.\n"
        'Build it with stem="cifar", or enlarge the images'
    )
