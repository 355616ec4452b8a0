"""The command ``senetzoo explain``."""

from __future__ import annotations

import shlex
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
        str | None,
        complete.policies,
        "A policy that overrides the network's own, such as se8@pre/s3-4; MODULE:NAME for your own "
        "gate.",
    ] = None,
    layers: Annotated[
        bool, "List every layer: kind, output (C x H x W), parameters, MACs."
    ] = False,
    size: Annotated[PositiveInt | None, "Image side in pixels. [the network's own]"] = None,
    as_json: Annotated[Json, "JSON, including empty sites."] = False,
) -> None:
    """Explain NETWORK: its size, its cost, and where its gates are.

    NETWORK is a name, with or without a tag and a policy; a folder that senetzoo.save or a training
    run wrote; or hf-hub:OWNER/NAME.

    \b
    Examples:
      senetzoo explain se_resnet50
      senetzoo explain resnet50+se8@pre/s3-4+eca/s1-2
      senetzoo explain resnet20 --policy eca --json
      senetzoo explain resnet20 --layers
    """
    from senetzoo.own import with_names
    from senetzoo.policies.text import PATH
    from senetzoo.zoo import with_policy

    text = None if policy is None else with_names(policy)
    explanation = senetzoo.explain(network, text, size=size, layers=layers)
    lines = [str(explanation)]
    if policy is not None and text is not None and text != policy:
        registered = dict.fromkeys(PATH.findall(policy))
        words = " ".join(f"--register {module}:{name}" for module, name in registered)
        lines += [f"in other commands: {words} {shlex.quote(with_policy(network, text))}"]
    say(as_json, explanation.as_dict(), "\n".join(lines))
