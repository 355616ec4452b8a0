"""What an engine is, and what all of them check and do alike."""

from __future__ import annotations

import copy
import importlib.util
import platform
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from senetzoo._utils.environment import threads_set
from senetzoo.deploy.engines.streams import in_streams
from senetzoo.errors import ConfigError, MissingExtraError, SenetzooError, explained
from senetzoo.nn.modes import TORCH_DTYPES

Dtype: TypeAlias = Literal["fp32", "bf16", "int8"]
Layout: TypeAlias = Literal["nchw", "nhwc"]
Runner: TypeAlias = Callable[[Tensor], Tensor]

DTYPES: tuple[Dtype, ...] = get_args(Dtype)
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_MEMORY = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


@dataclass(frozen=True)
class Request:
    """What an engine is to run, and how: the arguments of `Engine.load`, checked.

    The module is the engine's own copy in eval mode, so it may do with it what it wants; `threads`
    are those of a stream; calibration images are there for int8 alone.
    """

    module: nn.Module
    sample: Tensor
    dtype: Dtype
    layout: Layout
    threads: int
    streams: int
    calibration: Tensor | None

    def prepared(self) -> nn.Module:
        """The module on the sample's device, of the dtype and layout; for torch's own engines."""
        ready = self.module.to(self.sample.device, TORCH_DTYPES[self.dtype])
        # The overload with a memory format is keyword-only and unknown to the type of nn.Module.to.
        return ready.to(memory_format=_MEMORY[self.layout])  # type: ignore[call-overload, no-any-return]

    def placed(self, images: Tensor) -> Tensor:
        """`images` in the dtype and layout of `prepared`."""
        return images.to(dtype=TORCH_DTYPES[self.dtype], memory_format=_MEMORY[self.layout])


@dataclass(frozen=True)
class Engine:
    """A way to run a network.

    Args:
        name: In options and records.
        dtypes: Types that it computes in.
        layouts: Memory layouts that it can be asked for.
        devices: Types of devices that it runs on.
        start: Makes the network ready; what it gives takes images that `load` has checked, and
            for a number of them that it has run for, takes them from several threads at once.
        packages: Those that it needs beside torch.
        extra: The extra of senetzoo that has them.
        lacks: What it misses on a device of one of its types, in a sentence, and what to do;
            two empty texts where it can run.
        caveat: What to know of a dtype on a device, in a sentence; empty where there is nothing.
        int8_packages: What int8 needs beside `packages`.
        fixed_size: Whether a loaded network takes images of the sample's size only.
        operators: Whether it runs those of `senetzoo.deploy.tail`.
    """

    name: str
    dtypes: tuple[Dtype, ...]
    layouts: tuple[Layout, ...]
    devices: tuple[str, ...]
    start: Callable[[Request], Runner]
    packages: tuple[str, ...] = ()
    extra: str = ""
    lacks: Callable[[torch.device], tuple[str, str]] = lambda device: ("", "")
    caveat: Callable[[torch.device, Dtype], str] = lambda device, dtype: ""
    int8_packages: tuple[str, ...] = ()
    fixed_size: bool = True
    operators: bool = False

    def missing(self, device: torch.device, dtype: Dtype = "fp32") -> str:
        """Why it can't be used on `device`, and what to do, in one line; empty where it can."""
        try:
            self.check(device, dtype)
        except SenetzooError as error:
            return " ".join(str(error).splitlines())
        return ""

    def check_dtype(self, dtype: Dtype) -> None:
        """Raise `ConfigError` for a type that it does not compute in."""
        if dtype not in self.dtypes:
            raise ConfigError(
                f"The engine {self.name} can't compute in {dtype!r}.",
                f"It computes in {' and '.join(self.dtypes)}.",
                f"Give one of these, or another engine: dtype={self.dtypes[0]!r}",
            )

    def check(self, device: torch.device, dtype: Dtype = "fp32") -> None:
        """Refuse a device or dtype on which this engine can't be used.

        Raises:
            MissingExtraError: A package is not installed.
            ConfigError: It has no such dtype, or does not run on the device.
        """
        what = f"The engine {self.name}"
        self.check_dtype(dtype)
        if device.type not in self.devices:
            raise ConfigError(
                f"{what} can't run on the device '{device}'.",
                f"It runs on {' and '.join(self.devices)}.",
                "Give another device, or engine='eager'",
            )
        require(what, self.packages, self.extra)
        if dtype == "int8":
            require(f"{what} in int8", self.int8_packages, self.extra)
        lacking, remedy = self.lacks(device)
        if lacking:
            raise ConfigError(f"{what} can't be used here.", lacking, remedy)

    def load(
        self,
        module: nn.Module,
        sample: Tensor,
        dtype: Dtype = "fp32",
        *,
        layout: Layout = "nchw",
        threads: int | None = None,
        streams: int = 1,
        calibration: Tensor | None = None,
    ) -> Runner:
        """Make a network ready to run here; it runs once, on `sample`.

        Args:
            module: Takes (N, C, H, W) and gives logits (N, classes), whoever wrote it; it is
                copied in eval mode and not changed.
            sample: fp32 images (N, C, H, W) on the device that is to compute. What is compiled is
                compiled for their size, at first for this number of them.
            dtype: Type of weights and activations.
            layout: ``"nchw"``, or ``"nhwc"``: torch's channels_last.
            threads: Threads on the CPU; None for torch's number of them at this moment.
            streams: Parts of a batch that run at the same time on the CPU, each on its share of the
                threads.
            calibration: fp32 images (N, C, H, W) like those to come, for int8 only: some hundreds,
                whose activations give the ranges.

        Returns:
            Takes fp32 images (N, C, H, W) of the sample's size, any number of them, in any layout,
            on the sample's device, and gives fp32 logits (N, classes) without a gradient. Another
            number than before may take a compilation.

        Raises:
            MissingExtraError: A package is not installed.
            ConfigError: A value that does not fit, a device that is not to be had, or a network
                that the engine can't take.

        Warns:
            RuntimeWarning: The processor has no instructions for the dtype.
        """
        owner = f"The engine {self.name}"
        check_batch(owner, "sample", sample)
        self.check(sample.device, dtype)
        image, device = sample.shape[1:], sample.device
        if layout not in self.layouts:
            raise ConfigError(
                f"{owner} has no layout {layout!r}.",
                f"It has {' and '.join(self.layouts)}.",
                f"Leave layout out, or give {self.layouts[0]!r}",
            )
        if dtype != "int8":
            calibration = None
        else:
            if calibration is None:
                raise ConfigError(
                    f"{owner} got no calibration images for int8.",
                    "The ranges of int8 are those of the activations of real images.",
                    "Give some hundreds of them, transformed: calibration=images",
                )
            self._check_images("calibration", calibration, image, device)
        hint = self.caveat(device, dtype)
        if hint:
            warnings.warn(hint, RuntimeWarning, stacklevel=2)
        number = torch.get_num_threads() if threads is None else threads
        if streams != 1 and not (device.type == "cpu" and 1 <= streams <= number):
            raise ConfigError(
                f"{owner} can't run {streams} streams.",
                f"On the device '{device}' there are "
                + (f"1 to {number}, one for each thread." if device.type == "cpu" else "none."),
                "Give fewer, or more threads" if device.type == "cpu" else "Give streams=1",
            )
        each = number // streams
        own = copy.deepcopy(module).eval().requires_grad_(False)
        request = Request(own, sample.detach(), dtype, layout, each, streams, calibration)
        with threads_set(each):
            run = self.start(request)
        split = in_streams(run, streams, each) if streams > 1 else None

        def checked(images: Tensor) -> Tensor:
            self._check_images("images", images, image, device)
            if split is not None:
                return split(images.detach())
            with threads_set(number):
                return run(images.detach())

        checked(request.sample)
        return checked

    def _check_images(
        self, name: str, images: Tensor, image: tuple[int, ...], device: torch.device
    ) -> None:
        owner = f"The engine {self.name}"
        check_batch(owner, name, images)
        if images.device != device:
            raise ConfigError(
                f"{owner} got {name} on the device '{images.device}'.",
                f"The network was loaded for '{device}'.",
                f"Type: images.to({str(device)!r})",
            )
        if self.fixed_size and images.shape[1:] != image:
            raise ConfigError(
                f"{owner} got {name} of {'x'.join(map(str, images.shape[1:]))}.",
                f"The network was compiled for the sample's {'x'.join(map(str, image))}.",
                "Load it again with a sample of this size",
            )


