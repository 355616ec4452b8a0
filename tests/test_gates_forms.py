"""Every gate in both layouts, at odd sizes, in bf16, compiled, and as the identity."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from support.foreign import all_five
from support.networks import (
    gate_module,
    gate_site,
    images,
    message,
    randomize,
    relative_error,
    tiny,
)
from torch import nn

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
    attach,
)
from senetzoo.errors import PolicyError
from senetzoo.gates import GATES
from senetzoo.policies.algebra import Gate

EVERY: list[Gate] = [
    *(SE(), SE(squeeze="max", gate="hardsigmoid"), ECA(), ECA(5), GE(), GE(2), GE(4, "theta")),
    *(GE(4, "theta-plus"), CBAM(), CBAM(part="channel", bias=False)),
    *(CBAM(part="spatial", kernel=3), SCSE(), SCSE(combine="max"), SCSE(part="cse")),
    *(SCSE(part="sse", bias=False), SRM(), SRM(unbiased=True), GCT(), GCT("l1")),
    *(CoordinateAttention(), ESE(), BAM(), BAM(combine="product"), SimAM()),
    *(GC(), GC(fusion="scale"), TripletAttention(3), SGE(4), FCA(), ShuffleAttention(2)),
    *(MultiScaleAttention(4), ELA(), NonLocal()),
]
# Gates whose batch norm gets one value per image.
ONE_PER_IMAGE = [SRM(), BAM(), *(GE(variant=v, side=5) for v in ("theta", "theta-plus"))]
IDENTITIES: list[Gate] = [
    SE(4, init="identity"),
    SE(4, init="identity", gate="hardsigmoid", act="silu", bias=False),
    ECA(init="identity"),
    CBAM(4, init="identity"),
    CBAM(4, part="channel", init="identity"),
    CBAM(part="spatial", init="identity"),
    SCSE(init="identity"),
    SCSE(combine="max", init="identity"),
    SCSE(part="cse", init="identity"),
    SCSE(part="sse", init="identity"),
    GE(4, "theta", init="identity"),
    GE(4, "theta-plus", 4, init="identity"),
    SRM(init="identity"),
    GCT(init="identity"),
    GCT("l1"),
    CoordinateAttention(init="identity"),
    ESE(init="identity"),
    GC(init="identity"),
    GC(4, "scale", init="identity"),
    TripletAttention(init="identity"),
    SGE(4, init="identity"),
    FCA(4, init="identity"),
    MultiScaleAttention(4, init="identity"),
    ELA(init="identity"),
    NonLocal(),
    ESE("sigmoid", init="identity"),
]
per_gate = pytest.mark.parametrize("spec", EVERY, ids=str)
per_identity = pytest.mark.parametrize("spec", IDENTITIES, ids=str)


def test_all_are_here() -> None:
    assert " ".join(GATES) == (
        "se eca cbam scse ge srm gct coord ese bam simam gc triplet sge fca shuffle multiscale ela "
        "nonlocal"
    )
    assert {type(spec) for spec in EVERY} == set(GATES.values())
    able = {kind for kind in GATES.values() if not kind.no_identity}
    assert {type(spec) for spec in IDENTITIES} == able


# --- Forms of the input --------------------------------------------------------------------------

shapes = pytest.mark.parametrize("shape", [(2, 12, 5, 7), (2, 3, 4, 9), (2, 40, 1, 1)], ids=str)


def fitting(spec: Gate, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape, with one more channel if the gate needs an even number."""
    odd = isinstance(spec, ShuffleAttention) and shape[1] % 2
    return (shape[0], shape[1] + 1, *shape[2:]) if odd else shape


@per_gate
@shapes
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_both_layouts_are_the_same(spec: Gate, shape: tuple[int, ...], training: bool) -> None:
    shape = fitting(spec, shape)
    x = images(*shape)
    first = gate_module(spec, shape[1]).train(training)
    last = gate_module(spec, shape[1], layout="nhwc").train(training)
    y = first(x)
    assert y.shape == x.shape
    assert relative_error(last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), y) < 1e-12
    # The memory format doesn't change the result.
    z = first(x.contiguous(memory_format=torch.channels_last))
    assert relative_error(z, y) < 1e-12


@per_gate
@shapes
def test_gradients(spec: Gate, shape: tuple[int, ...]) -> None:
    alive, names = set(), set()
    shape = fitting(spec, shape)
    # Several draws, because the ReLU of the only hidden unit may be off in one of them.
    for seed in range(5):
        module = gate_module(spec, shape[1], seed=seed)
        if any(isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d)) for m in module.modules()):
            # A bias before a norm has no gradient in training mode.
            module.eval()
        x = images(*shape).requires_grad_()
        (module(x) * images(*shape, seed=6)).sum().backward()
        assert x.grad is not None
        assert bool(torch.isfinite(x.grad).all())
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert bool(torch.isfinite(parameter.grad).all()), name
            names.add(name)
            if parameter.grad.abs().max() > 0:
                alive.add(name)
    # Parameters that compare pixels get no gradient from a single pixel.
    idle = {GC: {"mask.weight"}, SGE: {"weight"}, NonLocal: {"q.weight", "q.bias", "k.weight"}}
    assert alive == names - (idle.get(type(spec), set()) if shape[2:] == (1, 1) else set())


