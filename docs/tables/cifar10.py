"""The tables of docs/cifar10.md: our CIFAR weights beside published ones, recipe by recipe."""

from __future__ import annotations

from dataclasses import dataclass

from senetzoo.train.recipe import Recipe
from senetzoo.weights.manifest import history, manifest
from tables import cards
from tables.common import table

_HE = "[He et al. 2015](https://arxiv.org/abs/1512.03385), Table 6"
_AKAMASTER = "[akamaster](https://github.com/akamaster/pytorch_resnet_cifar10)"
_HUANG = "[Huang et al. 2016](https://arxiv.org/abs/1608.06993), Table 2"
_CHENYAOFO = "[chenyaofo](https://github.com/chenyaofo/pytorch-cifar-models)"
_PYTORCHCV = "[pytorchcv](https://github.com/osmr/imgclsmob/tree/master/pytorch)"
_MOSKOMULE = "[moskomule](https://github.com/moskomule/senet.pytorch)"
_STEPS = "SGD 0.1, a tenth of it twice"


@dataclass(frozen=True)
class Training:
    """How somebody trained.

    Args:
        who: With an address.
        epochs: Over the training images.
        batch: Images a step.
        rate: Optimizer and learning rate.
        decay: Weight decay.
        checkpoint: Which one the figure is of.
    """

    who: str
    epochs: str
    batch: str
    rate: str
    decay: str
    checkpoint: str


_UNKNOWN = "not stated"
# 64,000 iterations of 128 images.
HE = Training(_HE, "164", "128", f"{_STEPS}, at 82 and 123", "1e-4", "last")
AKAMASTER = Training(_AKAMASTER, "200", "128", f"{_STEPS}, at 100 and 150", "1e-4", _UNKNOWN)
# Its logs say which epoch the best was, and what the last one had.
CHENYAOFO = Training(_CHENYAOFO, "200", "256", "SGD 0.1, cosine", "5e-4", "best on test")
PYTORCHCV = Training(_PYTORCHCV, _UNKNOWN, _UNKNOWN, _UNKNOWN, _UNKNOWN, _UNKNOWN)
MOSKOMULE = Training(_MOSKOMULE, "200", "64", f"{_STEPS}, at 80 and 160", "1e-4", "best on test")
# As LaurentMazare/deep-models repeats it, but for the epochs: 150 and 225 are a half and three
# quarters of 300.
HUANG = Training(_HUANG, "300", "64", f"{_STEPS}, at 150 and 225", "1e-4", "last")

# Test accuracy in per cent: 100 minus the error where an error is published.
CIFAR10: dict[str, dict[Training, str]] = {
    "resnet20": {
        HE: "91.25",
        AKAMASTER: "91.73",
        MOSKOMULE: "92",
        CHENYAOFO: "92.60 (last 92.56)",
        PYTORCHCV: "94.03",
    },
    "se_resnet20": {MOSKOMULE: "93", PYTORCHCV: "93.99"},
    "resnet56": {
        HE: "93.03",
        AKAMASTER: "93.39",
        CHENYAOFO: "94.37 (last 94.21)",
        PYTORCHCV: "95.48",
    },
    "se_resnet56": {PYTORCHCV: "95.87"},
    "preresnet20": {PYTORCHCV: "93.49"},
    "se_preresnet20": {PYTORCHCV: "93.82"},
    "densenet40_12": {HUANG: "94.76"},
}
CIFAR100: dict[str, dict[Training, str]] = {
    "resnet20": {CHENYAOFO: "68.83", PYTORCHCV: "70.36"},
    "se_resnet20": {PYTORCHCV: "71.46"},
    "resnet56": {CHENYAOFO: "72.63", PYTORCHCV: "75.12"},
    "se_resnet56": {PYTORCHCV: "77.06"},
}


def cifar10() -> str:
    """CIFAR-10."""
    return _weights("cifar10", CIFAR10)


def cifar100() -> str:
    """CIFAR-100."""
    return _weights("cifar100", CIFAR100)


def _weights(data: str, by_network: dict[str, dict[Training, str]]) -> str:
    """A row for each network and publisher."""
    rows = []
    for network, published in by_network.items():
        for training, accuracy in published.items():
            rows.append(
                [
                    f"`{network}`",
                    training.who,
                    accuracy,
                    training.checkpoint,
                    training.epochs,
                    training.batch,
                    training.rate,
                    training.decay,
                ]
            )
        rows += _ours(network, data)
    head = ["network", "who", "test accuracy, %", "checkpoint", "epochs", "batch", "optimizer"]
    return table([*head, "weight decay"], rows)


def _ours(network: str, data: str) -> list[list[str]]:
    """The newest of our weights: which are a network's default may be another publisher's."""
    tags = [tag for tag in manifest() if tag.startswith(f"{network}.{data}_v")]
    if not tags:
        return [[f"`{network}`", "**senetzoo**: not trained yet", *[""] * 6]]
    tag = max(tags, key=lambda name: int(name.rpartition("_v")[2]))
    entry = manifest()[tag]
    metric = entry.metrics[0]
    if not entry.training:
        raise SystemExit(f"The weights {tag} say nothing of their training.")
    run = cards.run(tag)
    if run is None:
        raise SystemExit(f"The log of {tag} says nothing of its recipe.")
    recipe = Recipe.from_json(run.header["recipe"])
    return [
        [
            f"`{network}`",
            f"**`{tag}`**",
            f"{metric.value:.2f}",
            f"{metric.checkpoint}, {metric.runs} run",
            " + ".join(str(each.epochs) for each in history(tag).values()),
            str(recipe.batch),
            f"[`{recipe.name}`](training.md): {recipe.optimizer.capitalize()}{_more(recipe)}",
            f"{recipe.weight_decay:.0e}".replace("e-0", "e-"),
        ]
    ]


def _more(recipe: Recipe) -> str:
    """What a recipe does besides cropping and mirroring."""
    found = {
        f"cutout {recipe.cutout}": recipe.cutout,
        f"label smoothing {recipe.label_smoothing:g}": recipe.label_smoothing,
    }
    return "".join(f", {text}" for text, used in found.items() if used)
