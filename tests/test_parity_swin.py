"""Swin against torchvision and timm, on shared random weights in fp64; its sites and key dropout.

Not with `compare`: that fills the reference with values of its own, and the index of the relative
positions is a buffer that has to keep its values.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.networks import images, learnable, on_meta, randomize, relative_error
from support.parity import TOLERANCE, compare_gradients, from_library, keep_record, translated
from torch import Tensor, nn
from torch.nn import functional

from senetzoo import ECA, SE, attach, block, config, create, explain, stage
from senetzoo.models import swin
from senetzoo.models.swin import PatchMerging, Swin, SwinBlock, SwinConfig, kept_keys
from senetzoo.nn.slots import Slots

NAMES = ["swin_t", "swin_s", "swin_b"]


def little(**changes: Any) -> SwinConfig:
    """A Swin of two stages, the second one with a shift in its last block."""
    settings: dict[str, Any] = {"embed_dim": 8, "depths": (2, 2), "heads": (2, 4)}
    return SwinConfig(**{**settings, "num_classes": 5, **changes})


def built(settings: SwinConfig) -> Swin:
    """The network with weights that make every part of it matter."""
    model = settings.build()
    randomize(model)
    return model


def agree(
    build_ours: Callable[[], nn.Module],
    theirs: nn.Module,
    dialect: str,
    shape: tuple[int, ...],
    *,
    patch: int = 4,
    train: bool = True,
    gradients: bool = False,
    record: tuple[str, str] | None = None,
) -> None:
    """Load their weights into ours; compare outputs, and gradients if asked.

    Ours has to draw nothing at random in training. Theirs cuts off what is no whole patch, so it
    gets a padded image.
    """
    randomize(theirs)
    theirs.double()
    for module in theirs.modules():
        if type(module).__name__ == "StochasticDepth":
            setattr(module, "p", 0.0)  # noqa: B010
    ours = on_meta(build_ours)
    tensors = dict(theirs.named_parameters()) | dict(theirs.named_buffers())
    state = {name: t.detach() for name, t in tensors.items() if not name.endswith("attn_mask")}
    if gradients:
        state = {name: tensor.clone() for name, tensor in state.items()}
    ours.load_state_dict(translated(state, dialect, ours), strict=True, assign=True)
    for parameter in ours.parameters():
        parameter.requires_grad_(gradients)
    x = images(*shape)
    padded = functional.pad(x, (0, -shape[3] % patch, 0, -shape[2] % patch))
    errors = []
    for mode in (True, False) if train else (False,):
        ours.train(mode)
        theirs.train(mode)
        with torch.set_grad_enabled(gradients and mode):
            output, reference = ours(x), theirs(padded)
        assert output.std().item() > 1e-3
        errors.append(relative_error(output, reference))
        assert errors[-1] < TOLERANCE
        if gradients and mode:
            compare_gradients(ours, theirs, output, reference, dialect)
    keep_record(record, errors, train, max(shape[2:]))


def little_torchvision(patch: int, window: int, depths: list[int]) -> nn.Module:
    from torchvision.models.swin_transformer import SwinTransformer

    heads = [2, 4, 8][: len(depths)]
    model: nn.Module = SwinTransformer(
        [patch] * 2, 8, depths, heads, [window] * 2, num_classes=5, stochastic_depth_prob=0.0
    )
    return model


# --- torchvision ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The input has:UserWarning")
@pytest.mark.parametrize(
    ("name", "size", "batch"),
    # At 224 nothing is padded; at 56 the last two stages are smaller than a window.
    [("swin_t", 224, 1), ("swin_s", 56, 2), ("swin_b", 56, 1)],
)
def test_torchvision(name: str, size: int, batch: int) -> None:
    agree(
        lambda: create(name, seed=0, drop_path=0.0),
        from_library("torchvision", name),
        "torchvision",
        (batch, 3, size, size),
        train=size < 224,
        record=(name, f"torchvision {name}"),
    )


@pytest.mark.filterwarnings("ignore:The input has:UserWarning")
@pytest.mark.parametrize(
    ("height", "width"),
    # Whole windows; padded windows; padded patches and merging; one direction of one window, so
    # that only the other is shifted; less than a patch.
    [(56, 56), (64, 64), (97, 97), (100, 132), (20, 120), (120, 9), (1, 3)],
)
def test_torchvision_at_any_size(height: int, width: int) -> None:
    agree(
        lambda: little(depths=(2, 2, 2), heads=(2, 4, 8)).build(),
        little_torchvision(4, 7, [2, 2, 2]),
        "torchvision",
        (2, 3, height, width),
        gradients=True,
    )


@pytest.mark.parametrize(("height", "width"), [(32, 32), (27, 46)])
def test_torchvision_small_form(height: int, width: int) -> None:
    """Patches of 2 and windows of 4; of three stages, after which our small form merges no more."""
    agree(
        lambda: little(depths=(2, 2, 2), heads=(2, 4, 8), stem="cifar").build(),
        little_torchvision(2, 4, [2, 2, 2]),
        "torchvision",
        (2, 3, height, width),
        patch=2,
        gradients=True,
    )


@pytest.mark.parametrize("name", NAMES)
def test_stochastic_depth_is_torchvisions(name: str) -> None:
    ours = on_meta(lambda: create(name, seed=0))
    theirs = on_meta(lambda: from_library("torchvision", name))
    rates = [m.p for m in theirs.modules() if type(m).__name__ == "StochasticDepth"]
    blocks = [module for module in ours.modules() if isinstance(module, SwinBlock)]
    assert [b.drop_path.rate if b.drop_path else 0.0 for b in blocks] == rates
    assert rates[-1] == {"swin_t": 0.2, "swin_s": 0.3, "swin_b": 0.5}[name]


# --- timm ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "swin_t",
        pytest.param("swin_s", marks=pytest.mark.slow),
        pytest.param("swin_b", marks=pytest.mark.slow),
    ],
)
def test_timm(name: str) -> None:
    """At the size it is built for: elsewhere it pads after the shift, torchvision before."""
    theirs = {"swin_t": "tiny", "swin_s": "small", "swin_b": "base"}[name]
    theirs = f"swin_{theirs}_patch4_window7_224"
    agree(
        lambda: create(name, seed=0, drop_path=0.0),
        from_library("timm", theirs, drop_path_rate=0.0),
        "timm",
        (1, 3, 224, 224),
        train=False,
        record=(name, f"timm {theirs}"),
    )


def test_timm_gradients() -> None:
    from timm.models.swin_transformer import SwinTransformer

    theirs = SwinTransformer(
        img_size=112, embed_dim=8, depths=(2, 2), num_heads=(2, 4), num_classes=5, drop_path_rate=0
    )
    agree(lambda: little().build(), theirs, "timm", (2, 3, 112, 112), gradients=True)


# --- Weights --------------------------------------------------------------------------------------


def test_merging_in_place_written_out() -> None:
    """The small form's last merging: each token with the ones below, right and diagonally so."""
    merging = PatchMerging(2, 1).double()
    randomize(merging)
    x = images(1, 3, 4, 2)
    out = merging(x)
    assert out.shape == (1, 3, 4, 4)
    state = merging.state_dict()
    for row in range(3):
        for col in range(4):
            places = [(row, col), (row + 1, col), (row, col + 1), (row + 1, col + 1)]
            joined = torch.cat(
                [x[0, r, c] if r < 3 and c < 4 else torch.zeros(2).double() for r, c in places]
            )
            normed = (joined - joined.mean()) / (joined.var(correction=0) + 1e-5).sqrt()
            normed = normed * state["norm.weight"] + state["norm.bias"]
            assert relative_error(out[0, row, col], state["reduction.weight"] @ normed) < TOLERANCE


