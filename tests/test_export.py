"""Compiled, exported and ONNX forms of the networks give what the eager ones give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.networks import SMALL, calibrate_on_next_batch, images_of, reduced, relative_error
from torch import Tensor

from senetzoo import SE, block, stage
from senetzoo.gates.se import SqueezeExcitation
from senetzoo.nn.classifier import Classifier
from senetzoo.registry import ENTRIES, FAMILIES
from senetzoo.zoo import config

# In fp32, where another order of sums is another rounding.
TOLERANCE = 1e-4

# Their graphs are large: each takes ten seconds to a minute. Plain's are as those of ResNet.
LARGE = (
    "BN-Inception", "EfficientNet", "GoogLeNet", "Inception v2", "Inception v3", "Inception v4",
    "Inception-ResNet", "MobileNet", "Plain", "SENet", "Swin",
)  # fmt: skip
NAMES = [
    *(
        pytest.param(
            SMALL.get(family.title),
            id=family.title,
            marks=[pytest.mark.slow] * (family.title in LARGE),
        )
        for family in FAMILIES
    ),
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name, entry in ENTRIES.items()
        if name == entry.trunk and name not in SMALL.values()
    ),
]


def ready(name: str | None) -> Classifier:
    """The small form in eval mode, with a gate in its last block and statistics of its own."""
    assert name is not None, "name a small network of the family in SMALL"
    arch = reduced(name) if name in SMALL.values() else config(name)
    policy = SE(4).on(stage(-1) & block(-1))
    model = arch.replace(stem="cifar", num_classes=7, policy=policy).build(seed=0)
    assert any(isinstance(module, SqueezeExcitation) for module in model.modules())
    calibrate_on_next_batch(model)
    with torch.no_grad():
        model(images_of(model, 4))
    return model.eval()


def dynamic_batch() -> Any:
    return ({0: torch.export.Dim("batch")},)


@torch.no_grad()
def agrees(model: Classifier, other: Any, counts: tuple[int, ...]) -> None:
    for count in counts:
        x = images_of(model, count)
        expected = model(x)
        assert expected.std() > 1e-3
        assert relative_error(other(x), expected) < TOLERANCE


def test_the_table_names_each_family_once() -> None:
    assert {ENTRIES[name].family.title: name for name in SMALL.values()} == SMALL


@pytest.mark.parametrize("name", NAMES)
def test_compile(name: str) -> None:
    """One graph, down to the operators; inductor's code for them takes minutes for all."""
    model = ready(name)
    torch.compiler.reset()
    agrees(model, torch.compile(model, fullgraph=True, backend="aot_eager"), (3,))


@pytest.mark.parametrize(
    "name",
    [
        name if name == "lenet" else pytest.param(name, marks=pytest.mark.slow)
        for name in SMALL.values()
    ],
)
def test_inductor(name: str) -> None:
    model = ready(name)
    torch.compiler.reset()
    agrees(model, torch.compile(model, fullgraph=True), (3,))


@pytest.mark.parametrize("name", NAMES)
def test_export_and_onnx(name: str, tmp_path: Path) -> None:
    """Traced with three images, run with other numbers of them, by torch and by ONNX Runtime."""
    import onnxruntime

    model = ready(name)
    exported = torch.export.export(model, (images_of(model, 3),), dynamic_shapes=dynamic_batch())
    agrees(model, exported.module(), (1, 5))

    program = torch.onnx.export(exported, (), dynamo=True, verbose=False)
    assert program is not None
    file = tmp_path / "model.onnx"
    program.save(str(file))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()

    def run(x: Tensor) -> Tensor:
        (logits,) = session.run(None, {given.name: x.numpy()})
        return torch.from_numpy(logits)

    agrees(model, run, (1, 5))
