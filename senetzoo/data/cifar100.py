"""CIFAR-100 (Krizhevsky 2009): 32x32 pixels, 100 classes of 500 training and 100 test images.

Read from the same local forms as CIFAR-10; labels are the fine ones.
"""

from __future__ import annotations

from pathlib import Path

from senetzoo.data.cifar import Cifar, Split
from senetzoo.data.sets import ImageSet

# fmt: off
CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
    "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
    "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
    "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
    "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
    "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
    "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)
# fmt: on

# Per channel over the 50,000 training images, in units of the full pixel range.
MEAN = (0.5071, 0.4865, 0.4409)
STD = (0.2673, 0.2564, 0.2762)

_CIFAR = Cifar("CIFAR-100", CLASSES, "cifar-100-python.tar.gz", "cifar-100-python", "CIFAR100")


def load(path: str | Path, split: Split) -> ImageSet:
    """Load one split of CIFAR-100 from a local copy, in one of the forms of `cifar10.load`.

    Returns:
        Images (N, 32, 32, 3).

    Raises:
        DataError: Nothing that looks like CIFAR-100 is there, or it is damaged.
        MissingExtraError: A parquet file, and pyarrow is not installed.
    """
    return _CIFAR.load(path, split)
