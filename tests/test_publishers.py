"""Weights of other publishers: from their own networks and files, through `create`, to ours."""

from __future__ import annotations

import builtins
import dataclasses
import hashlib
import io
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import numpy as np
import published_weights
import pytest
import torch
from PIL import Image
from pin_weights import text
from safetensors.torch import save_file
from support.networks import calibrate_on_next_batch, message, on_meta, randomize, relative_error
from support.parity import from_library, old_densenet, without_counters
from support.weights import Pantry, Shelf, report_of
from torch import Tensor, nn

from senetzoo import NONE, config, create, transforms
from senetzoo.errors import WeightsError
from senetzoo.nn.counting import Counts
from senetzoo.registry import ENTRIES
from senetzoo.weights import cache, dialects, manifest
from senetzoo.weights.dialects import counterparts

SHIPPED = manifest.manifest()
FOREIGN = {tag: entry for tag, entry in SHIPPED.items() if entry.dialect != "senetzoo"}
TOLERANCE = 1e-9
SLOW = pytest.mark.slow


# --- The entries are what the packages say -------------------------------------------------------


@pytest.fixture
def same_versions() -> None:
    """Skips where the manifest was made from other versions of the packages."""
    import timm
    import torchvision

    version = torchvision.__version__.partition("+")[0]
    made = {" ".join(e.provenance.split()[:2]) for e in FOREIGN.values()}
    others = [f"pytorchcv {metadata.version('pytorchcv')}", f"torchvision {version}"]
    for needed in (f"timm {timm.__version__}", *others):
        if needed not in made:
            pytest.skip(f"the manifest was not made with {needed}")


