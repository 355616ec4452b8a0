"""How plain, residual, dense and gated networks of like size train, by one recipe.

He et al. 2015 (arXiv:1512.03385), Section 4.2 and Fig. 6, is the source of the first question: with
20 layers a plain network trains well, with 56 it trains worse, also on the training images, and
with shortcuts it does not. DenseNet (Huang et al. 2016, arXiv:1608.06993, k = 12) and gates (SE,
r = 16, which leaves these widths 1 to 4 hidden units) are beside them.

    senetzoo train cifar10_depth --data CIFAR10

Batches of 128 and SGD with momentum 0.9 are the paper's; Nesterov's form, weight decay 5e-4 and the
schedule of 30 epochs are chosen here (the paper: 1e-4, and 164 epochs in steps). Every epoch is
tested, and its gradient norms are kept by stage. Sizes: 0.27 million parameters with 20 layers,
0.86 with 56, 1.0 for DenseNet. Hardware: one GPU, about half an hour a seed in bf16. To expect: 91
to 93 % but for the plain networks. Measured in a short form alone, on fewer and smaller images:
docs/depth.md.
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipe import Recipe

_MODELS = (
    "plain20",
    "plain56",
    "resnet20",
    "resnet56",
    "se_resnet20",
    "se_resnet56",
    "densenet40_12",
)

CIFAR10_DEPTH = Experiment(
    Recipe(
        name="cifar10_depth",
        model="resnet20",
        data="cifar10",
        phases=((32, 30),),
        lr=0.1,
        weight_decay=5e-4,
        warmup=0.05,
        schedule="cosine",
    ),
    arms={model: {"model": model} for model in _MODELS},
    seeds=(0, 1, 2),
    quick={"images_per_class": 4, "batch": 20},
)
