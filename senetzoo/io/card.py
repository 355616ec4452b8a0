"""The model card of a repository: metadata for the Hub, and a description for readers."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from senetzoo._utils.terminal import printable
from senetzoo.errors import ConfigError, first_line
from senetzoo.io.folder import LIBRARY, Description
from senetzoo.nn.counting import Counts
from senetzoo.runs import Result, chose_epoch
from senetzoo.weights.manifest import Entry, Metric

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

# The Hub's names and identifiers of the data sets that manifest entries name.
_DATA = {
    "CIFAR-10": ("cifar10", "uoft-cs/cifar10"),
    "CIFAR-100": ("cifar100", "uoft-cs/cifar100"),
    "ImageNet-1k": ("imagenet-1k", "ILSVRC/imagenet-1k"),
}
# Licenses with an identifier on the Hub; others are given by name.
_LICENSES = {
    "apache-2.0",
    "mit",
    "bsd-2-clause",
    "bsd-3-clause",
    "cc0-1.0",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
}
_SHOWN_CLASSES = 20


def card(
    repo: str,
    description: Description,
    counts: Counts,
    tag: str,
    entry: Entry | None,
    timm: str = "",
    result: Result | None = None,
) -> str:
    """The text of a ``README.md``.

    Args:
        repo: The repository, ``owner/name``.
        description: The network.
        counts: Its parameters and MACs.
        tag: Tag of the weights.
        entry: Their manifest entry, for accuracy, training and license; None if there is none.
        timm: timm's name of the network if the files are in timm's format.
        result: The result of the run that trained the network, if known.
    """
    classifies = bool(description.network.config["num_classes"])
    measured = entry is not None and entry.preprocessing == description.preprocessing
    metrics = entry.metrics if entry is not None and measured else ()
    data = _metadata(repo, entry, metrics, "timm" if timm else LIBRARY, classifies)
    parts = [
        f"# {repo.split('/')[1]}",
        _introduction(description, tag, classifies),
        _table(description, counts),
        _usage_of_timm(repo, timm, classifies) if timm else _usage(repo, description),
        *([] if entry is None else _of_entry(tag, entry, metrics)),
        *([] if result is None else _of_run(result)),
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(parts) + "\n"


def check_card(text: str, file: str) -> None:
    """Raise `ConfigError` if the Hub's client can't read a card, the `text` of `file`."""
    from huggingface_hub import ModelCard

    try:
        ModelCard(text)
    except Exception as error:  # from the YAML parser or the client
        raise ConfigError(
            f"The card {file} can't be read.",
            f"{type(error).__name__}: {first_line(error)}",
            "Correct the metadata between its two lines of ---",
        ) from None


def _metadata(
    repo: str, entry: Entry | None, metrics: Sequence[Metric], library: str, classifies: bool
) -> ModelCardData:
    from huggingface_hub import ModelCardData

    of_entry: dict[str, Any] = {}
    if entry is not None:
        license = entry.license.weights.lower()
        known = license in _LICENSES
        of_entry = {
            "license": license if known else "other",
            "license_name": None if known else _slug(license),
            "datasets": [
                hub
                for name, (_, hub) in _DATA.items()
                if any(_names(part.removeprefix("then "), name) for part in entry.data.split("; "))
            ]
            or None,
            "metrics": ["accuracy"] if metrics else None,
            "model_name": repo.split("/")[1],
            "eval_results": [_result(metric) for metric in metrics] or None,
        }
    task = "image-classification" if classifies else "image-feature-extraction"
    return ModelCardData(
        library_name=library,
        pipeline_tag=task,
        tags=list(dict.fromkeys([task, "pytorch", LIBRARY, library])),
        **of_entry,
    )


def _result(metric: Metric) -> EvalResult:
    from huggingface_hub import EvalResult

    kind = next((word for name, (word, _) in _DATA.items() if _names(metric.data, name)), None)
    return EvalResult(
        task_type="image-classification",
        task_name="Image Classification",
        dataset_type=kind or _slug(metric.data),
        dataset_name=metric.data,
        dataset_split="test" if metric.data.endswith(" test") else None,
        metric_type="accuracy",
        metric_name="Top-5 accuracy" if metric.name == "accuracy@5" else "Top-1 accuracy",
        # The Hub's metric is from 0 to 1.
        metric_value=round(metric.value / 100, 6),
    )


def _names(text: str, data: str) -> bool:
    """Whether `text` begins with the name of the data set; CIFAR-100 doesn't with CIFAR-10."""
    return text == data or text.startswith(f"{data} ")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")


def _introduction(description: Description, tag: str, classifies: bool) -> str:
    network = description.network
    name = network.name or f"A network of the family {network.family}"
    gates = network.policy
    attention = "without gates" if gates == "none" else f"with the gates `{gates}`"
    origin = f", the weights `{tag}`" if tag else ""
    kind = "an image classifier" if classifies else "a network for features"
    return f"{name} {attention}: {kind} of {LIBRARY}{origin}."


