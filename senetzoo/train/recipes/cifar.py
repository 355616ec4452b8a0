"""Recipes on CIFAR-10, which is fetched: ``--data`` names a copy.

Unless a recipe says otherwise, its batches of 128, momentum 0.9 (Nesterov), weight decay 5e-4,
random crop (padding 4) and mirror are chosen here.
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipe import Recipe

CIFAR_SMALL = Experiment(
    Recipe(
        name="cifar_small",
        model="resnet20",
        data="cifar10",
        phases=((16, 10), (24, 14), (32, 18)),
        optimizer="muon",
        lr=0.1,
        muon_lr=0.08,
        warmup=0.05,
        flip="alternate",
        test_every=3,
    ),
    quick={"images_per_class": 20, "batch": 32},
)
"""The 6n+2 networks, in an hour on one core.

Source: He et al. 2015 (arXiv:1512.03385), Section 4.2: padding of 4, random crop and mirror. Chosen
here, by one run each on 5,000 held-out training images of CIFAR-100 (docs/training.md): Muon for
the convolutions, smaller images in the first epochs and mirrored images in turn (arXiv:2404.00498).
A quarter of the paper's 164 epochs was not compared with anything.

    senetzoo train cifar_small --data CIFAR10 --set model=se_resnet20
    senetzoo train cifar_small --data CIFAR100 --set data=cifar100

Hardware: one core with AVX-512, and with ``--set precision=bf16`` where it has instructions for
that. Measured: in the manifest; the paper has 91.25 % for resnet20 on CIFAR-10.
"""

CIFAR10_RESNET = Experiment(
    Recipe(
        name="cifar10_resnet",
        model="resnet18",
        stem="cifar",  # source
        data="cifar10",
        phases=((32, 100),),
        warmup=0.0,
        schedule="cosine",  # source
        rotation=15.0,
    ),
    quick={"images_per_class": 2, "batch": 10},
)
"""ResNet-18 with the CIFAR stem: SGD, cosine annealing, rotation, crop, mirror.

Source: a report of 93 % on the test images and 99 % on the training images. It does not state the
epochs, the learning rate or the angle; those are chosen here.

    senetzoo train cifar10_resnet --data CIFAR10

Hardware: one GPU, about 20 minutes in bf16. To expect: 94 to 95 %. Not measured here.
"""

CIFAR10_FOUR_NETS = Experiment(
    Recipe(
        name="cifar10_four_nets",
        model="resnet18",
        data="cifar10",
        phases=((32, 10),),  # source
        lr=0.01,
        warmup=0.0,
        schedule="constant",
    ),
    variants={
        "lenet": {"model": "lenet"},
        "resnet18_imagenet": {"model": "resnet18", "stem": "imagenet"},
        "densenet121_imagenet": {"model": "densenet121", "stem": "imagenet"},
        "se_resnet18_cifar": {"model": "se_resnet18", "stem": "cifar"},
        "resnet18_cifar": {"model": "resnet18", "stem": "cifar"},
        "se_resnet18_imagenet": {"model": "se_resnet18", "stem": "imagenet"},
    },
    quick={"images_per_class": 2, "batch": 10},
)
"""Four networks, and two more that separate the two things which their comparison changes.

Source: a student's comparison of LeNet, ResNet-18 and DenseNet-121 with ImageNet stems, and
SE-ResNet-18 with a CIFAR stem: 61, 73, 76 and 81 % after 10 epochs of SGD. Its last network differs
in gates and stem; the last two variants differ from the others in one of them.

    senetzoo train cifar10_four_nets --data CIFAR10

Hardware: one GPU, about a quarter of an hour for all six; days on two cores. To expect: the
source's figures, within a few points. Measured for lenet and resnet18_imagenet, one seed each: 64.6
and 76.4 % (docs/training.md).
"""

CIFAR10_STEM = Experiment(
    Recipe(
        name="cifar10_stem",
        model="resnet18",
        data="cifar10",
        phases=((32, 200),),  # source, as lr, momentum and weight decay
        warmup=0.0,
        schedule="cosine",
    ),
    variants={
        "7x7-2-pool": {"stem": "7x7/2+pool"},
        "3x3-2-pool": {"stem": "3x3/2+pool"},
        "3x3-1": {"stem": "3x3/1"},
    },
    quick={"images_per_class": 2, "batch": 10},
)
"""The stem of ResNet-18 on 32x32 images: 7x7/2 and pool, 3x3/2 and pool, or 3x3/1.

