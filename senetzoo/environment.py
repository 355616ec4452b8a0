"""Where a figure was measured: machine, versions, commit."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path


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
