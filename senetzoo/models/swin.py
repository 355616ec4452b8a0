"""Swin Transformer: attention in windows, which every second block shifts by half a window.

Liu et al. 2021, "Swin Transformer" (arXiv:2103.14030): Section 3.3 for the widths and depths of T,
S and B, Table 7 for the rest; the shifted windows are those of Section 3.2. Child names are
torchvision's, so its state dicts load strictly. Maps inside the network are (N, H, W, C).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from senetzoo._utils.checks import Depths, Example, Ge, NonEmpty, PositiveInt, Rate
from senetzoo.errors import ConfigError
from senetzoo.models.family import Family, arxiv
from senetzoo.nn.classifier import Classifier, Config
from senetzoo.nn.drop_path import DropPath, linear_rates
from senetzoo.nn.maps import doubling
from senetzoo.nn.slots import POSITIONS, Layout, Slots, residual

# Added to the logits of keys that a query must not see, as in the authors' code and torchvision.
APART = -100.0


@dataclass(frozen=True, kw_only=True)
class SwinConfig(Config):
    """A Swin Transformer.

    With ``stem="imagenet"`` patches are 4x4 pixels and windows 7x7 tokens. ``stem="cifar"`` is a
    variant for 32x32 images: 2x2 patches, 4x4 windows, and a stride of at most 8, so that the maps
    are 16x16, 8x8, 4x4 and 4x4. The last merging then has stride 1 and still joins each token with
    its neighbors to the right and below, so that the weights have the same shapes.

    Images can have any size: image, windows and merging are padded with zeros on the right and
    below as needed.

    Args:
        embed_dim: Channels of the first stage; doubled at each later stage.
        depths: Blocks of each stage.
        heads: Attention heads of each stage.
        window: Window size in tokens; None for the variant's own, 7 or 4.
        key_drop: Key dropout, in [0, 1): in training each key of a window is hidden from all
            queries with this probability, independently for each window, image and head. Of the
            keys that a query could see, the one with the largest random number always stays.
            Nothing is divided by ``1 - key_drop``: the softmax normalizes over the remaining keys.
    """

    embed_dim: Annotated[PositiveInt, Example(96)]
    depths: Depths
    heads: Annotated[tuple[PositiveInt, ...], NonEmpty(), Example((3, 6, 12, 24))]
    window: Annotated[int, Ge(2)] | None = None
    key_drop: Rate = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        widths = doubling(self.embed_dim, len(self.depths))
        if len(self.heads) != len(widths) or any(
            width % count for count, width in zip(self.heads, widths, strict=True)
        ):
            raise ConfigError(
                f"Swin got heads={self.heads!r}.",
                f"Each of the {len(widths)} stages has a number of heads that divides its "
                f"channels, {', '.join(map(str, widths))}.",
                f"Type for example: heads={(1,) * len(widths)}",
            )

    @property
    def patch(self) -> int:
        """Patch size in pixels."""
        return 2 if self.small else 4

    @property
    def side(self) -> int:
        """Window size in tokens."""
        return self.window or (4 if self.small else 7)

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each stage's map relative to the image."""
        deepest = 2 if self.small else len(self.depths)
        return tuple(self.patch * 2 ** min(index, deepest) for index in range(len(self.depths)))

    def build(self) -> Swin:
        return Swin(self)


class PatchConv(nn.Conv2d):
    """The convolution from patches to tokens; it pads the image to whole patches."""

    def forward(self, x: Tensor) -> Tensor:
        size = self.stride[0]
        return super().forward(F.pad(x, (0, -x.shape[3] % size, 0, -x.shape[2] % size)))


