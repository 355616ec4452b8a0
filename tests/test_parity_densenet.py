"""DenseNet against torchvision, timm and pytorchcv, on shared random weights in fp64."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
import torch
from support.networks import (
    Times,
    calibrate_on_next_batch,
    images,
    on_meta,
    randomize,
    relative_error,
    skeleton,
)
from support.parity import TOLERANCE
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from senetzoo import SE, Stem, block, config
from senetzoo.models.densenet import DenseNet, DenseNetConfig
from senetzoo.nn.stem import as_stem
from senetzoo.policies.algebra import Policy
from senetzoo.policies.attach import attach
from senetzoo.zoo import create


def small(**changes: Any) -> DenseNetConfig:
    """Three blocks of a few layers, whose transitions round down."""
    own: dict[str, Any] = {"depths": (2, 3, 2), "growth": 6, "width": 9, "num_classes": 5}
    return DenseNetConfig(**({"stem": "cifar"} | own | changes))


def filled(seed: int = 0, policy: Policy | None = None, **changes: Any) -> DenseNet:
    """A small network of random weights in fp64, gates included, in training mode."""
    model = small(**changes).build()
    if policy is not None:
        attach(model, policy, seed=0)
    randomize(model, seed)
    return model.double()


# --- Equality with the references ----------------------------------------------------------------


def test_densenet40_written_out() -> None:
    """No library at hand has a DenseNet that does not compress, so it is written out here."""
    model = create("densenet40_12", seed=0).double()
    randomize(model)
    calibrate_on_next_batch(model)
    x = images(2, 3, 32, 32)
    with torch.no_grad():
        model(x)
        model.eval()
        state = model.state_dict()

        def composite(x: Tensor, norm: str, conv: str) -> Tensor:
            mean, var, weight, bias = (
                state[f"features.{norm}.{part}"][:, None, None]
                for part in ("running_mean", "running_var", "weight", "bias")
            )
            x = ((x - mean) / (var + 1e-5).sqrt() * weight + bias).clamp(min=0)
            if not conv:
                return x
            kernel = state[f"features.{conv}.weight"]
            return functional.conv2d(x, kernel, padding=kernel.shape[2] // 2)

        y = functional.conv2d(x, state["features.conv0.weight"], padding=1)
        assert y.shape[1] == 16
        for stage in (1, 2, 3):
            if stage > 1:
                path = f"transition{stage - 1}"
                y = composite(y, f"{path}.norm", f"{path}.conv")
                y = y.reshape(2, -1, y.shape[2] // 2, 2, y.shape[3] // 2, 2).mean((3, 5))
            for layer in range(1, 13):
                path = f"denseblock{stage}.denselayer{layer}"
                y = torch.cat([y, composite(y, f"{path}.norm1", f"{path}.conv1")], 1)
            assert y.shape[1:] == (16 + 144 * stage, 64 >> stage, 64 >> stage)
        y = composite(y, "norm5", "").mean((2, 3))
        expected = y @ state["classifier.weight"].T + state["classifier.bias"]
        assert relative_error(model(x), expected) < TOLERANCE


# --- Sizes ---------------------------------------------------------------------------------------

# Table 1 of the paper for 224x224 pixels: layers of each block, then its size and, of the growth
# rate k = 32, its channels. The transitions halve both.
TABLE_1 = {
    "densenet121": ((6, 12, 24, 16), (256, 512, 1024, 1024)),
    "densenet169": ((6, 12, 32, 32), (256, 512, 1280, 1664)),
    "densenet201": ((6, 12, 48, 32), (256, 512, 1792, 1920)),
    "densenet264": ((6, 12, 64, 48), (256, 512, 2304, 2688)),
}


@pytest.mark.parametrize("name", TABLE_1)
def test_shapes_of_table_1(name: str) -> None:
    depths, channels = TABLE_1[name]
    model = on_meta(lambda: create(name, seed=0))
    shapes = {}
    for path, module in model.named_modules():
        module.register_forward_hook(
            lambda _, __, out, path=path: shapes.update({path: tuple(out.shape[1:])})
        )
    model(torch.empty(1, 3, 224, 224, device="meta"))
    assert shapes["features.conv0"] == (64, 112, 112)
    assert shapes["features.pool0"] == (64, 56, 56)
    inputs = 64
    for stage, (depth, outputs) in enumerate(zip(depths, channels, strict=True), 1):
        size = 112 >> stage
        path = f"features.denseblock{stage}"
        layers = [key for key in shapes if re.fullmatch(rf"{path}\.denselayer\d+", key)]
        assert len(layers) == depth
        for number, layer in enumerate(layers):
            assert shapes[f"{layer}.norm1"] == (inputs + 32 * number, size, size)
            assert shapes[f"{layer}.conv1"] == (128, size, size)
            assert shapes[f"{layer}.conv2"] == shapes[layer] == (32, size, size)
        assert shapes[path] == (outputs, size, size)
        inputs = outputs // 2
        if stage < 4:
            assert shapes[f"features.transition{stage}.conv"] == (inputs, size, size)
            assert shapes[f"features.transition{stage}"] == (inputs, size // 2, size // 2)
    assert shapes["avgpool"] == (channels[-1], 1, 1)
    # As many layers with weights as the name says, but for the paper's own slip with the last.
    counted = len([m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))])
    assert counted == {"densenet264": 265}.get(name, int(name.removeprefix("densenet")))


# --- Stems and maps ------------------------------------------------------------------------------

WIDE = Stem(kernels=(5, 3), strides=(1, 2), widths=(0.25, 1.0))
POOLED = Stem(kernels=(3,), strides=(1,), pool=True)
STEMS = ["imagenet", "cifar", "deep", WIDE, POOLED]


@pytest.mark.parametrize("stem", STEMS)
def test_every_stem(stem: Stem | str) -> None:
    model = on_meta(small(stem=stem, in_chans=5, num_classes=7).build)
    value = as_stem(stem)
    layers = dict(model.get_submodule("features").named_children())
    # A norm stands before the pool, and only there.
    assert ("norm0" in layers) == ("relu0" in layers) == ("pool0" in layers) == value.pool
    assert model.get_parameter(model.input_parameter()).shape[1] == 5
    x = torch.empty(2, 5, 64, 64, device="meta")
    maps = model.feature_maps(x)
    assert len(maps) == len(model.feature_info) == len(model.stages())
    for info, found in zip(model.feature_info, maps, strict=True):
        assert found.shape == (2, info.channels, 64 // info.stride, 64 // info.stride)
    assert model(x).shape == (2, 7)


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_min_size_is_exact(stem: Stem | str, stages: int) -> None:
    shape = small(depths=(1,) * stages, stem=stem)
    model = on_meta(shape.build)

    def runs(size: int) -> bool:
        try:
            # The sizes only: `forward` refuses an image that is too small before that.
            model.forward_features(torch.empty(2, 3, size, size, device="meta"))
        except RuntimeError:
            return False
        return True

    assert runs(shape.min_size)
    assert shape.min_size == 1 or not runs(shape.min_size - 1)


def test_maps_are_the_blocks_outputs() -> None:
    model = filled().eval()
    seen: dict[str, Tensor] = {}
    for path in ("features.denseblock1", "features.denseblock2", "relu"):
        model.get_submodule(path).register_forward_hook(
            lambda _, __, out, path=path: seen.update({path: out.clone()})
        )
    maps = model.feature_maps(images(2, 3, 16, 16))
    for path, found in zip(seen, maps, strict=True):
        assert torch.equal(found, seen[path])
    assert model.cam_layer is model.relu
    assert torch.equal(model.forward_features(images(2, 3, 16, 16)), maps[-1])
    assert maps[-1].min() == 0


# --- Sites ---------------------------------------------------------------------------------------


def test_sites() -> None:
    sites = [s for s in small().build().sites() if s.stage == 2]
    # 9 + 2 * 6 = 21 channels, of which the transition leaves 10.
    assert [(s.block, s.blocks, s.position, s.channels) for s in sites] == [
        (1, 3, "pre", 10),
        (1, 3, "standard", 6),
        (1, 3, "post", 16),
        (2, 3, "pre", 16),
        (2, 3, "standard", 6),
        (2, 3, "post", 22),
        (3, 3, "pre", 22),
        (3, 3, "standard", 6),
        (3, 3, "post", 28),
    ]
    assert sites[0].path == "features.denseblock2.denselayer1.slots.pre"


@pytest.mark.parametrize("bottleneck", [True, False])
@pytest.mark.parametrize("memory_efficient", [True, False])
def test_where_the_gates_sit(bottleneck: bool, memory_efficient: bool) -> None:
    """A block of three layers with gates at five sites, written out."""
    model = filled(bottleneck=bottleneck, memory_efficient=memory_efficient, depths=(3,))
    layers = [block for stage in model.stages() for block in stage]
    factors = {(0, "standard"): 2.0, (0, "post"): 3.0, (1, "pre"): 5.0, (1, "standard"): 0.7}
    factors[2, "post"] = 0.3
    for (index, position), factor in factors.items():
        slots = layers[index].get_submodule("slots")
        slots.add_module(position, Times(factor))

    def gate(index: int, position: str, x: Tensor) -> Tensor:
        return x * factors.get((index, position), 1.0)

    x = images(2, 9, 8, 8)
    y = x
    for index, layer in enumerate(layers):
        z = layer.conv1(layer.norm1(gate(index, "pre", y)).relu())  # type: ignore[operator]
        if bottleneck:
            z = layer.conv2(layer.norm2(z).relu())  # type: ignore[operator]
        y = gate(index, "post", torch.cat([y, gate(index, "standard", z)], 1))
    assert relative_error(model.get_submodule("features.denseblock1")(x), y) < 1e-12


def test_a_gate_at_the_end_of_each_block() -> None:
    policy = SE(4).at("post").on(block(-1))
    model = filled(policy=policy)
    gates = [path for path, module in model.named_modules() if path.endswith("slots.post")]
    assert gates == [
        f"features.denseblock{n}.denselayer{d}.slots.post" for n, d in [(1, 2), (2, 3), (3, 2)]
    ]
    before = model.eval()(images(2, 3, 16, 16))
    for site, slots in model.slots():
        if slots.get(site.position) is not None:
            slots.clear(site.position)
    assert not torch.allclose(model(images(2, 3, 16, 16)), before)


# --- Memory --------------------------------------------------------------------------------------


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("policy", [None, SE(4).at("post"), SE(4).at("pre")])
def test_one_concatenation_for_each_layer(policy: Policy | None) -> None:
    """One for the input of each layer but the first of a block, and one for the block's end.

    A gate at `post` needs the one that the next layer would make.
    """
    model = filled(policy=policy).eval()
    with Operators() as operators:
        model(images(2, 3, 16, 16))
    assert operators.counts["cat"] == 2 + 3 + 2


def kept_bytes(model: DenseNet, x: Tensor) -> int:
    """Bytes of the tensors that a forward pass keeps for the backward pass, parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            # Held, so that no address is used twice.
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(x)
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("bottleneck", [True, False])
def test_memory_efficient_keeps_no_concatenations(bottleneck: bool) -> None:
    """Between 4 and 16 layers the maps that are kept grow as 4, in place of nearly as 16."""

    def kept(depth: int, memory_efficient: bool) -> int:
        model = small(
            depths=(depth,), bottleneck=bottleneck, width=4, memory_efficient=memory_efficient
        ).build()
        return kept_bytes(model, torch.randn(2, 3, 16, 16))

    plain, efficient = kept(16, False) / kept(4, False), kept(16, True) / kept(4, True)
    assert efficient < 4.1
    assert plain > (5 if bottleneck else 8)
    assert kept(16, True) < (0.5 if bottleneck else 0.2) * kept(16, False)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("drop_rate", [0.0, 0.2])
