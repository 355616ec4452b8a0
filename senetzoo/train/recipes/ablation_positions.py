"""Where in a residual block the gate goes: the SE paper's comparison of positions, on CIFAR-10.

Hu et al. 2017 (arXiv:1709.01507v4), Section 6.5, Tables 14 and 15, on ImageNet by one run each.
Here with ResNet-20 and ten seeds. Runs of one seed are paired: the trunk starts from the same
weights and sees the same batches under every policy, so differences of pairs are what to look at.
Its maps have 16, 32 and 64 channels, of which r = 16 leaves a gate 1 to 4 hidden units; so the
comparison is at r = 4, and r = 16 comes second.

    senetzoo train ablation_positions --data CIFAR10

Trained as `cifar10_small`. Hardware: about two hours on one core for each run, in all eleven arms
of ten seeds; hence a GPU, or fewer arms, seeds and epochs: ``--only``, ``--seed``, ``--set
phases=...``. What was measured, and how: docs/ablation.md.
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipes.cifar10_small import CIFAR10_SMALL

_POSITIONS = ("standard", "pre", "post", "identity", "inner")

ABLATION_POSITIONS = Experiment(
    CIFAR10_SMALL.recipe.replace(name="ablation_positions"),
    arms={
        "plain": {"model": "resnet20"},
        **{place: {"model": f"resnet20+se4@{place}"} for place in _POSITIONS},
        **{f"{place}_r16": {"model": f"resnet20+se16@{place}"} for place in _POSITIONS},
    },
    seeds=tuple(range(10)),
    quick=CIFAR10_SMALL.quick,
)
