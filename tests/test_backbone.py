"""Backbones against the network, its strided variant, and libraries that use the maps."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import pytest
import torch
from support.networks import reduced, tiny
from torch import Tensor, fx, nn

from senetzoo import NONE, SE, Backbone, attach, config, create
from senetzoo.errors import ConfigError
from senetzoo.nn.classifier import Classifier

# One network for each way in which families run their children.
KINDS = [
    "lenet",
    "vgg11",
    "googlenet_bn",
    "resnet20",
    "densenet40_12",
    "mobilenet_v3_small",
    "swin_t",
    "convnext_tiny",
    "shufflenet_v2_x0_5",
    "skresnet18",
    "xception",
]


@pytest.mark.parametrize("name", KINDS)
def test_a_backbone_is_a_part_of_the_network(name: str) -> None:
    network = reduced(name).replace(stem="cifar").merged("se4@pre+eca").build(seed=0).eval()
    x = torch.randn(1, network.in_chans, 32, 32)
    index = len(network.feature_info) - 2
    backbone = Backbone(network, out_indices=(index,)).eval()
    with torch.no_grad():
        expected = network.feature_maps(x)[index]
        traced = fx.symbolic_trace(backbone)
        for one in (
            backbone,
            copy.deepcopy(backbone),
            pickle.loads(pickle.dumps(backbone)),
            traced,
        ):
            assert torch.equal(one(x)[0], expected)
    assert backbone.feature_info.channels() == [expected.shape[1]]
    whole, part = network.state_dict(), backbone.state_dict()
    assert all(torch.equal(whole[key], value) for key, value in part.items())
    # All of its modules run, because DDP waits for the gradient of every parameter.
    backbone.train()(x.repeat(2, 1, 1, 1))[0].sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_every_map_and_the_trunk() -> None:
    network = create("se_resnet18", seed=0)
    backbone = Backbone(network)
    trunk = [key for key in network.state_dict() if not key.startswith("fc.")]
    assert list(backbone.state_dict()) == trunk
    assert Backbone(network, out_indices=(-1, 1)).out_indices == (1, 3)
    assert backbone.feature_info.reduction() == [4, 8, 16, 32]
    other = create("se_resnet18", seed=1)
    assert not other.load_state_dict(backbone.state_dict(), strict=False).unexpected_keys
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(other.eval().feature_maps(x)[3], backbone.eval()(x)[3])


@pytest.mark.parametrize("name", ["resnet18", "preresnet50", "skresnet18", "regnet_y_400mf"])
def test_a_dilated_backbone_has_the_strided_one_in_every_second_pixel(name: str) -> None:
    shallow = {} if name.startswith("regnet") else {"depths": (1, 1, 2, 2)}
    network = config(name).replace(policy=NONE, **shallow).build(seed=0).double().eval()
    x = torch.randn(1, 3, 65, 97).double()
    with torch.no_grad():
        for key, parameter in network.named_parameters():
            if "fc_select" in key:  # SKNet's selection depends on the mean over the map.
                parameter.zero_()
        strided = network.feature_maps(x)
        for stride in (8, 16):
            backbone = Backbone(network, output_stride=stride).eval()
            for info, own, theirs, found in zip(
                network.feature_info, backbone.feature_info, strided, backbone(x), strict=True
            ):
                step = info.stride // own.stride
                assert own.stride == min(info.stride, stride)
                assert torch.allclose(found[:, :, ::step, ::step], theirs, rtol=1e-9, atol=1e-12)
        assert torch.equal(network.feature_maps(x)[3], strided[3])


def test_a_dilated_backbone_is_torchvisions() -> None:
    from torchvision.models.resnet import Bottleneck, ResNet

    network = config("resnet50").replace(depths=(1, 1, 2, 2)).build(seed=0).eval()
    dilated = [False, True, True]
    theirs = ResNet(Bottleneck, [1, 1, 2, 2], replace_stride_with_dilation=dilated).eval()
    theirs.load_state_dict(network.state_dict())
    theirs.avgpool, theirs.fc = nn.Identity(), nn.Identity()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        (found,) = Backbone(network, out_indices=(3,), output_stride=8).eval()(x)
        assert torch.allclose(theirs(x), found.flatten(1), rtol=1e-4, atol=1e-4)


def test_a_frozen_stage_stays_as_it_is() -> None:
    backbone = Backbone(attach_to(tiny(depths=(1, 1, 1))))
    backbone.freeze(2)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=0.1)
    backbone.train()
    sum(m.sum() for m in backbone(torch.randn(4, 3, 16, 16))).backward()
    optimizer.step()
    changed = {key for key, value in backbone.state_dict().items() if not value.equal(before[key])}
    assert {key.split(".")[0] for key in changed} == {"layer3"}
    backbone.freeze(0)
    assert all(p.requires_grad for p in backbone.parameters())
    assert all(module.training for module in backbone.modules())


def attach_to(network: Classifier) -> Classifier:
    attach(network, SE(4), seed=0)
    return network


def test_recomputed_maps_have_the_same_gradients() -> None:
    x = torch.randn(2, 3, 32, 32)
    kept, recomputed = (tiny(depths=(1, 2), drop_path=0.5).train() for _ in range(2))
    recomputed.load_state_dict(kept.state_dict())
    recomputed.set_grad_checkpointing()
    for network in (kept, recomputed):
        torch.manual_seed(0)
        network(x).square().sum().backward()
    ours, theirs = dict(kept.named_parameters()), dict(recomputed.named_parameters())
    for key, parameter in ours.items():
        assert parameter.grad is not None
        other = theirs[key].grad
        assert other is not None
        assert torch.allclose(parameter.grad, other, rtol=1e-4, atol=1e-6), key
    for key, value in kept.state_dict().items():
        assert torch.equal(recomputed.state_dict()[key], value), key


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Non-maximum suppression, one box after another."""
    from torchvision.ops import box_iou

    kept: list[int] = []
    for index in scores.argsort(descending=True).tolist():
        if not kept or bool((box_iou(boxes[[index]], boxes[kept]) <= iou_threshold).all()):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


