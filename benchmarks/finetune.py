"""The accuracy of ``senetzoo finetune`` beside a plain PyTorch loop, on photographs of flowers.

A fifth of each class is set aside first, and both are tested on it at the end, once. The rest lies
in a folder of class folders without a split, among which twelve bad files are planted. `finetune`
gets that folder. The plain loop is what a tutorial has (torchvision's transforms, Adam with one
learning rate, the best epoch by validation), with the same start, image size, batch and number of
epochs; it gets the images that `finetune` found good, and its split, and no bad file. So both train
on the same number of images, and what else the machine does changes no result.

    python benchmarks/finetune.py --photos flower_photos --epochs 6 --seed 0

`--photos` is TensorFlow's ``flower_photos``, a folder for each class. One JSON line is appended to
benchmarks/records/finetune.jsonl.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import senetzoo
from senetzoo._utils.environment import environment
from senetzoo._utils.torchvision import import_torchvision
from senetzoo.data.files import LabeledFiles, read_image_folder
from senetzoo.data.images import open_image
from senetzoo.data.listing import read_csv
from senetzoo.data.split import hold_out
from senetzoo.eval.data import images_for
from senetzoo.runs import LEFT_OUT, SPLIT, read_log
from senetzoo.train.finetune import finetune
from senetzoo.train.recipe import Options, Recipe


def laid_out(photos: Path, root: Path) -> list[str]:
    """Copy the photographs to ``root/photos`` and ``root/test``, and plant bad files in the first.

    Returns:
        The planted files, by their path in ``root/photos``.
    """
    images = read_image_folder(photos)
    kept, held = hold_out(images, 0.2)
    for part, indices in (("photos", kept), ("test", held)):
        for index in indices:
            source = Path(str(images.sources[index]))
            target = root / part / images.classes[int(images.labels[index])] / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    folder = root / "photos"
    classes = sorted(path for path in folder.iterdir())
    good = [sorted(path.iterdir())[0].read_bytes() for path in classes]
    planted = {
        "daisy/empty.jpg": b"",
        "roses/empty.png": b"",
        "daisy/text.jpg": b"not an image",
        "tulips/page.jpg": b"<html><body>404 Not Found</body></html>",
        "tulips/cut.jpg": good[4][: len(good[4]) // 2],
        "roses/cut.jpg": good[2][:200],
        "sunflowers/cut.png": b"\x89PNG\r\n\x1a\n" + bytes(20),
        "dandelion/zeros.jpg": bytes(5000),
        "dandelion/notes.txt": b"taken in May",
        "loose.jpg": good[0],
        "daisy/copy.jpg": good[0],
        "sunflowers/copy.jpg": good[3],
    }
    for name, content in planted.items():
        (folder / name).write_bytes(content)
    return list(planted)


class Photographs(Dataset[Any]):
    """Files through torchvision's transforms."""

    def __init__(self, files: LabeledFiles, transforms: Any) -> None:
        self._files, self._transforms = files, transforms

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Any:
        image = open_image(self._files.sources[index]).convert("RGB")
        return self._transforms(image), self._files.labels[index]


def plain(run: Path, recipe: Recipe, seed: int, workers: int) -> nn.Module:
    """A plain loop from the start of `recipe`, on the split in `run`."""
    import_torchvision()
    from torchvision import transforms

    torch.manual_seed(seed)
    parts, size = read_csv(run / SPLIT), recipe.final_size
    end = [transforms.ToTensor(), transforms.Normalize(recipe.mean, recipe.std)]
    train = transforms.Compose(
        [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip(), *end]
    )
    test = transforms.Compose(
        [transforms.Resize(int(size / recipe.test_crop)), transforms.CenterCrop(size), *end]
    )
    model = senetzoo.create(recipe.model, num_classes=5, stem=recipe.stem or None)
    batches = {
        "train": DataLoader(
            Photographs(parts["train"], train), recipe.batch, shuffle=True, num_workers=workers
        ),
        "val": DataLoader(Photographs(parts["val"], test), 64, num_workers=workers),
    }
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    best, weights = -1, copy.deepcopy(model.state_dict())
    for _ in range(recipe.epochs):
        model.train()
        for x, y in batches["train"]:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            torch.autograd.backward(loss)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            right = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches["val"])
        if right > best:
            best, weights = right, copy.deepcopy(model.state_dict())
    model.load_state_dict(weights)
    return model.eval()


def main() -> None:
    """Train both, test both, and append the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        planted = laid_out(args.photos, root)
        run, begun = root / "run", time.perf_counter()
        done = finetune(
            root / "photos",
            out=run,
            epochs=args.epochs,
            seed=args.seed,
            options=Options(workers=args.workers),
        )
        middle = time.perf_counter()
        (header,) = (line for line in read_log(run / "log.jsonl") if line["kind"] == "run")
        recipe = Recipe.from_json(header["recipe"])
        other = plain(run, recipe, args.seed, args.workers)
        seconds = {"finetune": middle - begun, "plain": time.perf_counter() - middle}
        left_out = (run / LEFT_OUT).read_text()
        networks: dict[str, nn.Module] = {"finetune": senetzoo.load(done.folder), "plain": other}
        images = senetzoo.transforms(senetzoo.load(done.folder))
        test = images_for(senetzoo.load(done.folder), str(root / "test"))
        found = {name: senetzoo.evaluate(model, test, images) for name, model in networks.items()}
    record = {
        "start": recipe.model,
        "stem": recipe.stem,
        "size": recipe.final_size,
        "epochs": recipe.epochs,
        "batch": recipe.batch,
        "seed": args.seed,
        "train_images": header["data"]["train_images"],
        "planted": len(planted),
        "named": sum(name in left_out for name in planted),
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "test": {name: predictions.top(1).as_dict() for name, predictions in found.items()},
        "environment": environment(torch.device("cpu"), args.threads),
    }
    print(json.dumps(record, indent=1))
    target = Path(__file__).parent / "records" / "finetune.jsonl"
    with target.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
