"""Attach gates to a network, and detach them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from senetzoo.errors import PolicyError
from senetzoo.nn.backbone import Backbone
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.modes import evaluated
from senetzoo.nn.seeds import drawn_seed, seeded, site_seed
from senetzoo.nn.slots import Site, Slots
from senetzoo.policies.algebra import Policy, resolve
from senetzoo.policies.foreign import hooks
from senetzoo.policies.foreign.places import complete, known_map
from senetzoo.policies.foreign.sitemap import PREFIX, Place, SiteMap, Unsupported

# Why gates can't be attached to wrapped networks, and what to type instead. By class name, because
# some of these classes don't exist in every version of torch.
_BEFORE = "Type {}(model{}) first"
_ANEW = "Type {}(model.module{}), then create a new {}"
_WRAPPERS = {
    "DistributedDataParallel": (
        "It synchronizes only the parameters that it was created with.",
        _ANEW,
    ),
    "DataParallel": ("It copies its network to several devices for each batch.", _ANEW),
    "FullyShardedDataParallel": ("It has sharded the parameters of its network.", _ANEW),
    "FSDPModule": ("Its parameters have been sharded.", _BEFORE),
    "OptimizedModule": (
        "It runs code that was compiled before.",
        _ANEW.replace("model.module", "model._orig_mod"),
    ),
    "ScriptModule": ("Its forward pass is fixed.", _BEFORE),
}

# Arguments after the network in what to type.
_WITH = {"attach": ", policy", "explain": "", "detach": "", "propose": ", example_input"}

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Attached(dict[Site, nn.Module]):
    """The gates that `attach` added, by site.

    Args:
        model: The network.
        gates: The new gates by site.
        unsupported: What the policy asked for but the network doesn't support, with the reason.
    """

    def __init__(
        self,
        model: nn.Module,
        gates: Mapping[Site, nn.Module],
        unsupported: tuple[Unsupported, ...] = (),
    ) -> None:
        super().__init__(gates)
        self.model = model
        self.unsupported = unsupported

    def gate_parameters(self) -> list[nn.Parameter]:
        """The parameters of all gates of the network, including those attached earlier."""
        gates = [gate for _, _, gate in hooks.gates_in(self.model)]
        gates += [m for m in self.model.modules() if isinstance(m, Slots)]
        known = {parameter for gate in gates for parameter in gate.parameters()}
        return [p for p in self.model.parameters() if p in known]

    def parameters(self, weight_decay: float | None = None) -> list[dict[str, Any]]:
        """Two parameter groups, to pass to an optimizer instead of ``model.parameters()``.

        The first is the trunk, the second the gates without weight decay, which would pull them
        away from their initial values.

        Args:
            weight_decay: Weight decay of the trunk; None for the optimizer's default.
        """
        gates = self.gate_parameters()
        known = set(gates)
        trunk = [p for p in self.model.parameters() if p not in known]
        decay = {} if weight_decay is None else {"weight_decay": weight_decay}
        return [{"params": trunk, **decay}, {"params": gates, "weight_decay": 0.0}]

    def check(self, sample: Tensor) -> None:
        """Run `sample` through the network once, in eval mode, and check that every gate runs.

        Args:
            sample: Input of the network.

        Raises:
            PolicyError: A gate didn't run, or not as often as the module it is attached to, or got
                a tensor that doesn't fit its site.
        """
        network = evaluated(self.model)
        twins = dict(zip(self.model.modules(), network.modules(), strict=True))
        runs: Counter[nn.Module] = Counter()
        sites = {twins[gate]: site for site, gate in self.items() if gate in twins}
        misplaced: dict[Site, tuple[int, ...]] = {}

        def count(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            runs[module] += 1
            if module in sites:
                site, shape = sites[module], tuple(args[0].shape)
                if len(shape) != 4 or shape[1 if site.layout == "nchw" else 3] != site.channels:
                    misplaced[site] = shape

        holders = {gate: holder for holder, _, gate in hooks.gates_in(network)}
        for module in {*sites, *holders.values()}:
            module.register_forward_hook(count)
        with torch.no_grad():
            network(sample)
        acting = {sites[gate] for gate in sites if runs[gate] == runs[holders.get(gate, gate)] > 0}
        silent = [site.path for site in self if site not in acting]
        if silent:
            shown = ", ".join(silent[:3]) + (", ..." if len(silent) > 3 else "")
            raise PolicyError(
                f"{len(silent)} of {len(self)} gates have no effect: {shown}.",
                "The network doesn't call their modules, or calls them in a loop over all "
                "children.",
                "Leave them out of the SiteMap",
            )
        for site, shape in misplaced.items():
            raise PolicyError(
                f"The gate at {site.path} got a tensor of shape {shape}.",
                f"Its place in the SiteMap has {site.channels} channels in the layout "
                f"{site.layout}.",
                "Set channels= and layout= of the place, or leave it out",
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
    verb: str = "attach",
) -> Attached:
    """`senetzoo.attach`, with a name of the network for messages, by default its class.

    They also name the function that was called, `verb`.
    """
    check_unwrapped(model, verb)
    name = name or type(model).__name__
    if seed is None:
        seed = drawn_seed()
    unsupported: tuple[Unsupported, ...] = ()
    known: SiteMap | None = None
    spots: Mapping[Site, Slots | Place]
    if isinstance(model, Classifier):
        if sites is not None:
            raise PolicyError(
                f"{verb} got a SiteMap for a {type(model).__name__} of this zoo.",
                "Networks of this zoo declare their own sites.",
                "Leave out sites",
            )
        spots = dict(model.slots())
        model.uncalibrate()
    elif not list(policy.rules()):
        # Without rules, the network doesn't have to be a known one.
        return Attached(model, {})
    else:
        known = places(model, sites, name, verb)
        spots = known.sites()
        unsupported = _unsupported(policy, known, spots, name)
    gates: dict[Site, nn.Module] = {}
    for site, gate in resolve(policy, spots, name).items():
        spot = spots[site]
        like = _like(model, spot)
        with seeded(site_seed(seed, site.path), like.device):
            gates[site] = gate.build(site).to(device=like.device, dtype=like.dtype)
        if isinstance(spot, Place):
            hooks.check_free(model, spot)
    held = dict(model.named_modules(remove_duplicate=False)) if sample is not None else {}
    for site, module in gates.items():
        _put(model, spots[site], site, module.train(model.training))
    attached = Attached(model, gates, unsupported)
    if sample is not None:
        try:
            attached.check(sample)
        except BaseException:
            for site in gates:
                _put(model, spots[site], site, held.get(site.path))
            raise
    if known is not None:
        hooks.remember(model, known)
    return attached


def places(model: nn.Module, sites: SiteMap | None, name: str, verb: str) -> SiteMap:
    """The places of a network that isn't from this zoo.

    Without `sites`, those that the tables know, or else those of gates that it has.
    """
    check_no_backbone(model, verb)
    for path, module in model.named_modules() if sites is None else ():
        if isinstance(module, Classifier):
            raise PolicyError(
                f"{verb} got a {type(model).__name__}.",
                f"It contains a {type(module).__name__} of this zoo at {path!r}.",
                f"Type {verb}(model.get_submodule({path!r}){_WITH[verb]})",
            )
    if sites is None:
        try:
            sites = known_map(model, verb)
        except PolicyError:
            sites = hooks.remembered(model)
            if sites is None:
                check_no_gate_elsewhere(model, (), verb)
                raise
    known = complete(sites, model, verb)
    if not known.places:
        raise PolicyError(
            f"{verb} got a SiteMap without places for a {name}.",
            f"Unsupported: {known.unsupported[0]}." if known.unsupported else "It is empty.",
            "If a module gives maps of images, name it, for example: "
            'SiteMap((Place("layer1.conv", channels=64),))',
        )
    return known


def check_no_backbone(model: nn.Module, verb: str) -> None:
    """Raise if `model` is a `Backbone`."""
    if isinstance(model, Backbone):
        raise PolicyError(
            f"{verb} got a Backbone.",
            "It only shares modules with the network that it was made of.",
            "Explain that network"
            if verb == "explain"
            else "Attach the gates to that network first, then: Backbone(network)",
        )


def check_no_gate_elsewhere(model: nn.Module, paths: Iterable[str], verb: str) -> None:
    """Raise if `model` has a gate that isn't at one of `paths`."""
    path = hooks.elsewhere(model, paths)
    if path:
        module, _, key = path.rpartition(".")
        place = f"Place({module!r}, {key.removeprefix(PREFIX)!r})"
        raise PolicyError(
            f"{verb} found a gate at {path!r}, which is at no known place.",
            "Modules were moved or renamed after it was attached, or its place isn't in sites.",
            f"Say where gates sit, for example: {verb}(model{_WITH[verb]}, "
            f"sites=SiteMap(({place},)))",
        )


