"""ResNet-18 with the CIFAR stem on CIFAR-10: SGD, cosine annealing, rotation, crop, mirror.

Source: a report of 93 % on the test images and 99 % on those of training.

    senetzoo train cifar10_resnet --data CIFAR10

Chosen here, as the source does not say: 100 epochs, learning rate 0.1, rotations of up to 15
degrees. Hardware: one GPU, about 20 minutes in bf16. To expect: 94 to 95 %. Not measured here.
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipe import Recipe

CIFAR10_RESNET = Experiment(
    Recipe(
        name="cifar10_resnet",
        model="resnet18",
        stem="cifar",
        data="cifar10",
        phases=((32, 100),),
        lr=0.1,
        weight_decay=5e-4,
        warmup=0.0,
        schedule="cosine",
        rotation=15.0,
    ),
    quick={"images_per_class": 2, "batch": 10},
)
