"""Preprocessing against torchvision's presets and timm's."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.networks import message
from timm.data.transforms_factory import create_transform
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from senetzoo.data import cifar
from senetzoo.errors import ConfigError, DataError
from senetzoo.nn.preprocessing import CIFAR10, IMAGENET, Preprocessing

MEAN, STD = IMAGENET.mean, IMAGENET.std
# (width, height): wide, tall, odd, smaller than the crop, one pixel.
SHAPES = [(131, 77), (77, 132), (301, 33), (32, 32), (5, 3), (1, 1)]


def picture(width: int, height: int, channels: int = 3) -> Image.Image:
    pixels = np.random.default_rng(width * 1000 + height).integers(
        0, 256, (height, width, channels), dtype=np.uint8
    )
    return Image.fromarray(pixels if channels > 1 else pixels[..., 0])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("resize", "size", "interpolation"),
    [
        (256, 224, "bilinear"),
        (232, 224, "bilinear"),
        (342, 299, "bilinear"),
        (64, 56, "bicubic"),
        (63, 48, "nearest"),
        (32, 32, "bilinear"),
    ],
)
def test_equals_torchvisions_preset(
    shape: tuple[int, int], resize: int, size: int, interpolation: Any
) -> None:
    image = picture(*shape)
    ours = Preprocessing(size, MEAN, STD, interpolation, size / resize)
    theirs = ImageClassification(
        crop_size=size, resize_size=resize, interpolation=InterpolationMode(interpolation)
    )
    assert ours.resize == resize
    assert torch.equal(ours(image), theirs(image))
    if interpolation == "nearest" and (resize, min(shape)) == (63, 32):
        return  # pixels lie exactly between two others here
    # A tensor becomes what the image becomes, up to one of 255 levels of rounding.
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    torch.testing.assert_close(ours(tensor), theirs(image), atol=1.001 / 255 / min(STD), rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("size", "crop", "interpolation"),
    [(224, 0.875, "bicubic"), (64, 0.9, "bilinear"), (47, 0.95, "bicubic"), (30, 1.0, "bilinear")],
)
def test_equals_timms_transform(
    shape: tuple[int, int], size: int, crop: float, interpolation: Any
) -> None:
    image = picture(*shape)
    theirs = create_transform(
        (3, size, size), interpolation=interpolation, mean=MEAN, std=STD, crop_pct=crop
    )
    assert torch.equal(Preprocessing(size, MEAN, STD, interpolation, crop)(image), theirs(image))


def test_resize_is_exact_for_every_pair_of_whole_numbers() -> None:
    for resize in range(1, 700):
        for size in {1, resize // 2 or 1, resize * 7 // 8 or 1, resize - 1 or 1, resize}:
            assert Preprocessing(size, MEAN, STD, crop=size / resize).resize == resize


def test_resize_is_timms_floor_for_its_published_crops() -> None:
    # (size, crop_pct) of timm's configs, with the shorter side that its floor gives.
    figures = [(299, 0.875, 341), (224, 0.9, 248), (224, 0.95, 235), (288, 0.95, 303)]
    figures += [(224, 0.965, 232), (331, 0.911, 363), (256, 0.94, 272), (288, 1.0, 288)]
    assert [(s, c, Preprocessing(s, MEAN, STD, crop=c).resize) for s, c, _ in figures] == figures


def test_constants() -> None:
    assert (IMAGENET.size, IMAGENET.resize) == (224, 256)
    assert (CIFAR10.size, CIFAR10.resize) == (32, 32)
    assert (CIFAR10.mean, CIFAR10.std) == (cifar.CIFAR10.mean, cifar.CIFAR10.std)


def test_a_cifar_image_is_only_normalized() -> None:
    image = picture(32, 32)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    expected = (pixels - torch.tensor(CIFAR10.mean)[:, None, None]) / torch.tensor(CIFAR10.std)[
        :, None, None
    ]
    torch.testing.assert_close(CIFAR10(image), expected)


def test_gray_and_rgb_follow_the_number_of_means() -> None:
    rgb, gray = Preprocessing(2, (0, 0, 0), (1, 1, 1)), Preprocessing(2, (0,), (1,))
    white_red = torch.tensor([[[255, 255], [0, 0]], [[255, 0], [0, 0]], [[255, 0], [0, 0]]])
    tensor = white_red.to(torch.uint8)
    image = Image.fromarray(tensor.permute(1, 2, 0).contiguous().numpy())
    luma = torch.tensor([[[1.0, 0.299], [0.0, 0.0]]])
    for form in (image, tensor):
        torch.testing.assert_close(rgb(form), tensor / 255)
        torch.testing.assert_close(gray(form), luma, atol=1 / 255, rtol=0)
    for form in (image.convert("L"), tensor[:1]):
        assert rgb(form).shape == (3, 2, 2)
        assert torch.equal(rgb(form)[0], rgb(form)[2])
    assert torch.equal(gray(tensor[:1]), tensor[:1] / 255)
    assert gray(tensor).dtype == torch.float32


def test_images_of_any_mode_become_what_a_person_sees() -> None:
    transforms = Preprocessing(1, (0, 0, 0), (1, 1, 1))
    half = Image.new("RGBA", (1, 1), (255, 0, 0, 0))
    assert transforms(half).flatten().tolist() == [1, 1, 1]
    deep = Image.fromarray(np.full((1, 1), 65535, np.uint16))
    assert transforms(deep).flatten().tolist() == [1, 1, 1]


@pytest.mark.parametrize("shape", [(3, 1, 30000), (3, 30000, 1)])
def test_a_long_strip_is_cut_before_it_grows(shape: tuple[int, ...]) -> None:
    strip = torch.zeros(shape, dtype=torch.uint8)
    flat = strip.view(3, -1)
    flat[:, 14000:16000] = 255  # only its middle reaches the crop
    values = Preprocessing(224, (0, 0, 0), (1, 1, 1))(strip)
    assert values.shape == (3, 224, 224)
    assert values.min() == 1


def test_is_a_value() -> None:
    same = Preprocessing(224, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], "bilinear", 0.875)  # type: ignore[arg-type]
    assert same == IMAGENET
    assert hash(same) == hash(IMAGENET)
    assert pickle.loads(pickle.dumps(IMAGENET)) == IMAGENET
    assert IMAGENET != CIFAR10


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"size": 0}, "got size=0.\nsize is a whole number of at least 1."),
        ({"size": 2.5}, "got size=2.5.\nsize is a whole number of at least 1."),
        ({"mean": 0.5}, "got mean=0.5.\nmean is a tuple of numbers."),
        ({"std": (1, 1, float("nan"))}, "got std=(1, 1, nan).\nstd is a tuple of numbers above 0."),
        ({"mean": (0.5, 0.5)},
         "got 2 means and 3 deviations.\nIt takes one of each for gray images, three for RGB."),
        ({"std": (1.0, 0.0, 1.0)}, "got std=(1.0, 0.0, 1.0).\nstd is a tuple of numbers above 0."),
        ({"interpolation": "bicubik"},
         "got interpolation='bicubik'.\ninterpolation is one of 'nearest', 'bilinear', "
         "'bicubic'.\nDid you mean 'bicubic'?"),
        ({"crop": 1.1},
         "got crop=1.1.\ncrop is a number above 0 and at most 1.\nType for example: crop=1.0"),
        ({"crop": 0},
         "got crop=0.\ncrop is a number above 0 and at most 1.\nType for example: crop=1.0"),
    ],
)  # fmt: skip
def test_wrong_fields(fields: dict[str, Any], text: str) -> None:
    assert (
        message(
            lambda: Preprocessing(**{"size": 8, "mean": MEAN, "std": STD, **fields}), ConfigError
        )
        == f"Preprocessing {text}"
    )


@pytest.mark.parametrize(
    ("tensor", "text"),
    [
        (
            torch.zeros(3, 4, 4),
            "Preprocessing can't take a tensor (3, 4, 4) of torch.float32.\n"
            "A tensor is one image: uint8, (channels, height, width), 1 or 3 channels.\n"
            "Call it for each image and torch.stack the results",
        ),
        (
            torch.zeros(2, 3, 4, 4, dtype=torch.uint8),
            "Preprocessing can't take a tensor (2, 3, 4, 4) of torch.uint8.\n"
            "A tensor is one image: uint8, (channels, height, width), 1 or 3 channels.\n"
            "Call it for each image and torch.stack the results",
        ),
        (
            torch.zeros(3, 0, 4, dtype=torch.uint8),
            "Preprocessing can't take a tensor (3, 0, 4): no pixels.",
        ),
    ],
)
def test_wrong_tensors(tensor: torch.Tensor, text: str) -> None:
    assert message(lambda: IMAGENET(tensor), DataError) == text


@pytest.mark.parametrize("wrong", ["cat.png", np.zeros((4, 4, 3), dtype=np.uint8)])
def test_what_is_no_image(wrong: Any) -> None:
    assert message(lambda: IMAGENET(wrong), DataError) == (
        f"Preprocessing can't take a {type(wrong).__name__}.\n"
        "It takes a PIL image, or a uint8 tensor (C, H, W).\n"
        "Type for example: transform(PIL.Image.open(path))"
    )