@pytest.mark.parametrize(
    "policy", [None, SE(4).at("pre") + SE(4), SE(4).at("post")], ids=["none", "pre", "post"]
)
@pytest.mark.parametrize("bottleneck", [True, False])
def test_memory_efficient_is_the_same(
    bottleneck: bool, policy: Policy | None, drop_rate: float, momentum: float | None
) -> None:
    """Outputs, gradients, and statistics that are gathered once for each step."""
    outputs: list[list[Tensor]] = []
    tensors: list[dict[str, Tensor]] = []
    for memory_efficient in (False, True):
        model = filled(
            policy=policy,
            bottleneck=bottleneck,
            drop_rate=drop_rate,
            memory_efficient=memory_efficient,
        )
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = momentum
        torch.manual_seed(0)
        outputs.append([])
        for step in range(2):
            outputs[-1].append(model(images(2, 3, 16, 16) + step))
            outputs[-1][-1].square().sum().backward()  # type: ignore[no-untyped-call]
        assert {norm.momentum for norm in norms} == {momentum}
        assert {int(norm.get_buffer("num_batches_tracked")) for norm in norms} == {2}
        gradients = {f"{n}.grad": p.grad for n, p in model.named_parameters() if p.grad is not None}
        assert len(gradients) == len(list(model.parameters()))
        tensors.append(gradients | dict(model.named_buffers()))
    assert all(torch.equal(a, b) for a, b in zip(*outputs, strict=True))
    plain, efficient = tensors
    assert list(plain) == list(efficient)
    for name, tensor in plain.items():
        assert torch.equal(tensor, efficient[name]), name


