"""Readers of data sets, with synthetic files and samples of the real ones."""

from __future__ import annotations

import hashlib
import pickle
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from support.hub import Fault
from support.images import cells, noise, picture, write_parquet
from support.networks import message
from support.weights import Pantry

from senetzoo._utils.torchvision import import_torchvision
from senetzoo.data import digits
from senetzoo.data.cifar import CIFAR10
from senetzoo.data.files import read_image_folder, read_parquet, same_size_set
from senetzoo.data.sets import ImageSet
from senetzoo.errors import DataError, MissingExtraError
from senetzoo.eval.data import read_images
from senetzoo.eval.fetch import fetch
from senetzoo.train.data import load_data
from senetzoo.train.recipes import RECIPES
from senetzoo.weights import cache

import_torchvision()
from torchvision.datasets import CIFAR10 as TORCHVISION  # noqa: E402

Sample = Callable[[str], Path]


# Class folders


def test_image_folder(tmp_path: Path) -> None:
    for seed, name in enumerate(["dog/b.png", "dog/a.png", "cat/deep/x.png", "cat/._x.png"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(picture(seed))
    (tmp_path / "cat/notes.txt").write_text("")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "README.md").write_text("")
    files = read_image_folder(tmp_path)
    assert files.classes == ("cat", "dog")
    assert files.labels == (0, 1, 1)
    assert files.sources == tuple(
        tmp_path / n for n in ("cat/deep/x.png", "dog/a.png", "dog/b.png")
    )
    assert len(files) == 3
    seen = [(np.asarray(image), label) for image, label in files]
    assert [label for _, label in seen] == [0, 1, 1]
    assert all(np.array_equal(a, noise(s)) for (a, _), s in zip(seen, (2, 1, 0), strict=True))
    turned = read_image_folder(str(tmp_path), ["dog", "cat"])
    assert turned.labels == (0, 0, 1)


def test_image_folder_messages(tmp_path: Path) -> None:
    assert message(lambda: read_image_folder(tmp_path / "none"), DataError) == (
        f"There is no folder {tmp_path / 'none'}.\nGive a folder with one folder per class"
    )
    assert message(lambda: read_image_folder(tmp_path), DataError) == (
        f"{tmp_path} has no class folders.\nIt has no folders.\nMake one folder per class"
    )
    (tmp_path / "cat").mkdir()
    suffixes = "Images are recognized by their suffix: .jpg, .png and others that Pillow reads."
    assert message(lambda: read_image_folder(tmp_path), DataError) == (
        f"The class 'cat' of {tmp_path} has no images.\n{suffixes}\n"
        "Add images to it or remove the folder"
    )
    (tmp_path / "cat/1.png").write_bytes(picture(0))
    assert message(lambda: read_image_folder(tmp_path, ["cat", "dog"]), DataError) == (
        f"The class 'dog' of {tmp_path} has no images.\n{suffixes}\nAdd images to it"
    )
    assert message(
        lambda: read_image_folder(tmp_path, [f"class{k}" for k in range(12)]), DataError
    ) == (
        f"{tmp_path} has the class 'cat', which the data set does not have.\n"
        f"The classes of the data set are {', '.join(f'class{k}' for k in range(10))} ....\n"
        "Give data with these classes, in folders named after them"
    )


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.png").write_bytes(b"nothing")
    assert message(lambda: list(read_image_folder(tmp_path)), DataError) == (
        f"Can't read {tmp_path / 'cat/1.png'}.\n"
        "It isn't an image, or it is too damaged to be recognized."
    )
    path = write_parquet(tmp_path / "x.parquet", [0, 0], [picture(0), picture(1)[:-50]])
    assert (
        message(lambda: list(read_parquet(path)), DataError)
        == f"Can't read image 1 of {path}.\nIt is damaged or truncated."
    )


def test_same_size_set(tmp_path: Path) -> None:
    for seed in range(3):
        (tmp_path / f"class{seed % 2}").mkdir(exist_ok=True)
        (tmp_path / f"class{seed % 2}/{seed}.png").write_bytes(picture(seed, size=(4, 6)))
    data = same_size_set(read_image_folder(tmp_path), "mine")
    assert (data.images.shape, data.images.dtype) == ((3, 4, 6, 3), torch.uint8)
    assert data.labels.tolist() == [0, 0, 1]
    assert data.labels.dtype == torch.int64
    assert (data.name, data.classes, len(data)) == ("mine", ("class0", "class1"), 3)
    assert np.array_equal(data.images[1].numpy(), noise(2, (4, 6)))
    other = tmp_path / "class1/9.png"
    other.write_bytes(picture(0, size=(5, 6)))
    assert (
        message(lambda: same_size_set(read_image_folder(tmp_path), "mine"), DataError)
        == f"{other} has 6x5 pixels.\nThe images before it have 6x4."
    )


def test_first_keeps_order_and_classes() -> None:
    labels = torch.tensor([1, 0, 1, 1, 0, 2])
    data = ImageSet(torch.arange(6).view(6, 1, 1, 1), labels, ("a", "b", "c"), "x").first(2)
    assert data.images.flatten().tolist() == [0, 1, 2, 4, 5]
    assert data.labels.tolist() == [1, 0, 1, 0, 2]
    assert (data.classes, data.name) == (("a", "b", "c"), "x")


# Parquet


@pytest.mark.parametrize("columns", [("image", "label"), ("img", "label"), ("img", "fine_label")])
@pytest.mark.parametrize("struct", [True, False])
def test_parquet(tmp_path: Path, columns: tuple[str, str], struct: bool) -> None:
    images = cells(range(3)) if struct else [picture(k) for k in range(3)]
    files = read_parquet(write_parquet(tmp_path / "x", [2, 0, 2], images, columns=columns))
    assert files.labels == (2, 0, 2)
    assert files.classes == ("0", "1", "2")
    for seed, (image, _) in enumerate(files):
        assert np.array_equal(np.asarray(image), noise(seed))


def test_parquets_class_names(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x", [1], classes=["cat", "dog", "elk"])
    assert read_parquet(path).classes == ("cat", "dog", "elk")
    assert read_parquet(path, ["cat", "dog", "elk"]).classes == ("cat", "dog", "elk")
    assert message(lambda: read_parquet(path, ["dog", "cat", "elk"]), DataError) == (
        f"{path} has the classes cat, dog, elk.\nExpected dog, cat, elk, in this order.\n"
        "Give data with these classes"
    )


def test_parquet_messages(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    assert (
        message(lambda: read_parquet(path), DataError)
        == f"There is no file {path}.\nGive a parquet file"
    )

    write_parquet(path, [0, 1, 2])
    assert message(lambda: read_parquet(path, ["a", "b"]), DataError) == (
        f"{path} has labels from 0 to 2.\nThere are 2 classes, from 0 to 1."
    )
    whole = path.read_bytes()
    for length in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert message(lambda: read_parquet(path), DataError) == (
            f"{path} can't be read.\nIt isn't a parquet file, or it is damaged or truncated."
        )
    write_parquet(path, [0], columns=("photo", "label"))
    assert message(lambda: read_parquet(path), DataError) == (
        f"{path} has the columns photo, label.\n"
        "Expected image (or img) and label (or labels, fine_label).\n"
        "Rename them: Dataset.rename_column"
    )

    for images in ([*cells([0]), {"bytes": None, "path": "1.png"}], [picture(0), None]):
        write_parquet(path, [0, 0], images)
        assert message(lambda: read_parquet(path), DataError) == (
            f"{path} has no image file in row 1 of the column 'image'.\n"
            "Expected the content of the files (bytes), not their paths or pixels."
        )
    write_parquet(path, [0], ["a.png"])
    with pytest.raises(DataError, match="has no image file in row 0 of the column 'image'"):
        read_parquet(path)


def test_parquet_without_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert message(lambda: read_parquet("x.parquet"), MissingExtraError) == (
        "Reading parquet needs the package 'pyarrow'.\nIt is not installed.\n"
        "Type: pip install 'senetzoo[bench]'"
    )


def test_empty_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"image": pa.array([], pa.binary()), "label": pa.array([], pa.int64())}), path
    )
    assert len(read_parquet(path)) == 0
    assert (
        message(lambda: same_size_set(read_parquet(path), "x"), DataError)
        == f"{path} has no images."
    )


