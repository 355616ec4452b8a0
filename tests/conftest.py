"""Shared fixtures."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from support.networks import KINDS
from support.weights import Pantry, Shelf, open_pantry, open_shelf

from senetzoo import own
from senetzoo._utils.torchvision import import_torchvision
from senetzoo.gates import GATES
from senetzoo.registry import CONFIGS, ENTRIES

# Files that test every network of the registry.
ONE_BY_ONE = ("parity", "published", "every_network", "registry_networks", "stems", "zoo")

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def absl_keeps_the_output_open() -> None:
    """Point absl's log handler at the process's own stderr, which it never closes.

    TensorBoard imports absl, whose handler keeps the stderr of that moment: pytest's. uvicorn,
    which serves the app, closes all handlers, and absl's would close pytest's output with it.
    """
    with contextlib.suppress(ImportError):
        from absl import logging

        logging.get_absl_handler().python_handler.stream = sys.__stderr__


@pytest.fixture(scope="session")
def sample() -> Callable[[str], Path]:
    """Path of a sample of real data by its file name; skips the test if it is missing.

    Samples are in the folder SENETZOO_TEST_DATA, by default in shared/data beside the checkout.
    """

    def find(name: str) -> Path:
        folder = Path(os.environ.get("SENETZOO_TEST_DATA") or BESIDE)
        if not (folder / name).is_file():
            pytest.skip(f"no sample {name} in {folder}; set SENETZOO_TEST_DATA to its folder")
        return folder / name

    return find


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    yield from open_shelf(tmp_path, monkeypatch)


@pytest.fixture
def pantry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pantry]:
    yield from open_pantry(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def registered_for_one_test() -> Iterator[None]:
    """Undo a test's registrations."""
    tables: list[dict[str, Any]] = [GATES, ENTRIES, CONFIGS, own._OWN]
    before = [(table, dict(table)) for table in tables]
    yield
    for table, entries in before:
        if table != entries:
            table.clear()
            table.update(entries)


@pytest.fixture(autouse=True)
def drawn_alike() -> None:
    """Seed the global random number generators before each test."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("exploring", derandomize=False, deadline=None, print_blob=True)


def pytest_configure(config: pytest.Config) -> None:
    # Before the tests are imported, because their own settings inherit from this profile.
    settings.load_profile("exploring" if config.getoption("--slow") else "repeatable")
    # Then tests, timm and pytorchcv can import it too, whether its operators load or not.
    import_torchvision()
    gc.disable()
    # Background jobs of a shell ignore Ctrl-C, jobs of nohup SIGHUP, and so would subprocesses of
    # the tests.
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_collection_finish() -> None:
    # The garbage collector needn't scan imported modules again and again.
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the slow tests too")


def another_stands_for_it(item: pytest.Item) -> bool:
    """Whether it tests a network that other networks represent."""
    name = item.callspec.params.get("name") if hasattr(item, "callspec") else None
    others = isinstance(name, str) and name in ENTRIES and name.removeprefix("se_") not in KINDS
    return others and item.path.stem.removeprefix("test_").startswith(ONE_BY_ONE)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Deselected, not skipped, which would mean that something is missing.
    if config.getoption("--slow"):
        return
    for item in items:
        if another_stands_for_it(item):
            item.add_marker("slow")
    slow = [item for item in items if item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if not item.get_closest_marker("slow")]
