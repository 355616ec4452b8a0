"""A small detector that is built as ultralytics builds its YOLOs, which are not needed for tests.

What matters is the same: torch.fx can't trace it, `fuse` takes the norms out and gives the modules
around them another forward, one activation serves all convolutions, blocks cut and join maps, the
network is a list whose entries say where their inputs come from, and the head takes three maps.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class Conv(nn.Module):
    """Convolution, norm and activation; without the norm once it is fused."""

    default_act = nn.SiLU()

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv: nn.Module = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = self.default_act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]

    def forward_fuse(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = Conv(channels, channels, 3)
        self.cv2 = Conv(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x))  # type: ignore[no-any-return]


class C2f(nn.Module):
    """Half of the map goes through bottlenecks; all that comes out on the way is joined."""

    def __init__(self, inputs: int, outputs: int, bottlenecks: int = 1) -> None:
        super().__init__()
        half = outputs // 2
        self.cv1 = Conv(inputs, outputs)
        self.cv2 = Conv((2 + bottlenecks) * half, outputs)
        self.m = nn.ModuleList(Bottleneck(half) for _ in range(bottlenecks))

    def forward(self, x: Tensor) -> Tensor:
        maps = list(self.cv1(x).chunk(2, 1))
        for module in self.m:
            maps.append(module(maps[-1]))
        return self.cv2(torch.cat(maps, 1))  # type: ignore[no-any-return]


class Concat(nn.Module):
    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat(maps, 1)


class Detect(nn.Module):
    """Boxes and classes at each pixel of several maps: raw in training, joined otherwise."""

    def __init__(self, channels: list[int], classes: int) -> None:
        super().__init__()
        self.cv2 = self.heads(channels, 4)
        self.cv3 = self.heads(channels, classes)

    def heads(self, channels: list[int], outputs: int) -> nn.ModuleList:
        return nn.ModuleList(
            nn.Sequential(Conv(width, 8, 3), Conv(8, 8, 3), nn.Conv2d(8, outputs, 1))
            for width in channels
        )

    def forward(self, maps: list[Tensor]) -> Any:
        raw = [
            torch.cat((boxes(x), classes(x)), 1)
            for boxes, classes, x in zip(self.cv2, self.cv3, maps, strict=True)
        ]
        return raw if self.training else (torch.cat([x.flatten(2) for x in raw], 2), raw)


class Detector(nn.Module):
    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        rows: list[tuple[int | list[int], nn.Module]] = [
            (-1, Conv(3, 8, 3, 2)),
            (-1, C2f(8, 8)),
            (-1, Conv(8, 16, 3, 2)),
            (-1, C2f(16, 16, 2)),
            (-1, Conv(16, 32, 3, 2)),
            (-1, C2f(32, 32)),
            (-1, nn.Upsample(scale_factor=2)),
            ([-1, 3], Concat()),
            (-1, C2f(48, 16)),
            ([8, 5], Detect([16, 32], classes)),
        ]
        self.model = nn.Sequential(*(module for _, module in rows))
        for index, (source, module) in enumerate(rows):
            module.f, module.i = source, index  # type: ignore[assignment]

    def forward(self, x: Any) -> Any:
        if isinstance(x, dict):
            return self.loss(x)
        y: list[Any] = []
        for module in self.model:
            if module.f != -1:
                x = [x if j == -1 else y[j] for j in module.f]  # type: ignore[union-attr]
            x = module(x)
            y.append(x)
        return x

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Stands for a detector's loss: all its outputs act on it."""
        raw: list[Tensor] = self(batch["img"])
        return torch.stack([x.square().mean() for x in raw]).sum()

    def fuse(self) -> Detector:
        for module in self.model.modules():
            if isinstance(module, Conv) and hasattr(module, "bn"):
                module.conv = fuse_conv_bn_eval(module.conv, module.bn)  # type: ignore[type-var]
                del module.bn
                module.forward = module.forward_fuse  # type: ignore[method-assign]
        return self