# CIFAR-10


def archive(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, published: bool = True
) -> dict[str, tuple[np.ndarray[Any, Any], list[int]]]:
    """Make a small archive with torchvision's layout, and patch the published md5."""
    root = folder / "cifar-10-batches-py"
    root.mkdir(parents=True)
    content = {}
    sums = {}

    def write(name: str, value: object) -> None:
        (root / name).write_bytes(pickle.dumps(value))
        sums[name] = hashlib.md5((root / name).read_bytes()).hexdigest()

    names = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
    for seed, name in enumerate(names):
        images = np.random.default_rng(seed).integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
        content[name] = (images, [seed, 9 - seed])
        write(name, {"data": images.reshape(2, -1), "labels": [seed, 9 - seed]})
    write("batches.meta", {"label_names": list(CIFAR10.classes)})
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(root, root.name)
    if published:
        md5 = hashlib.md5((folder / "cifar-10-python.tar.gz").read_bytes()).hexdigest()
        monkeypatch.setattr(TORCHVISION, "tgz_md5", md5)
        monkeypatch.setattr(TORCHVISION, "train_list", [[n, sums[n]] for n in names[:-1]])
        monkeypatch.setattr(TORCHVISION, "test_list", [["test_batch", sums["test_batch"]]])
        meta = {**TORCHVISION.meta, "md5": sums["batches.meta"]}
        monkeypatch.setattr(TORCHVISION, "meta", meta)
    return content


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("tried to download")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


