"""Classify operations, kernels and modules by name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

from torch import nn

from senetzoo.gates.common import GateModule

Kind: TypeAlias = Literal[
    "convolution",
    "matrix product",
    "norm",
    "gate",
    "pool",
    "reduction",
    "pointwise",
    "attention",
    "data movement",
    "other",
]

# Class names of other libraries' gates. Ours share a base class.
_GATES = {
    "timm": frozenset(
        {
            *("SEModule", "SqueezeExcite", "EffectiveSEModule", "SqueezeExciteCl", "EcaModule"),
            *("CecaModule", "CbamModule", "LightCbamModule", "GatherExcite", "CoordAttn"),
            *("SimpleCoordAttn", "BottleneckAttn", "GlobalContext", "EseModule"),
            *("EfficientLocalAttn", "StripAttn", "NonLocalAttn", "BatNonLocalAttn"),
        }
    ),
    "torchvision": frozenset({"SqueezeExcitation"}),
    "pytorchcv": frozenset({"SEBlock", "CbamBlock", "BamBlock"}),
}
# For names without namespace and in-place underscore; the first match counts.
_OPERATIONS: tuple[tuple[Kind, str], ...] = (
    ("attention", r"attention"),
    ("convolution", r"conv"),
    ("norm", r"norm"),
    ("matrix product", r"^(add|baddb|b)?mm$|^mv$|^(linear|matmul|einsum|bilinear)|_linear"),
    ("pool", r"pool|^mean$|^amax$|^sum$"),
    (
        "data movement",
        r"^(cat|stack|copy|clone|contiguous|to|pad|constant_pad.*|roll|permute|transpose|t|"
        r"reshape|view|flatten|unflatten|expand|expand_as|chunk|split|narrow|slice|select|index|"
        r"squeeze|unsqueeze|_to_copy|empty.*|resize|as_strided|unbind|lift_fresh|detach|alias|"
        r"set|_unsafe_view|resolve_.*|zeros|ones|full|arange|new_.*)$",
    ),
    (
        "pointwise",
        r"^(relu|relu6|add|sub|rsub|mul|div|sigmoid|silu|gelu|tanh|elu|leaky_relu|hardtanh|"
        r"hardsigmoid|hardswish|clamp.*|softmax|exp|pow|sqrt|rsqrt|neg|abs|dropout|mish|erf|"
        r"addcmul|addcdiv|where|maximum|minimum|threshold|prelu|square|reciprocal|log|"
        r"ne|eq|[gl][te]|masked_fill)$",
    ),
)
# For fused kernels, whose names list their operations, and for libraries' kernels on a GPU. A
# reduction's name may also have that of a product, which it continues, so reductions come first.
_FUSED: tuple[tuple[Kind, str], ...] = (
    (
        "reduction",
        r"triton_(red|per)_|(^|_)(mean|sum|amax|max_pool\w*|avg_pool\w*|softmax|var|var_mean|"
        r"layer_norm|max|min|prod)(_|$)",
    ),
    ("matrix product", r"triton_tem_|(^|_)(addmm|bmm|mm|linear|gemm)(_|$)"),
    ("pointwise", r""),
)
_LIBRARY: tuple[tuple[Kind, str], ...] = (
    ("convolution", r"conv|fprop|implicit_gemm|winograd"),
    ("attention", r"flash|fmha|attention"),
    ("matrix product", r"gemm|cutlass|cublas|gemv"),
    ("norm", r"batch_norm|layer_norm|bn_fw"),
    ("data movement", r"memcpy|memset|copy|nchwtonhwc|nhwctonchw|transpose|\bcat"),
    ("reduction", r"reduce|pool|softmax"),
    ("pointwise", r"elementwise|pointwise"),
)
# For nodes of OpenVINO's graph.
_NODES: tuple[tuple[Kind, str], ...] = (
    ("convolution", r"convolution"),
    ("matrix product", r"fullyconnected|matmul"),
    ("pool", r"pool|reduce"),
    ("data movement", r"reorder|convert|reshape|transpose|concat|split|slice|pad|broadcast|gather"),
    ("pointwise", r"eltwise|subgraph|fakequantize|math|softmax"),
)
_FUSED_NAME = re.compile(r"^(graph_\d+_)?(cpp|triton)_")
_OPERATION_NAME = re.compile(r"^\w+::\w+")


def is_operation(name: str) -> bool:
    """Whether a profiler event is an operation (``aten::conv2d``) or a kernel of inductor."""
    return bool(_FUSED_NAME.match(name) or _OPERATION_NAME.match(name))


def kind_of(name: str, *, on_gpu: bool = False) -> Kind:
    """The kind of an operation or inductor kernel by its name; with `on_gpu`, of any kernel."""
    if _FUSED_NAME.match(name):
        return _first(_FUSED, plain(name))
    if on_gpu:
        return _first(_LIBRARY, name.lower())
    return _first(_OPERATIONS, name.partition("::")[2].rstrip("_"))


def kind_of_node(node_type: str) -> Kind:
    """The kind of a node of OpenVINO's graph, by its type."""
    return _first(_NODES, node_type.lower())


def _first(table: Sequence[tuple[Kind, str]], name: str) -> Kind:
    return next((kind for kind, pattern in table if re.search(pattern, name)), "other")


def plain(name: str) -> str:
    """Name of a kernel without the number of the compiled graph that it belongs to."""
    return re.sub(r"^graph_\d+_", "", name)


def is_gate(module: nn.Module) -> bool:
    """Whether a module is a gate of ours, or of timm, torchvision or pytorchcv."""
    cls = type(module)
    return isinstance(module, GateModule) or cls.__name__ in _GATES.get(
        cls.__module__.partition(".")[0], ()
    )
