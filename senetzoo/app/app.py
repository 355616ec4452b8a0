"""A Gradio app that compares networks on an image, side by side.

This file runs as a Hugging Face Space without changes: copy it there as ``app.py``, beside a
``requirements.txt`` with the line ``senetzoo[app]``, and a ``README.md`` that begins with::

    ---
    sdk: gradio
    sdk_version: 6.31.0
    app_file: app.py
    ---

The Space shows the networks in `NAMES`.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from functools import partial
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Read when gradio is imported; otherwise gradio reports each start to its developers.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from senetzoo import zoo
from senetzoo._utils.terminal import printable
from senetzoo.data.corruptions import SEVERITIES, corrupt
from senetzoo.data.images import open_image
from senetzoo.data.labels import listed
from senetzoo.errors import ConfigError, SenetzooError
from senetzoo.eval.predict import Guess, best, class_names
from senetzoo.inspect.evidence import Evidence, evidence
from senetzoo.inspect.page import figures, gates_table
from senetzoo.inspect.pictures import data_uri, overlay, to_image
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import parameters
from senetzoo.nn.transforms import transforms

NAMES = ("resnet20", "se_resnet20")
TOP = 5
# Maximum size of an image file in bytes.
MAX_FILE_SIZE = 10_000_000
# Pillow reads some sixty formats, one of them by running Ghostscript; the app accepts only these.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")

# Gradio drops an @container rule that isn't inside another rule.
_CSS = """
.network .pictures { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .5rem; }
.network figure { margin: 0; }
.network figcaption { font-size: .85rem; opacity: .8; }
.network img { width: 100%; margin: 0; display: block; image-rendering: pixelated; }
.network .wide { overflow-x: auto; }
.network p { margin: .5rem 0; }
.network table { width: 100%; margin: 0; border: 0; font-variant-numeric: tabular-nums; }
.network th, .network td { padding: .2rem .6rem .2rem 0; border: 0; text-align: left;
  white-space: nowrap; border-bottom: 1px solid var(--border-color-primary); }
.network tr { border: 0; }
.network th[scope=row] { font-weight: 400; }
.network td.number { text-align: right; }
.network td.strip { width: 50%; min-width: 5rem; }
.network td.strip img { height: .9rem; }
.network .wide {
  container-type: inline-size;
  @container (max-width: 30rem) {
    & th[scope=row] { white-space: normal; }
    & .gates :is(th, td):is(:nth-child(3), :nth-child(5)) { display: none; }
  }
}
"""
_LEGEND = (
    "Heat maps show each network's most probable class, from dark (no evidence) to bright (the "
    "most in this image). A gate's row has a cell for each channel, from dark (closed) to bright "
    "(open); the numbers are a channel and the factor of its feature map, or the one that fits "
    "best if pixels have different ones."
)


def build(models: Mapping[str, Classifier]) -> gr.Blocks:
    """Build the app.

    Its endpoint ``/classify`` returns the results as JSON.

    Args:
        models: The networks by their names on the page, in order.
    """
    app = gr.Blocks(title="senetzoo", delete_cache=(600, 600), fill_width=True)
    with app:
        gr.Markdown("# What the networks see")
        with gr.Row():
            image = gr.Image(label="Image", sources=["upload", "clipboard"], height=240)
            # Pass on the unchanged file: `open_image` reads it, with better error messages.
            image.preprocess = partial(_uploaded, image.GRADIO_CACHE)  # type: ignore[method-assign]
            with gr.Column():
                noise = gr.Slider(
                    0,
                    SEVERITIES[-1],
                    step=1,
                    label="Noise on the networks' input",
                    info="Gaussian, with the severities of CIFAR-10-C; 0 for none",
                )
                status = gr.HTML()
        outputs: list[gr.components.Component] = [status]
        with gr.Row():
            for name, model in models.items():
                with gr.Column(min_width=340):
                    gr.Markdown(f"## {name}\n{parameters(model):,} parameters\n\n{_classes(model)}")
                    outputs += [
                        gr.Label(label="Classes", num_top_classes=TOP),
                        gr.HTML(elem_classes="network"),
                    ]
        gr.Markdown(_LEGEND)
        gr.on(
            [image.change, noise.change],
            partial(_show, models),
            [image, noise],
            outputs,
            concurrency_id="classify",
            trigger_mode="always_last",
            api_visibility="private",
        )
        gr.Button(visible=False).click(
            partial(_answer, models),
            [image, noise],
            gr.JSON(visible=False),
            concurrency_id="classify",
            api_name="classify",
        )
    return app


def launch(app: gr.Blocks, host: str | None = None, port: int | None = None) -> str:
    """Start an app's server and return its URL.

    Args:
        app: The result of `build`.
        host: Address to listen on; None for GRADIO_SERVER_NAME, or this machine only.
        port: Port; None for GRADIO_SERVER_PORT, or the first free port from 7860 on.

    Raises:
        ConfigError: The server can't listen there.
    """
    host = host or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    try:
        # gradio would try a hundred ports, for five seconds each.
        family, kind, _, _, address = socket.getaddrinfo(
            host.strip("[]"), port or 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
        _, url, _ = app.launch(
            server_name=host,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            pwa=False,
            max_file_size=MAX_FILE_SIZE,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            theme=_theme(),
            css=_CSS,
            app_kwargs={"middleware": [Middleware(_LocalOnly)] if is_loopback(host) else []},
        )
    except (OSError, UnicodeError):
        raise ConfigError(
            f"The app can't listen on {host}:{port or 'any port'}.",
            "The port is in use or not allowed, or the address isn't one of this machine.",
            "Type --port 0 for a free port, or --host 127.0.0.1 for this machine",
        ) from None
    return str(url)


def _theme() -> gr.themes.Base:
    """System fonts, so that none are downloaded, and legible small print."""
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])
    return theme.set(block_info_text_color="*neutral_600", block_title_text_color="*neutral_700")


def is_loopback(host: str) -> bool:
    """Whether an address or name is reachable from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class _LocalOnly:
    """Middleware that rejects requests to other host names and from pages of other sites.

    Otherwise another site's page could reach the app by DNS rebinding, or send images.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host, origin = headers.get("host", ""), headers.get("origin")
            if not is_loopback(_hostname(host)):
                refusal = "This app answers only at localhost. Open the address that it printed."
            elif origin is not None and origin.partition("://")[2] != host:
                refusal = "This app takes images only from its own page."
            else:
                refusal = ""
            if refusal:
                await PlainTextResponse(refusal, 403)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _uploaded(folder: str, payload: Any) -> str | None:
    """The path of an uploaded image; gradio lets requests give any path."""
    if payload is None:
        return None
    path = Path(payload.path or "").resolve()
    if Path(folder).resolve() not in path.parents:
        raise _refusal("The image was not uploaded.")
    return str(path)


def _refusal(text: str) -> gr.Error:
    """An error of the request, without a traceback in the terminal."""
    return gr.Error(text, print_exception=False)


def _hostname(host: str) -> str:
    """The host name in a Host header; empty if there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _look(
    models: Mapping[str, Classifier], path: str, noise: float
) -> dict[str, tuple[tuple[Guess, ...], Evidence]]:
    """Each network's guesses for an image, best first, and the evidence for them."""
    if noise not in (0, *SEVERITIES):
        raise _refusal(f"The noise is a whole number from 0 to {SEVERITIES[-1]}.")
    try:
        image = open_image(path, "the image", formats=FORMATS)
        looks = {}
        for name, model in models.items():
            transform = transforms(model)
            tensor = transform(image)
            if noise:
                pixels = transform.pixels(tensor).permute(1, 2, 0)
                (pixels,) = corrupt(pixels[None], "gaussian_noise", int(noise))
                tensor = transform.normalized(pixels.permute(2, 0, 1))
            found = evidence(model, tensor, transform)
            names = tuple(map(printable, class_names(model)))
            (guesses,) = best(found.probabilities[None], TOP, names)
            looks[name] = guesses, found
    except SenetzooError as error:
        raise _refusal(" ".join(str(error).splitlines())) from None
    return looks


