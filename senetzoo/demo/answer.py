"""What the page shows of an image: what each network makes of it, with noise if asked for."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from senetzoo import zoo
from senetzoo.data.corruptions import SEVERITIES, corrupt
from senetzoo.data.images import open_image
from senetzoo.data.preprocessing import Preprocessing
from senetzoo.inspect.evidence import Evidence, evidence, parts_of
from senetzoo.inspect.excitations import Excitation
from senetzoo.inspect.pictures import data_uri, overlay, shown, strip
from senetzoo.nn.classifier import Classifier
from senetzoo.predict import best, class_names

NOISES = (0, *SEVERITIES)
TOP = 5
# Pillow reads some sixty formats, one of them by running Ghostscript; strangers get these.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


class Answerer:
    """Networks that answer one image after another.

    Args:
        models: By the names that the page calls them.
    """

    def __init__(self, models: Mapping[str, Classifier]) -> None:
        self._models = dict(models)
        self._transforms = {name: zoo.transforms(model) for name, model in models.items()}
        # Threads that compute at once would only share the processor, and its memory.
        self._lock = threading.Lock()

    def networks(self) -> list[dict[str, Any]]:
        """Names and sizes."""
        return [
            {"name": name, "parameters": sum(p.numel() for p in model.parameters())}
            for name, model in self._models.items()
        ]

    def answer(self, data: bytes, noise: int) -> dict[str, Any]:
        """What each network makes of an image.

        Args:
            data: Content of the image's file.
            noise: Severity of the Gaussian noise on what the networks see, one of `NOISES`; 0 is
                none.

        Returns:
            For JSON, with pictures as data URIs.

        Raises:
            DataError: No image, or a damaged or a too large one, or not of one of `FORMATS`.
        """
        with self._lock:
            image = open_image(data, formats=FORMATS)
            found = []
            for name, model in self._models.items():
                transforms = self._transforms[name]
                tensor = noisy(transforms(image), transforms, noise)
                seen = evidence(model, tensor, transforms)
                found.append(_described(name, model, seen))
            return {"noise": noise, "networks": found}


def noisy(tensor: Tensor, transforms: Preprocessing, severity: int) -> Tensor:
    """A network's input (C, H, W) with Gaussian noise on its pixels; severity 0 leaves it."""
    if not severity:
        return tensor
    pixels = transforms.pixels(tensor).permute(1, 2, 0)
    (changed,) = corrupt(pixels[None], "gaussian_noise", severity)
    return transforms.normalized(changed.permute(2, 0, 1))


def _described(name: str, model: Classifier, seen: Evidence) -> dict[str, Any]:
    (guesses,) = best(seen.probabilities[None], TOP, class_names(model))
    return {
        "name": name,
        "guesses": [{"class": g.name, "probability": round(g.probability, 6)} for g in guesses],
        "pictures": [
            {"title": "what it saw", "image": data_uri(shown(seen.picture))},
            {"title": "Grad-CAM", "image": data_uri(overlay(seen.picture, seen.grad_cam))},
            {"title": "Layer-CAM", "image": data_uri(overlay(seen.picture, seen.layer_cam))},
        ],
        "gates": [_gate(path, gate) for path, gate in seen.gates.items()],
    }


def _gate(path: str, gate: Excitation) -> dict[str, Any]:
    values = gate.mean
    return {
        "name": path,
        "strip": data_uri(strip(parts_of(gate), len(values), 1)),
        "mean": round(float(values.mean()), 4),
        "open": {"channel": int(values.argmax()), "value": round(float(values.max()), 4)},
        "closed": {"channel": int(values.argmin()), "value": round(float(values.min()), 4)},
    }
