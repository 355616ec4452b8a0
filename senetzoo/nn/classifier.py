"""Base classes of all networks: the config, and the classifier that it builds."""

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

from senetzoo._utils.checks import NonNegativeInt, PositiveInt, Rate, check
from senetzoo.errors import ConfigError, check_fields
from senetzoo.nn.head import NoClassifier, linear_like
from senetzoo.nn.maps import AuxOutput
from senetzoo.nn.preprocessing import usual
from senetzoo.nn.report import LoadReport
from senetzoo.nn.slots import Slots
from senetzoo.nn.stem import STEMS, Stem, as_stem
from senetzoo.nn.trunk import Trunk, module_at
from senetzoo.nn.warned import trained_in_eval_mode, versions, warn, watches

# Below this, an ImageNet stem downsamples most of the image away before the first stage.
SMALL_IMAGE = 64


@dataclass(frozen=True, kw_only=True)
class Config(ABC):
    """Fields shared by all architectures; each family adds its own.

    Args:
        num_classes: Outputs of the classifier; with 0 there is none, and `ModelSpec.build` builds a
            network that returns the classifier's input.
        in_chans: Channels of the input image.
        stem: Layers before the first stage. Families built from residual blocks take any `Stem`
            or the name of one; the others have two variants: ``"imagenet"``, the paper's, and
            ``"cifar"`` for images of about 32 pixels, described in their docstring.
        dropout: Dropout before the classifier, in [0, 1).
        drop_path: Stochastic depth rate of the last block, in [0, 1); rises linearly with depth.
    """

    any_stem: ClassVar[bool] = False
    """Whether the family takes any `Stem`, or only the variants named in `sizes`."""
    sizes: ClassVar[Mapping[str, int]] = MappingProxyType({"imagenet": 224, "cifar": 32})
    """Image size in pixels that each variant is meant for."""
    has_branches: ClassVar[bool] = True
    """Whether there are residual branches for stochastic depth to drop."""

    num_classes: NonNegativeInt = 1000
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
        """Name used in messages: ``LeNet`` for a ``LeNetConfig``."""
        return type(self).__name__.removesuffix("Config")

    def _form(self) -> str:
        """Name of the variant that `stem` asks for."""
        named = stem = self.stem
        if isinstance(stem, Stem):
            named = next((name for name, value in STEMS.items() if value == stem), stem)
        if isinstance(named, str) and named in self.sizes:
            return named
        forms = [f"{form!r} for images of {side}x{side}" for form, side in self.sizes.items()]
        raise ConfigError(
            f"{self.family} got stem={stem!r}.",
            f"{self.family} has only one stem, {forms[0]} pixels."
            if len(forms) == 1
            else f"{self.family} has the stems {' and '.join(forms)} pixels.",
            f"Leave out stem, or type stem={list(self.sizes)[-1]!r}",
        )

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed; an unknown field raises `ConfigError`."""
        known = [field.name for field in dataclasses.fields(self)]
        check_fields(type(self).__name__, changes, known)
        return dataclasses.replace(self, **changes)

    @property
    def small(self) -> bool:
        """Whether this variant is for small images, whose stem doesn't downsample."""
        return self.stem.stride == 1 if isinstance(self.stem, Stem) else self.stem == "cifar"

    def too_small(self, height: int, width: int) -> str:
        """A warning if the stem shrinks images of this size too much; empty if it doesn't."""
        shrinks = self.stem.stride >= 4 if isinstance(self.stem, Stem) else not self.small
        if not shrinks or min(height, width) >= SMALL_IMAGE:
            return ""
        return (
            f"The input has {height}x{width} pixels, but the network is built for "
            f"{self.input_size}x{self.input_size}. For images under {SMALL_IMAGE} pixels "
            'use stem="cifar".'
        )

    @property
    def input_size(self) -> int:
        """Image size in pixels that the network is meant for."""
        if isinstance(self.stem, Stem):
            return self.sizes["imagenet" if self.stem.stride > 1 else "cifar"]
        return self.sizes[self.stem]

    @property
    def min_size(self) -> int:
        """Smallest image size in pixels that leaves at least one pixel in the last stage."""
        return 1

    @abstractmethod
    def build(self) -> Classifier:
        """Build the network without gates, initialized from torch's global random state."""


