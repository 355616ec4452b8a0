"""Putting gates into a network, and taking them out."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from senetzoo.errors import PolicyError
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.slots import Site, Slots
from senetzoo.policies import hooks
from senetzoo.policies.algebra import Policy, resolve
from senetzoo.policies.sitemap import Place, Refusal, SiteMap


def site_seed(seed: int, path: str) -> int:
    """Seed of the gate at `path`: it depends on nothing else in the network."""
    digest = hashlib.sha256(f"{seed}:{path}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class _Undrawn(TorchFunctionMode):
    """Leaves out random initialisation: on the meta device it does nothing, and takes seconds."""

    draws = frozenset({torch.Tensor.normal_, torch.Tensor.uniform_})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return args[0] if func in self.draws else func(*args, **(kwargs or {}))


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Build modules from `seed`, and leave the caller's random state as it was.

    They are built on the CPU, whatever the default device, so that a seed means the same weights
    everywhere; for the meta device, on that.
    """
    if device.type == "meta":
        with torch.device("meta"), _Undrawn():
            yield
        return
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        # Not torch.manual_seed, which would seed the accelerators' generators too, for good.
        torch.default_generator.manual_seed(seed)
        yield


def drawn_seed() -> int:
    """A seed from torch's global state."""
    return int(torch.randint(2**62, (), device="cpu").item())


class Attached(Mapping[Site, nn.Module]):
    """What `attach` added: the new gates by site.

    Args:
        model: The network.
        gates: The new gates by site.
        refused: What the policy asked for and the network's blocks can't honour, with the reason.
    """

    def __init__(
        self,
        model: nn.Module,
        gates: Mapping[Site, nn.Module],
        refused: tuple[Refusal, ...] = (),
    ) -> None:
        self.model = model
        self.refused = refused
        self._gates = dict(gates)

    def __getitem__(self, site: Site) -> nn.Module:
        return self._gates[site]

    def __iter__(self) -> Iterator[Site]:
        return iter(self._gates)

    def __len__(self) -> int:
        return len(self._gates)

    def gate_parameters(self) -> list[nn.Parameter]:
        """The parameters of all gates of the network, of those too that were there before."""
        known = {id(p) for gate in _gates_of(self.model) for p in gate.parameters()}
        return [p for p in self.model.parameters() if id(p) in known]

    def parameters(self, weight_decay: float | None = None) -> list[dict[str, Any]]:
        """Two groups for an optimizer, which takes them as it takes ``model.parameters()``.

        The trunk comes first, then the gates, which have no weight decay: it would pull them away
        from the value that they begin with.

        Args:
            weight_decay: Weight decay of the trunk; None for the optimizer's own.
        """
        gates = self.gate_parameters()
        known = {id(parameter) for parameter in gates}
        trunk = [p for p in self.model.parameters() if id(p) not in known]
        decay = {} if weight_decay is None else {"weight_decay": weight_decay}
        return [{"params": trunk, **decay}, {"params": gates, "weight_decay": 0.0}]

    def check(self, sample: Tensor) -> None:
        """Run `sample` through the network once, in eval mode, and see that every gate acts.

        Args:
            sample: What the network takes.

        Raises:
            PolicyError: A gate that did not run, or not as often as the module where it sits.
        """
        silent, misplaced = _tried(self.model, self._gates, sample)
        if silent:
            shown = ", ".join(silent[:3]) + (", ..." if len(silent) > 3 else "")
            raise PolicyError(
                f"{len(silent)} of {len(self)} gates do not act: {shown}.",
                "The network does not run the modules there, not as modules, or in a loop over all "
                "children.",
                "Leave them out of the SiteMap",
            )
        for site, shape in misplaced.items():
            raise PolicyError(
                f"The gate at {site.path} got a tensor of shape {shape}.",
                f"Its place in the SiteMap says {site.channels} channels in the layout "
                f"{site.layout}.",
                "Give the place its channels= and layout=, or leave it out",
            )

    def __repr__(self) -> str:
        lines = [f"{site.path}: {gate}" for site, gate in self.items()]
        return "\n".join([f"{len(self)} gates in a {type(self.model).__name__}", *lines])