@pytest.mark.usefixtures("same_versions")
def test_the_script_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything but the counts, which a test of the manifest makes again."""
    known = {
        (
            e.model,
            e.policy,
            e.stem,
            frozenset(e.config.items()),
            e.num_classes,
            e.preprocessing.size,
        ): e
        for e in SHIPPED.values()
    }

    def costs(model: str, changes: Any, policy: str, classes: int, size: int) -> Counts:
        other = {name: value for name, value in changes if name != "num_classes"}
        stem = other.pop("stem", None)
        entry = known[model, policy, stem, frozenset(other.items()), classes, size]
        return Counts(entry.params, entry.macs)

    monkeypatch.setattr(published_weights, "costs", costs)
    made = published_weights.entries()
    for tag, entry in made.items():
        assert entry == SHIPPED[tag], tag
    assert set(made) == set(SHIPPED)


@pytest.mark.slow
@pytest.mark.usefixtures("same_versions")
def test_the_script_counts_the_same() -> None:
    assert text(published_weights.entries()) == manifest.path().read_text("utf-8")


@pytest.mark.usefixtures("same_versions")
def test_every_weight_of_our_architectures_is_there() -> None:
    """Every tag that timm and torchvision list for a network that is one of ours."""
    import timm
    import torchvision
    from torchvision import models

    known = {entry.provenance.partition(";")[0] for entry in FOREIGN.values()}
    listed = {
        f"timm {timm.__version__} {name}": name
        for name in timm.list_models(pretrained=True)
        for dialect in ("timm", "timm_legacy")
        if name.partition(".")[0] in counterparts(dialect)
    }
    version = torchvision.__version__.partition("+")[0]
    listed |= {
        f"torchvision {version} {weight}": str(weight)
        for network in counterparts("torchvision")
        for weight in models.get_model_weights(network)
    }
    assert len(listed) > 150
    missing = [name for source, name in listed.items() if source not in known]
    # Networks of other sizes than those with a name, which `weights convert` reads.
    sizes = ("resnext101_32x16d.", "resnext101_32x32d.", "mobilenetv1_125.", "swin_large_")
    assert sorted(name for name in missing if not name.startswith(sizes)) == [
        # SSD's trunk, a network of 26 layers, those that come without a classifier or with a
        # license of their own, and those whose images are squashed into a square.
        "VGG16_Weights.IMAGENET1K_FEATURES",
        *(
            f"convnext_{size}.{tag}"
            for size in ("small", "tiny")
            for tag in (
                *("dinov3_lvd1689m", "eupe_lvd1689m"),
                *("fb_in22k_ft_in1k_384", "in12k_ft_in1k_384"),
            )
        ),
        "efficientnet_b5.sw_in12k_ft_in1k",
        "legacy_seresnext26_32x4d.in1k",
        *("regnety_320.seer", "regnety_320.seer_ft_in1k"),
        "resnet50.bamboo",
    ]


@pytest.mark.usefixtures("same_versions")
def test_what_pytorchcv_states_of_its_files() -> None:
    """By its own look-up, and every file of a network that is one of ours."""
    from pytorchcv.models.common.model_store import get_model_name_suffix_data

    known = {_name(entry): entry for entry in FOREIGN.values() if entry.dialect == "pytorchcv"}
    left_out = []
    # Its table of files lacks this one.
    for network in counterparts("pytorchcv").keys() - {"resnet1202_svhn"}:
        error, sha1, release = get_model_name_suffix_data(network)
        if network not in known:
            left_out.append(network)
            assert sha1 == "NA" or network.startswith("densenet40_k12")
            continue
        entry, file = known[network], f"{network}-{error}-{sha1[:8]}.pth"
        assert (entry.sha1, entry.sha256_prefix, entry.source.file) == (sha1, None, file)
        assert (entry.source.url or "").endswith(
            f"/imgclsmob/releases/download/{release}/{file}.zip"
        )
        # The name has the top-5 error of ImageNet, and the error of the others.
        assert entry.metrics[-1].value == round(100 - int(error) / 100, 2)
    assert len(known) == 193
    assert len(left_out) == 43


def test_defaults_are_safe() -> None:
    by_model: dict[str, list[str]] = {}
    for tag, entry in SHIPPED.items():
        by_model.setdefault(entry.model, []).append(tag)
    for model, tags in by_model.items():
        defaults = [tag for tag in tags if SHIPPED[tag].default]
        own = config(model).config.num_classes
        assert len(defaults) == any(SHIPPED[tag].num_classes == own for tag in tags), model
        if not defaults:
            continue
        entry = SHIPPED[defaults[0]]
        assert not entry.license.non_commercial, model
        assert entry.num_classes == own, model
        if not entry.pinned:
            allowed = [t for t in tags if not SHIPPED[t].license.non_commercial]
            assert not any(SHIPPED[tag].pinned for tag in allowed), model
    limited = [tag for tag, entry in SHIPPED.items() if entry.license.non_commercial]
    assert limited
    assert all(".fb_" in tag or "swag_" in tag for tag in limited)


# --- What an image goes through ------------------------------------------------------------------


def picture() -> Image.Image:
    """A picture that shows every difference of resizing: noise, not square."""
    pixels = np.random.default_rng(0).integers(0, 256, (431, 517, 3), np.uint8)
    return Image.fromarray(pixels).resize((640, 480), Image.Resampling.BICUBIC)


def _name(entry: manifest.Entry) -> str:
    """What the publisher's package calls the weights."""
    return entry.provenance.partition(";")[0].split()[2]


def _first(key: Callable[[manifest.Entry], object]) -> Iterator[str]:
    seen = set()
    for tag, entry in FOREIGN.items():
        if key(entry) not in seen:
            seen.add(key(entry))
            yield tag


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
INPUTS = list(_first(lambda entry: (entry.dialect, entry.preprocessing)))


