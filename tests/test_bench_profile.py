from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from support.networks import SMALL, message, reduced
from torch import Tensor, nn
from torch._C._autograd import DeviceType

from senetzoo import ECA, SE, attach, create
from senetzoo.bench.kinds import is_gate, kind_of
from senetzoo.bench.peers import peer
from senetzoo.bench.profile import Part, Profile, grouped, profile
from senetzoo.bench.report import profile_text
from senetzoo.bench.timing import Backend, BenchmarkCase, Settings
from senetzoo.cli.bench import command as bench
from senetzoo.deploy.engines import Dtype
from senetzoo.errors import ConfigError

ONCE = Settings(batch=1, rounds=1, warmup=0)
# For one image inductor makes a sum of a matrix product.
TWO = Settings(batch=2, rounds=1, warmup=0)


# What is read of torch's events


@dataclass
class Event:
    """What torch's profiler would have recorded."""

    name: str
    cpu_time_total: float
    cpu_children: list[Any] = field(default_factory=list)
    device_time_total: float = 0.0
    device_type: DeviceType = DeviceType.CPU


def module(name: str, *inside: Event) -> Event:
    return Event(f"senetzoo module {name}", 1000.0, list(inside))


def op(name: str, microseconds: float, *inside: Event, gpu: float = 0.0) -> Event:
    return Event(f"aten::{name}", microseconds, list(inside), gpu)


TREE = [
    op("detach", 1),
    module(
        "",
        module("conv1", op("conv2d", 50, op("convolution", 40, op("mkldnn_convolution", 30)))),
        module(
            "layer1.0",
            module("layer1.0.conv1", op("conv2d", 20)),
            module(
                "layer1.0.se",
                op("mean", 3),
                module("layer1.0.se.fc", op("linear", 4, op("addmm", 2))),
                op("mul", 5),
            ),
            op("add", 6),
            op("relu_", 7),
        ),
        module("layer1.0", op("add", 10)),  # the same module once more
    ),
]


def test_operations_go_to_the_innermost_module_and_its_gate() -> None:
    micro = [
        (part.path, part.kind, round(part.seconds * 1e6), part.calls)
        for part in grouped(TREE, frozenset({"layer1.0.se"}))
    ]
    assert micro == [
        ("aten::detach", "data movement", 1, 1),
        # Only the outermost operation counts: what it calls is in its time.
        ("conv1", "convolution", 50, 1),
        ("layer1.0.conv1", "convolution", 20, 1),
        ("layer1.0.se", "gate", 3 + 5, 2),
        ("layer1.0.se.fc", "gate", 4, 1),
        ("layer1.0", "pointwise", 6 + 7 + 10, 3),
    ]


def test_a_gate_is_no_gate_by_the_start_of_its_name() -> None:
    parts = grouped([module("layer10", op("mul", 1))], frozenset({"layer1"}))
    assert [part.kind for part in parts] == ["pointwise"]
    parts = grouped([module("fc", op("linear", 1))], frozenset({""}))
    assert [part.kind for part in parts] == ["gate"]  # the whole network is a gate


def test_eager_on_a_gpu_counts_the_gpus_time() -> None:
    kernel = Event("sm90_xmma_fprop_implicit_gemm", 0, [], 80.0, DeviceType.CUDA)
    events = [module("conv", op("conv2d", 50, gpu=80)), kernel]
    assert grouped(events) == (Part("conv", "convolution", 80e-6, 1),)


def test_kernels_of_a_gpu_without_modules() -> None:
    launch = Event("cudaGraphLaunch", 500.0)
    names = ["triton_poi_fused_add_relu_0", "triton_per_fused_mean_1", "void cutlass::Kernel<gemm>"]
    names += ["cudnn::ops::nchwToNhwcKernel", "sm90_xmma_fprop_implicit_gemm", "triton_poi_fused"]
    kernels = [Event(name, 0, [], 10.0, DeviceType.CUDA) for name in [*names, names[0]]]
    found = {
        part.path: (part.kind, round(part.seconds * 1e6)) for part in grouped([launch, *kernels])
    }
    assert list(found.values()) == [
        ("pointwise", 20),
        ("reduction", 10),
        ("matrix product", 10),
        ("data movement", 10),
        ("convolution", 10),
        ("pointwise", 10),
    ]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::conv2d", "convolution"),
        ("mkldnn::_convolution_pointwise", "convolution"),
        ("mkl::_mkl_linear", "matrix product"),
        ("mkldnn::_linear_pointwise", "matrix product"),
        ("aten::addmm", "matrix product"),
        ("aten::batch_norm", "norm"),
        ("aten::layer_norm", "norm"),
        ("aten::max_pool2d", "pool"),
        ("aten::adaptive_avg_pool2d", "pool"),
        ("aten::relu_", "pointwise"),
        ("aten::add_", "pointwise"),
        ("aten::hardtanh_", "pointwise"),
        ("aten::cat", "data movement"),
        ("aten::_to_copy", "data movement"),
        ("aten::scaled_dot_product_attention", "attention"),
        ("aten::nonzero", "other"),
        ("graph_0_cpp_fused_mean_1", "reduction"),
        ("graph_12_cpp_fused_add_mul_relu_sigmoid_4", "pointwise"),
        ("cpp_fused_addmm_relu_3", "matrix product"),
        ("cpp_fused_addmm_mean_view_2", "reduction"),
        ("cpp_fused_max_pool2d_with_indices_relu_2", "reduction"),
        ("cpp_fused_0", "pointwise"),
        ("triton_tem_fused_convolution_5", "matrix product"),
        ("triton_red_fused_add_3", "reduction"),
    ],
)
def test_kinds(name: str, kind: str) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Memcpy DtoD (Device -> Device)", "data movement"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::AddF>", "pointwise"),
        ("void at::native::reduce_kernel<512, 1>", "reduction"),
        ("ampere_bf16_s16816gemm_bf16_128x64", "matrix product"),
        ("void cudnn::winograd_nonfused::winogradForwardData4x4", "convolution"),
        ("void cudnn::bn_fw_inf_1C11_kernel_NCHW", "norm"),
        ("pytorch_flash::flash_fwd_kernel", "attention"),
        ("triton_per_fused_mean_1", "reduction"),
        ("somebodys_kernel", "other"),
    ],
)
def test_kinds_of_kernels_on_a_gpu(name: str, kind: str) -> None:
    assert kind_of(name, on_gpu=True) == kind