def attach(
    model: nn.Module,
    policy: Policy,
    *,
    sites: SiteMap | None = None,
    seed: int | None = None,
    sample: Tensor | None = None,
    name: str | None = None,
) -> Attached:
    """Put gates into `model` as `policy` says, in place.

    Args:
        model: A network of this zoo, or another.
        policy: What to put where. A site that already holds a gate gets the new one.
        sites: Where gates can sit in another network; None for what the tables know.
        seed: Seed of the gates' initialisation; None draws one from torch's global state.
        sample: An input to try the gates on.
        name: What messages call the network; None for its class.

    Returns:
        The new gates by site.

    Raises:
        PolicyError: The policy does not fit the network; nothing is changed then.
    """
    _refuse_wrapped(model, "attach")
    name = name or type(model).__name__
    if seed is None:
        seed = drawn_seed()
    refused: tuple[Refusal, ...] = ()
    spots: dict[Site, Slots | Place]
    if isinstance(model, Classifier):
        if sites is not None:
            raise PolicyError(
                f"attach got a SiteMap for a {type(model).__name__} of this zoo.",
                "Networks of this zoo declare their sites themselves.",
                "Leave sites out",
            )
        spots = dict(model.slots())
    elif not any(True for _ in policy.rules()):
        # Nothing is asked of a network that may be known to nobody.
        return Attached(model, {})
    else:
        if sites is None:
            _refuse_outer(model)
        known = (SiteMap.of(model) if sites is None else sites).on(model)
        if not known.places:
            raise PolicyError(
                f"attach got a SiteMap without places for a {name}.",
                f"Of {known.refused[0]}." if known.refused else "It names no module.",
                'Type for example: SiteMap((Place("layer1.conv", channels=64),))',
            )
        spots = dict(known.sites())
        refused = _refused(policy, known, spots, name)
    gates: dict[Site, nn.Module] = {}
    for site, gate in resolve(policy, spots, name).items():
        like = _like(model, spots[site])
        with seeded(site_seed(seed, site.path), like.device):
            gates[site] = gate.build(site).to(device=like.device, dtype=like.dtype)
        _check_free(model, spots[site])
    before = {site: _held(model, spots[site], site) for site in gates}
    for site, module in gates.items():
        _put(model, spots[site], site, module.train(model.training))
    attached = Attached(model, gates, refused)
    if sample is not None:
        try:
            attached.check(sample)
        except BaseException:
            for site, held in before.items():
                _put(model, spots[site], site, held)
            raise
    return attached


def _held(model: nn.Module, spot: Slots | Place, site: Site) -> nn.Module | None:
    if isinstance(spot, Slots):
        return spot.get(site.position)
    held = model
    for part in site.path.split("."):
        found = held._modules.get(part)
        if found is None:
            return None
        held = found
    return held


def _check_free(model: nn.Module, spot: Slots | Place) -> None:
    if isinstance(spot, Place):
        module = model.get_submodule(spot.module)
        hooks.check_free(module, hooks.PREFIX + spot.position, spot.side, spot.via)


def _put(model: nn.Module, spot: Slots | Place, site: Site, gate: nn.Module | None) -> None:
    """Fill the place with `gate`, or empty it."""
    if isinstance(spot, Slots):
        if gate is None:
            spot.clear(site.position)
        else:
            spot.put(site.position, gate)
        return
    if gate is None:
        holder, _, key = site.path.rpartition(".")
        hooks.remove_all(model, {id(model.get_submodule(holder)): {key}})
        return
    parent, _, child = spot.module.rpartition(".")
    key = hooks.PREFIX + spot.position
    hooks.put(model.get_submodule(parent), child, key, spot.side, spot.via, gate)


def _refused(
    policy: Policy, known: SiteMap, places: Mapping[Site, object], name: str
) -> tuple[Refusal, ...]:
    """What the rules ask for in vain; an error where a rule gets nothing else.

    Raises:
        PolicyError: The reason why the network has no such place.
    """
    sizes = known.sizes()
    found: dict[Refusal, None] = {}
    for rule in policy.rules():
        lacking = [r for r in known.refused if r.asked(rule.position, rule.selector, sizes)]
        found |= dict.fromkeys(lacking)
        if not lacking or rule.resolve(places):
            continue
        there = list(dict.fromkeys(site.position for site in places if rule.selector.matches(site)))
        where = f"there it has {', '.join(there)}" if there else "it has no other position there"
        raise PolicyError(
            f"{rule} can't be honoured in {name}.",
            f"At {lacking[0].module or 'the network'}, {lacking[0].reason}; {where}.",
            f"Type for example: @{there[-1]}" if there else "",
        )
    return tuple(found)


def _like(model: nn.Module, spot: Slots | Place) -> Tensor:
    """A weight near to the place, with the device and the type that a gate there needs."""
    path = "" if isinstance(spot, Slots) else spot.module
    while True:
        module = model.get_submodule(path)
        for tensor in itertools.chain(module.parameters(), module.buffers()):
            if tensor.is_floating_point():
                return tensor
        if not path:
            return torch.empty(0, device="cpu")
        path = path.rpartition(".")[0]


