"""The value that decides an architecture: fields that every family has."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from typing_extensions import Self

from senetzoo._utils.checks import PositiveInt, Rate, check
from senetzoo.errors import ConfigError, check_fields
from senetzoo.nn.stem import STEMS, Stem, as_stem

if TYPE_CHECKING:
    from senetzoo.nn.classifier import Classifier


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
        stem = self.stem
        named = stem
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