def _put(model: nn.Module, spot: Slots | Place, site: Site, gate: nn.Module | None) -> None:
    """Put `gate` into the spot; None empties it."""
    if isinstance(spot, Slots) and gate is None:
        spot.clear(site.position)
    elif isinstance(spot, Slots):
        spot.put(site.position, gate)  # type: ignore[arg-type]
    elif gate is None:
        hooks.remove_all(model, model.get_submodule(site.path))
    else:
        hooks.put(model, spot, gate)


def _unsupported(
    policy: Policy, known: SiteMap, places: Iterable[Site], name: str
) -> tuple[Unsupported, ...]:
    """The unsupported positions that the rules ask for; raises if a rule matches nothing else."""
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
            f"{rule} isn't supported in {name}.",
            f"At {lacking[0].module or 'the network'}, {lacking[0].reason}; {where}.",
            f"Type for example: @{there[-1]}" if there else "",
        )
    return tuple(found)


def _like(model: nn.Module, spot: Slots | Place) -> Tensor:
    """A weight near the spot, with the device and dtype for its gate."""
    path = "" if isinstance(spot, Slots) else spot.module
    while True:
        module = model.get_submodule(path)
        for tensor in itertools.chain(module.parameters(), module.buffers()):
            if tensor.is_floating_point():
                return tensor
        if not path:
            return torch.empty(0, device="cpu")
        path = path.rpartition(".")[0]