class Classifier(Trunk):
    """An image classifier: (N, in_chans, H, W) images in, (N, num_classes) logits out.

    A subclass adds its modules, calls `set_levels` with the order in which they run, and ends with
    `add_head`. A block is a module that has a `Slots` among its children.
    """

    _spec_of: ClassVar[Callable[[Classifier], Any]]
    """Computes `spec`. Set by senetzoo.spec, because this package can't import it."""
    push_to_hub: Callable[..., str]
    """`senetzoo.push`; `from_pretrained` is `senetzoo.load`. Other libraries use these names."""
    from_pretrained: ClassVar[Callable[..., Classifier]]
    head_name: ClassVar[str] = "fc"
    """Name of the linear layer that computes the logits."""

    temperature: float = 1.0
    """Divides the logits before the softmax, so that probabilities are calibrated."""
    reject_below: float | None = None
    """A best probability below this is not confident enough for an answer; None: not set."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        if not config.num_classes:
            raise ConfigError(
                f"{config.family}'s config can't build a network without a classifier.",
                "Its spec builds one with a classifier and removes that.",
                "Type senetzoo.create(name, num_classes=0)",
            )
        self._config = config
        self.load_report: LoadReport | None = None
        self.loaded = self.calibrated = dict[str, tuple[int, ...]]()  # of `provenance.checksums`
        self._small_warned = self._eval_warned = False
        self._versions: tuple[int, int] | None = None

    @property
    def spec(self) -> Any:
        """The network's current name, config and policy, as a `senetzoo.spec.ModelSpec`.

        ``model.spec.replace(num_classes=3).build(seed=0)`` builds another one.

        Raises:
            ConfigError: The network has a gate that isn't from this zoo.
        """
        return type(self)._spec_of(self)

    @property
    def family(self) -> str:
        """Name of the family: ``"ResNet"``."""
        return self._config.family

    def _now(self) -> Config:
        """The config with the classes and channels of the current layers.

        They differ from the original config after ``model.fc = nn.Linear(512, 3)``.
        """
        config, now = self._config, dict[str, int]()
        head = self.get_classifier()
        first = module_at(self, self.input_parameter().rpartition(".")[0])
        # An identity is what users put there to get embeddings.
        if isinstance(head, nn.Linear | nn.Identity) and self.classifiers():
            now["num_classes"] = head.out_features if isinstance(head, nn.Linear) else 0
        if isinstance(first, nn.Conv2d):
            now["in_chans"] = first.in_channels
        changed = any(getattr(config, name) != value for name, value in now.items())
        return config.replace(**now) if changed else config

    @property
    def num_classes(self) -> int:
        """Number of outputs; 0 without a classifier."""
        return self._now().num_classes

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the logits; empty if the weights have none."""
        named = () if self.load_report is None else self.load_report.classes
        return named if len(named) == self.num_classes else ()

    @property
    def in_chans(self) -> int:
        """Number of input channels."""
        return self._now().in_chans

    @property
    def input_size(self) -> int:
        """Image size in pixels of the weights' preprocessing, or that the variant is meant for."""
        known = None if self.load_report is None else self.load_report.preprocessing
        return self._config.input_size if known is None else known.size

    @property
    def min_size(self) -> int:
        """Smallest image size in pixels that the network accepts."""
        return self._config.min_size

    def add_head(self, channels: int) -> None:
        """Add global average pooling, dropout and one linear layer.

        Args:
            channels: Input channels of the linear layer, usually those of the last map.
        """
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(self._config.dropout) if self._config.dropout else None
        self.add_module(self.head_name, nn.Linear(channels, self._config.num_classes))

    @property
    def cam_layer(self) -> nn.Module:
        """Module whose output, in `layout`, is the last feature map; used by Grad-CAM."""
        last, block = self._running(-1)[-1], self.stages()[-1][-1]
        return block if any(module is block for module in last.modules()) else last

    def pre_logits(self, features: Tensor) -> Tensor:
        """Input (N, C) of the linear layer, from the last feature map (N, C, h, w)."""
        x: Tensor = self.avgpool(features).flatten(1)
        return x if self.dropout is None else self.dropout(x)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (N, num_classes) from the last feature map (N, C, h, w).

        With `pre_logits`, the input of the last linear layer, (N, C).
        """
        x = self.pre_logits(features)
        return x if pre_logits else self.get_classifier()(x)

    def get_classifier(self) -> nn.Module:
        """The linear layer that computes the logits; an identity if there is none."""
        paths = self.classifiers()
        return self.get_submodule(paths[0]) if paths else nn.Identity()

    def classifiers(self) -> tuple[str, ...]:
        """Names of the linear layers that compute logits; the first is the main one."""
        return (self.head_name,)

    def input_parameter(self) -> str:
        """Name of the first convolution's weight, which depends on `in_chans`."""
        convs = (path for path, m in self.named_modules() if isinstance(m, nn.Conv2d))
        return f"{next(convs, '')}.weight"

    def input_parameters(self) -> tuple[str, ...]:
        """Names of all parameters that depend on `in_chans`, `input_parameter` first."""
        return (self.input_parameter(),)

    def forward(self, x: Tensor) -> Tensor | AuxOutput:
        """Logits (N, num_classes) of images (N, in_chans, H, W).

        A network built with ``aux=True`` returns an `AuxOutput` in training mode.
        """
        self.check_input(x)
        self._check_norms(x)
        return self.forward_checked(x)

    def _check_norms(self, x: Tensor) -> None:
        """Warn once if the network is trained in eval mode."""
        if self._eval_warned or not watches(x):
            return
        before, self._versions = self._versions, None if self.training else versions(self)
        if trained_in_eval_mode(before, self._versions):
            self._eval_warned = True
            warn(
                "The network is being trained in eval mode, the mode after loading weights: its "
                "batch norms keep the old statistics. Type model.train() before each epoch."
            )

    def forward_checked(self, x: Tensor) -> Tensor | AuxOutput:
        """`forward` without the checks; networks with auxiliary heads override it."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """The last feature map, before pooling: (N, C, h, w)."""
        for found in self._maps(x):
            x = found
        return x

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """The maps (N, C, h, w) after each stage, described by `feature_info`."""
        self.check_input(x)
        return list(self._maps(x))

    def classifier_parameters(self) -> tuple[str, ...]:
        """Names of the parameters that depend on `num_classes`."""
        return tuple(
            f"{path}.{name}"
            for path in self.classifiers()
            for name, _ in self.get_submodule(path).named_parameters()
        )

    def stem_tensors(self) -> tuple[str, ...]:
        """Names of the parameters and buffers of the stem, before the first stage.

        Empty if the first convolution is in the first stage (LeNet, AlexNet, VGG).
        """
        first = self.stages()[0][0]
        if isinstance(first, Slots):
            return ()
        within = {id(tensor) for tensor in first.state_dict(keep_vars=True).values()}
        tensors = self.state_dict(keep_vars=True).items()
        return tuple(n for n, _ in itertools.takewhile(lambda t: id(t[1]) not in within, tensors))

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last linear layers with newly initialized ones, without class names.

        With 0, remove them: the network then returns their input, (N, C).

        Raises:
            ConfigError: `num_classes` isn't an integer, or you put something other than a linear
                layer there; the network isn't changed.
        """
        old: dict[str, nn.Linear | NoClassifier] = {}
        for path in self.classifiers():
            layer = self.get_submodule(path)
            if num_classes == 0 and type(layer) is nn.Identity:
                continue
            if not isinstance(layer, nn.Linear | NoClassifier):
                raise ConfigError(
                    f"reset_classifier found at {path}: {type(layer).__name__}.",
                    "It replaces the linear layer that the network was built with.",
                    f"Put one there yourself: model.{path} = torch.nn.Linear(...)",
                )
            old[path] = layer
        if num_classes == 0 and not self.classifiers():
            raise ConfigError(
                f"reset_classifier found no linear layer in {self.family}.",
                "It removes the last linear layer.",
                "Remove the classifier yourself",
            )
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
        """Reset `temperature` and `reject_below`, which were measured with other weights."""
        for name in ("temperature", "reject_below"):
            self.__dict__.pop(name, None)
        self.calibrated = {}

    @property
    def pretrained_cfg(self) -> dict[str, Any]:
        """For timm's functions, such as `timm.data.resolve_model_data_config`."""
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
        """Check that `x` is a batch of images for this network; skipped under a compiler.

        Raises:
            ConfigError: Wrong rank or channels, or images smaller than the network accepts.
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
                else "Build it with in_chans=, the number of channels of your images",
            )
        smallest, least = min(x.shape[2:]), config.min_size
        if smallest < least:
            raise ConfigError(
                f"The network got images of {x.shape[2]}x{x.shape[3]} pixels.",
                f"This {config.family} takes at least {least}x{least}.",
                "Enlarge the images, for example with senetzoo.transforms(model)"
                if config.small
                else 'Build it with stem="cifar", or enlarge the images',
            )
        known = None if self.load_report is None else self.load_report.preprocessing
        meant = known is not None and known.size <= smallest  # it was trained on such images
        text = "" if meant or self._small_warned else config.too_small(x.shape[2], x.shape[3])
        if text:
            self._small_warned = True
            warn(text)
