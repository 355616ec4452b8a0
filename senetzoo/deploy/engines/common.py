"""The class of all engines, with the checks that they share."""

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

from senetzoo._utils.environment import threads_set, unwarned
from senetzoo.deploy.engines.streams import in_streams
from senetzoo.errors import ConfigError, MissingExtraError, SenetzooError, explained
from senetzoo.nn.modes import TORCH_DTYPES
from senetzoo.nn.slots import Layout

Dtype: TypeAlias = Literal["fp32", "bf16", "int8"]
Runner: TypeAlias = Callable[[Tensor], Tensor]

LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_MEMORY = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


@dataclass(frozen=True)
class Request:
    """The checked arguments of `Engine.load`: what to run, and how.

    The module is the engine's own copy in eval mode, which it may change; `threads` are those of a
    stream; calibration images are only given for int8.
    """

    module: nn.Module
    sample: Tensor
    dtype: Dtype
    layout: Layout
    threads: int
    streams: int
    calibration: Tensor | None

    def prepared(self) -> nn.Module:
        """The module on the sample's device, in the dtype and layout; for torch's own engines."""
        ready = self.module.to(self.sample.device, TORCH_DTYPES[self.dtype])
        # The type annotations of nn.Module.to lack the keyword-only overload for memory formats.
        return ready.to(memory_format=_MEMORY[self.layout])  # type: ignore[call-overload, no-any-return]

    def placed(self, images: Tensor) -> Tensor:
        """`images` in the dtype and layout of `prepared`."""
        return images.to(dtype=TORCH_DTYPES[self.dtype], memory_format=_MEMORY[self.layout])


@dataclass(frozen=True)
class Engine:
    """A way to run a network.

    Args:
        name: Name in options and records.
        dtypes: Types that it computes in.
        layouts: Memory layouts that can be requested.
        devices: Types of devices that it runs on.
        start: Prepares the network and returns its runner, which takes images that `load` has
            checked; several threads can call it at once with a batch size that it has already run.
        packages: Packages that it needs besides torch.
        extra: The extra of senetzoo that installs them.
        lacks: Returns what is missing on a device of one of its types, in a sentence, and what to
            do; two empty strings if it can run.
        caveat: Returns a warning about a dtype on a device, in a sentence; empty if there is none.
        int8_packages: Packages that int8 needs besides `packages`.
        fixed_size: Whether a loaded network only takes images of the sample's size.
        operators: Whether it runs the operators of `senetzoo.deploy.tail`.
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
        """Why it can't be used on `device`, and what to do, in one line; empty if it can."""
        try:
            self.check(device, dtype)
        except SenetzooError as error:
            return " ".join(str(error).splitlines())
        return ""

    def layout(self, wanted: Layout) -> Layout:
        """`wanted` if it has this layout, or else its first one."""
        return wanted if wanted in self.layouts else self.layouts[0]

    def check_dtype(self, dtype: Dtype) -> None:
        """Raise `ConfigError` if it does not compute in `dtype`."""
        if dtype not in self.dtypes:
            raise ConfigError(
                f"The engine {self.name} can't compute in {dtype!r}.",
                f"It computes in {' and '.join(self.dtypes)}.",
                f"Give one of these, or another engine: dtype={self.dtypes[0]!r}",
            )

    def check(self, device: torch.device, dtype: Dtype = "fp32") -> None:
        """Check that this engine can be used with a device and dtype.

        Raises:
            MissingExtraError: A package is not installed.
            ConfigError: It doesn't compute in the dtype, or doesn't run on the device.
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
        """Prepare a network to run in this engine; it runs once, on `sample`.

        Args:
            module: Network from (N, C, H, W) to logits (N, classes), from any library; it is
                copied in eval mode and not changed.
            sample: fp32 images (N, C, H, W) on the device to run on. Engines that compile do so
                for their size, and first for this batch size.
            dtype: Type of weights and activations.
            layout: ``"nchw"``, or ``"nhwc"``: torch's channels_last.
            threads: Number of CPU threads; None for torch's current number.
            streams: Parts of a batch that run at the same time on the CPU, each on its share of the
                threads.
            calibration: A few hundred fp32 images (N, C, H, W) like those to come, to calibrate
                int8; not used for other types.

        Returns:
            A function from fp32 images (N, C, H, W) of the sample's size, any number of them, in
            any layout, on the sample's device, to fp32 logits (N, classes) without a gradient. A
            new batch size may need a compilation.

        Raises:
            MissingExtraError: A package is not installed.
            ConfigError: An argument is invalid, the device is not available, or the engine can't
                run the network.

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
                    "int8 is calibrated with the activations of real images.",
                    "Give a few hundred, preprocessed: calibration=images",
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
        with unwarned(FutureWarning):  # of copies of torch's traced graphs
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
        if images.shape[1] != image[0] or (self.fixed_size and images.shape[1:] != image):
            raise ConfigError(
                f"{owner} got {name} of {'x'.join(map(str, images.shape[1:]))}.",
                f"The network was loaded for the sample's {'x'.join(map(str, image))}.",
                "Load it again with a sample of this size",
            )


def require(what: str, packages: Iterable[str], extra: str) -> None:
    """Raise `MissingExtraError` if a package that `what` needs is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(what, package, extra)


def check_batch(owner: str, name: str, images: Tensor) -> None:
    """Raise `ConfigError` if `images` isn't a batch of fp32 images."""
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
    """Turn an error of an engine's own code into a `ConfigError` that quotes it."""
    asked = f"The engine {engine} can't run this network."
    return explained(asked, "It", "Use engine='eager', or another one")


def computes_bf16() -> bool:
    """Whether this processor has bf16 instructions that torch uses."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        # oneDNN supports bf16 on any AVX-512, but by converting to fp32 and back.
        return torch.cpu._is_avx512_bf16_supported()
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_vnni() -> bool:
    """Whether this processor multiplies 8-bit numbers without overflow.

    Others add pairs of products in 16 bits, which overflows with 8-bit factors, so that int8
    weights have 7 bits. Otherwise ResNet-20 loses three points of accuracy on CIFAR-10.
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
