"""The recipes by name."""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipes.ablations import (
    ABLATION_GATES,
    ABLATION_POSITIONS,
    ABLATION_REDUCTION,
    ABLATION_STAGES,
    CIFAR100_ATTENTION,
)
from senetzoo.train.recipes.cifar import (
    CIFAR10_AT_224,
    CIFAR10_DEPTH,
    CIFAR10_FOUR_NETS,
    CIFAR10_NOISY_TRAIN,
    CIFAR10_RESNET,
    CIFAR10_STEM,
    CIFAR_SMALL,
)
from senetzoo.train.recipes.digits import DIGITS
from senetzoo.train.recipes.flowers import FLOWERS_DEPTH, FLOWERS_KEY_DROP, FLOWERS_SMALL
from senetzoo.train.recipes.imagenet import IMAGENET_RSB_A3, IMAGENET_SE

RECIPES: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        DIGITS,
        *(CIFAR_SMALL, CIFAR10_RESNET, CIFAR10_FOUR_NETS, CIFAR10_STEM, CIFAR10_AT_224),
        *(CIFAR10_NOISY_TRAIN, CIFAR10_DEPTH),
        *(FLOWERS_SMALL, FLOWERS_DEPTH, FLOWERS_KEY_DROP),
        *(IMAGENET_RSB_A3, IMAGENET_SE),
        *(ABLATION_POSITIONS, ABLATION_GATES, ABLATION_REDUCTION, ABLATION_STAGES),
        CIFAR100_ATTENTION,
    )
}

COMPARE = "compare"  # the name of the recipes of `senetzoo compare`


def variants_of(recipe: str) -> tuple[str, ...]:
    """The variants of a recipe by its name, the one to compare with first; none of another's."""
    return tuple(RECIPES[recipe].variants) if recipe in RECIPES else ()


def varied_by(recipe: str) -> frozenset[str]:
    """The fields in which the variants of an experiment differ; none of an unknown one."""
    if recipe == COMPARE:
        return frozenset({"model"})
    variants = RECIPES[recipe].variants.values() if recipe in RECIPES else ()
    return frozenset(name for changed in variants for name in changed)
