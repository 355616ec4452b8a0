"""The command ``senetzoo list``."""

from __future__ import annotations

from typing import Annotated

import senetzoo
from senetzoo.cli import complete
from senetzoo.cli.options import Json, as_command, say


@as_command("list")
def command(
    pattern: Annotated[str, complete.networks] = "*",
    *,
    pretrained: Annotated[bool, "Only networks with published weights."] = False,
    family: Annotated[str | None, complete.families, "Only this family."] = None,
    as_json: Json = False,
) -> None:
    """List the networks whose names match PATTERN, with the tags of their weights.

    Weights in the package work offline; others are downloaded when they are first used.

    \b
    Examples:
      senetzoo list
      senetzoo list 'se_*' --pretrained
      senetzoo list --family resnet --json
    """
    from senetzoo.errors import ConfigError, nearest
    from senetzoo.weights.manifest import manifest, tags

    limited = pretrained or family is not None
    names = senetzoo.list_models(pattern, pretrained=pretrained or None, family=family)
    if not names:
        raise ConfigError(
            f"No network matches {pattern!r}{' with these options' * limited}.",
            "* matches any characters.",
            ("" if limited else nearest(pattern, senetzoo.list_models()))
            or "Type for example: senetzoo list '*resnet*'",
        )
    found, lines = [], []
    for name in names:
        known = tags(name)
        embedded = [t for t in known if manifest()[f"{name}.{t}"].source.kind == "embedded"]
        found.append({"name": name, "weights": known, "embedded": embedded})
        marked = (f"{tag} (in the package)" if tag in embedded else tag for tag in known)
        lines.append(f"{name}  {', '.join(marked)}".rstrip())
    say(as_json, found, "\n".join(lines))
