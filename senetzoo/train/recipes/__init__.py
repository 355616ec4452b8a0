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
    "digits": DIGITS,
    "cifar_small": CIFAR_SMALL,
    "cifar10_resnet": CIFAR10_RESNET,
    "cifar10_four_nets": CIFAR10_FOUR_NETS,
    "cifar10_stem": CIFAR10_STEM,
    "cifar10_at_224": CIFAR10_AT_224,
    "cifar10_noisy_train": CIFAR10_NOISY_TRAIN,
    "cifar10_depth": CIFAR10_DEPTH,
    "flowers_small": FLOWERS_SMALL,
    "flowers_depth": FLOWERS_DEPTH,
    "flowers_key_drop": FLOWERS_KEY_DROP,
    "imagenet_rsb_a3": IMAGENET_RSB_A3,
    "imagenet_se": IMAGENET_SE,
    "ablation_positions": ABLATION_POSITIONS,
    "ablation_gates": ABLATION_GATES,
    "ablation_reduction": ABLATION_REDUCTION,
    "ablation_stages": ABLATION_STAGES,
    "cifar100_attention": CIFAR100_ATTENTION,
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
