"""Putting gates into a network, and taking them out."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from senetzoo.errors import PolicyError
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.modes import evaluating
from senetzoo.nn.seeds import drawn_seed, seeded, site_seed
from senetzoo.nn.slots import Site, Slots
from senetzoo.policies.algebra import Policy, resolve
from senetzoo.policies.foreign import hooks
from senetzoo.policies.foreign.places import complete, site_map
from senetzoo.policies.foreign.sitemap import Place, SiteMap, Unsupported
from senetzoo.policies.wrapped import check_foreign, check_unwrapped

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Attached(Mapping[Site, nn.Module]):
    """What `attach` added: the new gates by site.

    Args:
        model: The network.
        gates: The new gates by site.
        unsupported: What the policy asked for and the network does not offer, with the reason.
    """

    def __init__(
        self,
        model: nn.Module,
        gates: Mapping[Site, nn.Module],
        unsupported: tuple[Unsupported, ...] = (),
    ) -> None:
        self.model = model
        self.unsupported = unsupported
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
            PolicyError: A gate that did not run, or not as often as the module where it sits, or
                that got another map than its site says.
        """
        runs: Counter[int] = Counter()
        sites = {id(gate): site for site, gate in self.items()}
        misplaced: dict[Site, tuple[int, ...]] = {}

        def count(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            runs[id(module)] += 1
            site = sites.get(id(module))
            if site is not None:
                shape = tuple(args[0].shape)
                if len(shape) != 4 or shape[1 if site.layout == "nchw" else 3] != site.channels:
                    misplaced[site] = shape

        holders = {id(gate): holder for holder, _, gate in hooks.gates_in(self.model)}
        watched = {id(m): m for m in (*self.values(), *holders.values())}
        handles = [module.register_forward_hook(count) for module in watched.values()]
        try:
            with evaluating(self.model), torch.no_grad():
                self.model(sample)
        finally:
            for handle in handles:
                handle.remove()
        silent = [
            site.path
            for site, gate in self.items()
            if not runs[id(gate)] or runs[id(gate)] != runs[id(holders.get(id(gate), gate))]
        ]
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
        seed: Seed of the gates' initialization; None draws one from torch's global state.
        sample: An input to try the gates on.
        name: What messages call the network; None for its class.

    Returns:
        The new gates by site.

    Raises:
        PolicyError: The policy does not fit the network; nothing is changed then.
    """
    check_unwrapped(model, "attach")
    name = name or type(model).__name__
    if seed is None:
        seed = drawn_seed()
    unsupported: tuple[Unsupported, ...] = ()
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
            check_foreign(model)
        known = complete(site_map(model) if sites is None else sites, model)
        if not known.places:
            raise PolicyError(
                f"attach got a SiteMap without places for a {name}.",
                f"Of {known.unsupported[0]}." if known.unsupported else "It names no module.",
                'Type for example: SiteMap((Place("layer1.conv", channels=64),))',
            )
        spots = dict(known.sites())
        unsupported = _unsupported(policy, known, spots, name)
    gates: dict[Site, nn.Module] = {}
    for site, gate in resolve(policy, spots, name).items():
        like = _like(model, spots[site])
        with seeded(site_seed(seed, site.path), like.device):
            gates[site] = gate.build(site).to(device=like.device, dtype=like.dtype)
        _check_free(model, spots[site])
    before = {site: _held(model, spots[site], site) for site in gates}
    for site, module in gates.items():
        _put(model, spots[site], site, module.train(model.training))
    attached = Attached(model, gates, unsupported)
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
    held: nn.Module | None = model
    for part in site.path.split("."):
        held = None if held is None else held._modules.get(part)
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


def _unsupported(
    policy: Policy, known: SiteMap, places: Mapping[Site, object], name: str
) -> tuple[Unsupported, ...]:
    """What the rules ask for in vain; an error where a rule gets nothing else.

    Raises:
        PolicyError: The reason why the network has no such place.
    """
    sizes = known.sizes()
    found: dict[Unsupported, None] = {}
    for rule in policy.rules():
        lacking = [u for u in known.unsupported if u.asked(rule.position, rule.selector, sizes)]
        found |= dict.fromkeys(lacking)
        if not lacking or rule.resolve(places):
            continue
        there = list(dict.fromkeys(site.position for site in places if rule.selector.matches(site)))
        where = f"there it has {', '.join(there)}" if there else "it has no other position there"
        raise PolicyError(
            f"{rule} can't be had in {name}.",
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


def detach(model: ModuleT) -> ModuleT:
    """Take every gate out of a network, in place.

    What is left is the bare trunk, bit for bit: modules, parameters, buffers, hooks and flags are
    those from before, also where the network has been copied, saved or trained in between.

    Args:
        model: A network that gates have been attached to, or one of this zoo.

    Returns:
        The network.

    Raises:
        PolicyError: It is wrapped; nothing is changed then.
    """
    check_unwrapped(model, "detach")
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
