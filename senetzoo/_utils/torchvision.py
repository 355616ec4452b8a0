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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# A library's declarations live as long as the object.
_library: torch.library.Library | None = None


def import_torchvision() -> ModuleType:
    """Import torchvision, even if its compiled operators don't load.

    ``import torchvision`` fails with "operator torchvision::nms does not exist" where it was built
    for another torch. Call this function first: then ``import torchvision`` and
    ``from torchvision... import`` work in the same process. Models, transforms and data sets work;
    the operators themselves, such as ``nms`` for detectors, do not.

    Returns:
        The module ``torchvision``.

    Raises:
        ImportError: It is not installed.
        RuntimeError: It fails for another reason than its missing operators.
    """
    global _library
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error) or _library is not None:
            raise
    import torch

    # The failed import leaves its submodules behind, which would be taken for complete.
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    # A fragment, because it may stand beside declarations of torchvision's own.
    _library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            _library.define(operator + _SCHEMA)  # type: ignore[no-untyped-call]
    return importlib.import_module("torchvision")
