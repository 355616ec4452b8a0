"""Register your own gates and networks by name.

Only callers register classes: names that are read from files or from the Hub never import code.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from senetzoo.errors import ConfigError, PolicyError, first_line, nearest
from senetzoo.gates import GATES
from senetzoo.gates.common import GateModule
from senetzoo.models.own import Options, family_of, subclass_for
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate, own_name
from senetzoo.policies.text import PATH
from senetzoo.registry import ENTRIES, add_family

if TYPE_CHECKING:
    from senetzoo.spec import ModelSpec

# Such a path as a gate in the text of a policy, but not as the value of a field.
_IN_POLICY = re.compile(rf"(?:^|(?<=[+|(]))\s*{PATH.pattern}")
_GATE_NAME = re.compile(r"[a-z]+(_[a-z]+)*")
_NETWORK_NAME = re.compile(r"[a-z][a-z0-9_]*")

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class _Registered(NamedTuple):
    kind: type[Any]
    version: str
    """As in `versions`; empty if there is no source."""


_OWN: dict[str, _Registered] = {}


def register(kind: type[ModuleT], *, name: str | None = None) -> type[ModuleT]:
    """Register your own gate or network by name, until the process ends.

    It can then be created, saved, loaded, trained, evaluated and exported like those of the zoo.
    Can be used as a decorator. A redefinition of the same class replaces the previous one.

    - A class with an argument ``num_classes`` is a network, from images (N, C, H, W) to logits
      (N, num_classes). An argument ``in_chans`` is set to the number of image channels.
    - Any other class is a gate, from maps (N, C, H, W) to maps of the same shape. Its first
      argument is the number of channels C.

    All other arguments need defaults of type bool, int, float or str. They are options of the gate
    in the text of a policy, ``"scale(start=0.5)@pre"``, or fields of the network's config:
    ``config("my_net").replace(width=8).build()``.

    Args:
        kind: A subclass of `torch.nn.Module`, which initializes its parameters itself.
        name: Its name; None to derive it from the class: ``channel_scale`` for ``ChannelScale``.

    Returns:
        `kind`.

    Raises:
        ConfigError: `kind` isn't such a class, or the name is taken or invalid.
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ConfigError(
            f"register got {kind!r}.",
            "It takes a class of torch.nn.Module: a gate or a network.",
            "Type for example: senetzoo.register(MyGate)",
        )
    if name is None:
        known = [own for own, there in _OWN.items() if there.kind is kind]
        if known:
            return kind
        name = own_name(kind)
    network = "num_classes" in inspect.signature(kind).parameters
    taken, form = (ENTRIES, _NETWORK_NAME) if network else (GATES, _GATE_NAME)
    old = _OWN.get(name)
    same = old is not None and path_of(old.kind) == path_of(kind)
    if (name in taken or name == "none") and not same:
        raise ConfigError(
            f"{path_of(kind)} can't be called {name!r}.",
            f"The name is taken by {path_of(old.kind)}." if old else "The name is taken.",
            f'Rename it, or write below it: senetzoo.register({kind.__name__}, name="my_{name}")',
        )
    if not form.fullmatch(name):
        raise ConfigError(
            f"{kind.__name__} can't be called {name!r}.",
            "A name has lowercase letters and underscores" + " and digits" * network + ".",
            f'Type for example: senetzoo.register({kind.__name__}, name="mine")',
        )
    options = _options(kind, network)
    if network:
        add_family(family_of(kind, name, options))
    else:
        GATES[name] = subclass_for(OwnGate, kind, name, options)
    _OWN[name] = _Registered(kind, _version(kind))
    return kind


