"""What every network of the zoo is: a config, and the classifier that it builds."""

from __future__ import annotations

import dataclasses
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from senetzoo._utils.checks import PositiveInt, Rate, check
from senetzoo.errors import ConfigError, check_fields
from senetzoo.nn.head import NoClassifier, linear_like
from senetzoo.nn.maps import AuxOutput
from senetzoo.nn.preprocessing import usual
from senetzoo.nn.report import LoadReport
from senetzoo.nn.slots import Slots
from senetzoo.nn.stem import STEMS, Stem, as_stem
from senetzoo.nn.trunk import Trunk, module_at
from senetzoo.nn.warned import trained_in_eval_mode, versions, warn, watches

# An ImageNet stem makes a smaller image so small that most of it is gone before the first stage.
SMALL_IMAGE = 64


@dataclass(frozen=True, kw_only=True)
class Config(ABC):
    """The fields that every architecture has. A family adds its own.

    Args:
        num_classes: Outputs of the classifier.
        in_chans: Channels of the input image.
        stem: What comes before the first stage. Families built of residual blocks take any
            `Stem`, or the name of one; the others have two forms: ``"imagenet"``, which is the
            paper's, and ``"cifar"`` for images of about 32 pixels, which their docstring
            describes.
        dropout: Dropout before the classifier, in [0, 1).
        drop_path: Stochastic depth, rising linearly with depth to this rate, in [0, 1).
    """

    any_stem: ClassVar[bool] = False
    """Whether the family takes any `Stem`, or only the forms of `sizes` by name."""
    sizes: ClassVar[Mapping[str, int]] = MappingProxyType({"imagenet": 224, "cifar": 32})
    """Side in pixels of the images that each form is meant for."""
    has_branches: ClassVar[bool] = True
    """Whether there are residual branches, which stochastic depth can drop."""

    num_classes: PositiveInt = 1000
    in_chans: PositiveInt = 3
    stem: Stem | str = "imagenet"
    dropout: Rate = 0.0
    drop_path: Rate = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "stem", as_stem(self.stem) if self.any_stem else self._form())
        check(self, name=self.family)
        if self.drop_path and not self.has_branches:
            raise ConfigError(
                f"{self.family} got drop_path={self.drop_path}.",
                f"{self.family} has no residual branches to drop.",
                "Leave drop_path out",
            )

    @property
    def family(self) -> str:
        """What messages call the network: ``LeNet`` for a ``LeNetConfig``."""
        return type(self).__name__.removesuffix("Config")

    def _form(self) -> str:
        """The name of the form that `stem` asks for."""
        named = stem = self.stem
        if isinstance(stem, Stem):
            named = next((name for name, value in STEMS.items() if value == stem), stem)
        if isinstance(named, str) and named in self.sizes:
            return named
        forms = [f"{form!r} for images of {side}x{side}" for form, side in self.sizes.items()]
        raise ConfigError(
            f"{self.family} got stem={stem!r}.",
            f"{self.family} has no stem to exchange, only the form {forms[0]} pixels."
            if len(forms) == 1
            else f"{self.family} has the forms {' and '.join(forms)} pixels.",
            f"Leave stem out, or type stem={list(self.sizes)[-1]!r}",
        )

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; an unknown field is a `ConfigError`."""
        known = [field.name for field in dataclasses.fields(self)]
        check_fields(type(self).__name__, changes, known)
        return dataclasses.replace(self, **changes)

    @property
    def small(self) -> bool:
        """Whether this is the form for small images, which keeps their size at first."""
        return self.stem.stride == 1 if isinstance(self.stem, Stem) else self.stem == "cifar"

    @property
    def input_size(self) -> int:
        """Side in pixels of the images it is meant for."""
        if isinstance(self.stem, Stem):
            return self.sizes["imagenet" if self.stem.stride > 1 else "cifar"]
        return self.sizes[self.stem]

    @property
    def min_size(self) -> int:
        """Side in pixels of the smallest image that leaves the last stage a pixel."""
        return 1

    @abstractmethod
    def build(self) -> Classifier:
        """The network without gates, initialized from torch's global random state."""


