"""A network up to its last map: stages of modules, with the sites of gates in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from senetzoo.errors import ConfigError
from senetzoo.nn.checkpoint import recomputed
from senetzoo.nn.maps import FeatureInfo, FeatureInfos
from senetzoo.nn.slots import Layout, Site, Slots, TensorMap, chain


class Trunk(nn.Module):
    """A network up to its last map, divided into stages by `set_levels`."""

    layout: Layout = "nchw"
    """Memory order of the maps inside the network."""

    feature_info: FeatureInfos
    """Stride and channels of the map after each stage."""
    _paths: tuple[tuple[str, ...], ...] = ()
    _recomputes = False

    def set_levels(
        self, levels: Iterable[Sequence[str]], strides: Iterable[int], channels: Iterable[int]
    ) -> None:
        """Set the modules that run in each stage, before the pooling.

        Args:
            levels: Paths of each stage's modules in order. The first stage includes the stem, the
                last one everything up to the pooling. Paths without a module are skipped.
            strides: Input pixels per pixel of the map after each stage.
            channels: Channels of the map after each stage.
        """
        self._paths = tuple(map(tuple, levels))
        self.feature_info = FeatureInfos(map(FeatureInfo, strides, channels))

    def _running(self, level: int) -> list[nn.Module]:
        """The modules of a level in the order in which they run."""
        found = (module_at(self, path) for path in self._paths[level])
        return [module for module in found if module is not None]

    def stages(self) -> tuple[tuple[nn.Module, ...], ...]:
        """The blocks of each stage, in order. Every `Slots` of the network is in a block."""
        return tuple(
            tuple(
                module
                for part in self._running(level)
                for module in part.modules()
                if any(isinstance(child, Slots) for child in module.children())
            )
            for level in range(len(self._paths))
        )

    def levels(self) -> tuple[TensorMap, ...]:
        """The stages up to the pooling as functions, from map to map in `layout`."""
        return tuple(chain(*self._running(level)) for level in range(len(self._paths)))

    def __prepare_scriptable__(self) -> None:
        """Called by `torch.jit.script`."""
        raise ConfigError(
            f"torch.jit.script got a {type(self).__name__}.",
            "TorchScript can't compile its code.",
            "Type: torch.jit.trace(model.eval(), images), or senetzoo.export for a file",
        )

    @property
    def num_features(self) -> int:
        """Channels of the last map; 0 without feature maps."""
        return self.feature_info[-1].channels if self.feature_info else 0

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """In training, keep only the maps between stages and recompute the others.

        Gradients stay the same; it saves memory for about a third more time.
        """
        self._recomputes = enable

    def sites(self) -> tuple[Site, ...]:
        """All sites for gates, in the order of the blocks."""
        return tuple(site for site, _ in self.slots())

    def slots(self) -> Iterator[tuple[Site, Slots]]:
        """All sites, each with its `Slots`."""
        paths = {module: path for path, module in self.named_modules()}
        stages = self.stages()
        for stage, blocks in enumerate(stages, 1):
            for block, root in enumerate(blocks, 1):
                for slots in root.modules():
                    if not isinstance(slots, Slots):
                        continue
                    for position, channels in slots.channels.items():
                        yield (
                            Site(
                                path=f"{paths[slots]}.{position}",
                                stage=stage,
                                block=block,
                                stages=len(stages),
                                blocks=len(blocks),
                                position=position,
                                channels=channels,
                                layout=slots.layout,
                                branch=slots.branch,
                            ),
                            slots,
                        )

    def _maps(self, x: Tensor) -> Iterator[Tensor]:
        """The map after each stage, (N, C, h, w)."""
        for level in self.levels():
            x = self._run(level, x)
            yield x if self.layout == "nchw" else x.permute(0, 3, 1, 2)

    def _run(self, part: TensorMap, x: Tensor) -> Tensor:
        recomputes = self._recomputes and self.training and torch.is_grad_enabled()
        return recomputed(self, part, x) if recomputes else part(x)


def module_at(root: nn.Module, path: str) -> nn.Module | None:
    """The module under `path`, or None."""
    found: nn.Module | None = root
    for name in path.split("."):
        found = None if found is None else found._modules.get(name)
    return found