def test_faster_rcnn_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.ops import boxes, poolers
    from torchvision.ops.roi_align import _roi_align

    # torchvision's compiled operators may be missing where the tests run.
    monkeypatch.setattr(boxes, "nms", _nms)
    monkeypatch.setattr(
        poolers,
        "roi_align",
        lambda x, rois, output_size, spatial_scale, sampling_ratio: (
            _roi_align.__wrapped__(
                x, rois, spatial_scale, output_size[0], output_size[1], sampling_ratio, False
            )
            if hasattr(_roi_align, "__wrapped__")
            else _roi_align(x, rois, spatial_scale, *output_size, sampling_ratio, False)
        ),
    )
    torch.manual_seed(0)
    backbone = Backbone(attach_to(tiny(depths=(1, 1, 1))), out_indices=(1, 2))
    layers = {"layer2": "0", "layer3": "1"}
    detector = FasterRCNN(
        BackboneWithFPN(backbone, layers, backbone.feature_info.channels(), 8),
        num_classes=2,
        rpn_anchor_generator=AnchorGenerator(((8,), (16,), (24,)), ((1.0,),) * 3),
        min_size=32,
        max_size=32,
        box_detections_per_img=3,
    )
    images = [torch.rand(3, 32, 32) for _ in range(2)]
    targets = [
        {"boxes": torch.tensor([[4.0, 4.0, 20.0, 20.0]]), "labels": torch.tensor([1])}
        for _ in images
    ]
    optimizer = torch.optim.SGD(detector.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(5):
        loss: Tensor = torch.stack([*detector(images, targets).values()]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.grad is not None for p in backbone.parameters())
    (found, _) = detector.eval()(images)
    assert found["boxes"].shape[1] == 4


@pytest.mark.parametrize("name", KINDS)
def test_a_feature_extractor_returns_what_a_gate_does(name: str) -> None:
    from torchvision.models.feature_extraction import create_feature_extractor

    network = reduced(name).replace(stem="cifar").merged("se4@pre").build(seed=0).eval()
    site = network.sites()[0]
    x = torch.randn(1, network.in_chans, 32, 32)
    extractor = create_feature_extractor(network, [site.path], suppress_diff_warning=True)
    (found,) = extractor(x).values()
    assert found.shape[1 if site.layout == "nchw" else 3] == site.channels


def test_feature_extractors_of_torchvision() -> None:
    from torchvision.models.feature_extraction import create_feature_extractor

    network = create("se_resnet20", seed=0).eval()
    x = torch.randn(1, 3, 32, 32)
    extractor = create_feature_extractor(network, {"layer2": "a", "layer3.2.slots.standard": "b"})
    found: OrderedDict[str, Tensor] = extractor(x)
    assert torch.equal(found["a"], network.feature_maps(x)[1])
    assert found["b"].shape == (1, 64, 8, 8)


@pytest.mark.parametrize(
    ("indices", "stride", "named", "said"),
    [
        ((2, 0, 2), None, "resnet18", "Backbone got out_indices=(2, 0, 2).\n"),
        ((4,), None, "resnet18",
         "The network has 4 maps, one after each stage: 0 to 3, or negative from the end, each "
         "once.\n"
         "Type for example: out_indices=(1, 2, 3)"),
        ((), None, "resnet18", "Backbone got out_indices=()."),
        (2, None, "resnet18", "Backbone got out_indices=2."),
        (None, 12, "resnet18", "The strides of its maps are 4, 8, 16, 32."),
        (None, 8, "vgg11", "A MaxPool2d downsamples its maps and can't be dilated."),
        (None, 8, "inception_v3", "A MaxPool2d downsamples its maps and can't be dilated."),
        (None, 8, "convnext_tiny",
         "A Conv2d with an even kernel downsamples its maps and can't be dilated."),
        (None, 8, "swin_t", "A PatchMerging downsamples its maps and can't be dilated."),
    ],
)  # fmt: skip
def test_what_is_refused(indices: object, stride: int | None, named: str, said: str) -> None:
    with torch.device("meta"):
        network = create(named, seed=0)
    with pytest.raises(ConfigError) as caught:
        Backbone(network, indices, stride)  # type: ignore[arg-type]
    assert said in str(caught.value)


def test_what_has_no_maps_and_no_stages() -> None:
    with pytest.raises(ConfigError, match="Backbone got a Linear"):
        Backbone(nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="The backbone has 2 stages"):
        Backbone(tiny()).freeze(3)
    with pytest.raises(ConfigError, match="Type for example: Backbone\\(create"):
        create("resnet18", features_only=True)  # type: ignore[call-arg]
