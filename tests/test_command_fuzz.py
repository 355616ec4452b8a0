"""Commands with any arguments exit with 0, 1 or 2, and never with a stack trace."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file
from support.commands import COMMANDS, run
from support.runs import write_run

import senetzoo

# No numbers between 10 and 10^9: large valid ones take long.
NUMBERS = st.sampled_from(
    ["0", "1", "2", "-1", "-0", "+1", "1.5", "nan", "inf", "-inf", "1e400", "1_0", "٣", "½", "0x10",
     "9999999999", str(2**31), str(2**63), str(2**64), "9" * 400, "", " ", "none", "True"]
)  # fmt: skip
NAMES = """
    * ? [ . + +se lenet5 LENET5 lenet5.digits_v1 lenet5. lenet5+eca lenet5+se@pre lenet5+
    lenet5+se(reduction=0) hf-hub: hf-hub:a/b hf-hub:../.. digits %s {} ../.. se_* owner/name
    owner/name@v1 timm: timm:resnet18 x:y cpu cuda:99 meta
"""
WORDS = st.one_of(
    st.sampled_from([*NAMES.split(), "", " ", "\udcff", "a" * 5000]),
    # Only arguments that a command line can contain.
    st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), max_size=8),
)
FILES = """
    nowhere folder folder/deeper/x image.png image.png/x broken.png empty lenet5.safetensors
    broken.safetensors runs runs/whole runs/broken runs/lists runs/nothing . link /dev/null
    /proc/self/mem folder.pt2 folder.html out.html out.pt2 data pickle.pt
"""
PLACES = st.sampled_from([*FILES.split(), "", "\udcff", "a" * 300])
KEYS = ["lr", "batch", "phases", "flip", "model", "stem", "data", "optimizer", "warmup", "x", ""]
VALUES = ["(", "((", "[" * 500, "((16, 6),)", "{}", "lambda: 0", "1+", "'", "-" * 9999]
SETTINGS = st.builds(
    "{}={}".format, st.sampled_from(KEYS), st.one_of(NUMBERS, WORDS, st.sampled_from(VALUES))
)


@pytest.fixture(scope="module", autouse=True)
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder with valid and invalid files, offline."""
    folder = tmp_path_factory.mktemp("ground")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setattr("senetzoo._utils.terminal.say_once", lambda tag: None)
        # Only argument handling is tested, not training or timing.
        patch.setattr("senetzoo.train.engine.train", lambda *args, **kwargs: {})
        patch.setattr("senetzoo.cli.bench._time", lambda *args, **kwargs: ([], []))
        patch.setattr("torch.set_num_threads", lambda number: None)
        patch.setattr("senetzoo.cli.app._serve", lambda *args: None)
        # A wildcard matches one small network, because all matches would be built.
        patch.setattr(
            "senetzoo.bench.candidates.list_models",
            lambda pattern="*": fnmatch.filter(["lenet5"], pattern),
        )
        for name in ("folder", "folder.pt2", "folder.html"):
            Path(name).mkdir()
        Image.new("RGB", (40, 40), "red").save("image.png")
        Path("broken.png").write_bytes(b"\x89PNG")
        Path("empty").touch()
        Path("link").symlink_to("link")
        state = senetzoo.create("lenet5", seed=0).state_dict()
        save_file(state, "lenet5.safetensors")
        Path("broken.safetensors").write_bytes(Path("lenet5.safetensors").read_bytes()[:5000])
        torch.save({"epoch": 3, "model": [1, 2]}, "pickle.pt")
        (Path("data") / "cat").mkdir(parents=True)
        shutil.copy("image.png", "data/cat/image.png")
        shutil.copy("broken.png", "data/cat/broken.png")
        write_run(Path("runs/whole"))
        for name, log in {
            "broken": "{",
            "lists": "[]\n[]\n",
            "nothing": "",
        }.items():
            shutil.copytree("runs/whole", f"runs/{name}")
            for file in ("log.jsonl", "summary.json"):
                Path(f"runs/{name}/{file}").write_text(log)
        yield
        torch.set_num_threads(threads)


def value_of(command: click.Command, parameter: click.Parameter) -> st.SearchStrategy[str]:
    """An argument for a parameter, of the right or the wrong kind."""
    kind = parameter.type
    if isinstance(kind, click.Choice):
        return st.one_of(st.sampled_from(list(kind.choices)), WORDS)
    if isinstance(kind, click.Path) or parameter.name in ("images", "data", "test", "source"):
        return st.one_of(PLACES, WORDS)
    if parameter.name == "settings":
        return SETTINGS
    if isinstance(kind, click.types.StringParamType):
        return WORDS
    return NUMBERS


@st.composite
def words(draw: st.DrawFn, command: click.Command) -> list[str]:
    """A command line: all arguments and some of the options."""
    found: list[str] = []
    behind: list[str] = []
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            behind += draw(
                st.lists(
                    value_of(command, parameter),
                    min_size=1,
                    max_size=2 if parameter.nargs < 0 else 1,
                )
            )
        elif isinstance(parameter, click.Option) and parameter.name not in ("help", "json"):
            times = 1 if parameter.required else 0
            if not draw(st.booleans()) and not times:
                continue
            found.append(parameter.opts[0])
            if not parameter.is_flag:
                found.append(draw(value_of(command, parameter)))
    return [*found, *draw(st.sampled_from([[], ["--"]])), *behind]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("names", list(COMMANDS), ids=" ".join)
@settings(deadline=None, max_examples=int(os.environ.get("SENETZOO_FUZZ", "12")),
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(data=st.data())
def test_no_words_give_a_stack_trace(names: tuple[str, ...], data: st.DataObject) -> None:
    args = data.draw(words(COMMANDS[names]))
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree("made")
    result = run(*names, *args)
    assert result.exit_code in (0, 1, 2)
    assert "Traceback" not in result.output
    if "--json" in args and "--help" not in args and result.exit_code == 0:
        for line in result.stdout.splitlines():
            json.loads(line)
    if result.exit_code == 2:
        assert result.stderr
    # No partial files are left.
    left: list[Any] = [*Path().glob("*.partial"), *Path().glob(".*.partial")]
    assert not left
