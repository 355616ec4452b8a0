"""What a finished run writes: the network, its test predictions, and the summary."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from senetzoo._utils import environment
from senetzoo.eval.predictions import Predictions
from senetzoo.io.folder import WEIGHTS
from senetzoo.io.save import write as write_network
from senetzoo.nn.classifier import Classifier
from senetzoo.runs import SCHEMA, SUMMARY, TEST
from senetzoo.train import checkpoint, evaluate, log
from senetzoo.train.data import Data
from senetzoo.train.recipe import Recipe


def write(
    out: Path,
    model: Classifier,
    tested: Predictions,
    data: Data,
    recipe: Recipe,
    seed: int,
    command: str,
    end: Mapping[str, Any],
) -> None:
    """Write all of it to the run `out`; `end` is the last line of its log."""
    from safetensors.torch import save

    with checkpoint.writing(out / WEIGHTS):
        write_network(
            model,
            out,
            classes=data.classes,
            preprocessing=data.preprocessing(recipe),
            held=True,
        )
    shown = evaluate.record(tested, data, recipe)
    checkpoint.write(out / TEST, save(shown, evaluate.names(data.test, shown)))
    log.add(out, "end", dict(end))
    summary = {
        "schema": SCHEMA,
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        "command": command,
        "revision": environment.revision(),
        "machine": environment.machine(),
        **end,
    }
    checkpoint.write(out / SUMMARY, (json.dumps(summary, indent=1) + "\n").encode())
