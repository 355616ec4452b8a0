"""Plain and SE twins trained on bad images: noise, blur, artefacts of enlargement.

Source: a report that SE suppresses noise in training; no figures. The training images are made
worse, the test images are not, so the test says what a network learned in spite of it.

    senetzoo train cifar10_noisy_train --data CIFAR10

How bad (noise of a fifth of the pixel range, a blur of 1 pixel, images reduced to a half and
enlarged again), 30 epochs and the rest are chosen here. Hardware: one GPU, about 20 minutes for the
eight arms; two cores, about 15 hours. To expect: 90 % for the clean twins. Not measured here.
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipe import Recipe

_WORSE = {"clean": {}, "noise": {"noise": 0.2}, "blur": {"blur": 1.0}, "enlarged": {"enlarge": 2.0}}

CIFAR10_NOISY_TRAIN = Experiment(
    Recipe(
        name="cifar10_noisy_train",
        model="resnet20",
        data="cifar10",
        phases=((32, 30),),
        lr=0.1,
        weight_decay=5e-4,
        warmup=0.05,
        schedule="cosine",
    ),
    arms={
        f"{model}_{how}": {"model": model, **change}
        for how, change in _WORSE.items()
        for model in ("resnet20", "se_resnet20")
    },
    quick={"images_per_class": 4, "batch": 20},
)