def delete(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("form", ["unpacked", "archive", "both, unpacked damaged"])
def test_cifar10_archive(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = archive(tmp_path, monkeypatch)
    unpacked = tmp_path / "cifar-10-batches-py"
    if form == "unpacked":
        (tmp_path / "cifar-10-python.tar.gz").unlink()
    elif form == "archive":
        delete(unpacked)
    else:
        (unpacked / "data_batch_2").write_bytes(b"cut")
    train, test = CIFAR10.load(tmp_path, "train"), CIFAR10.load(str(tmp_path), "test")
    assert (train.name, test.name) == ("CIFAR-10 train", "CIFAR-10 test")
    assert train.classes == CIFAR10.classes
    assert (train.images.shape, train.images.dtype) == ((10, 32, 32, 3), torch.uint8)
    assert train.labels.dtype == torch.int64
    images = np.concatenate([content[f"data_batch_{k}"][0] for k in range(1, 6)])
    labels = [label for k in range(1, 6) for label in content[f"data_batch_{k}"][1]]
    assert np.array_equal(train.images.permute(0, 3, 1, 2).numpy(), images)
    assert train.labels.tolist() == labels
    assert np.array_equal(test.images.permute(0, 3, 1, 2).numpy(), content["test_batch"][0])
    assert test.labels.tolist() == content["test_batch"][1]


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("form", ["unpacked", "archive"])
def test_cifar10_of_another_md5_is_not_unpickled(form: str, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()
    sprung.unlink()

    root = tmp_path / "cifar-10-batches-py"
    root.mkdir()
    for name in [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch", "batches.meta"]:
        (root / name).write_bytes(pickle.dumps(Trap(sprung)))
    found = root
    if form == "archive":
        found = tmp_path / "cifar-10-python.tar.gz"
        with tarfile.open(found, "w:gz") as tar:
            tar.add(root, root.name)
        delete(root)
        before = found.read_bytes()
    assert message(lambda: CIFAR10.load(tmp_path, "test"), DataError) == (
        f"CIFAR-10 at {found} can't be used.\n"
        "A file is missing, or its md5 isn't the published one.\n"
        "Download cifar-10-python.tar.gz again"
    )
    assert not sprung.exists()
    if form == "archive":
        assert found.read_bytes() == before
        assert not root.exists()


@pytest.mark.usefixtures("no_network")
def test_cifar10_that_can_not_be_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(tmp_path, monkeypatch)
    delete(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py").write_text("a file where the folder goes")
    lines = message(lambda: CIFAR10.load(tmp_path, "train"), DataError).splitlines()
    assert lines[0] == f"{tmp_path / 'cifar-10-python.tar.gz'} can't be unpacked."
    assert lines[2] == "Unpack it to a writable folder, and give that folder"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pantry: Pantry) -> bytes:
    """Serve a small archive at CIFAR-10's address."""
    (tmp_path / "publisher").mkdir()
    archive(tmp_path / "publisher", monkeypatch)
    content = (tmp_path / "publisher" / "cifar-10-python.tar.gz").read_bytes()
    pantry.hub.files["/kriz/cifar-10-python.tar.gz"] = content
    url = f"{pantry.hub.url}/kriz/cifar-10-python.tar.gz"
    monkeypatch.setattr(TORCHVISION, "url", url)
    monkeypatch.chdir(tmp_path)
    return content


def test_cifar10_is_fetched_once(published: bytes, pantry: Pantry) -> None:
    folder = cache.cache_folder() / "data"
    folder.mkdir(parents=True)
    # A killed download is resumed.
    half = len(published) // 2
    (folder / ".cifar-10-python.tar.gz.partial").write_bytes(published[:half])
    assert len(read_images("cifar10", CIFAR10.classes, 10).images) == 2
    (request,) = [r for r in pantry.hub.requests if r.method == "GET"]
    assert request.headers["range"] == f"bytes={half}-"
    assert (folder / "cifar-10-python.tar.gz").read_bytes() == published
    assert sorted(path.name for path in folder.iterdir()) == [
        ".locks",
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
    ]
    recipe = RECIPES["cifar_small"].recipe
    for typed in (None, Path("cifar10"), Path("CIFAR10")):
        assert len(load_data(recipe, typed).train) == 10  # type: ignore[arg-type]
    assert len([r for r in pantry.hub.requests if r.method == "GET"]) == 1
    # A folder with that name takes precedence.
    Path("cifar10").mkdir()
    with pytest.raises(DataError, match="cifar10 has no class folders"):
        read_images("cifar10", CIFAR10.classes, 10)


@pytest.mark.parametrize("kind", ["swapped", "missing", "offline"])
def test_cifar10_that_can_not_be_fetched(
    kind: Any, published: bytes, pantry: Pantry, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = cache.cache_folder() / "data"
    if kind == "offline":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    else:
        pantry.hub.faults.append(("/kriz/cifar-10-python.tar.gz", Fault(kind)))
    lines = message(lambda: fetch(CIFAR10), DataError).splitlines()
    says = {
        "swapped": "could not be fetched.",
        "missing": "could not be fetched.",
        "offline": "is not on this machine, and HF_HUB_OFFLINE forbids downloads.",
    }
    assert lines[0] == f"CIFAR-10 {says[kind]}"
    assert str(TORCHVISION.url) in lines[1]
    assert TORCHVISION.tgz_md5 in lines[1]
    assert (
        f"Put cifar-10-python.tar.gz into {folder}, or type --data with the folder that has it"
        in lines[2]
    )
    assert not (folder / "cifar-10-python.tar.gz").exists()


def test_cifar10_folder_and_parquet_agree(tmp_path: Path) -> None:
    for label, name in enumerate(CIFAR10.classes):
        (tmp_path / "train" / name).mkdir(parents=True)
        (tmp_path / "train" / name / "1.png").write_bytes(picture(label))
    path = write_parquet(tmp_path / "x.parquet", list(range(10)), columns=("img", "label"))
    one, two = CIFAR10.load(tmp_path, "train"), CIFAR10.load(path, "train")
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.labels, two.labels)
    assert one.classes == two.classes == CIFAR10.classes
    assert message(lambda: CIFAR10.load(tmp_path, "test"), DataError) == (
        f"There is no CIFAR-10 at {tmp_path}.\n"
        "Looked for a parquet file, class folders under test/, cifar-10-batches-py/ and "
        "cifar-10-python.tar.gz.\n"
        "Give a folder with one of these"
    )
    assert one.source_name(3) == str(tmp_path / "train" / "cat" / "1.png")
    assert two.source_name(3) == "image 3 of CIFAR-10 train"


def test_one_level_too_deep(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
    _, looked, remedy = message(
        lambda: CIFAR10.load(tmp_path / "train", "train"), DataError
    ).splitlines()
    assert looked.endswith("cifar-10-python.tar.gz. Its parent has train/ and test/.")
    assert remedy == f"Give {tmp_path}"


def test_cifar10_refuses_other_classes(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", [0], classes=["rose", "tulip"])
    with pytest.raises(DataError, match="has the classes rose, tulip"):
        CIFAR10.load(path, "train")


def test_real_cifar10(sample: Sample) -> None:
    test = CIFAR10.load(sample("cifar10-test-sample.parquet"), "test")
    assert (tuple(test.images.shape), len(test)) == ((1000, 32, 32, 3), 1000)
    # About a tenth each, and pixels near the training set's published statistics.
    assert all(70 <= n <= 130 for n in torch.bincount(test.labels, minlength=10).tolist())
    values = test.images.double().flatten(0, 2) / 255
    torch.testing.assert_close(
        values.mean(0), torch.tensor(CIFAR10.mean).double(), atol=0.02, rtol=0
    )
    torch.testing.assert_close(values.std(0), torch.tensor(CIFAR10.std).double(), atol=0.01, rtol=0)


def test_real_flowers(sample: Sample) -> None:
    files = read_parquet(sample("flowers5-sample.parquet"))
    assert (len(files), len(files.classes)) == (200, 5)
    image, _ = next(iter(files))
    assert (image.mode, min(image.size)) == ("RGB", 256)


# Digits


def test_digits() -> None:
    from sklearn.datasets import load_digits

    source = load_digits()
    train, test = digits.load("train"), digits.load("test")
    assert len(train) + len(test) == len(source.target) == 1797
    assert train.images.shape[1:] == (8, 8, 1)
    assert train.classes == tuple("0123456789")
    for digit in range(10):
        originals = source.images[source.target == digit]
        held_out = originals[2::3]
        rest = np.delete(originals, np.s_[2::3], 0)
        for part, expected in ((train, rest), (test, held_out)):
            got = part.images[part.labels == digit][..., 0].numpy()
            # 0..16 becomes 0..255, to the nearest.
            assert np.abs(got - expected * 255 / 16).max() <= 0.5
    values = train.images.double() / 255
    assert abs(values.mean().item() - digits.MEAN[0]) < 1e-4
    assert abs(values.std().item() - digits.STD[0]) < 1e-4


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert message(lambda: digits.load("train"), MissingExtraError) == (
        "The digits data set needs the package 'scikit-learn'.\nIt is not installed.\n"
        "Type: pip install 'senetzoo[train]'"
    )
