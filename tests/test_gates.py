"""The gates against loops written from the papers' formulas, and against other libraries."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from support.networks import gate_module, gate_site, images, message, randomize, relative_error
from torch import Tensor, nn

from senetzoo import ECA, SE
from senetzoo._utils.torchvision import torchvision
from senetzoo.errors import PolicyError
from senetzoo.gates.eca import EfficientChannelAttention
from senetzoo.gates.se import SqueezeExcitation


def se_by_hand(spec: SE, module: SqueezeExcitation, x: Tensor) -> Tensor:
    """Eq. 2 to 4 of the SE paper, channel by channel, on Python's floats."""
    w1, w2 = module.fc1.weight.tolist(), module.fc2.weight.tolist()
    b1 = module.fc1.bias.tolist() if module.fc1.bias is not None else [0.0] * len(w1)
    b2 = module.fc2.bias.tolist() if module.fc2.bias is not None else [0.0] * len(w2)
    y = x.clone()
    for n in range(x.shape[0]):
        z = []
        for channel in x[n].tolist():
            pixels = [pixel for row in channel for pixel in row]
            z.append(max(pixels) if spec.squeeze == "max" else sum(pixels) / len(pixels))
        hidden = []
        for row, bias in zip(w1, b1, strict=True):
            h = sum(w * v for w, v in zip(row, z, strict=True)) + bias
            hidden.append(max(h, 0.0) if spec.act == "relu" else h / (1 + math.exp(-h)))
        for c, (row, bias) in enumerate(zip(w2, b2, strict=True)):
            e = sum(w * v for w, v in zip(row, hidden, strict=True)) + bias
            if spec.gate == "sigmoid":
                s = 1 / (1 + math.exp(-e))
            else:
                s = min(max(e / 6 + 0.5, 0.0), 1.0)
            y[n, c] *= spec.scale * s
    return y


@pytest.mark.parametrize(
    "spec",
    [
        SE(4),
        SE(4, bias=False),
        SE(4, act="silu"),
        SE(4, gate="hardsigmoid"),
        SE(4, scale=1.5),
        SE(4, squeeze="max"),
        SE(4, init="identity"),
        SE(width=5),
        SE(4, width="round8"),
        SE((2, 4, 8, 8)),
        SE(2, bias=False, act="silu", gate="hardsigmoid", scale=0.5, squeeze="max"),
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(3, 12, 5, 4), (1, 12, 1, 1)], ids=["5x4", "1x1"])
def test_se_by_hand(spec: SE, shape: tuple[int, ...]) -> None:
    module = gate_module(spec, 12)
    assert isinstance(module, SqueezeExcitation)
    x = images(*shape)
    expected = se_by_hand(spec, module, x)
    with torch.no_grad():
        assert relative_error(module(x), expected) < 1e-12
        gates = module.excitation(x)
        assert gates.shape == (shape[0], 12)
        assert relative_error(gates[:, :, None, None] * x, expected) < 1e-12


@pytest.mark.parametrize("spec", [SE(4), SE(4, squeeze="max"), ECA(), ECA(5)], ids=str)
def test_channels_last_layout(spec: SE | ECA) -> None:
    x = images(2, 12, 5, 4)
    first, last = gate_module(spec, 12), gate_module(spec, 12, layout="nhwc")
    assert torch.allclose(last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), first(x), atol=1e-14)


def test_se_is_timms() -> None:
    torchvision()
    from timm.layers.squeeze_excite import SEModule

    for channels in (64, 72, 256, 100):
        theirs: nn.Module = SEModule(channels).double()
        randomize(theirs)
        ours = SE(width="round8").build(gate_site(channels)).double()
        ours.load_state_dict(
            {k: v.flatten(1) if v.ndim == 4 else v for k, v in theirs.state_dict().items()}
        )
        x = images(2, channels, 6, 6)
        assert relative_error(ours(x).detach(), theirs(x).detach()) < 1e-12


