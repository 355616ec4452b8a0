"""Changes that users make to a network work, or an error says what to type."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from support.networks import tiny
from torch import fx, nn

import senetzoo
from senetzoo import config, create, load, optimize, push, save, transforms
from senetzoo.errors import ConfigError
from senetzoo.nn.classifier import Classifier


def test_a_classifier_of_ones_own_is_saved(tmp_path: Path) -> None:
    model = create("se_resnet20", pretrained=True)
    model.fc = nn.Linear(64, 3)
    assert (model.num_classes, model.classes) == (3, ())
    save(model, tmp_path / "plain")
    save(model, tmp_path / "named", classes=("a", "b", "c"))
    x = torch.randn(2, 3, 32, 32)
    for name in ("plain", "named"):
        again = load(tmp_path / name)
        assert again.spec == model.spec
        assert torch.equal(again(x), model(x))
    assert again.classes == ("a", "b", "c")
    model.fc = nn.Sequential(nn.Dropout(), nn.Linear(64, 3))
    with pytest.raises(ConfigError, match="changed at fc"):
        save(model, tmp_path / "plain")
    with pytest.raises(ConfigError, match=r"Put one there yourself: model.fc = torch.nn.Linear"):
        model.reset_classifier(2)


def test_a_first_convolution_of_ones_own_is_saved(tmp_path: Path) -> None:
    model = create("se_resnet20", pretrained=True)
    model.conv1 = nn.Conv2d(4, 16, 3, 1, 1, bias=False)
    x = torch.randn(2, 4, 32, 32)
    expected = model(x)
    save(model, tmp_path)
    assert load(tmp_path).in_chans == 4
    assert torch.equal(load(tmp_path)(x), expected)
    with pytest.raises(ConfigError, match=r"images of shape \(N, 4, H, W\)"):
        model(torch.randn(2, 3, 32, 32))


def test_batch_norms_that_learn_in_eval_mode_warn_once() -> None:
    model = tiny().eval()
    x = torch.randn(2, 3, 16, 16)

    def step(optimizer: torch.optim.Optimizer) -> list[str]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
        assert all(entry.filename == __file__ for entry in caught)
        return [str(entry.message).partition(",")[0] for entry in caught]

    quiet = torch.optim.SGD([model.get_parameter("fc.weight")], lr=0.1)
    assert step(quiet) == step(quiet) == []  # a linear probe
    model.load_state_dict(copy.deepcopy(model.state_dict()))
    model.train()
    full = torch.optim.SGD(model.parameters(), lr=0.1)
    assert step(full) == step(full) == []
    model.eval()
    assert step(full) == []
    assert step(full) == ["The network is being trained in eval mode"]
    assert step(full) == []


def test_wrapped_networks_have_their_transforms() -> None:
    model = create("se_resnet20", pretrained=True)
    for wrapped in (nn.DataParallel(model), torch.compile(model, backend="eager")):
        assert isinstance(wrapped, nn.Module)
        assert transforms(wrapped) == transforms(model)


def test_a_file_is_no_tag() -> None:
    with pytest.raises(ConfigError, match=r"create\('resnet18', weights='a.safetensors'\)"):
        create("resnet18", pretrained="a.safetensors")


def test_optimized_networks_stay_in_their_process() -> None:
    x = torch.randn(2, 3, 32, 32)
    fast = optimize(create("resnet20", seed=0), x, engine="eager", compare=False)
    assert torch.equal(copy.deepcopy(fast)(x), fast(x))
    with pytest.raises(ConfigError, match=r"call senetzoo.optimize there"):
        pickle.dumps(fast)


def test_a_symbolic_trace_takes_images_of_any_size() -> None:
    shallow = {"depths": (2, 2), "heads": (1, 2), "embed_dim": 8}
    model = config("swin_t").replace(stem="cifar", **shallow).build(seed=0).eval()
    traced = fx.symbolic_trace(model)
    for size in (32, 27):
        x = torch.randn(1, 3, size, size)
        assert torch.equal(traced(x), model(x))


def test_torchscript_compiles_no_network_and_traces_each() -> None:
    model = tiny().eval()
    with pytest.raises(ConfigError, match=r"torch\.jit\.trace"):
        torch.jit.script(model)
    x = torch.randn(1, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, x)  # type: ignore[no-untyped-call]
        assert torch.equal(traced(x), model(x))


def test_a_network_without_memory_is_filled_later() -> None:
    accelerate = pytest.importorskip("accelerate")
    with accelerate.init_empty_weights():
        empty = create("se_resnet20", seed=0)
    whole = create("se_resnet20", seed=0).eval()
    assert all(parameter.is_meta for parameter in empty.parameters())
    empty.load_state_dict(whole.state_dict(), assign=True)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(empty.eval()(x), whole(x))


def test_names_of_other_libraries(tmp_path: Path) -> None:
    model = tiny()
    assert model.push_to_hub.__func__ is push  # type: ignore[attr-defined]
    save(model, tmp_path)
    assert Classifier.from_pretrained(tmp_path).num_classes == 5
    with pytest.raises(AttributeError, match=r"type senetzoo\.create"):
        senetzoo.create_model  # type: ignore[attr-defined]  # noqa: B018


def test_policies_travel_in_checkpoints_as_text() -> None:
    """With ``weights_only``, classes are rejected but text isn't."""
    policy = senetzoo.policy("se8@pre/s3-4+eca/s1-2")
    file = io.BytesIO()
    torch.save({"hyper_parameters": {"policy": str(policy)}}, file)
    file.seek(0)
    text = torch.load(file, weights_only=True)["hyper_parameters"]["policy"]
    assert senetzoo.policy(text) == policy
