"""How narrow a gate may be: SE with the reductions 2 to 32 on CIFAR-10.

Hu et al. 2017 (arXiv:1709.01507v4), Section 6.1 and Table 10, on ImageNet with ResNet-50. In
ResNet-20 r = 32 leaves the gates of all three stages 1, 1 and 2 hidden units. Pairs by seed, as in
`ablation_positions`.

    senetzoo train ablation_reduction --data CIFAR10

Trained as `cifar10_small`. Hardware: about two hours on one core for each run, in all six arms of
ten seeds; hence a GPU. What was measured, and how: docs/ablation.md.
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipes.cifar10_small import CIFAR10_SMALL

ABLATION_REDUCTION = Experiment(
    CIFAR10_SMALL.recipe.replace(name="ablation_reduction"),
    arms={
        "plain": {"model": "resnet20"},
        **{f"r{r}": {"model": f"resnet20+se{r}"} for r in (2, 4, 8, 16, 32)},
    },
    seeds=tuple(range(10)),
    quick=CIFAR10_SMALL.quick,
)
