"""Gather-Excite.

Hu, Shen, Albanie, Sun, Vedaldi 2018, "Gather-Excite: Exploiting Feature Context in Convolutional
Neural Networks" (arXiv:1810.12348), Sections 3 and 4; layers as in the released prototxt files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo._utils.checks import Ge, PerStage
from senetzoo.errors import PolicyError
from senetzoo.gates.common import GateModule, Init, for_stage, hidden, zero
from senetzoo.nn.slots import Site
from senetzoo.policies.algebra import Gate


@dataclass(frozen=True)
class GE(Gate):
    """Gather each channel over an extent, then excite: ``y = x * sigmoid(resize(gather(x)))``.

    Resizing is by nearest neighbor. With weights and a global extent, the batch norms get one value
    per image, so training needs batches of at least two.

    Args:
        extent: Stride of the gathered regions in pixels of the map (the extent ratio e of the
            paper), each ``2 * extent - 1`` pixels wide; or 0 for one region, the whole map.
        variant: ``"theta-minus"``: gather by mean pooling, without parameters; ``"theta"``: by
            depthwise convolutions with batch norms (as many 3x3 convolutions of stride 2 as the
            extent takes, or one convolution of the whole map); ``"theta-plus"``: the same, then
            two layers across the channels as in SE.
        reduction: Divides the channels to get the hidden ones of theta-plus, rounded down to at
            least 1: one number, or one per stage.
        side: Size of the map, for the convolution of the whole map: one number, or one per stage.
            The network then only accepts images whose maps have this size.
        init: ``"paper"`` (He initialization), or ``"identity"``: the last layer is zero and the
            gate doubled, so it starts at exactly 1 and still learns.
    """

    name: ClassVar[str] = "ge"
    number: ClassVar[str] = "extent"

    extent: Literal[0] | Annotated[int, Ge(2)] = 0
    variant: Literal["theta-minus", "theta", "theta-plus"] = "theta-minus"
    reduction: PerStage = 16
    side: Literal[0] | PerStage = 0
    init: Init = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant == "theta-minus":
            if self.init == "identity":
                raise PolicyError(
                    "GE got init='identity'.",
                    "The variant 'theta-minus' has no parameters, so it has no identity.",
                    "Type for example: GE(extent=8, variant='theta', init='identity')",
                )
        elif self.extent & (self.extent - 1):
            raise PolicyError(
                f"GE got extent={self.extent}.",
                f"The variant {self.variant!r} halves the map repeatedly, so its extent must be a "
                "power of 2.",
                f"Type for example: GE(extent=8, variant={self.variant!r})",
            )
        if bool(self.side) != (self.extent == 0 and self.variant != "theta-minus"):
            raise PolicyError(
                f"GE got side={self.side!r}.",
                "The side of the map is needed with weights and the extent 0, and only then.",
                "Type for example: GE(variant='theta', side=(56, 28, 14, 7)) or "
                "GE(extent=8, variant='theta')",
            )

    def build(self, site: Site) -> GatherExcite:
        return GatherExcite(self, site)


class GatherExcite(GateModule):
    """The module of `GE`."""

    spec: GE

    def __init__(self, spec: GE, site: Site) -> None:
        super().__init__(spec, site)
        channels, width = site.channels, hidden(spec, site)
        self.side = for_stage(spec, "side", site)
        if spec.variant == "theta-minus":
            return
        kernel, stride, padding, steps = self.side, 1, 0, 1
        if spec.extent:
            kernel, stride, padding, steps = 3, 2, 1, spec.extent.bit_length() - 1
        convs = [
            nn.Conv2d(channels, channels, kernel, stride, padding, groups=channels, bias=False)
            for _ in range(steps)
        ]
        self.draw(*convs)
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(steps))
        if spec.variant == "theta-plus":
            self.fc1 = nn.Conv2d(channels, width, 1)
            self.fc2 = nn.Conv2d(width, channels, 1)
            self.draw(self.fc1, last=[self.fc2])
        elif self.identity:
            zero(self.norms[-1])

    def gather(self, x: Tensor) -> Tensor:
        """Gather `x` (N, C, H, W) to a smaller map."""
        extent = self.spec.extent
        if self.spec.variant == "theta-minus":
            if extent == 0:
                return x.mean((2, 3), keepdim=True)
            reach = extent - 1
            return F.avg_pool2d(x, 2 * reach + 1, extent, reach, count_include_pad=False)
        if self.side and tuple(x.shape[2:]) != (self.side, self.side):
            raise PolicyError(
                f"{self.spec.text()} got a map of {x.shape[2]}x{x.shape[3]} pixels.",
                f"Its convolution is for maps of {self.side}x{self.side}.",
                "Pass the sides of this network's maps, or an extent: ge8(variant=theta)",
            )
        for number, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = self.normalized(norm, conv(torch.relu(x) if number else x))
        return x

    def forward(self, x: Tensor) -> Tensor:
        image = self.turned(x)
        z = self.gather(image)
        if self.spec.variant == "theta-plus":
            z = self.fc2(torch.relu(self.fc1(torch.relu(z))))
        # The sigmoid before resizing gives the same values with less work.
        s = self.sigmoid(z)
        if self.spec.extent:
            s = F.interpolate(s, size=image.shape[2:], mode="nearest")
        return x * self.back(s)
