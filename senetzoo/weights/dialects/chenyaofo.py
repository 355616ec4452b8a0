"""chenyaofo/pytorch-cifar-models: the ResNets for CIFAR, whose names are torchvision's.

Its VGGs have hidden layers of 512 units on a map of one pixel, and its MobileNets are v2: neither
is a network of this zoo.
"""

from __future__ import annotations

from senetzoo.weights.dialects.base import Counterpart, Dialect, same

NETWORKS = {
    f"cifar{classes}_resnet{depth}": Counterpart(
        f"resnet{depth}", {} if classes == 10 else {"num_classes": classes}
    )
    for classes in (10, 100)
    for depth in (20, 32, 44, 56)
}

DIALECT = Dialect(networks=NETWORKS, families={"ResNet": same})
