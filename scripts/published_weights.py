"""Writes the manifest's entries of weights that other publishers have.

    python scripts/published_weights.py            writes weights_manifest.json
    python scripts/published_weights.py --check    fails where that would change it

Addresses, inputs and licenses are read from the metadata of the installed torchvision, timm and
pytorchcv; accuracies that timm does not carry in its package, chenyaofo's table, and the
normalization of his and pytorchcv's networks, from `published.json` beside this file, which names
their sources. Parameters and MACs are counted. What nobody states is null: no hash, size or figure
is made up. Entries of weights trained here are left as they are.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import json
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pin_weights import DATA_TERMS, text  # noqa: E402

from senetzoo._utils.files import atomically  # noqa: E402
from senetzoo._utils.torchvision import import_torchvision  # noqa: E402
from senetzoo.data.cifar import CIFAR10  # noqa: E402
from senetzoo.nn.counting import Counts, count  # noqa: E402
from senetzoo.nn.preprocessing import Preprocessing  # noqa: E402
from senetzoo.weights.dialects import counterparts  # noqa: E402
from senetzoo.weights.manifest import (  # noqa: E402
    Dialect,
    Entry,
    License,
    Metric,
    Source,
    manifest,
    parse,
    path,
)
from senetzoo.zoo import config  # noqa: E402

FACTS: Any = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))

# Fields that may differ from those of the registry's name. What changes the widths or depths is
# another network, which `senetzoo weights convert` reads but which has no name to publish under.
SAME_NETWORK = {
    *("pool", "stride_on", "stem", "stem_norm", "last_norm", "act", "window", "eps"),
    "num_classes",
}
# Begins the tag where several of a library's networks are one of ours.
VARIANTS = {
    "legacy_se": "legacy_",
    "cbam_": "cbam_",
    "resnet50c": "c_",
    "resnet101c": "c_",
    "resnet152c": "c_",
    "swin_base_patch4_window12_384": "window12_384_",
}
# Weights without a classifier: torchvision's VGG-16 for SSD, and a network trained on Bamboo; of
# others timm says that they have no classes.
HEADLESS = {"IMAGENET1K_FEATURES", "resnet50.bamboo"}

# The start of the hash that torch.hub's convention puts into a file's name.
HASHED = re.compile(r"-([0-9a-f]{8,})\.pth?$")

SPDX = {
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "mit": "MIT",
}
IMAGENET = "ImageNet-1k train"
IMAGENET_TERMS = "ImageNet: by its terms of access for non-commercial research and education"
# torchvision's weights that state a license: supervised by hashtags (Singh et al. 2022,
# arXiv:2201.08371). Data, license of the weights, and terms of the data.
SWAG_LICENSE = "https://github.com/facebookresearch/SWAG/blob/main/LICENSE"
UNSTATED = (IMAGENET, "not stated", IMAGENET_TERMS)
SWAG = (
    f"Instagram images by hashtag; then {IMAGENET}",
    "CC-BY-NC-4.0",
    f"Instagram images: not public; {IMAGENET_TERMS}",
)
# What a tag of timm's says of the data, from the end of the tag; the first that fits counts.
DATA = {
    "ssl_yfcc100m_ft_in1k": (
        f"YFCC100M without labels, with a teacher; then {IMAGENET}",
        f"YFCC100M: Creative Commons, image by image; {IMAGENET_TERMS}",
    ),
    "swsl_ig1b_ft_in1k": (
        f"Instagram images by hashtag, with a teacher; then {IMAGENET}",
        f"Instagram images: not public; {IMAGENET_TERMS}",
    ),
    "wsl_ig1b_ft_in1k": (
        f"Instagram images by hashtag; then {IMAGENET}",
        f"Instagram images: not public; {IMAGENET_TERMS}",
    ),
    # Singh et al. 2022: the weights that torchvision has as SWAG.
    **dict.fromkeys(("swag_ft_in1k", "swag_lc_in1k"), (SWAG[0], SWAG[2])),
    **{
        f"in{size}k{tuned}": (f"ImageNet-{size}k{then}", IMAGENET_TERMS)
        for size in (12, 21, 22)
        for tuned, then in (("_ft_in1k", f"; then {IMAGENET}"), ("", ""))
    },
    "in1k": (IMAGENET, IMAGENET_TERMS),
}


@functools.cache
def costs(
    model: str, changes: tuple[tuple[str, object], ...], policy: str, classes: int, size: int
) -> Counts:
    """Parameters and MACs of a network."""
    name = f"{model}+{policy}" if policy else model
    with torch.device("meta"):
        built = config(name).replace(**{**dict(changes), "num_classes": classes}).build(seed=0)
    return count(built, size)


def described(
    dialect: Dialect,
    network: str,
    tag: str,
    *,
    num_classes: int,
    source: Source,
    preprocessing: Preprocessing,
    **more: Any,
) -> tuple[str, Entry]:
    """The manifest's tag and entry of a weight, by its publisher's names of network and weights."""
    other = counterparts(dialect)[network]
    changes: dict[str, Any] = dict(other.changes)
    size = preprocessing.size
    counts = costs(other.model, tuple(sorted(changes.items())), other.policy, num_classes, size)
    changes.pop("num_classes", None)
    variant = next((v for k, v in VARIANTS.items() if network.startswith(k)), "")
    prefix = HASHED.search(source.file)
    whole = Entry(
        model=other.model,
        policy=other.policy,
        stem=changes.pop("stem", None),
        config=changes,
        num_classes=num_classes,
        default=False,
        source=source,
        sha256=None,
        # What stands there in a name of pytorchcv's is of the SHA-1.
        sha256_prefix=prefix[1] if prefix and "sha1" not in more else None,
        bytes=None,
        params=counts.params,
        macs=counts.macs,
        preprocessing=preprocessing,
        dialect=dialect,
        training=(),
        **{"classes": None, "sha1": None, **more},
    )
    return f"{other.model}.{variant}{tag}", whole


def address(url: str) -> Source:
    """A file at an address."""
    return Source("url", url.rsplit("/", 1)[1], url=url)


def accuracies(
    top1: float,
    top5: float,
    *,
    source: str,
    data: str = "ImageNet-1k val",
    images: int = 50_000,
) -> tuple[Metric, ...]:
    """Published top-1 and top-5, in per cent."""
    return (
        Metric("accuracy", data, images, top1, None, None, "published", source),
        Metric("accuracy@5", data, images, top5, None, None, "published", source),
    )


Found = tuple[str, Entry, bool]
"""A tag, its entry, and whether it is the one that its publisher puts first for the network."""


def from_torchvision() -> Iterator[Found]:
    """The weights of torchvision's enums."""
    version = import_torchvision().__version__.partition("+")[0]
    from torchvision import models

    for network, other in counterparts("torchvision").items():
        for weight in models.get_model_weights(network):
            if weight.name in HEADLESS:
                continue
            made, source = weight.transforms(), f"torchvision {version} {weight}"
            (side,), (resized,) = made.crop_size, made.resize_size
            figures = weight.meta["_metrics"]["ImageNet-1K"]
            swag = weight.meta.get("license") == SWAG_LICENSE
            if "license" in weight.meta and not swag:
                raise SystemExit(f"{weight}: license {weight.meta['license']}")
            tag, entry = described(
                "torchvision",
                network,
                weight.name.lower(),
                num_classes=len(weight.meta["categories"]),
                source=address(weight.url),
                preprocessing=Preprocessing(
                    side,
                    other.mean or tuple(made.mean),
                    other.std or tuple(made.std),
                    made.interpolation.value,
                    side / resized,
                ),
                data=(SWAG if swag else UNSTATED)[0],
                metrics=accuracies(figures["acc@1"], figures["acc@5"], source=source),
                license=License("BSD-3-Clause", *(SWAG if swag else UNSTATED)[1:]),
                provenance=f"{source}; recipe: {weight.meta['recipe']}",
            )
            if entry.params != weight.meta["num_params"]:
                # Of inception_v3 it counts the auxiliary head, which ours is built without.
                with torch.device("meta"):
                    heads = config(entry.model).replace(aux=True).build(seed=0)
                if count(heads, side).params != weight.meta["num_params"]:
                    raise SystemExit(f"{tag}: {entry.params} parameters, not as published")
            yield tag, entry, weight.name == "IMAGENET1K_V1"


