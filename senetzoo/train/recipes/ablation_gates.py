"""Which gate, at the standard position: SE and its relatives on CIFAR-10.

Each gate is what its paper proposes, with the reduction 4 instead of 16 where it has one, since the
maps of ResNet-20 have only 16, 32 and 64 channels (`ablation_positions` says why). Pairs by seed as
there. The papers compare on ImageNet, by one run each; no source has this table.

    senetzoo train ablation_gates --data CIFAR10

Trained as `cifar10_small`. Hardware: about two hours on one core for each run, in all thirteen arms
of ten seeds; hence a GPU. What was measured, and how: docs/ablation.md.
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipes.cifar10_small import CIFAR10_SMALL

_GATES = {
    "se": "se4",
    "eca": "eca",
    "cbam": "cbam(reduction=4)",
    "scse": "scse(reduction=4)",
    "ge_theta_minus": "ge",
    "ge_theta_plus": "ge(variant=theta-plus,extent=4,reduction=4)",
    "srm": "srm",
    "gct": "gct",
    "coord": "coord(reduction=4)",
    "ese": "ese",
    "bam": "bam(reduction=4)",
    "simam": "simam",
}

ABLATION_GATES = Experiment(
    CIFAR10_SMALL.recipe.replace(name="ablation_gates"),
    arms={
        "plain": {"model": "resnet20"},
        **{arm: {"model": f"resnet20+{gate}"} for arm, gate in _GATES.items()},
    },
    seeds=tuple(range(10)),
    quick=CIFAR10_SMALL.quick,
)
