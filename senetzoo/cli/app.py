"""The command ``senetzoo app``."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING, Annotated

from senetzoo._utils.checks import Ge, Le
from senetzoo._utils.terminal import echo
from senetzoo.cli import complete
from senetzoo.cli.base import INTERRUPTED
from senetzoo.cli.options import Json, as_command, say
from senetzoo.errors import MissingExtraError

if TYPE_CHECKING:
    import gradio


@as_command("app", exits={INTERRUPTED: "ended (Ctrl-C)"})
def command(
    *,
    names: Annotated[
        tuple[str, ...],
        "--model",
        complete.networks,
        "A network, with its default weights or those of TAG. Repeatable; they stand side by side "
        "in this order.",
        {"metavar": "NAME[.TAG]"},
    ] = ("resnet20", "se_resnet20"),
    host: Annotated[str, "Address or name to listen on."] = "127.0.0.1",
    port: Annotated[
        Annotated[int, Ge(0), Le(65535)],
        "Port to listen on; 0 for the first from 7860 on that is free.",
    ] = 0,
    as_json: Json = False,
) -> None:
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
    from senetzoo.zoo import load

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
                echo(f"warning: Everybody who reaches {host} can use the app.", err=True)
            say(as_json, {"url": url}, f"The app is at {url} and ends with Ctrl-C.")
            _serve(app)
        finally:
            app.close(verbose=False)


def _serve(app: gradio.Blocks) -> None:
    """Wait for the server to end."""
    app.server.thread.join()
