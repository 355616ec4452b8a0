"""senetzoo: image classifiers where the placement of channel attention is an argument."""

import ast
import importlib
from pathlib import Path

__version__ = "0.2.0"

# Where each name lives is written once, in the stub that type checkers read.
_MODULES = {
    alias.name: node.module
    for node in ast.parse(Path(__file__).with_suffix(".pyi").read_text("utf-8")).body
    if isinstance(node, ast.ImportFrom) and node.module
    for alias in node.names
}
# What other libraries call some of it.
_ELSEWHERE = {
    "create_model": "create",
    "from_pretrained": "load",
    "push_to_hub": "push",
    "save_pretrained": "save",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        ours = _ELSEWHERE.get(name)
        meant = f": type senetzoo.{ours}" if ours else ""
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{meant}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
