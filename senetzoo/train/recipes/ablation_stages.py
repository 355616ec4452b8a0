"""Which stages need gates: SE in each stage alone and in all of them, on CIFAR-10.

Hu et al. 2017 (arXiv:1709.01507v4), Section 6.4 and Table 13, on ImageNet with ResNet-50, whose
stages are four. Reduction 4 and pairs by seed, as in `ablation_positions`.

    senetzoo train ablation_stages --data CIFAR10

Trained as `cifar10_small`. Hardware: about two hours on one core for each run, in all five arms of
ten seeds; hence a GPU. What was measured, and how: docs/ablation.md.
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipes.cifar10_small import CIFAR10_SMALL

ABLATION_STAGES = Experiment(
    CIFAR10_SMALL.recipe.replace(name="ablation_stages"),
    arms={
        "plain": {"model": "resnet20"},
        **{f"stage{s}": {"model": f"resnet20+se4/s{s}"} for s in (1, 2, 3)},
        "all": {"model": "resnet20+se4"},
    },
    seeds=tuple(range(10)),
    quick=CIFAR10_SMALL.quick,
)
