"""A writer for each format, which writes the file under a temporary name and runs it."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from senetzoo._utils.documents import json_text
from senetzoo._utils.files import atomically, flush
from senetzoo._utils.terminal import printable
from senetzoo.deploy.engines import ort, ov
from senetzoo.deploy.engines.common import Engine, Runner
from senetzoo.deploy.engines.eager import EAGER
from senetzoo.deploy.inside import Preprocess, Probabilities, around
from senetzoo.deploy.program import BATCH, PROBABILITIES, exported, onnx_model, quiet

if TYPE_CHECKING:
    import onnx

    from senetzoo.nn.preprocessing import Preprocessing

Format: TypeAlias = Literal["onnx", "pt2", "openvino"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: Mapping[Format, str] = {"onnx": ".onnx", "pt2": ".pt2", "openvino": ".xml"}
"""Suffix of each format's files. OpenVINO's weights are in a .bin file of the same name."""

FileDtype: TypeAlias = Literal["fp32", "fp16", "int8"]

TITLES: Mapping[Format, tuple[str, Engine]] = {
    "onnx": ("ONNX", ort.ONNXRUNTIME),
    "pt2": ("a pt2 file", EAGER),
    "openvino": ("OpenVINO's IR", ov.OPENVINO),
}
"""Name of each format in messages, and the engine that runs it."""


def files_of(path: Path, form: Format) -> tuple[Path, ...]:
    """The files of an exported network; the first is the one to open."""
    return (path, path.with_suffix(".bin")) if form == "openvino" else (path,)


METADATA = "senetzoo"
"""Where the metadata is in a file: ``senetzoo.KEY`` in ONNX's metadata_props, the JSON object
``senetzoo.json`` among the extra files of a pt2, ``senetzoo/KEY`` in OpenVINO's rt_info."""

_UNSEALED = b"0" * 64
"""Where the hash of a file will be in its metadata."""

_PHOTOGRAPHS = (*BATCH, "height", "width")


@dataclass(frozen=True)
class Draft:
    """What to write.

    Args:
        network: The network, in fp32 on the CPU, in eval mode.
        sample: Example input (N, C, H, W).
        dtype: Type of the weights in the file.
        metadata: Metadata to write with the network.
        calibration: Images (N, C, H, W) for calibrating int8; None for other types.
        inside: Preprocessing to include, with a softmax; None for neither.
        temperature: What the logits are divided by before the softmax.
    """

    network: nn.Module
    sample: Tensor
    dtype: FileDtype
    metadata: Mapping[str, object]
    calibration: Tensor | None
    inside: Preprocessing | None
    temperature: float

    def photographs(self, preprocessing: Preprocessing) -> Tensor:
        """Example photographs, whose height and width differ so that they are not traced as one."""
        side = preprocessing.size
        return torch.zeros(2, side + 1, side + 2, preprocessing.channels, dtype=torch.uint8)

    def texts(self) -> dict[str, str]:
        """The metadata as text: strings unchanged, other values as JSON."""
        return {
            key: printable(value) if isinstance(value, str) else json_text(value)
            for key, value in {**self.metadata, "sha256": _UNSEALED.decode()}.items()
        }


def content_hash(files: Sequence[Path], known: str = "") -> str:
    """SHA-256 of the files of an exported network, in which `known`, if given, isn't there yet."""
    first, *others = (file.read_bytes() for file in files)
    if known:
        first = first.replace(known.encode(), _UNSEALED, 1)
    return hashlib.sha256(b"".join((first, *others))).hexdigest()


def _seal(*files: Path) -> None:
    """Put the hash of the files of an exported network into the first one's metadata."""
    found = content_hash(files).encode()
    files[0].write_bytes(files[0].read_bytes().replace(_UNSEALED, found, 1))


@contextmanager
def _onnx(path: Path, draft: Draft) -> Iterator[Runner]:
    import onnx

    model = onnx_model(exported(draft.network, draft.sample))
    if draft.dtype == "fp16":
        model = ort.half(model)
    if draft.calibration is not None:
        with tempfile.TemporaryDirectory(prefix="senetzoo-") as folder:
            plain = Path(folder) / "network.onnx"
            plain.write_bytes(model.SerializeToString())
            # The file may be run on any processor.
            model = onnx.load(ort.quantized(plain, draft.calibration, portable=True))
    if draft.inside is not None:
        model = _joined(model, draft, draft.inside)
    texts = {f"{METADATA}.{key}": value for key, value in draft.texts().items()}
    onnx.helper.set_model_props(model, texts)
    with atomically(path) as partial:
        partial.write_bytes(model.SerializeToString())
        _seal(partial)
        yield ort.running(ort.session(partial, torch.get_num_threads()))


