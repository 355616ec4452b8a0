"""Where the package runs: machine, versions, commit, and whether downloads are allowed."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from senetzoo.errors import ConfigError


def processor() -> str:
    """Model name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine() -> str:
    """Processor, threads and torch's version in one line."""
    import torch

    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def revision() -> str | None:
    """Commit of the checkout that this package is in, ``-dirty`` with changes; None elsewhere."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            [
                "git",
                "-C",
                str(root),
                "describe",
                "--always",
                "--abbrev=40",
                "--dirty",
                "--exclude=*",
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids downloads; asked before each of them, data included.

    Raises:
        ConfigError: A variable of senetzoo 0.1 is set, which does nothing any more.
    """
    for old, new in (
        ("SENETZOO_OFFLINE", "HF_HUB_OFFLINE=1, which stops every download"),
        ("SENETZOO_MIRROR", "SENETZOO_WEIGHTS, which takes folders and addresses"),
    ):
        if os.environ.get(old):
            raise ConfigError(
                f"{old} is set.", "senetzoo reads it no more.", f"Unset it, and set {new}"
            )
    # As huggingface_hub reads it.
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
