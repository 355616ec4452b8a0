"""Our networks against those of other libraries, on shared random weights in fp64."""

from __future__ import annotations

import importlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo import config, create
from senetzoo.nn.classifier import Classifier
from senetzoo.weights import dialects
from senetzoo.weights.dialects import Counterpart
from support.networks import calibrate_on_next_batch, on_meta, randomize, relative_error

SAME = "same"
"""Where both networks have the same names, and ours may be a part of one, or a module around it."""

TOLERANCE = 1e-10


def from_library(dialect: str, name: str, **options: Any) -> nn.Module:
    """A network as the library of `dialect` builds it, without weights that it would draw long."""
    if dialect == "torchvision":
        from torchvision import models

        slow = name in ("googlenet", "inception_v3")
        with regnet_widths_on_cpu():
            model: nn.Module = models.get_model(
                name, **({"init_weights": False} if slow else {}) | options
            )
    elif dialect == "pytorchcv":
        from pytorchcv.model_provider import get_model

        model = get_model(name, pretrained=False, **options)
    else:
        import timm

        # Its legacy networks drop out by default, which a comparison in training mode can't bear.
        model = timm.create_model(name, drop_rate=0.0, **options)
    return model


@contextmanager
def regnet_widths_on_cpu() -> Iterator[None]:
    """torchvision computes the widths of a RegNet with tensors, which have to hold values."""
    blocks: Any = importlib.import_module("torchvision.models.regnet").BlockParams
    compute = blocks.from_init_params

    def on_cpu(**fields: Any) -> Any:
        with torch.device("cpu"):
            return compute(**fields)

    with mock.patch.object(blocks, "from_init_params", on_cpu):
        yield


def compare(
    build_ours: Callable[[], nn.Module],
    build_theirs: Callable[[], nn.Module],
    dialect: str,
    *,
    size: int = 64,
    train: bool = True,
    gradients: bool = False,
    record: tuple[str, str] | None = None,
) -> None:
    """Load their weights into ours; compare outputs in both modes and, if asked, gradients.

    Args:
        dialect: Whose names theirs has, or `SAME`; the product's own translation is what is
            compared.
        size: Side of the images in pixels.
        train: Whether to compare in training mode too; not where the network draws at random.
        gradients: Whether to compare gradients, of the training mode if that is compared.
        record: Name of our network and of the reference, to keep the error under in the file
            SENETZOO_PARITY_RECORD, which the tables of the docs are made from.
    """
    theirs = on_meta(build_theirs).double().to_empty(device="cpu")
    randomize(theirs)
    ours = on_meta(build_ours).double()
    learned = {name for name, _ in theirs.named_parameters()}
    # Parameters may be shared, statistics not: each network has to gather its own.
    state = {k: v if k in learned else v.clone() for k, v in theirs.state_dict().items()}
    ours.load_state_dict(translated(state, dialect, ours), strict=True, assign=True)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1)).double()

    errors = []
    for model in (ours, theirs):
        calibrate_on_next_batch(model)
        model.train()
    with torch.set_grad_enabled(gradients and train):
        trained, reference = ours(x), theirs(x)
    if train:
        errors.append(relative_error(trained, reference))
        assert errors[-1] < TOLERANCE
    if gradients and train:
        compare_gradients(ours, theirs, trained, reference, dialect)

    statistics, expected_statistics = dict(ours.named_buffers()), dict(theirs.named_buffers())
    if train:
        for name, buffer in translated(expected_statistics, dialect, ours).items():
            if buffer.abs().max() > 0:
                assert relative_error(statistics[name].double(), buffer.double()) < TOLERANCE, name
    else:
        # Drawn differently while they were gathered: ours get theirs.
        copied = {name: buffer.clone() for name, buffer in expected_statistics.items()}
        ours.load_state_dict(translated(copied, dialect, ours), strict=False)

    for model in (ours, theirs):
        model.eval()
    with torch.set_grad_enabled(gradients and not train):
        output, reference = ours(x), theirs(x)
    assert output.std().item() > 1e-3
    errors.append(relative_error(output, reference))
    assert errors[-1] < TOLERANCE
    if gradients and not train:
        compare_gradients(ours, theirs, output, reference, dialect)
    keep_record(record, errors, train, size)


