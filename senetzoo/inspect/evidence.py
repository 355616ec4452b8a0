"""How a network classifies one image: where it looks, and what its gates do."""

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
        value: The factor on the channel's map.
        relative: The value divided by the gate's upper bound: closed near 0, open near 1.
    """

    gate: str
    channel: int
    value: float
    relative: float


@dataclass(frozen=True)
class Evidence:
    """How a network classifies one image.

    Args:
        picture: (C, H, W), uint8, the crop that the network saw.
        probabilities: (K,), of all classes.
        target: The class of the heat maps.
        grad_cam: (h, w), nonnegative.
        layer_cam: (h, w), nonnegative.
        gates: Excitations of this image by name of the gate, in the order of the network; ``mean``
            has the value of each channel. Empty for a network without gates.
    """

    picture: Tensor
    probabilities: Tensor
    target: int
    grad_cam: Tensor
    layer_cam: Tensor
    gates: dict[str, Excitation]

    def closed(self, count: int) -> list[Channel]:
        """The `count` most closed channels of all gates, starting with the most closed one."""
        return self.opened(count, most=False)

    def opened(self, count: int, *, most: bool = True) -> list[Channel]:
        """The `count` most open channels of all gates, or the least open ones, in that order."""
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
    """Collect how a network classifies an image.

    Args:
        model: A network of the zoo. It runs in eval mode; its mode doesn't change.
        image: (in_chans, H, W), preprocessed.
        transforms: Its preprocessing, to recover the pixels.
        target: The class to explain; None for the most probable one.
        layer: Which map, as in `senetzoo.inspect.grad_cam`.

    Raises:
        ConfigError: There is no such class or layer.
        WeightsError: The logits aren't finite although the image is.
        DataError: Neither the logits nor the image are finite.
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