@pytest.mark.parametrize("tag", [t for t in INPUTS if FOREIGN[t].dialect == "torchvision"])
def test_torchvision_transforms(tag: str) -> None:
    from torchvision import models

    entry = FOREIGN[tag]
    weight: Any = models.get_weight(_name(entry))
    theirs: Tensor = weight.transforms()(picture())
    if entry.model in ("googlenet_bn", "inception_v3"):
        # What their networks then do, written out: back to 0..1, then to -1..1.
        mean, std = (torch.tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        theirs = ((theirs * std + mean) - 0.5) / 0.5
    torch.testing.assert_close(entry.preprocessing(picture()), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tag", [t for t in INPUTS if FOREIGN[t].dialect.startswith("timm")])
def test_timm_transforms(tag: str) -> None:
    import timm
    import timm.data

    data: Any = timm.data
    entry = FOREIGN[tag]
    cfg: Any = timm.get_pretrained_cfg(_name(entry))
    options = data.resolve_data_config({}, pretrained_cfg=cfg.to_dict())
    theirs: Tensor = data.create_transform(**options)(picture())
    torch.testing.assert_close(entry.preprocessing(picture()), theirs, rtol=1e-5, atol=1e-5)


# --- From their file to our network --------------------------------------------------------------


def _network(entry: manifest.Entry) -> str:
    """What the publisher calls the network."""
    if entry.dialect == "chenyaofo":
        return entry.source.file.partition("-")[0]
    if entry.dialect == "torchvision":
        known = counterparts("torchvision").items()
        return next(name for name, other in known if other.model == entry.model)
    return _name(entry).partition(".")[0]


class CifarResNet(nn.Module):
    """chenyaofo's, of torchvision's blocks: three stages, of 16, 32 and 64 channels."""

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        from torchvision.models.resnet import BasicBlock, conv1x1

        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        inputs = 16
        for stage, width in enumerate((16, 32, 64), 1):
            blocks = []
            for index in range((depth - 2) // 6):
                stride = 2 if stage > 1 and index == 0 else 1
                shortcut = None
                if stride > 1:
                    shortcut = nn.Sequential(conv1x1(inputs, width, 2), nn.BatchNorm2d(width))
                blocks.append(BasicBlock(inputs, width, stride, shortcut))
                inputs = width
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        for stage in (1, 2, 3):
            x = self.get_submodule(f"layer{stage}")(x)
        out: Tensor = self.fc(x.mean((2, 3)))
        return out


def _reference(entry: manifest.Entry) -> nn.Module:
    """The publisher's own network, with random weights and their statistics, in eval mode."""
    network = _network(entry)

    def build() -> nn.Module:
        if entry.dialect == "chenyaofo":
            return CifarResNet(int(network.partition("_resnet")[2]), entry.num_classes)
        if entry.dialect == "pytorchcv":
            return from_library("pytorchcv", network)
        if entry.dialect != "torchvision":
            return from_library("timm", network, num_classes=entry.num_classes)
        # As its builders do with weights=...: the files have the heads.
        heads = {"aux_logits": True, "transform_input": True, "init_weights": False}
        return from_library(
            "torchvision", network, **(heads if entry.preprocessing.mean == (0.5,) * 3 else {})
        )

    model = build() if "swin" in network else on_meta(build).to_empty(device="cpu")
    randomize(model)
    calibrate_on_next_batch(model.eval())
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
    with torch.no_grad():
        model(_images(entry)[1].float())
    for norm in norms:
        norm.eval()
    return model


# Where 64 pixels are too few for the network, or it takes images of one size only.
SIZES = {"chenyaofo": 32, "inception": 96, "swin": 0}


def _images(entry: manifest.Entry) -> tuple[Tensor, Tensor]:
    """The same images, normalized as the entry says and as the publisher's transforms do."""
    family = entry.dialect if entry.dialect == "chenyaofo" else _network(entry)
    size = next((side for name, side in SIZES.items() if family.startswith(name)), 64)
    if not size or entry.dialect == "pytorchcv":  # whose last pool has a size of its own
        size = 64 if entry.dialect == "torchvision" else entry.preprocessing.size
    # Swin's sizes; it has no batch norms, whose statistics one image would not give.
    count = 1 if size > 200 else 2
    images = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1)).double()
    mean, std = entry.preprocessing.mean, entry.preprocessing.std
    other = (IMAGENET_MEAN, IMAGENET_STD) if entry.dialect == "torchvision" else (mean, std)
    ours, theirs = (
        (images - shift[:, None, None]) / scale[:, None, None]
        for shift, scale in torch.tensor([(mean, std), other], dtype=torch.float64)
    )
    return ours, theirs


def _publish(shelf: Shelf, tag: str, content: Any, **options: Any) -> None:
    """Put a file of the publisher's format where `create` finds it."""
    entry = FOREIGN[tag]
    path = shelf.embedded / entry.source.file
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in content.items()}, str(path))
    else:
        torch.save(content, path, **options)
    there = manifest.Source("embedded", path.name)
    known = dataclasses.replace(
        entry, source=there, sha256=cache.sha256(path), sha256_prefix=None, default=False
    )
    shelf.manifest.write_text(text({tag: known}), encoding="utf-8")
    manifest.manifest.cache_clear()


