"""Networks of other libraries by name, with random weights, to be measured beside ours."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from senetzoo._torchvision import torchvision
from senetzoo.bench.device import explained
from senetzoo.counting import to_meta
from senetzoo.errors import ConfigError, MissingExtraError, nearest

_EXTRA = "peers"


@dataclass(frozen=True)
class Wanted:
    """What a network is built for.

    Args:
        classes: Outputs.
        channels: Of an image.
        size: Pixels of a side.
    """

    classes: int
    channels: int
    size: int


@dataclass(frozen=True)
class _Library:
    """How a library lists its classifiers and builds one of them."""

    names: Callable[[], Sequence[str]]
    build: Callable[[str, Wanted], nn.Module]


def peer(spec: str, wanted: Wanted) -> nn.Module:
    """Build a network of another library, with random weights, in eval mode.

    Args:
        spec: ``"timm:seresnet50"``, ``"torchvision:resnet50"`` or ``"pytorchcv:seresnet50"``.
        wanted: Classes, channels and size.

    Raises:
        ConfigError: No such library or network, or one that is not to be had in this form.
        MissingExtraError: The library is not installed.
    """
    library, colon, name = spec.partition(":")
    if not colon or library not in LIBRARIES:
        raise ConfigError(
            f"There is no peer {spec!r}.",
            f"A peer is library:network, with the library one of {', '.join(LIBRARIES)}.",
            nearest(library, LIBRARIES) or f"Type for example: --vs timm:{name or spec}",
        )
    if find_spec(library) is None:
        raise MissingExtraError(f"--vs {spec}", library, _EXTRA)
    torchvision()  # the others import it
    known = LIBRARIES[library].names()
    # timm's names may carry the tag of their weights, of which only the structure counts here.
    if (name.partition(".")[0] if library == "timm" else name) not in known:
        close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)
        raise ConfigError(
            f"{library} has no network {name!r}.",
            f"The nearest names are {', '.join(close)}." if close else "No name is near it.",
            f"Type for example: --vs {library}:{close[0] if close else 'resnet50'}",
        )
    try:
        # Without touching the caller's random state; and some announce their future defaults.
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            module = LIBRARIES[library].build(name, wanted).eval()
    except Exception as error:  # each library refuses in its own way, some by an assert
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"{spec} can't be built with {wanted.classes} classes for {wanted.channels} channels.",
            f"{library} says: {said[0]}",
            "Give another network",
        ) from error
    _check_logits(spec, module, wanted)
    return module


def _check_logits(spec: str, module: nn.Module, wanted: Wanted) -> None:
    """Refuse what is no classifier, by its output for one image without memory."""
    image = (wanted.channels, wanted.size, wanted.size)
    twin = to_meta(module)
    with explained(spec, image, 1), torch.no_grad(), torch.device("meta"):
        logits = twin(torch.empty(1, *image))
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (1, wanted.classes):
        gives = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else (
            f"a {type(logits).__name__}"
        )  # fmt: skip
        raise ConfigError(
            f"{spec} can't be compared here.",
            f"For one image it gives {gives}, not {wanted.classes} logits.",
            "Give a classifier",
        )


def _timm_names() -> Sequence[str]:
    import timm

    return list(timm.list_models())


def _timm(name: str, wanted: Wanted) -> nn.Module:
    import timm

    defaults = timm.get_pretrained_cfg(name)
    # Those with position embeddings or windows are built for a size; others know no such option.
    sized: dict[str, Any] = (
        {"img_size": wanted.size} if defaults and defaults.fixed_input_size else {}
    )
    model: nn.Module = timm.create_model(
        name, num_classes=wanted.classes, in_chans=wanted.channels, **sized
    )
    return model


def _torchvision_names() -> Sequence[str]:
    from torchvision import models

    # Of the module of classifiers alone, without detection, segmentation and video.
    return list(models.list_models(module=models))


def _torchvision(name: str, wanted: Wanted) -> nn.Module:
    from torchvision import models

    if wanted.channels != 3:
        raise ValueError(f"images have 3 channels, not {wanted.channels}")
    options: dict[str, bool | int] = {}
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False  # they draw them in a way that takes a minute
    elif name.startswith("vit_"):
        options["image_size"] = wanted.size
    model: nn.Module = models.get_model(name, num_classes=wanted.classes, **options)
    return model


def _pytorchcv_names() -> Sequence[str]:
    from pytorchcv import model_provider

    return list(model_provider._models)


def _pytorchcv(name: str, wanted: Wanted) -> nn.Module:
    from pytorchcv.model_provider import get_model

    model: nn.Module = get_model(
        name,
        num_classes=wanted.classes,
        in_channels=wanted.channels,
        in_size=(wanted.size, wanted.size),
    )
    return model


LIBRARIES = {
    "timm": _Library(_timm_names, _timm),
    "torchvision": _Library(_torchvision_names, _torchvision),
    "pytorchcv": _Library(_pytorchcv_names, _pytorchcv),
}
