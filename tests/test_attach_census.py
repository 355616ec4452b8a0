"""Every network of torchvision, timm and pytorchcv: which take gates, and which are refused.

Of torchvision, its segmenters and detectors too.

They are built on the meta device: what returns bit for bit is shown by the identity of every
module, hook and tensor, and by the tensors' version counters, which count writes to them.

SENETZOO_RECORDS=FOLDER keeps the outcome of each network, in census.jsonl.
"""

from __future__ import annotations

import gc
import importlib.metadata
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest
import torch
from support.foreign import everywhere, traces
from support.networks import keep_record
from support.parity import regnet_widths_on_cpu
from torch import nn

from senetzoo import ECA, attach, detach, site_map
from senetzoo.errors import PolicyError

Network = tuple[str, Callable[[], nn.Module]]


def of_torchvision() -> Iterator[Network]:
    from torchvision import models

    def build(name: str) -> nn.Module:
        bodies = {} if name in plain else {"weights_backbone": None}
        with regnet_widths_on_cpu():
            model: nn.Module = models.get_model(name, weights=None, **bodies)
        return model

    plain = models.list_models(module=models)
    dense = [models.list_models(module=m) for m in (models.segmentation, models.detection)]
    return ((name, partial(build, name)) for name in [*plain, *itertools.chain(*dense)])


def of_timm() -> Iterator[Network]:
    import timm

    return ((name, partial(timm.create_model, name)) for name in timm.list_models())


def of_pytorchcv() -> Iterator[Network]:
    from pytorchcv import model_provider

    starts = ("resne", "seresne", "senet", "vgg1", "mobilenetv2")
    names = (name for name in model_provider._models if name.startswith(starts))
    return ((name, partial(model_provider.get_model, name)) for name in names)


NETWORKS = {"torchvision": of_torchvision, "timm": of_timm, "pytorchcv": of_pytorchcv}


def side_of(model: nn.Module) -> int:
    if type(model).__name__ == "Inception3":
        return 299
    given = getattr(model, "default_cfg", {}).get("input_size") or getattr(model, "in_size", None)
    return int(given[-1]) if given else 224


def attached_and_detached(model: nn.Module) -> int:
    """Number of gates, after checking that each runs once on its channels and can be removed."""
    model.eval()
    before = traces(model)
    sites = site_map(model)
    gates = attach(model, everywhere(ECA(), sites), seed=0)
    channels = next(m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    images = torch.empty(1, channels, side_of(model), side_of(model), device="meta")
    failed = False
    with torch.device("meta"):
        try:
            gates.check(images)
        except PolicyError:
            raise AssertionError(f"gates of {type(model).__name__} do not act") from None
        except Exception:  # not ours if the bare network fails as well
            failed = True
    detach(model)
    assert traces(model) == before
    if failed:
        with pytest.raises(Exception), torch.device("meta"), torch.no_grad():  # noqa: B017, PT011
            model(images)
    return len(gates)


def census(library: str, only: Sequence[str] = ()) -> tuple[dict[str, int], dict[str, str]]:
    """Number of gates by network of `library`, and the reason by refused network."""
    taken: dict[str, int] = {}
    refused: dict[str, str] = {}
    for name, build in NETWORKS[library]():
        if only and name not in only:
            continue
        try:
            with torch.device("meta"):
                model = build()
        except Exception as error:  # not ours: some can't be built without memory or files
            refused[name] = f"not built: {type(error).__name__}"
            continue
        try:
            taken[name] = attached_and_detached(model)
        except PolicyError as error:
            refused[name] = str(error).splitlines()[1]
        del model
        gc.collect()
    for name in sorted([*taken, *refused]):
        outcome = {"gates": taken[name]} if name in taken else {"refused": refused[name]}
        version = importlib.metadata.version(library)
        line = {"library": library, "version": version, "network": name, **outcome}
        keep_record("census", line)
    print(len(taken), sum(taken.values()), Counter(refused.values()), sorted(refused))
    return taken, refused


UNKNOWN = "None of its blocks is known"


@pytest.mark.slow
def test_torchvision() -> None:
    taken, refused = census("torchvision")
    assert {name.split("_")[0] for name in refused} == {"maxvit", "ssd300", "vit"}
    assert all(reason.startswith(UNKNOWN) for reason in refused.values())
    assert len(taken) == 91


@pytest.mark.slow
def test_timm() -> None:
    taken, refused = census("timm")
    # MixNet's gates are inside a plain sequence of blocks.
    known = (UNKNOWN, "not built", "It runs its children one after the other")
    assert all(reason.startswith(known) for reason in refused.values())
    for start in ("resnet1", "resnet50", "seresnet", "vgg", "densenet", "inception_v", "swin_"):
        assert any(name.startswith(start) for name in taken), start
    assert len(taken) == 545


@pytest.mark.slow
def test_pytorchcv() -> None:
    taken, refused = census("pytorchcv")
    plain = ("resnet1", "resnet2", "resnet3", "resnet5", "resnext", "seresnet", "seresnext")
    assert all(name in taken for name in [*taken, *refused] if name.startswith(plain))


@pytest.mark.parametrize(
    ("library", "names"),
    [
        ("torchvision", ["fcn_resnet50", "mobilenet_v3_large", "regnet_y_400mf", "vit_b_32"]),
        ("timm", ["convnext_atto", "regnety_002", "resnet10t", "vit_tiny_patch16_224"]),
        ("pytorchcv", ["resnet20_cifar10", "seresnet18", "vgg11"]),
    ],
)
def test_a_few_of_each(library: str, names: list[str]) -> None:
    taken, refused = census(library, names)
    assert sorted(taken) == names[:-1]
    assert list(refused) == names[-1:]
    assert refused[names[-1]].startswith(UNKNOWN)