def require(what: str, packages: Iterable[str], extra: str) -> None:
    """Raise `MissingExtraError` where `what` needs one of the packages and it is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(what, package, extra)


def check_batch(owner: str, name: str, images: Tensor) -> None:
    """Raise `ConfigError` for what is no batch of fp32 images."""
    if not isinstance(images, Tensor):
        what = f"a {type(images).__name__}"
    elif images.dtype != torch.float32:
        what = f"a tensor of {str(images.dtype).removeprefix('torch.')}"
    elif images.dim() != 4 or 0 in images.shape:
        what = f"a tensor of shape {tuple(images.shape)}"
    else:
        return
    raise ConfigError(
        f"{owner} got {what} as {name}.",
        "It takes float32 images of shape (number, channels, height, width), at least one.",
        "Type for example: torch.randn(1, 3, 224, 224)",
    )


def refusing(engine: str) -> AbstractContextManager[None]:
    """Refuse a network that an engine's own code fails on, with that code's words."""
    asked = f"The engine {engine} can't take this network."
    return explained(asked, "It", "Use engine='eager', or another one")


def computes_bf16() -> bool:
    """Whether this processor has bf16 instructions that torch uses."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN takes bf16 on any AVX-512, where it converts to fp32 and back.
        return torch.cpu._is_avx512_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_vnni() -> bool:
    """Whether this processor multiplies 8 by 8 bits without an overflow.

    Others add the products in pairs in 16 bits, which two of 8 bits are too many for: int8 weights
    then have 7 bits. Without that ResNet-20 loses three points of accuracy on CIFAR-10.
    """
    return torch.cpu._is_vnni_supported()


def emulated(device: torch.device, dtype: Dtype) -> str:
    """`Engine.caveat` of torch's own engines."""
    if dtype != "bf16" or device.type != "cpu" or computes_bf16():
        return ""
    return (
        "This processor has no bf16 instructions: torch converts to fp32 and back, and bf16 "
        "is slower than fp32."
    )
