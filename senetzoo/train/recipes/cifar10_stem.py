"""The stem of ResNet-18 on 32x32 images: 7x7/2 and pool, 3x3/2 and pool, or 3x3/1.

Source: a report on CIFAR-10 in which the small stem (3x3/2 and pool) is 6 points better than
ImageNet's; 200 epochs, SGD at 0.1, momentum 0.9, weight decay 5e-4. The third arm, 3x3/1 without a
pool, is what the literature uses for 32x32.

    senetzoo train cifar10_stem --data CIFAR10

Chosen here, as the source does not say: cosine annealing, crop and mirror, batches of 128.
Hardware: one GPU, about two hours in bf16 for the three arms (most of it the last). To expect: some
87, 93 and 95 %. Not measured here.
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipe import Recipe

CIFAR10_STEM = Experiment(
    Recipe(
        name="cifar10_stem",
        model="resnet18",
        data="cifar10",
        phases=((32, 200),),
        lr=0.1,
        weight_decay=5e-4,
        warmup=0.0,
        schedule="cosine",
    ),
    arms={
        "7x7-2-pool": {"stem": "7x7/2+pool"},
        "3x3-2-pool": {"stem": "3x3/2+pool"},
        "3x3-1": {"stem": "3x3/1"},
    },
    quick={"images_per_class": 2, "batch": 10},
)
