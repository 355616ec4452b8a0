"""All that senetzoo exports, used as its documents say."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import senetzoo
from senetzoo import (
    BAM,
    CBAM,
    ECA,
    ELA,
    ESE,
    FCA,
    GC,
    GCT,
    GE,
    NONE,
    SCSE,
    SE,
    SGE,
    SRM,
    CoordinateAttention,
    MultiScaleAttention,
    NonLocal,
    Place,
    Policy,
    SenetzooError,
    ShuffleAttention,
    SimAM,
    SiteMap,
    Stem,
    TripletAttention,
    block,
    branch,
    propose,
    site_map,
    stage,
)

GATES: tuple[Policy, ...] = (
    SE(reduction=8, act="silu", gate="hardsigmoid", init="identity"),
    ECA(),
    CBAM(),
    SCSE(),
    GE(),
    SRM(),
    GCT(),
    CoordinateAttention(),
    ESE(),
    BAM(),
    SimAM(),
    GC(fusion="scale"),
    TripletAttention(kernel=3),
    SGE(groups=8),
    FCA(frequencies=4),
    ShuffleAttention(),
    MultiScaleAttention(),
    ELA(),
    NonLocal(scale="sqrt"),
)


def policies() -> list[Policy]:
    """The algebra: gates at places, in sums and overrides, and as text."""
    late = stage(3, 4) & ~block(-1)
    first: Policy = SE(reduction=(4, 8, 16, 16)).at("pre").on(late | (stage(1) & block(1)))
    both = first.off(stage(4)) + ECA().on(stage(2) | branch("mlp"))
    return [*GATES, both | CBAM().on(block(-1)), senetzoo.policy("se8@pre/s3-4+eca/s1-2"), NONE]


def networks(folder: Path) -> list[nn.Module]:
    """The ways to a network."""
    by_name = senetzoo.create(
        "se_resnet50",
        policy="eca/s1",
        num_classes=10,
        in_chans=3,
        stem=Stem(kernels=(3,), strides=(1,)),
        dropout=0.1,
        drop_path=0.1,
        seed=0,
    )
    senetzoo.import_torchvision()
    trained = senetzoo.create("se_resnet20", pretrained=True, channels="sum", in_chans=1)
    built = senetzoo.config("resnet50").replace(num_classes=10).build(seed=0)
    senetzoo.save(built, folder, classes=tuple("abcdefghij"))
    loaded = senetzoo.load(folder, num_classes=2)
    backbone = senetzoo.Backbone(built, out_indices=(1, 2, 3), output_stride=16)
    backbone.freeze(1)
    backbone.set_grad_checkpointing()
    channels: list[int] = backbone.feature_info.channels()
    built.reset_classifier(len(channels))
    return [by_name, trained, built, loaded, backbone]


def tell(model: senetzoo.SE | None = None) -> str:
    """What there is, and what it costs."""
    names: list[str] = senetzoo.list_models("se_*", pretrained=True, family="resnet")
    explanation = senetzoo.explain(names[0], model, size=64)
    rows = [f"{row.position}: {row.gate} {row.params:,} {row.macs:,}" for row in explanation.rows]
    return "\n".join([str(explanation), *rows, str(explanation.as_dict())])


def surgery(model: nn.Sequential) -> nn.Sequential:
    """Gates in a network that is there, and out again."""
    sites = SiteMap((Place("0", position="standard", stage=1, block=1),))
    print(propose(model, torch.ones(1, 3, 8, 8)) + site_map(model, "*.conv", "pre"), sites.places)
    added = senetzoo.attach(model, SE(init="identity"), sites=sites, seed=0)
    optimizer = torch.optim.SGD(added.parameters(weight_decay=1e-4), lr=0.1)
    optimizer.zero_grad()
    print(len(added), [site.path for site in added], added.unsupported)
    return senetzoo.detach(model)


def faster(sample: Tensor) -> Tensor:
    """The same function, measured and faster; and what an image goes through before."""
    model = senetzoo.create("se_resnet20", pretrained=True)
    report = model.load_report
    print(report.tag if report is not None else "", senetzoo.transforms(model).mean)
    fast = senetzoo.optimize(model, sample, engine="eager")
    print(fast.report.comparison)
    logits: Tensor = fast(sample)
    return logits


def finished() -> tuple[Path, float, str]:
    """A network that is measured, written for another runtime, and pushed."""
    network = senetzoo.load("lenet5")
    written = senetzoo.export(network, Path("lenet5.onnx"), classes=tuple("0123456789"))
    accuracy = senetzoo.evaluate(network, "digits", senetzoo.transforms(network)).top(1)
    print(senetzoo.predict(network, Path("digit.png"))[0].guesses)
    return written.files[0], accuracy.interval[0], senetzoo.push(network, "owner/lenet5")


def own_photographs(folder: Path) -> tuple[Path, float]:
    """Trained on a folder of photographs, and how good it is."""
    done = senetzoo.finetune(folder, quick=True)
    return done.folder, done.evaluation.predictions.top(1).accuracy


@senetzoo.register
class Half(nn.Module):
    """A gate of one's own: (N, C, H, W) in and out."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        """Half of `x`."""
        return x / 2


def own_loop(model: nn.Module) -> Path:
    """A run of one's own training loop, for a report."""
    with senetzoo.Recorder("runs/own", model, classes=("cat", "dog")) as run:
        return run.folder


def careful(name: str) -> nn.Module | None:
    """A name that a user typed."""
    try:
        return senetzoo.create(name)
    except SenetzooError as error:
        print(error)
        return None