def _joined(network: onnx.ModelProto, draft: Draft, inside: Preprocessing) -> onnx.ModelProto:
    """The preprocessing, the network and the softmax as one model."""
    from onnx.compose import add_prefix, merge_models

    (logits,) = network.graph.output
    classes = torch.zeros(2, logits.type.tensor_type.shape.dim[1].dim_value)
    photographs = draft.photographs(inside)
    program = exported(Preprocess(inside), photographs, _PHOTOGRAPHS)
    before = onnx_model(program, "ready", _PHOTOGRAPHS)
    after = onnx_model(exported(Probabilities(draft.temperature), classes), PROBABILITIES)
    for part in (before, after):
        part.ir_version = network.ir_version
        used = {entry.domain for entry in network.opset_import}
        for entry in part.opset_import:
            if entry.domain not in used:
                network.opset_import.append(entry)
    first = merge_models(
        add_prefix(before, "before/", rename_inputs=False),
        add_prefix(network, "network/"),
        [("before/ready", "network/images")],
    )
    return merge_models(
        first,
        add_prefix(after, "after/", rename_outputs=False),
        [("network/logits", "after/images")],
    )


class _Halved(nn.Module):
    """A network that keeps its weights in fp16 and computes in fp32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.half()

    def forward(self, images: Tensor) -> Tensor:
        kept = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        ready = {name: t.float() if t.is_floating_point() else t for name, t in kept.items()}
        logits: Tensor = torch.func.functional_call(self.network, ready, (images,))
        return logits


@contextmanager
def _pt2(path: Path, draft: Draft) -> Iterator[Runner]:
    network = _Halved(draft.network) if draft.dtype == "fp16" else draft.network
    if draft.inside is None:
        program = exported(network, draft.sample)
    else:
        parts = (Preprocess(draft.inside), network, Probabilities(draft.temperature))
        whole = nn.Sequential(*parts).eval()
        program = exported(whole, draft.photographs(draft.inside), _PHOTOGRAPHS)
    about = {f"{METADATA}.json": json.dumps(dict(draft.metadata))}
    with atomically(path) as partial:
        # An open file, because a path would have to end in .pt2.
        with partial.open("wb") as file, quiet():
            torch.export.save(program, file, extra_files=about)
        with partial.open("rb") as file, quiet():
            module = torch.export.load(file).module()
        yield lambda images: module(images)


@contextmanager
def _openvino(path: Path, draft: Draft) -> Iterator[Runner]:
    model = ov.ov_model(exported(draft.network, draft.sample))
    if draft.calibration is not None:
        model = ov.quantized(model, draft.calibration, portable=True)
    if draft.inside is not None:
        with ov.importing():
            model = around(model, draft.inside, draft.temperature)
    for key, value in draft.texts().items():
        model.set_rt_info(value, [METADATA, key])
    with ov.importing():
        import openvino
    with tempfile.TemporaryDirectory(prefix="senetzoo-") as folder:
        # OpenVINO requires its own suffixes, so it can't write to the partial files itself.
        file = Path(folder) / path.with_suffix(".xml").name
        openvino.save_model(model, file, compress_to_fp16=draft.dtype == "fp16")
        _seal(*files_of(file, "openvino"))
        yield ov.running(
            ov.core().read_model(file),
            "f32",
            torch.get_num_threads(),
            fixed=draft.inside is None,
        )
        # The weights get their final name first, after the old description was removed, so that
        # the two files always belong together.
        with atomically(path) as description, atomically(path.with_suffix(".bin")) as weights:
            for written, partial in ((file, description), (file.with_suffix(".bin"), weights)):
                shutil.copyfile(written, partial)
                flush(partial)
            path.unlink(missing_ok=True)


WRITERS: Mapping[Format, Callable[[Path, Draft], AbstractContextManager[Runner]]] = {
    "onnx": _onnx,
    "pt2": _pt2,
    "openvino": _openvino,
}
"""Each writes the file under a temporary name, yields its runner, and renames the file to its final
name if the ``with`` block succeeds."""
