"""Read exported files again, to classify images with them as with the networks they are from."""

from __future__ import annotations

import json
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from xml.etree import ElementTree

import torch
from torch import Tensor

from senetzoo._utils.files import user_path
from senetzoo.data.sets import Split
from senetzoo.deploy.beside import predictions_of
from senetzoo.deploy.engines import ort, ov
from senetzoo.deploy.engines.common import Runner, require
from senetzoo.deploy.inside import photograph
from senetzoo.deploy.program import PROBABILITIES, quiet
from senetzoo.deploy.writers import METADATA, SUFFIXES, TITLES, Format, content_hash, files_of
from senetzoo.errors import ConfigError, WeightsError, explained, first_line
from senetzoo.eval.accuracy import Evaluation
from senetzoo.eval.data import LabeledImages, read_images
from senetzoo.nn.modes import finite
from senetzoo.nn.preprocessing import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

# Values of these keys are text; the others are JSON.
_TEXTS = ("model", "weights", "dtype", "interpolation", "sha256")
_NUMBERS = ("size", "crop", "mean", "std", "temperature", "reject_below", "classes")


@dataclass(frozen=True)
class ExportedFile:
    """An exported file that is ready to classify images.

    Args:
        path: The file.
        metadata: Its metadata, decoded.
        run: Runs the file on a batch of its input.
        inside: Whether it does the preprocessing itself, and returns probabilities.
    """

    path: Path
    metadata: Mapping[str, Any]
    run: Runner
    inside: bool

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing of its network."""
        known = self.metadata
        mean, std = tuple(known["mean"]), tuple(known["std"])
        return Preprocessing(known["size"], mean, std, known["interpolation"], known["crop"])

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        side, channels = self.preprocessing.size, self.preprocessing.channels
        if self.inside:
            return self.run(torch.zeros(1, side, side, channels, dtype=torch.uint8)).shape[1]
        return self.run(torch.zeros(1, channels, side, side)).shape[1]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the outputs; ``"class 0"`` ... if the network's weights have none."""
        names = self.metadata.get("classes") or (f"class {k}" for k in range(self.outputs))
        return tuple(names)

    def transform(self, image: Image | Tensor) -> Tensor:
        """Turn an image into the file's input; photographs keep their sizes."""
        if self.inside:
            return photograph(image, self.preprocessing.channels)
        return self.preprocessing(image)

    def probabilities(self, inputs: list[Tensor]) -> Tensor:
        """The probabilities (N, outputs) of transformed images of the same size."""
        images = torch.stack(inputs)
        with torch.inference_mode():
            found = finite(self.run(images), images)
        return found if self.inside else (found / self.metadata["temperature"]).softmax(1)

    def labeled(self, where: str, part: Split | None = None) -> LabeledImages:
        """The data set at `where`, as in `senetzoo.eval.data.read_images`, with its classes."""
        return read_images(where, self.metadata.get("classes", ()), self.outputs, part)

    def evaluate(
        self,
        data: LabeledImages,
        *,
        batch: int = 64,
        advance: Callable[[int], None] = lambda images: None,
    ) -> Evaluation:
        """Evaluate it on labeled images.

        Args:
            data: The images, as `labeled` gives them.
            batch: Images per batch.
            advance: Called after each batch with its number of images.

        Raises:
            DataError: An image can't be read.
        """
        known = self.metadata
        found = predictions_of(
            self.run,
            data,
            self.preprocessing,
            inside=self.inside,
            temperature=known["temperature"],
            batch=batch,
            advance=advance,
        )
        weights, names = known.get("weights", known["model"]), tuple(known.get("classes", ()))
        return Evaluation(str(self.path), weights, known["dtype"], data, found, names)


# Metadata as text, the runner, and whether it takes photographs.
_Read: TypeAlias = tuple[Mapping[str, str], Runner, bool]


def _onnx(path: Path) -> _Read:
    session = ort.session(path, torch.get_num_threads())
    head = f"{METADATA}."
    texts = session.get_modelmeta().custom_metadata_map
    own = {key.removeprefix(head): text for key, text in texts.items() if key.startswith(head)}
    return own, ort.running(session), session.get_outputs()[0].name == PROBABILITIES


def _openvino(path: Path) -> _Read:
    # OpenVINO tries a file that isn't XML as other formats, whose readers write to stderr.
    root = ElementTree.parse(path).getroot()
    if root.tag != "net":
        raise ValueError(f"its root is {root.tag}")
    model = ov.core().read_model(path)
    keys = [key for key in (*_TEXTS, *_NUMBERS) if model.has_rt_info([METADATA, key])]
    texts = {key: str(model.get_rt_info([METADATA, key]).astype(str)) for key in keys}
    inside = PROBABILITIES in model.outputs[0].get_names()
    threads = torch.get_num_threads()
    return texts, ov.running(model, "f32", threads, fixed=not inside), inside


