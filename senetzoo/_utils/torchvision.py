"""Importing torchvision even if its compiled operators don't load.

A torchvision wheel that was built for another torch (such as a CPU or nightly build) can't load its
compiled operators, and ``import torchvision`` fails with "operator torchvision::nms does not exist"
while it registers fake kernels for the missing operators. Classifiers don't need them: once the two
missing schemas are declared, datasets, transforms and models work.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# A library's declarations live as long as the object.
_library: torch.library.Library | None = None


def import_torchvision() -> ModuleType:
    """Import torchvision, even if its compiled operators don't load.

    ``import torchvision`` fails with "operator torchvision::nms does not exist" if it was built for
    another torch. After this function, ``import torchvision`` and ``from torchvision... import``
    work in the same process. Models, transforms and data sets work, but not the operators
    themselves, such as ``nms`` for detectors.

    Returns:
        The module ``torchvision``.

    Raises:
        ImportError: It is not installed.
        RuntimeError: The import fails for another reason.
    """
    global _library
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error) or _library is not None:
            raise
    import torch

    # The failed import leaves incomplete submodules behind.
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    # A fragment, because torchvision may have declarations of its own.
    _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            _library.define(operator + _SCHEMA)  # type: ignore[no-untyped-call]
    return importlib.import_module("torchvision")
