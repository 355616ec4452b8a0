"""Networks written to files that other runtimes read: ONNX, torch.export's pt2, OpenVINO's IR."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

import senetzoo
from senetzoo._utils.documents import json_text
from senetzoo._utils.files import atomically, flush, user_path
from senetzoo._utils.terminal import printable
from senetzoo.deploy.engines import ort, ov
from senetzoo.deploy.engines.common import Engine, Runner, require
from senetzoo.deploy.engines.eager import EAGER
from senetzoo.deploy.program import exported, onnx_model, quiet
from senetzoo.deploy.rewrite import rewritten
from senetzoo.errors import ConfigError, checks_options, nearest
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.provenance import provenance
from senetzoo.nn.transforms import transforms
from senetzoo.spec import name_of

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from senetzoo.nn.preprocessing import Preprocessing

Format: TypeAlias = Literal["onnx", "pt2", "openvino"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIXES: Mapping[Format, str] = {"onnx": ".onnx", "pt2": ".pt2", "openvino": ".xml"}
"""End of each format's file name. OpenVINO's weights lie beside, in a file that ends in .bin."""

# What each format is called, and what runs it.
_TITLES: Mapping[Format, tuple[str, Engine]] = {
    "onnx": ("ONNX", ort.ONNXRUNTIME),
    "pt2": ("a pt2 file", EAGER),
    "openvino": ("OpenVINO's IR", ov.OPENVINO),
}

TOLERANCE = 1e-4
"""Largest difference from the network's logits, over the largest of these, that is let through."""

METADATA = "senetzoo"
"""Where the metadata is in a file: ``senetzoo.KEY`` in ONNX's metadata_props, the JSON object
``senetzoo.json`` among the extra files of a pt2, ``senetzoo/KEY`` in OpenVINO's rt_info."""

# Numbers of images that are traced with, and that the file is tried with. They differ, so that a
# number that was taken for a constant shows.
_TRACED, _TRIED = 2, (1, 5)


@dataclass(frozen=True)
class Export:
    """What was written.

    Args:
        files: The files; the first is the one to open.
        metadata: What is in it beside the network: values of JSON, in ONNX and OpenVINO as text.
        errors: The largest difference of the file's logits from the network's, over the largest
            of these, by the number of random images that they were computed for.
    """

    files: tuple[Path, ...]
    metadata: Mapping[str, object]
    errors: Mapping[int, float]


@checks_options
def export(
    model: Classifier,
    path: str | Path,
    *,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    size: int | None = None,
    optimized: bool = False,
) -> Export:
    """Write a network, as it is in eval mode, to a file for another runtime.

    The input ``images`` is float32 (batch, C, size, size) with any batch, the output ``logits``
    float32 (batch, classes). The file is run on random images before it takes its name.

    Args:
        model: A network of this zoo, on any device; it is not changed.
        path: The file, whose name says the format: ``.onnx``, ``.pt2``, or ``.xml`` for OpenVINO,
            whose weights go to a file beside it that ends in ``.bin``. Files that are there are
            replaced.
        name: What the network is called in the metadata; None for what it is.
        classes: Names of the classes in the order of the logits; None for those that the load
            report has.
        preprocessing: What an image goes through before; None for that of `senetzoo.transforms`.
        size: Side of the images in pixels; None for that of the preprocessing.
        optimized: Whether to write the network as `senetzoo.deploy.rewrite.rewritten` gives it:
            norms folded, gates read the input of the convolution before them.

    Raises:
        ConfigError: The name of the file, a network that can't be exported, or that the file's
            format computes differently; nothing is written then.
        MissingExtraError: What writes the format is not installed.
    """
    path = user_path(path)
    form = next((form for form, suffix in SUFFIXES.items() if path.suffix == suffix), None)
    if form is None:
        raise ConfigError(
            f"The name {path.name!r} does not say which format to write.",
            f"It ends in {', '.join(SUFFIXES.values())}.",
            nearest(path.suffix, SUFFIXES.values())
            or f"Type for example: {path.with_suffix('.onnx').name}",
        )
    check(form)
    if not isinstance(model, Classifier):
        raise ConfigError(
            f"export got a {type(model).__name__}.",
            "It takes networks made by senetzoo.create.",
            "Use torch.export or torch.onnx.export yourself",
        )
    if path.is_dir() or not path.parent.is_dir():
        raise ConfigError(
            f"{path} can't be written.",
            "It is a folder." if path.is_dir() else f"There is no folder {path.parent}.",
            "Give the path of a file in a folder that is there",
        )
    if preprocessing is None and model.in_chans in (1, 3):
        preprocessing = transforms(model)
    metadata = _metadata(model, name or name_of(model), classes, preprocessing, size)
    own = copy.deepcopy(model).eval().requires_grad_(False).to("cpu", torch.float32)
    shape = (model.in_chans, *[metadata["size"]] * 2)
    traced = _images(_TRACED, shape)
    program = exported(rewritten(own, traced)[0] if optimized else own, traced)
    with _WRITERS[form](path, program, metadata) as run:
        errors = {count: _error(own, run, _images(count, shape), form) for count in _TRIED}
    files = (path, path.with_suffix(".bin")) if form == "openvino" else (path,)
    return Export(files, metadata, errors)


