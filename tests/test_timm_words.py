"""Code that was written for timm's networks runs on ours: beside timm's, on shared weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.networks import reduced
from torch import Tensor, nn

from senetzoo import create, export, load, predict, save
from senetzoo.errors import ConfigError


def embed(model: Any, x: Tensor) -> dict[str, Any]:
    """What a caller of timm does."""
    model.eval()
    features = model.forward_features(x)
    found = {
        "pre_logits": model.forward_head(features, pre_logits=True),
        "logits": model.forward_head(features),
        "classes": model.num_classes,
        "features": model.num_features,
        "head": tuple(model.get_classifier().weight.shape),
        "config": [model.pretrained_cfg[key] for key in ("first_conv", "classifier")],
    }
    model.reset_classifier(0)
    found |= {"embedding": model(x), "none": model.num_classes}
    model.reset_classifier(7)
    return found | {"again": model(x).shape, "seven": model.num_classes}


def test_a_program_says_the_same_of_both() -> None:
    import timm

    theirs = timm.create_model("resnet18", pretrained=False)
    ours = create("resnet18", seed=0)
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        a, b = (embed(model, torch.randn(2, 3, 64, 64).fill_(0.3)) for model in (ours, theirs))
    for key, value in a.items():
        if isinstance(value, Tensor):
            assert torch.allclose(value, b[key], rtol=1e-4, atol=1e-5), key
        else:
            assert value == b[key], key


def test_the_data_config_is_the_networks_own() -> None:
    from timm.data import config

    resolve: Any = config.resolve_model_data_config
    found = resolve(create("se_resnet20", pretrained=True))
    assert found["input_size"] == (3, 32, 32)
    assert found["mean"] == pytest.approx((0.4914, 0.4822, 0.4465), abs=0.02)
    assert found["crop_pct"] == 1.0
    assert resolve(create("lenet5", seed=0))["input_size"] == (1, 32, 32)
    assert resolve(create("resnet18", seed=0))["input_size"] == (3, 224, 224)
    assert "mean" not in create("resnet18", in_chans=5, seed=0).pretrained_cfg


@pytest.mark.parametrize("name", ["lenet", "vgg11", "mobilenet_v3_small", "inception_resnet_v1"])
def test_pre_logits_are_what_the_last_layer_takes(name: str) -> None:
    model = reduced(name).replace(stem="cifar", num_classes=5).build(seed=0).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        logits, features = model(x), model.forward_features(x)
        taken = model.forward_head(features, pre_logits=True)
        head = model.get_classifier()
        assert isinstance(head, nn.Linear)
        assert torch.allclose(head(taken), logits, rtol=1e-5, atol=1e-6)
        model.reset_classifier(0)
        assert torch.equal(model(x), taken)


def test_without_a_classifier(tmp_path: Path) -> None:
    model = create("se_resnet20", pretrained=True, num_classes=0)
    assert model.num_classes == 0
    assert model.classes == ()
    assert not [key for key in model.state_dict() if key.startswith("fc.")]
    whole = create("se_resnet20", pretrained=True)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(whole.fc(model(x)), whole(x))  # type: ignore[operator]
    by_hand = create("se_resnet20", pretrained=True)
    by_hand.fc = nn.Identity()
    for features in (model, by_hand):
        assert (features.num_classes, features.spec.config.num_classes) == (0, 0)
        save(features, tmp_path)
        again = load(tmp_path)
        assert again.spec == model.spec
        with torch.no_grad():
            assert torch.equal(again(x), model(x))
    with pytest.raises(ConfigError, match="features, not classes"):
        predict(again, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    assert load(tmp_path, num_classes=3).num_classes == 3
    with pytest.raises(ConfigError, match="features, not classes"):
        export(again, tmp_path / "net.onnx", with_preprocessing=True)
    by_hand.reset_classifier(0)
    with pytest.raises(ConfigError, match=r"Put one there yourself: model.fc"):
        by_hand.reset_classifier(3)
    model.reset_classifier(3)
    save(model, tmp_path)
    assert load(tmp_path).num_classes == 3


@pytest.mark.parametrize("name", ["googlenet", "vgg11", "regnet_y_400mf", "convnext_tiny"])
def test_a_config_without_classes(name: str) -> None:
    spec = reduced(name).replace(stem="cifar", num_classes=0)
    model = spec.build(seed=0).eval()
    assert model.spec.config == spec.config
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        taken = model.forward_head(model.forward_features(x), pre_logits=True)
        assert torch.equal(model(x), taken)
    with pytest.raises(ConfigError, match=r"create\(name, num_classes=0\)"):
        spec.config.build()
