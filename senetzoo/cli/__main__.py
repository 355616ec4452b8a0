"""``python -m senetzoo.cli``."""

from __future__ import annotations

from senetzoo.cli import main

main(prog_name="senetzoo")