def check(form: Format) -> None:
    """Raise `MissingExtraError` where what writes a format is not installed."""
    title, engine = _TITLES[form]
    require(f"Writing {title}", engine.packages, engine.extra)


def _metadata(
    model: Classifier,
    name: str,
    classes: Sequence[str] | None,
    preprocessing: Preprocessing | None,
    size: int | None,
) -> dict[str, Any]:
    """What is written beside the network.

    Raises:
        ConfigError: Classes or a size that do not fit.
    """
    if size is None:
        size = model.input_size if preprocessing is None else preprocessing.size
    if isinstance(size, bool) or not isinstance(size, int) or size < model.min_size:
        raise ConfigError(
            f"export got size={size!r}.",
            f"It is a whole number of pixels, for this network at least {model.min_size}.",
        )
    if classes is not None and (isinstance(classes, str) or len(classes) != model.num_classes):
        raise ConfigError(
            f"export got classes={classes!r}."
            if isinstance(classes, str)
            else f"export got {len(classes)} names of classes.",
            f"The network has {model.num_classes} classes.",
            "Give a name for each, in the order of the logits",
        )
    found: dict[str, Any] = {"version": senetzoo.__version__, "model": name}
    report = provenance(model)
    if report is not None:
        classes = report.classes if classes is None else classes
        # Of a run: what was trained further began with weights, and has others.
        which = "start" if report.changed else "weights"
        found |= {which: report.tag, f"{which}_sha256": report.sha256}
        if report.replaced:
            found["weights_not_loaded"] = [parameter for parameter, _ in report.replaced]
    found["size"] = size
    if preprocessing is not None:
        found |= {
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "interpolation": preprocessing.interpolation,
            "crop": preprocessing.crop,
        }
    if classes:
        found["classes"] = list(classes)
    return found


def _texts(metadata: Mapping[str, object]) -> dict[str, str]:
    """Texts as they are, other values as JSON."""
    return {
        key: printable(value) if isinstance(value, str) else json_text(value)
        for key, value in metadata.items()
    }


def _images(count: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))


def _error(model: Classifier, run: Runner, images: Tensor, form: Format) -> float:
    """The largest difference of `run`'s logits from the model's, over the largest of these.

    Raises:
        ConfigError: It is more than `TOLERANCE`.
    """
    with torch.no_grad():
        expected = model(images)
    if not torch.isfinite(expected).all():
        raise ConfigError(
            "The network can't be exported.",
            "On random images its logits are not finite.",
            "Look at its weights",
        )
    error: float = ((run(images) - expected).abs().max() / expected.abs().max()).item()
    title, _ = _TITLES[form]
    if not error <= TOLERANCE:  # NaN too
        raise ConfigError(
            f"The network can't be written as {title}: the file computes something else.",
            f"With {len(images)} random images its logits are {error:.1e} of the largest off; "
            f"at most {TOLERANCE:.0e} is let through.",
            f"Write another format: {', '.join(SUFFIXES[f] for f in FORMATS if f != form)}",
        )
    return error


# --- One for each format -------------------------------------------------------------------------
#
# Each writes the file under another name, gives what runs it, and gives it its own name when the
# `with` block has not failed.


@contextmanager
def _onnx(path: Path, program: ExportedProgram, metadata: Mapping[str, object]) -> Iterator[Runner]:
    import onnx

    model = onnx_model(program)
    onnx.helper.set_model_props(
        model, {f"{METADATA}.{key}": value for key, value in _texts(metadata).items()}
    )
    with atomically(path) as partial:
        partial.write_bytes(model.SerializeToString())
        yield ort.running(ort.session(partial, torch.get_num_threads()))


@contextmanager
def _pt2(path: Path, program: ExportedProgram, metadata: Mapping[str, object]) -> Iterator[Runner]:
    with atomically(path) as partial:
        # An open file: of a path it wants the end .pt2.
        with partial.open("wb") as file, quiet():
            torch.export.save(
                program, file, extra_files={f"{METADATA}.json": json.dumps(dict(metadata))}
            )
        with partial.open("rb") as file, quiet():
            yield torch.export.load(file).module()


@contextmanager
def _openvino(
    path: Path, program: ExportedProgram, metadata: Mapping[str, object]
) -> Iterator[Runner]:
    model = ov.ov_model(program)
    for key, value in _texts(metadata).items():
        model.set_rt_info(value, [METADATA, key])
    with ov.importing():
        import openvino
    with tempfile.TemporaryDirectory(prefix="senetzoo-") as folder:
        # It wants its own ends of names, so the partial files can't be its to write.
        draft = Path(folder) / path.with_suffix(".xml").name
        openvino.save_model(model, draft, compress_to_fp16=False)
        yield ov.running(ov.core().read_model(draft), "f32", torch.get_num_threads())
        # The weights get their name first, when no old description is there any more: at no moment
        # do the two not belong together.
        with atomically(path) as description, atomically(path.with_suffix(".bin")) as weights:
            for file, partial in ((draft, description), (draft.with_suffix(".bin"), weights)):
                shutil.copyfile(file, partial)
                flush(partial)
            path.unlink(missing_ok=True)


_WRITERS = {"onnx": _onnx, "pt2": _pt2, "openvino": _openvino}
