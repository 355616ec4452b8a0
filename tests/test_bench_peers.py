from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from support.networks import message
from torch import nn

from senetzoo.bench import peers
from senetzoo.bench.candidates import candidates
from senetzoo.bench.peers import Image, peer
from senetzoo.bench.timing import Backend
from senetzoo.cli.bench import command as bench
from senetzoo.errors import ConfigError, MissingExtraError

SMALL = (7, (3, 64, 64))
QUICK = ("--rounds", "2", "--warmup", "0", "--threads", "1")


@pytest.mark.parametrize(
    ("spec", "cls"),
    [
        ("timm:seresnet18", "timm.models.resnet.ResNet"),
        ("timm:resnet18.a1_in1k", "timm.models.resnet.ResNet"),
        # Built for its size, which it would refuse otherwise.
        ("timm:vit_tiny_patch16_224", "timm.models.vision_transformer.VisionTransformer"),
        ("torchvision:resnet18", "torchvision.models.resnet.ResNet"),
        ("torchvision:mobilenet_v3_small", "torchvision.models.mobilenetv3.MobileNetV3"),
        ("pytorchcv:seresnet20_cifar10", "pytorchcv.models.seresnet_cifar.CIFARSEResNet"),
    ],
)
def test_peers_are_the_libraries_own(spec: str, cls: str) -> None:
    classes, image = (10, (3, 32, 32)) if "cifar" in spec else SMALL
    state = torch.random.get_rng_state()
    module = peer(spec, classes, image)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert f"{type(module).__module__}.{type(module).__name__}" == cls
    assert not module.training
    with torch.no_grad():
        assert module(torch.zeros(2, *image)).shape == (2, classes)


def test_peers_weights_are_random_but_the_same() -> None:
    one, other = peer("timm:resnet18", *SMALL), peer("timm:resnet18", *SMALL)
    assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize(
    ("spec", "wanted", "text"),
    [
        ("keras:resnet50", SMALL, "There is no peer 'keras:resnet50'.\n"
         "A peer is library:network, with the library one of timm, torchvision, pytorchcv.\n"
         "Type for example: --compare timm:resnet50"),
        ("seresnet50", SMALL, "There is no peer 'seresnet50'.\n"
         "A peer is library:network, with the library one of timm, torchvision, pytorchcv.\n"
         "Type for example: --compare timm:seresnet50"),
        ("tim:resnet50", SMALL, "There is no peer 'tim:resnet50'.\n"
         "A peer is library:network, with the library one of timm, torchvision, pytorchcv.\n"
         "Did you mean 'timm'?"),
        ("torchvision:resnet51", SMALL, "torchvision has no network 'resnet51'.\n"
         "The nearest names are resnet50, resnet18, resnet152.\n"
         "Type for example: --compare torchvision:resnet50"),
        ("torchvision:???", SMALL, "torchvision has no network '???'.\nNo name is similar.\n"
         "Type for example: --compare torchvision:resnet50"),
        ("torchvision:resnet18", (7, (1, 64, 64)),
         "torchvision:resnet18 can't be built with 7 classes for 1 channels.\n"
         "torchvision says: images have 3 channels, not 1\nGive another network"),
        ("torchvision:inception_v3", SMALL,
         "torchvision:inception_v3 fails on images of shape 1x3x64x64.\n"
         "torch says: Calculated padded input size per channel: (2 x 2). "
         "Kernel size: (3 x 3). Kernel size can't be greater than actual input size\n"
         "Give another size or a smaller batch: --size 224 --batch 8"),
        ("pytorchcv:seresnet20_cifar10", SMALL,
         "pytorchcv:seresnet20_cifar10 can't be built with 7 classes for 3 channels.\n"
         "pytorchcv says: AssertionError\nGive another network"),
        ("pytorchcv:simplepose_resnet18_coco", SMALL,
         "pytorchcv:simplepose_resnet18_coco can't be built with 7 classes for 3 channels.\n"
         "pytorchcv says: SimplePose.__init__() got an unexpected keyword argument "
         "'num_classes'\nGive another network"),
    ],
)  # fmt: skip
def test_bad_peers(spec: str, wanted: tuple[int, Image], text: str) -> None:
    assert message(lambda: peer(spec, *wanted), ConfigError) == text


class Maps(nn.Module):
    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def forward(self, x: torch.Tensor) -> Any:
        if self.result is None:
            raise AssertionError("Wrong image height!")
        return self.result(x)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (lambda x: x, "timm:resnet18 can't be compared here.\n"
         "For one image it returns a tensor of shape (1, 3, 64, 64), not 7 logits.\n"
         "Give a classifier"),
        (lambda x: (x, x), "timm:resnet18 can't be compared here.\n"
         "For one image it returns a tuple, not 7 logits.\nGive a classifier"),
        (None, "timm:resnet18 fails on images of shape 1x3x64x64.\n"
         "Its code says: Wrong image height!\n"
         "Give another size or a smaller batch: --size 224 --batch 8"),
    ],
)  # fmt: skip
def test_peers_that_are_no_classifiers(
    result: Any, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    library: peers.Library = (["resnet18"], lambda name, classes, image: Maps(result))
    monkeypatch.setitem(peers.LIBRARIES, "timm", lambda: library)
    assert message(lambda: peer("timm:resnet18", *SMALL), ConfigError) == text


def test_library_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert message(lambda: peer("pytorchcv:seresnet50", *SMALL), MissingExtraError) == (
        "--compare pytorchcv:seresnet50 needs the package 'pytorchcv'.\n"
        "It is not installed.\n"
        "Type: pip install 'senetzoo[peers]'"
    )


def test_peers_are_like_the_first_of_ours() -> None:
    ours, theirs = candidates(["resnet20"], ["timm:resnet18"] * 2, 48, [Backend()])
    assert theirs.image == ours.image == (3, 48, 48)
    # Its head has the ten classes of resnet20: 512 weights and a bias each.
    assert theirs.counts is not None
    assert theirs.counts.params == 11_176_512 + 10 * 513


def test_peers_in_the_command() -> None:
    arguments = (
        "--model",
        "resnet20",
        "--compare",
        "timm:resnet18",
        "--compare",
        "torchvision:resnet18",
    )
    result = CliRunner().invoke(bench, [*arguments, "--batch", "2", "--json", *QUICK])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["options"]["compare"] == ["timm:resnet18", "torchvision:resnet18"]
    assert list(report["environment"]["packages"]) == ["timm", "torchvision"]
    rows = report["speed"][0]["results"]
    assert [row["model"] for row in rows] == ["resnet20", "timm:resnet18", "torchvision:resnet18"]
    # One network in two libraries.
    assert rows[1]["params"] == rows[2]["params"]
    assert rows[1]["macs"] == rows[2]["macs"]
    assert rows[1]["image"] == [3, 32, 32]
    assert rows[1]["throughput_ratio"]["to"]["model"] == "resnet20"


def test_unknown_peer_in_the_command() -> None:
    result = CliRunner().invoke(bench, ["--model", "resnet20", "--compare", "timm:resnt18", *QUICK])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: timm has no network 'resnt18'.\n")
    assert result.stdout == ""
