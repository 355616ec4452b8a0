"""Depth on a small data set: ResNets, SE-ResNets and Swins on 3,306 photographs of flowers.

Source: a student's comparison on the five-class flowers, from scratch at 224 pixels, Adam at 2e-4,
100 epochs. It reports

| | 18 or t | 34 or s | 50 or b |
|---|---|---|---|
| resnet | .745 | .695 | .720 |
| se_resnet | .758 | .766 | .801 |
| swin | .734 | .723 | .665 |

on 364 test images, where the 95 % interval of one run is 4 points to either side.

    senetzoo train flowers_depth --data flower_photos

The learning rate is constant and nothing decays, as Adam's defaults have it; random crops and
mirror, batches of 32 are chosen here. Hardware: one GPU, about 6 hours in bf16 for the nine arms.
To expect: the table, within the intervals. Not measured here.
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipe import Recipe

FLOWERS_DEPTH = Experiment(
    Recipe(
        name="flowers_depth",
        model="resnet18",
        data="flowers5",
        phases=((224, 100),),
        batch=32,
        optimizer="adam",
        lr=2e-4,
        weight_decay=0.0,
        warmup=0.0,
        schedule="constant",
    ),
    arms={
        name: {"model": name}
        for name in (
            *(f"{kind}{depth}" for kind in ("resnet", "se_resnet") for depth in (18, 34, 50)),
            *(f"swin_{size}" for size in "tsb"),
        )
    },
    quick={"phases": ((64, 1),), "images_per_class": 4, "batch": 10},
)