class ChannelsLast(nn.Module):
    """From (N, C, H, W) to (N, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class PatchMerging(nn.Module):
    """Concatenates 2x2 tokens, normalizes them, and projects them to twice the input channels."""

    def __init__(self, inputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.reduction = nn.Linear(4 * inputs, 2 * inputs, bias=False)
        self.norm = nn.LayerNorm(4 * inputs)

    def forward(self, x: Tensor) -> Tensor:
        rows, cols = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, 1, 0, 1))
        corners = [
            x[:, down : down + rows : self.stride, right : right + cols : self.stride]
            for right in (0, 1)
            for down in (0, 1)
        ]
        return self.reduction(self.norm(torch.cat(corners, -1)))  # type: ignore[no-any-return]


class WindowAttention(nn.Module):
    """Attention among the tokens of a window, with a learned bias for each relative position.

    Args:
        channels: Input and output channels.
        heads: Attention heads.
        window: Window size in tokens.
        shift: Shift of the windows in tokens.
        key_drop: See `SwinConfig`.
    """

    relative_position_index: Tensor

    def __init__(self, channels: int, heads: int, window: int, shift: int, key_drop: float) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        self.shift = shift
        self.key_drop = key_drop
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        # A bias for each of the (2w - 1)**2 pairs of row and column differences.
        span = 2 * window - 1
        self.relative_position_bias_table = nn.Parameter(torch.zeros(span * span, heads))
        token = torch.arange(window * window)
        rows, cols = (
            place[:, None] - place[None, :] + window - 1
            for place in (token // window, token % window)
        )
        self.register_buffer("relative_position_index", (rows * span + cols).flatten())

    def forward(self, x: Tensor, slots: Slots) -> Tensor:
        """`x` (N, H, W, C) to the same shape; `slots` are the block's, for ``inner``."""
        # Code that depends on the size is in functions that torch.fx does not trace.
        bias = self.relative_position_bias_table[self.relative_position_index]
        drop = self.key_drop if self.training else 0.0
        qkv = self.qkv(padded(x, self.window, self.shift))
        mixed = attended(qkv, bias, self.heads, self.window, self.shift, drop)
        return self.proj(slots.at("inner", cut(mixed, x, self.window, self.shift)))  # type: ignore[no-any-return]


def shifts(x: Tensor, window: int, shift: int) -> tuple[int, int]:
    """Vertical and horizontal shift, in tokens, of a map that has whole windows."""
    # A direction that a single window covers is not shifted.
    return (shift if x.shape[1] > window else 0, shift if x.shape[2] > window else 0)


@fx.wrap
def padded(x: Tensor, window: int, shift: int) -> Tensor:
    """Pad `x` (N, H, W, C) to whole windows, and shift it."""
    x = F.pad(x, (0, 0, 0, -x.shape[2] % window, 0, -x.shape[1] % window))
    down, across = shifts(x, window, shift)
    return torch.roll(x, (-down, -across), (1, 2)) if down or across else x


@fx.wrap
def cut(x: Tensor, like: Tensor, window: int, shift: int) -> Tensor:
    """Undo `padded`: shift `x` back, and crop it to the size of `like`."""
    moved = shifts(x, window, shift)
    x = torch.roll(x, moved, (1, 2)) if any(moved) else x
    return x[:, : like.shape[1], : like.shape[2]]


