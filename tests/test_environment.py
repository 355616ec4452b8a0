"""What records say of where they were made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from senetzoo._utils import environment

ROOT = Path(__file__).resolve().parent.parent


def test_the_revision_is_the_checkouts() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no checkout of git")
    done = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    revision = environment.revision()
    assert revision is not None
    assert revision.removesuffix("-dirty") == done.stdout.strip()


def test_without_a_checkout_there_is_no_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "senetzoo" / "_utils" / "environment.py"
    monkeypatch.setattr(environment, "__file__", str(inside))
    assert environment.revision() is None
