"""The command ``senetzoo weights convert``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click

from senetzoo._utils.terminal import echo
from senetzoo.cli import complete
from senetzoo.cli.options import Json, Stated, UserPath, as_command, say

if TYPE_CHECKING:
    from senetzoo.nn.classifier import Classifier
    from senetzoo.weights.convert import Conversion


@as_command("convert")
def command(
    file: Annotated[Path, UserPath(exists=True, dir_okay=False)],
    *,
    network: Annotated[str, "--to", complete.networks, "The network, such as se_resnet50."],
    called: Annotated[str | None, "--as", "The network's name in the file's library."] = None,
    part: Annotated[
        str | None, "State dict to read if the file has several, such as state_dict_ema."
    ] = None,
    by_structure: Annotated[bool, "Match tensors by order and shape, ignoring names."] = False,
    yes: Annotated[bool, "Accept the mapping of --by-structure."] = False,
    out: Annotated[Path | None, "File to write. [NETWORK.safetensors]"] = None,
    preprocessing: Stated,
    as_json: Json = False,
) -> None:
    """Convert FILE, weights of another library, to senetzoo's format.

    FILE is a safetensors file, or a state dict saved by torch.save; no code in it is run.

    \b
    Examples:
      senetzoo weights convert resnet50-11ad3fa6.pth --to resnet50
      senetzoo weights convert se_resnet50-ce0d4300.pth --to se_resnet50
      senetzoo weights convert resnet50b.pth --to resnet50 --as resnet50b
      senetzoo weights convert mine.pt --to resnet20 --by-structure
      senetzoo weights convert mine.pt --to resnet20 --by-structure --yes --json
    """
    import dataclasses
    import hashlib

    import senetzoo
    from senetzoo.errors import ConfigError, WeightsError
    from senetzoo.nn.preprocessing import usual
    from senetzoo.weights import convert as converting
    from senetzoo.weights import unpack

    spec = senetzoo.config(network)
    target = Path(f"{spec.name}.safetensors") if out is None else out
    converting.check_free(target)

    def build(changes: Mapping[str, object], policy: str) -> Classifier:
        # The user's own policy takes precedence.
        own = network if "+" in network or not policy else f"{network}+{policy}"
        return senetzoo.config(own).replace(**changes).build(seed=0)

    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    state, notes = unpack.unpack(unpack.load(content, file), file, part)
    if by_structure:
        done = converting.by_structure(state, build)
        if not yes:
            _confirm(done, as_json)
    else:
        named = converting.by_names(state, spec.name, build, called=called)
        if named is None:
            first = ", ".join(list(state)[:3])
            raise WeightsError(
                f"The tensor names in {file} are not those of a library that senetzoo knows.",
                f"The first names are {first}.",
                "Match the tensors by order and shape: --by-structure",
            )
        done = named
    converting.check_values(done)
    size, channels = done.model.input_size, done.model.in_chans
    known = usual(size).for_channels(channels) if channels in (1, 3) else None
    if preprocessing and known is None:
        raise ConfigError(
            f"Preprocessing can't be given for {channels} channels.",
            "It is defined for gray and RGB images only.",
            "Leave out --mean, --std, --size and --crop",
        )
    stated = known.replace(**preprocessing) if known and preprocessing else None
    converting.save(done, network, digest, target, stated)
    report = _report(done, notes, file, digest, network, target)
    report["preprocessing"] = None if stated is None else dataclasses.asdict(stated)
    if stated is not None:
        said = f"Preprocessing: {stated}."
    elif known is None:
        said = f"Images of {channels} channels have to be normalized by the caller."
    else:
        said = f"The preprocessing is not known: {known} will be assumed."
        said += " Set it with --mean, --std, --size and --crop."
    say(as_json, report, _text(report, said))


def _confirm(done: Conversion, as_json: bool) -> None:
    """Show the mapping; `WeightsError` unless the user accepts it."""
    from senetzoo.errors import WeightsError

    asked = False
    if not as_json:
        own = done.state
        for theirs, ours in done.mapping:
            echo(f"{theirs} -> {ours} {tuple(own[ours].shape)}")
        try:
            asked = click.confirm("Names were ignored. Is each tensor mapped correctly?")
        except click.Abort:  # not interactive
            echo("")
    if not asked:
        raise WeightsError(
            "Nothing was written.", "The mapping was not accepted.", "Add --yes to accept it"
        )


def _report(
    done: Conversion, notes: tuple[str, ...], file: Path, digest: str, network: str, out: Path
) -> dict[str, Any]:
    candidate = done.candidates[0]
    return {
        "file": str(file),
        "sha256": digest,
        "dialect": candidate.dialect,
        "names": [{"dialect": other.dialect, "network": other.name} for other in done.candidates],
        "network": network,
        "config": dict(candidate.changes),
        "policy": candidate.policy,
        "num_classes": done.model.num_classes,
        "tensors": len(done.state),
        "parameters": sum(parameter.numel() for parameter in done.model.parameters()),
        "notes": [*notes, *done.notes],
        "mapping": dict(done.mapping),
        "out": str(out),
    }


def _text(report: Mapping[str, Any], said: str) -> str:
    if report["dialect"] == "structure":
        origin = "matched by order and shape"
    else:
        known = [f"{n['dialect']} ({n['network']})".replace(" ()", "") for n in report["names"]]
        origin = f"tensor names of {', '.join(known)}"
    name = report["network"] + (f"+{report['policy']}" if report["policy"] else "")
    changes = ", ".join(f"{field}={value!r}" for field, value in report["config"].items())
    return "\n".join(
        [
            f"{report['file']}: {origin}",
            *(f"  {note}" for note in report["notes"]),
            f"  {report['tensors']} tensors, {report['parameters']:,} parameters, "
            f"{report['num_classes']} classes.",
            f"  {said}",
            f"Written to {report['out']}, as {name}{f' with {changes}' if changes else ''}. "
            "To load it:",
            f"  senetzoo.load({report['network']!r}, weights={report['out']!r})",
        ]
    )
