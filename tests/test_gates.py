"""The gates against other libraries; their widths, costs, and errors of wrong fields."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from pytorchcv.models.bamresnet import BamBlock
from pytorchcv.models.cbamresnet import CbamBlock
from pytorchcv.models.common.att import SEBlock
from support.networks import gate_site, images, message, randomize, relative_error
from timm.layers.cbam import CbamModule, ChannelAttn, SpatialAttn
from timm.layers.coord_attn import CoordAttn
from timm.layers.eca import EcaModule
from timm.layers.gather_excite import GatherExcite
from timm.layers.global_context import GlobalContext
from timm.layers.non_local_attn import NonLocalAttn
from timm.layers.squeeze_excite import EffectiveSEModule, SEModule
from torch import Tensor, nn
from torchvision.ops.misc import SqueezeExcitation as Torchvisions

from senetzoo import (
    BAM,
    CBAM,
    ECA,
    ELA,
    ESE,
    FCA,
    GC,
    GCT,
    GE,
    SCSE,
    SE,
    SGE,
    SRM,
    CoordinateAttention,
    MultiScaleAttention,
    NonLocal,
    ShuffleAttention,
    SimAM,
    TripletAttention,
)
from senetzoo.errors import ConfigError, PolicyError
from senetzoo.nn.counting import module_macs
from senetzoo.policies.algebra import Gate

# --- Other libraries -----------------------------------------------------------------------------


def agree(ours: nn.Module, theirs: nn.Module, rename: Callable[[str], str], x: Tensor) -> None:
    """Load their random weights into ours and compare in both modes."""
    randomize(theirs)
    state: dict[str, Tensor] = {}
    own = ours.state_dict()
    for name, tensor in theirs.state_dict().items():
        assert rename(name) not in state
        state[rename(name)] = tensor.reshape(own[rename(name)].shape)
    ours.load_state_dict(state)
    for norm in (*ours.modules(), *theirs.modules()):
        if isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d)):
            norm.momentum = 1.0
    for training in (True, False):
        # Eval mode uses the statistics of the round in training mode.
        expected = theirs.train(training)(x).detach()
        assert relative_error(ours.train(training)(x).detach(), expected) < 1e-12


def cbam_name(name: str) -> str:
    """Our name of a parameter of timm's or pytorchcv's CBAM."""
    return name.removeprefix("ch_gate.mlp.").removeprefix("channel.").replace(
        "spatial.conv.", ""
    ).replace("sp_gate.conv.", "")  # fmt: skip


def bam_name(name: str) -> str:
    """Our name of a parameter of pytorchcv's BAM."""
    for old, new in (
        ("ch_att.init_fc.fc.", "fc1."),
        ("ch_att.init_fc.bn.", "fc_bn."),
        ("ch_att.final_fc.", "fc2."),
        ("sp_att.init_conv.conv.", "conv1."),
        ("sp_att.init_conv.bn.", "bn1."),
        ("sp_att.dil_convs.conv1.conv.", "conv2."),
        ("sp_att.dil_convs.conv1.bn.", "bn2."),
        ("sp_att.dil_convs.conv2.conv.", "conv3."),
        ("sp_att.dil_convs.conv2.bn.", "bn3."),
        ("sp_att.final_conv.", "conv4."),
    ):
        name = name.replace(old, new)
    return name


