"""torchvision, also where its compiled operators do not load.

A torchvision wheel built for another torch (a CPU or nightly build beside the index's wheel)
can't load its compiled operators, and ``import torchvision`` dies with "operator torchvision::nms
does not exist" while it registers fake kernels for operators that are not there. Classifiers need
none of them: once the two missing schemas are declared, datasets, transforms and models work.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# A library's declarations live as long as the object.
_library: torch.library.Library | None = None


def torchvision() -> ModuleType:
    """The torchvision package.

    Raises:
        ImportError: It is not installed, or fails for another reason than its operators.

    """
    global _library
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error) or _library is not None:
            raise
    # The failed import leaves its submodules behind, which would be taken for complete.
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    _library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        _library.define(operator + _SCHEMA)
    return importlib.import_module("torchvision")
