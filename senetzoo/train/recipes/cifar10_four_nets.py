"""Four networks on CIFAR-10, and the two that tell apart what their comparison mixes.

Source: a student's comparison of LeNet, ResNet-18 and DenseNet-121 with ImageNet stems, and
SE-ResNet-18 with a CIFAR stem: 61, 73, 76 and 81 % after 10 epochs of SGD. It changed two things at
once, the gates and the stem; so resnet18 with the CIFAR stem and se_resnet18 with the ImageNet stem
are run as well.

    senetzoo train cifar10_four_nets --data CIFAR10

What the source does not say is chosen here: momentum 0.9, learning rate 0.01, weight decay 5e-4,
batches of 128, crop and mirror. Hardware: one GPU, about a quarter of an hour for all six; days on
two cores. To expect: the source's figures, within a few points. Measured for lenet and
resnet18_imagenet, one seed each: 64.6 and 76.4 % (docs/training.md).
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipe import Recipe

CIFAR10_FOUR_NETS = Experiment(
    Recipe(
        name="cifar10_four_nets",
        model="resnet18",
        data="cifar10",
        phases=((32, 10),),
        lr=0.01,
        warmup=0.0,
        schedule="constant",
    ),
    arms={
        "lenet": {"model": "lenet"},
        "resnet18_imagenet": {"model": "resnet18", "stem": "imagenet"},
        "densenet121_imagenet": {"model": "densenet121", "stem": "imagenet"},
        "se_resnet18_cifar": {"model": "se_resnet18", "stem": "cifar"},
        "resnet18_cifar": {"model": "resnet18", "stem": "cifar"},
        "se_resnet18_imagenet": {"model": "se_resnet18", "stem": "imagenet"},
    },
    quick={"images_per_class": 2, "batch": 10},
)