def _show(models: Mapping[str, Classifier], path: str | None, noise: float) -> list[Any]:
    """The values of the page's output components."""
    if path is None:
        return ["", *[None, ""] * len(models)]
    try:
        looks = _look(models, path, noise)
    except gr.Error as error:
        # Raised, it would leave the answers for the previous image beside this one.
        return [f'<p role="alert">{escape(error.message)}</p>', *[None, ""] * len(models)]
    values: list[Any] = []
    says: list[str] = []
    for name, (guesses, found) in looks.items():
        says.append(f"{name} says {guesses[0].name}, {100 * guesses[0].probability:.1f} %")
        values += [
            {guess.name: guess.probability for guess in guesses},
            figures("the image", guesses[0].name, found) + gates_table(found),
        ]
    return [f'<p role="status">{escape("; ".join(says))}.</p>', *values]


def _classes(model: Classifier) -> str:
    """Number and first names of the classes, in Markdown."""
    names = class_names(model)
    text = printable(listed(names))
    # Names may have characters that mean something in Markdown or HTML.
    text = re.sub("[^A-Za-z0-9 ,.]", lambda found: f"&#{ord(found[0])};", text)
    return f"{len(names):,} class{'es' * (len(names) != 1)}: {text}"


def _answer(models: Mapping[str, Classifier], path: str | None, noise: float) -> dict[str, Any]:
    """The result of the endpoint."""
    if path is None:
        raise _refusal("There is no image.")
    return {
        "noise": int(noise),
        "networks": [
            {
                "name": name,
                "parameters": parameters(models[name]),
                "guesses": [
                    {"class": g.name, "probability": round(g.probability, 6)} for g in guesses
                ],
                "pictures": {
                    "input": data_uri(to_image(found.picture)),
                    "grad_cam": data_uri(overlay(found.picture, found.grad_cam)),
                    "layer_cam": data_uri(overlay(found.picture, found.layer_cam)),
                },
                "gates": {path: gate.mean.tolist() for path, gate in found.gates.items()},
            }
            for name, (guesses, found) in _look(models, path, noise).items()
        ],
    }


if __name__ == "__main__":
    demo = build({name: zoo.load(name) for name in NAMES})
    print(f"Running on {launch(demo)}", flush=True)
    demo.block_thread()
