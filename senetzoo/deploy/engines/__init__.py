"""Engines that run a network: torch itself, its compiler, ONNX Runtime, OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping

from senetzoo.deploy.engines.common import LAYOUTS as LAYOUTS
from senetzoo.deploy.engines.common import Dtype as Dtype
from senetzoo.deploy.engines.common import Engine as Engine
from senetzoo.deploy.engines.common import Runner as Runner
from senetzoo.deploy.engines.eager import EAGER
from senetzoo.deploy.engines.inductor import INDUCTOR
from senetzoo.deploy.engines.ort import ONNXRUNTIME
from senetzoo.deploy.engines.ov import OPENVINO
from senetzoo.errors import ConfigError, nearest
from senetzoo.nn.slots import Layout as Layout

ENGINES: Mapping[str, Engine] = {
    kind.name: kind for kind in (EAGER, INDUCTOR, ONNXRUNTIME, OPENVINO)
}
"""Every engine by its name."""


def engine(name: str) -> Engine:
    """The engine called `name`.

    Raises:
        ConfigError: There is no such engine.
    """
    if name not in ENGINES:
        raise ConfigError(
            f"There is no engine {name!r}.",
            f"Engines are {', '.join(ENGINES)}.",
            nearest(str(name), ENGINES),
        )
    return ENGINES[name]