def _options(kind: type[nn.Module], network: bool) -> Options:
    listed = [
        p
        for p in inspect.signature(kind).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if not network and (not listed or listed[0].kind is inspect.Parameter.KEYWORD_ONLY):
        raise ConfigError(
            f"register got {kind.__name__}.",
            "Its first argument isn't the number of channels.",
            "Write: def __init__(self, channels)",
        )
    found = {}
    for p in listed[not network :]:
        if network and p.name in ("num_classes", "in_chans"):
            continue
        if type(p.default) not in (bool, int, float, str):
            raise ConfigError(
                f"register got {kind.__name__}, whose argument {p.name} can't be an option.",
                "Its default must be a bool, an int, a float or a str.",
                f"Give {p.name} such a default",
            )
        found[p.name] = (type(p.default), p.default)
    return found


class OwnGate(Gate):
    """Spec of a registered gate; each gate has its own subclass."""

    module: ClassVar[type[nn.Module]]

    def options(self) -> dict[str, Any]:
        """The arguments of the module besides the channels."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}  # type: ignore[attr-defined]

    def build(self, site: Site) -> OwnGateModule:
        return OwnGateModule(self, site)

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickle can't find the class by name, because it was created dynamically.
        return _gate_named, (self.name, self.options())


def _gate_named(name: str, options: Mapping[str, Any]) -> Gate:
    return GATES[name](**options)


class OwnGateModule(GateModule):
    """The module of a registered gate, for maps in either layout."""

    def __init__(self, spec: OwnGate, site: Site) -> None:
        super().__init__(spec, site)
        try:
            self.gate = spec.module(site.channels, **spec.options())
        except Exception as error:  # code of others can raise anything
            raise PolicyError(
                f"The gate {spec.text()} can't be built for {site.channels} channels.",
                f"Python says: {type(error).__name__}: {first_line(error)}.",
                f"Change the option, or the constructor of {path_of(spec.module)}",
            ) from error

    def forward(self, x: Tensor) -> Tensor:
        maps = self.turned(x)
        out: object = self.gate(maps)
        # Under autocast a layer may return another dtype than its input's.
        kind = maps.device.type
        cast = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        if (
            not isinstance(out, Tensor)
            or out.shape != maps.shape
            or not (cast or out.dtype == maps.dtype)
        ):
            raise PolicyError(
                f"The gate {self.spec.text()} turned a {_described(maps)} "
                f"into a {_described(out)}.",
                "A gate must return a tensor of the same shape and dtype.",
                f"Change the forward of {type(self.gate).__name__}",
            )
        return self.back(out)


def _described(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} tensor {tuple(value.shape)}"


# --- By import path ------------------------------------------------------------------------------


def path_of(kind: type[Any]) -> str:
    """The ``module:Name`` of a class."""
    return f"{kind.__module__}:{kind.__qualname__}"


def paths(names: Iterable[str]) -> dict[str, str]:
    """The registered ones of `names`, with the path of each."""
    return {name: path_of(_OWN[name].kind) for name in names if name in _OWN}


def versions(names: Iterable[str]) -> dict[str, str]:
    """The registered ones of `names` whose source is known, with a hash of the code of each.

    The code is the class, the functions, classes and constants of its module that it uses, and the
    statements there that run on import. Comments, docstrings, other definitions,
    ``if __name__ == ...`` and other modules aren't part of it.
    """
    found = {name: _OWN[name].version for name in names if name in _OWN}
    return {name: version for name, version in found.items() if version}


def changed(versions_then: Mapping[str, str]) -> list[str]:
    """The paths of registered classes whose code had another version then, as in `versions`."""
    return [
        path_of(_OWN[name].kind)
        for name, now in versions(versions_then).items()
        if now != versions_then[name]
    ]


def names_in(spec: ModelSpec) -> list[str]:
    """The name of a network and those of its gates, registered or not."""
    return [spec.name, *(rule.gate.name for rule in spec.policy.rules())]


def _version(kind: type[Any]) -> str:
    """Hash the definitions that the class uses, and the statements that run on import."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[kind.__module__]))
    except (KeyError, TypeError, OSError, SyntaxError):  # typed in, or built in
        return ""
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [each for each in body if not _is_text(each)] or [ast.Pass()]  # type: ignore[attr-defined]
    definitions: dict[str, list[ast.stmt]] = {}
    running = list[ast.stmt]()
    for node in tree.body:
        for name, statement in _defined(node):
            definitions.setdefault(name, []).append(statement)
        # A decorator of this module can register or change what it decorates.
        by = _names(*getattr(node, "decorator_list", ())) & definitions.keys()
        ours = any(not isinstance(each, _IMPORT) for name in by for each in definitions[name])
        if ours or not (_defined(node) or "__name__" in _names(node)):
            running.append(node)
    waiting = {kind.__qualname__.partition(".")[0]} | _names(*running)
    seen, texts = set[str](), set[str]()
    while waiting := waiting - seen:
        seen |= waiting
        nodes = [node for name in waiting for node in definitions.get(name, ())]
        texts |= {ast.unparse(node) for node in nodes}
        waiting = _names(*nodes)
    code = "\n".join([*sorted(texts), *map(ast.unparse, running)])
    return hashlib.sha256(code.encode()).hexdigest()


_IMPORT = (ast.Import, ast.ImportFrom)


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _names(*nodes: ast.AST) -> set[str]:
    return {each.id for node in nodes for each in ast.walk(node) if isinstance(each, ast.Name)}


def _defined(node: ast.stmt) -> list[tuple[str, ast.stmt]]:
    """The names that a statement defines if it does nothing else, each with its part of it."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [(node.name, node)]
    if isinstance(node, ast.Import):
        return [
            (each.asname or each.name.partition(".")[0], ast.Import([each])) for each in node.names
        ]
    if isinstance(node, ast.ImportFrom):
        return [
            (each.asname or each.name, ast.ImportFrom(node.module, [each], node.level))
            for each in node.names
        ]
    if not isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        return []
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    calls = any(isinstance(each, ast.Call) for each in ast.walk(node))
    if calls or not all(isinstance(each, (ast.Name, ast.Tuple)) for each in targets):
        return []
    return [(name, node) for name in _names(*targets)]


def register_path(path: str) -> str:
    """Import the class ``module:Name`` and register it.

    The current folder is also searched for the module, last.

    Returns:
        The name of the class.

    Raises:
        ConfigError: There is no such module or class, or it can't be registered.
    """
    found = PATH.fullmatch(path)
    if found is None:
        raise ConfigError(
            f"{path!r} isn't a class of a module.",
            "The format is MODULE:NAME.",
            "Type for example: my_module:MyGate",
        )
    if not {folder := str(Path.cwd()), ""} & {*sys.path}:
        sys.path.append(folder)
    try:
        module = importlib.import_module(found[1])
    except Exception as error:  # importing a module can raise anything
        name = found[1].removesuffix(".py")
        raise ConfigError(
            f"The module {found[1]} can't be imported.",
            f"Python says: {type(error).__name__}: {first_line(error)}.",
            f"Use an installed module, or {name.split('.')[0]}.py in this folder"
            if name == found[1]
            else f"Type: {name}:{found[2]}",
        ) from error
    kind = getattr(module, found[2], None)
    if kind is None:
        raise ConfigError(
            f"The module {found[1]} has no {found[2]}.",
            f"It is {module.__file__}.",
            nearest(found[2], [n for n, each in vars(module).items() if isinstance(each, type)]),
        )
    register(kind)
    return next(name for name, there in _OWN.items() if there.kind is kind)


def with_names(policy: str) -> str:
    """Register gates given as ``module:Name`` in the text of a policy; replace them by names.

    Raises:
        ConfigError: As in `register_path`.
    """
    return _IN_POLICY.sub(lambda found: register_path(found[0].strip()), policy)