def translated(tensors: Mapping[str, Tensor], dialect: str, ours: nn.Module) -> dict[str, Tensor]:
    """Tensors of theirs under our names and in our shapes: a whole state dict, or some of it."""
    if dialect == SAME:
        return dict(tensors)
    assert isinstance(ours, Classifier)
    known = dialects.names(dialect, ours)
    if len(tensors) >= len(known):
        return dialects.read(tensors, dialect, ours)
    own = ours.state_dict()
    some = {
        name: tensors[theirs].reshape(own[name].shape)
        for name, (theirs, _) in known.items()
        if theirs in tensors
    }
    assert len(some) == len(tensors)
    return some


def keep_record(
    record: tuple[str, str] | None, errors: list[float], train: bool, size: int
) -> None:
    """Append the largest of `errors` to the file SENETZOO_PARITY_RECORD, if that is set.

    `record` names our network and the reference; None for a comparison not to record.
    """
    if record is not None and "SENETZOO_PARITY_RECORD" in os.environ:
        line = {
            "network": record[0],
            "reference": record[1],
            "error": max(errors),
            "train": train,
            "size": size,
            "torch": torch.__version__,
        }
        with Path(os.environ["SENETZOO_PARITY_RECORD"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def compare_gradients(
    ours: nn.Module, theirs: nn.Module, output: Tensor, reference: Tensor, dialect: str
) -> None:
    """Compare the gradients of all parameters, of a random weighting of the logits."""
    target = torch.randn(reference.shape, generator=torch.Generator().manual_seed(2)).double()
    for logits in (output, reference):
        (logits * target).sum().backward()  # type: ignore[no-untyped-call]
    expected = translated(_gradients(theirs), dialect, ours)
    got = _gradients(ours)
    assert set(got) == set(expected)
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    for name, gradient in expected.items():
        # Measured against the largest of all: some are zero but for rounding, such as that
        # of a convolution's scale before a batch norm.
        difference = (got[name] - gradient).abs().max().item()
        assert difference < TOLERANCE * largest, name


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@torch.no_grad()
def compare_written_out(name: str, blocks: int, *, skips: bool) -> None:
    """Compare a ResNet for CIFAR with the same written out: no library at hand has option A.

    `blocks` is those of each stage; `skips` says whether they have skips, of option A, or none.
    """
    model = create(name, seed=0).double()
    randomize(model)
    calibrate_on_next_batch(model)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()
    model(x)
    state = model.eval().state_dict()

    def layer(x: Tensor, path: str, number: int, stride: int = 1) -> Tensor:
        x = F.conv2d(x, state[f"{path}conv{number}.weight"], stride=stride, padding=1)
        mean, var, weight, bias = (
            state[f"{path}bn{number}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias  # type: ignore[no-any-return]

    y = layer(x, "", 1).clamp(min=0)
    for stage, side in ((1, 32), (2, 16), (3, 8)):
        for block in range(blocks):
            path, skip = f"layer{stage}.{block}.", y
            stride = 2 if stage > 1 and block == 0 else 1
            if stride == 2:
                quarter = y.shape[1] // 2
                skip = torch.zeros(2, 2 * y.shape[1], side, side).double()
                skip[:, quarter : quarter + y.shape[1]] = y[:, :, ::2, ::2]
            y = layer(layer(y, path, 1, stride).clamp(min=0), path, 2)
            y = (y + skip if skips else y).clamp(min=0)
        assert y.shape == (2, 8 * 2**stage, side, side)
    expected = y.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]
    assert relative_error(model(x), expected) < TOLERANCE


def ours(counterpart: Counterpart) -> Classifier:
    """Our network that a counterpart says."""
    policy = f"+{counterpart.policy}" if counterpart.policy else ""
    return config(counterpart.model + policy).replace(**counterpart.changes).build(seed=0)


def skeleton_of(counterpart: Counterpart) -> Classifier:
    """The same, on the meta device."""
    model = on_meta(lambda: ours(counterpart))
    return model


def numbered(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the same shapes, each full of its own number, with memory for one value."""
    return {
        name: torch.tensor(float(number)).expand(tensor.shape)
        for number, (name, tensor) in enumerate(state.items())
    }


def numbers(state: Mapping[str, Tensor]) -> dict[str, tuple[tuple[int, ...], float]]:
    """Shape and number of each."""
    return {n: (tuple(t.shape), t.reshape(-1)[0].item()) for n, t in state.items()}


def without_counters(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As PyTorch before 0.4.1 saved: batch norms did not count."""
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def old_densenet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As torchvision publishes ``densenet121-a639ec97.pth``: ``norm.1``, and without counters."""
    layer = r"(denselayer\d+\.(?:norm|conv))([12])\."
    return {re.sub(layer, r"\1.\2.", k): v for k, v in without_counters(state).items()}
