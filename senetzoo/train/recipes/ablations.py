"""The SE paper's ablations and a comparison of gates, with ResNet-20 on CIFAR-10 and ten seeds.

Trained as `CIFAR_SMALL`. Runs of one seed are paired: the trunk starts from the same weights and
gets the same batches under every policy, so differences of pairs are what to look at. The maps have
16, 32 and 64 channels, of which the paper's r = 16 leaves a gate 1 to 4 hidden units; so gates are
compared at r = 4.

Hardware: about two hours on one core for each run; hence a GPU, or fewer variants, seeds and
epochs: ``--only``, ``--seed``, ``--set phases=...``. What was measured, and how: docs/ablation.md.
"""

from collections.abc import Mapping

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipes.cifar import CIFAR_SMALL


def _ablation(name: str, policies: Mapping[str, str]) -> Experiment:
    """The bare network, and a variant of it for each policy."""
    return Experiment(
        CIFAR_SMALL.recipe.replace(name=name),
        variants={
            "plain": {"model": "resnet20"},
            **{variant: {"model": f"resnet20+{policy}"} for variant, policy in policies.items()},
        },
        seeds=tuple(range(10)),
        quick=CIFAR_SMALL.quick,
    )


_POSITIONS = ("standard", "pre", "post", "identity", "inner")

ABLATION_POSITIONS = _ablation(
    "ablation_positions",
    {
        **{position: f"se4@{position}" for position in _POSITIONS},
        **{f"{position}_r16": f"se16@{position}" for position in _POSITIONS},
    },
)
"""Where in a residual block the gate goes.

Source: Hu et al. 2017 (arXiv:1709.01507v4), Section 6.5, Tables 14 and 15, on ImageNet by one run
each.

    senetzoo train ablation_positions --data CIFAR10

Eleven variants on a GPU; measured: docs/ablation.md.
"""

ABLATION_GATES = _ablation(
    "ablation_gates",
    {
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
    },
)
"""Which gate, at the standard position: SE and its relatives.

Each gate is what its paper proposes, with the reduction 4 instead of 16 where it has one. The
papers compare on ImageNet, by one run each; no source has this table.

    senetzoo train ablation_gates --data CIFAR10

Thirteen variants on a GPU; measured: docs/ablation.md.
"""

CIFAR100_ATTENTION = Experiment(
    CIFAR_SMALL.recipe.replace(
        name="cifar100_attention",
        data="cifar100",
        phases=((16, 5), (24, 5), (32, 5)),
        precision="bf16",
    ),
    variants={
        "plain": {"model": "resnet20"},
        **{position: {"model": f"resnet20+se4@{position}"} for position in _POSITIONS},
        **{
            name: {"model": f"resnet20+{ABLATION_GATES.variants[name]['model'].partition('+')[2]}"}
            for name in ("eca", "cbam", "scse", "gct", "coord", "simam")
        },
        "standard_r16": {"model": "resnet20+se16"},
    },
    seeds=tuple(range(5)),
    quick=CIFAR_SMALL.quick,
)
"""Which attention, and where: five positions of SE, six other gates and r = 16, on CIFAR-100.

On CIFAR-10 pytorchcv's pair of plain and SE networks of 20 layers hardly differs; on CIFAR-100 it
does: 29.64 and 28.54 % errors for resnet20 and seresnet20, one run each. SE at the
standard position against plain is the comparison that was fixed beforehand.

    senetzoo train cifar100_attention --data CIFAR100

Hardware: one core with AVX-512 and bf16, a quarter of an hour for each of 65 runs.
What was measured, and how: docs/ablation.md.
"""

ABLATION_REDUCTION = _ablation("ablation_reduction", {f"r{r}": f"se{r}" for r in (2, 4, 8, 16, 32)})
"""How narrow a gate may be: SE with the reductions 2 to 32.

Source: Hu et al. 2017, Section 6.1 and Table 10, on ImageNet with ResNet-50. Here r = 32 leaves the
gates of the three stages 1, 1 and 2 hidden units.

    senetzoo train ablation_reduction --data CIFAR10

Six variants on a GPU. Not measured here.
"""

ABLATION_STAGES = _ablation(
    "ablation_stages", {**{f"stage{s}": f"se4/s{s}" for s in (1, 2, 3)}, "all": "se4"}
)
"""Which stages need gates: SE in each stage alone and in all of them.

Source: Hu et al. 2017, Section 6.4 and Table 13, on ImageNet with ResNet-50, whose stages are four.

    senetzoo train ablation_stages --data CIFAR10

Five variants on a GPU. Not measured here.
"""
