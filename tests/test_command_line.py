"""Tests of all commands: help, exit codes, JSON, pipes, hints, completion."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pin_weights
import pytest
import torch
from click.shell_completion import CompletionItem, ShellComplete
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file
from support.commands import COMMANDS, run
from support.runs import write_run

import senetzoo
from senetzoo.cli import main
from senetzoo.cli.base import EXITS, LazyGroup, SenetzooCommand
from senetzoo.registry import ENTRIES
from senetzoo.train.recipes import RECIPES
from senetzoo.weights.manifest import manifest

ROOT = Path(__file__).resolve().parent.parent
GROUPS = sorted({names[0] for names in COMMANDS if len(names) > 1})
each_command = pytest.mark.parametrize("names", list(COMMANDS), ids=" ".join)
# What `SenetzooCommand` does for every command, with the arguments that these require.
BEGIN = {
    ("list",): (),
    ("predict",): ("image.png",),
    ("weights", "get"): ("lenet5",),
}
few_commands = pytest.mark.parametrize("names", list(BEGIN), ids=" ".join)


def test_all_commands_are_found() -> None:
    assert {" ".join(names) for names in COMMANDS} == {
        "app", "bench", "compare", "eval", "explain", "export", "finetune", "inspect", "list",
        "predict", "push", "report", "train",
        "weights convert", "weights get", "weights list",
        "weights show", "weights verify",
    }  # fmt: skip


# --- Help ----------------------------------------------------------------------------------------


@each_command
def test_help(names: tuple[str, ...]) -> None:
    text = run(*names, "--help").stdout
    assert run(*names, "-h").stdout == text
    assert text.startswith(f"Usage: senetzoo {' '.join(names)} ")
    purpose = text.split("\n\n")[1]
    assert purpose.strip()[0].isupper()
    assert purpose.rstrip().endswith(".")
    # The group lists it in full, over as many lines as it takes.
    listed = " ".join(run(*names[:-1], "--help").stdout.split())
    assert " ".join(purpose.split()).partition(". ")[0] in listed
    codes = text.partition("\nExit codes:\n")[2]
    assert [int(line.split()[0]) for line in codes.splitlines() if line[2:3].isdigit()] == [
        0, 1, 2, 130,
    ]  # fmt: skip
    one = " ".join(codes.partition("\n  1 ")[2].partition("\n  2 ")[0].split())
    assert one.endswith("the output can't be written, or its reader stopped reading")
    assert ("an image could not be read" in one) is (names == ("predict",))
    command = COMMANDS[names]
    assert isinstance(command, SenetzooCommand)
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.name


@each_command
def test_help_breaks_no_reference(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    if "hf-" not in run(*names, "--help").stdout:
        return
    for columns in range(52, 83):
        monkeypatch.setenv("COLUMNS", str(columns))
        text = run(*names, "--help").stdout
        assert not re.search(r"hf-\s", text)
        assert "\0" not in text


def test_help_of_train_names_the_recipes() -> None:
    text = " ".join(run("train", "--help").stdout.split())
    assert f"The recipes are {', '.join(list(RECIPES)[:-1])} and {list(RECIPES)[-1]}." in text


def test_without_arguments_the_program_greets() -> None:
    greeting = run().stdout
    shown = re.findall(r"^  senetzoo (.+?)(?: {4,}|$)", greeting, re.MULTILINE)
    assert len(shown) == 5
    for line in shown:
        name, *words = line.split()
        command = COMMANDS[(name,)]
        command.make_parser(click.Context(command)).parse_args(args=words)
    assert "senetzoo --help" in greeting
    assert all((ROOT / page).exists() for page in re.findall(r"\S+\.md", greeting))


@each_command
def test_results_are_to_be_had_as_json(names: tuple[str, ...]) -> None:
    options = {flag for option in COMMANDS[names].params for flag in option.opts}
    assert "--json" in options


def examples(text: str) -> list[list[str]]:
    """The words of each example in a help text, after a pipe if there is one."""
    lines = text.partition("Examples:\n")[2].partition("\n\n")[0].splitlines()
    return [shlex.split(line.rpartition("|")[2]) for line in lines]


@pytest.mark.parametrize(
    "names", [(), *((group,) for group in GROUPS), *COMMANDS], ids=lambda names: " ".join(names)
)
def test_examples_are_read_by_the_command_that_they_show(names: tuple[str, ...]) -> None:
    found = examples(run(*names, "--help").stdout)
    assert found
    for words in found:
        assert words[0] == "senetzoo"
        shown = next(n for n in (tuple(words[1:3]), tuple(words[1:2])) if n in COMMANDS)
        command = COMMANDS[shown]
        # The command itself, or one in the group.
        assert shown[: len(names)] == names or command is COMMANDS[names]
        parser = command.make_parser(click.Context(command, **command.context_settings))
        parser.parse_args(args=words[1 + len(shown) :])
        if "--json" in words:
            assert "--json" in run(*shown, "--help").stdout


# --- Exit codes ----------------------------------------------------------------------------------


@few_commands
def test_ctrl_c_ends_with_130_and_no_word(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(COMMANDS[names], "callback", interrupted)
    result = run(*names, *BEGIN[names])
    assert (result.exit_code, result.output) == (130, "")


def test_ctrl_c_while_a_room_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib, "import_module", interrupted)
    result = run("train", "digits")
    assert (result.exit_code, result.output) == (130, "")


@few_commands
def test_an_unknown_option_ends_with_2_and_the_nearest(names: tuple[str, ...]) -> None:
    result = run(*names, *BEGIN[names], "--jsonnn")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "No such option '--jsonnn'. Did you mean '--json'?" in result.stderr


@few_commands
def test_a_full_disk_ends_with_2(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(COMMANDS[names], "callback", full)
    result = run(*names, *BEGIN[names])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "error: Can't continue.\nNo space left on device.\n"


@pytest.fixture
def ground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with an image, weights and a run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Image.new("RGB", (40, 40), "red").save("image.png")
    Path("broken.png").write_bytes(b"\x89PNG")
    save_file(senetzoo.create("lenet5", seed=0).state_dict(), "lenet5.safetensors")
    write_run(tmp_path / "runs" / "made_up-lenet5-0")
    for name in ("cat", "dog"):
        Path("data", name).mkdir(parents=True)
        Image.new("RGB", (32, 32), "red").save(f"data/{name}/image.png")
    gated = senetzoo.config("se_resnet20").replace(num_classes=2, depths=(1, 1, 1)).build(seed=0)
    senetzoo.save(gated, "gated", classes=("cat", "dog"))
    monkeypatch.setattr("senetzoo.cli.app._serve", lambda *args: None)
    return tmp_path


DONE: list[tuple[str, ...]] = [
    ("compare", "--model", "lenet5", "--policy", "se4", "--data", "digits", "--seeds", "2",
     "--quick", "--threads", "1", "--workers", "0"),
    ("bench", "--model", "lenet5", "--rounds", "1", "--warmup", "0", "--batch", "1"),
    ("eval", "lenet5", "digits"),
    ("app", "--model", "lenet5"),
    ("explain", "lenet5"),
    ("export", "lenet5", "--to", "pt2"),
    ("finetune", "digits", "--model", "lenet5", "--quick", "--threads", "1", "--workers", "0"),
    ("inspect", "gated", "--data", "data"),
    ("list", "*lenet*"),
    ("predict", "image.png", "image.png"),
    ("report", "runs"),
    ("train", "digits", "--quick", "--threads", "1", "--workers", "0"),
    ("weights", "convert", "lenet5.safetensors", "--to", "lenet5", "--out", "mine.safetensors",
     "--yes"),
    ("weights", "get", "lenet5", "resnet20"),
    ("weights", "list", "lenet5.*"),
    ("push", "lenet5", "--repo", "owner/name", "--dry-run"),
    ("weights", "show", "lenet5"),
    ("weights", "verify", "lenet5"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("args", DONE, ids=lambda args: " ".join(args[:2]))
def test_done_is_0_and_json_is_all_of_the_output(ground: Path, args: tuple[str, ...]) -> None:
    threads = torch.get_num_threads()
    result = run(*args, "--json")
    torch.set_num_threads(threads)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == (2 if args[0] == "predict" else 1)
    for line in lines:
        assert isinstance(json.loads(line), dict | list)
    if args[0] == "train":
        assert json.loads(lines[0])["run"] == str(Path("runs/digits-lenet5-0"))
        assert "epoch 1/1" in result.stderr
    if args[0] == "export":
        (file,) = json.loads(lines[0])["files"]
        assert file == {"path": "lenet5.pt2", "bytes": Path("lenet5.pt2").stat().st_size}
        assert json.loads(lines[0])["logits"] == ["batch", 10]
    if args[0] == "push":
        pushed = json.loads(lines[0])
        assert (pushed["repo"], pushed["commit"]) == ("owner/name", None)
        assert set(pushed["files"]) == {"README.md", "config.json", "model.safetensors"}
        assert pushed["card"].startswith("---\n")


def test_a_pinned_entry_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = manifest()["lenet5.digits_v1"]
    monkeypatch.setattr(pin_weights, "pin", lambda *args, **kwargs: entry)
    result = CliRunner().invoke(pin_weights.main, ["runs/digits-lenet5-0", "digits_v2", "--json"])
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert (shown.pop("tag"), shown["sha256"]) == ("lenet5.digits_v2", entry.sha256)
    assert set(shown) == {field.name for field in dataclasses.fields(entry)}


def test_all_commands_are_tested() -> None:
    assert {args[:2] if args[0] in GROUPS else args[:1] for args in DONE} == set(COMMANDS)


def test_images_that_can_not_be_read_are_1(ground: Path) -> None:
    result = run("predict", "image.png", "broken.png", "--json")
    assert result.exit_code == 1
    assert [list(json.loads(line)) for line in result.stdout.splitlines()] == [
        ["image", "guesses"],
        ["image", "error"],
    ]


WRONG: list[tuple[str, ...]] = [
    ("compare", "--model", "lenet5", "--policy", "nothing", "--data", "digits"),
    ("bench", "--model", "lenet5", "--threads", "1025"),
    ("eval", "lenet5", "nowhere"),
    ("app", "--model", "nothing"),
    ("explain", "nothing"),
    ("export", "lenet5", "--to", "pt2", "--output", "folder.pt2"),
    ("finetune", "nowhere"),
    ("inspect", "se_resnet20", "--data", "nowhere"),
    ("list", "nothing"),
    ("predict", "--model", "nothing", "image.png"),
    ("report", "nowhere"),
    ("train", "nothing"),
    ("weights", "convert", "image.png", "--to", "lenet5"),
    ("weights", "get", "nothing"),
    ("weights", "list", "nothing"),
    ("push", "nothing", "--repo", "owner/name"),
    ("weights", "show", "nothing"),
    ("weights", "verify", "resnet18.tv_in1k_v1"),
]


@pytest.mark.parametrize("args", WRONG, ids=lambda args: " ".join(args[:2]))
def test_wrong_input_is_2_on_stderr(ground: Path, args: tuple[str, ...]) -> None:
    Path("folder.pt2").mkdir()
    before = sorted(ground.rglob("*"))
    result = run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.lower().startswith("error: ")
    assert "Traceback" not in result.stderr
    assert sorted(ground.rglob("*")) == before
    assert run(*args, "--json").exit_code == 2


def test_every_command_is_tried_with_wrong_input() -> None:
    assert {args[:2] if args[0] in GROUPS else args[:1] for args in WRONG} == set(COMMANDS)


# --- Hints ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("benc",), "There is no command 'benc'. Did you mean 'bench'?"),
        (("weights", "lst"), "There is no command 'lst'. Did you mean 'list'?"),
        (("list", "se_densnet121"), "Did you mean 'se_densenet121'?"),
        (("list", "--family", "resnt"), "Did you mean 'resnet'?"),
        (("explain", "resnt18"), "The nearest names are resnet18"),
        (("explain", "lenet5+ecca"), "Did you mean 'eca'?"),
        (("explain", "lenet5+se@standart"), "Did you mean 'standard'?"),
        (("weights", "show", "resnet20.cifar10_v11"), "Did you mean 'cifar10_v1'?"),
        (("weights", "list", "resnet20.cifar_v1"), "Did you mean 'resnet20.cifar10_v1'?"),
        (("weights", "verify", "resnet20.cifar10_v11"), "Did you mean 'cifar10_v1'?"),
        (("train", "digts"), "Did you mean 'digits'?"),
        (("train", "digits", "--epochs", "3"), "'--epochs'. Type --set epochs=VALUE"),
        (("train", "digits", "--keep=best"), "'--keep'. Type --set keep=VALUE"),
        (("finetune", "photos", "--data", "x"), "No such option '--data'.\n"),
        (("train", "digits", "--set", "bath=3"), "Did you mean 'batch'?"),
        (("train", "cifar10_four_nets", "--only", "lent"), "Did you mean 'lenet'?"),
        (("bench", "--model", "lenet5", "--engine", "inducter"), "Did you mean 'inductor'?"),
        (("bench", "--model", "lenet5", "--layout", "nhcw"), "Did you mean 'nhwc'?"),
        (("bench", "--model", "lenet5", "--compare", "tim:resnet18"), "Did you mean 'timm'?"),
        (("bench", "--model", "lenet5", "--accuracy", "dgts"), "digits"),
        (("eval", "lenet5", "dgts"), "digits"),
        (("eval", "lenet5", "digits", "--dtype", "fp23"), "Did you mean 'fp32'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)  # fmt: skip
def test_did_you_mean(args: tuple[str, ...], hint: str) -> None:
    result = run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert hint in result.stderr


def test_a_choice_says_what_there_is() -> None:
    result = run("export", "lenet5", "--to", "onx")
    assert result.stderr.splitlines()[-1] == (
        "Error: Invalid value for '--to': 'onx' is not one of 'onnx', 'pt2', 'openvino'. "
        "Did you mean 'onnx'?"
    )
    result = run("export", "lenet5", "--to", "x")
    assert result.stderr.splitlines()[-1] == (
        "Error: Invalid value for '--to': 'x' is not one of 'onnx', 'pt2', 'openvino'."
    )


# --- Pipes and terminals -------------------------------------------------------------------------

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")


@posix
@pytest.mark.parametrize(
    ("shell", "code", "said"),
    [
        ("list | true; exit ${PIPESTATUS[0]}", 1, ""),
        ("list > /dev/full", 1, "error: Can't write the output: No space left on device.\n"),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (
                ("list --json | head -c 1", 0, ""),
                ("list >&-", 0, ""),
                ("explain resnt 2>&-", 2, ""),
                ("--help | true; exit ${PIPESTATUS[0]}", 1, ""),
            )
        ),
    ],
)
def test_in_a_shell(shell: str, code: int, said: str) -> None:
    command = f"'{sys.executable}' -m senetzoo.cli {shell}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, said)


@posix
@pytest.mark.slow
def test_nothing_is_colored_not_even_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    done = subprocess.Popen(
        [sys.executable, "-m", "senetzoo.cli", "list", "--pretraned"],
        cwd=ROOT,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    assert done.wait(120) == 2
    os.close(theirs)
    text = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "Did you mean '--pretrained'?" in text
    assert "\x1b" not in text


# --- Completion ----------------------------------------------------------------------------------


def offered(*words: str) -> list[str]:
    """The completions of the last word."""
    *args, incomplete = words
    complete = ShellComplete(main, {}, "senetzoo", "_SENETZOO_COMPLETE")
    found: list[CompletionItem] = complete.get_completions(args, incomplete)
    return [item.value for item in found if item.type == "plain"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("we",), ["weights"]),
        (("weights", "s"), ["show"]),
        (("list", "--pre"), ["--pretrained"]),
        (("explain", "se_resnet20"), ["se_resnet20", "se_resnet20a"]),
        (("explain", "lenet5.d"), ["lenet5.digits_v1"]),
        (("explain", "resnet50+se@p"), ["resnet50+se@pre", "resnet50+se@post"]),
        (("explain", "lenet5+se+ec"), ["lenet5+se+eca"]),
        (("explain", "lenet5", "--policy", "cb"), ["cbam"]),
        (("explain", "lenet5", "--policy", "se+cbam@i"), ["se+cbam@identity", "se+cbam@inner"]),
        (("list", "--family", "Res"), ["ResNeSt", "ResNet"]),
        (("export", "lenet"), ["lenet", "lenet5"]),
        (("export", "lenet5", "--to", "o"), ["onnx", "openvino"]),
        (("bench", "--model", "wrn16"), ["wrn16_8", "wrn16_10"]),
        (("bench", "--model", "lenet5", "--engine", "on"), ["onnxruntime"]),
        (("bench", "--compare", "t"), ["timm:", "torchvision:"]),
        (("eval", "lenet5", "d"), ["digits"]),
        (("bench", "--device", "c"), ["cpu", "cuda"]),
        (("bench", "--accuracy", "d"), ["digits"]),
        (("weights", "show", "lenet5"), ["lenet5.digits_v1"]),
        (
            ("weights", "get", "lenet5.digits_v1", "mobilenet_v1_025.c"),
            ["mobilenet_v1_025.cifar10_v2"],
        ),
        (("push", "lenet5."), ["lenet5.digits_v1"]),
        (("weights", "convert", "x.pth", "--to", "vgg11_l"), ["vgg11_lrn"]),
        (("weights", "verify", "lenet5"), ["lenet5.digits_v1"]),
        (("train", "dig"), ["digits"]),
        (("train", "cifar10_four_nets", "--only", "len"), ["lenet"]),
        (("train", "digits", "--set", "label"), ["label_smoothing="]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_completion(words: tuple[str, ...], expected: list[str]) -> None:
    assert offered(*words) == expected


def test_completion_of_every_name() -> None:
    assert offered("explain", "") == list(ENTRIES)
    assert offered("weights", "list", "") == list(manifest())
    assert offered("train", "") == list(RECIPES)


def test_every_argument_that_is_a_name_is_completed() -> None:
    """Each text parameter has completions, except for free text."""
    free = {
        "title", "part", "repo", "tag of pin", "called", "images of predict", "layer", "host",
        "chosen", "budget", "register", "reject", "baseline",
    }  # fmt: skip
    for names, command in COMMANDS.items():
        for parameter in command.params:
            if not isinstance(parameter.type, click.types.StringParamType):
                continue
            if {parameter.name, f"{parameter.name} of {names[-1]}"} & free:
                continue
            assert parameter._custom_shell_complete is not None, (names, parameter.name)


@posix
def test_completion_in_a_real_bash(tmp_path: Path) -> None:
    executable = tmp_path / "senetzoo"
    executable.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from senetzoo.cli import main\nsys.exit(main())\n"
    )
    executable.chmod(0o755)
    (line,) = re.findall(r'eval "\$\((.*bash_source.*)\)"', run("--help").stdout)
    script = f"""
        eval "$({line})"
        complete -p senetzoo
        COMP_WORDS=(senetzoo weights show se_resnet20.); COMP_CWORD=3
        _senetzoo_completion senetzoo
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert "senetzoo" in lines[0]
    expected = [tag for tag in manifest() if tag.startswith("se_resnet20.")]
    assert "se_resnet20.cifar10_v1" in expected
    assert (lines[1:], done.stderr) == (expected, "")


def test_groups_say_what_the_codes_mean() -> None:
    for names in ((), *((group,) for group in GROUPS)):
        text = run(*names, "--help").stdout
        assert run(*names, "-h").stdout == text
        assert text.startswith(f"Usage: {' '.join(('senetzoo', *names))} ")
        assert "." in text.split("\n\n")[1]
        codes = " ".join(text.partition("\nExit codes:\n")[2].split())
        of_predict = "predict: an image could not be read, or a folder has none; any command: "
        of_predict *= not names
        meanings = {**EXITS, 1: of_predict + EXITS[1]}
        assert codes == " ".join(f"{code} {meaning}" for code, meaning in meanings.items())
    assert isinstance(main, LazyGroup)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("senetzoo._utils.terminal.say_once", lambda tag: None)
