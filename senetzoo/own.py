"""Register your own gates and networks by name.

Only callers register classes: names that are read from files or from the Hub never import code.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib
import inspect
import re
import symtable
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from torch import Tensor, nn

from senetzoo.errors import ConfigError, PolicyError, nearest
from senetzoo.gates import GATES
from senetzoo.gates.common import GateModule
from senetzoo.models.own import family_of
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
            f"{kind.__name__} can't be called {name!r}.",
            "The name is taken.",
            f'Type for example: senetzoo.register({kind.__name__}, name="my_{name}")',
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
        GATES[name] = _gate_of(kind, name, options)
    _OWN[name] = _Registered(kind, _version(kind))
    return kind


def _options(kind: type[nn.Module], network: bool) -> dict[str, tuple[type, Any]]:
    """Type and default of each argument of `kind` that is an option."""
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
        self.gate = spec.module(site.channels, **spec.options())

    def forward(self, x: Tensor) -> Tensor:
        maps = self.turned(x)
        out: Tensor = self.gate(maps)
        if out.shape != maps.shape:
            raise PolicyError(
                f"The gate {self.spec.text()} turned a map {tuple(maps.shape)} into "
                f"{tuple(out.shape)}.",
                "A gate must keep the shape (N, C, H, W).",
                f"Change the forward of {type(self.gate).__name__}",
            )
        return self.back(out)


def _gate_of(
    kind: type[nn.Module], name: str, options: Mapping[str, tuple[type, Any]]
) -> type[Gate]:
    space = {"name": name, "module": kind, "__doc__": kind.__doc__, "__module__": kind.__module__}
    fields = [(field, *rest) for field, rest in options.items()]
    return dataclasses.make_dataclass(
        kind.__name__, fields, bases=(OwnGate,), namespace=space, frozen=True
    )


# --- By import path ------------------------------------------------------------------------------


def path_of(kind: type[Any]) -> str:
    """The ``module:Name`` of a class."""
    return f"{kind.__module__}:{kind.__qualname__}"


def paths(names: Iterable[str]) -> dict[str, str]:
    """The registered ones of `names`, with the path of each."""
    return {name: path_of(_OWN[name].kind) for name in names if name in _OWN}


def versions(names: Iterable[str]) -> dict[str, str]:
    """The registered ones of `names` whose source is known, with a hash of the code of each.

    The code is the class and what it uses of its module: functions, base classes and constants, and
    statements that change or register these. Comments, docstrings, the rest of the file, the order
    of statements, and other modules aren't part of it, nor are changes through ``globals()``, in
    ``if __name__ == ...``, or by ``__init_subclass__`` of another class.
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


class _Part(NamedTuple):
    """A statement of a module, without docstrings."""

    node: ast.stmt
    text: str
    uses: set[str]
    """The names that it takes from the module."""
    binds: set[str]
    """The names of the module that it sets, also by ``global`` in a function."""

    @property
    def runs(self) -> set[str]:
        """The names through which it can change objects when the module is imported."""
        if isinstance(self.node, (*_FUNCTION, ast.ClassDef)):
            return {
                node.id
                for decorator in self.node.decorator_list
                for node in ast.walk(decorator)
                if isinstance(node, ast.Name)
            }
        stored = self.binds and isinstance(self.node, (ast.Assign, ast.AnnAssign))
        if "__name__" in self.uses or (stored and not isinstance(self.node.value, _ALIAS)):  # type: ignore[attr-defined]
            return set()
        return self.uses


_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_IMPORT = (ast.Import, ast.ImportFrom)
# Values that can be another name of an object; a tuple or a sum is a new object.
_ALIAS = (ast.Name, ast.Attribute, ast.Subscript, ast.Call)


def _version(kind: type[Any]) -> str:
    """Hash the statements of the module that bind, change or register what the class uses."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[kind.__module__]))
    except (KeyError, TypeError, OSError, SyntaxError):  # typed in, or built in
        return ""
    parts = list(_parts(tree))
    own = set[str]().union(*(p.binds for p in parts if not isinstance(p.node, _IMPORT)))
    functions = [part for part in parts if isinstance(part.node, _FUNCTION)]

    def reached(names: set[str]) -> set[str]:
        """`names` and those that functions of these names use."""
        more = names.union(*(each.uses for each in functions if each.binds & names))
        return names if more == names else reached(more)

    waiting = [(part, reached(part.runs) & own) for part in parts]
    used, texts = {kind.__qualname__.partition(".")[0]}, list[str]()
    while found := [part for part, runs in waiting if part.binds & used or runs & used]:
        waiting = [each for each in waiting if each[0] not in found]
        used = used.union(*(part.uses | part.binds for part in found))
        texts += [part.text for part in found]
    return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest() if texts else ""


def _parts(tree: ast.Module) -> Iterator[_Part]:
    """The statements of a module; each imported name is one."""
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [each for each in body if not _is_text(each)] or [ast.Pass()]  # type: ignore[attr-defined]
    for node in tree.body:
        for each in _split(node):
            text = ast.unparse(each)
            yield _Part(each, text, *_names(symtable.symtable(text, "", "exec")))


def _split(node: ast.stmt) -> list[ast.stmt]:
    if isinstance(node, ast.Import):
        return [ast.Import([name]) for name in node.names]
    if isinstance(node, ast.ImportFrom):
        return [ast.ImportFrom(node.module, [name], node.level) for name in node.names]
    return [node]


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _names(table: symtable.SymbolTable) -> tuple[set[str], set[str]]:
    """The names that a piece of a module takes from the module, and those that it sets there."""
    top = table.get_type() == "module"
    used = {s for s in table.get_symbols() if top or s.is_global()}
    bound = {s.get_name() for s in used if s.is_assigned() or s.is_imported()}
    inner = [_names(each) for each in table.get_children()]
    uses = {s.get_name() for s in used}.union(*(names for names, _ in inner))
    return uses, bound.union(*(names for _, names in inner))


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
        said = str(error).partition("\n")[0]
        raise ConfigError(
            f"The module {found[1]} can't be imported.",
            f"Python says: {type(error).__name__}: {said}.",
            f"Use an installed module, or {found[1].split('.')[0]}.py in this folder",
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
