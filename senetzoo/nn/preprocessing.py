"""Preprocessing of images as a value."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from senetzoo._utils.checks import Gt, Le, PositiveFloat, PositiveInt, check
from senetzoo._utils.pixels import with_channels
from senetzoo._utils.torchvision import import_torchvision
from senetzoo.errors import ConfigError, DataError, check_fields

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

MOST_PIXELS = 16_384
"""Longest side after resizing, in pixels; a larger one is a typo that would fill the memory."""
Interpolation = Literal["nearest", "bilinear", "bicubic"]

# Images with a larger aspect ratio are cropped before they are resized: otherwise a 1x20000 strip
# would take gigabytes before its center crop.
_STRIP = 32


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side, crop the center, scale to 0..1, normalize.

    The shorter side is resized to ``floor(size / crop)`` pixels (`resize`), as in timm, and the
    center crop is ``size`` x ``size``. "Resize 256, crop 224" is ``crop=224 / 256``; most of
    torchvision's V2 weights use ``crop=224 / 232``, its Inception ``size=299, crop=299 / 342``.
    Pass the quotient, not a rounded decimal.

    Args:
        size: Height and width of the result in pixels.
        mean: Subtracted from each channel after scaling to 0..1: one value for gray images, three
            for RGB.
        std: Divides each channel after that.
        interpolation: Interpolation of the resize, with antialiasing unless ``"nearest"``.
        crop: Fraction of the resized shorter side that the center crop keeps, in (0, 1].

    Raises:
        ConfigError: A field has an invalid value.
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
                "It takes one of each for gray images, three for RGB.",
            )
        if self.size / self.crop > MOST_PIXELS:
            raise ConfigError(
                f"The preprocessing got size={self.size} and crop={self.crop}.",
                f"Images would be enlarged to more than {MOST_PIXELS:,} pixels per side.",
                "Type for example: size=224, crop=0.875",
            )

    @property
    def channels(self) -> int:
        """Number of channels: 1 for gray images, 3 for RGB."""
        return len(self.mean)

    @property
    def resize(self) -> int:
        """Shorter side in pixels after resizing, before the center crop."""
        # size / (size / n) may round to just below n.
        return math.floor(self.size / self.crop + 1e-6)

    def __call__(self, image: Image | Tensor) -> Tensor:
        """Turn an image into the network's input.

        Args:
            image: A PIL image of any mode, rotated as its EXIF data says; or a uint8 tensor
                (C, H, W) with one or three channels.

        Returns:
            float32 (len(mean), size, size), ready to be stacked into a batch.

        Raises:
            DataError: Something else, a tensor of another type or shape, or an empty or damaged
                image.
        """
        import_torchvision()
        from PIL import Image as PILImage
        from torch import Tensor
        from torchvision.transforms.v2 import functional

        pixels: Any  # an image or a tensor
        if isinstance(image, Tensor):
            pixels = self._channels(image)
        elif not isinstance(image, PILImage.Image):
            raise DataError(
                f"Preprocessing can't take a {type(image).__name__}.",
                "It takes a PIL image, or a uint8 tensor (C, H, W).",
                "Type for example: transform(PIL.Image.open(path))",
            )
        else:
            pixels = with_channels(image, self.channels)
        height, width = functional.get_size(pixels)
        longest = _STRIP * min(height, width)
        if max(height, width) > longest:
            pixels = functional.center_crop(pixels, [min(height, longest), min(width, longest)])
        mode = functional.InterpolationMode(
            # Rounds as Pillow does; torch's "nearest" picks other pixels.
            "nearest-exact" if self.interpolation == "nearest" else self.interpolation
        )
        pixels = functional.resize(pixels, [self.resize], mode, antialias=True)
        pixels = functional.center_crop(pixels, [self.size, self.size])
        tensor: Tensor = pixels if isinstance(pixels, Tensor) else functional.pil_to_tensor(pixels)
        return self.normalized(tensor)

    def for_channels(self, channels: int) -> Preprocessing:
        """The same for 1 or 3 channels, with averaged mean and std if that is a change."""
        if channels == self.channels:
            return self
        mean, std = (sum(values) / len(values) for values in (self.mean, self.std))
        return dataclasses.replace(self, mean=(mean,) * channels, std=(std,) * channels)

    def replace(self, **fields: Any) -> Preprocessing:
        """A copy with some fields changed.

        Raises:
            ConfigError: A field is unknown or has an invalid value.
        """
        check_fields("The preprocessing", fields, [f.name for f in dataclasses.fields(self)])
        return dataclasses.replace(self, **fields)

    def normalized(self, pixels: Tensor) -> Tensor:
        """The last step only: scale 0..255 to 0..1 and normalize by mean and std.

        Args:
            pixels: uint8 (C, H, W) with as many channels as `mean`.

        Returns:
            float32 (C, H, W).
        """
        import torch

        mean, std = self._statistics(pixels)
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std)

    def pixels(self, tensor: Tensor) -> Tensor:
        """Inverse of `normalized`: the crop of the image that the network sees.

        Args:
            tensor: float (C, H, W), as `normalized` returns it.

        Returns:
            uint8 (C, H, W).
        """
        import torch

        mean, std = self._statistics(tensor)
        shown = tensor.to(torch.float32).mul(std).add_(mean).mul_(255)
        return shown.round_().clamp_(0, 255).to(torch.uint8)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and std (C, 1, 1) on the device of `like`."""
        import torch

        mean = torch.tensor(self.mean, dtype=torch.float32, device=like.device)[:, None, None]
        std = torch.tensor(self.std, dtype=torch.float32, device=like.device)[:, None, None]
        return mean, std

    def _channels(self, image: Tensor) -> Tensor:
        """`image`, converted to the channels of `mean`."""
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
    """The usual preprocessing of networks of this input size, for weights that don't state it.

    Returns:
        CIFAR-10's statistics at 32 pixels; otherwise ImageNet's, with a center crop of 224 / 256.
    """
    return CIFAR10 if size == CIFAR10.size else dataclasses.replace(IMAGENET, size=size)
