"""The command ``senetzoo demo``."""

from __future__ import annotations

import json

import click

from senetzoo import _complete
from senetzoo._command import INTERRUPTED, SenetzooCommand
from senetzoo.demo.answer import Answerer
from senetzoo.demo.server import Server
from senetzoo.zoo import load


@click.command(cls=SenetzooCommand, exits={INTERRUPTED: "ended (Ctrl-C)"})
@click.option(
    "--model",
    "names",
    multiple=True,
    default=("resnet20", "se_resnet20"),
    metavar="NAME[.TAG]",
    show_default=True,
    help="A network, with its default weights or those of TAG. Repeatable; they stand side by "
    "side in this order.",
    shell_complete=_complete.networks,
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address or name to listen on."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8000,
    show_default=True,
    help="Port to listen on; 0 for one that is free.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the address as JSON.")
def demo(names: tuple[str, ...], host: str, port: int, as_json: bool) -> None:
    """Show in the browser what networks make of your images, side by side.

    Drop an image on the page: each network's classes, heat maps (Grad-CAM, Layer-CAM) and gates,
    with as much noise as you like. It needs no network connection, and images stay on this machine.
    Ctrl-C ends it.

    It listens on this machine alone, unless --host is another address: then everybody who reaches
    that address can use it, without encryption.

    \b
    Examples:
      senetzoo demo
      senetzoo demo --model resnet20 --model se_resnet20 --port 0
      senetzoo demo --port 0 --json
    """
    models = {name: load(name) for name in names}
    with Server(host, port, Answerer(models)) as server:
        if not server.loopback:
            click.echo(f"warning: Everybody who reaches {host} can use the demo.", err=True)
        words = f"The demo is at {server.url} and ends with Ctrl-C."
        click.echo(json.dumps({"url": server.url}) if as_json else words)
        server.serve_forever()
