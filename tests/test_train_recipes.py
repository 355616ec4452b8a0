"""All recipes with --quick, on samples or random images; and bad data."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import io
import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file
from support.networks import message
from support.runs import log_of, train

import senetzoo
from senetzoo.cli.train import command
from senetzoo.data import flowers5, hub
from senetzoo.data.cifar import CIFAR10, CIFAR100
from senetzoo.data.files import LabeledFiles, StoredImages
from senetzoo.data.sets import ImageSet
from senetzoo.errors import ConfigError, DataError
from senetzoo.train import recipes
from senetzoo.train.batches import Batches
from senetzoo.train.data import Data, load_data, make_data
from senetzoo.train.recipe import Options, Recipe
from senetzoo.train.recipes import RECIPES
from senetzoo.train.run import Trainer

# Variants that run by default, with smaller networks instead of theirs; --slow runs all.
FIRST = {
    "cifar10_four_nets": ["lenet"],
    "cifar10_stem": ["3x3-2-pool"],
    "cifar10_at_224": ["se_resnet18_lr0.001"],
    "cifar10_noisy_train": ["resnet20_blur"],
    "cifar10_depth": ["plain20"],
    "flowers_depth": ["resnet18"],
    "flowers_key_drop": ["swin_t_drop"],
    "imagenet_rsb_a3": ["se_resnet50"],
    "imagenet_se": ["resnet50"],
    "ablation_positions": ["inner_r16"],
    "ablation_gates": ["ge_theta_plus"],
    "ablation_reduction": ["r32"],
    "ablation_stages": ["stage3"],
    "cifar100_attention": ["scse"],
}
SMALLER = {
    "cifar10_resnet": "resnet20",
    "cifar10_at_224": "se_resnet20",
    "flowers_depth": "resnet20",
    "imagenet_rsb_a3": "se_resnet20",
    "imagenet_se": "resnet20",
}


def picture(seed: int, width: int = 40, height: int = 36) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def folders(root: Path, classes: tuple[str, ...], train: int, test: int, side: int = 36) -> Path:
    """Class folders of random images, under train and val."""
    for split, count in (("train", train), ("val", test)):
        for label, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                seed = 1000 * label + number + (split == "val") * 500
                picture(seed, side, side).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture
def data(tmp_path: Path) -> Callable[[str], Path | None]:
    """Random images in the format that a recipe reads."""

    def make(kind: str) -> Path | None:
        root = tmp_path / "data"
        if kind == "digits":
            return None
        if kind in ("cifar10", "cifar100"):
            ten = kind == "cifar10"
            folders(root, (CIFAR10 if ten else CIFAR100).classes, 5 if ten else 1, 1, 32)
            (root / "val").rename(root / "test")
            return root
        if kind == "flowers5":
            folders(root, flowers5.CLASSES, 12, 1)
            return root / "train"
        return folders(root, ("cat", "dog"), 8, 2)

    return make


def test_recipes_describe_themselves() -> None:
    texts: dict[str, str] = {}
    for path in Path(recipes.__path__[0]).glob("*.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for node, after in itertools.pairwise(body):
            if isinstance(node, ast.Assign) and isinstance(after, ast.Expr):
                assert isinstance(node.targets[0], ast.Name)
                texts[node.targets[0].id] = ast.literal_eval(after.value)
    assert texts.keys() == {name.upper() for name in RECIPES}
    for name in RECIPES:
        assert RECIPES[name].name == name
        text = texts[name.upper()]
        assert f"train {name} " in text.replace("\n", " ")
        assert "core" in text or "GPU" in text or "V100" in text, name
        assert "easured" in text or "manifest" in text or "held-out" in text, name


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n == "flowers_key_drop")) for n in RECIPES],
)
def test_the_quick_form_runs(
    name: str, data: Callable[[str], Path | None], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    experiment, every = RECIPES[name], request.config.getoption("--slow")
    variants = list(experiment.variants) if every else FIRST.get(name, [])
    source = data(experiment.recipe.data)
    arguments = [name, "--quick", "--seed", "0", "--out", str(tmp_path / "runs")]
    arguments += [word for variant in variants for word in ("--only", variant)]
    arguments += ["--data", str(source)] if source is not None else []
    arguments += ["--set", f"model={SMALLER[name]}"] if name in SMALLER and not every else []
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    for variant in variants or [""]:
        folder = tmp_path / "runs" / f"{variant}-0" if variant else tmp_path / "runs"
        first, epoch, end = lines = log_of(folder)
        assert [line["kind"] for line in lines] == ["run", "epoch", "end"]
        assert first["variant"] == variant
        assert first["command"].startswith(f"senetzoo train {name} ")
        assert str(tmp_path) not in json.dumps(lines)
        assert np.isfinite(epoch["train_loss"])
        logits = load_file(str(folder / "test.safetensors"))["logits"]
        assert logits.shape == (end["test_images"], len(first["data"]["classes"]))
    again = CliRunner().invoke(command, arguments)
    assert again.exit_code == 0
    part = "validation" if source is not None and (source / "val").is_dir() else "test"
    assert again.stdout.count(f"finished, {part} accuracy") == len(variants or [""])


def test_what_the_last_epoch_was_tested_on_is_not_tested_again(
    data: Callable[[str], Path | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested: list[object] = []
    real = Trainer.test

    def spy(self: Any, network: Any, size: int, images: Any) -> Any:
        tested.append(images)
        return real(self, network, size, images)

    monkeypatch.setattr(Trainer, "test", spy)
    words = ["imagenet_se", "--quick", "--only", "resnet50", "--data", str(data("folder"))]
    words += ["--set", "model=resnet20", "--seed", "0"]
    result = CliRunner().invoke(command, [*words, "--out", str(tmp_path / "run")])
    assert result.exit_code == 0, result.output
    (end,) = log_of(tmp_path / "run" / "resnet50-0", "end")
    assert (end["part"], len(tested)) == ("val", 1)


def test_samples_of_real_data_train(sample: Callable[[str], Path], tmp_path: Path) -> None:
    beside = sample("cifar10-test-sample.parquet").parent
    sample("cifar10-train-sample.parquet")
    flowers = sample("flowers5-sample.parquet")
    for words in (
        ("cifar10_four_nets", "--only", "lenet", "--data", str(beside)),
        ("flowers_small", "--data", str(flowers)),
    ):
        done = CliRunner().invoke(command, [*words, "--quick", "--out", str(tmp_path / words[0])])
        assert done.exit_code == 0, done.output
    (line,) = log_of(tmp_path / "cifar10_four_nets" / "lenet-0", "run")
    assert line["data"]["train_images"] == 20


def test_the_split_of_the_flowers_is_by_class_and_always_the_same(tmp_path: Path) -> None:
    # Images per class of the data set itself.
    labels = [k for k, n in enumerate((633, 898, 641, 699, 799)) for _ in range(n)]
    train = flowers5.split_by_class(tuple(labels), "train")
    test = flowers5.split_by_class(tuple(labels), "test")
    assert (len(train), len(test)) == (3306, 364)
    assert sorted(train + test) == list(range(3670))
    per_class = torch.tensor(labels)[test].bincount().tolist()
    assert per_class == [63, 89, 64, 69, 79]
    assert test == flowers5.split_by_class(tuple(labels), "test")
    assert message(lambda: flowers5.load(tmp_path, "train"), DataError) == (
        f"There are no flowers at {tmp_path}.\n"
        "Looked for the folders daisy, dandelion, roses, sunflowers, tulips and for parquet "
        "files.\nGive a folder with one of these"
    )


# Large images


FOLDER = Recipe(
    name="folder",
    model="resnet20",
    data="folder",
    phases=((24, 2),),
    batch=4,
    compile=False,
    randaugment=9,
    lr=0.01,
)


def batches(recipe: Recipe, data: Data, workers: int = 0, rank: int = 0, ranks: int = 1) -> Batches:
    device = torch.device("cpu")
    return Batches(recipe, data, 0, device, rank=rank, ranks=ranks, workers=workers)


def test_large_images_are_the_same_with_workers_on_resumption_and_in_parts(tmp_path: Path) -> None:
    data = load_data(FOLDER, folders(tmp_path / "data", ("a", "b"), 8, 2))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    plain = [batch.x for batch in batches(FOLDER, data).epoch(1)]
    assert torch.equal(torch.get_rng_state(), before)  # the network's dropout draws from it
    assert len(plain) == 4
    assert plain[0].shape == (4, 3, 24, 24)
    for other in (
        [batch.x for batch in batches(FOLDER, data, workers=2).epoch(1)],
        [
            torch.cat([a.x, b.x])
            for a, b in zip(
                batches(FOLDER, data, rank=0, ranks=2).epoch(1),
                batches(FOLDER, data, rank=1, ranks=2).epoch(1),
                strict=True,
            )
        ],
    ):
        assert all(torch.equal(a, b) for a, b in zip(plain, other, strict=True))
    started = batches(FOLDER, data)
    stream = started.epoch(1)
    for _ in range(2):
        next(stream)
    rest = batches(FOLDER, data).epoch(1, 2, started.generator.get_state())
    assert all(torch.equal(a.x, b) for a, b in zip(rest, plain[2:], strict=True))
    other_epoch = [batch.x for batch in batches(FOLDER, data).epoch(0)]
    assert not torch.equal(torch.cat(other_epoch), torch.cat(plain))


@pytest.mark.parametrize("large", [False, True])
def test_alternate_flips_show_both_views_of_each_image_in_two_epochs(
    large: bool, tmp_path: Path
) -> None:
    recipe = FOLDER.replace(flip="alternate", randaugment=0, crop_scale=(0.0, 0.0), batch=8)
    if large:
        data = load_data(recipe, folders(tmp_path / "data", ("a", "b"), 16, 2))
    else:
        recipe = recipe.replace(data="digits", margin=0, phases=((8, 3),), images_per_class=8)
        data = load_data(recipe, None)
    # Find an image in another epoch by values that mirroring doesn't change.
    views = []
    for epoch in range(3):
        x = torch.cat([batch.x for batch in batches(recipe, data).epoch(epoch)])
        keys = ((x + x.flip(3)).flatten(1) * torch.arange(x[0].numel())).sum(1)
        views.append(x[keys.argsort()])
    first, second, third = views
    torch.testing.assert_close(first, second.flip(3))
    torch.testing.assert_close(first, third)
    plain = recipe.replace(flip=False)
    x = torch.cat([batch.x for batch in batches(plain, data).epoch(0)])
    keys = ((x + x.flip(3)).flatten(1) * torch.arange(x[0].numel())).sum(1)
    mirrored = (first != x[keys.argsort()]).flatten(1).any(1).float().mean()
    assert 0.2 < mirrored < 0.8
    others = torch.cat([batch.x for batch in batches(recipe, data, rank=1, ranks=2).epoch(0)])
    whole = torch.cat([batch.x.chunk(2)[1] for batch in batches(recipe, data).epoch(0)])
    assert torch.equal(others, whole)


def test_an_image_that_can_not_be_read_stops_the_run_by_name(tmp_path: Path) -> None:
    root = folders(tmp_path / "data", ("a", "b"), 8, 2)
    run = tmp_path / "run"
    bad = root / "train" / "b" / "3.png"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:60])
    assert message(
        lambda: train(FOLDER, run, data=root, options=Options(workers=1)), DataError
    ) == (f"Can't read {bad}.\nIt is damaged or truncated.")
    bad.write_bytes(whole)
    train(FOLDER, run, data=root)
    # In the test images too.
    other = root / "val" / "a" / "0.png"
    other.write_bytes(b"")
    assert message(lambda: train(FOLDER, tmp_path / "again", data=root), DataError) == (
        f"Can't read {other}.\nThe file is empty."
    )


def test_folders_that_can_not_be_trained_on(tmp_path: Path) -> None:
    def refused(path: Path, recipe: Recipe = FOLDER) -> str:
        return message(lambda: load_data(recipe, path), DataError)

    nowhere = tmp_path / "nowhere"
    assert refused(nowhere) == f"There is no folder {nowhere}.\nGive a folder with train and test"
    root = folders(tmp_path / "data", ("a", "b"), 1, 1)
    (root / "val").rename(root / "held")
    assert refused(root) == (
        f"{root} has no val or test folder.\n"
        "The network trains on train/<class>/* and is tested on val/<class>/* (or test).\n"
        "Rename the folders accordingly"
    )
    (root / "held").rename(root / "val")
    assert refused(root / "train") == (
        f"{root / 'train'} has no train and val folder.\nIts parent has train/ and val/.\n"
        f"Give {root}"
    )
    (root / "x.csv").write_text("path,label\ntrain/a/0.png,a\ntrain/b/0.png,b")
    assert refused(root / "x.csv") == (
        f"{root / 'x.csv'} has no rows with the split train and val.\n"
        "The column split says which rows are train, val or test.\nAdd it, or these rows"
    )
    (root / "train" / "b" / "0.png").unlink()
    assert refused(root).splitlines()[0] == f"The class 'b' of {root / 'train'} has no images."
    parquet = tmp_path / "x.parquet"
    assert refused(parquet, FOLDER.replace(data="cifar10")) == (
        f"{parquet} is one split of CIFAR-10.\n"
        "Training needs both, and the file doesn't say which one it is.\n"
        "Give the folder that has both, as train*.parquet and test*.parquet"
    )


def test_labels_out_of_range_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.zeros(4, 8, 8, 1, dtype=torch.uint8)
    wrong = ImageSet(pixels, torch.tensor([0, 1, 2, 10]), tuple("0123456789"), "digits")
    monkeypatch.setattr("senetzoo.data.digits.load", lambda split: wrong)
    assert message(lambda: train(RECIPES["digits"].recipe, tmp_path / "run"), DataError) == (
        "digits has labels from 0 to 10.\nThere are 10 classes, from 0 to 9."
    )
    assert not (tmp_path / "run").exists()


# The Hub's data sets, from local parquet files


def parquet(path: Path, count: int, labels: list[int] | None = None) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    contents = []
    for number in range(count):
        buffer = io.BytesIO()
        picture(number).save(buffer, "png")
        contents.append({"bytes": buffer.getvalue(), "path": None})
    columns: dict[str, Any] = {
        "image": contents,
        "label": labels or [n % 3 for n in range(count)],
    }
    path.parent.mkdir(exist_ok=True)
    write_table(pyarrow.table(columns), path)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_hub_data_is_read_from_disk_and_as_a_stream(tmp_path: Path) -> None:
    parquet(tmp_path / "d" / "train-00000-of-00002.parquet", 9)
    parquet(tmp_path / "d" / "train-00001-of-00002.parquet", 9)
    parquet(tmp_path / "d" / "validation-00000-of-00001.parquet", 3)
    recipe = FOLDER.replace(data="hub", randaugment=0, phases=((24, 1),))
    data = load_data(recipe, tmp_path / "d")
    assert isinstance(data.train, LabeledFiles)
    assert (data.count, len(data.test), data.classes) == (18, 3, ("0", "1", "2"))
    first = next(batches(recipe, data).epoch(0))
    assert first.x.shape == (4, 3, 24, 24)

    streamed = recipe.replace(stream=True, stream_images=16)
    # The Hub's prefix works here, too.
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert load_data(streamed, Path("hf-hub:d")).train.name == "d train"
    data = load_data(streamed, tmp_path / "d")
    one = list(batches(streamed, data).epoch(0))
    assert len(one) == 4
    two = list(batches(streamed, data, workers=2).epoch(0))
    assert all(torch.equal(a.x, b.x) for a, b in zip(one, two, strict=True))
    started = batches(streamed, data)
    stream = started.epoch(0)
    next(stream)
    rest = list(batches(streamed, data).epoch(0, 1, started.generator.get_state()))
    assert all(torch.equal(a.x, b.x) for a, b in zip(rest, one[1:], strict=True))
    end = train(streamed, tmp_path / "run", data=tmp_path / "d")
    assert end["test_images"] == 3

    short = streamed.replace(stream_images=40)
    assert message(
        lambda: list(batches(short, load_data(short, tmp_path / "d")).epoch(0)), DataError
    ).endswith("Type: --set stream_images=18")


@pytest.mark.usefixtures("offline")
@pytest.mark.usefixtures("offline")
def test_reading_local_parquet_files_is_not_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    parquet(tmp_path / "train-00000-of-00001.parquet", 2)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_UPDATE_DOWNLOAD_COUNTS", True)
    asked: list[str] = []
    session = SimpleNamespace(head=lambda address, **_: asked.append(address))
    monkeypatch.setattr(datasets.load, "get_session", lambda: session)
    assert len(hub.load(tmp_path, "train")) == 2
    assert not asked
    assert datasets.config.HF_UPDATE_DOWNLOAD_COUNTS  # as it was, for other users of the library
    datasets.load.increase_load_count("parquet")
    assert len(asked) == 1


def test_hub_data_that_can_not_be_used(tmp_path: Path) -> None:
    parquet(tmp_path / "d" / "train.parquet", 4)
    assert message(lambda: hub.load(tmp_path / "d", "test"), DataError) == (
        f"There is no test split at {tmp_path / 'd'}.\n"
        "Looked for parquet files with test or testing in their names.\n"
        "Name them as the Hub does: train-00000-of-00001.parquet"
    )
    parquet(tmp_path / "d" / "train.parquet", 3, [0, 1, -1])
    assert message(lambda: hub.load(tmp_path / "d", "train"), DataError) == (
        f"{tmp_path / 'd'} train has labels from -1 to 1.\nThere are 2 classes, from 0 to 1."
    )
    rows = hub.stream(tmp_path / "d", ("a", "b"))
    assert message(lambda: list(rows.read(0, 0)), DataError) == (
        f"{tmp_path / 'd'} train has the label -1.\nThere are 2 classes, from 0 to 1: a, b.\n"
        "Give data with one of these for each image"
    )


def test_cifar100_by_folders_and_its_names(tmp_path: Path) -> None:
    assert len(set(CIFAR100.classes)) == 100
    for name in CIFAR100.classes:
        (tmp_path / "test" / name).mkdir(parents=True)
        picture(1, 32, 32).save(tmp_path / "test" / name / "0.png")
    test = CIFAR100.load(tmp_path, "test")
    assert test.labels.tolist() == list(range(100))
    assert (
        message(lambda: CIFAR100.load(tmp_path / "test", "test"), DataError).splitlines()[0]
        == f"There is no CIFAR-100 at {tmp_path / 'test'}."
    )


def test_tensorboard_on_request(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    result = CliRunner().invoke(
        command, ["digits", "--quick", "--tensorboard", "--out", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    assert list(tmp_path.glob("tensorboard/**/events*"))


@pytest.mark.parametrize("own", [False, True])
def test_a_run_on_a_folder_is_the_network_that_was_tested(own: bool, tmp_path: Path) -> None:
    """`load` returns the recipe's mean, std, size and crop, which the test used."""
    root = folders(tmp_path / "data", ("cat", "dog"), 4, 3)
    mean, std = (0.1, 0.25, 0.6), (0.3, 0.2, 0.15)
    if own:
        mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    words = ["cifar_small", "--data", str(root), "--out", str(tmp_path / "run"), "--no-compile"]
    settings = ["data=folder", "phases=((32,1),)", "restart_epochs=0", "batch=4", "lr=0.01"]
    settings += ["test_size=40", "test_crop=0.8"]
    settings += [] if own else [f"mean={mean}", f"std={std}"]
    words += [word for setting in settings for word in ("--set", setting)]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    model = senetzoo.load(tmp_path / "run")
    used = senetzoo.transforms(model)
    assert (used.size, used.crop, used.mean, used.std) == (40, 0.8, mean, std)
    assert model.load_report is not None
    assert model.load_report.classes == ("cat", "dog")
    # By hand: the short side to 40 / 0.8 pixels, the center 40 of them, then the statistics.
    logits = load_file(str(tmp_path / "run" / "test.safetensors"))["logits"].float()
    for number, file in enumerate(sorted((root / "val").rglob("*.png"))):
        image = Image.open(file).convert("RGB")
        short = min(image.size)
        wide, tall = (50 * side // short for side in image.size)
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()[None]
        x = torch.nn.functional.interpolate(x, (tall, wide), mode="bilinear", antialias=True)
        left, top = round((wide - 40) / 2), round((tall - 40) / 2)
        x = x[:, :, top : top + 40, left : left + 40].round() / 255
        x_in = (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        with torch.inference_mode():
            torch.testing.assert_close(model(x_in)[0], logits[number], rtol=0, atol=2e-3)
            assert float((model(x)[0] - logits[number]).abs().max()) > 2e-2


def test_statistics_that_do_not_fit_the_images(tmp_path: Path) -> None:
    digits = RECIPES["digits"].recipe
    wrong = digits.replace(mean=(0.5, 0.5, 0.5))
    assert message(lambda: train(wrong, tmp_path / "run"), ConfigError) == (
        "The recipe got mean=(0.5, 0.5, 0.5) and std=(0.3757,).\n"
        "The images of scikit-learn digits have 1 channel.\n"
        'Type for example: --set "mean=(0.5,)" --set "std=(0.5,)"'
    )
    with pytest.raises(ConfigError, match="std is"):
        digits.replace(std=(0.0,))


class Stored(StoredImages):
    """Files that are never read."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = list(lengths)

    def __getitem__(self, index: int) -> bytes:
        raise AssertionError("read")

    def keep(self, indices: Sequence[int]) -> StoredImages:
        return Stored([self.lengths[index] for index in indices])

    def sizes(self) -> list[int]:
        return self.lengths


def test_the_identity_of_data_reads_no_stored_image() -> None:
    """It depends on the number, sizes and labels of images, and on the classes."""

    def identity(lengths: Sequence[int], labels: Sequence[int], classes: str = "ab") -> Any:
        images = LabeledFiles(Stored(lengths), tuple(labels), tuple(classes), "a data set")
        data = make_data(FOLDER, images, images.keep([0]), "data")
        return data.identity

    first = identity([5, 7, 9], [0, 1, 0])
    assert identity([5, 7, 9], [0, 1, 0]) == first
    assert first["bytes"] == 5 + 7 + 9 + 5
    others = [
        identity([5, 7], [0, 1]),
        identity([5, 7, 9], [0, 1, 1]),
        identity([5, 8, 9], [0, 1, 0]),
        identity([5, 7, 9], [0, 1, 0], "xy"),
    ]
    assert all(other != first for other in others)


def test_the_identity_of_images_in_memory_is_of_their_pixels() -> None:
    pixels = torch.arange(4 * 32 * 32 * 3).to(torch.uint8).view(4, 32, 32, 3)
    images = ImageSet(pixels, torch.tensor([0, 1, 0, 1]), ("a", "b"), "mine")
    turned = dataclasses.replace(images, images=pixels.transpose(1, 2))  # not contiguous
    one, two = (make_data(FOLDER, part, images, "data").identity for part in (images, turned))
    expected = hashlib.sha256()
    for part in (pixels, images.labels, pixels, images.labels):
        expected.update(part.numpy().tobytes() + b"\0")
    assert one["sha256"] == expected.hexdigest()
    assert two["sha256"] != one["sha256"]


def test_training_is_tested_on_val_where_there_is_test_too(tmp_path: Path) -> None:
    root = folders(tmp_path / "data", ("a", "b"), 3, 2)
    shutil.copytree(root / "train", root / "test")
    shutil.copy(root / "val" / "a" / "0.png", root / "test" / "b" / "more.png")
    data = load_data(FOLDER, root)
    assert (data.count, len(data.test)) == (6, 4)
    assert data.validation is data.test  # so that records call its accuracy that of val
    shutil.rmtree(root / "val")
    data = load_data(FOLDER, root)
    assert (len(data.test), data.validation) == (7, None)
    splits = enumerate(("train", "val", "test"))
    lines = [f"train/{c}/{k}.png,{c},{split}" for k, split in splits for c in "ab"]
    (root / "x.csv").write_text("\n".join(["path,label,split", *lines]))
    listed = load_data(FOLDER, root / "x.csv")
    assert (listed.count, len(listed.test), listed.title) == (2, 2, "x.csv")
    shutil.rmtree(root / "train")
    assert message(lambda: load_data(FOLDER, root), DataError).splitlines()[0] == (
        f"{root} has no train folder."
    )
