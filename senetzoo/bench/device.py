"""The device that is measured on, and what failed there in words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from senetzoo.errors import ConfigError, SenetzooError

DEVICES = ("cpu", "cuda", "mps")
# More than any machine has: with as many as a number can say, OpenMP ends the process.
MOST_THREADS = 1024


def check_device(name: str, *, bf16: bool = False) -> torch.device:
    """Try a device with a small convolution.

    Args:
        name: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        bf16: Try it in bf16 too.

    Raises:
        ConfigError: It is not to be had here, or can't compute in bf16.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in DEVICES:
        raise ConfigError(f"There is no device {name!r}.", f"Devices are {', '.join(DEVICES)}.")
    there = {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }[device.type]
    if (device.index or 0) >= there:
        raise ConfigError(
            f"The device {name!r} is not available.",
            f"torch {torch.__version__} sees {there} {device.type} devices here.",
            "Type: --device cpu",
        )
    for dtype, word in [(torch.float32, "fp32"), *[(torch.bfloat16, "bf16")] * bf16]:
        if not _convolves(device, dtype):
            raise ConfigError(
                f"The device {name!r} can't compute in {word}.",
                f"torch {torch.__version__} has no {word} convolution for it.",
                "Type: --dtype fp32" if word == "bf16" else "Type: --device cpu",
            )
    return device


def _convolves(device: torch.device, dtype: torch.dtype) -> bool:
    if device.type == "cuda" and dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported():
        return False
    try:
        one = torch.ones(1, 1, 3, 3, device=device, dtype=dtype)
        torch.nn.functional.conv2d(one, one)
    except (RuntimeError, TypeError):
        return False
    return True


@contextlib.contextmanager
def explained(name: str, image: tuple[int, int, int], batch: int) -> Iterator[None]:
    """Turn the failure of a forward pass into a `ConfigError` with the shape and its words."""
    try:
        yield
    except SenetzooError:
        raise  # the network's own words, or those of the images' reader, are better
    except Exception as error:  # a library's network may check its images with whatever it likes
        shape = "x".join(map(str, (batch, *image)))
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise ConfigError(
            f"{name} fails on images of shape {shape}.",
            f"{'torch' if isinstance(error, RuntimeError) else 'Its code'} says: {said[0]}",
            "Give another size or a smaller batch: --size 224 --batch 8",
        ) from error


@contextlib.contextmanager
def threads_set(number: int | None) -> Iterator[None]:
    """Run with `number` threads of torch; None leaves the number as it is."""
    before = torch.get_num_threads()
    if number is not None:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
