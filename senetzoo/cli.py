"""The command ``senetzoo``."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import click

import senetzoo
from senetzoo._command import BAD_INPUT, SenetzooCommand

# Rooms are imported when their command is asked for: `senetzoo list` must not load a trainer.
_ELSEWHERE = {
    "bench": "senetzoo.bench.command:bench",
    "predict": "senetzoo.predict:command",
    "report": "senetzoo.report.command:report",
    "train": "senetzoo.train.command:train",
}


class _Group(click.Group):
    """A group that names the nearest command for an unknown one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from senetzoo.errors import nearest

        known = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in known:
            raise click.UsageError(
                f"There is no command {args[0]!r}. "
                + (nearest(args[0], known) or f"Commands are {', '.join(known)}."),
                ctx,
            )
        return super().resolve_command(ctx, args)


class _Lazy(_Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_ELSEWHERE])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _ELSEWHERE:
            module, name = _ELSEWHERE[cmd_name].split(":")
            command = getattr(importlib.import_module(module), name)
            return command if isinstance(command, click.Command) else None
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Lazy, name="senetzoo", context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(senetzoo.__version__, prog_name="senetzoo")
def main() -> None:
    """Image classifiers in which where channel attention goes is a value you pass.

    \b
    Examples:
      senetzoo predict photo.jpg
      senetzoo list 'se_*' --pretrained
      senetzoo show resnet50+se16@pre
      senetzoo bench --model resnet20 --model se_resnet20
    """


@main.command("list", cls=SenetzooCommand)
@click.argument("pattern", default="*")
@click.option("--pretrained", is_flag=True, help="Only networks with published weights.")
@click.option("--family", help="Only this family.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of lines.")
def list_command(pattern: str, pretrained: bool, family: str | None, as_json: bool) -> None:
    """List networks whose name matches PATTERN."""
    from senetzoo.errors import ConfigError
    from senetzoo.weights.manifest import tags

    names = senetzoo.list_models(pattern, pretrained=pretrained or None, family=family)
    if not names:
        raise ConfigError(
            f"No network matches {pattern!r}" + (" with these options." if pretrained else "."),
            "* stands for any letters.",
            "Type for example: senetzoo list '*resnet*'",
        )
    if as_json:
        click.echo(json.dumps([{"name": name, "weights": tags(name)} for name in names]))
        return
    for name in names:
        click.echo(f"{name}  {', '.join(tags(name))}".rstrip())


@main.command(cls=SenetzooCommand)
@click.argument("network")
@click.option("--policy", help="A policy over the network's own, such as se8@pre/s3-4.")
@click.option("--json", "as_json", is_flag=True, help="JSON, with empty sites.")
def show(network: str, policy: str | None, as_json: bool) -> None:
    """Show NETWORK: size, cost, and which gate sits where.

    \b
    Examples:
      senetzoo show se_resnet50
      senetzoo show resnet50+se8@pre/s3-4+eca/s1-2
    """
    explanation = senetzoo.explain(network, policy)
    click.echo(json.dumps(explanation.as_dict()) if as_json else str(explanation))


# Two names for two questions with one answer: "what is this network?", "what does this policy do?"
main.add_command(show, "explain")


@main.group(cls=_Group)
def weights() -> None:
    """Published weights."""


@weights.command("list", cls=SenetzooCommand)
@click.option("--json", "as_json", is_flag=True, help="The entries as JSON.")
def weights_list(as_json: bool) -> None:
    """List the entries of the manifest."""
    import dataclasses

    from senetzoo.weights.manifest import manifest

    entries = manifest()
    if as_json:
        click.echo(json.dumps({tag: dataclasses.asdict(e) for tag, e in entries.items()}))
        return
    for tag, entry in entries.items():
        figures = ", ".join(f"{m.value:.2f} % on {m.data}" for m in entry.metrics)
        default = " (default)" if entry.default else ""
        click.echo(f"{tag}{default}  {entry.source.kind}  {figures}".rstrip())


@weights.command("pin", cls=SenetzooCommand)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("tag")
@click.option("--data", type=click.Path(path_type=Path), help="Local copy of the data set.")
@click.option("--no-default", is_flag=True, help="Do not make it the network's default.")
def weights_pin(run: Path, tag: str, data: Path | None, no_default: bool) -> None:
    """Embed the weights of a finished RUN as TAG and write their manifest entry."""
    from senetzoo.train.pin import pin

    entry = pin(run, tag, data=data, default=not no_default)
    click.echo(f"{entry.model}.{tag}: {entry.metrics[0].value:.2f} % on {entry.metrics[0].data}")


@main.command(cls=SenetzooCommand)
@click.argument("tags", nargs=-1)
@click.pass_context
def verify(ctx: click.Context, tags: tuple[str, ...]) -> None:
    """Check files against the manifest: all embedded weights, or those with these TAGS.

    \b
    Examples:
      senetzoo verify
      senetzoo verify se_resnet20.cifar10_v1
    """
    from senetzoo.errors import SenetzooError
    from senetzoo.weights import fetch, manifest

    entries = manifest.manifest()
    chosen = tags or [tag for tag, e in entries.items() if e.source.kind == "embedded"]
    failed = False
    for tag in chosen:
        model, _, name = tag.partition(".")
        try:
            senetzoo.config(model)  # an unknown network is told apart from one without weights
            full, entry = manifest.find(model, name or None)
            located = fetch.locate(full, entry)
        except SenetzooError as error:  # the others are checked all the same
            click.echo(f"error: {error}", err=True)
            failed = True
            continue
        click.echo(f"{full}  ok  {located.origin}  sha256 {located.sha256}")
    if failed:
        ctx.exit(BAD_INPUT)


if __name__ == "__main__":
    main()
