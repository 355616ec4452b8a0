"""Write networks to files for other runtimes: ONNX, torch.export's pt2, OpenVINO's IR."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import senetzoo
from senetzoo._utils.files import user_path
from senetzoo._utils.terminal import progress
from senetzoo.deploy.beside import Beside, divided, predictions_of
from senetzoo.deploy.engines.common import Runner, require
from senetzoo.deploy.inside import photograph
from senetzoo.deploy.rewrite import rewritten
from senetzoo.deploy.writers import (
    FORMATS,
    SUFFIXES,
    TITLES,
    WRITERS,
    Draft,
    FileDtype,
    Format,
    files_of,
)
from senetzoo.errors import ConfigError, checks_options, nearest
from senetzoo.eval.accuracy import evaluate
from senetzoo.eval.data import LabeledImages, batches, images_for
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.head import NO_CLASSIFIER, check_classes
from senetzoo.nn.provenance import calibration, provenance
from senetzoo.nn.transforms import transforms
from senetzoo.spec import name_of

if TYPE_CHECKING:
    from senetzoo.nn.preprocessing import Preprocessing

TOLERANCES: Mapping[FileDtype, float] = {"fp32": 1e-4, "fp16": 2e-2}
"""Largest allowed difference from the network's logits, relative to the largest of these."""

LOSSES: Mapping[str, float] = {"fp32": 0.0, "fp16": 0.1, "int8": 1.0}
"""Points of accuracy that a file may lose without a warning."""

COMPUTES: Mapping[tuple[str, str], str] = {
    **{(form, "fp32"): "fp32" for form in FORMATS},
    ("onnx", "fp16"): "fp16 if the processor supports it, otherwise fp32",
    ("openvino", "fp16"): "the device's preferred type: fp32 on most processors, fp16 on GPUs",
    ("pt2", "fp16"): "fp32",
    **{(form, "int8"): "int8, and fp32 for operators without int8" for form in FORMATS},
}
"""What a file's runtime computes in, by format and dtype."""

# The same for probabilities with preprocessing inside: one pixel in a few hundred is a level off.
_INSIDE: Mapping[FileDtype, float] = {"fp32": 0.05, "fp16": 0.1}

# Batch sizes for tracing, and for testing the file. They differ, so that a batch size that was
# traced as a constant is noticed.
_TRACED, _TRIED = 2, (1, 5)


@dataclass(frozen=True)
class Export:
    """The result of `export`.

    Args:
        files: The files; the first is the one to open.
        metadata: Metadata in the file: JSON values, in ONNX and OpenVINO as text.
        errors: The largest difference of the file's logits from the network's, relative to the
            largest of these, by the number of random images (for int8, calibration images) that
            were used. With the preprocessing inside, the largest difference of a probability, on
            random photographs.
        inside: Whether the file includes the preprocessing and returns probabilities.
        computes: Types of the weights and of the computation, in words.
        beside: Comparison of file and network on labeled images; None without images.
    """

    files: tuple[Path, ...]
    metadata: Mapping[str, object]
    errors: Mapping[int, float]
    inside: bool
    computes: str
    beside: Beside | None = None

    @property
    def warning(self) -> str:
        """Says that the file loses more accuracy than is usual for its dtype; otherwise empty."""
        dtype = str(self.metadata["dtype"])
        if self.beside is None or -self.beside.points <= LOSSES[dtype] + 1e-9:
            return ""
        return (
            f"The {dtype} file loses {-self.beside.points:.2f} points of accuracy on "
            f"{self.beside.data}, more than {LOSSES[dtype]:g}."
        )


