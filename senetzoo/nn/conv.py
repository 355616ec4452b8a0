"""Convolution, batch norm and activation in one module."""

from __future__ import annotations

from torch import Tensor, nn


class ConvNormAct(nn.Module):
    """A convolution and, by default, a batch norm and a ReLU.

    The children are named ``conv`` and ``bn``, as in torchvision's and timm's Inception networks.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        kernel: Kernel size.
        stride: Stride.
        padding: Padding; ``"same"`` keeps the size at stride 1.
        groups: Groups of the convolution.
        bias: Whether the convolution has a bias, which the batch norm makes redundant.
        norm: Whether there is a batch norm.
        eps: Added to the variance.
        act: Whether there is a ReLU.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] | str = 0,
        *,
        groups: int = 1,
        bias: bool = False,
        norm: bool = True,
        eps: float = 1e-5,
        act: bool = True,
    ) -> None:
        super().__init__()
        if padding == "same":
            sides = (kernel, kernel) if isinstance(kernel, int) else kernel
            padding = (sides[0] // 2, sides[1] // 2)
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=bias)
        self.bn = nn.BatchNorm2d(outputs, eps=eps) if norm else None
        self.act = nn.ReLU(inplace=True) if act else None

    def forward(self, x: Tensor) -> Tensor:
        """`x` (N, inputs, H, W) to (N, outputs, h, w)."""
        x = self.conv(x)
        x = x if self.bn is None else self.bn(x)
        return x if self.act is None else self.act(x)
