"""Networks of other libraries by name, with random weights, to compare ours with."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from senetzoo._utils.environment import unwarned
from senetzoo._utils.torchvision import import_torchvision
from senetzoo.deploy.engines.common import require
from senetzoo.errors import ConfigError, explained, nearest
from senetzoo.eval.accuracy import failures_explained
from senetzoo.nn.modes import to_meta
from senetzoo.nn.seeds import seeded

Image: TypeAlias = tuple[int, int, int]
# The names of a library's classifiers, and a function that builds one (name, outputs, image shape).
Library: TypeAlias = tuple[Sequence[str], Callable[[str, int, Image], nn.Module]]


def peer(spec: str, classes: int, image: Image) -> nn.Module:
    """Build a network of another library (``timm:resnet50``) with random weights in eval mode.

    Raises:
        ConfigError: There is no such library or network, or it can't be built for these arguments.
        MissingExtraError: The library is not installed.
    """
    library, colon, name = spec.partition(":")
    if not colon or library not in LIBRARIES:
        raise ConfigError(
            f"There is no peer {spec!r}.",
            f"A peer is library:network, with the library one of {', '.join(LIBRARIES)}.",
            nearest(library, LIBRARIES) or f"Type for example: --compare timm:{name or spec}",
        )
    require(f"--compare {spec}", [library], "peers")
    import_torchvision()  # the others import it
    known, build = LIBRARIES[library]()
    # timm's names may include a tag of weights, which are not used here.
    if (name.partition(".")[0] if library == "timm" else name) not in known:
        close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
        raise ConfigError(
            f"{library} has no network {name!r}.",
            f"The nearest names are {', '.join(close)}." if close else "No name is similar.",
            f"Type for example: --compare {library}:{close[0] if close else 'resnet50'}",
        )
    asked = f"{spec} can't be built with {classes} classes for {image[0]} channels."
    failing = explained(asked, library, "Give another network")
    # Some warn about future defaults.
    with failing, seeded(0, torch.device("cpu")), unwarned():
        module = build(name, classes, image).eval()
    _check_logits(spec, module, classes, image)
    return module


def _check_logits(spec: str, module: nn.Module, classes: int, image: Image) -> None:
    """Raise if a module isn't a classifier, by its output for one image on the meta device."""
    twin = to_meta(module)
    with failures_explained(spec, image, 1), torch.no_grad(), torch.device("meta"):
        logits = twin(torch.empty(1, *image))
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (1, classes):
        gives = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else (
            f"a {type(logits).__name__}"
        )  # fmt: skip
        raise ConfigError(
            f"{spec} can't be compared here.",
            f"For one image it returns {gives}, not {classes} logits.",
            "Give a classifier",
        )


def _timm() -> Library:
    import timm

    def build(name: str, classes: int, image: Image) -> nn.Module:
        defaults = timm.get_pretrained_cfg(name)
        # Networks with position embeddings or windows need the size; others don't have the option.
        sized: dict[str, Any] = (
            {"img_size": image[1]} if defaults and defaults.fixed_input_size else {}
        )
        model: nn.Module = timm.create_model(name, num_classes=classes, in_chans=image[0], **sized)
        return model

    return timm.list_models(), build


def _torchvision() -> Library:
    from torchvision import models

    def build(name: str, classes: int, image: Image) -> nn.Module:
        if image[0] != 3:
            raise ValueError(f"images have 3 channels, not {image[0]}")
        options: dict[str, bool | int] = {}
        if name in ("googlenet", "inception_v3"):
            options["init_weights"] = False  # their initialization takes a minute
        elif name.startswith("vit_"):
            options["image_size"] = image[1]
        model: nn.Module = models.get_model(name, num_classes=classes, **options)
        return model

    # Only the classifiers, without detection, segmentation and video.
    return models.list_models(module=models), build


def _pytorchcv() -> Library:
    from pytorchcv import model_provider

    def build(name: str, classes: int, image: Image) -> nn.Module:
        model: nn.Module = model_provider.get_model(
            name, num_classes=classes, in_channels=image[0], in_size=image[1:]
        )
        return model

    return list(model_provider._models), build


LIBRARIES: dict[str, Callable[[], Library]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "pytorchcv": _pytorchcv,
}