def from_timm() -> Iterator[Found]:
    """The weights of timm's pretrained_cfg: on the Hub, or at an address with a hash."""
    import_torchvision()
    import timm
    from timm.models import get_pretrained_cfg

    figures, stated = FACTS["timm"]["figures"], FACTS["timm"]["source"]
    without = set(FACTS["timm"]["without"])
    dialects: tuple[Dialect, ...] = ("timm", "timm_legacy")
    for dialect, network in [(d, network) for d in dialects for network in counterparts(d)]:
        first: Any = get_pretrained_cfg(network)
        for name in timm.list_models(f"{network}.*", pretrained=True):
            cfg: Any = get_pretrained_cfg(name)
            if name in HEADLESS or not cfg.num_classes or cfg.license not in SPDX:
                continue
            # An image that is squashed into a square is not what `Preprocessing` says.
            if cfg.crop_mode != "center":
                continue
            if not set(counterparts(dialect)[network].changes) <= SAME_NETWORK:
                continue
            if cfg.label_offset:
                raise SystemExit(f"{name}: offset {cfg.label_offset}")
            if (name in figures) == (name in without):
                raise SystemExit(f"{name}: add its accuracy to published.json, or that it has none")
            tag = name.partition(".")[2]
            data, terms = next(value for end, value in DATA.items() if tag.endswith(end))
            # The file on the Hub has the same weights, but nobody states its hash.
            on_hub = cfg.hf_hub_id and not HASHED.search(cfg.url or "")
            source = (
                Source("hub", cfg.hf_hub_filename or "model.safetensors", repo=cfg.hf_hub_id)
                if on_hub
                else address(cfg.url)
            )
            more = [part for part in (cfg.url if on_hub else "", cfg.origin_url) if part]
            full, entry = described(
                dialect,
                network,
                tag,
                num_classes=cfg.num_classes,
                source=source,
                preprocessing=Preprocessing(
                    cfg.input_size[1],
                    tuple(cfg.mean),
                    tuple(cfg.std),
                    cfg.interpolation,
                    cfg.crop_pct,
                ),
                data=data,
                metrics=accuracies(*figures[name], source=stated) if name in figures else (),
                license=License("Apache-2.0", SPDX[cfg.license], terms),
                provenance=f"timm {timm.__version__} {name}"
                + (f"; from {', '.join(more)}" if more else "")
                + (f"; {cfg.paper_ids}" if cfg.paper_ids else ""),
            )
            yield full, entry, tag == first.tag


