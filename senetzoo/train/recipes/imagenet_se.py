"""ResNet-50 and SE-ResNet-50 by the SE paper's schedule.

Hu et al. 2017/2019 (arXiv:1709.01507), Section 5.1: 100 epochs of SGD with momentum 0.9, batches of
1024, the learning rate 0.6 divided by 10 every 30 epochs, random crops of 224 pixels and mirror;
tested on the centre crop of 224 of 256. Weight decay (1e-4) is that of the networks the paper
builds on; it does not state one.

    accelerate launch -m senetzoo.cli train imagenet_se --data IMAGENET --set precision=bf16

Hardware: the paper's was a server of 8 GPUs. Published: 75.20 % for resnet50 and 76.71 % for
se_resnet50 (Table 2). Not measured here: a run of two steps on random images says that it works.
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipe import Recipe

IMAGENET_SE = Experiment(
    Recipe(
        name="imagenet_se",
        model="resnet50",
        data="folder",
        phases=((224, 100),),
        batch=1024,
        lr=0.6,
        weight_decay=1e-4,
        warmup=0.0,
        schedule="step",
        step_epochs=(30, 60, 90),
    ),
    arms={"resnet50": {"model": "resnet50"}, "se_resnet50": {"model": "se_resnet50"}},
    quick={"phases": ((64, 1),), "images_per_class": 8, "batch": 8},
)
