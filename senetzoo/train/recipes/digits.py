"""LeNet-5 on scikit-learn's handwritten digits: trains anywhere, from nothing but a package.

1,797 grey images of 8x8 pixels (a part of Alpaydin and Kaynak 1998, UCI), enlarged to 32x32. Every
third image of each digit tests, the others train.

    senetzoo train digits

Half a minute on two cores; 98 % or more on the held-out third.
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
        flip=False,
        margin=1,
        rotation=10.0,
        zoom=0.1,
        test_every=10,
        compile=False,
    ),
)