def test_rounding_to_eight_is_timms_for_every_width() -> None:
    torchvision()
    from timm.layers.squeeze_excite import SEModule

    for ratio in (2, 3, 16):
        for channels in range(ratio, 600, 7):
            with torch.device("meta"):
                theirs = SEModule(channels, rd_ratio=1 / ratio).fc1.out_channels
            assert SE(ratio, width="round8").hidden(gate_site(channels)) == theirs, (
                channels,
                ratio,
            )


@pytest.mark.parametrize(
    ("act", "gate"), [("relu", "sigmoid"), ("silu", "sigmoid"), ("relu", "hardsigmoid")]
)
def test_se_is_torchvisions(
    act: Literal["relu", "silu"], gate: Literal["sigmoid", "hardsigmoid"]
) -> None:
    torchvision()
    from torchvision.ops.misc import SqueezeExcitation as Theirs

    layers = {
        "relu": nn.ReLU,
        "silu": nn.SiLU,
        "sigmoid": nn.Sigmoid,
        "hardsigmoid": nn.Hardsigmoid,
    }
    theirs: nn.Module = Theirs(
        24, 6, activation=layers[act], scale_activation=layers[gate]
    ).double()
    randomize(theirs)
    ours = SE(4, act=act, gate=gate).build(gate_site(24)).double()
    ours.load_state_dict(
        {k: v.flatten(1) if v.ndim == 4 else v for k, v in theirs.state_dict().items()}
    )
    x = images(2, 24, 6, 6)
    assert relative_error(ours(x).detach(), theirs(x).detach()) < 1e-12


def test_se_is_pytorchcvs() -> None:
    torchvision()
    from pytorchcv.models.common.att import SEBlock

    for channels, reduction in ((16, 16), (24, 16), (64, 4)):
        theirs: nn.Module = SEBlock(channels, reduction=reduction).double()
        randomize(theirs)
        ours = SE(reduction).build(gate_site(channels)).double()
        ours.load_state_dict(
            {
                k.replace("conv", "fc"): v.flatten(1) if v.ndim == 4 else v
                for k, v in theirs.state_dict().items()
            }
        )
        x = images(2, channels, 6, 6)
        assert relative_error(ours(x).detach(), theirs(x).detach()) < 1e-12


def test_hidden_widths() -> None:
    assert SE(16).hidden(gate_site(256)) == 16
    assert SE(16).hidden(gate_site(40)) == 2
    # Fewer channels than the reduction leave one unit, or eight.
    assert SE(16).hidden(gate_site(3)) == 1
    assert SE(16, width="round8").hidden(gate_site(3)) == 8
    # 64 / 16 = 4 is half way between 0 and 8; 192 / 16 = 12 between 8 and 16.
    assert SE(16, width="round8").hidden(gate_site(64)) == 8
    assert SE(16, width="round8").hidden(gate_site(192)) == 16
    assert SE(16, width="round8").hidden(gate_site(176)) == 8
    assert SE(16, width=7).hidden(gate_site(256)) == 7
    per_stage = SE((2, 4, 8, 16))
    assert [per_stage.hidden(gate_site(64, stage=n)) for n in (1, 2, 3, 4)] == [32, 16, 8, 4]
    assert SE([2, 4, 8, 16]) == per_stage  # type: ignore[arg-type]


def test_fewer_channels_than_the_reduction() -> None:
    module = gate_module(SE(16), 3)
    x = images(2, 3, 4, 4)
    assert isinstance(module, SqueezeExcitation)
    assert relative_error(module(x).detach(), se_by_hand(SE(16), module, x)) < 1e-12


