"""The child ``features`` of networks that torchvision builds in two parts, and `feature_maps`."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from support.networks import images, randomize, relative_error
from support.parity import from_library
from torch import nn

from senetzoo import NONE, SE, attach, config
from senetzoo.nn.classifier import Classifier

NAMES = ["alexnet", "vgg11_bn", "densenet121", "efficientnet_b0", "swin_t"]


def ours(name: str) -> Classifier:
    """The network with random weights and, where it has hidden linear layers, narrow ones."""
    narrow = {"hidden": 8} if name in ("alexnet", "vgg11_bn") else {}
    model = config(name).replace(policy=NONE, **narrow).build(seed=0)
    randomize(model, 0)
    return model.eval()


def theirs(name: str, features: nn.Module) -> nn.Sequential:
    """torchvision's, strictly loaded with the same weights. EfficientNet's go without their SE."""
    with torch.device("meta"):
        found = from_library("torchvision", name).get_submodule("features")
    for module in list(found.modules()):
        for child_name, child in module.named_children():
            if type(child).__name__ == "SqueezeExcitation":
                setattr(module, child_name, nn.Identity())
    found.to_empty(device="cpu").load_state_dict(features.state_dict())
    assert isinstance(found, nn.Sequential)
    return found.eval()


def pickled(module: nn.Module) -> bytes:
    file = io.BytesIO()
    torch.save(module, file)
    return file.getvalue()


@pytest.mark.parametrize("name", NAMES)
def test_features_are_torchvisions(name: str) -> None:
    model = ours(name)
    features = model.get_submodule("features")
    assert type(features) is nn.Sequential
    reference = theirs(name, features)
    assert [key for key, _ in features.named_children()] == [
        key for key, _ in reference.named_children()
    ]
    with torch.no_grad():
        for end in (1, 2, 4, 10, len(reference)):
            expected = reference[:end](images(1, 3, 64, 64).float())
            assert relative_error(features[:end](images(1, 3, 64, 64).float()), expected) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_features_stand_alone(name: str) -> None:
    model = ours(name)
    features = model.get_submodule("features")
    held = sum(t.numel() * t.element_size() for t in features.state_dict().values())
    stored = pickled(features)
    # The names and classes of the modules are on top, some hundred bytes each.
    assert held < len(stored) < held + 2000 * len(list(features.modules()))
    again = torch.load(io.BytesIO(stored), weights_only=False)
    twin = copy.deepcopy(features)
    with torch.no_grad():
        expected = features(images(1, 3, 64, 64).float())
        for other in (again, twin):
            assert torch.equal(other(images(1, 3, 64, 64).float()), expected)
        for parameter in twin.parameters():
            parameter.zero_()
        assert torch.equal(features(images(1, 3, 64, 64).float()), expected)


@pytest.mark.parametrize("name", NAMES)
def test_surgery_on_children_changes_the_network(name: str) -> None:
    model = ours(name)
    with torch.no_grad():
        before = model(images(1, 3, 64, 64).float())
        model.get_submodule("features").register_module("0", nn.Conv2d(3, 7, 1))
        with pytest.raises(RuntimeError):
            model(images(1, 3, 64, 64).float())
    assert before.shape == (1, 1000)


def test_gates_are_not_in_the_features_of_vgg_and_alexnet() -> None:
    """Their slots are beside ``features``, whose numbers are torchvision's."""
    model = ours("alexnet")
    with torch.no_grad():
        bare, maps = (
            model.get_submodule("features")(images(1, 3, 64, 64).float()),
            model.feature_maps(images(1, 3, 64, 64).float()),
        )
        assert torch.equal(maps[-1], bare)
        attach(model, SE(), seed=0)
        assert torch.equal(model.get_submodule("features")(images(1, 3, 64, 64).float()), bare)
        assert not torch.allclose(model.feature_maps(images(1, 3, 64, 64).float())[-1], bare)
