"""Convert a network to a torch.export program and to ONNX, for any batch size."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from senetzoo._utils.environment import unwarned
from senetzoo.errors import explained

if TYPE_CHECKING:
    import onnx
    from torch.export import ExportedProgram

IMAGES, LOGITS, PROBABILITIES = "images", "logits", "probabilities"
"""Names of the input and of the two kinds of output in written files."""

BATCH = ("batch",)
"""Names of the first axes of a program's input, which may have any length."""


def exported(module: nn.Module, sample: Tensor, axes: Sequence[str] = BATCH) -> ExportedProgram:
    """Trace `module`, in eval mode, for any number of images of the sample's size.

    `axes` names the first axes of `sample`, which may have any length.

    Raises:
        ConfigError: torch.export can't trace it.
    """
    from torch.export import Dim

    # A batch size of one would be traced as a constant.
    images = sample if len(sample) > 1 else sample.expand(2, *sample.shape[1:]).contiguous()
    # Without a bound torch 2.6 also considers an infinite batch size, and fails.
    most = None if torch.__version__ >= "2.8" else 2**31
    asked = f"The network {type(module).__name__} can't be exported."
    failing = explained(asked, "torch.export", "Run it with the engine eager")
    with failing, torch.no_grad(), quiet():
        # Not strict: the default since torch 2.7; strict mode in 2.6 can't trace our blocks.
        return torch.export.export(
            module,
            (images,),
            dynamic_shapes=({n: Dim(axis, max=most) for n, axis in enumerate(axes)},),
            strict=False,
        )


def onnx_model(
    program: ExportedProgram, output: str = LOGITS, axes: Sequence[str] = BATCH
) -> onnx.ModelProto:
    """Convert `program` to ONNX, with input ``images`` and an output named `output`.

    Raises:
        ConfigError: torch.onnx doesn't support one of its operators.
    """
    from torch.export import Dim

    remedy = "Write another format, or run it with another engine"
    with explained("The network can't be converted to ONNX.", "torch.onnx", remedy), quiet():
        translated = torch.onnx.export(
            program,
            (),
            dynamo=True,
            verbose=False,
            # Only for the axes' names in the file; the program already has the axes.
            dynamic_shapes=({n: Dim(axis) for n, axis in enumerate(axes)},),
            input_names=[IMAGES],
            output_names=[output],
        )
    if translated is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    return translated.model_proto


@contextlib.contextmanager
def quiet(name: str = "torch.onnx") -> Iterator[None]:
    """Suppress the warnings of exporters, and their logger's messages below errors.

    One thread at a time: warnings, loggers and exporters' patches are global to the process.
    """
    with unwarned():
        logger = logging.getLogger(name)
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