def test_memory_efficient_computes_no_convolution_again() -> None:
    for memory_efficient, norms in ((False, 0), (True, 7)):
        model = filled(memory_efficient=memory_efficient)
        loss = model(images(2, 3, 16, 16)).sum()
        with Operators() as operators:
            loss.backward()
        assert operators.counts["convolution"] == 0
        assert operators.counts["native_batch_norm"] == norms


def test_memory_efficient_is_off_where_it_can_not_help() -> None:
    model = filled(memory_efficient=True).eval()
    loss = model(images(2, 3, 16, 16)).sum()
    with Operators() as operators:
        loss.backward()
    assert not {"cat", "native_batch_norm"} & set(operators.counts)
    with torch.no_grad():
        model.train()(images(2, 3, 16, 16))


def test_compiled_training_step() -> None:
    """The compiler makes the norm's second run itself, and writes its statistics once."""
    eager, compiled = (filled(depths=(2,), memory_efficient=True) for _ in range(2))
    step = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    outputs = [eager(images(2, 3, 16, 16)), step(images(2, 3, 16, 16))]
    assert relative_error(outputs[1], outputs[0]) < 1e-12
    for output in outputs:
        output.square().sum().backward()
    for tensors in (nn.Module.named_buffers, nn.Module.named_parameters):
        expected = dict(tensors(eager))
        for name, tensor in tensors(compiled):
            assert relative_error(tensor.double(), expected[name].double()) < 1e-12, name
    expected = dict(eager.named_parameters())
    for name, parameter in compiled.named_parameters():
        assert parameter.grad is not None
        gradient = expected[name].grad
        assert gradient is not None
        assert (parameter.grad - gradient).abs().max() < 1e-12 * gradient.abs().max() + 1e-12, name