@checks_options
def export(
    model: Classifier,
    path: str | Path,
    *,
    dtype: FileDtype = "fp32",
    with_preprocessing: bool = False,
    data: str | Path | LabeledImages | None = None,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    size: int | None = None,
    optimized: bool = False,
) -> Export:
    """Write a network, in eval mode, to a file for another runtime.

    The input ``images`` is float32 (batch, C, size, size) with any batch size, the output
    ``logits`` float32 (batch, classes). The file is tested before it gets its final name.

    Args:
        model: A network of this zoo, on any device; it is not changed.
        path: The file. Its suffix gives the format: ``.onnx``, ``.pt2``, or ``.xml`` for OpenVINO,
            whose weights go to a ``.bin`` file of the same name. Existing files are replaced, and
            the folder is created if needed.
        dtype: Type of the weights. With ``"fp16"`` ONNX also computes in fp16 if the processor
            supports it, OpenVINO in the device's preferred type, and pt2 in fp32. ``"int8"`` (ONNX
            and OpenVINO) quantizes weights and activations, calibrated with some of `data`.
        with_preprocessing: Whether to include the preprocessing and a softmax. ``images`` is then
            uint8 (batch, height, width, C), upright photographs of the same size, RGB or gray, and
            the output is ``probabilities``, float32 (batch, classes).
        data: Labeled images, or their location, as for `senetzoo.evaluate`. The file and the
            network are evaluated on them; for int8, on those not used for calibration.
        name: Name of the network in the metadata; None for its own.
        classes: Class names in the order of the logits; None for those of the load report.
        preprocessing: Preprocessing of the images; None for that of `senetzoo.transforms`.
        size: Image size in pixels; None for that of the preprocessing.
        optimized: Whether to rewrite the network with `senetzoo.deploy.rewrite.rewritten` first,
            which folds norms and lets gates read the input of the convolution before them.

    Raises:
        ConfigError: The file name or dtype is not supported, or the network can't be exported or
            computes something else in the file; nothing is written then.
        DataError: `data` is missing or doesn't fit the network.
        MissingExtraError: A package for writing the format is not installed.

    Warns:
        UserWarning: The file loses more accuracy on `data` than `LOSSES` allows.
    """
    path = user_path(path)
    form = next((form for form, suffix in SUFFIXES.items() if path.suffix == suffix), None)
    if form is None:
        raise ConfigError(
            f"The file name {path.name!r} has no known suffix.",
            f"Known suffixes are {', '.join(SUFFIXES.values())}.",
            nearest(path.suffix, SUFFIXES.values())
            or f"Type for example: {path.with_suffix('.onnx').name}",
        )
    check(form, dtype, has_data=data is not None)
    if not isinstance(model, Classifier):
        raise ConfigError(
            f"export got a {type(model).__name__}.",
            "It takes a network made by senetzoo.create.",
            "For other modules use torch.export or torch.onnx.export",
        )
    if path.is_dir():
        raise ConfigError(f"{path} can't be written.", "It is a folder.", "Give a file's path")
    if with_preprocessing and not model.num_classes:
        raise ConfigError(*NO_CLASSIFIER)
    if preprocessing is None and (
        model.in_chans in (1, 3) or with_preprocessing or data is not None
    ):
        preprocessing = transforms(model)
    if preprocessing is not None and size is not None:
        preprocessing = preprocessing.replace(size=size)
    metadata = _metadata(model, name or name_of(model), classes, preprocessing, size)
    metadata["dtype"] = dtype
    own = copy.deepcopy(model).eval().requires_grad_(False).to("cpu", torch.float32)
    images = calibration = ours = None
    if data is not None and preprocessing is not None:
        images = data if isinstance(data, LabeledImages) else images_for(model, str(data))
        if dtype == "int8":
            some, images = divided(images)
            calibration = torch.cat([x for x, _ in batches(some.images, preprocessing, 64)])
            metadata["calibration"] = f"{len(calibration)} images of {some.images.name}"
        with progress(len(images.images), "accuracy of the network", "image") as advance:
            ours = evaluate(own, images, preprocessing, advance=advance)
        top = ours.top(1)
        of = {"correct": top.right, "images": top.total, "data": images.images.name}
        metadata["network_accuracy"] = of
    traced = _images(_TRACED, (model.in_chans, *[metadata["size"]] * 2))
    network = rewritten(own, traced)[0] if optimized else copy.deepcopy(own)
    inside = preprocessing if with_preprocessing else None
    draft = Draft(network, traced, dtype, metadata, calibration, inside, metadata["temperature"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} can't be written.", f"{error.strerror}.") from None
    with WRITERS[form](path, draft) as run:
        errors = dict(_error(own, run, draft, count, form) for count in _TRIED)
        found = None
        if images is not None and preprocessing is not None and ours is not None:
            with progress(len(images.images), "accuracy of the file", "image") as advance:
                theirs = predictions_of(
                    *(run, images, preprocessing),
                    inside=with_preprocessing,
                    temperature=ours.temperature,
                    advance=advance,
                )
            found = Beside(images.images.name, ours, theirs)
    files = files_of(path, form)
    computes = f"{dtype} weights, computes in {COMPUTES[form, dtype]}"
    done = Export(files, metadata, errors, with_preprocessing, computes, found)
    if done.warning:
        warnings.warn(done.warning, UserWarning, stacklevel=3)  # of the caller, not the decorator
    return done


def check(form: Format, dtype: FileDtype, *, has_data: bool, images: str = "FOLDER") -> None:
    """Check that a format can be written in a dtype on this machine.

    Args:
        form: The format.
        dtype: The dtype.
        has_data: Whether there are images.
        images: What to give as images, for the error message.

    Raises:
        ConfigError: The format doesn't support the dtype, or int8 has no images.
        MissingExtraError: A package for writing the format is not installed.
    """
    title, engine = TITLES[form]
    if dtype not in LOSSES:
        raise ConfigError(
            f"export got dtype={dtype!r}.",
            f"dtype is one of {', '.join(LOSSES)}.",
            nearest(str(dtype), LOSSES),
        )
    if dtype == "int8" and form == "pt2":
        raise ConfigError(
            "int8 can't be written as a pt2 file.",
            "It is supported for ONNX and OpenVINO's IR.",
            "Give --to onnx or --to openvino, in Python a file name that ends in .onnx or .xml",
        )
    if dtype == "int8" and not has_data:
        raise ConfigError(
            "int8 needs images.",
            "It is calibrated with and evaluated on real images.",
            f"Give a few hundred: --data {images}, in Python data=",
        )
    require(f"Writing {title}", engine.packages, engine.extra)
    if dtype == "int8":
        require(f"Writing {title} in int8", engine.int8_packages, engine.extra)


def _metadata(
    model: Classifier,
    name: str,
    classes: Sequence[str] | None,
    preprocessing: Preprocessing | None,
    size: int | None,
) -> dict[str, Any]:
    """The metadata to write with the network.

    Raises:
        ConfigError: The classes or the size don't fit the network.
    """
    if size is None:
        size = model.input_size if preprocessing is None else preprocessing.size
    if isinstance(size, bool) or not isinstance(size, int) or size < model.min_size:
        raise ConfigError(
            f"export got size={size!r}.",
            f"It is a whole number of pixels, for this network at least {model.min_size}.",
        )
    if classes is not None:
        check_classes("export", classes, model.num_classes)
    found: dict[str, Any] = {"version": senetzoo.__version__, "model": name}
    report = provenance(model)
    if report is not None:
        classes = report.classes if classes is None else classes
        # A network that was trained further started from weights, but now has others.
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
    found["temperature"], reject_below = calibration(model)
    if reject_below is not None:
        found["reject_below"] = reject_below
    return found


def _images(count: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))


