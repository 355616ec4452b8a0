"""The gates against the papers' formulas: the factor of each value of a map."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from support.networks import gate_module, gate_site, images, relative_error
from torch import Tensor
from torch.nn import functional as F

from senetzoo import (
    BAM,
    CBAM,
    ECA,
    ELA,
    ESE,
    FCA,
    GC,
    GCT,
    GE,
    SCSE,
    SE,
    SGE,
    SRM,
    CoordinateAttention,
    MultiScaleAttention,
    NonLocal,
    ShuffleAttention,
    SimAM,
    TripletAttention,
)
from senetzoo.gates.fca import TOP
from senetzoo.policies.algebra import Gate

Formula: TypeAlias = Callable[[Any, Any, Tensor], Tensor]


# --- Layers, written out -------------------------------------------------------------------------


def sigmoid(z: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-z))


def linear(layer: Any, z: Tensor) -> Tensor:
    """Apply a layer to (N, C) or (N, C, L), across C."""
    out = torch.einsum("oc,nc...->no...", layer.weight.flatten(1), z)
    return out if layer.bias is None else out + layer.bias.reshape(-1, *[1] * (z.ndim - 2))


def conv(layer: Any, z: Tensor, **how: int) -> Tensor:
    groups = z.shape[1] // layer.weight.shape[1]
    return F.conv2d(z, layer.weight, layer.bias, groups=groups, **how)


def normed(layer: Any, z: Tensor) -> Tensor:
    """Batch norm: by the batch in training mode, otherwise by the running statistics."""
    center, variance = layer.running_mean, layer.running_var
    if layer.training:
        values = z.transpose(0, 1).flatten(1)
        center = values.mean(1)
        variance = (values - center[:, None]).square().mean(1)
    shape = (-1, *[1] * (z.ndim - 2))
    scaled = (z - center.reshape(shape)) / (variance + layer.eps).sqrt().reshape(shape)
    return scaled * layer.weight.reshape(shape) + layer.bias.reshape(shape)  # type: ignore[no-any-return]


# --- Gates, written out --------------------------------------------------------------------------


def se(spec: SE, m: Any, x: Tensor) -> Tensor:
    z = linear(m.fc1, x.amax((2, 3)) if spec.squeeze == "max" else x.mean((2, 3)))
    e = linear(m.fc2, z.clamp(min=0) if spec.act == "relu" else z * sigmoid(z))
    gate = sigmoid(e) if spec.gate == "sigmoid" else (e / 6 + 0.5).clamp(0, 1)
    return spec.scale * gate[:, :, None, None]


def eca(spec: ECA, m: Any, x: Tensor) -> Tensor:
    weights = m.conv.weight.flatten()
    reach, channels = len(weights) // 2, x.shape[1]
    z = F.pad(x.mean((2, 3)), (reach, reach))
    total = torch.stack([w * z[:, j : j + channels] for j, w in enumerate(weights)]).sum(0)
    return sigmoid(total)[:, :, None, None]


def cbam(spec: CBAM, m: Any, x: Tensor) -> Tensor:
    factor = torch.ones_like(x)
    if spec.part != "spatial":
        pools = (x.mean((2, 3)), x.amax((2, 3)))
        both = [linear(m.fc2, linear(m.fc1, pool).clamp(min=0)) for pool in pools]
        factor = factor * sigmoid(both[0] + both[1])[:, :, None, None]
    if spec.part != "channel":
        y = x * factor
        pooled = torch.stack([y.mean(1), y.amax(1)], 1)
        factor = factor * sigmoid(normed(m.bn, conv(m.conv, pooled, padding=spec.kernel // 2)))
    return factor * 2 if spec.init == "identity" else factor


def scse(spec: SCSE, m: Any, x: Tensor) -> Tensor:
    c, s = torch.zeros(2, *x.shape, dtype=x.dtype)
    if spec.part != "sse":
        hidden = linear(m.fc1, x.mean((2, 3))).clamp(min=0)
        c = c + sigmoid(linear(m.fc2, hidden))[:, :, None, None]
    if spec.part != "cse":
        s = s + sigmoid(conv(m.conv, x))
    if spec.part == "both" and spec.combine == "max":
        # The larger value; for negative ones, that of the smaller gate.
        return torch.where(x > 0, torch.maximum(c, s), torch.minimum(c, s))
    return c + s  # type: ignore[no-any-return]


def ge(spec: GE, m: Any, x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    gathered = x
    if spec.variant == "theta-minus":
        # The paper's neighborhood: pixels less than an extent away, on a grid of that step.
        step = spec.extent or max(height, width)
        reach = step - 1 if spec.extent else step
        rows = [
            [
                x[..., max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1]
                for j in range(0, width, step)
            ]
            for i in range(0, height, step)
        ]
        means = [torch.stack([area.mean((2, 3)) for area in row], 2) for row in rows]
        gathered = torch.stack(means, 2)
    else:
        how = {"stride": 2, "padding": 1} if spec.extent else {}
        for number, (layer, norm) in enumerate(zip(m.convs, m.norms, strict=True)):
            z = gathered.clamp(min=0) if number else gathered
            gathered = normed(norm, conv(layer, z, **how))
        if spec.variant == "theta-plus":
            for layer in (m.fc1, m.fc2):
                gathered = conv(layer, gathered.clamp(min=0))
    nearest = [
        torch.arange(size) * gathered.shape[2 + axis] // size
        for axis, size in enumerate((height, width))
    ]
    return sigmoid(gathered[:, :, nearest[0]][..., nearest[1]])


def srm(spec: SRM, m: Any, x: Tensor) -> Tensor:
    values, (a, b) = x.flatten(2), m.cfc.T
    mean = values.mean(2)
    squares = (values - mean[..., None]).square().sum(2)
    pixels = values.shape[2]
    std = (squares / (pixels - 1 if spec.unbiased and pixels > 1 else pixels)).sqrt()
    return sigmoid(normed(m.bn, a * mean + b * std))[:, :, None, None]


def gct(spec: GCT, m: Any, x: Tensor) -> Tensor:
    channels = x.shape[1]
    if spec.norm == "l2":
        s = m.alpha * (x.square().sum((2, 3)) + spec.eps).sqrt()
        s = s * (channels**0.5 / (s.square().sum(1, keepdim=True) + spec.eps).sqrt())
    else:
        s = m.alpha * x.abs().sum((2, 3))
        s = s * (channels / (s.abs().sum(1, keepdim=True) + spec.eps))
    return 1 + torch.tanh(m.gamma * s + m.beta)[:, :, None, None]


def coord(spec: CoordinateAttention, m: Any, x: Tensor) -> Tensor:
    z = normed(m.bn1, linear(m.conv1, torch.cat([x.mean(3), x.mean(2)], 2)))
    z = z * (z + 3).clamp(0, 6) / 6
    rows, columns = z.split(x.shape[2:], 2)  # type: ignore[no-untyped-call]
    rows, columns = sigmoid(linear(m.conv_h, rows)), sigmoid(linear(m.conv_w, columns))
    return rows[:, :, :, None] * columns[:, :, None, :]


def ese(spec: ESE, m: Any, x: Tensor) -> Tensor:
    z = linear(m.fc, x.mean((2, 3)))
    gate = sigmoid(z) if spec.gate == "sigmoid" else (z + 3).clamp(0, 6) / 6
    return gate[:, :, None, None]


def bam(spec: BAM, m: Any, x: Tensor) -> Tensor:
    c = linear(m.fc2, normed(m.fc_bn, linear(m.fc1, x.mean((2, 3)))).clamp(min=0))[..., None, None]
    step = spec.dilation
    s = normed(m.bn1, conv(m.conv1, x)).clamp(min=0)
    s = normed(m.bn2, conv(m.conv2, s, padding=step, dilation=step)).clamp(min=0)
    s = normed(m.bn3, conv(m.conv3, s, padding=step, dilation=step)).clamp(min=0)
    s = conv(m.conv4, s)
    return 1 + sigmoid(c + s if spec.combine == "sum" else c * s)


def simam(spec: SimAM, m: Any, x: Tensor) -> Tensor:
    squares = (x - x.mean((2, 3), keepdim=True)).square()
    variance = squares.sum((2, 3), keepdim=True) / max(x[0, 0].numel() - 1, 1)
    # The inverse of the least energy, Eq. 5.
    return sigmoid(squares / (4 * (variance + spec.eps)) + 0.5)


def gc(spec: GC, m: Any, x: Tensor) -> Tensor:
    logits = torch.einsum("c,nchw->nhw", m.mask.weight[0], x).exp()
    weights = logits / logits.sum((1, 2), keepdim=True)
    z = linear(m.fc1, torch.einsum("nhw,nchw->nc", weights, x))
    center = z - z.mean(1, keepdim=True)
    z = center / (center.square().mean(1, keepdim=True) + m.norm.eps).sqrt()
    z = linear(m.fc2, (z * m.norm.weight + m.norm.bias).clamp(min=0))[:, :, None, None]
    return 1 + z / x if spec.fusion == "add" else sigmoid(z)


def triplet(spec: TripletAttention, m: Any, x: Tensor) -> Tensor:
    # The paper's rotations, counterclockwise by 90 degrees and back.
    factors = []
    turns = ((0, 1, 2, 3), (0, 2, 1, 3), (0, 3, 2, 1))
    for turn, layer, norm in zip(turns, m.convs, m.norms, strict=True):
        y = x.permute(turn)
        pooled = torch.stack([y.amax(1), y.mean(1)], 1)
        gated = y * sigmoid(normed(norm, conv(layer, pooled, padding=spec.kernel // 2)))
        factors.append(gated.permute(turn))
    return sum(factors) / 3 / x


def sge(spec: SGE, m: Any, x: Tensor) -> Tensor:
    factor = torch.empty_like(x)
    size = x.shape[1] // len(m.weight)
    for group, (a, b) in enumerate(zip(m.weight, m.bias, strict=True)):
        inside = slice(group * size, (group + 1) * size)
        for n, image in enumerate(x):
            mean = image[inside].mean((1, 2))
            z = torch.einsum("chw,c->hw", image[inside], mean)
            deviation = z.std() if z.numel() > 1 else 0.0
            factor[n, inside] = sigmoid((z - z.mean()) / (deviation + 1e-5) * a + b)
    return factor


def fca(spec: FCA, m: Any, x: Tensor) -> Tensor:
    channels, height, width = x.shape[1:]
    z = torch.zeros(x.shape[:2], dtype=x.dtype)
    for c in range(channels):
        u, v = TOP[c * spec.frequencies // channels]
        u, v = u * height // 7, v * width // 7
        norm = (2 ** ((u > 0) + (v > 0)) / (height * width)) ** 0.5
        for i in range(height):
            for j in range(width):
                wave = math.cos(math.pi * u * (i + 0.5) / height)
                wave *= math.cos(math.pi * v * (j + 0.5) / width)
                z[:, c] += norm * wave * x[:, c, i, j]
    return sigmoid(linear(m.fc2, linear(m.fc1, z).clamp(min=0)))[:, :, None, None]


def shuffle(spec: ShuffleAttention, m: Any, x: Tensor) -> Tensor:
    half = len(m.weight)
    y = torch.empty_like(x)
    for c in range(x.shape[1]):
        k, plane = c % half, x[:, c]
        mean = plane.mean((1, 2), keepdim=True)
        if c // half % 2 == 0:
            z = m.weight[k] * mean + m.bias[k]
        else:
            variance = (plane - mean).square().mean((1, 2), keepdim=True)
            z = (plane - mean) / (variance + m.norm.eps).sqrt()
            z = m.norm_weight[k] * (z * m.norm.weight[k] + m.norm.bias[k]) + m.norm_bias[k]
        # The shuffle moves the first half of all channels to the even indices.
        middle = x.shape[1] // 2
        y[:, 2 * (c % middle) + c // middle] = plane * sigmoid(z)
    return y / x


def multiscale(spec: MultiScaleAttention, m: Any, x: Tensor) -> Tensor:
    factor = torch.empty_like(x)
    size = m.conv1.weight.shape[0]
    for start in range(0, x.shape[1], size):
        part = x[:, start : start + size]
        rows, columns = (sigmoid(linear(m.conv1, part.mean(d))) for d in (3, 2))
        a = torch.einsum("nchw,nch,ncw->nchw", part, rows, columns)
        center = a - a.mean((2, 3), keepdim=True)
        a = center / (center.square().mean((2, 3), keepdim=True) + m.norm.eps).sqrt()
        a = a * m.norm.weight[:, None, None] + m.norm.bias[:, None, None]
        b = conv(m.conv2, part, padding=1)
        first, second = (z.mean((2, 3)).exp() for z in (a, b))
        first, second = (z / z.sum(1, keepdim=True) for z in (first, second))
        z = torch.einsum("nc,nchw->nhw", first, b) + torch.einsum("nc,nchw->nhw", second, a)
        factor[:, start : start + size] = sigmoid(z)[:, None]
    return factor


def ela(spec: ELA, m: Any, x: Tensor) -> Tensor:
    factors = []
    for strip in (x.mean(3), x.mean(2)):
        length, reach = strip.shape[2], spec.kernel // 2
        padded, kernel = F.pad(strip, (reach, reach)), m.conv.weight[:, 0]
        z = sum(kernel[:, j, None] * padded[:, :, j : j + length] for j in range(spec.kernel))
        grouped = z.reshape(len(x), m.norm.num_groups, -1)
        center = grouped - grouped.mean(2, keepdim=True)
        grouped = center / (center.square().mean(2, keepdim=True) + m.norm.eps).sqrt()
        z = grouped.reshape(strip.shape) * m.norm.weight[:, None] + m.norm.bias[:, None]
        factors.append(sigmoid(z))
    return torch.einsum("nch,ncw->nchw", *factors)


def nonlocal_(spec: NonLocal, m: Any, x: Tensor) -> Tensor:
    pixels = x.flatten(2)
    q, k, v = (linear(layer, pixels) for layer in (m.q, m.k, m.v))
    logits = torch.einsum("nci,ncj->nij", q, k)
    if spec.scale == "sqrt":
        logits = logits / x.shape[1] ** 0.5
    weights = logits.exp() / logits.exp().sum(2, keepdim=True)
    z = normed(m.bn, linear(m.out, torch.einsum("nij,ncj->nci", weights, v)))
    return 1 + z.reshape(x.shape) / x


SPECS: dict[Formula, list[Gate]] = {
    se: [
        *(SE(4), SE(4, bias=False), SE(4, act="silu"), SE(4, gate="hardsigmoid"), SE(16)),
        *(SE(4, scale=1.5), SE(4, squeeze="max"), SE(4, init="identity"), SE(width=5)),
        *(SE(4, width="round8"), SE((2, 4, 8, 8))),
        SE(2, bias=False, act="silu", gate="hardsigmoid", scale=0.5, squeeze="max"),
    ],
    eca: [ECA(), ECA(1), ECA(7), ECA(gamma=1.0, beta=2.0)],
    cbam: [
        *(CBAM(4), CBAM(4, "channel", bias=False), CBAM(part="spatial", kernel=3)),
        CBAM((2, 4, 4, 4), init="identity", part="channel"),
    ],
    scse: [SCSE(), SCSE(4, combine="max"), SCSE(part="cse", bias=False), SCSE(part="sse")],
    ge: [GE(), GE(2), GE(3), GE(8), GE(2, "theta"), GE(8, "theta-plus", 4)],
    srm: [SRM(), SRM(unbiased=True)],
    gct: [GCT(), GCT("l1"), GCT(eps=0.5), GCT("l1", eps=0.5)],
    coord: [CoordinateAttention(), CoordinateAttention(2, bias=False)],
    ese: [ESE(), ESE("sigmoid")],
    bam: [BAM(4), BAM(4, dilation=1, combine="product")],
    simam: [SimAM(), SimAM(0.1)],
    gc: [GC(), GC(1, "scale")],
    triplet: [TripletAttention(), TripletAttention(3)],
    sge: [SGE(), SGE(2)],
    fca: [FCA(4), FCA(4, 3)],
    shuffle: [ShuffleAttention(), ShuffleAttention(2)],
    multiscale: [MultiScaleAttention(), MultiScaleAttention(2)],
    ela: [ELA(), ELA(5)],
    nonlocal_: [NonLocal(), NonLocal(4, "sqrt")],
}


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("shape", [(3, 12, 5, 4), (2, 3, 3, 7), (2, 5, 1, 1)], ids=str)
@pytest.mark.parametrize(
    ("spec", "formula"),
    [pytest.param(spec, formula, id=str(spec)) for formula in SPECS for spec in SPECS[formula]],
)
def test_gate_by_hand(spec: Gate, formula: Formula, shape: tuple[int, ...], training: bool) -> None:
    # Two halves need an even number of channels.
    shape = (shape[0], shape[1] + shape[1] % 2, *shape[2:]) if formula is shuffle else shape
    module = gate_module(spec, shape[1]).train(training)
    x = images(*shape)
    with torch.no_grad():
        expected = formula(spec, module, x) * x
        assert relative_error(module(x), expected) < 1e-12
        if hasattr(module, "excitation"):
            assert module.excitation(x).shape == shape[:2]  # type: ignore[operator]
            assert relative_error(module.excitation(x)[:, :, None, None] * x, expected) < 1e-12  # type: ignore[operator]


@pytest.mark.parametrize("variant", ["theta", "theta-plus"])
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_gather_of_the_whole_map_by_hand(variant: Any, training: bool) -> None:
    spec = GE(variant=variant, side=(3, 4, 5, 6), reduction=4)
    module = gate_module(spec, 6).train(training)
    x = images(2, 6, 3, 3)
    with torch.no_grad():
        assert relative_error(module(x), ge(spec, module, x) * x) < 1e-12
    fourth = spec.build(gate_site(6, stage=4))
    assert fourth(torch.zeros(2, 6, 6, 6)).shape == (2, 6, 6, 6)
