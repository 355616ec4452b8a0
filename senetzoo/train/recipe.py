"""A recipe: everything that decides how a network is trained, as a frozen value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from typing_extensions import Self

from senetzoo.errors import ConfigError, check_fields
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.stem import STEMS, parse_stem
from senetzoo.spec import ModelSpec
from senetzoo.zoo import build, config, find

DataName = Literal["cifar10", "cifar100", "flowers5", "folder", "hub", "digits"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train.

    Args:
        name: The recipe's name.
        model: Network to train, as `senetzoo.create` takes it; a policy may follow a name:
            ``"resnet20+se16@pre"``. With a tag of its weights, ``"resnet50.tv_in1k_v2"``, or the
            folder of a saved network or a run, training starts from these weights.
        stem: Its stem: a name, or the convolution's side, its stride, and whether a pool follows:
            ``"3x3/2+pool"``; empty for the network's own.
        dropout: Dropout before the classifier; None for the network's own.
        drop_path: Stochastic depth; None for the network's own.
        key_drop: Key dropout of a Swin's attention.
        data: ``"cifar10"``, ``"cifar100"``, ``"flowers5"``, ``"folder"`` (``train`` and ``val``
            or ``test`` with a folder of images per class), ``"hub"`` (a data set of the Hub or
            its parquet files), or ``"digits"`` (scikit-learn's, which needs no file).
        stream: Read the training images of ``"hub"`` as a stream, without downloading them first.
        stream_images: Images in an epoch of a stream that does not say how many it has.
        images_per_class: Use only so many images of each class, for training and for the test;
            0 for all.
        phases: Resolution by time: pairs of image side and epochs at it.
        test_size: Image side in the test; 0 for that of the phase.
        test_crop: Fraction of the resized test image that its centre crop keeps; large images.
        batch: Images per optimizer step, over all processes and accumulated parts.
        accumulate: Parts that a batch is computed in, one after another.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (mixed), or ``"fp64"``.
        channels_last: Whether images and weights lie channels last in memory.
        compile: Whether to use `torch.compile`.
        deterministic: Whether to refuse kernels that give other last bits each time. Those of the
            CPU don't, with the same number of threads.
        optimizer: ``"sgd"`` (Nesterov), ``"adam"``, ``"adamw"``, ``"lamb"``, or ``"muon"`` for
            the convolutions and SGD for the rest.
        lr: Peak learning rate.
        muon_lr: Peak relative step of Muon.
        momentum: Momentum of SGD.
        muon_momentum: Momentum of Muon.
        weight_decay: Weight decay; never on norms, biases and gates, nor on what Muon trains.
        warmup: Part of the training in which the learning rate rises from 0 to its peak; with
            ``"one-cycle"``, from a 25th of it.
        schedule: How it falls afterwards: ``"linear"`` or ``"cosine"`` to 0, ``"one-cycle"``
            (Smith and Topin 2017, arXiv:1708.07120; a cosine to 4e-6 of the peak), ``"step"``,
            or ``"constant"``.
        step_epochs: ``"step"``: after so many epochs the learning rate is multiplied ...
        step_factor: ... by this.
        restart_epochs: Epochs after those of `phases`, at their last size, in which the learning
            rate starts once more and falls linearly to 0 (a warm restart: Loshchilov and Hutter
            2016, arXiv:1608.03983).
        restart_lr: Where it starts then, as a part of its peak.
        ema: Decay of an exponential moving average of the weights; it is then what is saved at
            the end. 0 for none.
        loss: ``"cross-entropy"``, or ``"bce"``: binary cross-entropy of each class, where every
            class of a mixed image counts as present (Wightman et al. 2021, arXiv:2110.00476).
        label_smoothing: Label smoothing.
        mixup: Parameter of the beta distribution of mixup (Zhang et al. 2017); 0 for none.
        cutmix: The same of CutMix (Yun et al. 2019). With both, each batch draws one of them.
        margin: Small images: reflected pixels around an image before the random crop; 0 for no
            crop.
        flip: Whether images are mirrored at random.
        rotation: Largest random rotation in degrees; 0 for none.
        zoom: Largest random change of size, as a part; 0 for none.
        cutout: Side of the square that is set to the mean (DeVries and Taylor 2017); 0 for none.
        erase: Probability of erasing a rectangle (Zhong et al. 2017).
        crop_scale: Large images: smallest and largest part of the area that the random crop
            takes; (0, 0) for the test's centre crop.
        randaugment: Large images: magnitude of RandAugment (Cubuk et al. 2019), up to 30; 0 for
            none.
        randaugment_ops: Its operations per image.
        noise: Standard deviation of noise on training images, as a part of the pixel range.
        blur: Standard deviation in pixels of a Gaussian blur of training images.
        enlarge: Training images are reduced so many times and enlarged again; 1 for none.
        test_every: Evaluate on the test images after every so many epochs, and after the last.
    """

    name: str
    model: str
    stem: str = ""
    dropout: float | None = None
    drop_path: float | None = None
    key_drop: float = 0.0
    data: DataName
    stream: bool = False
    stream_images: int = 0
    images_per_class: int = 0
    phases: tuple[tuple[int, int], ...]
    test_size: int = 0
    test_crop: float = 0.875
    batch: int = 128
    accumulate: int = 1
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32"
    channels_last: bool = True
    compile: bool = True
    deterministic: bool = False
    optimizer: Literal["sgd", "adam", "adamw", "lamb", "muon"] = "sgd"
    lr: float = 0.1
    muon_lr: float = 0.06
    momentum: float = 0.9
    muon_momentum: float = 0.6
    weight_decay: float = 5e-4
    warmup: float = 0.1
    schedule: Literal["linear", "cosine", "one-cycle", "step", "constant"] = "linear"
    step_epochs: tuple[int, ...] = ()
    step_factor: float = 0.1
    restart_epochs: int = 0
    restart_lr: float = 0.12
    ema: float = 0.0
    loss: Literal["cross-entropy", "bce"] = "cross-entropy"
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    margin: int = 4
    flip: bool = True
    rotation: float = 0.0
    zoom: float = 0.0
    cutout: int = 0
    erase: float = 0.0
    crop_scale: tuple[float, float] = (0.08, 1.0)
    randaugment: int = 0
    randaugment_ops: int = 2
    noise: float = 0.0
    blur: float = 0.0
    enlarge: float = 1.0
    test_every: int = 1

    def __post_init__(self) -> None:
        for field, hint in get_type_hints(type(self)).items():
            choices = get_args(hint) if get_origin(hint) is Literal else ()
            if choices and getattr(self, field) not in choices:
                raise self._wrong(field, f"one of {', '.join(choices)}")
        phases = self.phases
        pairs = isinstance(phases, tuple) and all(
            isinstance(phase, tuple) and len(phase) == 2 and all(type(n) is int for n in phase)
            for phase in phases
        )
        if not phases or not pairs or min(min(phase) for phase in phases) < 1:
            raise self._wrong("phases", "pairs of image side and epochs, such as ((32, 10),)")
        for field, least in _LEAST.items():
            if type(getattr(self, field)) is not int or getattr(self, field) < least:
                raise self._wrong(field, f"a whole number of at least {least}")
        for field in _PARTS:
            value = getattr(self, field)
            if value is not None and not 0.0 <= value < 1.0:
                raise self._wrong(field, "a number from 0 up to, not including, 1")
        for field in _POSITIVE:
            if not 0.0 <= getattr(self, field) < math.inf:
                raise self._wrong(field, "a number of at least 0")
        if not 1.0 <= self.enlarge < math.inf:
            raise self._wrong("enlarge", "a number of at least 1")
        if not 0.0 < self.test_crop <= 1.0:
            raise self._wrong("test_crop", "a number above 0 and at most 1")
        if self.randaugment > 30:
            raise self._wrong("randaugment", "a magnitude of at most 30")
        self._check_tuples()
        if self.stem and self.stem not in STEMS and parse_stem(self.stem) == self.stem:
            raise self._wrong("stem", f"one of {', '.join(STEMS)}, or such as 3x3/2+pool")
        if self.stream and self.data != "hub":
            raise self._wrong("stream", "for data=hub")

    def _check_tuples(self) -> None:
        low, high = self.crop_scale if len(self.crop_scale) == 2 else (1.0, 0.0)
        if not (0.0 < low <= high <= 1.0 or low == high == 0.0):
            raise self._wrong("crop_scale", "two parts of the area, such as (0.08, 1.0), or (0, 0)")
        epochs = self.step_epochs
        if any(type(n) is not int or n < 1 for n in epochs) or list(epochs) != sorted(set(epochs)):
            raise self._wrong("step_epochs", "rising numbers of epochs, such as (60, 120, 160)")
        if (self.schedule == "step") != bool(epochs):
            raise self._wrong("step_epochs", "given with schedule=step, and only with it")

    def _wrong(self, field: str, right: str) -> ConfigError:
        return ConfigError(
            f"The recipe can't have {field}={getattr(self, field)!r}.", f"{field} is {right}."
        )

    @property
    def epochs(self) -> int:
        """Epochs in all."""
        return self._planned + self.restart_epochs

    @property
    def _planned(self) -> int:
        return sum(epochs for _, epochs in self.phases)

    def size(self, epoch: int) -> int:
        """Image side in `epoch`, counted from 0."""
        for size, epochs in self.phases:
            if epoch < epochs:
                return size
            epoch -= epochs
        return self.phases[-1][0]

    @property
    def final_size(self) -> int:
        """Image side in the last test."""
        return self.test_size or self.phases[-1][0]

    def factor(self, step: int, steps: int) -> float:
        """Learning rate in `step`, as a part of its peak.

        Args:
            step: From 0, over all epochs.
            steps: Steps of one epoch.
        """
        planned = self._planned * steps
        if step >= planned:
            return self.restart_lr * (1.0 - (step - planned) / (self.restart_epochs * steps))
        if self.schedule == "one-cycle":
            return self._one_cycle(step, planned)
        done = step / planned
        if done < self.warmup:
            return done / self.warmup
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "step":
            passed = sum(step >= epoch * steps for epoch in self.step_epochs)
            return float(self.step_factor**passed)
        left = (1.0 - done) / (1.0 - self.warmup)
        return left if self.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)

    def _one_cycle(self, step: int, planned: int) -> float:
        """As torch's `OneCycleLR` with its defaults, without its change of the momentum."""
        top = self.warmup * planned - 1
        if step < top:
            start, end, done = _CYCLE_START, 1.0, step / top
        else:
            start, end, done = 1.0, _CYCLE_END, (step - top) / max(planned - 1 - top, 1)
        return end + (start - end) * (0.5 + 0.5 * math.cos(math.pi * done))

    def build(self, classes: int, channels: int, seed: int) -> Classifier:
        """The network as training starts with it.

        Args:
            classes: Outputs.
            channels: Channels of the image.
            seed: Seed of the initialization: of all, or where `model` has trained weights, of what
                these do not cover.

        Raises:
            ConfigError: There is no such network or tag, or it has no such option.
            PolicyError: A policy that can't be read or does not fit.
            WeightsError: Weights that can't be had or do not fit.
        """
        spec, trained = find(self.model, **self._changes(classes, channels))
        return build(spec, trained, seed=seed)

    def network(self, classes: int, channels: int) -> ModelSpec:
        """The spec of that network.

        Raises:
            ConfigError: There is no such network, or it has no such option.
            PolicyError: A policy that can't be read.
        """
        return config(self.model).replace(**self._changes(classes, channels))

    def _changes(self, classes: int, channels: int) -> dict[str, Any]:
        changes: dict[str, Any] = {"num_classes": classes, "in_chans": channels}
        if self.stem:
            changes["stem"] = parse_stem(self.stem)
        for field in ("dropout", "drop_path"):
            if getattr(self, field) is not None:
                changes[field] = getattr(self, field)
        if self.key_drop:
            changes["key_drop"] = self.key_drop
        return changes

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; an unknown field is a `ConfigError`."""
        check_fields("The recipe", changes, [field.name for field in dataclasses.fields(self)])
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """A recipe from what `dataclasses.asdict` and JSON made of it: lists become tuples."""
        return cls(**{field: _tuples(value) for field, value in raw.items()})


# Least values of the fields that are whole numbers.
_LEAST = {
    "batch": 1,
    "accumulate": 1,
    "test_every": 1,
    "randaugment_ops": 1,
    "margin": 0,
    "restart_epochs": 0,
    "stream_images": 0,
    "images_per_class": 0,
    "test_size": 0,
    "cutout": 0,
    "randaugment": 0,
}
_PARTS = (
    "dropout",
    "drop_path",
    "key_drop",
    "warmup",
    "momentum",
    "muon_momentum",
    "label_smoothing",
    "zoom",
    "restart_lr",
    "ema",
    "erase",
)
_POSITIVE = (
    "lr",
    "muon_lr",
    "weight_decay",
    "rotation",
    "step_factor",
    "mixup",
    "cutmix",
    "noise",
    "blur",
)
# Where torch's OneCycleLR starts and ends by default, as parts of the peak.
_CYCLE_START, _CYCLE_END = 1 / 25, 1 / 25 / 1e4


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