def detach(model: nn.Module) -> nn.Module:
    """Take every gate out of `model`, in place, and all that was put in for them.

    Raises:
        PolicyError: `model` is wrapped; nothing is changed then.
    """
    _refuse_wrapped(model, "detach")
    hooks.remove_all(model)
    for module in model.modules():
        if isinstance(module, Slots):
            for position in module.channels:
                module.clear(position)
    return model


def _gates_of(model: nn.Module) -> Iterator[nn.Module]:
    for _, _, gate in hooks.gates_in(model):
        yield gate
    for module in model.modules():
        if isinstance(module, Slots):
            yield from module.children()


# Class of a wrapper by its name: none of them is imported, some do not exist everywhere.
_WRAPPERS = {
    "DistributedDataParallel": "It keeps in step only the parameters that it was made with",
    "DataParallel": "It copies the network inside to several devices for each batch",
    "FullyShardedDataParallel": "It has split the parameters of the network inside",
    "FSDPModule": "Its parameters have been split",
    "OptimizedModule": "It runs what was compiled before",
    "ScriptModule": "Its forward pass is fixed",
}


def _refuse_wrapped(model: nn.Module, verb: str) -> None:
    if not isinstance(model, nn.Module):
        raise PolicyError(
            f"{verb} got a {type(model).__name__}.",
            "It takes a network, a torch.nn.Module.",
            f'Type for example: {verb}(create("resnet50"){", SE()" * (verb == "attach")})',
        )
    for path, module in model.named_modules():
        kinds = [c.__name__ for c in type(module).__mro__ if c.__module__.startswith("torch.")]
        kind = next((kind for kind in kinds if kind in _WRAPPERS), "")
        if kind:
            raise PolicyError(
                f"{verb} got a {kind}{f' at {path!r}' * bool(path)}.",
                f"{_WRAPPERS[kind]}.",
                _again(verb, kind),
            )
        if getattr(module, "_compiled_call_impl", None) is not None:
            raise PolicyError(
                f"{verb} got a {type(module).__name__} after its compile().",
                "It runs what was compiled before.",
                f"Type {verb}(model{', policy' * (verb == 'attach')}) before that",
            )


def _refuse_outer(model: nn.Module) -> None:
    """Refuse what has a network of this zoo inside, which declares its sites itself."""
    for path, module in model.named_modules():
        if isinstance(module, Classifier):
            raise PolicyError(
                f"attach got a {type(model).__name__}.",
                f"It has a {type(module).__name__} of this zoo inside, at {path!r}.",
                f"Type attach(model.get_submodule({path!r}), policy)",
            )


def _again(verb: str, kind: str) -> str:
    """What to type instead."""
    call = f"{verb}({{}}{', policy' * (verb == 'attach')})"
    if kind in ("FSDPModule", "ScriptModule"):
        return f"Type {call.format('model')} before that"
    inner = "model._orig_mod" if kind == "OptimizedModule" else "model.module"
    return f"Type {call.format(inner)}, then make the {kind} anew"


def _tried(
    model: nn.Module, gates: Mapping[Site, nn.Module], sample: Tensor
) -> tuple[list[str], dict[Site, tuple[int, ...]]]:
    """Paths of gates that did not run as often as the modules where they sit; wrong inputs."""
    runs: dict[int, int] = {}

    sites = {id(gate): site for site, gate in gates.items()}
    misplaced: dict[Site, tuple[int, ...]] = {}

    def count(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        runs[id(module)] = runs.get(id(module), 0) + 1
        site = sites.get(id(module))
        if site is not None:
            shape = tuple(args[0].shape)
            if len(shape) != 4 or shape[1 if site.layout == "nchw" else 3] != site.channels:
                misplaced[site] = shape

    holders = {id(gate): holder for holder, _, gate in hooks.gates_in(model)}
    watched = {id(m): m for m in (*gates.values(), *holders.values())}
    handles = [module.register_forward_hook(count) for module in watched.values()]
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        with torch.no_grad():
            model(sample)
    finally:
        for module, training in modes:
            module.training = training
        for handle in handles:
            handle.remove()
    silent = []
    for site, gate in gates.items():
        holder = holders.get(id(gate))
        times = runs.get(id(gate), 0)
        if not times or (holder is not None and times != runs.get(id(holder), 0)):
            silent.append(site.path)
    return silent, misplaced
