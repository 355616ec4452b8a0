"""Recipes on TensorFlow's ``flower_photos`` (`senetzoo.data.flowers5`): ``--data flower_photos``.

3,306 photographs of five kinds of flowers train and 364 are held out, on which the 95 % interval of
one run's accuracy is 4 points to either side.
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipe import Recipe
from senetzoo.train.recipes.cifar import CIFAR_SMALL

FLOWERS_SMALL = Experiment(
    CIFAR_SMALL.recipe.replace(
        name="flowers_small",
        model="resnet20.cifar10_v2",
        stem="3x3/2+pool",
        data="flowers5",
        phases=((64, 20), (96, 20), (128, 40)),
        batch=64,
        flip=True,
        crop_scale=(0.25, 1.0),
        test_every=10,
    ),
    quick={"phases": ((32, 1),), "images_per_class": 4, "batch": 10},
)
"""ResNet-20 from CIFAR-10's weights, trained as `CIFAR_SMALL`; the rest is chosen here.

The stem has the weights' 3x3 convolution, with a stride of 2 and a pool: 128 pixels leave maps of
32, as CIFAR-10's are.

    senetzoo train flowers_small --data flower_photos

Hardware: one core without AVX-512, forty minutes. Measured: in the manifest.
"""

FLOWERS_DEPTH = Experiment(
    Recipe(
        name="flowers_depth",
        model="resnet18",
        data="flowers5",
        phases=((224, 100),),  # source
        batch=32,
        optimizer="adam",  # source
        lr=2e-4,  # source
        weight_decay=0.0,  # Adam's default
        warmup=0.0,
        schedule="constant",  # Adam's default
    ),
    variants={
        name: {"model": name}
        for name in (
            *(f"{kind}{depth}" for kind in ("resnet", "se_resnet") for depth in (18, 34, 50)),
            *(f"swin_{size}" for size in "tsb"),
        )
    },
    quick={"phases": ((64, 1),), "images_per_class": 4, "batch": 10},
)
"""Depth on a small data set: ResNets, SE-ResNets and Swins from scratch.

Source: a student's comparison, which reports

| | 18 or t | 34 or s | 50 or b |
|---|---|---|---|
| resnet | .745 | .695 | .720 |
| se_resnet | .758 | .766 | .801 |
| swin | .734 | .723 | .665 |

Random crops and mirror, and batches of 32, are chosen here.

    senetzoo train flowers_depth --data flower_photos

Hardware: one GPU, about 6 hours in bf16 for the nine variants. To expect: the table, within the
intervals. Not measured here.
"""

FLOWERS_KEY_DROP = Experiment(
    FLOWERS_DEPTH.recipe.replace(name="flowers_key_drop"),
    variants={
        "se_resnet50": {"model": "se_resnet50"},
        "se_resnet50_drop": {"model": "se_resnet50+se(drop=0.1)"},
        "swin_t": {"model": "swin_t"},
        "swin_t_drop": {"model": "swin_t", "key_drop": 0.1},
    },
    seeds=(0, 1, 2),  # an effect will be small beside the interval of 364 images
    quick=FLOWERS_DEPTH.quick,
)
"""Key dropout, with and without: in SE-ResNet-50's gates and in Swin-T's attention.

Source: future work of the study that `FLOWERS_DEPTH` repeats; there is nothing to compare with. In
a gate it drops excited channels (`senetzoo.SE`'s ``drop``), in attention it hides keys
(`SwinConfig.key_drop`); both at 0.1, chosen here.

    senetzoo train flowers_key_drop --data flower_photos

Hardware: one GPU, about 6 hours in bf16 for the twelve runs. Not measured here.
"""