# --- Dropout and config --------------------------------------------------------------------------


def test_the_two_dropouts() -> None:
    model = skeleton(DenseNet, "densenet40_12", dropout=0.25, num_classes=7, in_chans=5)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.25]
    wet = on_meta(config("densenet40_12").replace(drop_rate=0.2).build)
    dropouts = {path: m.p for path, m in wet.named_modules() if isinstance(m, nn.Dropout)}
    assert set(dropouts.values()) == {0.2}
    assert len(dropouts) == 36
    assert not any(isinstance(m, nn.Dropout) for m in skeleton(DenseNet, "densenet40_12").modules())


def test_drop_rate_drops_new_features() -> None:
    model = filled(drop_rate=0.5, depths=(1,))
    torch.manual_seed(0)
    x = images(2, 9, 8, 8)
    y = model.get_submodule("features.denseblock1")(x)
    assert torch.equal(y[:, :9], x)
    assert 0.35 < (y[:, 9:] == 0).double().mean() < 0.65
    assert (model.eval().get_submodule("features.denseblock1")(x) == 0).sum() == 0


def test_initialization() -> None:
    model = small(growth=32, width=64).build()
    weight = model.get_parameter("features.denseblock1.denselayer1.conv2.weight")
    assert weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.03)
    assert model.classifier.bias.abs().max() == 0
