"""Only torch with ``weights_only=True`` unpickles: a check of the source code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import senetzoo

PACKAGE = Path(senetzoo.__file__).parent

# Files of other libraries in `weights convert`, and our own checkpoints.
MAY_LOAD = {"weights/unpack.py", "train/checkpoint.py"}
# Modules that unpickle, or have no other use. `pickle` may be imported for its error.
UNPICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
# What calls them: torch.load has its own rule; `torch.hub.load` runs what it downloads.
LOADERS = {
    "torch.jit.load",
    "torch.package.PackageImporter",
    "torch.hub.load",
    "torch.hub.load_state_dict_from_url",
    "torch.utils.model_zoo.load_url",
    "torch.serialization.load",
    "torch.serialization.add_safe_globals",
    "numpy.load",
    "np.load",
    "pandas.read_pickle",
}


def dotted(node: ast.expr) -> str:
    """``torch.load`` of the expression that says it; empty for others."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def findings(text: str) -> list[str]:
    """What in a source could unpickle; ``torch.load`` alone where that is weights-only."""
    found = []
    names: dict[str, str] = {}
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname: a.name for a in node.names if a.asname}
            found += [
                f"import {a.name}" for a in node.names if _bare(a.name) and a.name != "pickle"
            ]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names |= {a.asname or a.name: f"{module}.{a.name}" for a in node.names}
            if _bare(module) and {a.name for a in node.names} != {"UnpicklingError"}:
                found.append(f"from {module}")
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Attribute, ast.Name)):
            continue
        first, _, rest = dotted(node).partition(".")
        name = ".".join(filter(None, [names.get(first, first), rest]))
        if name in LOADERS or (name.startswith("pickle.") and name != "pickle.UnpicklingError"):
            found.append(name)
        elif name == "torch.load":
            found.append("torch.load")
    calls = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and dotted(node.func) == "torch.load"
        and any(
            keyword.arg == "weights_only"
            and isinstance(keyword.value, ast.Constant)
            and keyword.value.value is True
            for keyword in node.keywords
        )
    ]
    # Each mention is such a call, so that nobody hands the function itself on.
    if found.count("torch.load") != len(calls):
        found.append("torch.load without weights_only=True")
    return found


def _bare(module: str) -> bool:
    return module.partition(".")[0] in UNPICKLERS


def test_nothing_in_the_package_unpickles() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        where = path.relative_to(PACKAGE).as_posix()
        found = set(findings(path.read_text("utf-8")))
        assert found == ({"torch.load"} if where in MAY_LOAD else set()), where


def test_only_a_namespace_is_let_through() -> None:
    text = (PACKAGE / "weights/unpack.py").read_text("utf-8")
    calls = [
        ast.unparse(node)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and "safe_globals" in dotted(node.func)
    ]
    assert calls == ["torch.serialization.safe_globals([argparse.Namespace])"]
    for path in sorted(PACKAGE.rglob("*.py")):
        assert "safe_globals" not in path.read_text("utf-8") or path.name == "unpack.py"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import pickle\npickle.load(f)", ["pickle.load"]),
        ("import pickle as p\np.loads(b)", ["pickle.loads"]),
        ("import pickle as p\nx = p.Unpickler", ["pickle.Unpickler"]),
        ("from pickle import loads", ["from pickle"]),
        ("import joblib", ["import joblib"]),
        ("import torch\ntorch.load(f)", ["torch.load", "torch.load without weights_only=True"]),
        ("import torch\ntorch.load(f, weights_only=False)", ["torch.load",
         "torch.load without weights_only=True"]),
        ("import torch\nread = torch.load", ["torch.load", "torch.load without weights_only=True"]),
        ("from torch import load\nload(f)", ["torch.load", "torch.load without weights_only=True"]),
        ("import numpy as np\nnp.load(f, allow_pickle=True)", ["numpy.load"]),
        ("import torch\ntorch.hub.load('a/b', 'c')", ["torch.hub.load"]),
        ("from torch.hub import load", []),
        ("from torch.hub import load\nload('a/b', 'c')", ["torch.hub.load"]),
        ("import torch\ntorch.load(f, weights_only=True)", ["torch.load"]),
        ("import pickle\ntry: ...\nexcept pickle.UnpicklingError: ...", []),
        ("from senetzoo.weights.load import load_entry\nload_entry()", []),
    ],
)  # fmt: skip
def test_the_reader_sees_every_way(text: str, found: list[str]) -> None:
    assert findings(text) == found