def from_chenyaofo() -> Iterator[Found]:
    """The ResNets of chenyaofo/pytorch-cifar-models."""
    facts = FACTS["chenyaofo"]
    for network, known in facts["weights"].items():
        data = network.partition("_")[0]
        few, title = data == "cifar10", f"CIFAR-{data.removeprefix('cifar')}"
        norm = facts["normalization"][data]
        tag, entry = described(
            "chenyaofo",
            network,
            f"chenyaofo_{data}",
            num_classes=10 if few else 100,
            classes=CIFAR10.classes if few else None,
            source=address(known["url"]),
            preprocessing=Preprocessing(32, tuple(norm["mean"]), tuple(norm["std"])),
            data=f"{title} train",
            metrics=accuracies(
                known["top1"],
                known["top5"],
                source=facts["source"],
                data=f"{title} test",
                images=10_000,
            ),
            license=License("BSD-3-Clause", "BSD-3-Clause", DATA_TERMS[data]),
            provenance=f"{facts['source']}; input: {facts['normalization']['source']}",
        )
        yield tag, entry, few


PYTORCHCV_FILES = "https://github.com/osmr/imgclsmob/releases/download"
# The end of a network's name says the data: what we call them, images to test on, and their terms.
PYTORCHCV_DATA = {
    "in1k": ("ImageNet-1k", "val", 50_000, IMAGENET_TERMS),
    "cifar10": ("CIFAR-10", "test", 10_000, DATA_TERMS["cifar10"]),
    "cifar100": ("CIFAR-100", "test", 10_000, DATA_TERMS["cifar100"]),
    "svhn": ("SVHN", "test", 26_032, "SVHN (Netzer et al. 2011): for non-commercial use only"),
}
DIGITS = tuple("0123456789")


