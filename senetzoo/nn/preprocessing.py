"""From an image to the tensor that a network was trained on, as one value."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from senetzoo._utils.checks import Gt, Le, PositiveFloat, PositiveInt, check
from senetzoo._utils.pixels import eight_bits, upright
from senetzoo._utils.torchvision import import_torchvision
from senetzoo.errors import ConfigError, DataError, check_fields

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

MOST_PIXELS = 16_384
"""Longest side after resizing, in pixels; a larger one is a typing error that fills the memory."""
Interpolation = Literal["nearest", "bilinear", "bicubic"]

# An image longer than this many times its shorter side is cut to its center before it is resized:
# a 1x20000 strip would otherwise become gigabytes on the way to its center crop.
_STRIP = 32


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, crop the center, scale to 0..1, normalize.

    The shorter side becomes ``floor(size / crop)`` pixels (`resize`), which is timm's rule, and the
    center crop is ``size`` x ``size``. So a "resize 256, crop 224" is ``crop=224 / 256``, the 232
    of torchvision's second weights ``crop=224 / 232``, its Inception ``size=299,
    crop=299 / 342``; give the quotient itself, not its rounded decimals.

    Args:
        size: Side of the result in pixels.
        mean: Subtracted from each channel after scaling to 0..1; one value makes a gray result,
            three an RGB one.
        std: Divides each channel after that.
        interpolation: Of the resizing, with antialiasing unless ``"nearest"``.
        crop: Fraction of the resized shorter side that the center crop keeps, in (0, 1].

    Raises:
        ConfigError: A field has a value that does not fit.
    """

    size: PositiveInt
    mean: tuple[float, ...]
    std: tuple[PositiveFloat, ...]
    interpolation: Interpolation = "bilinear"
    crop: Annotated[float, Gt(0), Le(1)] = 1.0

    def __post_init__(self) -> None:
        check(self)
        if len(self.mean) not in (1, 3) or len(self.std) != len(self.mean):
            raise ConfigError(
                f"Preprocessing got {len(self.mean)} means and {len(self.std)} deviations.",
                "There is one of each for gray images, three for RGB.",
            )
        if self.size / self.crop > MOST_PIXELS:
            raise ConfigError(
                f"The preprocessing got size={self.size} and crop={self.crop}.",
                f"An image would be enlarged to a side of more than {MOST_PIXELS:,} pixels.",
                "Type for example: size=224, crop=0.875",
            )

    @property
    def channels(self) -> int:
        """Channels of the result: 1 for gray images, 3 for RGB."""
        return len(self.mean)

    @property
    def resize(self) -> int:
        """Pixels of the shorter side after resizing, before the center crop."""
        # The tolerance undoes the rounding of size / (size / n), which may land just under n.
        return math.floor(self.size / self.crop + 1e-6)

    def __call__(self, image: Image | Tensor) -> Tensor:
        """Make an image the network's input.

        Args:
            image: A PIL image of any mode, turned as its metadata says; or uint8 (C, H, W) with
                one or three channels.

        Returns:
            float32 (len(mean), size, size), to be stacked to a batch.

        Raises:
            DataError: A tensor of another type or shape, or an image without pixels or damaged.
        """
        import_torchvision()
        from torch import Tensor
        from torchvision.transforms.v2 import functional

        pixels: Any  # functional takes and gives images or tensors, each as it came
        if isinstance(image, Tensor):
            pixels = self._channels(image)
        else:
            pixels = eight_bits(upright(image)).convert("RGB" if len(self.mean) == 3 else "L")
        height, width = functional.get_size(pixels)
        longest = _STRIP * min(height, width)
        if max(height, width) > longest:
            pixels = functional.center_crop(pixels, [min(height, longest), min(width, longest)])
        mode = functional.InterpolationMode(
            # As Pillow rounds; torch's plain "nearest" looks at other pixels.
            "nearest-exact" if self.interpolation == "nearest" else self.interpolation
        )
        pixels = functional.resize(pixels, [self.resize], mode, antialias=True)
        pixels = functional.center_crop(pixels, [self.size, self.size])
        tensor: Tensor = pixels if isinstance(pixels, Tensor) else functional.pil_to_tensor(pixels)
        return self.normalized(tensor)

    def for_channels(self, channels: int) -> Preprocessing:
        """The same for images of 1 or 3 channels: mean and std are averaged where that differs."""
        if channels == self.channels:
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return dataclasses.replace(self, mean=(mean,) * channels, std=(std,) * channels)

    def replace(self, **fields: Any) -> Preprocessing:
        """A copy with some fields changed.

        Raises:
            ConfigError: There is no such field, or it has a value that does not fit.
        """
        check_fields("The preprocessing", fields, [f.name for f in dataclasses.fields(self)])
        return dataclasses.replace(self, **fields)

    def normalized(self, pixels: Tensor) -> Tensor:
        """The last step alone: 0..255 scaled to 0..1, mean and deviation taken out.

        Args:
            pixels: uint8 (C, H, W), with as many channels as `mean`.

        Returns:
            float32 (C, H, W).
        """
        import torch

        mean, std = self._statistics(pixels)
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)

    def pixels(self, tensor: Tensor) -> Tensor:
        """What `normalized` was given: the crop of the image that the network sees.

        Args:
            tensor: float (C, H, W), as `normalized` gives it.

        Returns:
            uint8 (C, H, W).
        """
        import torch

        mean, std = self._statistics(tensor)
        shown = tensor.to(torch.float32).mul(std).add_(mean).mul_(255)
        return shown.round_().clamp_(0, 255).to(torch.uint8)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, to be computed with images."""
        import torch

        mean = torch.tensor(self.mean, dtype=torch.float32, device=like.device)[:, None, None]
        std = torch.tensor(self.std, dtype=torch.float32, device=like.device)[:, None, None]
        return mean, std

    def _channels(self, image: Tensor) -> Tensor:
        """`image` with as many channels as `mean`."""
        import torch
        from torchvision.transforms.v2 import functional

        if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] not in (1, 3):
            raise DataError(
                f"Preprocessing can't take a tensor {tuple(image.shape)} of {image.dtype}.",
                "A tensor is one image: uint8, (channels, height, width), 1 or 3 channels.",
                "Call it for each image and torch.stack the results",
            )
        if not image.numel():
            raise DataError(f"Preprocessing can't take a tensor {tuple(image.shape)}: no pixels.")
        if image.shape[0] == len(self.mean):
            return image
        if len(self.mean) == 3:
            return image.expand(3, -1, -1)
        gray: Tensor = functional.rgb_to_grayscale(image)
        return gray


IMAGENET = Preprocessing(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop=0.875)
CIFAR10 = Preprocessing(32, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def usual(size: int) -> Preprocessing:
    """What networks of this input size are mostly trained with, for weights that don't say.

    Returns:
        CIFAR-10's statistics at 32 pixels; else ImageNet's, with a center crop of 224 / 256.
    """
    return CIFAR10 if size == CIFAR10.size else dataclasses.replace(IMAGENET, size=size)