class Flipped(nn.Module):
    """pytorchcv's CBAM with maximum and mean swapped."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = CbamBlock(48)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.inner.sp_gate.conv.conv.weight
        swapped = {"sp_gate.conv.conv.weight": weight.flip(1)}
        out: Tensor = torch.func.functional_call(self.inner, swapped, (x,))
        return out


def global_context(fusion: str) -> nn.Module:
    theirs: Any = GlobalContext(
        64, fuse_add=fusion == "add", fuse_scale=fusion == "scale", rd_ratio=1 / 8
    )
    # It cancels in the softmax.
    theirs.conv_attn.bias = None
    # timm's epsilon is 1e-6; the authors' is PyTorch's.
    getattr(theirs, f"mlp_{fusion}").norm.eps = 1e-5
    return theirs  # type: ignore[no-any-return]


def non_local() -> nn.Module:
    theirs: Any = NonLocalAttn(64)  # type: ignore[no-untyped-call]
    # They cancel in the softmax and in the norm.
    theirs.p.register_parameter("bias", None)
    theirs.z.register_parameter("bias", None)
    return theirs  # type: ignore[no-any-return]


def non_local_name(name: str) -> str:
    layer, _, parameter = name.partition(".")
    return {"t": "q", "p": "k", "g": "v", "z": "out", "norm": "bn"}[layer] + f".{parameter}"


def context_name(name: str) -> str:
    name = name.replace("conv_attn.", "mask.")
    return name.removeprefix("mlp_add.").removeprefix("mlp_scale.")


# timm derives the hidden channels of coordinate attention in another way.
COORD = [
    (CoordinateAttention(bias=bias), channels, partial(CoordAttn, rd_channels=hidden, bias=bias))
    for channels, hidden in ((32, 8), (512, 16))
    for bias in (True, False)
]
# Our gate, its channels, what builds theirs, and our name of one of its parameters.
THEIRS: list[tuple[Gate, int, Callable[[], nn.Module], Callable[[str], str]]] = [
    (CBAM(bias=False), 64, partial(CbamModule, 64), cbam_name),
    (CBAM(8, "channel"), 64, partial(ChannelAttn, 64, rd_ratio=1 / 8, mlp_bias=True), cbam_name),
    (CBAM(part="spatial", kernel=3), 64, partial(SpatialAttn, 3), partial(re.sub, "^conv.", "")),
    (CBAM(), 48, Flipped, lambda name: cbam_name(name.removeprefix("inner."))),
    *((spec, channels, partial(theirs, channels), str) for spec, channels, theirs in COORD),
    (ESE(), 24, partial(EffectiveSEModule, 24, gate_layer="hard_sigmoid"), str),
    (ESE("sigmoid"), 24, partial(EffectiveSEModule, 24, gate_layer="sigmoid"), str),
    (GC(8, "add"), 64, partial(global_context, "add"), context_name),
    (GC(8, "scale"), 64, partial(global_context, "scale"), context_name),
    (NonLocal(8, "sqrt"), 64, non_local, non_local_name),
    (BAM(combine="product"), 48, partial(BamBlock, 48), bam_name),
    *((SE(width="round8"), n, partial(SEModule, n), str) for n in (64, 72, 256, 100)),
    (SE(4), 24, partial(Torchvisions, 24, 6), str),
    (SE(4, act="silu"), 24, partial(Torchvisions, 24, 6, activation=nn.SiLU), str),
    (
        SE(4, gate="hardsigmoid"),
        24,
        partial(Torchvisions, 24, 6, scale_activation=nn.Hardsigmoid),
        str,
    ),
    *(
        (SE(reduction), n, partial(SEBlock, n, reduction=reduction), partial(re.sub, "conv", "fc"))
        for n, reduction in ((16, 16), (24, 16), (64, 4))
    ),
    (ECA(), 256, partial(EcaModule, 256), str),
]


@pytest.mark.parametrize("size", [(6, 6), (7, 3), (1, 1)], ids=str)
@pytest.mark.parametrize(
    ("spec", "channels", "theirs", "rename"),
    THEIRS,
    ids=[f"{spec}-{channels}" for spec, channels, *_ in THEIRS],
)
def test_gates_of_other_libraries(
    spec: Gate,
    channels: int,
    theirs: Callable[[], nn.Module],
    rename: Callable[[str], str],
    size: tuple[int, int],
) -> None:
    """timm's, torchvision's and pytorchcv's."""
    ours = spec.build(gate_site(channels)).double()
    agree(ours, theirs().double(), rename, images(3, channels, *size))


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (5, 14), (1, 1)], ids=str)
def test_gather_excite_without_parameters_is_timms(size: tuple[int, int]) -> None:

    # timm's forms with parameters can't be built in the versions tested.
    for extent in (0, 2, 4, 8):
        x = images(2, 6, *size)
        theirs = GatherExcite(6, extent=extent, use_mlp=False).double()
        assert relative_error(GE(extent).build(gate_site(6))(x), theirs(x)) < 1e-12


def test_rounding_to_eight_is_timms_for_every_width() -> None:

    for ratio in (2, 3, 16):
        for channels in range(ratio, 600, 7):
            with torch.device("meta"):
                theirs = SEModule(channels, rd_ratio=1 / ratio).fc1.out_channels
            assert SE(ratio, width="round8").hidden(gate_site(channels)) == theirs, (
                channels,
                ratio,
            )


def test_the_adaptive_kernel_is_timms() -> None:

    for channels in [*range(1, 130), 192, 255, 256, 511, 512, 1024, 2047, 2048, 4096, 100_000]:
        assert ECA().size(channels) == EcaModule(channels).conv.kernel_size[0], channels
    for gamma, beta in ((1.0, 1.0), (2.0, 0.0), (4.0, 3.0)):
        theirs = EcaModule(512, gamma=gamma, beta=beta).conv.kernel_size[0]
        assert ECA(gamma=gamma, beta=beta).size(512) == theirs


# --- SE ------------------------------------------------------------------------------------------


