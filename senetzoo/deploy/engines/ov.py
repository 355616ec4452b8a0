"""OpenVINO on the CPU, in fp32, bf16 and int8."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from senetzoo._utils.environment import PROCESS
from senetzoo.deploy.engines import common
from senetzoo.deploy.engines.common import Dtype, Engine, Request, Runner, refusing
from senetzoo.deploy.program import IMAGES, LOGITS, exported, quiet

if TYPE_CHECKING:
    import openvino
    from torch.export import ExportedProgram

_NAME = "openvino"
_counters: ContextVar[list[openvino.ProfilingInfo] | None] = ContextVar("counters", default=None)


@contextlib.contextmanager
def counting() -> Iterator[list[openvino.ProfilingInfo]]:
    """Make networks that are loaded in this context count the time of their nodes.

    Yields a list that contains, after each batch in the context, the nodes of that batch.
    """
    found: list[openvino.ProfilingInfo] = []
    token = _counters.set(found)
    try:
        yield found
    finally:
        _counters.reset(token)


def _start(request: Request) -> Runner:
    model = ov_model(exported(request.module, request.sample))
    if request.calibration is not None:
        model = quantized(model, request.calibration)
    precision = "bf16" if request.dtype == "bf16" else "f32"
    return running(model, precision, request.threads, request.streams)


def core() -> openvino.Core:
    """OpenVINO's core, one for the process.

    Each core sets another stack for the thread's signal handlers and removes it at the end. If
    several cores don't end in order, a freed stack stays set, and the next signal, for example
    Ctrl-C, is a segmentation fault.
    """
    with PROCESS:
        return _core()


@functools.cache
def _core() -> openvino.Core:
    with importing():
        import openvino

    return openvino.Core()


def running(
    model: openvino.Model, precision: str, threads: int, streams: int = 1, *, fixed: bool = True
) -> Runner:
    """`model` as a function of images (N, C, H, W), with `fixed` compiled for each shape.

    A request holds the logits of a call: each call takes an idle request or a new one, so that
    several threads can call at once.
    """
    compiled_for: dict[
        tuple[int, ...], tuple[openvino.CompiledModel, list[openvino.InferRequest]]
    ] = {}

    def run(images: Tensor) -> Tensor:
        # A forked process doesn't have the threads that run its parent's streams.
        key = os.getpid(), *(images.shape if fixed else ())
        if key not in compiled_for:
            with PROCESS:
                if key not in compiled_for:
                    shape = list(images.shape) if fixed else None
                    compiled_for[key] = _compiled(model, shape, precision, threads, streams), []
        compiled, idle = compiled_for[key]
        try:
            request = idle.pop()
        except IndexError:
            request = compiled.create_infer_request()
        request.infer([images.contiguous().numpy()], share_inputs=True)
        # A copy: the next batch's logits are written to the same memory.
        logits = torch.from_numpy(request.get_output_tensor(0).data.copy())
        counters = _counters.get()
        if counters is not None:
            counters[:] = request.profiling_info
        idle.append(request)
        return logits

    return run


def ov_model(program: ExportedProgram) -> openvino.Model:
    """Convert a program to OpenVINO, with input ``images`` (?, C, H, W) and output ``logits``."""
    images: Tensor = program.example_inputs[0][0]
    with importing():
        import openvino

        with refusing(_NAME), quiet():
            model = openvino.convert_model(program, input=[(-1, *images.shape[1:])])
    model.inputs[0].get_tensor().set_names({IMAGES})
    model.outputs[0].get_tensor().set_names({LOGITS})
    return model


def _compiled(
    model: openvino.Model, shape: list[int] | None, precision: str, threads: int, streams: int
) -> openvino.CompiledModel:
    """Compile `model` for the CPU, for images of a shape, or of any shape if that is None."""
    # With a known shape, kernels are chosen when compiling.
    if shape is not None:
        model = model.clone()
        model.reshape(shape)
    hints = {
        **({"PERFORMANCE_HINT": "LATENCY"} if streams == 1 else {"NUM_STREAMS": streams}),
        "INFERENCE_NUM_THREADS": streams * threads,
        "INFERENCE_PRECISION_HINT": precision,
        "PERF_COUNT": _counters.get() is not None,
    }
    with refusing(_NAME):
        return core().compile_model(model, "CPU", hints)


def quantized(
    model: openvino.Model, calibration: Tensor, *, portable: bool = False
) -> openvino.Model:
    """Quantize `model` to int8.

    If `portable`, it is for other processors too, with 7 bits; see `common.has_vnni`.
    """
    with importing():
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    narrow = portable or not common.has_vnni()
    parameters = nncf.AdvancedQuantizationParameters(
        # The default, the mean of the images' ranges, clips values that gates need: with it
        # SE-ResNet-20 loses a point of accuracy on CIFAR-10.
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        overflow_fix=nncf.OverflowFix.ENABLE if narrow else nncf.OverflowFix.DISABLE,
    )
    data = nncf.Dataset([image[None].contiguous().numpy() for image in calibration])
    # It draws progress bars on stdout, where the table or JSON goes.
    silent = contextlib.redirect_stdout(io.StringIO())
    with refusing(f"{_NAME} in int8"), quiet("nncf"), silent:
        return nncf.quantize(
            model,
            data,
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(calibration),
            fast_bias_correction=False,
            advanced_parameters=parameters,
        )


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import OpenVINO and NNCF without openvino_telemetry, which reports each use.

    They also work without it. If it was imported before, it stays.
    """
    name = "openvino_telemetry"
    with PROCESS:
        if name in sys.modules:
            yield
            return
        sys.modules[name] = None  # type: ignore[assignment]  # an import of it fails
        try:
            yield
        finally:
            sys.modules.pop(name, None)


def _caveat(device: torch.device, dtype: Dtype) -> str:
    if dtype != "bf16" or "BF16" in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return ""
    return "This processor has no bf16 instructions: OpenVINO computes in fp32 instead."


OPENVINO = Engine(
    _NAME,
    dtypes=("fp32", "bf16", "int8"),
    layouts=("nchw",),
    devices=("cpu",),
    start=_start,
    packages=("openvino",),
    extra="openvino",
    caveat=_caveat,
    int8_packages=("nncf",),
)
