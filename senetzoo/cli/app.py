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


@as_command("app", exits={INTERRUPTED: "stopped (Ctrl-C)"})
def command(
    *,
    names: Annotated[
        tuple[str, ...],
        "--model",
        complete.networks,
        "A network, with its default weights or those of TAG, or a folder of one. Repeatable; they "
        "are shown side by side in this order.",
        {"metavar": "NETWORK"},
    ] = ("resnet20", "se_resnet20"),
    host: Annotated[str, "Address or host name to listen on."] = "127.0.0.1",
    port: Annotated[
        Annotated[int, Ge(0), Le(65535)],
        "Port to listen on; 0 for the first free port from 7860 on, or GRADIO_SERVER_PORT.",
    ] = 0,
    as_json: Json = False,
) -> None:
    """Compare networks on your images, side by side in the browser.

    Drop an image on the page to see each network's classes, heat maps (Grad-CAM, Layer-CAM) and
    gates; a slider adds noise. The app works offline, and images stay on this machine. Ctrl-C stops
    it.

    The app accepts connections from this machine only, unless --host is another address: then
    anyone who can reach that address can use it, without encryption.

    \b
    Examples:
      senetzoo app
      senetzoo app --model resnet20 --model se_resnet20 --port 8000
      senetzoo app --json
    """
    from senetzoo.train.stop import signals
    from senetzoo.zoo import config, load

    for name in names:
        config(name)  # raises for an unknown name
    echo(f"loading {' and '.join(names)} ...", err=True)
    # So that uploads are deleted on SIGTERM and SIGHUP too.
    with signals(_interrupt), tempfile.TemporaryDirectory(prefix="senetzoo-") as folder:
        # gradio's default folder for uploads can be read by other users of this machine.
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
                echo(f"warning: Anyone who can reach {host} can use the app.", err=True)
            say(as_json, {"url": url}, f"The app is at {url}. Press Ctrl-C to stop it.")
            _serve(app)
        finally:
            app.close(verbose=False)
            # It waits 5 s for requests to end; Python can abort if it exits while torch still runs.
            app.server.thread.join()


def _interrupt() -> None:
    raise KeyboardInterrupt


def _serve(app: gradio.Blocks) -> None:
    """Wait for the server to stop."""
    app.server.thread.join()
