"""What a network makes of one image: where it looks, and what its gates do there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from senetzoo.gates.common import GateModule
from senetzoo.inspect.cam import class_maps
from senetzoo.inspect.excitations import Excitation, excitations
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.preprocessing import Preprocessing


@dataclass(frozen=True)
class Channel:
    """One channel of one gate, for one image.

    Args:
        gate: The gate's name in the network.
        channel: Index of the channel.
        value: What its map is multiplied by.
        relative: The value as a part of what an open gate gives: near 0 is closed, near 1 open.
    """

    gate: str
    channel: int
    value: float
    relative: float


@dataclass(frozen=True)
class Evidence:
    """A network's look at one image.

    Args:
        picture: (C, H, W), uint8, the crop that the network saw.
        probabilities: (K,), of all classes.
        target: The class that the heat maps are of.
        grad_cam: (h, w), from 0.
        layer_cam: (h, w), from 0.
        gates: By the gates' names in the network's order, of this image alone: ``mean`` holds each
            channel's value. Empty for a network without gates.
    """

    picture: Tensor
    probabilities: Tensor
    target: int
    grad_cam: Tensor
    layer_cam: Tensor
    gates: dict[str, Excitation]

    def closed(self, count: int) -> list[Channel]:
        """The `count` channels that are closed most, of all gates, the first most of all."""
        return self.opened(count, most=False)

    def opened(self, count: int, *, most: bool = True) -> list[Channel]:
        """The `count` channels that are opened most, of all gates, or least; these come first."""
        if not self.gates:
            return []
        channels = [(gate, k) for gate in self.gates.values() for k in range(len(gate.mean))]
        relative = torch.cat([gate.relative for gate in self.gates.values()])
        order = relative.argsort(descending=most, stable=True)[:count]
        return [
            Channel(gate.path, k, float(gate.mean[k]), float(relative[n]))
            for n in order.tolist()
            for gate, k in [channels[n]]
        ]


def evidence(
    model: Classifier,
    image: Tensor,
    transforms: Preprocessing,
    *,
    target: int | None = None,
    layer: int | str | None = None,
) -> Evidence:
    """Look at what a network makes of an image.

    Args:
        model: A network of the zoo; it computes in eval mode and gets its own mode back.
        image: (in_chans, H, W), transformed.
        transforms: What it went through, to show the pixels again.
        target: The class to look for; None for the most probable one.
        layer: The map to look at, as of `senetzoo.inspect.grad_cam`.

    Raises:
        ConfigError: No such class or layer.
        WeightsError: The logits are not finite.
        DataError: They are not, and the image is not.
    """
    images = image[None]
    logits, chosen, grad_cam, layer_cam = class_maps(model, images, target=target, layer=layer)
    gates: dict[str, Excitation] = {}
    if any(isinstance(module, GateModule) for module in model.modules()):
        weight = next(model.parameters())
        gates = excitations(model, [(images.to(weight.dtype), torch.tensor([0]))], classes=1)
    return Evidence(
        picture=transforms.pixels(image.cpu()),
        probabilities=(logits[0].float() / model.temperature).softmax(0).cpu(),
        target=int(chosen[0]),
        grad_cam=grad_cam[0].float().cpu(),
        layer_cam=layer_cam[0].float().cpu(),
        gates=gates,
    )