@per_gate
def test_one_image(spec: Gate) -> None:
    for size in ((5, 4), (1, 1)):
        x = images(2, 12, *size)
        module = gate_module(spec, 12).eval()
        # Images don't influence each other.
        assert relative_error(module(x[:1]), module(x)[:1]) < 1e-12
    if type(spec) not in (SRM, BAM):
        assert bool(torch.isfinite(module.train()(images(1, 12, 5, 4))).all())


NEEDS = (
    "Its batch norm needs at least two to compute a variance.\n"
    "Use more than one image per batch, or type model.eval()"
)


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        *[(spec, 5) for spec in ONE_PER_IMAGE],
        (CBAM(), 1),
        (CBAM(part="spatial"), 1),
        (GE(4, "theta"), 1),
        (GE(4, "theta"), 4),
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_one_value_to_normalize(spec: Gate, size: int, layout: Any) -> None:
    module = gate_module(spec, 12, layout=layout)
    one, two = (
        torch.zeros((n, 12, size, size) if layout == "nchw" else (n, size, size, 12)).double()
        for n in (1, 2)
    )
    with pytest.raises(PolicyError) as caught:
        module(one)
    message = f"{spec} got one value per channel in training mode.\n{NEEDS}"
    assert str(caught.value) == message
    assert bool(torch.isfinite(module(two)).all())
    assert bool(torch.isfinite(module.eval()(one)).all())


def test_map_of_another_size() -> None:
    module = GE(variant="theta", side=(8, 7)).build(gate_site(6, stage=2, stages=2)).eval()
    assert message(lambda: module(torch.zeros(2, 6, 7, 8)), PolicyError) == (
        "ge(variant=theta,side=8:7) got a map of 7x8 pixels.\n"
        "Its convolution is for maps of 7x7.\n"
        "Pass the sides of this network's maps, or an extent: ge8(variant=theta)"
    )


@per_gate
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_bfloat16(spec: Gate, training: bool) -> None:
    x = images(4, 32, 6, 5, seed=5).bfloat16()
    reference = gate_module(spec, 32)
    for tensor in (*reference.parameters(), *reference.buffers()):
        if tensor.is_floating_point():
            tensor.data = tensor.data.bfloat16().double()
    module = copy.deepcopy(reference).bfloat16().train(training)
    y = module(x)
    assert y.dtype == torch.bfloat16
    # bf16 keeps 8 bits; a handful of roundings, and norms that divide by small deviations.
    expected = reference.train(training)(x.double()).detach()
    assert relative_error(y.detach().double(), expected) < 0.06


@per_gate
def test_large_values_in_fp16(spec: Gate) -> None:
    """Sums over the map exceed 65504, means don't."""
    x = (images(2, 8, 16, 16) * 100 + 300).half()
    y = spec.build(gate_site(8)).half().eval()(x)
    assert bool(torch.isfinite(y).all())


@per_gate
def test_copies_and_files(spec: Gate) -> None:
    module, x = gate_module(spec, 12).eval(), images(2, 12, 5, 4)
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x), module(x))
    assert str(spec) in repr(module)
    assert pickle.loads(pickle.dumps(spec)) == spec == copy.deepcopy(spec)


@per_gate
def test_compile_and_export(spec: Gate) -> None:
    torch._dynamo.reset()
    module, x = gate_module(spec, 12), images(2, 12, 5, 4)
    for training in (False, True):
        module.train(training)
        compiled = torch.compile(module, fullgraph=True, backend="eager")
        assert torch.equal(compiled(x), module(x))
    exported = torch.export.export(module.eval(), (x,), strict=False).module()
    assert torch.equal(exported(x), module(x))


# --- The exact identity --------------------------------------------------------------------------


@per_identity
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_identity_is_exact(spec: Gate, dtype: torch.dtype) -> None:
    for shape in ((3, 16, 5, 4), (2, 16, 1, 1), (3, 3, 3, 3)):
        x = images(*shape).to(dtype)
        for layout, y in (("nchw", x), ("nhwc", x.permute(0, 2, 3, 1))):
            module = spec.build(gate_site(shape[1], layout=layout)).to(dtype)  # type: ignore[arg-type]
            assert torch.equal(module.eval()(y), y)
            assert torch.equal(module.train()(y), y)


@per_identity
def test_identity_learns(spec: Gate) -> None:
    torch.manual_seed(0)
    module, x = spec.build(gate_site(16)), images(8, 16, 6, 6).float() + 1
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    losses = []
    before = copy.deepcopy(dict(module.named_parameters()))
    for _ in range(30):
        loss = (module(x) - x * 0.5).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    moved = {n for n, p in module.named_parameters() if not torch.equal(p, before[n])}
    assert moved == set(before)


@per_identity
def test_identity_keeps_a_networks_function(spec: Gate) -> None:
    model = tiny().eval()
    randomize(model)
    x = images(2, 3, 20, 20).float()
    with torch.no_grad():
        before = model(x)
        attach(model, all_five(spec), seed=0)
        assert torch.equal(model(x), before)
