"""The command ``senetzoo app``."""

from __future__ import annotations

import json
import os
import tempfile
from typing import TYPE_CHECKING

import click

from senetzoo.cli import complete
from senetzoo.cli.base import INTERRUPTED, SenetzooCommand
from senetzoo.errors import MissingExtraError
from senetzoo.zoo import load

if TYPE_CHECKING:
    import gradio


@click.command("app", cls=SenetzooCommand, exits={INTERRUPTED: "ended (Ctrl-C)"})
@click.option(
    "--model",
    "names",
    multiple=True,
    default=("resnet20", "se_resnet20"),
    metavar="NAME[.TAG]",
    show_default=True,
    help="A network, with its default weights or those of TAG. Repeatable; they stand side by "
    "side in this order.",
    shell_complete=complete.networks,
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address or name to listen on."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Port to listen on; 0 for the first from 7860 on that is free.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the address as JSON.")
def command(names: tuple[str, ...], host: str, port: int, as_json: bool) -> None:
    """Show in the browser what networks make of your images, side by side.

    Drop an image on the page: each network's classes, heat maps (Grad-CAM, Layer-CAM) and gates,
    with as much noise as you like. It needs no network connection, and images stay on this machine.
    Ctrl-C ends it.

    It listens on this machine alone, unless --host is another address: then everybody who reaches
    that address can use it, without encryption.

    \b
    Examples:
      senetzoo app
      senetzoo app --model resnet20 --model se_resnet20 --port 8000
      senetzoo app --json
    """
    with tempfile.TemporaryDirectory(prefix="senetzoo-") as folder:
        # Where gradio keeps images, by default in a folder that others on this machine can read.
        os.environ["GRADIO_TEMP_DIR"] = folder
        try:
            from senetzoo.app.app import build, is_loopback, launch
        except ModuleNotFoundError as error:
            if error.name != "gradio":
                raise
            raise MissingExtraError("The app", "gradio", "app") from None

        app = build({name: load(name) for name in names})
        url = launch(app, host, port or None)
        try:
            if not is_loopback(host):
                click.echo(f"warning: Everybody who reaches {host} can use the app.", err=True)
            text = f"The app is at {url} and ends with Ctrl-C."
            click.echo(json.dumps({"url": url}) if as_json else text)
            _serve(app)
        finally:
            app.close(verbose=False)


def _serve(app: gradio.Blocks) -> None:
    """Wait for the server to end."""
    app.server.thread.join()
