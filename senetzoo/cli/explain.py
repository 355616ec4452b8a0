"""The command ``senetzoo explain``."""

from __future__ import annotations

from typing import Annotated

import senetzoo
from senetzoo._utils.checks import PositiveInt
from senetzoo.cli import complete
from senetzoo.cli.options import Json, Network, as_command, say


@as_command("explain")
def command(
    network: Network,
    *,
    policy: Annotated[
        str | None, complete.policies, "A policy over the network's own, such as se8@pre/s3-4."
    ] = None,
    layers: Annotated[bool, "Every layer: kind, output (C x H x W), parameters, MACs."] = False,
    size: Annotated[PositiveInt | None, "Side of the image. [as the network is made for]"] = None,
    as_json: Annotated[Json, "JSON, with empty sites."] = False,
) -> None:
    """Explain NETWORK: size, cost, and which gate sits where.

    NETWORK is a name, with or without a tag and a policy; a folder that senetzoo.save or a training
    run wrote; or hf-hub:OWNER/NAME.

    \b
    Examples:
      senetzoo explain se_resnet50
      senetzoo explain resnet50+se8@pre/s3-4+eca/s1-2
      senetzoo explain resnet20 --policy eca --json
      senetzoo explain resnet20 --layers
    """
    explanation = senetzoo.explain(network, policy, size=size, layers=layers)
    say(as_json, explanation.as_dict(), str(explanation))