def _photographs(count: int, preprocessing: Preprocessing) -> Tensor:
    """Random photographs, whose size depends on `count`: uint8 (count, H, W, C)."""
    from PIL import Image

    height, width = preprocessing.size + 9 * count, preprocessing.size * 2 - count
    small = torch.Generator().manual_seed(count)
    shape = (count, 1 + height // 8, 1 + width // 8, 3)
    grains = torch.randint(0, 256, shape, generator=small, dtype=torch.uint8)
    large = (Image.fromarray(grain.numpy()).resize((width, height)) for grain in grains)
    return torch.stack([photograph(image, preprocessing.channels) for image in large])


def _error(
    model: Classifier, run: Runner, draft: Draft, count: int, form: Format
) -> tuple[int, float]:
    """The largest difference between the outputs of `run` and of the model.

    Returns:
        The number of images, at most `count`, and the difference.

    Raises:
        ConfigError: It is larger than allowed.
    """
    from PIL import Image

    inside, what = draft.inside, "logits"
    if inside is not None:
        what = "probabilities"
        given = _photographs(count, inside)
        images = torch.stack([inside(Image.fromarray(one.squeeze(2).numpy())) for one in given])
    elif draft.calibration is not None:
        given = images = draft.calibration[:count]
    else:
        given = images = _images(count, draft.sample.shape[1:])
    with torch.no_grad():
        expected = model(images)
    if not torch.isfinite(expected).all():
        raise ConfigError(
            "The network can't be exported.",
            "Its logits for random images are not finite.",
            "Check its weights",
        )
    if inside is not None:
        expected = (expected / draft.temperature).softmax(1)
    with torch.no_grad():
        difference = (run(given) - expected).abs().max()
    error = float(difference if inside is not None else difference / expected.abs().max())
    most = (TOLERANCES if inside is None else _INSIDE).get(draft.dtype, float("inf"))
    title, _ = TITLES[form]
    if not error <= most:  # NaN too
        raise ConfigError(
            f"The network can't be written as {title}: the file computes something else.",
            f"With {len(given)} random images its {what} differ by {error:.1e}"
            f"{' of the largest' if inside is None else ''}; at most {most:.0e} is allowed.",
            f"Write another format: {', '.join(SUFFIXES[f] for f in FORMATS if f != form)}",
        )
    return len(given), error
