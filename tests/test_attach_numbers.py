"""A stage and a block have the same numbers in a network of another library as in ours.

So ``se8/s3-4`` means the same in both.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterable

import pytest
import torch

from senetzoo import NONE, site_map
from senetzoo.nn.slots import Site
from senetzoo.policies.foreign.places import complete
from senetzoo.zoo import config

# Our name, and the library with its name for the network.
PAIRS = (
    ("alexnet", "torchvision alexnet"),
    ("vgg16", "torchvision vgg16"),
    ("vgg16_bn", "timm vgg16_bn"),
    ("googlenet_bn", "torchvision googlenet"),
    ("inception_v3", "torchvision inception_v3"),
    ("inception_v3", "timm inception_v3"),
    ("inception_v4", "timm inception_v4"),
    ("inception_resnet_v2", "timm inception_resnet_v2"),
    ("densenet121", "torchvision densenet121"),
    ("densenet121", "timm densenet121"),
    ("resnet50", "torchvision resnet50"),
    ("resnet50", "timm resnet50"),
    ("resnext50_32x4d", "torchvision resnext50_32x4d"),
    ("wide_resnet50_2", "torchvision wide_resnet50_2"),
    ("resnet20", "pytorchcv resnet20_cifar10"),
    ("preresnet50", "timm resnetv2_50"),
    ("senet154", "timm legacy_senet154"),
    ("mobilenet_v1", "timm mobilenetv1_100"),
    ("efficientnet_b0", "torchvision efficientnet_b0"),
    ("efficientnet_b0", "timm efficientnet_b0"),
    ("swin_t", "torchvision swin_t"),
    ("swin_t", "timm swin_tiny_patch4_window7_224"),
)
# Sites that only one of the two has.
FEWER = {
    "inception_resnet_v2": {"pre", "identity", "inner"},
    "densenet121": {"post"},
    "preresnet50": {"identity"},
    "swin_t": {"post", "identity", "inner"},
}


def foreign(name: str) -> torch.nn.Module:
    library, network = name.split()
    if library == "timm":
        model: torch.nn.Module = importlib.import_module("timm").create_model(network)
    elif library == "pytorchcv":
        model = importlib.import_module("pytorchcv.model_provider").get_model(network)
    else:
        option = {"init_weights": False} if network in ("googlenet", "inception_v3") else {}
        model = importlib.import_module("torchvision.models").get_model(network, **option)
    return model


def numbered(sites: Iterable[Site]) -> Counter[tuple[str, str, int, int, int]]:
    return Counter((s.position, s.branch, s.stage, s.block, s.channels) for s in sites)


# These have the same blocks as another pair.
AGAIN = ("timm vgg16_bn", "torchvision wide_resnet50_2", "torchvision resnext50_32x4d")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [pytest.param(*pair, marks=[pytest.mark.slow] * (pair[1] in AGAIN)) for pair in PAIRS],
)
def test_stages_and_blocks_have_our_numbers(ours: str, theirs: str) -> None:
    with torch.device("meta"):
        model = foreign(theirs)
        own = numbered(config(ours).replace(policy=NONE).build(seed=0).sites())
    offered = numbered(complete(site_map(model), model).sites())
    assert offered <= own
    assert {position for position, *_ in own - offered} == FEWER.get(ours, set())
