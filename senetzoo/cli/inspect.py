"""``senetzoo inspect``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from senetzoo._utils.checks import PositiveInt
from senetzoo._utils.files import write_text
from senetzoo.cli.options import (
    FILE,
    Data,
    Json,
    Network,
    Stated,
    WeightsFile,
    as_command,
    say,
)
from senetzoo.data.labels import listed
from senetzoo.errors import ConfigError, nearest

if TYPE_CHECKING:
    from senetzoo.nn.classifier import Classifier

_BATCH = 250


@as_command("inspect")
def command(
    network: Network,
    *,
    data: Data,
    weights: WeightsFile = None,
    preprocessing: Stated,
    images: Annotated[PositiveInt | None, "Use at most this many images of each class."] = None,
    chosen: Annotated[
        tuple[str, ...], "--class", "A class to show in the plots. Repeatable. [four classes]"
    ] = (),
    out: Annotated[Path, FILE, "The page to write."] = Path("excitations.html"),
    as_json: Annotated[Json, "JSON of the values of every gate."] = False,
) -> None:
    """Show what the gates of NETWORK do with images: values by channel and by class.

    NETWORK is a name with trained weights, with or without a tag; a folder that senetzoo.save or a
    training run wrote; or hf-hub:OWNER/NAME. For a single image, use senetzoo predict --explain.

    \b
    Examples:
      senetzoo inspect se_resnet20 --data cifar10
      senetzoo inspect my_network --data photos --class cat --class dog
    """
    from senetzoo._utils.terminal import columns
    from senetzoo.cli.networks import trained
    from senetzoo.eval.data import batches, images_for
    from senetzoo.inspect.excitations import excitations
    from senetzoo.nn.transforms import transforms
    from senetzoo.report.excitations import excitation_section
    from senetzoo.report.markup import rendered

    model = trained(network, weights=weights, preprocessing=preprocessing)
    labeled = images_for(model, data)
    if images is not None:
        labeled = dataclasses.replace(labeled, images=labeled.images.first(images))
    classes = labeled.images.classes
    for name in chosen:
        if name not in classes:
            raise ConfigError(
                f"The data has no class {name!r}.",
                f"Its classes are {listed(classes)}.",
                nearest(name, classes),
            )
    pairs = batches(labeled.images, transforms(model), _BATCH)
    found = excitations(model, pairs, classes=len(classes))
    drifts = _drift(model)
    section = excitation_section(network, found, classes, chosen=chosen, drift=drifts)
    page = rendered(
        "excitations.html",
        title=f"Excitations of {network}",
        about=f"On {labeled.images.name}.",
        section=section,
    )
    write_text(out, page)
    gates = [excitation.as_dict(classes, drifts) for excitation in found.values()]
    text = [*columns([section.gates.head, *section.gates.rows]), f"page: {out}"]
    known = {"network": network, "data": labeled.images.name, "gates": gates}
    say(as_json, known, "\n".join(text))


def _drift(model: Classifier) -> dict[str, float] | None:
    """How far training moved the gates from their initial weights; None if these aren't known."""
    from senetzoo.inspect.excitations import drift
    from senetzoo.weights.manifest import history, manifest
    from senetzoo.zoo import config

    report = model.load_report
    if report is None or report.tag not in manifest():
        return None
    first, training = next(iter(history(report.tag).items()), (report.tag, None))
    if training is None or training.start is not None:
        return None
    # If training was continued with other gates, not all of them come from that seed. Whether it
    # was isn't known for weights that are no longer published.
    if first not in manifest() or config(first).policy != config(report.tag).policy:
        return None
    return drift(model, config(first).build(seed=training.seed))
