"""A family with one network, built from a user's module."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, TypeAlias, TypeVar

from torch import Tensor, nn

from senetzoo.errors import ConfigError
from senetzoo.models.family import Family, Paper
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.maps import FeatureInfos

T = TypeVar("T")
Options: TypeAlias = Mapping[str, tuple[type, Any]]
"""Type and default of each argument of a class that is an option."""


class OwnConfig(Config):
    """Config of a network that a user registered; each has its own config class."""

    has_branches: ClassVar[bool] = False
    name: ClassVar[str]
    module: ClassVar[type[nn.Module]]

    @property
    def family(self) -> str:
        return self.name

    def build(self) -> OwnNetwork:
        """Build the module with these options, wrapped in a classifier."""
        known = inspect.signature(self.module).parameters
        free = {field.name for field in dataclasses.fields(Config)} - {"num_classes", "in_chans"}
        given = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name in known and field.name not in free
        }
        if self.in_chans != 3 and "in_chans" not in known:
            raise ConfigError(
                f"{self.family} got in_chans={self.in_chans}.",
                "Its class has no such argument.",
                f"Write in {self.module.__name__}: def __init__(self, num_classes, in_chans=3)",
            )
        return OwnNetwork(self, self.module(**given))

    def too_small(self, height: int, width: int) -> str:
        return ""  # the image size that it is meant for is unknown


class OwnNetwork(Classifier):
    """A network that a user registered: it has no positions for gates, and no stages."""

    feature_info = FeatureInfos()

    def __init__(self, config: OwnConfig, network: nn.Module) -> None:
        super().__init__(config)
        self.network = network
        linear = [path for path, m in self.named_modules() if isinstance(m, nn.Linear)]
        self._heads = tuple(linear[-1:])

    def forward_checked(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x)
        if out.ndim != 2 or self.num_classes not in (0, out.shape[1]):
            raise ConfigError(
                f"{self.family} returned logits of shape {tuple(out.shape)}.",
                f"Their shape is (N, num_classes), here (N, {self.num_classes}).",
                f"Change the forward of {self.family}",
            )
        return out

    def _now(self) -> Config:
        return self._config  # it is unknown which layers would show changes

    def classifiers(self) -> tuple[str, ...]:
        return self._heads

    def stages(self) -> tuple[tuple[nn.Module, ...], ...]:
        return ()

    def stem_tensors(self) -> tuple[str, ...]:
        return ()

    def forward_features(self, x: Tensor) -> Tensor:
        raise self._without_maps()

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        raise self._without_maps()

    @property
    def cam_layer(self) -> nn.Module:
        """The last convolution."""
        found = [m for m in self.network.modules() if isinstance(m, nn.Conv2d)]
        if not found:
            raise self._without_maps()
        return found[-1]

    def _without_maps(self) -> ConfigError:
        return ConfigError(
            f"{self.family} has no feature maps.",
            "Only the logits of a registered network are known.",
            "",
        )


def subclass_for(base: type[T], kind: type[nn.Module], name: str, options: Options) -> type[T]:
    """A frozen dataclass with the options of `kind`, named like it, in which `module` is `kind`."""
    space = {"name": name, "module": kind, "__doc__": kind.__doc__, "__module__": kind.__module__}
    fields = [(field, *rest) for field, rest in options.items()]
    title = kind.__name__ + ("Config" if issubclass(base, Config) else "")
    return dataclasses.make_dataclass(
        title, fields, bases=(base,), namespace=space, frozen=True, kw_only=True
    )


def family_of(kind: type[nn.Module], name: str, options: Options) -> Family:
    """A family with one network, of class `kind` and with the options of that class."""
    made = subclass_for(OwnConfig, kind, name, options)
    given = inspect.signature(kind).parameters
    usual = {
        field: given[field].default
        for field in ("num_classes", "in_chans")
        if field in given and type(given[field].default) is int
    }
    paper = Paper(kind.__name__, 0, "")
    return Family(name, {name: made(**usual)}, {"*": paper}, "Nothing.", {name: ""})
