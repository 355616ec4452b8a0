"""timm's ``legacy_se*``, which are Cadene's ports of the SE authors' Caffe networks.

The files that timm loads are Cadene's own, name for name: ``pretrainedmodels.se_resnet50`` is
``legacy_seresnet50`` here. All pool in ceil mode without padding; the bottlenecks of the SE-ResNets
have the stride on the first 1x1.

``legacy_seresnet18`` and ``34``, which are timm's own, are no networks of this zoo: their basic
blocks have a ReLU before the gate.
"""

from __future__ import annotations

from senetzoo.nn.classifier import Classifier
from senetzoo.weights.dialects.base import (
    Counterpart,
    Dialect,
    has_deep_stem,
    rewritten,
    unless_gate,
)

_CEIL = {"pool": "ceil"}
_CAFFE = {"pool": "ceil", "stride_on": "1x1"}

NETWORKS = {
    "legacy_seresnet50": Counterpart("se_resnet50", _CAFFE),
    "legacy_seresnet101": Counterpart("se_resnet101", _CAFFE),
    "legacy_seresnet152": Counterpart("se_resnet152", _CAFFE),
    "legacy_seresnext26_32x4d": Counterpart(
        "se_resnext50_32x4d", {"depths": (2, 2, 2, 2), **_CEIL}
    ),
    "legacy_seresnext50_32x4d": Counterpart("se_resnext50_32x4d", _CEIL),
    "legacy_seresnext101_32x4d": Counterpart("se_resnext101_32x4d", _CEIL),
    "legacy_senet154": Counterpart("senet154", _CEIL),
}

# Places of the deep stem's layers in ours.
_STEM = (
    (r"^conv1\.0\.", "layer0.conv1."),
    (r"^conv1\.1\.", "layer0.bn1."),
    (r"^conv1\.3\.", "layer0.conv2."),
    (r"^conv1\.4\.", "layer0.bn2."),
    (r"^conv1\.6\.", "layer0.conv3."),
    (r"^conv1\.weight", "layer0.conv1.weight"),
)


def _resnet(name: str, model: Classifier) -> str | None:
    return unless_gate(
        rewritten(
            name,
            *_STEM,
            (r"^bn1\.", "layer0.bn3." if has_deep_stem(model) else "layer0.bn1."),
            (r"\.slots\.standard\.(fc[12]\.)", r".se_module.\1"),
            (r"^fc\.", "last_linear."),
        )
    )


_GATES = ((r"\.se_module\.fc[12]\.weight", 1),)

DIALECT = Dialect(
    networks=NETWORKS,
    families={"ResNet": _resnet, "SENet": _resnet},
    convolutions={"ResNet": _GATES, "SENet": _GATES},
)