def _check(tag: str, theirs: nn.Module) -> None:
    # In fp64, where rounding hides nothing; the weights are fp32 on both sides.
    ours, theirs = create(tag).double(), theirs.double()
    x, y = _images(FOREIGN[tag])
    with torch.inference_mode():
        output, expected = ours(x), theirs(y)
    assert expected.std().item() > 1e-3
    assert relative_error(output, expected) < TOLERANCE


# A network of each publisher, small, and of the forms that need more than new names.
QUICK = (
    "googlenet_bn.imagenet1k_v1",
    "efficientnet_b0.imagenet1k_v1",
    "mobilenet_v1.ra4_e3600_r224_in1k",
    "efficientnet_b0.ra4_e3600_r224_in1k",
    "se_resnet50.legacy_in1k",
    "resnet20.chenyaofo_cifar10",
    "resnet20.chenyaofo_cifar100",
)
ROUND_TRIPS = list(_first(lambda entry: (entry.dialect, _network(entry), entry.num_classes)))


def test_the_quick_ones_are_among_all() -> None:
    assert set(QUICK) <= set(ROUND_TRIPS)


@pytest.mark.parametrize(
    "tag",
    [pytest.param(t, marks=() if t in QUICK else (pytest.mark.slow,)) for t in ROUND_TRIPS],
)
def test_their_file_makes_our_network_theirs(shelf: Shelf, tag: str) -> None:
    theirs = _reference(FOREIGN[tag])
    _publish(shelf, tag, theirs.state_dict())
    _check(tag, theirs)


def _smallest() -> Iterator[Any]:
    """Of pytorchcv the smallest network of each family and data, with SE and without."""
    known = [tag for tag, entry in FOREIGN.items() if entry.dialect == "pytorchcv"]
    seen = set()
    for tag in sorted(known, key=lambda tag: FOREIGN[tag].macs):
        model, data = FOREIGN[tag].model, FOREIGN[tag].data
        kind = (ENTRIES[model].family.title, model.startswith("se_"), data)
        if kind not in seen:
            seen.add(kind)
            slow = FOREIGN[tag].macs > 6e8
            yield pytest.param(tag, marks=(SLOW,) if slow else (), id=tag)


def _in_a_zip(pantry: Pantry, tag: str, theirs: nn.Module) -> manifest.Entry:
    """Have their weights served as pytorchcv does: saved by torch, in a zip archive."""
    entry, saved, archive = FOREIGN[tag], io.BytesIO(), io.BytesIO()
    torch.save(theirs.state_dict(), saved)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr(entry.source.file, saved.getvalue())
    url = pantry.hub.serve((entry.source.url or "").partition("github.com/")[2], archive.getvalue())
    pantry.entries[tag] = dataclasses.replace(
        entry,
        source=dataclasses.replace(entry.source, url=url),
        sha1=hashlib.sha1(saved.getvalue()).hexdigest(),
    )
    return pantry.entries[tag]


@pytest.mark.parametrize("tag", list(_smallest()))
def test_a_zip_of_theirs_makes_our_network_theirs(pantry: Pantry, tag: str) -> None:
    theirs = _reference(FOREIGN[tag])
    entry = _in_a_zip(pantry, tag, theirs)
    assert (entry.source.url or "").endswith(f"/{entry.source.file}.zip")
    _check(tag, theirs)
    report = report_of(create(tag))
    assert (report.origin, report.pinned) == ("cache", "sha1")