def test_initialization() -> None:
    """Section A2.1 leaves it to the code: a normal distribution of 0.02, biases of zero."""
    model = create("swin_t", num_classes=10, seed=0)
    for name, parameter in model.named_parameters():
        table = name.endswith("bias_table")
        if parameter.ndim == 2:
            if parameter.numel() > 1000:
                assert abs(parameter.std().item() / 0.02 - 1) < (0.1 if table else 0.05), name
        elif "norm" in name or name.startswith("features.0.2"):
            assert parameter.eq(1.0 if name.endswith("weight") else 0.0).all(), name
        elif not name.startswith("features.0.0"):
            assert parameter.eq(0).all(), name


# --- Key dropout ---------------------------------------------------------------------------------


def masks_of(model: Swin, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The mask of each attention in a forward pass: (images, windows, heads, queries, keys)."""
    real, seen = functional.scaled_dot_product_attention, []

    def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        seen.append(mask.detach())
        return real(q, k, v, mask)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", attention)
    assert bool(torch.isfinite(model(x)).all())
    monkeypatch.undo()
    heads = [module.heads for module in model.modules() if isinstance(module, swin.WindowAttention)]
    return [m.view(len(m), -1, n, *m.shape[2:]) for m, n in zip(seen, heads, strict=True)]


def test_key_dropout_hides_keys_from_all_queries_of_a_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = built(little(key_drop=0.3))
    x = torch.randn(16, 3, 112, 112)
    for index, mask in enumerate(masks_of(model, x, monkeypatch)):
        windows, heads = (16, 2) if index < 2 else (4, 4)
        assert mask.shape == (16, windows, heads, 49, 49)
        hidden = mask.isinf()
        # The same for every query.
        assert torch.equal(hidden, hidden[..., :1, :].expand_as(hidden))
        keys = hidden[..., 0, :]
        # Binomial: a share of 0.3 of so many keys, to five standard deviations.
        assert abs(keys.double().mean().item() - 0.3) < 5 * (0.21 / keys.numel()) ** 0.5
        # Each image, each window and each head draws its own.
        drawn = {tuple(row) for row in keys.flatten(0, 2).tolist()}
        assert len(drawn) == 16 * windows * heads


def test_key_dropout_only_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    model, plain = built(little(key_drop=0.5)).eval(), built(little()).eval()
    x = torch.randn(2, 3, 64, 64)
    assert torch.equal(model(x), plain(x))
    assert not any(mask.isinf().any() for mask in masks_of(model, x, monkeypatch))
    assert model.state_dict().keys() == plain.state_dict().keys()
    model.train()
    torch.manual_seed(3)
    first = model(x)
    torch.manual_seed(3)
    assert torch.equal(model(x), first)
    assert not torch.allclose(model(x), first)
    assert not torch.allclose(first, plain(x))


def test_key_dropout_leaves_every_query_a_key_it_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = built(little(key_drop=0.99))
    x = torch.randn(4, 3, 112, 112)
    shifted = 0
    for mask in masks_of(model, x, monkeypatch):
        # At -100 a key is out of sight too: the random biases here are under 10.
        visible = mask > -50
        assert visible.any(-1).all()
        # Of 49 keys at 0.99 mostly just that one is left.
        assert visible.sum(-1).double().mean() < 1.7
        shifted += bool((mask <= -50).logical_and(~mask.isinf()).any())
    assert shifted == 2
    loss = model(x).square().sum()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name


def test_the_largest_draw_of_each_region_stays() -> None:
    draws = torch.tensor([0.1, 0.3, 0.2, 0.9, 0.05, 0.4]).expand(1, 1, 2, 6)
    regions = torch.tensor([[0, 0, 3, 3, 1, 1]])
    assert (
        kept_keys(draws, regions, 0.5)[0, 0].tolist()
        == [[False, True, False, True, False, True]] * 2
    )
    assert kept_keys(draws, regions, 0.25)[0, 0, 0].tolist() == [
        False, True, False, True, False, True
    ]  # fmt: skip
    assert kept_keys(draws, regions, 0.15)[0, 0, 0].tolist() == [
        False, True, True, True, False, True
    ]  # fmt: skip


@pytest.mark.parametrize("rate", [0.2, 0.9])
def test_share_of_kept_keys(rate: float) -> None:
    """1 - p, and p^n / n more for the key of n that stays where all would have gone."""
    draws = torch.rand(2000, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    keep = kept_keys(draws, torch.zeros(8, 4, dtype=torch.long), rate).double()
    expected = 1 - rate + rate**4 / 4
    assert abs(keep.mean().item() - expected) < 5 * (0.25 / draws.numel()) ** 0.5
    # No place is preferred.
    assert (keep.mean((0, 1, 2)) - expected).abs().max() < 5 * (0.25 / (draws.numel() / 4)) ** 0.5


def test_attention_with_dropped_keys_is_a_softmax_of_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Written out for one window, with the mask that was drawn: the weights sum to one."""
    torch.manual_seed(0)
    attention = swin.WindowAttention(8, 2, 4, 0, 0.5).double()
    randomize(attention)
    x = images(1, 4, 4, 8)
    state = torch.get_rng_state()
    out = attention(x, Slots({}))
    torch.set_rng_state(state)
    keep = kept_keys(torch.rand(1, 1, 2, 16), torch.zeros(1, 16, dtype=torch.long), 0.5)[0, 0]
    assert 0 < keep.sum() < 32
    tokens = x.view(16, 8)
    q, k, v = attention.qkv(tokens).view(16, 3, 2, 4).permute(1, 2, 0, 3)
    logits = q @ k.transpose(1, 2) / 2
    place = [(t // 4, t % 4) for t in range(16)]
    for i, (row, col) in enumerate(place):
        for j, (other_row, other_col) in enumerate(place):
            index = (row - other_row + 3) * 7 + col - other_col + 3
            logits[:, i, j] += attention.relative_position_bias_table[index]
    weights = logits.exp() * keep[:, None]
    weights = weights / weights.sum(-1, keepdim=True)
    expected = attention.proj((weights @ v).transpose(0, 1).reshape(16, 8))
    assert relative_error(out.view(16, 8), expected) < 1e-12


# --- Sites ---------------------------------------------------------------------------------------


def test_each_residual_has_its_sites() -> None:
    model = on_meta(lambda: create("swin_t", seed=0))
    sites = model.sites()
    assert len({site.path for site in sites}) == len(sites) == 12 * 9
    assert {site.layout for site in sites} == {"nhwc"}
    assert all(site.channels == 96 * 2 ** (site.stage - 1) for site in sites)
    first = [s.path.removeprefix("features.1.0.") for s in sites if (s.stage, s.block) == (1, 1)]
    assert first == [
        "attn_slots.pre",
        "attn_slots.standard",
        "attn_slots.post",
        "attn_slots.identity",
        "attn_slots.inner",
        "mlp_slots.pre",
        "mlp_slots.standard",
        "mlp_slots.post",
        "mlp_slots.identity",
    ]
    assert {(s.blocks, s.stages) for s in sites if s.stage == 3} == {(6, 4)}


def test_a_rule_speaks_of_both_residuals_of_a_block() -> None:
    table = explain("swin_t", SE().on(stage(3) & block(-1)) + ECA().at("inner").on(stage(1)))
    gated = {row.path: row.gate for row in table.rows if row.gate}
    assert gated == {
        "features.5.5.attn_slots.standard": "se",
        "features.5.5.mlp_slots.standard": "se",
        "features.1.0.attn_slots.inner": "eca",
        "features.1.1.attn_slots.inner": "eca",
    }
    assert all(row.params > 0 and row.macs > 0 for row in table.rows if row.gate)
    # 2 C^2 / r weights and C / r + C biases for each of the two gates of the twelve blocks.
    extra = sum(
        2 * depth * (2 * c * c // 16 + c // 16 + c)
        for c, depth in zip((96, 192, 384, 768), (2, 2, 6, 2), strict=True)
    )
    assert learnable(on_meta(lambda: create("se_swin_t", seed=0))) == 28_288_354 + extra


@pytest.mark.parametrize("spec", [SE(2), ECA()])
@pytest.mark.parametrize("position", ["pre", "standard", "post", "identity", "inner"])
def test_gates_run_once_and_equal_those_of_other_layouts(spec: SE | ECA, position: Any) -> None:
    torch.manual_seed(0)
    # 97 pixels: padded patches, windows and merging, none of which a gate may see.
    model = built(little()).double().eval()
    x = images(2, 3, 97, 97)
    with torch.no_grad():
        plain = model(x)
        gates = attach(model, spec.at(position), seed=0)
        assert len(gates) == 4 * (1 if position == "inner" else 2)
        seen: dict[str, list[tuple[Tensor, Tensor]]] = {site.path: [] for site in gates}
        for site, gate in gates.items():
            randomize(gate)
            gate.register_forward_hook(
                lambda _, inputs, out, path=site.path: seen[path].append((inputs[0], out))
            )
        gated = model(x)
    assert relative_error(gated, plain) > 1e-3
    for site, gate in gates.items():
        ((before, after),) = seen[site.path]
        side = 25 if site.stage == 1 else 13
        assert before.shape == after.shape == (2, side, side, site.channels)
        other = copy.deepcopy(gate)
        other.layout = "nchw"  # type: ignore[assignment]
        turned = other(before.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        assert relative_error(after, turned) < TOLERANCE
        assert relative_error(after, before) > 1e-3


# --- Copies and compilers ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(32, 32), (20, 27)])
def test_compiled_in_one_graph(size: tuple[int, int]) -> None:
    model = built(little(stem="cifar")).eval()
    attach(model, SE(2) + ECA().at("inner"), seed=0)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=False)
    x = torch.randn(2, 3, *size)
    with torch.no_grad():
        assert relative_error(compiled(x), model(x)) < 1e-5


def test_compiled_in_training_with_key_dropout() -> None:
    model = built(little(stem="cifar", depths=(2,), heads=(2,), key_drop=0.5))
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager", dynamic=False)
    x = torch.randn(2, 3, 32, 32)
    torch.manual_seed(0)
    got = compiled(x)
    torch.manual_seed(0)
    assert relative_error(got, model(x)) < 1e-5


def test_exported_with_any_number_of_images() -> None:
    model = built(little(stem="cifar")).eval()
    x = torch.randn(2, 3, 30, 32)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    x = torch.randn(5, 3, 30, 32)
    assert relative_error(program.module()(x), model(x)) < 1e-5


# --- Configs -------------------------------------------------------------------------------------


def test_a_window_of_ones_own() -> None:
    model = on_meta(lambda: config("swin_t").replace(window=12).build(seed=0))
    table = model.get_parameter("features.1.0.attn.relative_position_bias_table")
    assert tuple(table.shape) == (23 * 23, 3)
    assert isinstance(model, Swin)
    assert (model.spec.config.side, config("swin_t").replace(stem="cifar").config.side) == (12, 4)  # type: ignore[attr-defined]
