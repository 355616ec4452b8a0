"""The generated parts of the pages on networks, gates and positions, and their pictures."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from tables import choose, common, gates, positions

from senetzoo import CBAM, ECA, GCT, SE
from senetzoo.gates import GATES
from senetzoo.nn.slots import POSITIONS
from senetzoo.weights.manifest import manifest

ROOT = Path(__file__).resolve().parent.parent
SVG = "{http://www.w3.org/2000/svg}"


def cells(table: str, first: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


# Networks


def test_networks_with_weights() -> None:
    """A line is what torchvision says of the same weights."""
    from torchvision.models import ResNet18_Weights, ResNet50_Weights

    table = choose.imagenet()
    for name, theirs in (("resnet18", ResNet18_Weights), ("resnet50", ResNet50_Weights)):
        meta = theirs.IMAGENET1K_V1.meta
        top1 = meta["_metrics"]["ImageNet-1K"]["acc@1"]
        found = cells(table, f"`{name}`")
        assert found[1:6] == [
            f"{meta['num_params'] / 1e6:.1f}",
            f"{meta['_ops']:.2f}",
            "224",
            f"{top1:.2f}",
            "`imagenet1k_v1`",
        ]
        assert float(found[7]) > top1
    assert cells(table, "`resnet50`")[8].endswith("more data, non-commercial")
    assert cells(table, "`swin_b`")[8].endswith("384 px, more data")
    assert cells(table, "`shufflenet_v2_x0_5`")[8] == "the same"
    assert cells(table, "`mobilenet_v1_025`")[8] == "the same"  # 80 % are of CIFAR-10
    costs = [float(line.split("|")[3]) for line in table.splitlines()[2:]]
    assert costs == sorted(costs)


def test_every_network_with_figures_is_in_one_of_both_tables() -> None:
    known = {entry.model for entry in manifest().values() if entry.metrics}
    text = choose.imagenet() + choose.small()
    assert {name for name in known if not re.search(rf"^\| `{name}[`.]", text, re.M)} == set()


def groups(root: ElementTree.Element, pattern: str) -> Iterator[ElementTree.Element]:
    """The groups of a plot, not of its legend, whose id is like `pattern`."""
    (axes,) = [group for group in root.iter(f"{SVG}g") if group.get("id") == "axes_1"]
    yield from (g for g in axes.iter(f"{SVG}g") if re.fullmatch(pattern, g.get("id", "")))


def scale(root: ElementTree.Element, axis: str) -> Callable[[float], float]:
    """Pixels of a value, by the first and the last tick of an axis."""
    ticks = []
    for group in groups(root, rf"{axis}tick_\d+"):
        value = float("".join(next(group.iter(f"{SVG}text")).itertext()))
        ticks.append((value, float(next(group.iter(f"{SVG}use")).get(axis, 0))))
    form = math.log if axis == "x" else float
    (v0, p0), (v1, p1) = ticks[0], ticks[-1]
    return lambda v: p0 + (p1 - p0) * (form(v) - form(v0)) / (form(v1) - form(v0))


@pytest.mark.parametrize("cost", ["params", "macs"])
def test_plot_of_accuracy(cost: str) -> None:
    svg = choose.accuracy_plot(cost)
    assert choose.accuracy_plot(cost) == svg  # to the byte
    words = ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert {"DenseNet", "Swin, ConvNeXt", "default", "more data"} <= set(words)
    assert "<title>Top-1 accuracy" in svg
    shown = [
        (getattr(entry, cost), metric.value)
        for entry in manifest().values()
        for metric in entry.metrics
        if metric.name == "accuracy" and metric.data == "ImageNet-1k val"
    ]
    assert len(shown) > 150
    root = ElementTree.fromstring(svg)
    x_of, y_of = scale(root, "x"), scale(root, "y")
    unit = 1e6 if cost == "params" else 1e9
    marks = [
        (float(use.get("x", 0)), float(use.get("y", 0)))
        for group in groups(root, r"line2d_\d+")
        for use in group.iter(f"{SVG}use")
    ]
    for value, score in shown:
        x, y = x_of(value / unit), y_of(score)
        assert min(math.hypot(x - u, y - v) for u, v in marks) < 0.01


@pytest.mark.parametrize(
    ("network", "label"),
    [
        ("inception_v3", "GoogLeNet, Inception, Xception"),
        ("mnasnet1_0", "MobileNet, other small ones"),
        ("convnext_tiny", "Swin, ConvNeXt"),
        ("repvgg_a0", "others"),
        ("se_resnet50", "with gates"),
    ],
)
def test_legends_name_what_is_plotted(network: str, label: str) -> None:
    assert choose._kind(network)[0] == label


def result(model: str, engine: str, speed: float, **form: Any) -> dict[str, Any]:
    return {
        **{"model": model, "engine": engine, "dtype": "fp32", "images_per_second": speed},
        **{"optimized": False, "image": [3, 224, 224], **form},
    }


def test_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "RECORDS", tmp_path)
    monkeypatch.setattr(common, "RECORDS", tmp_path)
    assert choose.speed() == choose.picture() == "Nothing is recorded yet.\n"
    assert choose.speed_plot() is None
    where: dict[str, Any] = {
        "cpu": "Fast",
        "cpu_flags": [],
        "gpu": None,
        "threads": 2,
        "torch": "2",
        "commit": "c",
    }
    found = [
        result("resnet50", "eager", 999.0),
        result("resnet50", "openvino", 20.0),
        result("resnet50", "openvino", 888.0, optimized=True),
        result("resnet50", "openvino", 777.0, image=[3, 160, 160]),
        result("timm:resnet50", "openvino", 666.0),
        result("se_resnet34", "openvino", 30.0),
    ]
    record = {
        "environment": {**where, "packages": {}},
        "options": {"rounds": 25},
        "speed": [{"batch": 1, "layout": "nchw", "results": found}],
    }
    (tmp_path / "speed").mkdir()
    (tmp_path / "speed" / "fast.jsonl").write_text(json.dumps(record) + "\n")
    scores = [
        entry.metrics[0].value
        for tag, entry in manifest().items()
        # Those have another stem, the stride elsewhere, or gates.
        if re.match(r"resnet50\.(?!c_glu|stride|cbam)", tag) and entry.preprocessing.size == 224
    ]
    span = f"{min(scores):.2f} to {max(scores):.2f}"
    assert choose.speed() == (
        "| network | images a second, batch 1 | published tags of this form at 224 px "
        "| their top\N{NON-BREAKING HYPHEN}1, % |\n"
        "| --- | ---: | ---: | ---: |\n"
        f"| `resnet50` | 20.0 | {len(scores)} | {span} |\n"
        "| `se_resnet34` | 30.0 | 0 |  |\n"
        "\nopenvino, fp32, 224 px. Fast, 2 threads, torch 2, 25 rounds, commit `c`.\n"
    )
    svg = choose.speed_plot() or ""
    assert "resnet50" in svg
    assert "se_resnet34" not in svg  # nothing is published for it
    assert choose.picture().endswith("(speed.svg)\n")


# Gates


def test_costs_of_gates(monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand, from the papers' formulas."""
    monkeypatch.setattr(gates, "NETWORK", "resnet18")  # quicker than the larger one
    table = gates.costs()
    channels = gates.CHANNELS
    assert channels == (16, 64, 256, 2048)

    def se(c: int, r: int) -> int:
        return 2 * c * (c // r) + c // r + c

    expected = {
        SE: [se(c, 16) for c in channels],
        ECA: [3, 3, 5, 7],
        # Two channels into a 7x7 convolution, and the norm of its one output.
        CBAM: [se(c, 16) + 2 * 49 + 2 for c in channels],
        GCT: [3 * c for c in channels],
    }
    for gate, numbers in expected.items():
        name = gate.__name__
        found = cells(table, f"[`{name}`](#{name.lower()})")
        assert [int(number.replace(",", "")) for number in found[2:6]] == numbers
    # Parameters of timm's seresnet18 without its rounding, and of torchvision's resnet18.
    assert cells(table, "[`SE`](#se)")[6] == f"{100 * (11_778_592 / 11_689_512 - 1):.2f} %"


def test_sections_of_gates() -> None:
    parts = dict(re.findall(r"### (\w+)\n((?:.|\n)*?)(?=\n### |\Z)", gates.sections()))
    assert list(parts) == [gate.__name__ for gate in GATES.values()]
    for name, text in parts.items():
        assert re.search(r"`(y = )?x [*+] ", text), f"{name} has no formula"
        assert re.search(r"\[arXiv:\d{4}\.\d{5}\]|ICML", text), f"{name} has no paper"
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1, name
        assert "``" not in text
    assert '| `act` | `"relu"` | Activation of the hidden units: `"relu"` or' in parts["SE"]
    assert "**`reduction`**" in parts["SE"]
    assert "as a bare number" not in parts["SRM"]


# Positions


def test_picture_of_positions() -> None:
    text = positions.positions()
    root = ElementTree.fromstring(text)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    assert root.get("viewBox") == f"0 0 {width:g} {height:g}"
    # What a screen reader says, and a ground of its own, since the page may be light or dark.
    ids = (root.get("aria-labelledby") or "").split()
    said = [element.text for name in ids for element in root.iter() if element.get("id") == name]
    assert len(said) == 2
    assert all(position in (said[1] or "") for position in POSITIONS)
    ground = root.find(f"{SVG}rect")
    assert ground is not None
    assert (ground.get("width"), ground.get("fill")) == (f"{width:g}", "#ffffff")
    names = [e for e in root.iter(f"{SVG}text") if e.get("class") == "name"]
    assert [name.text for name in names] == list(POSITIONS)
    for rectangle in root.iter(f"{SVG}rect"):
        box = [float(rectangle.get(key, 0)) for key in ("x", "y", "width", "height")]
        assert box[0] >= 0
        assert box[1] >= 0
        assert box[0] + box[2] <= width
        assert box[1] + box[3] <= height
