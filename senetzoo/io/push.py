"""Networks to the Hugging Face Hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

import senetzoo
from senetzoo.io import hub
from senetzoo.io.card import card as written_card
from senetzoo.io.card import check_card
from senetzoo.io.folder import CONFIG, read_description, save
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import count
from senetzoo.weights.manifest import manifest


def push(model: Classifier, repo: str, *, private: bool = False, card: Path | None = None) -> str:
    """Push a network with a card to the Hugging Face Hub, from where `load` makes it again.

    Args:
        model: A network of this zoo.
        repo: The repository, ``owner/name``; made where it does not exist.
        private: Whether it is made a private one.
        card: A ``README.md`` to send as it is; None for one that says what is known.

    Returns:
        The commit.

    Raises:
        ConfigError: `repo` names no repository, or the network can't be saved.
        WeightsError: The weights are not finite, or the Hub refuses.
    """
    name = hub.branchless(repo)
    with tempfile.TemporaryDirectory() as scratch:
        title = stage(model, name, Path(scratch), card)
        return hub.push(Path(scratch), name, private=private, message=title)


def stage(model: Classifier, repo: str, folder: Path, own: Path | None) -> str:
    """Write what is pushed: card, ``config.json`` and weights.

    Args:
        model: The network.
        repo: The repository, ``owner/name``.
        folder: Where to write.
        own: A card to take as it is; None to write one.

    Returns:
        A title.

    Raises:
        ConfigError: The card or the network can't be used.
        WeightsError: The weights are no whole network.
    """
    report = model.load_report
    # Of weights that were changed on the way in, the manifest says nothing.
    published = report is not None and not report.replaced and report.origin != "folder"
    tag = report.tag if report is not None and published and report.tag in manifest() else ""
    save(model, folder)
    if own is None:
        description = read_description(folder / CONFIG)
        text = written_card(repo, description, count(model), tag, manifest()[tag] if tag else None)
    else:
        text = own.read_text(encoding="utf-8")
        check_card(text, str(own))
    (folder / hub.CARD).write_text(text, encoding="utf-8")
    return (
        f"{tag}, by senetzoo {senetzoo.__version__}" if tag else f"senetzoo {senetzoo.__version__}"
    )