def test_hidden_widths() -> None:
    assert SE(16).hidden(gate_site(256)) == 16
    assert SE(16).hidden(gate_site(40)) == 2
    # Fewer channels than the reduction leave one unit.
    assert SE(16).hidden(gate_site(3)) == 1
    assert SE(16, width=7).hidden(gate_site(256)) == 7
    per_stage = SE((2, 4, 8, 16))
    assert [per_stage.hidden(gate_site(64, stage=n)) for n in (1, 2, 3, 4)] == [32, 16, 8, 4]
    assert SE([2, 4, 8, 16]) == per_stage  # type: ignore[arg-type]


def test_key_dropout() -> None:
    torch.manual_seed(0)
    module = SE(4, drop=0.25).build(gate_site(8))
    x = torch.rand(5000, 8, 1, 1) + 0.5
    plain = SE(4).build(gate_site(8))
    plain.load_state_dict(module.state_dict())
    with torch.no_grad():
        y, expected = module(x), plain(x)
        dropped = y == 0
        # Whole channels of single images: 40,000 draws, 4 standard deviations are 0.0087.
        assert abs(dropped.float().mean().item() - 0.25) < 0.0087
        assert (dropped.flatten(1).any(1) & ~dropped.flatten(1).all(1)).any()
        torch.testing.assert_close(y[~dropped], expected[~dropped] / 0.75)
        # The relative deviation of a channel's mean over 5000 images is 0.58 / sqrt(5000).
        assert ((y.mean(0) / expected.mean(0)) - 1).abs().max() < 4 * 0.0083
        assert torch.equal(module.eval()(x), expected)
    whole = SE(4, drop=0.5).build(gate_site(8))(torch.rand(50, 8, 3, 3) + 0.5)
    zeros = (whole == 0).flatten(2).float().mean(2)
    assert set(zeros.unique().tolist()) == {0.0, 1.0}


# --- Wrong fields --------------------------------------------------------------------------------

WHOLE = "a whole number of at least 1"
RATIO = f"{WHOLE} or a tuple of one or more whole numbers of at least 1"
BOOL = "True or False"
WIDTH = f"'floor', 'round8' or {WHOLE}"
RATE = "a number from 0 up to, not including, 1"
ABOVE = "a number above 0"


@pytest.mark.parametrize(
    ("kind", "field", "value", "true", "remedy"),
    [
        (SE, "reduction", 0, RATIO, "reduction=16"),
        (SE, "width", "ceil", WIDTH, "width='floor'"),
        (SE, "bias", 1, BOOL, "bias=True"),
        (SE, "act", "gelu", "one of 'relu', 'silu'", "Did you mean 'relu'?"),
        (SE, "gate", "tanh", "one of 'sigmoid', 'hardsigmoid'", "gate='sigmoid'"),
        (SE, "squeeze", "std", "one of 'avg', 'max'", "squeeze='avg'"),
        (SE, "init", "zero", "one of 'paper', 'identity'", "init='paper'"),
        (SE, "drop", 1.0, RATE, "drop=0.0"),
        (SE, "scale", 0, ABOVE, "scale=1.0"),
        (ECA, "kernel", 4, "0 or an odd whole number of at least 1", "kernel=0"),
        (ECA, "gamma", 0.0, ABOVE, "gamma=2.0"),
        (ECA, "beta", math.inf, "a number", "beta=1.0"),
        (CBAM, "part", "chanel", "one of 'both', 'channel', 'spatial'", "Did you mean 'channel'?"),
        (CBAM, "kernel", 4, "an odd whole number of at least 1", "kernel=7"),
        (SCSE, "reduction", 0, RATIO, "reduction=2"),
        (GE, "extent", 1, "0 or a whole number of at least 2", "extent=0"),
        (GE, "side", True, f"0, {RATIO}", "side=0"),
        (SRM, "unbiased", 1, BOOL, "unbiased=False"),
        (GCT, "norm", "L2", "one of 'l2', 'l1'", "Did you mean 'l2'?"),
        (SimAM, "eps", 0.0, ABOVE, "eps=0.0001"),
        (BAM, "dilation", 0, WHOLE, "dilation=4"),
    ],
)
def test_wrong_fields(kind: type[Gate], field: str, value: Any, true: str, remedy: str) -> None:
    remedy = remedy if remedy.startswith("Did") else f"Type for example: {remedy}"
    assert message(lambda: kind(**{field: value}), PolicyError) == (
        f"{kind.__name__} got {field}={value!r}.\n{field} is {true}.\n{remedy}"
    )