def test_a_zip_of_other_weights_is_refused(pantry: Pantry) -> None:
    tag = "resnet20.pytorchcv_cifar10"
    entry = _in_a_zip(pantry, tag, _reference(FOREIGN[tag]))
    pantry.entries[tag] = dataclasses.replace(entry, sha1=FOREIGN[tag].sha1)
    with pytest.raises(WeightsError, match=f"the manifest has {FOREIGN[tag].sha1}"):
        create(tag)


# --- Published files that are not what the installed package builds ------------------------------


def _tv_vgg(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's names in timm's repository: linear layers where timm has convolutions."""
    names = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3"}
    names["head.fc"] = "classifier.6"
    return {
        f"{names.get(module, module)}.{kind}": v.flatten(1) if "fc" in module and v.ndim == 4 else v
        for (module, _, kind), v in ((k.rpartition("."), v) for k, v in state.items())
    }


def _tv_regnet(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's names, which the file at timm's address has."""
    ours = config("regnet_y_400mf").build(seed=0)
    return dialects.write(dialects.read(state, "timm", ours), "torchvision", ours)


def _authors_swin(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' names: merging ends a stage, the head is one layer, buffers are kept."""
    result = {}
    for name, value in state.items():
        stage = re.match(r"layers\.(\d)\.downsample\.", name)
        if stage is not None:
            name = f"layers.{int(stage[1]) - 1}.downsample.{name[len(stage[0]) :]}"
        result[name.replace("head.fc.", "head.")] = value
    return _with_buffers(result)


def _with_buffers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's files from before 0.9, where indices and masks were saved."""
    result = dict(state)
    y, x = torch.meshgrid(torch.arange(7), torch.arange(7), indexing="ij")
    place = torch.stack([y.flatten(), x.flatten()])
    offset = place[:, :, None] - place[:, None] + 6
    for name in state:
        block = name.removesuffix("relative_position_bias_table")
        if block != name:
            result[f"{block}relative_position_index"] = offset[0] * 13 + offset[1]
        if name.endswith("blocks.1.norm1.weight") and not name.startswith("layers.3"):
            side = 8 // 2 ** int(name[7])
            result[name.replace("norm1.weight", "attn_mask")] = torch.zeros(side**2, 49, 49)
    return result


def _google_inception(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's file in timm's repository: the auxiliary head is in it, counters are not."""
    with torch.device("meta"):
        heads = from_library("torchvision", "inception_v3", aux_logits=True, init_weights=False)
    shapes = {k: v.shape for k, v in heads.state_dict().items() if k.startswith("AuxLogits.")}
    assert len(shapes) == 14
    return without_counters(state | {k: torch.rand(shape) for k, shape in shapes.items()})


def _wrapped(state: dict[str, Tensor]) -> Any:
    return {"epoch": 3, "model": {f"module.{name}": value for name, value in state.items()}}


FORMS: list[Any] = [
    pytest.param("resnet20.chenyaofo_cifar10", without_counters, id="no counters"),
    pytest.param("resnet20.chenyaofo_cifar10", _wrapped, id="wrapped"),
    pytest.param("densenet121.imagenet1k_v1", old_densenet, id="torchvision densenet"),
    pytest.param("densenet121.tv_in1k", old_densenet, id="timm densenet", marks=SLOW),
    pytest.param("googlenet_bn.imagenet1k_v1", without_counters, id="torchvision googlenet"),
    pytest.param("se_resnet50.legacy_in1k", without_counters, id="legacy"),
    pytest.param("inception_v3.tv_in1k", _google_inception, id="timm inception", marks=SLOW),
    pytest.param("vgg11.tv_in1k", _tv_vgg, id="timm vgg", marks=SLOW),
    pytest.param("vgg11_bn.tv_in1k", _tv_vgg, id="timm vgg bn", marks=SLOW),
    pytest.param("regnet_y_400mf.tv2_in1k", _tv_regnet, id="timm regnet", marks=SLOW),
    pytest.param("swin_t.ms_in1k", _with_buffers, id="timm swin", marks=SLOW),
    pytest.param("swin_t.ms_in1k", _authors_swin, id="authors' swin", marks=SLOW),
]


@pytest.mark.parametrize(("tag", "form"), FORMS)
def test_published_forms(
    shelf: Shelf, tag: str, form: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    theirs = _reference(FOREIGN[tag])
    state = dict(theirs.state_dict())
    published = form(state)
    assert published.keys() != state.keys()
    _publish(shelf, tag, published)
    _check(tag, theirs)


# --- Adapted, and refused ------------------------------------------------------------------------

CIFAR = "resnet20.chenyaofo_cifar10"


def test_the_report_says_what_was_tolerated(shelf: Shelf) -> None:
    state = _reference(FOREIGN[CIFAR]).state_dict()
    _publish(shelf, CIFAR, without_counters(state))
    model = create(CIFAR)
    report = report_of(model)
    assert report.adapted == (
        (FOREIGN[CIFAR].source.file, "21 missing num_batches_tracked are 0."),
    )
    assert report.classes == FOREIGN[CIFAR].classes
    assert transforms(model) == FOREIGN[CIFAR].preprocessing
    assert not model.training


def test_other_classes_channels_and_gates(shelf: Shelf) -> None:
    state = _reference(FOREIGN[CIFAR]).state_dict()
    _publish(shelf, CIFAR, state)
    model = create(CIFAR, num_classes=5, in_chans=1, policy="eca/s1", seed=0)
    own = model.state_dict()
    torch.testing.assert_close(own["conv1.weight"], state["conv1.weight"].sum(1, keepdim=True))
    changed = {"conv1.weight", "fc.weight", "fc.bias"}
    assert {name for name in own if ".slots." not in name} == set(state)
    assert all(torch.equal(own[name], state[name]) for name in set(state) - changed)
    report = report_of(model)
    assert {name for name, _ in report.replaced} == {
        "fc.weight",
        "fc.bias",
        *(name for name in own if ".slots." in name),
    }


def test_a_form_and_gates_come_with_the_weights(shelf: Shelf) -> None:
    tag = "se_resnet50.legacy_in1k"
    state = _reference(FOREIGN[tag]).state_dict()
    _publish(shelf, tag, state)
    bare = create("se_resnet50", pretrained="legacy_in1k", policy=NONE)
    assert (bare.spec.config.pool, bare.spec.config.stride_on) == ("ceil", "1x1")
    kept = {name for name in state if ".se_module." not in name}
    assert len(kept) == len(bare.state_dict())
    assert torch.equal(bare.state_dict()["conv1.weight"], state["layer0.conv1.weight"])
    report = report_of(bare)
    assert len(report.adapted) == len(state) - len(kept) == 64


def test_a_file_of_another_network_is_refused(shelf: Shelf) -> None:
    other = _reference(FOREIGN["resnet32.chenyaofo_cifar10"]).state_dict()
    _publish(shelf, CIFAR, other)
    assert message(lambda: create(CIFAR), WeightsError) == (
        "The tensors are not those of the network by the names of chenyaofo.\n"
        "layer1.3.conv1.weight is not in the network; layer1.3.bn1.weight is not in the network; "
        "layer1.3.bn1.bias is not in the network (and 69 more).\n"
        "Build the network with the config, policy and num_classes of the weights"
    )


class Malice:
    """What a pickle can do: call anything as it is opened."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return exec, ("import builtins; builtins.opened_a_pickle = True",)


def test_a_malicious_file_is_not_opened(shelf: Shelf) -> None:
    pickle.loads(pickle.dumps(Malice()))
    assert vars(builtins).pop("opened_a_pickle")
    state = _reference(FOREIGN[CIFAR]).state_dict()
    _publish(shelf, CIFAR, {**state, "extra": Malice()})
    with pytest.raises(WeightsError, match=r"^Can't read the weights "):
        create(CIFAR)
    assert not hasattr(builtins, "opened_a_pickle")
