"""Networks that gates can't be put into as they are."""

from __future__ import annotations

from torch import nn

from senetzoo.errors import PolicyError
from senetzoo.nn.classifier import Classifier

# Class of a wrapper by its name: none of them is imported, some do not exist everywhere.
_WRAPPERS = {
    "DistributedDataParallel": "It keeps in step only the parameters that it was made with",
    "DataParallel": "It copies the network inside to several devices for each batch",
    "FullyShardedDataParallel": "It has split the parameters of the network inside",
    "FSDPModule": "Its parameters have been split",
    "OptimizedModule": "It runs what was compiled before",
    "ScriptModule": "Its forward pass is fixed",
}


def check_unwrapped(model: nn.Module, verb: str) -> None:
    """Refuse what is no network, and a network that is wrapped or compiled.

    Args:
        model: The network.
        verb: What is to be done with it: ``"attach"`` or ``"detach"``.

    Raises:
        PolicyError: It is one of these.
    """
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


def check_foreign(model: nn.Module) -> None:
    """Refuse what has a network of this zoo inside, which declares its sites itself.

    Raises:
        PolicyError: It has.
    """
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
