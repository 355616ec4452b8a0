"""Key dropout on the flowers, with and without: in SE-ResNet-50's gates and in Swin-T's attention.

Source: left as future work by the study that `flowers_depth` repeats, so there is nothing to
compare with. In a gate it drops excited channels (`senetzoo.SE`'s ``drop``), in attention it hides
keys (`SwinConfig.key_drop`); both at 0.1.

    senetzoo train flowers_key_drop --data flower_photos

All else is as in `flowers_depth`, whose arms of the same networks these repeat; three seeds, as an
effect will be small beside the interval of 364 images. Hardware: one GPU, about 6 hours in bf16 for
the twelve runs. Not measured here.
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipes.flowers_depth import FLOWERS_DEPTH

FLOWERS_KEY_DROP = Experiment(
    FLOWERS_DEPTH.recipe.replace(name="flowers_key_drop"),
    arms={
        "se_resnet50": {"model": "se_resnet50"},
        "se_resnet50_drop": {"model": "se_resnet50+se(drop=0.1)"},
        "swin_t": {"model": "swin_t"},
        "swin_t_drop": {"model": "swin_t", "key_drop": 0.1},
    },
    seeds=(0, 1, 2),
    quick=FLOWERS_DEPTH.quick,
)