def _pt2(path: Path) -> _Read:
    with zipfile.ZipFile(path) as archive:  # torch doesn't check its checksums
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {damaged} is wrong")
    extra = {f"{METADATA}.json": ""}
    with quiet("torch.export"):
        program = torch.export.load(path, extra_files=extra)
        module = program.module()
    known: dict[str, Any] = json.loads(extra[f"{METADATA}.json"] or "{}")
    texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in known.items()}
    (images,), _ = program.example_inputs
    return texts, lambda given: module(given), images.dtype == torch.uint8


_READERS: Mapping[Format, tuple[tuple[str, ...], Callable[[Path], _Read]]] = {
    "onnx": (("onnxruntime",), _onnx),
    "openvino": (("openvino",), _openvino),
    "pt2": ((), _pt2),
}
"""Packages that reading each format needs, and its reader."""

# How files begin, by their usual suffix.
_BEGINNINGS = {
    ".onnx": rb"\x08[\x01-\x1f]\x12",
    ".xml": rb"<\?xml[^>]*>\s*<net\b",
    ".pth": rb"PK\x03\x04.{26}[^/]+/data\.pkl|\x80[\x02-\x05]",
    ".pt2": rb"PK\x03\x04",
    ".safetensors": rb".{5}\0{3}\{",
}


def read_file(path: str | Path) -> ExportedFile:
    """Open a file that `senetzoo.export` wrote, to run it on the CPU.

    Raises:
        ConfigError: The file isn't one of senetzoo's, or takes no images of 1 or 3 channels.
        MissingExtraError: A package for running the format is not installed.
        WeightsError: The file is missing or damaged.

    Warns:
        UserWarning: The file can be read, but it isn't what was written.
    """
    path = user_path(path)
    form = next(form for form, suffix in SUFFIXES.items() if path.suffix == suffix)
    title, engine = TITLES[form]
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(300)
        found = (s for s, begins in _BEGINNINGS.items() if re.match(begins, head, re.DOTALL))
        suffix = next(found, path.suffix)
        if suffix != path.suffix:
            raise WeightsError(
                f"Can't read {path}.",
                f"It isn't {title}: it begins like a {suffix} file.",
                f"Rename it to {path.with_suffix(suffix).name}",
            )
    missing = [file for file in files_of(path, form) if not file.is_file()]
    if missing:
        raise WeightsError(
            f"Can't read {path}.", f"There is no {missing[0]}.", "Copy it there, or export it again"
        )
    packages, read = _READERS[form]
    require(f"Reading {title}", packages, engine.extra)
    try:
        texts, run, inside = read(path)
    except Exception as error:  # each runtime raises its own
        said = first_line(error.__cause__ or error)
        raise WeightsError(
            f"Can't read {' with '.join(map(str, files_of(path, form)))}.",
            f"It is damaged, or isn't {title}: {said}",
            "Export it again",
        ) from error
    metadata: dict[str, Any] = {key: texts[key] for key in _TEXTS if key in texts}

    def explaining(images: Tensor) -> Tensor:
        asked = f"{path} fails on a batch of shape {tuple(images.shape)}."
        with explained(asked, "It", "Prepare each image with the file's transform"):
            return run(images)

    try:
        metadata |= {key: json.loads(texts[key]) for key in _NUMBERS if key in texts}
        opened = ExportedFile(path, metadata, explaining, inside)
        outputs = opened.outputs
        named = len(metadata.get("classes") or range(outputs)) == outputs
        whole = named and {"model", "dtype"} <= metadata.keys() and metadata["temperature"] > 0
    except Exception as error:  # of the values that are missing or wrong, or of the runtime
        raise _unprepared(path) from error
    if not whole:
        raise _unprepared(path)
    stored = metadata.get("sha256")
    if stored is not None and content_hash(files_of(path, form), stored) != stored:
        warnings.warn(
            f"{path} was changed after senetzoo export wrote it. Its answers may be wrong. Export "
            "it again, or check it with senetzoo eval.",
            UserWarning,
            stacklevel=2,
        )
    return opened


def _unprepared(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} doesn't say how to prepare images for it, and what its outputs are.",
        "Files that senetzoo export wrote for gray or RGB images do.",
        "Type for example: senetzoo export runs/photos --to onnx",
    )
