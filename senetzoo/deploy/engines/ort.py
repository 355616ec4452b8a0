"""ONNX Runtime on the CPU, in fp32 and int8."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from senetzoo.deploy.engines import common
from senetzoo.deploy.engines.common import Engine, Request, Runner, refusing
from senetzoo.deploy.program import IMAGES, exported, onnx_model, quiet

if TYPE_CHECKING:
    import onnx
    import onnxruntime

_NAME = "onnxruntime"
# Batch size of the calibration.
_CHUNK = 32


def _start(request: Request) -> Runner:
    with tempfile.TemporaryDirectory(prefix="senetzoo-") as folder:
        path = Path(folder) / "network.onnx"
        model = onnx_model(exported(request.module, request.sample))
        path.write_bytes(model.SerializeToString())
        if request.calibration is not None:
            path = quantized(path, request.calibration)
        return running(session(path, request.threads))


def running(opened: onnxruntime.InferenceSession) -> Runner:
    """A session as a function of images (N, C, H, W)."""

    def run(images: Tensor) -> Tensor:
        (logits,) = opened.run(None, {IMAGES: images.contiguous().numpy()})
        return torch.from_numpy(logits)

    return run


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A session on the CPU for an ONNX file, with all of ONNX Runtime's optimizations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Its threads spin while they wait for work; after a batch they would take the CPU from whatever
    # runs next in this process.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3  # errors
    with refusing(_NAME):
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert a model to fp16, with fp32 input and output; the given one is consumed."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with refusing(f"{_NAME} in fp16"), quiet("onnxruntime.transformers.float16"):
        done: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    # The converter puts the cast of the input after all other nodes.
    nodes = sorted(done.graph.node, key=lambda node: IMAGES not in node.input)
    del done.graph.node[:]
    done.graph.node.extend(nodes)
    return done


def quantized(path: Path, calibration: Tensor, *, portable: bool = False) -> Path:
    """Quantize the file at `path` to int8, in a new file in the same folder.

    If `portable`, it is for other processors too, with 7 bits; see `common.has_vnni`.
    """
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    chunks = ({IMAGES: chunk.contiguous().numpy()} for chunk in torch.split(calibration, _CHUNK))
    ready, done = path.with_name("ready.onnx"), path.with_name("int8.onnx")
    with refusing(f"{_NAME} in int8"), quiet("root"):
        # Infers shapes and folds batch norms, which should not be quantized separately.
        quant_pre_process(str(path), str(ready))
        quantize_static(
            str(ready),
            str(done),
            SimpleNamespace(get_next=lambda: next(chunks, None)),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=portable or not common.has_vnni(),
        )
    return done


ONNXRUNTIME = Engine(
    _NAME,
    dtypes=("fp32", "int8"),
    layouts=("nchw",),
    devices=("cpu",),
    start=_start,
    packages=("onnx", "onnxscript", "onnxruntime"),
    extra="onnx",
)
