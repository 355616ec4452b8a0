"""Inception v2 against its table, and written out."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
import torch
from support import networks
from support.networks import calibrate_on_next_batch, randomize, relative_error
from torch import Tensor
from torch.nn import functional

from senetzoo import config
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import count

# Table 1 of the paper: the size of the input of each row, and the kernel of the row.
TABLE: list[tuple[str, tuple[int, int], str]] = [
    ("stem.0", (299, 3), "conv"),
    ("stem.1", (149, 32), "conv"),
    ("stem.2", (147, 32), "conv padded"),
    ("stem.3", (147, 64), "pool"),
    ("stem.4", (73, 64), "conv"),
    ("stem.5", (71, 80), "conv"),
    ("stem.6", (35, 192), "conv"),
    ("stage1.0", (35, 288), "3x Fig. 5"),
    ("stage2.1", (17, 768), "5x Fig. 6"),
    ("stage3.1", (8, 1280), "2x Fig. 7"),
    ("avgpool", (8, 2048), "pool"),
]

# Our widths, branch by branch: channels and kernel of each convolution.
Layers = list[tuple[int, int, int]]
FIGURE_5: list[Layers] = [
    [(64, 1, 1)],
    [(48, 1, 1), (64, 3, 3)],
    [(64, 1, 1), (96, 3, 3), (96, 3, 3)],
    [(64, 1, 1)],
]


def figure_6(c: int) -> list[Layers]:
    return [
        [(192, 1, 1)],
        [(c, 1, 1), (c, 1, 7), (192, 7, 1)],
        [(c, 1, 1), (c, 1, 7), (c, 7, 1), (c, 1, 7), (192, 7, 1)],
        [(192, 1, 1)],
    ]


def figure_10(single: tuple[int, int], double: tuple[int, int]) -> list[Layers]:
    return [
        [(single[0], 1, 1), (single[1], 3, 3)],
        [(double[0], 1, 1), (double[1], 3, 3), (double[1], 3, 3)],
    ]


MODULES: list[tuple[str, list[Layers]]] = [
    ("stage1.0", FIGURE_5),
    ("stage1.1", FIGURE_5),
    ("stage1.2", FIGURE_5),
    ("stage2.0", figure_10((128, 384), (64, 96))),
    ("stage2.1", figure_6(128)),
    ("stage2.2", figure_6(128)),
    ("stage2.3", figure_6(160)),
    ("stage2.4", figure_6(160)),
    ("stage2.5", figure_6(192)),
    ("stage3.0", figure_10((192, 320), (192, 192))),
]
# Of Fig. 7, whose middle branches end in a 1x3 and a 3x1 convolution side by side.
FIGURE_7: list[Layers] = [[(320, 1, 1)], [(384, 1, 1)], [(448, 1, 1), (384, 3, 3)], [(192, 1, 1)]]


skeleton = partial(networks.skeleton, Classifier, "inception_v2")


def test_every_row_of_the_table() -> None:
    model = skeleton().eval()
    inputs: dict[str, torch.Size] = {}
    outputs: dict[str, torch.Size] = {}

    def note(path: str, given: Tensor, output: Tensor) -> None:
        inputs[path], outputs[path] = given.shape, output.shape

    for path in [*(row[0] for row in TABLE), "stage1.2", "stage2.5", "stage3.2", "fc"]:
        model.get_submodule(path).register_forward_hook(
            lambda _module, given, output, path=path: note(path, given[0], output)
        )
    model(torch.empty(1, 3, 299, 299, device="meta"))
    for path, (side, channels), _ in TABLE:
        assert inputs[path] == (1, channels, side, side), path
    for (path, _, _), (_, (side, channels), _) in pairwise(TABLE[:8]):
        assert outputs[path] == (1, channels, side, side), path
    # "3 traditional inception modules at the 35x35 with 288 filters each", five of 17x17x768 and
    # two "with a concatenated output filter bank size of 2048" (Section 6).
    assert outputs["stage1.2"] == (1, 288, 35, 35)
    assert outputs["stage2.5"] == (1, 768, 17, 17)
    assert outputs["stage3.1"] == outputs["stage3.2"] == (1, 2048, 8, 8)
    assert outputs["avgpool"] == (1, 2048, 1, 1)
    assert inputs["fc"] == (1, 2048)
    assert outputs["fc"] == (1, 1000)


def test_macs() -> None:
    """The paper says 4.8 billion (Table 3); the widths, which decide it, are ours."""
    assert count(skeleton()).macs / 1e9 == pytest.approx(6.071, abs=0.0005)


def test_written_out() -> None:
    model = config("inception_v2").replace(num_classes=10).build(seed=0).double()
    randomize(model)
    calibrate_on_next_batch(model)
    x = torch.randn(2, 3, 107, 107, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        model(x)
        state = model.eval().state_dict()

        def conv(
            x: Tensor, name: str, stride: int = 1, padding: tuple[int, int] = (0, 0)
        ) -> Tensor:
            x = functional.conv2d(x, state[f"{name}.conv.weight"], None, stride, padding)
            mean, var, weight, bias = (
                state[f"{name}.bn.{part}"][:, None, None]
                for part in ("running_mean", "running_var", "weight", "bias")
            )
            out: Tensor = ((x - mean) / (var + 1e-3).sqrt() * weight + bias).clamp(min=0)
            return out

        def path(x: Tensor, name: str, layers: Layers, stride: int = 1) -> Tensor:
            for number, (outputs, height, width) in enumerate(layers):
                kernel = state[f"{name}.{number}.conv.weight"]
                assert (len(kernel), *kernel.shape[2:]) == (outputs, height, width)
                step = stride if number == len(layers) - 1 else 1
                padding = (0, 0) if step == 2 else (height // 2, width // 2)
                x = conv(x, f"{name}.{number}", step, padding)
            return x

        def around(x: Tensor) -> Tensor:
            return functional.avg_pool2d(x, 3, 1, 1)

        y = conv(conv(x, "stem.0", 2), "stem.1")
        y = functional.max_pool2d(conv(y, "stem.2", 1, (1, 1)), 3, 2)
        y = conv(conv(conv(y, "stem.4"), "stem.5", 2), "stem.6", 1, (1, 1))
        for name, branches in MODULES:
            below = f"{name}.branches"
            if len(branches) == 2:
                parts = [path(y, f"{below}.{n}", b, 2) for n, b in enumerate(branches)]
                parts.append(functional.max_pool2d(y, 3, 2))
            else:
                parts = [path(y, f"{below}.{n}", branches[n]) for n in range(3)]
                parts.append(conv(around(y), f"{below}.3.1"))
            y = torch.cat(parts, 1)
        for name in ("stage3.1.branches", "stage3.2.branches"):
            parts = [path(y, f"{name}.0", FIGURE_7[0])]
            for number in (1, 2):
                z = path(y, f"{name}.{number}", FIGURE_7[number])
                last = f"{name}.{number}.{len(FIGURE_7[number])}"
                parts.append(conv(z, f"{last}.wide", 1, (0, 1)))
                parts.append(conv(z, f"{last}.high", 1, (1, 0)))
            y = torch.cat([*parts, conv(around(y), f"{name}.3.1")], 1)
        expected = y.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]
        assert relative_error(model(x), expected) < 1e-12