# What runs


class Slow(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.profile_test.slow_conv(x)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def slow_operation() -> Any:
    """An operation that takes at least 20 ms, called a convolution."""
    library = torch.library.Library("profile_test", "DEF")  # type: ignore[no-untyped-call]

    def slow(x: Tensor) -> Tensor:
        time.sleep(0.02)
        return x.clone()

    library.define("slow_conv(Tensor x) -> Tensor")  # type: ignore[no-untyped-call]
    library.impl("slow_conv", slow, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
    return library


def test_time_is_found_where_it_is_spent(slow_operation: object) -> None:
    network = nn.Sequential(nn.ReLU(), Slow(), nn.Sequential(nn.ReLU(), Slow()))
    result = profile(
        BenchmarkCase("slow", network, (3, 4, 4)), Settings(batch=1, rounds=3, warmup=0)
    )
    by = {(part.path, part.kind): part for part in result.parts}
    for path in ("1", "2.1"):
        # A sleep is never shorter than it was asked to be.
        assert by[path, "convolution"].seconds >= 0.02
        assert by[path, "convolution"].calls == 1
    assert by["0", "pointwise"].seconds < 0.02
    assert result.seconds >= 0.04
    assert next(iter(result.kinds())) == "convolution"
    assert sum(map(result.share, result.kinds().values())) == pytest.approx(1)


def test_every_layer_of_a_network_is_there() -> None:
    model = create("se_resnet20", seed=0)
    result = profile(BenchmarkCase("se_resnet20", model, (3, 32, 32)), ONCE)
    paths = {
        kind: {part.path for part in result.parts if part.kind == kind}
        for kind in ("convolution", "norm", "gate", "matrix product")
    }

    def named(*kinds: type[nn.Module]) -> set[str]:
        return {name for name, child in model.named_modules() if isinstance(child, kinds)}

    assert paths["convolution"] == named(nn.Conv2d)
    assert paths["norm"] == named(nn.BatchNorm2d)
    assert paths["matrix product"] == {"fc"}
    # Nine gates with two linear layers each, which are no matrix products of their own here.
    assert {path.removesuffix(".fc1").removesuffix(".fc2") for path in paths["gate"]} == {
        f"layer{stage}.{block}.slots.standard" for stage in (1, 2, 3) for block in (0, 1, 2)
    }
    # By block: the sum, and two activations.
    blocks = {part.path: part for part in result.layers() if part.kind == "pointwise"}
    assert blocks["layer1.0"].calls == 3
    # The plain twin spends nothing in gates.
    plain = profile(BenchmarkCase("resnet20", create("resnet20", seed=0), (3, 32, 32)), ONCE)
    assert "gate" not in plain.kinds()


def test_module_is_not_changed() -> None:
    model = create("se_resnet20", seed=0)
    profile(BenchmarkCase("se_resnet20", model, (3, 32, 32)), ONCE)
    assert model.training
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL.values())
def test_no_operation_of_a_family_is_unknown(name: str) -> None:
    model = reduced(name).build(seed=0)
    side = model.input_size
    result = profile(BenchmarkCase(name, model, (model.in_chans, side, side)), ONCE)
    assert [part for part in result.parts if part.kind == "other"] == []


@pytest.mark.parametrize(
    ("spec", "gates"),
    [
        *(("timm:seresnet18", 8), ("timm:legacy_seresnet18", 8), ("timm:ecaresnet26t", 8)),
        *(("timm:efficientnet_b0", 16), ("timm:resnet18", 0), ("torchvision:resnet18", 0)),
        *(("torchvision:efficientnet_b0", 16), ("torchvision:mobilenet_v3_small", 9)),
        *(("pytorchcv:seresnet18", 8), ("pytorchcv:cbam_resnet18", 8), ("pytorchcv:resnet18", 0)),
    ],
)
def test_gates_of_other_libraries(spec: str, gates: int) -> None:
    network = peer(spec, 10, (3, 224, 224))
    assert sum(map(is_gate, network.modules())) == gates


def test_gates_put_into_other_libraries_networks() -> None:
    network = peer("torchvision:resnet18", 10, (3, 32, 32))
    attach(network, SE() | ECA().at("pre"))
    assert sum(map(is_gate, network.modules())) == 16
    kinds = profile(BenchmarkCase("resnet18", network, (3, 32, 32)), ONCE).kinds()
    # An SE has a mean, two linear layers, two activations, two unsqueezes and a product.
    assert kinds["gate"].calls >= 8 * 6 + 8 * 4


class Small(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 5),
        )


