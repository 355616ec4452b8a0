"""A recipe: everything that decides how a network is trained, as a frozen value."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from typing_extensions import Self

from senetzoo._utils.checks import (
    Example,
    Ge,
    Gt,
    Le,
    NonEmpty,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Rate,
    check,
    from_json,
    from_text,
)
from senetzoo.errors import ConfigError, check_fields
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.stem import STEMS, parse_stem
from senetzoo.runs import read_summary, reading_recipe
from senetzoo.spec import ModelSpec
from senetzoo.zoo import build, config, find, load

DataName = Literal["cifar10", "cifar100", "flowers5", "folder", "hub", "digits"]
Part: TypeAlias = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True)
class Options:
    """What a run may be given that does not change its result.

    Args:
        workers: Processes that read large images.
        save_minutes: Save the state within an epoch too, so often.
        tensorboard: Also write a TensorBoard log, to the folder ``tensorboard`` of the run.
    """

    workers: int = 0
    save_minutes: float = 15.0
    tensorboard: bool = False


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
        held_out: Part of the training images that is held out as validation images, to choose by,
            where the data has none; 0 for none, or for a tenth where `keep` is ``"best"``.
        broken: What an image that can't be read does: ``"stop"`` the run, or ``"skip"``: it is
            said, counted, and replaced by another of its batch; in a test it counts as wrong.
        images_per_class: Use only so many images of each class, for training and for the test;
            0 for all.
        phases: Resolution by time: pairs of image side and epochs at it.
        epochs: Epochs in all; 0 for those of `phases` and `restart_epochs` together. Where it alone
            is changed (``--set epochs=20``), these and `step_epochs` keep their proportions.
        mean: What is subtracted from each channel of an image, in units of the full range; None for
            the data set's own.
        std: What divides each channel then; None for the data set's own.
        test_size: Image side in the test; 0 for that of the phase.
        test_crop: Fraction of the resized test image that its center crop keeps; large images.
        batch: Images per optimizer step, over all processes and accumulated parts. An epoch leaves
            out those that do not fill one, others each time.
        accumulate: Parts that a batch is computed in, one after another.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (mixed), or ``"fp64"``.
        channels_last: Whether images and weights lie channels last in memory.
        compile: Whether to use `torch.compile`.
        deterministic: Whether to refuse kernels that give other last bits each time. Those of the
            CPU don't, with the same number of threads.
        optimizer: ``"sgd"`` (Nesterov), ``"adam"``, ``"adamw"``, ``"lamb"``, or ``"muon"`` for
            the convolutions and SGD for the rest.
        lr: Peak learning rate.
        layer_decay: The learning rate of each stage, as a part of that of the next one; the stem's
            too. The head, and what the starting weights do not cover, have the whole.
        freeze: So many stages, and the stem, stay as they are; ``"trunk"`` for all but the head.
            What the starting weights do not cover is trained.
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
        class_weights: Whether each class counts as much in the loss, however many images it has.
        mixup: Parameter of the beta distribution of mixup (Zhang et al. 2017); 0 for none.
        cutmix: The same of CutMix (Yun et al. 2019). With both, each batch draws one of them.
        margin: Small images: reflected pixels around an image before the random crop; 0 for no
            crop.
        flip: Whether images are mirrored at random; ``"alternate"``: half of them, drawn once, are
            mirrored in the first epoch, the others in the second, and so on, so that two epochs
            show both views of each (Jordan 2024, arXiv:2404.00498).
        rotation: Largest random rotation in degrees; 0 for none.
        zoom: Largest random change of size, as a part; 0 for none.
        cutout: Side of the square that is set to the mean (DeVries and Taylor 2017); 0 for none.
        erase: Probability of erasing a rectangle (Zhong et al. 2017).
        crop_scale: Large images: smallest and largest part of the area that the random crop
            takes; (0, 0) for the test's center crop.
        randaugment: Large images: magnitude of RandAugment (Cubuk et al. 2019), up to 30; 0 for
            none.
        randaugment_ops: Its operations per image.
        noise: Standard deviation of noise on training images, as a part of the pixel range.
        blur: Standard deviation in pixels of a Gaussian blur of training images.
        enlarge: Training images are reduced so many times and enlarged again; 1 for none.
        test_every: Evaluate after every so many epochs, and after the last.
        keep: What is saved at the end: the ``"last"`` weights, or the ``"best"`` of the tested
            epochs on the validation images.
        patience: Stop when the validation images have got no better for so many epochs; 0 never.
    """

    name: str
    model: str
    stem: str = ""
    dropout: Rate | None = None
    drop_path: Rate | None = None
    key_drop: Rate = 0.0
    data: DataName
    stream: bool = False
    stream_images: NonNegativeInt = 0
    held_out: Rate = 0.0
    broken: Literal["stop", "skip"] = "stop"
    images_per_class: NonNegativeInt = 0
    phases: Annotated[tuple[tuple[PositiveInt, PositiveInt], ...], NonEmpty(), Example(((32, 10),))]
    epochs: NonNegativeInt = 0
    mean: tuple[float, ...] | None = None
    std: tuple[PositiveFloat, ...] | None = None
    test_size: NonNegativeInt = 0
    test_crop: Annotated[float, Gt(0), Le(1)] = 0.875
    batch: PositiveInt = 128
    accumulate: PositiveInt = 1
    precision: Literal["fp32", "bf16", "fp16", "fp64"] = "fp32"
    channels_last: bool = True
    compile: bool = True
    deterministic: bool = False
    optimizer: Literal["sgd", "adam", "adamw", "lamb", "muon"] = "sgd"
    lr: NonNegativeFloat = 0.1
    layer_decay: Annotated[float, Gt(0), Le(1)] = 1.0
    freeze: Literal["trunk"] | NonNegativeInt = 0
    muon_lr: NonNegativeFloat = 0.06
    momentum: Rate = 0.9
    muon_momentum: Rate = 0.6
    weight_decay: NonNegativeFloat = 5e-4
    warmup: Rate = 0.1
    schedule: Literal["linear", "cosine", "one-cycle", "step", "constant"] = "linear"
    step_epochs: tuple[PositiveInt, ...] = ()
    step_factor: NonNegativeFloat = 0.1
    restart_epochs: NonNegativeInt = 0
    restart_lr: Rate = 0.12
    ema: Rate = 0.0
    loss: Literal["cross-entropy", "bce"] = "cross-entropy"
    label_smoothing: Rate = 0.0
    class_weights: bool = False
    mixup: NonNegativeFloat = 0.0
    cutmix: NonNegativeFloat = 0.0
    margin: NonNegativeInt = 4
    flip: Literal["alternate"] | bool = True
    rotation: NonNegativeFloat = 0.0
    zoom: Rate = 0.0
    cutout: NonNegativeInt = 0
    erase: Rate = 0.0
    crop_scale: tuple[Part, Part] = (0.08, 1.0)
    randaugment: Annotated[int, Ge(0), Le(30)] = 0
    randaugment_ops: PositiveInt = 2
    noise: NonNegativeFloat = 0.0
    blur: NonNegativeFloat = 0.0
    enlarge: Annotated[float, Ge(1)] = 1.0
    test_every: PositiveInt = 1
    keep: Literal["last", "best"] = "last"
    patience: NonNegativeInt = 0

    def __post_init__(self) -> None:
        check(self, name="The recipe")
        planned = sum(epochs for _, epochs in self.phases) + self.restart_epochs
        low, high = self.crop_scale
        area = 0.0 < low <= high or low == high == 0.0
        rising = list(self.step_epochs) == sorted(set(self.step_epochs))
        stepped = (self.schedule == "step") == bool(self.step_epochs)
        stem = self.stem in ("", *STEMS) or parse_stem(self.stem) != self.stem
        for fits, field, right in (
            (area, "crop_scale", "two rising parts of the area, or (0, 0)"),
            (rising, "step_epochs", "rising numbers of epochs, such as (60, 120, 160)"),
            (stepped, "step_epochs", "given with schedule=step, and only with it"),
            (stem, "stem", f"one of {', '.join(STEMS)}, or such as 3x3/2+pool"),
            (self.data == "hub" or not self.stream, "stream", "for data=hub"),
            (
                self.flip != "alternate" or not self.stream,
                "flip",
                "true or false for a stream, whose images come in another order each epoch",
            ),
            (self.epochs in (0, planned), "epochs", f"the sum of all phases, {planned}"),
            (self.keep == "best" or not self.patience, "patience", "for keep=best"),
            (
                self.loss == "cross-entropy" or not self.class_weights,
                "class_weights",
                "for loss=cross-entropy",
            ),
        ):
            if not fits:
                asked = f"The recipe got {field}={getattr(self, field)!r}."
                raise ConfigError(asked, f"{field} is {right}.")
        object.__setattr__(self, "epochs", planned)

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
        planned = (self.epochs - self.restart_epochs) * steps
        if step >= planned:
            return self.restart_lr * (1.0 - (step - planned) / (self.restart_epochs * steps))
        if self.schedule == "one-cycle":
            # As torch's `OneCycleLR` with its defaults, without its change of the momentum.
            top, start, end = self.warmup * planned - 1, 1.0, 1 / 25 / 1e4
            done = (step - top) / max(planned - 1 - top, 1)
            if step < top:
                start, end, done = 1 / 25, 1.0, step / top
            return end + (start - end) * (0.5 + 0.5 * math.cos(math.pi * done))
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
        changes = {
            "num_classes": classes,
            "in_chans": channels,
            "stem": parse_stem(self.stem) if self.stem else None,
            "dropout": self.dropout,
            "drop_path": self.drop_path,
            "key_drop": self.key_drop or None,
        }
        return {name: value for name, value in changes.items() if value is not None}

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; an unknown field is a `ConfigError`."""
        check_fields("The recipe", changes, [field.name for field in dataclasses.fields(self)])
        epochs = changes.get("epochs", 0)
        changed = dataclasses.replace(self, **{**changes, "epochs": 0})
        if epochs in (0, changed.epochs):
            return changed
        return changed._lasting(epochs, "step_epochs" not in changes)

    def _lasting(self, epochs: int, steps: bool) -> Self:
        """The same over so many epochs; `steps` says whether those of the schedule move too."""
        if type(epochs) is not int or epochs < 0:
            return dataclasses.replace(self, epochs=epochs)  # which says what is wrong
        part = epochs / self.epochs
        restart = min(round(part * self.restart_epochs), epochs - 1)
        left, planned, done = epochs - restart, self.epochs - self.restart_epochs, 0
        phases = []
        for size, own in self.phases:
            # What rounding leaves is the last phase's: its size is that of the test.
            before, done = left * done // planned, done + own
            if many := left * done // planned - before:
                phases.append((size, many))
        moved = tuple(dict.fromkeys(max(1, round(part * step)) for step in self.step_epochs))
        return dataclasses.replace(
            self,
            phases=tuple(phases),
            restart_epochs=restart,
            epochs=epochs,
            step_epochs=moved if steps else self.step_epochs,
        )

    @classmethod
    def from_json(cls, raw: object) -> Self:
        """A recipe from what `dataclasses.asdict` and JSON made of it; new fields may be missing.

        Raises:
            BrokenError: It is none.
        """
        return from_json(cls, raw, "recipe", partial=True)


def read_run(folder: Path) -> tuple[Recipe, dict[str, Any]]:
    """The recipe of a finished run, and its summary."""
    summary = read_summary(folder)
    with reading_recipe(folder):
        return Recipe.from_json(summary["recipe"]), summary


def networks_of(run: Path) -> tuple[Classifier, Classifier]:
    """The network at the end of a run, in eval mode, and the one that it began with."""
    recipe, summary = read_run(run)
    model = load(run)
    return model, recipe.build(model.num_classes, model.in_chans, summary["seed"])


def read_setting(setting: str) -> tuple[str, Any]:
    """Field and value of ``--set key=value``.

    Values are written as in Python, text without quotes: ``lr=0.05``, ``flip=false``,
    ``phases=((16, 6), (32, 10))``, ``dropout=none``.
    """
    key, equals, text = setting.partition("=")
    if not equals:
        raise ConfigError(
            f"--set got {setting!r}.", "It takes key=value.", "Type for example: --set batch=64"
        )
    check_fields("The recipe", [key], [field.name for field in dataclasses.fields(Recipe)])
    return key, from_text(Recipe, key, text, "--set")