def from_pytorchcv() -> Iterator[Found]:
    """The weights of the table in pytorchcv's package; figures and remarks are of its description.

    What it states of a file is the SHA-1 of the file inside the zip archive that is at the address:
    its own download compares that after unpacking, and it is what the name of the file begins.
    """
    import pytorchcv

    about = metadata.metadata("pytorchcv")
    package = f"pytorchcv {about['Version']}"
    table = Path(pytorchcv.__file__).with_name("models") / "common" / "model_metainfos.csv"
    known = {row["model_name"]: row for row in csv.DictReader(table.open(encoding="utf-8"))}
    # | name | errors | parameters | MACs | remark ([log](address of the file and .log)) |
    rows = re.findall(
        r"^\|[^|]+\|(.+)\|([^|]*)\(\[log\]\((\S+)\.log\)\)", about["Description"], re.M
    )
    stated = {url: (errors.split("|")[:-2], remark.strip()) for errors, remark, url in rows}
    norm = FACTS["pytorchcv"]["normalization"]
    for network, other in counterparts("pytorchcv").items():
        # The table lacks resnet1202_svhn, which the package builds.
        row = known.get(network, {"checksum": "NA"})
        if row["checksum"] == "NA" or not set(other.changes) <= SAME_NETWORK:
            continue
        end, sha1 = network.rpartition("_")[2], row["checksum"]
        data = end if end in PYTORCHCV_DATA else "in1k"
        title, split, images, terms = PYTORCHCV_DATA[data]
        file = f"{network}-{row['error_value']}-{sha1[:8]}.pth"
        url = f"{PYTORCHCV_FILES}/{row['repo_release_tag']}/{file}"
        (top1, *top5), remark = stated[url]
        source = f"{package} {network}"
        names: tuple[Literal["accuracy", "accuracy@5"], ...] = ("accuracy", "accuracy@5")
        values = [round(100 - float(error), 2) for error in (top1, *top5)]
        small = data != "in1k"
        classes = {"in1k": 1000, "cifar100": 100}.get(data, 10)
        tag, entry = described(
            "pytorchcv",
            network,
            ("stride1x1_" if "stride_on" in other.changes else "") + f"pytorchcv_{data}",
            num_classes=classes,
            classes={"cifar10": CIFAR10.classes, "svhn": DIGITS}.get(data),
            source=Source("url", file, url=f"{url}.zip"),
            sha1=sha1,
            preprocessing=Preprocessing(
                32 if small else int(row["img_size"]),
                tuple(norm["small" if small else "in1k"]["mean"]),
                tuple(norm["small" if small else "in1k"]["std"]),
                crop=1.0 if small else float(row["img_scale"]),
            ),
            data=f"{title} train",
            metrics=tuple(
                Metric(name, f"{title} {split}", images, value, None, None, "published", source)
                for name, value in zip(names, values, strict=False)
            ),
            license=License("MIT", "not stated", terms),
            provenance=f"{source}; {remark}; input: {norm['source']}",
        )
        if entry.params != int(row["net_weights"]):
            raise SystemExit(f"{tag}: {entry.params} parameters, not as published")
        yield tag, entry, data in ("in1k", "cifar10") and "stride_on" not in other.changes


def rank(found: Found) -> tuple[bool, bool, int, bool, float]:
    """What decides which weights of a network are its default: the least, as `chosen` says."""
    _, entry, usual = found
    order = ("torchvision", "timm_legacy", "chenyaofo", "timm", "pytorchcv")
    accuracy = entry.metrics[0].value if entry.metrics else 0.0
    place = order.index(entry.dialect)
    return entry.source.kind != "url", not entry.metrics, place, not usual, -accuracy


def chosen(found: list[Found], ours: set[str]) -> set[str]:
    """The tags that ``pretrained=True`` means, of networks that have no weights of ours.

    Never one whose license excludes commercial use, nor one for other classes than the name's own.
    First those that a hash is known for, and of them those whose accuracy is published:
    torchvision's first recipe, which all of its networks have, then the SE authors' own,
    chenyaofo's, timm's, and pytorchcv's; then those of timm without a hash. Of timm's the tag that
    it puts first, or where that is ruled out, the most accurate.
    """
    best: dict[str, Found] = {}
    for one in found:
        _, entry, _ = one
        own = config(entry.model).config.num_classes
        if entry.license.non_commercial or entry.num_classes != own or entry.model in ours:
            continue
        best[entry.model] = min(best.get(entry.model, one), one, key=rank)
    return {tag for tag, _, _ in best.values()}


def entries() -> dict[str, Entry]:
    """The whole manifest: ours as it is, and all others written again."""
    made = {tag: entry for tag, entry in manifest().items() if entry.training}
    found = [*from_torchvision(), *from_timm(), *from_chenyaofo(), *from_pytorchcv()]
    defaults = chosen(found, {entry.model for entry in made.values() if entry.default})
    for tag, entry, _ in found:
        if tag in made:
            raise SystemExit(f"{tag} is there twice")
        made[tag] = dataclasses.replace(entry, default=tag in defaults)
    return made


def main() -> int:
    """Write or check the manifest; returns the exit status."""
    whole, target = text(entries()), path()
    parse(whole)  # nothing that can't be read again is written
    if target.read_text(encoding="utf-8") == whole:
        return 0
    if "--check" in sys.argv[1:]:
        print(f"stale: {target.name}\nType: python scripts/published_weights.py", file=sys.stderr)
        return 1
    with atomically(target) as draft:
        draft.write_text(whole, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