@pytest.mark.parametrize(
    "spec",
    [SE(4, init="identity"), SE(4, init="identity", gate="hardsigmoid", act="silu", bias=False)],
    ids=str,
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_identity_is_exact_and_learns(spec: SE, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    module = spec.build(gate_site(16)).to(dtype)
    x = images(4, 16, 3, 3).to(dtype)
    assert torch.equal(module(x), x)
    target = x * 0.5
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        loss = (module(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    for parameter in module.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0


@pytest.mark.parametrize("spec", [SE(4), SE(4, squeeze="max", gate="hardsigmoid"), ECA()], ids=str)
def test_bfloat16(spec: SE | ECA) -> None:
    x = images(2, 32, 6, 6).bfloat16()
    reference = gate_module(spec, 32)
    for parameter in reference.parameters():
        parameter.data = parameter.data.bfloat16().double()
    module = spec.build(gate_site(32))
    module.load_state_dict(reference.state_dict())
    y = module.bfloat16()(x)
    assert y.dtype == torch.bfloat16
    # bf16 keeps 8 bits; a handful of roundings.
    assert relative_error(y.detach().double(), reference(x.double()).detach()) < 0.03


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
        # A channel's mean over 5000 images spreads by 0.58 / sqrt(5000) of itself.
        assert ((y.mean(0) / expected.mean(0)) - 1).abs().max() < 4 * 0.0083
        assert torch.equal(module.eval()(x), expected)
    whole = SE(4, drop=0.5).build(gate_site(8))(torch.rand(50, 8, 3, 3) + 0.5)
    zeros = (whole == 0).flatten(2).float().mean(2)
    assert set(zeros.unique().tolist()) == {0.0, 1.0}


def eca_by_hand(module: EfficientChannelAttention, x: Tensor) -> Tensor:
    """Eq. 5 and 9 of the ECA paper: each gate from its channel and the nearest ones."""
    weights = module.conv.weight.flatten().tolist()
    reach = len(weights) // 2
    y = x.clone()
    for n in range(x.shape[0]):
        z = [
            sum(pixel for row in channel for pixel in row) / (len(channel) * len(channel[0]))
            for channel in x[n].tolist()
        ]
        for c in range(len(z)):
            total = 0.0
            for j, weight in enumerate(weights):
                if 0 <= c + j - reach < len(z):
                    total += weight * z[c + j - reach]
            y[n, c] *= 1 / (1 + math.exp(-total))
    return y


@pytest.mark.parametrize("spec", [ECA(), ECA(1), ECA(7), ECA(gamma=1.0, beta=2.0)], ids=str)
@pytest.mark.parametrize("shape", [(3, 12, 5, 4), (1, 12, 1, 1), (1, 2, 3, 3)])
def test_eca_by_hand(spec: ECA, shape: tuple[int, ...]) -> None:
    module = gate_module(spec, shape[1])
    assert isinstance(module, EfficientChannelAttention)
    x = images(*shape)
    expected = eca_by_hand(module, x)
    with torch.no_grad():
        assert relative_error(module(x), expected) < 1e-12
        gates = module.excitation(x)
        assert relative_error(gates[:, :, None, None] * x, expected) < 1e-12


def test_eca_is_timms() -> None:
    torchvision()
    from timm.layers.eca import EcaModule

    for channels in [*range(1, 130), 192, 255, 256, 511, 512, 1024, 2047, 2048, 4096, 100_000]:
        assert ECA().size(channels) == EcaModule(channels).conv.kernel_size[0], channels
    for gamma, beta in ((1.0, 1.0), (2.0, 0.0), (4.0, 3.0)):
        theirs = EcaModule(512, gamma=gamma, beta=beta).conv.kernel_size[0]
        assert ECA(gamma=gamma, beta=beta).size(512) == theirs
    reference: nn.Module = EcaModule(256).double()
    randomize(reference)
    ours = ECA().build(gate_site(256)).double()
    ours.load_state_dict(reference.state_dict())
    x = images(2, 256, 6, 6)
    assert relative_error(ours(x).detach(), reference(x).detach()) < 1e-12


RULE = (
    "reduction is a whole number of at least 1 or a tuple of one or more whole "
    "numbers of at least 1."
)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: SE(0), f"SE got reduction=0.\n{RULE}\nType for example: reduction=16"),
        (lambda: SE(True), f"SE got reduction=True.\n{RULE}\nType for example: reduction=16"),
        (lambda: SE(()), f"SE got reduction=().\n{RULE}\nType for example: reduction=16"),
        (
            lambda: SE((4, 0.5)),  # type: ignore[arg-type]
            f"SE got reduction=(4, 0.5).\n{RULE}\nType for example: reduction=16",
        ),
        (
            lambda: SE(width="ceil"),  # type: ignore[arg-type]
            "SE got width='ceil'.\n"
            "width is 'floor', 'round8' or a whole number of at least 1.\n"
            "Type for example: width='floor'",
        ),
        (lambda: SE(width=0), "SE got width=0.\n"
         "width is 'floor', 'round8' or a whole number of at least 1.\n"
         "Type for example: width='floor'"),
        (
            lambda: SE(bias=1),  # type: ignore[arg-type]
            "SE got bias=1.\nbias is True or False.\nType for example: bias=True",
        ),
        (
            lambda: SE(act="gelu"),  # type: ignore[arg-type]
            "SE got act='gelu'.\nact is one of 'relu', 'silu'.\nDid you mean 'relu'?",
        ),
        (
            lambda: SE(gate="tanh"),  # type: ignore[arg-type]
            "SE got gate='tanh'.\n"
            "gate is one of 'sigmoid', 'hardsigmoid'.\n"
            "Type for example: gate='sigmoid'",
        ),
        (
            lambda: SE(squeeze="std"),  # type: ignore[arg-type]
            "SE got squeeze='std'.\n"
            "squeeze is one of 'avg', 'max'.\n"
            "Type for example: squeeze='avg'",
        ),
        (
            lambda: SE(init="zero"),  # type: ignore[arg-type]
            "SE got init='zero'.\n"
            "init is one of 'paper', 'identity'.\n"
            "Type for example: init='paper'",
        ),
        (lambda: SE(drop=1.0), "SE got drop=1.0.\n"
         "drop is a number from 0 up to, not including, 1.\nType for example: drop=0.0"),
        (lambda: SE(drop=math.nan), "SE got drop=nan.\n"
         "drop is a number from 0 up to, not including, 1.\nType for example: drop=0.0"),
        (lambda: SE(scale=0),
         "SE got scale=0.\nscale is a number above 0.\nType for example: scale=1.0"),
        (lambda: SE(scale=math.nan),
         "SE got scale=nan.\nscale is a number above 0.\nType for example: scale=1.0"),
        (lambda: SE(scale=math.inf),
         "SE got scale=inf.\nscale is a number above 0.\nType for example: scale=1.0"),
        (lambda: SE(init="identity", scale=3.0), "SE got init='identity' with scale=3.0.\n"
         "The identity is 2 * sigmoid(0), so its scale is 2.\nLeave scale out"),
        (lambda: SE((4, 8)).hidden(gate_site(64)),
         "SE got 2 reductions, (4, 8).\nThe network has 4 stages.\n"
         "Give one reduction per stage, or one for all"),
        (lambda: ECA(4), "ECA got kernel=4.\nkernel is 0 or an odd whole number of at least 1.\n"
         "Type for example: kernel=0"),
        (lambda: ECA(gamma=0.0),
         "ECA got gamma=0.0.\ngamma is a number above 0.\nType for example: gamma=2.0"),
        (
            lambda: ECA(gamma="x"),  # type: ignore[arg-type]
            "ECA got gamma='x'.\ngamma is a number above 0.\nType for example: gamma=2.0",
        ),
        (lambda: ECA(beta=math.inf),
         "ECA got beta=inf.\nbeta is a number.\nType for example: beta=1.0"),
    ],
)  # fmt: skip
def test_wrong_fields(wrong: object, text: str) -> None:
    assert callable(wrong)
    assert message(lambda: wrong(), PolicyError) == text