def test_kernels_of_inductor() -> None:
    result = profile(BenchmarkCase("small", Small(), (3, 16, 16), Backend("inductor")), TWO)
    kinds = result.kinds()
    # Frozen: norms are folded into the convolutions, activations fused into them.
    assert kinds["convolution"].calls == 2
    assert kinds["matrix product"].calls == 1
    assert kinds["reduction"].calls >= 1
    assert not {"norm", "gate", "other"} & set(kinds)
    assert not any("batch_norm" in part.path for part in result.parts)
    lines = profile_text(result).splitlines()
    assert lines[0].startswith("small (inductor, fp32), batch 2 of 16 px: ")
    assert any(re.match(r"mkldnn::_convolution_pointwise +convolution", line) for line in lines)


def test_nodes_of_openvino() -> None:
    pytest.importorskip("openvino")
    result = profile(BenchmarkCase("small", Small(), (3, 16, 16), Backend("openvino")), TWO)
    kinds = result.kinds()
    assert kinds["convolution"].calls == 2
    assert kinds["matrix product"].calls == 1
    assert kinds["pool"].calls == 1
    assert not {"norm", "gate", "pointwise", "other"} & set(kinds)
    assert profile_text(result).startswith("small (openvino, fp32), batch 2 of 16 px: ")


@pytest.mark.parametrize(("dtype", "instead"), [("fp32", "eager"), ("int8", "openvino")])
def test_engines_without_a_profile(dtype: Dtype, instead: str) -> None:
    backend = Backend("onnxruntime", dtype)
    assert message(
        lambda: profile(BenchmarkCase("small", Small(), (3, 16, 16), backend), ONCE), ConfigError
    ) == (
        "onnxruntime can't be profiled.\n"
        "Profiles exist for eager, inductor, openvino.\n"
        f"Type: --profile --engine {instead}"
    )


# What is said of it


def _table(lines: Sequence[str]) -> list[list[str]]:
    return [re.split(r"\s{2,}", line.strip()) for line in lines]


def test_text() -> None:
    parts = (
        Part("conv1", "convolution", 0.006, 1),
        Part("layer1.0.conv1", "convolution", 0.002, 1),
        Part("layer1.0.se", "gate", 0.001, 5),
        Part("", "data movement", 0.001, 1),
    )
    case = BenchmarkCase("net", nn.Identity(), (3, 8, 8))
    result = Profile(case, 4, parts, 0.0005)
    text = profile_text(result).splitlines()
    assert text[0] == "net (eager, fp32), batch 4 of 8 px: 10.000 ms in operations"
    assert _table(text[1:5]) == [
        ["kind", "ms", "share", "calls"],
        ["convolution", "8.000", "80.0%", "2"],
        ["gate", "1.000", "10.0%", "5"],
        ["data movement", "1.000", "10.0%", "1"],
    ]
    assert text[5:7] == ["", "ms by layer"]
    assert _table(text[7:11]) == [
        ["layer", "convolution", "gate", "data movement", "share"],
        ["conv1", "6.000", "60.0%"],
        ["layer1.0", "2.000", "1.000", "30.0%"],
        ["(the network itself)", "1.000", "10.0%"],
    ]
    assert text[11:] == [
        "0.500 ms of a pass under the profiler were outside of operations: in Python "
        "and the profiler itself."
    ]


def test_command() -> None:
    arguments = ["--model", "se_resnet20", "--batch", "1", "--profile", "--json"]
    arguments += ["--rounds", "2", "--warmup", "0", "--threads", "1"]
    result = CliRunner().invoke(bench, arguments)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert len(report["speed"]) == 1
    (found,) = report["profile"]
    assert list(found) == [
        *("model", "engine", "dtype", "streams", "optimized", "image", "batch"),
        *("operations_ms", "outside_ms", "kinds", "layers"),
    ]
    for rows in (found["kinds"], found["layers"]):
        assert sum(row["ms"] for row in rows) == pytest.approx(found["operations_ms"])
        assert sum(row["share"] for row in rows) == pytest.approx(1)
    assert list(found["kinds"][0]) == ["kind", "ms", "share", "calls"]
    assert list(found["layers"][0]) == ["path", "kind", "ms", "share", "calls"]
    assert "layer1.0.slots.standard.fc1" in {row["path"] for row in found["layers"]}
