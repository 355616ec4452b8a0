"""The head that most networks have: the average of the last map, then one linear layer."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from senetzoo.nn.classifier import Classifier


class Pooled(Classifier):
    """A network with that head; a subclass adds it after its other layers by `add_head`.

    A subclass declares the linear layer with its type, for who uses it by name.
    """

    head_name: ClassVar[str] = "fc"
    """Name of the linear layer."""

    def add_head(self, channels: int) -> None:
        """The pool over the last map, the dropout and the linear layer.

        Args:
            channels: Channels that the linear layer takes, in general those of the last map.
        """
        config = self._config
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(config.dropout) if config.dropout else None
        self.add_module(self.head_name, nn.Linear(channels, config.num_classes))

    def pre_logits(self, features: Tensor) -> Tensor:
        """What the linear layer takes (N, C), from the last feature map (N, C, h, w)."""
        x: Tensor = self.avgpool(features).flatten(1)
        return x if self.dropout is None else self.dropout(x)

    def forward_head(self, features: Tensor) -> Tensor:
        head = self.get_submodule(self.head_name)
        return head(self.pre_logits(features))  # type: ignore[no-any-return]

    def classifiers(self) -> tuple[str, ...]:
        return (self.head_name,)
