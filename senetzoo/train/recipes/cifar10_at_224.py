"""ResNet-18 and SE-ResNet-18 on CIFAR-10 enlarged to 224x224, at two learning rates.

Source: a report in which SE gains 1 point at a learning rate of 0.001, and at 0.1 makes the
accuracy fluctuate far less from epoch to epoch; 100 epochs.

    senetzoo train cifar10_at_224 --data CIFAR10

The learning rate is constant and every epoch is tested, so that the fluctuation can be seen. SGD
with momentum 0.9, batches of 128, crop and mirror are chosen here. Hardware: one GPU of 80 GB,
about 10 hours in bf16 (``--set precision=bf16``) for the four arms. To expect: 93 to 95 %. Not
measured here.
"""

from senetzoo.train.experiment import Experiment
from senetzoo.train.recipe import Recipe

CIFAR10_AT_224 = Experiment(
    Recipe(
        name="cifar10_at_224",
        model="resnet18",
        data="cifar10",
        phases=((224, 100),),
        weight_decay=5e-4,
        warmup=0.0,
        schedule="constant",
    ),
    arms={
        f"{model}_lr{lr:g}": {"model": model, "lr": lr}
        for lr in (0.1, 0.001)
        for model in ("resnet18", "se_resnet18")
    },
    quick={"images_per_class": 2, "batch": 10, "phases": ((64, 1),)},
)