def _table(description: Description, counts: Counts) -> str:
    images, names = description.preprocessing, description.classes
    classes = str(description.network.config["num_classes"])
    if names is not None:
        more = ", ..." if len(names) > _SHOWN_CLASSES else ""
        classes += f": {', '.join(names[:_SHOWN_CLASSES])}{more}"
    rows = {
        "parameters": f"{counts.params:,}",
        "multiply-accumulates": f"{counts.macs:,}",
        "input": "not stated"
        if images is None
        else f"{images.channels}x{images.size}x{images.size}, mean {_numbers(images.mean)}, "
        f"std {_numbers(images.std)}, {images.interpolation}, crop {images.crop:g}",
        "classes": classes,
        "sha256 of model.safetensors": f"`{description.weights.sha256}`",
    }
    first, *others = (f"| {name} | {_cell(text)} |" for name, text in rows.items())
    return "\n".join([first, "| --- | --- |", *others])


def _cell(text: str) -> str:
    return printable(" ".join(text.split())).replace("|", "\\|")


def _numbers(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})"


def _usage(repo: str, description: Description) -> str:
    lines = ["import senetzoo", ""]
    for name, path in (description.own or {}).items():
        kind = path.rpartition(":")[2].rpartition(".")[2]
        lines.append(f'senetzoo.register({kind}, name="{name}")  # {path}')
    lines.append(f'model = senetzoo.create("hf-hub:{repo}")')
    if description.network.config.get("in_chans", 3) in (1, 3):
        lines.append("transform = senetzoo.transforms(model)  # from an image to its input")
    code = "\n".join([*lines, "print(model.load_report)"])
    own = "Registered classes are the author's; their code isn't here. " * bool(description.own)
    return f"""## Use

```python
{code}
```

{own}Requires {LIBRARY} {description.senetzoo} or newer. Nothing in the repository is executed or
unpickled, and the hash of the weights is checked at every load."""


def _usage_of_timm(repo: str, name: str, classifies: bool) -> str:
    # Transformers' pipeline needs a classifier.
    others = f'`transformers.pipeline("image-classification", model="{repo}")` and\n' * classifies
    read = "read" if classifies else "reads"
    return f"""## Use

This is timm's `{name}`, with its tensor names.

```python
import timm

model = timm.create_model("hf-hub:{repo}", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
```

{others}`{LIBRARY}.load("hf-hub:{repo}")` {read} it too."""


def _of_entry(tag: str, entry: Entry, metrics: Sequence[Metric]) -> list[str]:
    """The sections about a manifest entry, with those of its metrics that hold."""
    figures = [
        "| | on | images | value |",
        "| --- | --- | ---: | ---: |",
        *(_figure(metric) for metric in metrics),
    ]
    if not metrics:
        why = "The accuracy of these weights was measured with another preprocessing."
        figures = [why if entry.metrics else "No accuracy of these weights is published."]
    trained = [f"On {entry.data}."]
    if entry.training:
        training = entry.training[-1]
        trained += [
            f"Recipe `{training.recipe}`, {training.epochs} epochs, seed {training.seed}, at "
            f"commit `{training.revision}` of {LIBRARY}, {training.hours:.2g} hours on "
            f"{training.machine}"
            + (
                f", from the weights `{training.start}` in the package at that commit."
                if training.start
                else "."
            ),
            f"\n```sh\n{training.command}\n```",
        ]
    license = entry.license
    hashed = "the publisher states no hash of the file named in it"
    if entry.pinned:
        hashed = "the hash is that of the file named in it"
    entries = json.dumps({tag: dataclasses.asdict(entry)}, indent=1, ensure_ascii=False)
    return [
        "## How good it is\n\n" + "\n".join(figures),
        "## How it was trained\n\n" + "\n".join(trained),
        "## License\n\n"
        f"Weights: {license.weights}. Code: {license.code}. Data: {license.data}."
        + " Commercial use is not allowed."
        * license.non_commercial,
        f"## Provenance\n\n{entry.provenance[0].upper()}{entry.provenance[1:]}.",
        f"## Manifest entry\n\nFrom {LIBRARY}; {hashed}.\n\n```json\n{entries}\n```",
    ]


def _of_run(result: Result) -> list[str]:
    """The sections about the run that trained the network."""
    low, high = (100 * limit for limit in result.interval)
    lines = [
        "## How good it is\n",
        "| | on | images | value | 95 % interval |",
        "| --- | --- | ---: | ---: | ---: |",
        f"| top-1 | {_cell(result.data)}, {result.part} images | {result.images:,} | "
        f"{100 * result.right / result.images:.2f} % | {low:.1f} to {high:.1f} |",
    ]
    if result.chose_epoch:
        lines.append(f"\n{chose_epoch('These images')}")
    start = f", from the weights `{result.start}`" if result.start else ""
    trained = f"On {_cell(result.data)}{start}"
    trained += f":\n\n```sh\n{result.command}\n```" if result.command else "."
    return ["\n".join(lines), f"## How it was trained\n\n{trained}"]


def _figure(metric: Metric) -> str:
    spread = f" ± {metric.std:g} over {metric.runs} runs" if metric.std is not None else ""
    name = "top-5" if metric.name == "accuracy@5" else "top-1"
    source = f", as {metric.source} states" if metric.source else ""
    value = f"{metric.value:.2f} %{spread}{source}"
    return f"| {name} | {_cell(metric.data)} | {metric.images:,} | {value} |"
