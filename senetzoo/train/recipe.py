"""A recipe: everything that determines how a network is trained, as a frozen value."""

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
from senetzoo.nn.stem import as_stem
from senetzoo.runs import read_summary, reading_recipe
from senetzoo.spec import ModelSpec
from senetzoo.zoo import build, config, find

DataName = Literal["cifar10", "cifar100", "flowers5", "folder", "hub", "digits"]
Part: TypeAlias = Annotated[float, Ge(0), Le(1)]


@dataclass(frozen=True)
class Options:
    """Options of a run that don't change its result.

    Args:
        workers: Number of processes that read large images.
        save_minutes: Minutes between checkpoints within an epoch.
        tensorboard: Also write a TensorBoard log to the folder ``tensorboard`` of the run.
    """

    workers: int = 0
    save_minutes: float = 15.0
    tensorboard: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train.

    Args:
        name: Name of the recipe.
        model: Network to train, as in `senetzoo.create`, optionally with a policy:
            ``"resnet20+se16@pre"``. With a tag, ``"resnet50.tv_in1k_v2"``, or the folder of a
            saved network or a run, training starts from its weights.
        stem: Its stem: a name, or kernel size, stride and optional pool of one convolution,
            ``"3x3/2+pool"``; empty for the network's own.
        dropout: Dropout rate before the classifier; None for the network's own.
        drop_path: Stochastic depth rate; None for the network's own.
        key_drop: Dropout rate of the keys in Swin's attention.
        data: ``"cifar10"``, ``"cifar100"``, ``"flowers5"``, ``"folder"`` (``train`` and ``val``
            or ``test`` with a folder of images per class), ``"hub"`` (a data set of the Hub or
            its parquet files), or ``"digits"`` (included in scikit-learn).
        stream: Whether to stream the training images of ``"hub"`` instead of downloading them.
        stream_images: Images in an epoch of a stream whose length is unknown.
        held_out: Fraction of the training images to hold out for validation if the data has no
            validation images; 0 for none, or for a tenth with ``keep="best"``.
        broken: What to do with an image that can't be read: ``"stop"`` the run, or ``"skip"`` it:
            it is reported, counted, and replaced by another image of its batch; in a test it
            counts as wrong.
        images_per_class: Number of training and of test images to use from each class; 0 for all.
        phases: Pairs of image size and number of epochs, in order.
        epochs: Total number of epochs; 0 for the sum of `phases` and `restart_epochs`. If only this
            is changed (``--set epochs=20``), these and `step_epochs` are scaled in proportion.
        mean: Mean of each channel for normalization, in units of the full range; None for the data
            set's own.
        std: Standard deviation of each channel for normalization; None for the data set's own.
        test_size: Image size in the test; 0 for that of the phase.
        test_crop: Fraction of the resized test image that its center crop keeps (large images).
        batch: Images per optimizer step, over all processes and accumulated parts. The last
            incomplete batch of an epoch is dropped; its images differ between epochs.
        accumulate: Number of parts that a batch is processed in, one after another.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"`` (mixed), or ``"fp64"``.
        channels_last: Whether images and weights are channels last in memory.
        compile: Whether to use `torch.compile`.
        deterministic: Whether to use deterministic kernels only. On the CPU, kernels are
            deterministic for a fixed number of threads anyway.
        optimizer: ``"sgd"`` (Nesterov), ``"adam"``, ``"adamw"``, ``"lamb"``, or ``"muon"`` for
            the convolutions that `senetzoo.train.optim.make_optimizer` names and SGD for the rest.
        lr: Peak learning rate.
        layer_decay: Learning rate of each stage, and the stem, relative to the next one. The head
            and parameters that the initial weights don't cover have the full learning rate.
        freeze: Freeze the stem and this many stages, or with ``"trunk"`` everything except the
            head. Parameters that the initial weights don't cover are always trained.
        muon_lr: Peak relative step size of Muon.
        momentum: Momentum of SGD.
        muon_momentum: Momentum of Muon.
        weight_decay: Weight decay; not applied to norms, biases, gates, layer scales and parameters
            of Muon.
        warmup: Fraction of the epochs before the restart in which the learning rate rises from 0 to
            its peak; with ``"one-cycle"``, from 1/25 of it.
        schedule: Decay of the learning rate after the warmup: ``"linear"`` or ``"cosine"`` to 0,
            ``"one-cycle"`` (Smith and Topin 2017, arXiv:1708.07120; a cosine to 4e-6 of the
            peak), ``"step"``, or ``"constant"``.
        step_epochs: With ``"step"``, the epochs after which the learning rate is multiplied by
            `step_factor`.
        step_factor: See `step_epochs`.
        restart_epochs: Epochs after those of `phases`, at their last size, in which the learning
            rate restarts and falls linearly to 0 (a warm restart: Loshchilov and Hutter 2016,
            arXiv:1608.03983).
        restart_lr: Learning rate at the restart, as a fraction of the peak.
        ema: Decay of an exponential moving average of the weights, which is then saved at the end;
            0 for none.
        loss: ``"cross-entropy"``, or ``"bce"``: binary cross-entropy of each class, where every
            class of a mixed image counts as present (Wightman et al. 2021, arXiv:2110.00476).
        label_smoothing: Label smoothing.
        class_weights: Whether all classes have the same weight in the loss, regardless of their
            number of images.
        mixup: Parameter of the beta distribution of mixup (Zhang et al. 2017); 0 for none.
        cutmix: The same for CutMix (Yun et al. 2019). With both, one is drawn for each batch.
        margin: Reflected pixels around an image before the random crop (small images); 0 for no
            crop.
        flip: Whether to mirror images at random; ``"alternate"`` mirrors a random half of them in
            the first epoch, the others in the second, and so on, so that two epochs show both views
            of each (Jordan 2024, arXiv:2404.00498).
        rotation: Maximum random rotation in degrees; 0 for none.
        zoom: Maximum random change of size, as a fraction; 0 for none.
        cutout: Size of the square that is set to the mean (DeVries and Taylor 2017); 0 for none.
        erase: Probability of erasing a rectangle (Zhong et al. 2017).
        crop_scale: Minimum and maximum fraction of the area that the random crop keeps (large
            images); (0, 0) for the center crop of the test.
        randaugment: Magnitude of RandAugment (Cubuk et al. 2019), up to 30 (large images); 0 for
            none.
        randaugment_ops: Operations of RandAugment per image.
        noise: Standard deviation of noise on training images, as a fraction of the pixel range.
        blur: Standard deviation in pixels of a Gaussian blur of training images.
        enlarge: Factor by which training images are downscaled and enlarged again; 1 for none.
        test_every: Evaluate after every `test_every` epochs, and after the last.
        keep: What to save at the end: the ``"last"`` weights, or the ``"best"`` of the evaluated
            epochs on the validation images.
        patience: Stop after this many epochs without an improvement on the validation images; 0
            for never.
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
        if self.stem:
            as_stem(self.stem)
        planned = sum(epochs for _, epochs in self.phases) + self.restart_epochs
        low, high = self.crop_scale
        area = 0.0 < low <= high or low == high == 0.0
        rising = list(self.step_epochs) == sorted(set(self.step_epochs))
        stepped = (self.schedule == "step") == bool(self.step_epochs)
        for fits, field, right in (
            (area, "crop_scale", "two increasing fractions of the area, or (0, 0)"),
            (rising, "step_epochs", "increasing numbers of epochs, such as (60, 120, 160)"),
            (stepped, "step_epochs", "needed with schedule=step, and only then"),
            (self.data == "hub" or not self.stream, "stream", "only for data=hub"),
            (
                self.flip != "alternate" or not self.stream,
                "flip",
                "true or false for a stream, whose images come in another order each epoch",
            ),
            (self.epochs in (0, planned), "epochs", f"the sum of all phases, {planned}"),
            (self.keep == "best" or not self.patience, "patience", "only for keep=best"),
            (
                self.loss == "cross-entropy" or not self.class_weights,
                "class_weights",
                "only for loss=cross-entropy",
            ),
        ):
            if not fits:
                asked = f"The recipe got {field}={getattr(self, field)!r}."
                raise ConfigError(asked, f"{field} is {right}.")
        object.__setattr__(self, "epochs", planned)

    def size(self, epoch: int) -> int:
        """Image size in `epoch`, which counts from 0."""
        for size, epochs in self.phases:
            if epoch < epochs:
                return size
            epoch -= epochs
        return self.phases[-1][0]

    @property
    def final_size(self) -> int:
        """Image size in the last test."""
        return self.test_size or self.phases[-1][0]

    def factor(self, step: int, steps: int) -> float:
        """Learning rate in `step`, as a fraction of its peak.

        Args:
            step: Index of the step over all epochs, from 0.
            steps: Steps in one epoch.
        """
        planned = (self.epochs - self.restart_epochs) * steps
        if step >= planned:
            return self.restart_lr * (1.0 - (step - planned) / (self.restart_epochs * steps))
        if self.schedule == "one-cycle":
            # torch's `OneCycleLR` with its defaults, but a constant momentum.
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
        """Build the network with its initial weights.

        Args:
            classes: Number of outputs.
            channels: Number of input channels.
            seed: Seed of the random initialization: of everything, or if `model` has trained
                weights, of the parameters that they don't cover.

        Raises:
            ConfigError: There is no such network or tag, or it has no such option.
            PolicyError: The policy can't be parsed or doesn't fit the network.
            WeightsError: The weights can't be read or don't fit the network.
        """
        spec, trained = find(self.model, **self._changes(classes, channels))
        return build(spec, trained, seed=seed)

    def network(self, classes: int, channels: int) -> ModelSpec:
        """The spec of the network.

        Raises:
            ConfigError: There is no such network, or it has no such option.
            PolicyError: The policy can't be parsed.
        """
        return config(self.model).replace(**self._changes(classes, channels))

    def too_small(self) -> str:
        """A warning if the stem shrinks the images too much; empty if it doesn't."""
        side = min(size for size, _ in self.phases)
        said = self.network(10, 3).config.too_small(side, side)
        return said and f"warning: {said} For senetzoo train and compare: --set stem=cifar"

    def _changes(self, classes: int, channels: int) -> dict[str, Any]:
        changes = {
            "num_classes": classes,
            "in_chans": channels,
            "stem": self.stem or None,
            "dropout": self.dropout,
            "drop_path": self.drop_path,
            "key_drop": self.key_drop or None,
        }
        return {name: value for name, value in changes.items() if value is not None}

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; an unknown field raises `ConfigError`."""
        check_fields("The recipe", changes, [field.name for field in dataclasses.fields(self)])
        changed = dataclasses.replace(self, **{**changes, "epochs": 0})
        epochs = changes.get("epochs", changed.epochs)
        if type(epochs) is not int or epochs < 1:
            raise ConfigError(
                f"The recipe got epochs={epochs!r}.",
                "epochs is a whole number of at least 1.",
                "Type for example: epochs=20",
            )
        if epochs == changed.epochs:
            return changed
        return changed._lasting(epochs, "step_epochs" not in changes)

    def _lasting(self, epochs: int, steps: bool) -> Self:
        """A copy that lasts `epochs`; `steps` says whether to scale `step_epochs`, too."""
        part = epochs / self.epochs
        restart = min(round(part * self.restart_epochs), epochs - 1)
        left, planned, done = epochs - restart, self.epochs - self.restart_epochs, 0
        phases = []
        for size, own in self.phases:
            # The last phase, which has the size of the test, gets the remainder.
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
        """Read a recipe from the JSON of `dataclasses.asdict`; newer fields may be missing.

        Raises:
            BrokenError: It isn't a recipe.
        """
        return from_json(cls, raw, "recipe", partial=True)


def default_fields() -> dict[str, object]:
    """The fields of a recipe that have a default, with it."""
    fields = dataclasses.fields(Recipe)
    return {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}


def read_run(folder: Path) -> tuple[Recipe, dict[str, Any]]:
    """The recipe and the summary of a finished run."""
    summary = read_summary(folder)
    with reading_recipe(folder):
        return Recipe.from_json(summary["recipe"]), summary


def read_setting(setting: str) -> tuple[str, Any]:
    """Parse ``--set key=value`` to a field and its value.

    Values are written as in Python, but text without quotes: ``lr=0.05``, ``flip=false``,
    ``phases=((16, 6), (32, 10))``, ``dropout=none``.
    """
    key, equals, text = setting.partition("=")
    if not equals:
        raise ConfigError(
            f"--set got {setting!r}.", "It takes key=value.", "Type for example: --set batch=64"
        )
    check_fields("The recipe", [key], [field.name for field in dataclasses.fields(Recipe)])
    return key, from_text(Recipe, key, text, "--set")
