"""Dialects: tables against the libraries' own networks, both ways, and what they compute."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.networks import calibrate_on_next_batch, on_meta, randomize, relative_error
from support.parity import TOLERANCE, from_library, numbered, numbers, ours, skeleton_of
from torch import nn

from senetzoo import SE, config, create
from senetzoo.errors import WeightsError
from senetzoo.nn.classifier import Classifier
from senetzoo.registry import ENTRIES
from senetzoo.weights import dialects
from senetzoo.weights.dialects import Counterpart, counterpart, counterparts

LIBRARIES = [dialect for dialect in dialects.DIALECTS if dialect != dialects.OURS]

# Networks that stand for the others of their kind; those run with --slow.
QUICK = {
    "torchvision": "alexnet vgg11_bn googlenet inception_v3 resnet18 resnext50_32x4d densenet121 "
    "efficientnet_b0 efficientnet_v2_s squeezenet1_1 shufflenet_v2_x0_5 mnasnet0_5 mobilenet_v2 "
    "mobilenet_v3_large mobilenet_v3_small regnet_x_400mf regnet_y_400mf swin_t convnext_tiny",
    "timm": "vgg11_bn repvgg_a0 inception_v4 legacy_xception resnet50c seresnet18 skresnet18 "
    "resnest50d resnetv2_18 densenet121 mobilenetv1_125 mobilenetv2_050 mobilenetv3_large_100 "
    "mobilenetv3_small_100 mnasnet_050 ghostnet_100 efficientnet_b0 regnetx_004_tv regnety_004 "
    "swin_tiny_patch4_window7_224 convnext_tiny",
    "timm_legacy": "legacy_seresnet50 legacy_seresnext26_32x4d",
    "pytorchcv": "alexnetb bn_vgg11b bninception inceptionv3 inceptionresnetv1 resnet18 "
    "resnetbc14b cbam_resnet18 sepreresnet18 seresnext50_32x4d densenet121 mobilenet_wd4 "
    "efficientnet_b0 regnety004 squeezenet_v1_1 xception resnet20_cifar100 seresnet20_cifar10 "
    "preresnet20_svhn sepreresnet20_cifar10 wrn16_10_cifar10 densenet40_k12_cifar10",
}


def every_network(quick: dict[str, str], others: tuple[str, ...] = ()) -> list[Any]:
    """Networks by dialect and name, but for names with one of `others` at their end."""
    return [
        pytest.param(dialect, name, marks=[] if name in chosen else [pytest.mark.slow])
        for dialect, chosen in ((dialect, quick.get(dialect, "").split()) for dialect in QUICK)
        for name in counterparts(dialect)
        if not name.endswith(others)
    ]


# --- Bijections ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("dialect", "name"), every_network(QUICK))
def test_names_and_shapes_are_those_that_the_library_builds(dialect: str, name: str) -> None:
    other = counterpart(dialect, name)
    model = skeleton_of(other)
    y = numbered(on_meta(lambda: from_library(dialect, name)).state_dict())
    x = dialects.read(y, dialect, model)
    own = model.state_dict()
    assert {key: tensor.shape for key, tensor in x.items()} == {k: v.shape for k, v in own.items()}
    heads = ("AuxLogits.", "aux1.", "aux2.")
    kept = {key: tensor for key, tensor in y.items() if not key.startswith(heads)}
    assert numbers(dialects.write(x, dialect, model)) == numbers(kept)


# The others' tables are bijections where the library builds what it reads and writes.
@pytest.mark.parametrize(
    ("dialect", "name"),
    [
        ("timm", "swin_tiny_patch4_window7_224"),
        ("timm", "seresnet18"),
        *(("chenyaofo", name) for name in counterparts("chenyaofo")),
    ],
)
def test_reading_undoes_writing(dialect: str, name: str) -> None:
    model = skeleton_of(counterpart(dialect, name))
    x = numbered(model.state_dict())
    again = dialects.read(dialects.write(x, dialect, model), dialect, model)
    # timm's files have no index of windows: it is the network's.
    computed = {key for key, tensor in again.items() if tensor.is_meta}
    assert all(key.endswith("relative_position_index") for key in computed)
    assert bool(computed) == (dialect == "timm" and name.startswith("swin"))
    assert list(again) == list(x)
    kept = [key for key in x if key not in computed]
    assert numbers({k: again[k] for k in kept}) == numbers({k: x[k] for k in kept})


def test_every_network_that_torchvision_has() -> None:
    from torchvision import models

    here = {name for name in models.list_models(module=models) if name in ENTRIES}
    assert here <= set(counterparts("torchvision"))
    assert len(counterparts("torchvision")) == 68


def test_every_counterpart_is_in_the_registry() -> None:
    for dialect in LIBRARIES:
        for name, other in counterparts(dialect).items():
            assert other.model in ENTRIES, name
            known = type(ENTRIES[other.model].config).__dataclass_fields__
            assert set(other.changes) <= set(known), name


def test_our_own_names() -> None:
    model = create("se_resnet20", seed=0)
    state = model.state_dict()
    for function in (dialects.read, dialects.write):
        again = function(state, "senetzoo", model)
        assert list(again) == list(state)
        assert all(torch.equal(again[key], state[key]) for key in state)


# --- Functions -----------------------------------------------------------------------------------

# tests/test_parity_*.py compare each kind closely; here is every name, in eval mode.
QUICK_FUNCTIONS = {
    "timm": "mobilenetv1_125 resnet50c",
    "timm_legacy": "legacy_seresnext26_32x4d",
    "pytorchcv": "mobilenet_wd4 efficientnet_b0 inceptionv3 seresnet18 preresnet18 cbam_resnet18 "
    "regnety004 squeezenet_v1_1 xception sepreresnet20_cifar10",
}


def size_of(name: str, model: Classifier) -> int:
    """Side of an image that both libraries take, and where the two forms of a pool differ."""
    family, size = model.family, model.input_size
    if family == "Swin":
        return 384 if name.endswith("384") else 224
    if family in ("VGG", "AlexNet") or size == 32:
        return size
    return 75 if size == 299 else 64 if family == "BNInception" else 65


# Those for other data sets differ in the head alone.
@pytest.mark.parametrize(
    ("dialect", "name"), every_network(QUICK_FUNCTIONS, ("_cifar100", "_svhn"))
)
def test_it_computes_the_same(dialect: str, name: str) -> None:
    other = counterpart(dialect, name)
    reference: Any = on_meta(lambda: from_library(dialect, name))
    model = skeleton_of(other)
    if model.family == "Swin":
        # Its index has to keep its values.
        reference, model = from_library(dialect, name), ours(other)
    else:
        reference = reference.to_empty(device="cpu")
        model = model.to_empty(device="cpu")
    for path in ("features.final_pool", "features.final_block.pool", "output.final_pool"):
        if path in dict(reference.named_modules()):
            # Of pytorchcv, for one size of image.
            reference.set_submodule(path, nn.AdaptiveAvgPool2d(1))
    if hasattr(reference, "AuxLogits"):
        # It takes larger images.
        reference.AuxLogits = None
    reference, model = reference.double(), model.double().eval()
    randomize(reference)
    side = size_of(name, model)
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1)).double()
    with torch.no_grad():
        if any(isinstance(module, nn.BatchNorm2d) for module in reference.modules()):
            calibrate_on_next_batch(reference)
            reference.train()(x)
        model.load_state_dict(dialects.read(reference.state_dict(), dialect, model))
        output, expected = model(x), reference.eval()(x)
    assert output.std().item() > 1e-3
    assert relative_error(output, expected) < TOLERANCE


# --- Errors --------------------------------------------------------------------------------------


def message(function: Any, *args: Any) -> str:
    with pytest.raises(WeightsError) as caught:
        function(*args)
    return str(caught.value)


def test_unknown_dialects_and_networks() -> None:
    known = (
        "Dialects are torchvision, timm, timm_legacy, pytorchcv, chenyaofo, kuangliu, weiaicunzai."
    )
    assert message(counterparts, "tim") == (
        f"There is no dialect 'tim'.\n{known}\nDid you mean 'timm'?"
    )
    assert message(counterparts, "senetzoo") == f"senetzoo's names are our own.\n{known}"
    assert message(counterpart, "timm_legacy", "seresnet50") == (
        "No network of senetzoo is timm_legacy's 'seresnet50'.\n"
        "There are counterparts of 7 of its networks, such as legacy_seresnet50.\n"
        "Did you mean 'legacy_seresnet50'?"
    )
    assert message(counterpart, "chenyaofo", "repvgg") == (
        "No network of senetzoo is chenyaofo's 'repvgg'.\n"
        "There are counterparts of 8 of its networks, such as cifar10_resnet20."
    )


def test_networks_and_gates_that_a_library_has_not() -> None:
    lenet, gated = skeleton_of(Counterpart("lenet5")), skeleton_of(Counterpart("se_resnet20"))
    assert message(dialects.names, "timm_legacy", lenet) == (
        "timm_legacy has no names for a LeNet.\n"
        "It has them for ResNet, SENet.\n"
        "Choose another dialect"
    )
    assert message(dialects.write, gated.state_dict(), "torchvision", gated) == (
        "torchvision has no name for layer1.0.slots.standard.fc1.weight.\n"
        "Its ResNet has no such tensor.\n"
        "Choose another dialect, or build the network without it"
    )
    for network, dialect in (
        ("se_swin_t", "timm"),
        ("se_swin_t", "torchvision"),
        ("resnet18+scse", "pytorchcv"),  # its CBAM has the same layers and another one
        ("se_vgg11", "timm"),
        ("se_vgg11", "pytorchcv"),
        ("se_inception_v4", "pytorchcv"),
        ("se_densenet121", "timm"),
    ):
        with pytest.raises(WeightsError, match=r"has no name for .*slots"):
            dialects.names(dialect, skeleton_of(Counterpart(network)))
    # A gate at another place than the library's has no name there.
    moved = config("resnet20").replace(policy=SE().at("pre"))
    for dialect in ("timm", "timm_legacy", "pytorchcv"):
        with pytest.raises(WeightsError, match=r"has no name for .*slots\.pre"):
            dialects.names(dialect, moved.build(seed=0))
    # Nor has a stem's norm in timm's pre-activation networks.
    with pytest.raises(WeightsError, match=r"timm has no name for bn1\.weight"):
        dialects.names("timm", skeleton_of(Counterpart("preresnet20", {"stem_norm": True})))


def test_tensors_that_do_not_fit() -> None:
    model = create("resnet20", seed=0)
    state = dict(model.state_dict())
    tail = "Build the network with the config, policy and num_classes of the weights"
    whole = dialects.write(state, "pytorchcv", model)
    del whole["output.bias"]
    whole["output.weight"] = torch.zeros(5, 64)
    whole["output.extra"] = torch.zeros(1)
    assert message(dialects.read, whole, "pytorchcv", model) == (
        "The tensors are not those of the network by the names of pytorchcv.\n"
        "output.bias is missing; output.extra is not in the network; "
        f"output.weight is (5, 64), not (10, 64).\n{tail}"
    )
    del state["conv1.weight"], state["bn1.weight"], state["bn1.bias"], state["fc.bias"]
    assert message(dialects.write, state, "pytorchcv", model) == (
        "The tensors are not those of the network by the names of senetzoo.\n"
        f"conv1.weight is missing; bn1.weight is missing; bn1.bias is missing (and 1 more).\n{tail}"
    )


def test_an_index_of_other_windows_is_refused() -> None:
    model = config("swin_t").replace(depths=(1, 1, 1, 1)).build(seed=0)
    state = dialects.write(model.state_dict(), "torchvision", model)
    key = "features.1.0.attn.relative_position_index"
    state[key] = state[key].flip(0)
    assert message(dialects.read, state, "torchvision", model) == (
        f"The windows of {key} are not the network's.\n"
        "It has 2401 relative positions, in another order.\n"
        "Build the network with the window of the weights"
    )
    assert message(dialects.names, "pytorchcv", model).startswith(
        "pytorchcv has no names for a Swin.\n"
    )
