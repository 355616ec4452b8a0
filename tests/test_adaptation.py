"""Loading weights into a different network: each tensor is the file's, new, or a stated sum."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from support.networks import SMALL, drawn_network, message, reduced, tiny
from support.weights import RAW, Shelf, report_of
from torch import Tensor, nn

from senetzoo import Stem, create, load, policy, save, transforms
from senetzoo.errors import ConfigError, WeightsError
from senetzoo.models.swin import SwinConfig
from senetzoo.nn.classifier import Classifier
from senetzoo.policies.recover import recovered
from senetzoo.spec import ModelSpec, gates_of, merge

TAG = "resnet20.pets_v1"


def gray_alike(old: Tensor, new: Tensor, how: str) -> Tensor:
    """The new first weight from the old one, channel by channel."""
    before, after = old.shape[1], new.shape[1]
    expected = torch.zeros_like(new)
    if how == "sum":
        for channel in range(before):
            expected[:, channel % after] += old[:, channel]
    else:
        copies = [sum(c % before == source for c in range(after)) for source in range(before)]
        for channel in range(after):
            expected[:, channel] = old[:, channel % before] / copies[channel % before]
    return expected


@pytest.mark.parametrize("seed", range(20))
def test_every_tensor_is_what_the_report_says(seed: int, tmp_path: Path) -> None:
    draw, trained = random.Random(seed), drawn_network(seed)
    save(trained, tmp_path)
    asked: dict[str, Any] = {}
    if draw.random() < 0.6:
        asked["num_classes"] = draw.randint(2, 30)
    if draw.random() < 0.7:
        asked["in_chans"] = draw.choice([1, 2, 3, 5, 7])
    if trained.spec.config.any_stem and draw.random() < 0.6:
        asked["stem"] = draw.choice([Stem((7,), (2,), pool=True), Stem((3, 3), (1, 1)), "cifar"])
    over = draw.choice([None, None, "none", "eca/s1", "se4"])
    random_channels = "in_chans" in asked and draw.random() < 0.3
    channels: Any = {"channels": "random"} if random_channels else {}
    model = load(tmp_path, policy=over, seed=seed, **asked, **channels)

    assert model.spec.config == trained.spec.config.replace(**asked)
    whole = ModelSpec("drawn", trained.spec.config, recovered(gates_of(trained), trained.sites()))
    if over is not None:
        whole = whole.replace(policy=merge(whole.policy, policy(over)))
    fresh = whole.replace(**asked).build(seed=seed).state_dict()
    state, file = model.state_dict(), trained.state_dict()
    report = report_of(model)
    replaced, adapted = dict(report.replaced), dict(report.adapted)
    first = model.input_parameter()
    for name, value in state.items():
        if name in replaced:
            assert torch.equal(value, fresh[name]), name
        elif name == first and name in adapted:
            how = "sum" if value.shape[1] < file[name].shape[1] else "tile"
            torch.testing.assert_close(value, gray_alike(file[name], value, how))
        else:
            assert torch.equal(value, file[name]), name
    # The report names everything that is new or left out.
    gone = {name for name, how in adapted.items() if how.startswith("left out")}
    assert set(state) - set(file) <= set(replaced)
    assert set(file) - set(state) <= gone
    if "num_classes" in asked and asked["num_classes"] != trained.spec.config.num_classes:
        assert {name for name, why in replaced.items() if "classes instead" in why} == set(
            model.classifier_parameters()
        )
    else:
        assert not set(model.classifier_parameters()) & set(replaced)
    stem_kept = model.spec.config.stem == trained.spec.config.stem or adapted.get("stem")
    only_first = {first} if random_channels else set()
    in_stem = set(model.stem_tensors()) & set(replaced)
    assert in_stem - only_first == (set() if stem_kept else set(model.stem_tensors()) - only_first)


def test_new_channels_at_random(shelf: Shelf) -> None:
    trained = shelf.put(TAG).state_dict()
    model = create(TAG, in_chans=5, channels="random", seed=3)
    fresh = create("resnet20", in_chans=5, num_classes=3, seed=3).state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, (fresh if name == "conv1.weight" else trained)[name])
    report = report_of(model)
    assert report.replaced == (("conv1.weight", "5 channels instead of 3"),)


@pytest.mark.parametrize(
    ("in_chans", "how", "other"), [(1, "tile", "sum"), (2, "tile", "sum"), (4, "sum", "tile")]
)
def test_ways_that_do_not_go(in_chans: int, how: Any, other: str, shelf: Shelf) -> None:
    shelf.put(TAG)
    assert message(lambda: create(TAG, in_chans=in_chans, channels=how), ConfigError) == (
        f"channels={how!r} can't go from 3 to {in_chans} channels.\n"
        "'sum' makes fewer channels, 'tile' more, and 'random' either.\n"
        f"Leave out channels, or type channels={other!r}"
    )


def test_a_network_that_reads_the_image_twice(tmp_path: Path) -> None:
    """Of equal channels the sum of the kernels makes what the kernels of three channels make."""
    model = reduced("repvgg_a0").replace(num_classes=5).build(seed=0).eval()
    save(model, tmp_path / "model")
    x = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        gray = load(tmp_path / "model", in_chans=1)(x)
        torch.testing.assert_close(gray, model(x.expand(-1, 3, -1, -1)), rtol=0, atol=1e-5)


# --- The stem ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL.values())
def test_the_stem_is_what_runs_before_the_first_stage(name: str) -> None:
    """Against a run: the modules with tensors that run before the first block does."""
    with torch.device("meta"):
        model = reduced(name).build(seed=0).eval()
        image = torch.empty(1, model.in_chans, *(model.input_size,) * 2)
    block = model.stages()[0][0]
    inside = {id(module) for module in block.modules()}
    before: list[nn.Module] = []
    begun = False

    def note(module: nn.Module, args: object) -> None:
        nonlocal begun
        begun = begun or id(module) in inside
        if not begun:
            before.append(module)

    for module in model.modules():
        module.register_forward_pre_hook(note)
    with torch.inference_mode():
        model(image)
    if name in ("lenet", "alexnet", "vgg11", "repvgg_a0"):
        # The first convolution is followed by a place for a gate: it is the first block's.
        assert model.stem_tensors() == ()
        return
    assert begun
    own = {id(t) for m in before for t in m._parameters.values() if t is not None}
    own |= {id(t) for m in before for t in m._buffers.values() if t is not None}
    state = model.state_dict(keep_vars=True)
    assert {name for name, tensor in state.items() if id(tensor) in own} == set(
        model.stem_tensors()
    )
    assert model.input_parameter() in model.stem_tensors()


def test_a_cifar_stem_on_imagenet_weights(shelf: Shelf) -> None:
    seen = {**RAW["preprocessing"], "size": 224}
    trained = shelf.put(TAG, stem="imagenet", preprocessing=seen)
    model = create(TAG, stem="cifar", seed=4)
    fresh = create("resnet20", num_classes=3, seed=4)
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    stem = ["conv1.weight", *(f"bn1.{name}" for name in norm)]
    for name, value in model.state_dict().items():
        source = fresh if name in stem else trained
        assert torch.equal(value, source.state_dict()[name]), name
    report = report_of(model)
    assert report.adapted == ()
    assert report.classes == ("cat", "dog", "bird")
    assert str(report).splitlines()[1:] == [
        f"  not loaded: {name} (another stem than the weights have)" for name in stem
    ]
    assert model.spec.config == fresh.spec.config
    assert transforms(create(TAG)).size == 224
    assert transforms(model) == dataclasses.replace(transforms(create(TAG)), size=32, crop=1.0)
    # With the same stem, nothing is new.
    assert create(TAG, stem="imagenet").load_report == create(TAG).load_report


def test_a_deep_stem_and_its_way_back(tmp_path: Path) -> None:
    save(tiny(stem="deep"), tmp_path)
    model = load(tmp_path, stem="cifar", in_chans=1)
    report = report_of(model)
    assert {name for name, _ in report.replaced} == set(model.stem_tensors())
    gone = {name for name, how in report.adapted if how == "left out: the network has another stem"}
    assert gone == {f"conv1.{name}" for name in ("0.weight", "3.weight", "6.weight")} | {
        f"conv1.{norm}.{name}"
        for norm in (1, 4)
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }


def test_a_stem_with_the_same_tensors_is_kept(tmp_path: Path) -> None:
    trained = tiny(stem=Stem((3,), (1,)))
    save(trained, tmp_path)
    model = load(tmp_path, stem=Stem((3,), (2,), pool=True), in_chans=1)
    report = report_of(model)
    assert report.replaced == ()
    assert report.adapted == (
        ("stem", "other strides or pooling, the same tensors"),
        ("conv1.weight", "channels summed, 3 to 1"),
    )
    for name, value in model.state_dict().items():
        assert name == "conv1.weight" or torch.equal(value, trained.state_dict()[name])


def test_a_form_that_changes_more_than_the_stem(tmp_path: Path) -> None:
    config = SwinConfig(embed_dim=8, depths=(1, 1), heads=(1, 2), stem="cifar", num_classes=2)
    save(config.build(), tmp_path)
    with pytest.raises(WeightsError) as caught:
        load(tmp_path, stem="imagenet")
    first, second, third = str(caught.value).splitlines()
    assert first == f"The weights {tmp_path} do not fit the network."
    assert second.startswith("features.1.0.attn.relative_position_bias_table is (")
    assert third == (
        "Build the network with the policy, stem and num_classes the weights were made with"
    )


def test_the_report_says_it_all(shelf: Shelf) -> None:
    shelf.put("se_resnet20.pets_v1", seed=1)
    model = create("se_resnet20.pets_v1", num_classes=7, in_chans=1, policy="eca/s3&b3", seed=0)
    report = report_of(model)
    slot = "layer3.2.slots.standard"
    assert str(report) == "\n".join(
        [
            f"weights se_resnet20.pets_v1 (embedded, sha256 {report.sha256[:12]})",
            f"  not loaded: {slot}.conv.weight (a gate that the weights do not have)",
            "  not loaded: fc.weight (7 classes instead of 3)",
            "  not loaded: fc.bias (7 classes instead of 3)",
            *(
                f"  adapted: {slot}.{name} (left out: the network has another gate or none here)"
                for name in ("fc1.bias", "fc1.weight", "fc2.bias", "fc2.weight")
            ),
            "  adapted: conv1.weight (channels summed, 3 to 1)",
        ]
    )
    assert report.classes == ()


def test_dropout_takes_no_part(tmp_path: Path) -> None:
    trained = tiny()
    save(trained, tmp_path)
    model = load(tmp_path, dropout=0.5, drop_path=0.2)
    assert (model.spec.config.dropout, model.spec.config.drop_path) == (0.5, 0.2)
    assert isinstance(model, Classifier)
    report = report_of(model)
    assert (report.replaced, report.adapted) == ((), ())
    assert all(torch.equal(v, trained.state_dict()[k]) for k, v in model.state_dict().items())
