"""The values of a network's gates on data, by channel and by class.

Hu et al. 2017 (arXiv:1709.01507v4), Section 7.2 and Fig. 6, plot the mean excitation of each
channel for selected classes, stage by stage.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from senetzoo.errors import ConfigError
from senetzoo.gates.common import GateModule
from senetzoo.nn.modes import evaluated

# Values closer to an end than this fraction of the range are closed or open, and values that vary
# less than this fraction over all images are constant.
TOLERANCE = 0.05
# Bins of the histograms.
BINS = 50


@dataclass(frozen=True)
class Excitation:
    """The values of one gate, one for each image and channel.

    For gates with one factor per channel, the value is that factor. For gates whose factors differ
    between pixels (CBAM and scSE, for example) and for your own gates, it is the single factor that
    best approximates the gate's output, by least squares.

    Args:
        path: Name of the gate in the network.
        gate: Text of the gate.
        top: Upper bound of the gate's values; 1 if they have none (non-local, shuffle attention,
            global context that is added), and for your own gates.
        counts: (K,), number of images of each class.
        by_class: (K, C), mean of each class; NaN for a class without images.
        mean: (C,), over all images.
        std: (C,), over all images; 0 for one image.
        low: (C,), minimum over all images.
        high: (C,), maximum over all images.
        histogram: (K, 50), values of all channels for the images of each class, in equal bins from
            0 to `top`; values outside are in the first and last bin.
    """

    path: str
    gate: str
    top: float
    counts: Tensor
    by_class: Tensor
    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    histogram: Tensor

    @property
    def relative(self) -> Tensor:
        """(C,), the mean divided by `top`: closed near 0, open near 1."""
        return self.mean / self.top

    @property
    def closed(self) -> Tensor:
        """(C,), whether the channel is closed for all images."""
        return self._near(0.0)

    @property
    def open(self) -> Tensor:
        """(C,), whether the channel is open for all images."""
        return self._near(self.top)

    def _near(self, end: float) -> Tensor:
        within = TOLERANCE * self.top
        return (self.low > end - within) & (self.high < end + within)

    @property
    def constant(self) -> Tensor:
        """(C,), whether the value is (nearly) the same for all images."""
        return self.high - self.low < TOLERANCE * self.top

    @property
    def variation(self) -> float:
        """How much the gate depends on the image, from 0 to 1.

        The root mean square of its values after subtracting each channel's mean, divided by that
        of the values: the relative error of replacing the gate with a constant.
        """
        left = float(self.std.square().mean())
        whole = left + float(self.mean.square().mean())
        return (left / whole) ** 0.5 if whole else 0.0

    def quantiles(self, parts: tuple[float, ...], label: int | None = None) -> tuple[float, ...]:
        """Quantiles of the values, read from the histogram.

        Args:
            parts: Quantiles from 0 to 1.
            label: Index of a class; None for all images.
        """
        counts = self.histogram.sum(0) if label is None else self.histogram[label]
        heaped = torch.cat([torch.zeros(1), counts.cumsum(0) / max(float(counts.sum()), 1.0)])
        found = []
        for part in parts:
            last = int((heaped < part).sum().clamp(1, BINS))
            low, high = float(heaped[last - 1]), float(heaped[last])
            within = (part - low) / (high - low) if high > low else 0.0
            found.append(self.top * (last - 1 + within) / BINS)
        return tuple(found)

    @property
    def spread(self) -> float:
        """How much classes differ: standard deviation of their means, averaged over channels."""
        means = self.by_class[self.counts > 0]
        return float(means.std(0, correction=0).mean()) if len(means) > 1 else 0.0

    def as_dict(self, classes: Sequence[str], drift: Mapping[str, float] | None) -> dict[str, Any]:
        """All numbers, for JSON.

        Args:
            classes: Names of the classes.
            drift: Result of `drift`; None if the initial weights are unknown.
        """
        return {
            "gate": self.path,
            "policy": self.gate,
            "top": self.top,
            "images": int(self.counts.sum()),
            "mean": _rounded(self.mean),
            "std": _rounded(self.std),
            "low": _rounded(self.low),
            "high": _rounded(self.high),
            "by_class": {
                name: _rounded(self.by_class[k])
                for k, name in enumerate(classes)
                if int(self.counts[k])
            },
            "histogram": self.histogram.sum(0).tolist(),
            "closed": int(self.closed.sum()),
            "open": int(self.open.sum()),
            "constant": int(self.constant.sum()),
            "variation": self.variation,
            "spread": self.spread,
            "drift": None if drift is None else drift.get(self.path),
        }


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 6) for value in values.tolist()]


def short_name(path: str) -> str:
    """Name of a gate in tables: ``"layer1.0 standard"`` for ``"layer1.0.slots.standard"``."""
    return path.replace(".slots.", " ")


class _Statistics:
    """Running statistics of one gate's values."""

    def __init__(self, channels: int, classes: int, top: float) -> None:
        double = torch.float64
        self.top = top
        self.histogram = torch.zeros(classes, BINS, dtype=double)
        self.by_class = torch.zeros(classes, channels, dtype=double)
        self.squares = torch.zeros(channels, dtype=double)
        self.low = torch.full((channels,), torch.inf, dtype=double)
        self.high = torch.full((channels,), -torch.inf, dtype=double)

    def add(self, values: Tensor, labels: Tensor) -> None:
        values = values.detach().double().cpu()
        self.by_class.index_add_(0, labels, values)
        self.squares += values.square().sum(0)
        self.low = torch.minimum(self.low, values.amin(0))
        self.high = torch.maximum(self.high, values.amax(0))
        bins = (values / self.top * BINS).long().clamp(0, BINS - 1) + BINS * labels[:, None]
        counts = bins.flatten().bincount(minlength=self.histogram.numel())
        self.histogram += counts.view_as(self.histogram)

    def excitation(self, path: str, gate: GateModule, counts: Tensor) -> Excitation:
        images = int(counts.sum())
        mean = self.by_class.sum(0) / images
        return Excitation(
            path=path,
            gate=gate.spec.text(),
            top=gate.top,
            counts=counts,
            # 0 / 0 is NaN for a class without images.
            by_class=self.by_class / counts[:, None],
            mean=mean,
            std=(self.squares / images - mean.square()).clamp_min(0.0).sqrt(),
            low=self.low,
            high=self.high,
            histogram=self.histogram,
        )


