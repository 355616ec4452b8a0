"""A network as torch.export's program and as an ONNX file, for any number of images."""

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
"""Names of the input and of the two kinds of output in what is written."""

BATCH = ("batch",)
"""Names of the first axes of a program's input where these may have any length."""


def exported(module: nn.Module, sample: Tensor, axes: Sequence[str] = BATCH) -> ExportedProgram:
    """Trace `module`, in eval mode, for any number of images of the sample's size.

    Args:
        module: It.
        sample: Images.
        axes: Names of the sample's first axes, which may have any length.

    Raises:
        ConfigError: torch.export can't trace it.
    """
    from torch.export import Dim

    # One image would be taken for a constant.
    images = sample if len(sample) > 1 else sample.expand(2, *sample.shape[1:]).contiguous()
    # Without a bound torch 2.6 takes infinity for a number of images, and finds that it fails.
    most = None if torch.__version__ >= "2.8" else 2**31
    asked = f"The network {type(module).__name__} can't be exported."
    failing = explained(asked, "torch.export", "Run it with the engine eager")
    with failing, torch.no_grad(), quiet():
        # Not strict: the default since torch 2.7, and 2.6's other form can't read our blocks.
        return torch.export.export(
            module,
            (images,),
            dynamic_shapes=({n: Dim(axis, max=most) for n, axis in enumerate(axes)},),
            strict=False,
        )


def onnx_model(
    program: ExportedProgram, output: str = LOGITS, axes: Sequence[str] = BATCH
) -> onnx.ModelProto:
    """The ONNX form of `program`, with input ``images`` and the output of that name.

    Args:
        program: It.
        output: Name of its output.
        axes: Those of `exported`.

    Raises:
        ConfigError: torch.onnx has no form of one of its operators.
    """
    from torch.export import Dim

    remedy = "Write another format, or run it with another engine"
    with explained("The network has no ONNX form.", "torch.onnx", remedy), quiet():
        translated = torch.onnx.export(
            program,
            (),
            dynamo=True,
            verbose=False,
            # For their names in the file; the program has the axes already.
            dynamic_shapes=({n: Dim(axis) for n, axis in enumerate(axes)},),
            input_names=[IMAGES],
            output_names=[output],
        )
    if translated is None:
        raise RuntimeError("torch.onnx.export gave nothing")
    return translated.model_proto


@contextlib.contextmanager
def quiet(name: str = "torch.onnx") -> Iterator[None]:
    """Keep off the screen what exporters warn of, and what their logger says below errors.

    One thread at a time: warnings, loggers, and what exporters patch, are of the whole process.
    """
    with unwarned():
        logger = logging.getLogger(name)
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
