"""``python -m senetzoo.bench``."""

from __future__ import annotations

from senetzoo.cli.bench import command

command(prog_name="python -m senetzoo.bench")