def excitations(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, classes: int
) -> dict[str, Excitation]:
    """Measure the values of all gates of `model` on images.

    Args:
        model: A network with gates of this zoo: one of this zoo, or another one after
            `senetzoo.attach`. It runs in eval mode on its device; its mode and hooks don't change.
        batches: Pairs of images (N, C, H, W) and labels (N,).
        classes: Number of classes; labels are from 0 to ``classes - 1``.

    Returns:
        Excitations by name of the gate, in the order of the network.

    Raises:
        ConfigError: There are no gates or no images, or a label is out of range.
    """
    model = evaluated(model)
    gates = {n: module for n, module in model.named_modules() if isinstance(module, GateModule)}
    if not gates:
        raise ConfigError(
            "The network has no gates to look at.",
            "Its policy is empty, or its gates aren't from this zoo.",
            "Give a network with gates, such as se_resnet20. Fine-tune one: senetzoo finetune "
            "PHOTOS --model se_resnet20. Without gates, type: senetzoo predict NETWORK IMAGE "
            "--explain FOLDER",
        )
    values: dict[str, Tensor] = {}
    for name, module in gates.items():
        module.register_forward_hook(
            lambda gate, args, out, name=name: values.update({name: _value(gate, args[0], out)})
        )
    sums: dict[str, _Statistics] = {}
    counts = torch.zeros(classes, dtype=torch.int64)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.no_grad():
        for images, labels in batches:
            labels = labels.cpu()
            wrong = labels[(labels < 0) | (labels >= classes)]
            if len(wrong):
                raise ConfigError(
                    f"An image has the label {int(wrong[0])}.",
                    f"With {classes} classes, labels are from 0 to {classes - 1}.",
                )
            values.clear()
            model(images.to(device))
            counts += labels.bincount(minlength=classes)
            for name, found in values.items():
                if name not in sums:
                    sums[name] = _Statistics(found.shape[1], classes, gates[name].top)
                sums[name].add(found, labels)
    if not int(counts.sum()):
        raise ConfigError("There are no images to look at.", "The batches are empty.")
    return {
        name: sums[name].excitation(name, gate, counts)
        for name, gate in gates.items()
        if name in sums
    }


def _value(gate: GateModule, x: Tensor, out: Tensor) -> Tensor:
    """The gate's values (N, C), as described in `Excitation`."""
    channelwise = getattr(gate, "excitation", None)
    if channelwise is not None:
        return channelwise(x)  # type: ignore[no-any-return]  # each of the gates' is a Tensor
    x, out = x.double(), out.double()
    energy = x.square().sum(gate.space)
    # Any gate leaves a map of zeros unchanged.
    return torch.where(energy > 0, (x * out).sum(gate.space) / energy, 1.0)


def drift(model: nn.Module, initial: nn.Module) -> dict[str, float]:
    """How far each gate of `model` has moved from its initialization.

    Args:
        model: A trained network.
        initial: The same network before training: ``config(name).build(seed=seed)`` with the seed
            of its training, which is stored in its manifest entry or its run.

    Returns:
        By name of the gate, the distance of its parameters from the initial ones, divided by the
        norm of the initial ones: 0 for a gate that didn't move. Gates without parameters, and gates
        whose initial parameters are all zero, are left out.
    """
    before = dict(initial.named_modules())
    found: dict[str, float] = {}
    for name, module in model.named_modules():
        if not isinstance(module, GateModule):
            continue
        pairs = [
            (now.detach().double().cpu(), then.detach().double().cpu())
            for now, then in zip(module.parameters(), before[name].parameters(), strict=True)
        ]
        length = sum(float(then.square().sum()) for _, then in pairs)
        if length:
            moved = sum(float((now - then).square().sum()) for now, then in pairs)
            found[name] = (moved / length) ** 0.5
    return found