NO_SIDE = (
    "The side of the map is needed with weights and the extent 0, and only then.\n"
    "Type for example: GE(variant='theta', side=(56, 28, 14, 7)) or GE(extent=8, variant='theta')"
)
NO_IDENTITY = "or use a gate that has one: SE(init='identity')"
NO_PARAMETERS = "has no parameters, so it has no identity."


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: SE(init="identity", scale=3.0), "SE got init='identity' with scale=3.0.\n"
         "The identity is 2 * sigmoid(0), so its scale must be 2.\nLeave scale out"),
        (lambda: SE((4, 8)).hidden(gate_site(64)), "SE got 2 reductions, (4, 8).\n"
         "The network has 4 stages.\nGive one reduction per stage, or one for all"),
        (lambda: SimAM(init="identity"), "SimAM got init='identity'.\n"  # type: ignore[call-arg]
         f"SimAM {NO_PARAMETERS}\nType SimAM(), {NO_IDENTITY}"),
        (lambda: BAM(init="identity"), "BAM got init='identity'.\n"  # type: ignore[call-arg]
         f"BAM multiplies by 1 + sigmoid, which is never 1.\nType BAM(), {NO_IDENTITY}"),
        (lambda: GE(init="identity"),
         f"GE got init='identity'.\nThe variant 'theta-minus' {NO_PARAMETERS}\n"
         "Type for example: GE(extent=8, variant='theta', init='identity')"),
        (lambda: GE(6, "theta"), "GE got extent=6.\n"
         "The variant 'theta' halves the map repeatedly, so its extent must be a power of 2.\n"
         "Type for example: GE(extent=8, variant='theta')"),
        (lambda: GE(variant="theta"), f"GE got side=0.\n{NO_SIDE}"),
        (lambda: GE(8, side=7), f"GE got side=7.\n{NO_SIDE}"),
        (lambda: GE(variant="theta", side=(8, 4)).build(gate_site(8)), "GE got 2 sides, (8, 4).\n"
         "The network has 4 stages.\nGive one side per stage, or one for all"),
    ],
)  # fmt: skip
def test_fields_that_do_not_go_together(wrong: Callable[[], object], text: str) -> None:
    assert message(lambda: wrong(), PolicyError) == text


def test_a_misspelled_option() -> None:
    with pytest.raises(ConfigError) as caught:
        SimAM(lambda_=1e-4)  # type: ignore[call-arg]
    assert str(caught.value) == "SimAM has no option 'lambda_'.\nIts options are eps."


@pytest.mark.parametrize(
    ("spec", "parameters", "macs"),
    [
        # From the sizes of the layers, at 64 channels and 8x6 pixels.
        (CBAM(), 2 * 64 * 4 + 4 + 64 + 98 + 2, 2 * 2 * 64 * 4 + 98 * 48),
        (SCSE(), 2 * 64 * 32 + 32 + 64 + 64 + 1, 2 * 64 * 32 + 64 * 48),
        (GE(), 0, 0),
        (GE(4, "theta"), 2 * (9 * 64 + 2 * 64), 9 * 64 * (4 * 3 + 2 * 2)),
        (SRM(), 2 * 64 + 2 * 64, 0),
        (GCT(), 3 * 64, 0),
        (CoordinateAttention(), 3 * 64 * 8 + 8 + 2 * 64 + 16, 2 * 64 * 8 * 14),
        (ESE(), 64 * 64 + 64, 64 * 64),
        (
            BAM(),
            (2 * 64 * 4 + 4 + 64 + 8) + (64 * 4 + 4 + 8) + 2 * (9 * 16 + 4 + 8) + (4 + 1),
            2 * 64 * 4 + (64 * 4 + 2 * 9 * 16 + 4) * 48,
        ),
        (SimAM(), 0, 0),
        (GC(), 64 + 64 * 8 + 8 + 16 + 8 * 64 + 64, 64 * 48 + 64 * 48 + 2 * 64 * 8),
        (TripletAttention(), 3 * (98 + 2), 98 * (8 * 6 + 64 * 6 + 8 * 64)),
        (SGE(), 2 * 64, 0),
        (SGE(8), 2 * 8, 0),
        (FCA(), 2 * 64 * 4, 64 * (8 + 1) * 6 + 2 * 64 * 4),
        (ShuffleAttention(8), 3 * 64 // 8, 0),
        (MultiScaleAttention(), 64 + 8 + 16 + 9 * 64 + 8, 8 * (64 * 14 + 9 * 64 * 48)),
        (ELA(), 7 * 64 + 2 * 64, 7 * 64 * 14),
        (NonLocal(), 4 * 64 * 32 + 64 + 2 * 64, 4 * 64 * 32 * 48 + 2 * 48 * 48 * 32),
    ],
    ids=str,
)
def test_cost(spec: Gate, parameters: int, macs: int) -> None:
    module = spec.build(gate_site(64))
    assert sum(p.numel() for p in module.parameters()) == parameters
    assert module_macs(module, (1, 64, 8, 6)) == macs
