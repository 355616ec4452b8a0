"""The 6n+2 networks on CIFAR-10, in the hours that two cores have.

He et al. 2015 (arXiv:1512.03385), Section 4.2, with a budget of a fraction of its 164 epochs: the
convolutions are trained by Muon, the first epochs see smaller images, the last three are a warm
restart at a low learning rate. All 50,000 training images; padding of 4, random crop and mirror
as in the paper.

    senetzoo train cifar10_small --data CIFAR10 --set model=se_resnet20

About two hours on one core without AVX-512. What it gave is in the manifest: 91.8 % for resnet20
and 91.3 % for se_resnet20, where the paper has 91.25 % for resnet20. 20 more epochs from those
weights gave 92.1 % for both, in an hour on one core with AVX-512:

    senetzoo train cifar10_small --data CIFAR10 --set model=se_resnet20.cifar10_v1 --seed 1
        --set phases=((32,20),) --set restart_epochs=0 --set lr=0.025 --set muon_lr=0.02

resnet56 and se_resnet56 have 93.6 and 93.4 % after 9, 14 and 32 epochs, each time from the weights
before. The last 32 are with a square cut out of each image, in bf16, for which the processor should
have instructions: two hours on one core with other work beside, for each.

    --set phases=((24,14),(32,18)) --set restart_epochs=0 --set lr=0.05 --set muon_lr=0.04
        --set label_smoothing=0.1 --set cutout=8 --set precision=bf16 --seed 2

LeNet has 76.3 % in a quarter of an hour, with ``--set phases=((32,40),) --set restart_epochs=0
--set margin=2``.
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipe import Recipe

CIFAR10_SMALL = Experiment(
    Recipe(
        name="cifar10_small",
        model="resnet20",
        data="cifar10",
        phases=((16, 6), (24, 12), (32, 10)),
        batch=128,
        optimizer="muon",
        lr=0.1,
        muon_lr=0.08,
        warmup=0.05,
        weight_decay=5e-4,
        restart_epochs=3,
        test_every=5,
    ),
    quick={"images_per_class": 20, "batch": 32},
)
