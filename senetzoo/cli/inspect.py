"""``senetzoo inspect``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from senetzoo._utils.checks import PositiveInt
from senetzoo._utils.files import atomically
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
    images: Annotated[PositiveInt | None, "At most so many images of each class."] = None,
    chosen: Annotated[tuple[str, ...], "--class", "A class to show in the plots. [four]"] = (),
    out: Annotated[Path, FILE, "The page."] = Path("excitations.html"),
    as_json: Annotated[Json, "Print the figures of every gate as JSON."] = False,
) -> None:
    """Show what each gate of NETWORK does with images: by channel, by class, and how much.

    NETWORK is a name with trained weights, with or without a tag; a folder that senetzoo.save or a
    training run wrote; or hf-hub:OWNER/NAME. Of one image: senetzoo predict --explain.

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
                f"Its classes are {', '.join(classes[:10])}{' ...' if len(classes) > 10 else ''}.",
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
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomically(out) as partial:
        partial.write_text(page, encoding="utf-8")
    gates = [excitation.as_dict(classes, drifts) for excitation in found.values()]
    text = [*columns([section.gates.head, *section.gates.rows]), f"page: {out}"]
    known = {"network": network, "data": labeled.images.name, "gates": gates}
    say(as_json, known, "\n".join(text))


def _drift(model: Classifier) -> dict[str, float] | None:
    """How far the gates are from the weights that the manifest's seed drew; None without one."""
    from senetzoo.inspect.excitations import drift
    from senetzoo.weights.manifest import history, manifest
    from senetzoo.zoo import config

    report = model.load_report
    if report is None or report.tag not in manifest():
        return None
    first, training = next(iter(history(report.tag).items()), (report.tag, None))
    if training is None or training.start is not None:
        return None
    # Where training went on with other gates, not all of them are of that seed; whether it did
    # is not known of weights that are not published any more.
    if first not in manifest() or config(first).policy != config(report.tag).policy:
        return None
    return drift(model, config(first).build(seed=training.seed))
