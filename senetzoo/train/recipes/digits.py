"""Recipes on scikit-learn's handwritten digits, which train anywhere without a file.

1,797 gray images of 8x8 pixels (a part of Alpaydin and Kaynak 1998, UCI), enlarged to 32x32. Every
third image of each digit is a test image, the others train.
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipe import Recipe

DIGITS = Experiment(
    Recipe(
        name="digits",
        model="lenet5",
        data="digits",
        phases=((32, 60),),
        batch=64,
        optimizer="muon",
        lr=0.05,
        weight_decay=2e-3,
        flip=False,  # a mirrored 2 is no digit
        margin=1,
        rotation=10.0,
        zoom=0.1,
        test_every=10,
        compile=False,
    ),
)
"""LeNet-5. All values are chosen here.

    senetzoo train digits

Hardware: two cores, half a minute. Measured: 98 % or more on the held-out third.
"""
