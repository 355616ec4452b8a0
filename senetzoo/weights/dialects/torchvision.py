"""torchvision's names, which are ours but for the gates of the networks that come with SE.

It has 68 networks of our registry. The weights of ``googlenet`` and ``inception_v3`` come with
auxiliary heads, and for them its networks bring an image to a mean and a standard deviation of a
half after its transforms have brought it to ImageNet's (``transform_input``).

chenyaofo/pytorch-cifar-models has torchvision's names for its CIFAR ResNets. Its VGGs have hidden
layers of 512 units on a map of one pixel, and its MobileNets are v2: neither is a network of this
zoo.
"""

from __future__ import annotations

from senetzoo.weights.dialects.base import Counterpart, Dialect, dense_layers

_HALF = (0.5, 0.5, 0.5)

NETWORKS = {
    **{
        name: Counterpart(name)
        for name in (
            "alexnet",
            *(f"vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")),
            *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
            "resnext50_32x4d",
            "resnext101_32x8d",
            "resnext101_64x4d",
            "wide_resnet50_2",
            "wide_resnet101_2",
            *(f"densenet{depth}" for depth in (121, 161, 169, 201)),
            "squeezenet1_0",
            "squeezenet1_1",
            "mobilenet_v2",
            *(f"shufflenet_v2_x{width}" for width in ("0_5", "1_0", "1_5", "2_0")),
            *(f"mnasnet{width}" for width in ("0_5", "0_75", "1_0", "1_3")),
            "mobilenet_v3_large",
            "mobilenet_v3_small",
            *(f"efficientnet_b{number}" for number in range(8)),
            *(f"efficientnet_v2_{size}" for size in "sml"),
            *(
                f"regnet_{letter}_{size}"
                for letter in "xy"
                for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")
            ),
            "swin_t",
            "swin_s",
            "swin_b",
            "convnext_tiny",
            "convnext_small",
        )
    },
    "googlenet": Counterpart("googlenet_bn", mean=_HALF, std=_HALF),
    "inception_v3": Counterpart("inception_v3", mean=_HALF, std=_HALF),
}


# Its SE is a layer of the block, after the depthwise convolution; a block that does not expand has
# a layer less before it: the first stage of EfficientNet, and the first block of MobileNetV3 small.
_EFFICIENTNET = (
    (r"^(features\.1\.\d+)\.slots\.inner\.(fc[12]\.)", r"\1.block.1.\2"),
    (r"^(features\.\d\.\d+)\.slots\.inner\.(fc[12]\.)", r"\1.block.2.\2"),
)
_MOBILENET_V3 = (
    (r"^(features\.1)\.slots\.inner\.(fc[12]\.)", r"\1.block.1.\2"),
    (r"^(features\.\d+)\.slots\.inner\.(fc[12]\.)", r"\1.block.2.\2"),
)
_REGNET = ((r"\.slots\.inner\.(fc[12]\.)", r".f.se.\1"),)
_SE_LAYER = ((r"\.block\.[12]\.fc[12]\.weight", 1),)
DIALECT = Dialect(
    networks=NETWORKS,
    families={
        **dict.fromkeys(("AlexNet", "VGG", "GoogLeNet", "InceptionV3", "ResNet", "DenseNet"), ()),
        "EfficientNet": _EFFICIENTNET,
        **dict.fromkeys(("SqueezeNet", "MobileNetV2", "ShuffleNetV2", "MNASNet"), ()),
        "MobileNetV3": _MOBILENET_V3,
        "RegNet": _REGNET,
        "Swin": (),
        "ConvNeXt": (),
    },
    convolutions={
        "EfficientNet": _SE_LAYER,
        "MobileNetV3": _SE_LAYER,
        "SqueezeNet": ((r"^classifier\.1\.weight", 1),),
        "RegNet": ((r"\.f\.se\.fc[12]\.weight", 1),),
    },
    updates={"DenseNet": dense_layers},
)

CHENYAOFO = Dialect(
    networks={
        f"cifar{classes}_resnet{depth}": Counterpart(
            f"resnet{depth}", {} if classes == 10 else {"num_classes": classes}
        )
        for classes in (10, 100)
        for depth in (20, 32, 44, 56)
    },
    families={"ResNet": ()},
)
