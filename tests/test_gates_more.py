"""The gates but SE and ECA against the papers' formulas, written out on Python's floats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from support.networks import gate_module, gate_site, images, relative_error

from senetzoo import BAM, CBAM, ECA, ESE, GCT, GE, SCSE, SE, SRM, CoordinateAttention, SimAM
from senetzoo.gates import GATES
from senetzoo.policies.algebra import Gate

Plane: TypeAlias = list[list[float]]
Planes: TypeAlias = list[Plane]
Row: TypeAlias = list[float]


def test_every_gate_is_listed_under_its_name() -> None:
    expected: dict[str, type[Gate]] = {
        "se": SE,
        "eca": ECA,
        "cbam": CBAM,
        "scse": SCSE,
        "ge": GE,
        "srm": SRM,
        "gct": GCT,
        "coord": CoordinateAttention,
        "ese": ESE,
        "bam": BAM,
        "simam": SimAM,
    }
    assert expected == GATES


# --- Layers, written out -------------------------------------------------------------------------


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def pixels(plane: Plane) -> Row:
    return [value for row in plane for value in row]


def mean(values: Row) -> float:
    return sum(values) / len(values)


def linear(layer: Any, values: Row) -> Row:
    biases = [0.0] * layer.weight.shape[0] if layer.bias is None else layer.bias.tolist()
    rows = layer.weight.flatten(1).tolist()
    return [
        sum(w * v for w, v in zip(row, values, strict=True)) + bias
        for row, bias in zip(rows, biases, strict=True)
    ]


def relu(values: Row) -> Row:
    return [max(value, 0.0) for value in values]


def convolved(
    layer: Any, planes: Planes, *, stride: int = 1, pad: int = 0, step: int = 1
) -> Planes:
    """A convolution, depthwise where its kernels have one channel and there are more."""
    kernels, depthwise = layer.weight.tolist(), layer.weight.shape[1] == 1 < len(planes)
    height, width, size = len(planes[0]), len(planes[0][0]), len(kernels[0][0])
    reach = step * (size - 1) + 1
    out = []
    for o, kernel in enumerate(kernels):
        bias = 0.0 if layer.bias is None else layer.bias[o].item()
        plane = []
        for top in range(-pad, height + pad - reach + 1, stride):
            row = []
            for left in range(-pad, width + pad - reach + 1, stride):
                total = bias
                for c, weights in enumerate(kernel):
                    source = planes[o if depthwise else c]
                    for i in range(size):
                        for j in range(size):
                            y, x = top + step * i, left + step * j
                            if 0 <= y < height and 0 <= x < width:
                                total += weights[i][j] * source[y][x]
                row.append(total)
            plane.append(row)
        out.append(plane)
    return out


def batch_normed(layer: Any, batch: list[Planes]) -> list[Planes]:
    """Over the whole batch in training mode, by the running statistics else."""
    out: list[Planes] = [[] for _ in batch]
    for c in range(len(batch[0])):
        center, spread = layer.running_mean[c].item(), layer.running_var[c].item()
        if layer.training:
            values = [value for planes in batch for value in pixels(planes[c])]
            center = mean(values)
            spread = mean([(value - center) ** 2 for value in values])
        scale = layer.weight[c].item() / math.sqrt(spread + layer.eps)
        for n, planes in enumerate(batch):
            out[n].append(
                [[(v - center) * scale + layer.bias[c].item() for v in row] for row in planes[c]]
            )
    return out


def batch_normed_rows(layer: Any, batch: list[Row]) -> list[Row]:
    normed = batch_normed(layer, [[[[value]] for value in row] for row in batch])
    return [[plane[0][0] for plane in planes] for planes in normed]


def mapped(function: Callable[[float], float], planes: Planes) -> Planes:
    return [[[function(value) for value in row] for row in plane] for plane in planes]


# --- Gates, written out: the factor of each value ------------------------------------------------


def cbam(spec: CBAM, module: Any, batch: list[Planes]) -> list[Planes]:
    height, width = len(batch[0][0]), len(batch[0][0][0])
    factors = [[1.0] * len(planes) for planes in batch]
    if spec.part != "spatial":
        for n, planes in enumerate(batch):
            both = [
                linear(module.fc2, relu(linear(module.fc1, [pool(pixels(p)) for p in planes])))
                for pool in (mean, max)
            ]
            factors[n] = [sigmoid(a + b) for a, b in zip(*both, strict=True)]
    space: list[Planes] = [[[[1.0] * width] * height] for _ in batch]
    if spec.part != "channel":
        pooled: list[Planes] = []
        for planes, gates in zip(batch, factors, strict=True):
            columns = [
                [
                    [gate * plane[y][x] for gate, plane in zip(gates, planes, strict=True)]
                    for x in range(width)
                ]
                for y in range(height)
            ]
            pooled.append([[[pool(c) for c in row] for row in columns] for pool in (mean, max)])
        pad = spec.kernel // 2
        space = batch_normed(module.bn, [convolved(module.conv, p, pad=pad) for p in pooled])
        space = [mapped(sigmoid, planes) for planes in space]
    return [
        [[[gate * value for value in row] for row in planes[0]] for gate in gates]
        for gates, planes in zip(factors, space, strict=True)
    ]


def scse(spec: SCSE, module: Any, batch: list[Planes]) -> list[Planes]:
    out: list[Planes] = []
    for planes in batch:
        height, width = len(planes[0]), len(planes[0][0])
        c, s = [0.0] * len(planes), [[0.0] * width for _ in range(height)]
        if spec.part != "sse":
            hidden = relu(linear(module.fc1, [mean(pixels(plane)) for plane in planes]))
            c = [sigmoid(z) for z in linear(module.fc2, hidden)]
        if spec.part != "cse":
            s = mapped(sigmoid, convolved(module.conv, planes))[0]
        out.append([])
        for plane, gate in zip(planes, c, strict=True):
            factor = [[gate + s[y][x] for x in range(width)] for y in range(height)]
            if spec.part == "both" and spec.combine == "max":
                # The larger value, which for a negative one has the smaller gate.
                factor = [
                    [(max if plane[y][x] > 0 else min)(gate, s[y][x]) for x in range(width)]
                    for y in range(height)
                ]
            out[-1].append(factor)
    return out


def ge(spec: GE, module: Any, batch: list[Planes]) -> list[Planes]:
    height, width = len(batch[0][0]), len(batch[0][0][0])
    extent, gathered = spec.extent or max(height, width), batch
    if spec.variant == "theta-minus":
        # The paper's neighborhood: pixels less than an extent away, on a grid of that step.
        reach = extent - 1 if spec.extent else extent

        def around(plane: Plane, y: int, x: int) -> float:
            return mean(
                [
                    plane[i][j]
                    for i in range(max(y - reach, 0), min(y + reach, height - 1) + 1)
                    for j in range(max(x - reach, 0), min(x + reach, width - 1) + 1)
                ]
            )

        gathered = [
            [
                [
                    [around(plane, y, x) for x in range(0, width, extent)]
                    for y in range(0, height, extent)
                ]
                for plane in planes
            ]
            for planes in batch
        ]
    else:
        for number, (conv, norm) in enumerate(zip(module.convs, module.norms, strict=True)):
            if number:
                gathered = [mapped(lambda v: max(v, 0.0), planes) for planes in gathered]
            how = {"stride": 2, "pad": 1} if spec.extent else {}
            gathered = batch_normed(norm, [convolved(conv, planes, **how) for planes in gathered])
        if spec.variant == "theta-plus":
            for layer in (module.fc1, module.fc2):
                gathered = [
                    convolved(layer, mapped(lambda v: max(v, 0.0), planes)) for planes in gathered
                ]
    rows, columns = len(gathered[0][0]), len(gathered[0][0][0])
    return [
        [
            [
                [sigmoid(plane[y * rows // height][x * columns // width]) for x in range(width)]
                for y in range(height)
            ]
            for plane in planes
        ]
        for planes in gathered
    ]


def channelwise(gates: list[Row], batch: list[Planes]) -> list[Planes]:
    return [
        [[[gate for _ in row] for row in plane] for gate, plane in zip(row, planes, strict=True)]
        for row, planes in zip(gates, batch, strict=True)
    ]


def srm(spec: SRM, module: Any, batch: list[Planes]) -> list[Planes]:
    weights = module.cfc.tolist()
    styles: list[Row] = []
    for planes in batch:
        styles.append([])
        for plane, (a, b) in zip(planes, weights, strict=True):
            values = pixels(plane)
            squares = sum((value - mean(values)) ** 2 for value in values)
            count = len(values) - 1 if spec.unbiased and len(values) > 1 else len(values)
            styles[-1].append(a * mean(values) + b * math.sqrt(squares / count))
    normed = batch_normed_rows(module.bn, styles)
    return channelwise([[sigmoid(z) for z in row] for row in normed], batch)


def gct(spec: GCT, module: Any, batch: list[Planes]) -> list[Planes]:
    alpha, gamma, beta = (p.tolist() for p in (module.alpha, module.gamma, module.beta))
    gates = []
    for planes in batch:
        if spec.norm == "l2":
            lengths = [math.sqrt(sum(v * v for v in pixels(p)) + spec.eps) for p in planes]
        else:
            lengths = [sum(abs(v) for v in pixels(p)) for p in planes]
        s = [a * length for a, length in zip(alpha, lengths, strict=True)]
        if spec.norm == "l2":
            factor = math.sqrt(len(s)) / math.sqrt(sum(v * v for v in s) + spec.eps)
        else:
            factor = len(s) / (sum(abs(v) for v in s) + spec.eps)
        gates.append(
            [1 + math.tanh(g * v * factor + b) for g, v, b in zip(gamma, s, beta, strict=True)]
        )
    return channelwise(gates, batch)


def coord(spec: CoordinateAttention, module: Any, batch: list[Planes]) -> list[Planes]:
    height, width = len(batch[0][0]), len(batch[0][0][0])

    def columns(values: list[Row]) -> Planes:
        """Positions of values per channel, as planes of one column."""
        return [[[v] for v in channel] for channel in zip(*values, strict=True)]

    hidden = []
    for planes in batch:
        strips = [[mean(plane[y]) for plane in planes] for y in range(height)]
        strips += [[mean([row[x] for row in plane]) for plane in planes] for x in range(width)]
        hidden.append(columns([linear(module.conv1, strip) for strip in strips]))
    out = []
    for normed in batch_normed(module.bn1, hidden):
        swished = mapped(lambda v: v * min(max(v + 3, 0.0), 6.0) / 6, normed)
        strips = [list(strip) for strip in zip(*([v[0] for v in p] for p in swished), strict=True)]
        rows = [linear(module.conv_h, strip) for strip in strips[:height]]
        sides = [linear(module.conv_w, strip) for strip in strips[height:]]
        out.append(
            [
                [
                    [sigmoid(rows[y][c]) * sigmoid(sides[x][c]) for x in range(width)]
                    for y in range(height)
                ]
                for c in range(len(rows[0]))
            ]
        )
    return out


def ese(spec: ESE, module: Any, batch: list[Planes]) -> list[Planes]:
    def opened(z: float) -> float:
        return sigmoid(z) if spec.gate == "sigmoid" else min(max(z + 3, 0.0), 6.0) / 6

    gates = [
        [opened(z) for z in linear(module.fc, [mean(pixels(plane)) for plane in planes])]
        for planes in batch
    ]
    return channelwise(gates, batch)


def bam(spec: BAM, module: Any, batch: list[Planes]) -> list[Planes]:
    hidden = [linear(module.fc1, [mean(pixels(plane)) for plane in planes]) for planes in batch]
    channels = [linear(module.fc2, relu(row)) for row in batch_normed_rows(module.fc_bn, hidden)]
    space = [convolved(module.conv1, planes) for planes in batch]
    for norm, conv in ((module.bn1, module.conv2), (module.bn2, module.conv3), (module.bn3, None)):
        space = [mapped(lambda v: max(v, 0.0), p) for p in batch_normed(norm, space)]
        if conv is not None:
            step = spec.dilation
            space = [convolved(conv, planes, pad=step, step=step) for planes in space]
    space = [convolved(module.conv4, planes) for planes in space]
    return [
        [
            mapped(lambda s, c=c: 1 + sigmoid(c + s if spec.combine == "sum" else c * s), planes)[0]  # type: ignore[misc]
            for c in row
        ]
        for row, planes in zip(channels, space, strict=True)
    ]


def simam(spec: SimAM, module: Any, batch: list[Planes]) -> list[Planes]:
    out: list[Planes] = []
    for planes in batch:
        out.append([])
        for plane in planes:
            values = pixels(plane)
            center = mean(values)
            variance = sum((v - center) ** 2 for v in values) / max(len(values) - 1, 1)
            floor = 4 * (variance + spec.eps)
            # The inverse of the least energy, Eq. 5.
            out[-1].append(mapped(lambda v: sigmoid((v - center) ** 2 / floor + 0.5), [plane])[0])  # noqa: B023
    return out


SPECS: list[tuple[Gate, Callable[..., list[Planes]]]] = [
    *[(s, cbam) for s in (CBAM(4), CBAM(4, "channel", bias=False), CBAM(part="spatial", kernel=3))],
    (CBAM((2, 4, 4, 4), init="identity", part="channel"), lambda *a: doubled(cbam, *a)),
    *[(s, scse) for s in (SCSE(), SCSE(4, combine="max"), SCSE(part="cse", bias=False))],
    (SCSE(part="sse"), scse),
    *[(s, ge) for s in (GE(), GE(2), GE(3), GE(8), GE(2, "theta"), GE(8, "theta-plus", 4))],
    *[(s, srm) for s in (SRM(), SRM(unbiased=True))],
    *[(s, gct) for s in (GCT(), GCT("l1"), GCT(eps=0.5), GCT("l1", eps=0.5))],
    *[(s, coord) for s in (CoordinateAttention(), CoordinateAttention(2, bias=False))],
    *[(s, ese) for s in (ESE(), ESE("sigmoid"))],
    *[(s, bam) for s in (BAM(4), BAM(4, dilation=1, combine="product"))],
    *[(s, simam) for s in (SimAM(), SimAM(0.1))],
]


def doubled(formula: Callable[..., list[Planes]], *args: Any) -> list[Planes]:
    return [mapped(lambda v: 2 * v, planes) for planes in formula(*args)]


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("shape", [(3, 12, 5, 4), (2, 3, 3, 7), (2, 5, 1, 1)], ids=str)
@pytest.mark.parametrize(
    ("spec", "formula"), SPECS, ids=lambda v: str(v) if isinstance(v, Gate) else ""
)
def test_gate_by_hand(
    spec: Gate, formula: Callable[..., list[Planes]], shape: tuple[int, ...], training: bool
) -> None:
    module = gate_module(spec, shape[1]).train(training)
    x = images(*shape)
    factors = torch.tensor(formula(spec, module, x.tolist()), dtype=torch.float64)
    assert factors.shape == x.shape
    with torch.no_grad():
        assert relative_error(module(x), factors * x) < 1e-12


@pytest.mark.parametrize("variant", ["theta", "theta-plus"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_gather_of_the_whole_map_by_hand(variant: Any, training: bool) -> None:
    spec = GE(variant=variant, side=(3, 4, 5, 6), reduction=4)
    module = gate_module(spec, 6).train(training)
    x = images(2, 6, 3, 3)
    factors = torch.tensor(ge(spec, module, x.tolist()), dtype=torch.float64)
    with torch.no_grad():
        assert relative_error(module(x), factors * x) < 1e-12
    fourth = spec.build(gate_site(6, stage=4))
    assert fourth(torch.zeros(2, 6, 6, 6)).shape == (2, 6, 6, 6)
