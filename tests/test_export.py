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
from senetzoo.spec import ModelSpec
from senetzoo.zoo import config

# In fp32, where another order of sums is another rounding.
TOLERANCE = 1e-4

# The graphs of others are large, each takes ten seconds to a minute, or like one of these.
QUICK = ("alexnet", "densenet40_12", "lenet", "preresnet20", "resnet20")
# Still of every kind of block.
DEPTHS = dict.fromkeys(("densenet40_12", "plain20", "preresnet20", "resnet20"), (1, 2, 1))
TRUNKS = [name for name, entry in ENTRIES.items() if name == entry.trunk]
NAMES = [
    pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK))
    for name in dict.fromkeys([*SMALL.values(), *TRUNKS])
]


def short(name: str) -> ModelSpec:
    """The network called `name`; of those that stand for a family a shallow one."""
    if name not in SMALL.values():
        return config(name)
    return reduced(name).replace(**({"depths": DEPTHS[name]} if name in DEPTHS else {}))


def ready(name: str) -> Classifier:
    """The small form in eval mode, with a gate in its last block and statistics of its own."""
    arch = short(name)
    policy = SE(4).on(stage(-1) & block(-1))
    model = arch.replace(stem="cifar", num_classes=7, policy=policy).build(seed=0)
    assert any(isinstance(module, SqueezeExcitation) for module in model.modules())
    calibrate_on_next_batch(model)
    with torch.no_grad():
        model(images_of(model, 4))
    return model.eval()


@torch.no_grad()
def agrees(model: Classifier, other: Any, counts: tuple[int, ...]) -> None:
    for count in counts:
        x = images_of(model, count)
        expected = model(x)
        assert expected.std() > 1e-3
        assert relative_error(other(x), expected) < TOLERANCE


def test_the_table_names_each_family_once() -> None:
    assert {ENTRIES[name].family.title: name for name in SMALL.values()} == SMALL
    assert set(SMALL) == {family.title for family in FAMILIES}


@pytest.mark.parametrize("name", NAMES)
def test_compile(name: str) -> None:
    """One graph, down to the operators; inductor's code for them takes minutes for all."""
    model = ready(name)
    torch.compiler.reset()
    agrees(model, torch.compile(model, fullgraph=True, backend="aot_eager"), (3,))


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "lenet")) for n in SMALL.values()]
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
    batch = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(model, (images_of(model, 3),), dynamic_shapes=batch)
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
