"""``python -m senetzoo.bench``."""

from __future__ import annotations

from senetzoo.bench.command import bench

bench(prog_name="python -m senetzoo.bench")
