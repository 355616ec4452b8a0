"""torch.hub's door: every network of the registry as an entry point.

    torch.hub.load("owner/senetzoo", "se_resnet50", num_classes=10, stem="cifar")

Arguments are those of `senetzoo.create`.
"""

# torch.hub lists every callable without an underscore as an entry point.
from typing import Any as _Any

import senetzoo
from senetzoo.nn.classifier import Classifier as _Classifier

dependencies = ["torch", "torchvision", "huggingface_hub", "safetensors", "click"]


def _entry_point(name: str) -> _Any:
    def make(**options: _Any) -> _Classifier:
        return senetzoo.create(name, **options)

    spec = senetzoo.config(name)
    config, size = spec.config, spec.config.input_size
    make.__name__ = make.__qualname__ = name
    make.__doc__ = (
        f"{name}: {config.num_classes} classes, {config.in_chans}x{size}x{size} images, "
        f"gates: {spec.policy}.\n\n"
        "Options: those of senetzoo.create, such as pretrained and policy."
    )
    return make


globals().update({name: _entry_point(name) for name in senetzoo.list_models()})