class Classifier(Trunk):
    """An image classifier: (N, in_chans, H, W) images in, (N, num_classes) logits out.

    A subclass adds its modules, says by `set_levels` in which order they run, and ends with
    `add_head`. A block is a module with a `Slots` among its children.
    """

    _spec_of: ClassVar[Callable[[Classifier], Any]]
    """Gives `spec`. senetzoo.spec sets it: this room knows neither names nor policies."""
    push_to_hub: Callable[..., str]
    """`senetzoo.push`, and `from_pretrained` is `senetzoo.load`, by names of other libraries."""
    from_pretrained: ClassVar[Callable[..., Classifier]]
    head_name: ClassVar[str] = "fc"
    """Name of the linear layer whose outputs are the classes."""

    temperature: float = 1.0
    """Divides the logits before the softmax: probabilities then are as often right as they say."""
    reject_below: float | None = None
    """Probability of the best class below which an image shows none of them; None: not known."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self._config = config
        self.load_report: LoadReport | None = None
        self.loaded = self.calibrated = dict[str, tuple[int, ...]]()  # of `provenance.checksums`
        self._small_warned = self._eval_warned = False
        self._versions: tuple[int, int] | None = None

    @property
    def spec(self) -> Any:
        """What the network is, a `senetzoo.spec.ModelSpec`: its name, config and policy as of now.

        ``model.spec.replace(num_classes=3).build(seed=0)`` makes another one.

        Raises:
            ConfigError: It has a gate that is not of this zoo.
        """
        return type(self)._spec_of(self)

    @property
    def family(self) -> str:
        """The family of its config: ``"ResNet"``."""
        return self._config.family

    def _now(self) -> Config:
        """The config, with the classes and channels of the layers that it has now.

        They are others than it was built with where ``model.fc = nn.Linear(512, 3)`` was set.
        """
        config, now = self._config, {}
        head = self.get_classifier()
        first = module_at(self, self.input_parameter().rpartition(".")[0])
        if isinstance(head, nn.Linear) and head.out_features != config.num_classes:
            now["num_classes"] = head.out_features
        if isinstance(first, nn.Conv2d) and first.in_channels != config.in_chans:
            now["in_chans"] = first.in_channels
        return config.replace(**now) if now else config

    @property
    def num_classes(self) -> int:
        """Outputs; 0 for a network without a classifier."""
        head = self.get_classifier()
        return 0 if isinstance(head, NoClassifier) else self._now().num_classes

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its classes in the order of the logits; empty where its weights have none."""
        named = () if self.load_report is None else self.load_report.classes
        return named if len(named) == self.num_classes else ()

    @property
    def in_chans(self) -> int:
        """Channels of the input."""
        return self._now().in_chans

    @property
    def input_size(self) -> int:
        """Side in pixels of the images that this form of the network is made for."""
        return self._config.input_size

    @property
    def min_size(self) -> int:
        """Side in pixels of the smallest images that it takes."""
        return self._config.min_size

    def add_head(self, channels: int) -> None:
        """The average of the last map, dropout and one linear layer.

        Args:
            channels: Channels that the linear layer takes, in general those of the last map.
        """
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(self._config.dropout) if self._config.dropout else None
        self.add_module(self.head_name, nn.Linear(channels, self._config.num_classes))

    @property
    def cam_layer(self) -> nn.Module:
        """The module whose output, in `layout`, is the last feature map: where Grad-CAM looks."""
        last, block = self._running(-1)[-1], self.stages()[-1][-1]
        return block if any(module is block for module in last.modules()) else last

    def pre_logits(self, features: Tensor) -> Tensor:
        """What the linear layer takes (N, C), from the last feature map (N, C, h, w)."""
        x: Tensor = self.avgpool(features).flatten(1)
        return x if self.dropout is None else self.dropout(x)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (N, num_classes) from the last feature map (N, C, h, w).

        With `pre_logits` what the last linear layer takes, (N, C).
        """
        x = self.pre_logits(features)
        return x if pre_logits else self.get_classifier()(x)

    def get_classifier(self) -> nn.Module:
        """The linear layer whose outputs are the classes; an identity where there is none."""
        paths = self.classifiers()
        return self.get_submodule(paths[0]) if paths else nn.Identity()

    def classifiers(self) -> tuple[str, ...]:
        """Names of the linear layers whose outputs are the classes; the first is the main one."""
        return (self.head_name,)

    def input_parameter(self) -> str:
        """Name of the first convolution's weight, which depends on the number of channels."""
        convs = (path for path, m in self.named_modules() if isinstance(m, nn.Conv2d))
        return f"{next(convs, '')}.weight"

    def input_parameters(self) -> tuple[str, ...]:
        """`input_parameter`, and others that depend on the number of channels."""
        return (self.input_parameter(),)

    def forward(self, x: Tensor) -> Tensor | AuxOutput:
        """Logits (N, num_classes) of images (N, in_chans, H, W).

        An `AuxOutput` in training mode, for a network that was built with ``aux=True``.
        """
        self.check_input(x)
        self._check_norms(x)
        return self.forward_checked(x)

    def _check_norms(self, x: Tensor) -> None:
        """Warn once of batch norms that learn in eval mode, as no training means them to."""
        if self._eval_warned or not watches(x):
            return
        before, self._versions = self._versions, None if self.training else versions(self)
        if trained_in_eval_mode(before, self._versions):
            self._eval_warned = True
            warn(
                "The network is trained in eval mode, as weights leave it: its batch norms keep "
                "the statistics of the weights. Type model.train() before each epoch."
            )

    def forward_checked(self, x: Tensor) -> Tensor | AuxOutput:
        """`forward` after `check_input`: what a network with auxiliary heads overrides."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map, before pooling: (N, C, h, w)."""
        for found in self._maps(x):
            x = found
        return x

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """The map after each stage, (N, C, h, w) each, as in `feature_info`."""
        self.check_input(x)
        return list(self._maps(x))

    def classifier_parameters(self) -> tuple[str, ...]:
        """Names of the parameters that depend on the number of classes."""
        return tuple(
            f"{path}.{name}"
            for path in self.classifiers()
            for name, _ in self.get_submodule(path).named_parameters()
        )

    def stem_tensors(self) -> tuple[str, ...]:
        """Names of the parameters and buffers before the first stage: what the stem consists of.

        There are none where the first convolution is in the first stage (LeNet, AlexNet, VGG).
        """
        first = self.stages()[0][0]
        if isinstance(first, Slots):
            return ()
        within = {id(tensor) for tensor in first.state_dict(keep_vars=True).values()}
        tensors = self.state_dict(keep_vars=True).items()
        return tuple(n for n, _ in itertools.takewhile(lambda t: id(t[1]) not in within, tensors))

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layers by newly initialized ones, whose classes have no names.

        With 0 there is none: the network gives what its last linear layer took, (N, C).

        Raises:
            ConfigError: `num_classes` is no whole number, or something else than a linear layer
                was put there by hand; nothing is changed then.
        """
        old: dict[str, nn.Linear | NoClassifier] = {}
        for path in self.classifiers():
            layer = self.get_submodule(path)
            if not isinstance(layer, nn.Linear | NoClassifier):
                raise ConfigError(
                    f"reset_classifier found a {type(layer).__name__} at {path}.",
                    "It replaces the linear layer that the network was built with.",
                    f"Put one there yourself: model.{path} = torch.nn.Linear(...)",
                )
            old[path] = layer
        if num_classes != 0 or type(num_classes) is not int:
            self._config = self._config.replace(num_classes=num_classes)
        for path, layer in old.items():
            new: nn.Module
            new = NoClassifier(layer) if num_classes == 0 else linear_like(layer, num_classes, self)
            parent, _, name = path.rpartition(".")
            setattr(self.get_submodule(parent), name, new.train(layer.training))
        self.uncalibrate()
        if (report := self.load_report) is not None:
            fresh = dict.fromkeys(self.classifier_parameters(), "a new classifier")
            replaced = tuple({**dict(report.replaced), **fresh}.items())
            self.load_report = dataclasses.replace(report, classes=(), replaced=replaced)

    def uncalibrate(self) -> None:
        """Forget `temperature` and `reject_below`, which are of other tensors than it has now."""
        for name in ("temperature", "reject_below"):
            self.__dict__.pop(name, None)
        self.calibrated = {}

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """What timm's functions read, such as `timm.data.resolve_model_data_config`."""
        known = None if self.load_report is None else self.load_report.preprocessing
        channels, images = self.in_chans, known or usual(self.input_size)
        found = {
            "num_classes": self.num_classes,
            "input_size": (channels, images.size, images.size),
            "interpolation": images.interpolation,
            "crop_pct": images.crop,
            "first_conv": self.input_parameter().rpartition(".")[0],
            "classifier": next(iter(self.classifiers()), ""),
        }
        if channels in (1, 3):
            images = images.for_channels(channels)
            found |= {"mean": images.mean, "std": images.std}
        return found

    def check_input(self, x: Tensor) -> None:
        """Refuse what is no batch of images for this network; nothing under a compiler.

        Raises:
            ConfigError: Wrong rank or channels, or an image smaller than the network can take.
        """
        if torch.compiler.is_compiling() or not isinstance(x, Tensor):
            return
        config = self._now()
        if x.ndim != 4 or x.shape[1] != config.in_chans:
            raise ConfigError(
                f"The network got an input of shape {tuple(x.shape)}.",
                f"It takes images of shape (N, {config.in_chans}, H, W).",
                "Type x.unsqueeze(0) for a single image"
                if x.ndim == 3
                else "Build it with in_chans= the channels of your images",
            )
        smallest, least = min(x.shape[2:]), config.min_size
        if smallest < least:
            raise ConfigError(
                f"The network got images of {x.shape[2]}x{x.shape[3]} pixels.",
                f"This form of {config.family} takes at least {least}x{least}.",
                "Enlarge the images, for example with senetzoo.transforms(model)"
                if config.small
                else 'Build it with stem="cifar", or enlarge the images',
            )
        shrinks = config.stem.stride >= 4 if isinstance(config.stem, Stem) else not config.small
        if shrinks and smallest < SMALL_IMAGE and not self._small_warned:
            self._small_warned = True
            warn(
                f"The input is {x.shape[2]}x{x.shape[3]} pixels and the network is built for "
                f"{config.input_size}x{config.input_size}. For images under {SMALL_IMAGE} pixels "
                'use stem="cifar".'
            )
