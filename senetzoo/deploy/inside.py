"""Preprocessing and softmax inside a file that takes photographs and returns probabilities.

There is a version in torch, which is exported to ONNX and pt2, and one in OpenVINO's operators,
because OpenVINO computes the antialiased resize of ONNX differently, by up to 34 of 255 levels, but
has an exact one of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from senetzoo._utils.pixels import with_channels
from senetzoo.deploy.program import IMAGES, PROBABILITIES
from senetzoo.nn.preprocessing import Preprocessing

if TYPE_CHECKING:
    import openvino
    from PIL.Image import Image

# Pillow's names of its filters, and torch's names of those that read the same pixels.
_MODES = {"nearest": "nearest-exact", "bilinear": "bilinear", "bicubic": "bicubic"}


def photograph(image: Image | Tensor, channels: int) -> Tensor:
    """Convert an image to the input of such a file: uint8 (H, W, channels)."""
    import numpy as np
    from PIL import Image as PILImage

    if isinstance(image, Tensor):
        array = image.permute(1, 2, 0).numpy()
        image = PILImage.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    pixels = with_channels(image, channels)
    return torch.from_numpy(np.array(pixels)).reshape(pixels.height, pixels.width, channels)


class Preprocess(nn.Module):
    """A `Preprocessing` as a module, for a batch of photographs of the same arbitrary size.

    Unlike `Preprocessing`, it doesn't first crop photographs whose longer side is more than 32
    times the shorter.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.size, self.resize = preprocessing.size, preprocessing.resize
        self.mode = _MODES[preprocessing.interpolation]
        for name in ("mean", "std"):
            value = torch.tensor(getattr(preprocessing, name))[:, None, None]
            self.register_buffer(name, value)

    def forward(self, photographs: Tensor) -> Tensor:
        """uint8 (N, H, W, C) to fp32 (N, C, size, size)."""
        x = photographs.permute(0, 3, 1, 2)
        shorter = torch.sym_min(*x.shape[2:])  # type: ignore[no-untyped-call]
        size = [self.resize * side // shorter for side in x.shape[2:]]
        antialias = {} if self.mode == "nearest-exact" else {"antialias": True}
        x = F.interpolate(x, size=size, mode=self.mode, **antialias)
        # Not slices: a slice of a whole dimension would be traced as valid for its size only.
        for axis, side in enumerate(x.shape[2:], 2):
            rest = side - self.size
            # The half is rounded to even, as in torchvision.
            start = rest // 2 + rest % 2 * (rest // 2 % 2)
            x = x.index_select(axis, torch.arange(self.size) + start)
        return x.to(torch.float32).div(255).sub(self.mean).div(self.std)


class Probabilities(nn.Module):
    """Softmax of logits divided by a temperature."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, logits: Tensor) -> Tensor:
        return (logits / self.temperature).softmax(1)


def around(network: openvino.Model, preprocessing: Preprocessing, temperature: float) -> Any:
    """Add the preprocessing and the softmax to an OpenVINO model; `network` is consumed."""
    import numpy as np
    import openvino
    from openvino import opset13 as op

    def whole(*numbers: int) -> Any:
        return op.constant(np.array(numbers, np.int64))

    images = op.parameter([-1, -1, -1, preprocessing.channels], np.uint8, name=IMAGES)
    have = op.gather(op.shape_of(images), whole(1, 2), whole(0))
    shorter = op.reduce_min(have, whole(0), keep_dims=True)
    size = op.divide(op.multiply(have, whole(preprocessing.resize)), shorter)
    nearest = preprocessing.interpolation == "nearest"
    # In the layout (N, H, W, C): in others it takes a hundred times as long.
    x = op.interpolate(
        images,
        size,
        "nearest" if nearest else f"{preprocessing.interpolation}_pillow",
        "sizes",
        [0, 0],
        [0, 0],
        nearest_mode="round_prefer_ceil",
        cube_coeff=-0.5,
        axes=whole(1, 2),
    )
    side, two = whole(preprocessing.size), whole(2)
    rest = op.subtract(size, side)
    half = op.divide(rest, two)
    start = op.add(half, op.multiply(op.mod(rest, two), op.mod(half, two)))
    x = op.slice(x, start, op.add(start, side), whole(1, 1), whole(1, 2))
    x = op.transpose(x, whole(0, 3, 1, 2))
    x = op.reshape(
        x, whole(-1, preprocessing.channels, *[preprocessing.size] * 2), special_zero=False
    )
    x = op.divide(op.convert(x, "f32"), op.constant(np.float32(255)))
    mean, std = (
        op.constant(np.array(value, np.float32)[:, None, None])
        for value in (preprocessing.mean, preprocessing.std)
    )
    x = op.divide(op.subtract(x, mean), std)
    for port in network.input(0).get_node().output(0).get_target_inputs():
        port.replace_source_output(x.output(0))
    logits = network.get_results()[0].input_value(0)
    scaled = op.divide(logits, op.constant(np.float32(temperature)))
    model = openvino.Model([op.softmax(scaled, 1)], [images])
    model.inputs[0].get_tensor().set_names({IMAGES})
    model.outputs[0].get_tensor().set_names({PROBABILITIES})
    return model