def check_unwrapped(model: nn.Module, verb: str) -> None:
    """Raise if `model` isn't a network, or is wrapped or compiled."""
    policy = _WITH[verb]
    if not isinstance(model, nn.Module):
        raise PolicyError(
            f"{verb} got a {type(model).__name__}.",
            "It takes a network, a torch.nn.Module.",
            "Type for example: propose(model, example_input)"
            if verb == "propose"
            else f'Type for example: {verb}(create("resnet50"){", SE()" if policy else ""})',
        )
    for path, module in model.named_modules():
        kinds = [c.__name__ for c in type(module).__mro__ if c.__module__.startswith("torch.")]
        for kind in kinds:
            if kind in _WRAPPERS:
                reason, remedy = _WRAPPERS[kind]
                at = f" at {path!r}" if path else ""
                raise PolicyError(
                    f"{verb} got a {kind}{at}.", reason, remedy.format(verb, policy, kind)
                )
        if getattr(module, "_compiled_call_impl", None) is not None:
            raise PolicyError(
                f"{verb} got a {type(module).__name__} after its compile().",
                "It runs code that was compiled before.",
                _BEFORE.format(verb, policy),
            )


def detach(model: ModuleT) -> ModuleT:
    """Remove all gates from a network, in place.

    This restores the trunk's original modules, hooks and flags, even if the network was copied,
    saved or trained in between; parameters and buffers of the trunk keep their values. No other
    thread may use the network at the same time.

    Args:
        model: A network with attached gates, or one of this zoo.

    Returns:
        The network.

    Raises:
        PolicyError: The network is wrapped; it isn't changed.
    """
    check_unwrapped(model, "detach")
    hooks.remove_all(model)
    if isinstance(model, Classifier):
        model.uncalibrate()
    for module in model.modules():
        if isinstance(module, Slots):
            for position in module.channels:
                module.clear(position)
    return model