@fx.wrap
def attended(qkv: Tensor, bias: Tensor, heads: int, window: int, shift: int, drop: float) -> Tensor:
    """Attention in each window (N, H, W, C), from queries, keys and values (N, H, W, 3C)."""
    images, height, width, channels = qkv.shape
    down, across, channels = height // window, width // window, channels // 3
    # Windows and heads share a dimension, so that one mask fits every image.
    q, k, v = (
        qkv.view(images, down, window, across, window, 3, heads, channels // heads)
        .permute(5, 0, 1, 3, 6, 2, 4, 7)
        .reshape(3, images, down * across * heads, window**2, channels // heads)
        .unbind(0)
    )
    mask = attention_mask(bias, images, (down, across), window, shifts(qkv, window, shift), drop)
    return (
        F.scaled_dot_product_attention(q, k, v, mask)
        .reshape(images, down, across, heads, window, window, channels // heads)
        .permute(0, 1, 4, 2, 5, 3, 6)
        # `reshape` would copy depending on the strides of the attention's output, which differ in
        # an exported graph.
        .clone(memory_format=torch.contiguous_format)
        .view(images, height, width, channels)
    )


def attention_mask(
    bias: Tensor,
    images: int,
    windows: tuple[int, int],
    window: int,
    shift: tuple[int, int],
    drop: float,
) -> Tensor:
    """The bias and mask to add to the logits: (1 or N, windows * heads, queries, keys).

    It is computed from a few small tensors in each forward pass, so that no cache has to follow
    the size of the image, the device or a copy of the network.
    """
    tokens, count = window**2, windows[0] * windows[1]
    bias = bias.view(1, 1, tokens, tokens, -1).permute(0, 1, 4, 2, 3)
    mask = bias.expand(1, count, -1, -1, -1)
    if any(shift) or drop:
        known = regions(windows, window, shift, bias.device)
        apart = known[:, None, :, None] != known[:, None, None, :]
        mask = torch.where(apart, bias + APART, bias)
        if drop:
            draws = torch.rand(images, count, bias.shape[2], tokens, device=bias.device)
            keep = kept_keys(draws, known, drop)
            mask = torch.where(keep[..., None, :], mask, -torch.inf)
    return mask.flatten(1, 2)


def regions(
    windows: tuple[int, int], window: int, shift: tuple[int, int], device: torch.device
) -> Tensor:
    """The region of each token, from 0 to 3: (windows, tokens); a query sees only its own.

    The shift brings together tokens that are not neighbors: in the last windows of a direction,
    those that wrapped around from the other end are in another region.
    """
    down, across = windows
    low = torch.arange(down * window, device=device) >= down * window - shift[0]
    right = torch.arange(across * window, device=device) >= across * window - shift[1]
    found = (2 * low[:, None] + right).view(down, window, across, window)
    return found.transpose(1, 2).reshape(down * across, window**2)


def kept_keys(draws: Tensor, regions: Tensor, rate: float) -> Tensor:
    """Which keys stay under key dropout.

    Args:
        draws: A random number in [0, 1) for each key: (N, windows, heads, keys). Keys below `rate`
            are dropped, except the largest of a region, so that every query still sees a key.
        regions: The region of each key, from 0 to 3: (windows, keys).
        rate: Probability of dropping a key.
    """
    region = regions[None, :, None].expand_as(draws)
    largest = draws.new_zeros((*draws.shape[:3], 4)).scatter_reduce(3, region, draws, "amax")
    return draws >= largest.gather(3, region).clamp(max=rate)


class SwinBlock(nn.Module):
    """Fig. 3b: attention in windows, then an MLP, each with a norm before it and a skip.

    Each of the two residual branches has its own sites, so a gate at ``standard`` is put on both;
    ``branch("attn")`` and ``branch("mlp")`` select one. The attention's ``inner`` is before its
    output projection, the only place in a block right after positions are mixed; the MLP doesn't
    mix positions and has no ``inner``.
    """

    def __init__(
        self, channels: int, heads: int, shift: int, drop_path: float, config: SwinConfig
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, config.side, shift, config.key_drop)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Identity(),  # torchvision's dropout
            nn.Linear(4 * channels, channels),
        )
        self.drop_path = DropPath(drop_path) if drop_path else None
        widths = dict.fromkeys(POSITIONS, channels)
        self.attn_slots = Slots(widths, "nhwc", "attn")
        del widths["inner"]
        self.mlp_slots = Slots(widths, "nhwc", "mlp")

    def forward(self, x: Tensor) -> Tensor:
        x = residual(
            x,
            self.attn_slots,
            lambda y: self.attn(y, self.attn_slots),
            preact=self.norm1,
            drop_path=self.drop_path,
        )
        return residual(x, self.mlp_slots, self.mlp, preact=self.norm2, drop_path=self.drop_path)


class Swin(Classifier):
    """Swin Transformer: built by `SwinConfig.build`."""

    layout: Layout = "nhwc"
    head_name = "head"
    _config: SwinConfig
    head: nn.Linear

    def __init__(self, config: SwinConfig) -> None:
        super().__init__(config)
        width = config.embed_dim
        layers: list[nn.Module] = [
            nn.Sequential(
                PatchConv(config.in_chans, width, config.patch, config.patch),
                ChannelsLast(),
                nn.LayerNorm(width),
            )
        ]
        rates = linear_rates(config.drop_path, config.depths)
        for index, (drop_paths, heads) in enumerate(zip(rates, config.heads, strict=True)):
            if index:
                stride = config.strides[index] // config.strides[index - 1]
                layers.append(PatchMerging(width, stride))
                width *= 2
            blocks: list[nn.Module] = []
            for number, drop_path in enumerate(drop_paths):
                shift = config.side // 2 if number % 2 else 0
                blocks.append(SwinBlock(width, heads, shift, drop_path, config))
            layers.append(nn.Sequential(*blocks))
        # Patches, stage 1, merging, stage 2, merging, ...
        self.features = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(width)
        levels = [[f"features.{at}", f"features.{at + 1}"] for at in range(0, len(layers), 2)]
        levels[-1].append("norm")
        self.set_levels(levels, config.strides, doubling(config.embed_dim, len(levels)))
        self.add_head(width)
        self._initialize()

    def _initialize(self) -> None:
        """Initialize like the authors; the convolution keeps PyTorch's default."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, WindowAttention):
                nn.init.trunc_normal_(module.relative_position_bias_table, std=0.02)


FAMILY = Family(
    title="Swin",
    papers={
        "*": arxiv(
            "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", "2103.14030"
        )
    },
    small="2x2 patches, 4x4 windows, and the last merging keeps the resolution: the last map is "
    "4x4.",
    # Section 3.3; the rates of stochastic depth are those of Appendix A2.1.
    networks={
        "swin_t": SwinConfig(
            embed_dim=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), drop_path=0.2
        ),
        "swin_s": SwinConfig(
            embed_dim=96, depths=(2, 2, 18, 2), heads=(3, 6, 12, 24), drop_path=0.3
        ),
        "swin_b": SwinConfig(
            embed_dim=128, depths=(2, 2, 18, 2), heads=(4, 8, 16, 32), drop_path=0.5
        ),
    },
)
