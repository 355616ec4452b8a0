"""Recipes on ImageNet, for several GPUs: ``--data IMAGENET``, a folder of images per class.

A run of two steps on random images shows that they work; to their end they are not measured here.
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipe import Recipe

_TWINS = {"resnet50": {"model": "resnet50"}, "se_resnet50": {"model": "se_resnet50"}}

IMAGENET_RSB_A3 = Experiment(
    Recipe(
        name="imagenet_rsb_a3",
        model="resnet50",
        data="folder",
        phases=((160, 100),),
        test_size=224,
        test_crop=0.95,
        batch=2048,
        optimizer="lamb",
        lr=8e-3,
        weight_decay=0.02,
        warmup=0.05,
        schedule="cosine",
        loss="bce",  # from its text: every class of a mixed image counts as present
        mixup=0.1,
        cutmix=1.0,
        # torchvision's scale of magnitudes is 30 where the paper's code has 10: 18 for its 6, and
        # without its random spread of magnitudes.
        randaugment=18,
    ),
    variants=_TWINS,
    quick={"phases": ((64, 1),), "test_size": 64, "images_per_class": 8, "batch": 8},
)
"""ResNet-50 by the procedure A3 of "ResNet strikes back", and its SE twin.

Source of all values: Wightman, Touvron, Jegou 2021 (arXiv:2110.00476), Table 2.

    accelerate launch -m senetzoo.cli train imagenet_rsb_a3 --data IMAGENET --set precision=bf16

Hardware: the paper's were 4 V100, 15 hours a run. Published: 78.1 % for resnet50 at 224; timm's
weights of this recipe have 78.05 % for resnet50 and 77.04 % for se_resnet50. Not measured here.
"""

IMAGENET_SE = Experiment(
    Recipe(
        name="imagenet_se",
        model="resnet50",
        data="folder",
        phases=((224, 100),),
        batch=1024,
        lr=0.6,
        weight_decay=1e-4,  # of the networks that the paper builds on; it does not state one
        warmup=0.0,
        schedule="step",
        step_epochs=(30, 60, 90),
    ),
    variants=_TWINS,
    quick={"phases": ((64, 1),), "images_per_class": 8, "batch": 8},
)
"""ResNet-50 and SE-ResNet-50 by the SE paper's schedule.

Source: Hu et al. 2017/2019 (arXiv:1709.01507), Section 5.1: SGD with momentum 0.9, the learning
rate divided by 10 every 30 epochs, random crops of 224 pixels and mirror; tested on the center crop
of 224 of 256.

    accelerate launch -m senetzoo.cli train imagenet_se --data IMAGENET --set precision=bf16

Hardware: the paper's was a server of 8 GPUs. Published: 75.20 % for resnet50 and 76.71 % for
se_resnet50 (Table 2). Not measured here.
"""