Source: a report in which the small stem (3x3/2 and pool) is 6 points better than ImageNet's. The
third variant, 3x3/1 without a pool, is what the literature uses for 32x32.

    senetzoo train cifar10_stem --data CIFAR10

Hardware: one GPU, about two hours in bf16 for the three variants (most of it the last). To expect:
some 87, 93 and 95 %. Not measured here.
"""

CIFAR10_AT_224 = Experiment(
    Recipe(
        name="cifar10_at_224",
        model="resnet18",
        data="cifar10",
        phases=((224, 100),),  # source
        warmup=0.0,
        schedule="constant",  # so that the fluctuation from epoch to epoch can be seen
    ),
    variants={
        f"{model}_lr{lr:g}": {"model": model, "lr": lr}
        for lr in (0.1, 0.001)  # source
        for model in ("resnet18", "se_resnet18")
    },
    quick={"images_per_class": 2, "batch": 10, "phases": ((64, 1),)},
)
"""ResNet-18 and SE-ResNet-18 on images enlarged to 224x224, at two learning rates.

Source: a report in which SE gains 1 point at a learning rate of 0.001, and at 0.1 makes the
accuracy fluctuate far less from epoch to epoch.

    senetzoo train cifar10_at_224 --data CIFAR10

Hardware: one GPU of 80 GB, about 10 hours in bf16 (``--set precision=bf16``) for the four variants.
To expect: 93 to 95 %. Not measured here.
"""

_THIRTY_EPOCHS = Recipe(
    name="cifar10_noisy_train",
    model="resnet20",
    data="cifar10",
    phases=((32, 30),),
    warmup=0.05,
    schedule="cosine",
)

CIFAR10_NOISY_TRAIN = Experiment(
    _THIRTY_EPOCHS,
    variants={
        f"{model}_{how}": {"model": model, **change}
        for how, change in {
            "clean": {},
            "noise": {"noise": 0.2},
            "blur": {"blur": 1.0},
            "enlarged": {"enlarge": 2.0},
        }.items()
        for model in ("resnet20", "se_resnet20")
    },
    quick={"images_per_class": 4, "batch": 20},
)
"""Plain and SE twins trained on bad images: noise, blur, artifacts of enlargement.

Source: a report that SE suppresses noise in training; no figures. The training images are degraded,
the test images are not, so the test says what a network learned in spite of it. How much (noise of
a fifth of the pixel range, a blur of 1 pixel, images halved and enlarged again) is chosen here.

    senetzoo train cifar10_noisy_train --data CIFAR10

Hardware: one GPU, about 20 minutes for the eight variants; two cores, about 15 hours. To expect:
90 % for the clean twins. Not measured here.
"""

CIFAR10_DEPTH = Experiment(
    _THIRTY_EPOCHS.replace(name="cifar10_depth"),
    variants={
        model: {"model": model}
        for model in (
            *("plain20", "plain56", "resnet20", "resnet56"),
            *("se_resnet20", "se_resnet56", "densenet40_12"),
        )
    },
    seeds=(0, 1, 2),
    quick={"images_per_class": 4, "batch": 20},
)
"""How plain, residual, dense and gated networks of similar size train, by one recipe.

Source: He et al. 2015 (arXiv:1512.03385), Section 4.2 and Fig. 6: with 20 layers a plain network
trains well, with 56 it trains worse, also on the training images, and with shortcuts it does not.
Batches of 128 and SGD with momentum 0.9 are the paper's, which has weight decay 1e-4 and 164 epochs
in steps. DenseNet (Huang et al. 2016, arXiv:1608.06993, k = 12) and gates (SE, r = 16, which leaves
these widths 1 to 4 hidden units) are beside them.

    senetzoo train cifar10_depth --data CIFAR10

Every epoch is tested, and its gradient norms are kept by stage. Parameters: 0.27 million with 20
layers, 0.86 with 56, 1.0 for DenseNet. Hardware: one GPU, about half an hour a seed in bf16. To
expect: 91 to 93 %, except for the plain networks. Measured only in a short form, on fewer and
smaller images: docs/depth.md.
"""
