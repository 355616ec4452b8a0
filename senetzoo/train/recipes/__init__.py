"""The recipes, one file each. `RECIPES` has them by name."""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipes.ablation_gates import ABLATION_GATES
from senetzoo.train.recipes.ablation_positions import ABLATION_POSITIONS
from senetzoo.train.recipes.ablation_reduction import ABLATION_REDUCTION
from senetzoo.train.recipes.ablation_stages import ABLATION_STAGES
from senetzoo.train.recipes.cifar10_at_224 import CIFAR10_AT_224
from senetzoo.train.recipes.cifar10_depth import CIFAR10_DEPTH
from senetzoo.train.recipes.cifar10_four_nets import CIFAR10_FOUR_NETS
from senetzoo.train.recipes.cifar10_noisy_train import CIFAR10_NOISY_TRAIN
from senetzoo.train.recipes.cifar10_resnet import CIFAR10_RESNET
from senetzoo.train.recipes.cifar10_small import CIFAR10_SMALL
from senetzoo.train.recipes.cifar10_stem import CIFAR10_STEM
from senetzoo.train.recipes.digits import DIGITS
from senetzoo.train.recipes.flowers_depth import FLOWERS_DEPTH
from senetzoo.train.recipes.flowers_key_drop import FLOWERS_KEY_DROP
from senetzoo.train.recipes.flowers_small import FLOWERS_SMALL
from senetzoo.train.recipes.imagenet_rsb_a3 import IMAGENET_RSB_A3
from senetzoo.train.recipes.imagenet_se import IMAGENET_SE

RECIPES: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        DIGITS,
        CIFAR10_SMALL,
        CIFAR10_RESNET,
        CIFAR10_FOUR_NETS,
        CIFAR10_STEM,
        CIFAR10_AT_224,
        CIFAR10_NOISY_TRAIN,
        CIFAR10_DEPTH,
        FLOWERS_SMALL,
        FLOWERS_DEPTH,
        FLOWERS_KEY_DROP,
        IMAGENET_RSB_A3,
        IMAGENET_SE,
        ABLATION_POSITIONS,
        ABLATION_GATES,
        ABLATION_REDUCTION,
        ABLATION_STAGES,
    )
}
