"""Repositories of the Hugging Face Hub that hold a network: reading one, and pushing to one."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import senetzoo
from senetzoo._utils.environment import offline
from senetzoo.errors import ConfigError, WeightsError
from senetzoo.io import timm
from senetzoo.io.card import card as written_card
from senetzoo.io.card import check_card
from senetzoo.io.folder import CONFIG, REMEDY, WEIGHTS, Read, opened
from senetzoo.io.save import Format, described_by
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import count
from senetzoo.nn.provenance import provenance
from senetzoo.weights.cache import hub_cache, or_spare
from senetzoo.weights.download import HUB, endpoint, explain, persistently, status
from senetzoo.weights.load import Trained
from senetzoo.weights.load import read as read_tensors
from senetzoo.weights.manifest import manifest

PREFIX = "hf-hub:"
CARD = "README.md"
_REPO = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_repo(text: str) -> bool:
    """Whether `text` can be a repository, ``owner/name`` or ``owner/name@revision``."""
    return _REPO.fullmatch(text) is not None


def parsed(text: str) -> tuple[str, str | None]:
    """The repository and the revision of ``owner/name@revision``."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    found = _REPO.fullmatch(text)
    try:
        if found is not None:
            validate_repo_id(found["repo"])
            return found["repo"], found["revision"]
    except HFValidationError:
        pass
    raise ConfigError(
        f"{text!r} names no repository of the Hugging Face Hub.",
        "A repository is owner/name, of letters, digits, and single ., - and _ between them.",
        "Type for example: hf-hub:owner/name, or hf-hub:owner/name@v1 for a revision",
    )


def branchless(text: str) -> str:
    """The repository that `text` names without a revision, to push to."""
    name, revision = parsed(text.removeprefix(PREFIX))
    if revision is not None:
        raise ConfigError(
            f"{text} names a revision.",
            "A push is a new commit of the main branch.",
            f"Type: {name}",
        )
    return name


# --- Reading -------------------------------------------------------------------------------------


def read(text: str) -> Trained:
    """The network of ``owner/name@revision``; its ``config.json`` is fetched.

    Both files are of one commit, which the tag names. Nothing is asked for that is in the cache at
    a full commit, and nothing at all offline.
    """
    repo, revision = parsed(text)
    config = _fetched(repo, CONFIG, revision)
    # The cache has a folder of each commit.
    found = config.parent.name
    commit = found if _COMMIT.fullmatch(found) else revision or "main"

    def fetch(sha256: str) -> Read:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(repo, WEIGHTS, revision=commit)
        if isinstance(cached, str):
            try:
                return (*read_tensors(Path(cached), sha256, REMEDY), "cache")
            except WeightsError:
                if offline():
                    raise
        file = _fetched(repo, WEIGHTS, commit, again=isinstance(cached, str))
        return (*read_tensors(file, sha256, REMEDY), "hub")

    return opened(config, f"{PREFIX}{repo}@{commit}", fetch)


def _fetched(repo: str, file: str, revision: str | None, *, again: bool = False) -> Path:
    """A file of a repository, from the cache or from the Hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    local = offline()
    at = f"{repo} at {revision}" if revision else repo
    try:
        found = or_spare(
            lambda folder: persistently(
                lambda: hf_hub_download(
                    repo,
                    file,
                    revision=revision,
                    force_download=again,
                    local_files_only=local,
                    cache_dir=folder or hub_cache(),
                )
            ),
            "HF_HOME",
        )
    except Exception as error:
        if local and isinstance(error, LocalEntryNotFoundError):
            wanted = f" --revision {revision}" if revision else ""
            raise WeightsError(
                f"{at} is not in the cache, and HF_HUB_OFFLINE forbids downloads.",
                f"It needs the files {CONFIG} and {WEIGHTS}; {file} is missing.",
                f"With a network type: hf download {repo} {CONFIG} {WEIGHTS}{wanted} --local-dir "
                "FOLDER; copy FOLDER here and load it",
            ) from error
        page = f"{endpoint() or HUB}/{repo}"
        meaning, remedy = explain(
            error,
            page=page,
            others=f"Give one that senetzoo push or timm made; {PREFIX}{repo} is its newest commit",
            instead="bring the files in a folder and load that",
        )
        raise WeightsError(
            f"There is no folder {repo} here, and {file} of {at} could not be fetched.",
            f"{page}: {meaning}.",
            remedy,
        ) from error
    return Path(found)


# --- Pushing -------------------------------------------------------------------------------------


def push(
    model: Classifier,
    repo: str,
    *,
    private: bool = False,
    card: Path | None = None,
    format: Format = "senetzoo",
) -> str:
    """Push a network with a card to the Hugging Face Hub, from where `load` makes it again.

    Args:
        model: A network of this zoo.
        repo: The repository, ``owner/name``; made where it does not exist.
        private: Whether it is made a private one.
        card: A ``README.md`` to send as it is; None for one that says what is known.
        format: ``"timm"`` for files that timm and Transformers read too, as of `senetzoo.save`.

    Returns:
        The commit.

    Raises:
        ConfigError: `repo` names no repository, or the network can't be saved.
        WeightsError: The weights are not finite, or the Hub refuses.
    """
    name = branchless(repo)
    with tempfile.TemporaryDirectory() as scratch:
        title = stage(model, name, Path(scratch), card, format)
        return upload(Path(scratch), name, private=private, message=title)


Classifier.push_to_hub = push


def stage(
    model: Classifier, repo: str, folder: Path, own: Path | None, format: Format = "senetzoo"
) -> str:
    """Write what is pushed to `folder`: card, ``config.json`` and weights; the push's title.

    The card is the file `own`; without one, it says what is known.
    """
    report = provenance(model)
    entry = manifest().get(report.tag) if report is not None else None
    if report is not None and entry is not None:
        # Of weights that were changed on the way in or later, the manifest says nothing; what it
        # does say of their file is noted by the file's name.
        same = all(where == entry.source.file for where, _ in report.adapted)
        if report.replaced or report.changed or report.origin == "folder" or not same:
            entry = None
    tag = report.tag if report is not None and entry is not None else ""
    description = described_by(model, folder, format=format)
    if own is None:
        theirs = timm.architecture(model).name if format == "timm" else ""
        # Of the images that the card names: the network is perhaps made for others.
        size = description.preprocessing.size if description.preprocessing is not None else None
        text = written_card(repo, description, count(model, size), tag, entry, theirs)
    else:
        text = own.read_text(encoding="utf-8")
        check_card(text, str(own))
    (folder / CARD).write_text(text, encoding="utf-8")
    version = f"senetzoo {senetzoo.__version__}"
    return f"{tag}, by {version}" if tag else version


# What an HTTP status means for a push, and what to type.
_REFUSALS = {
    401: ("The Hub does not know the token (401).", "Type: hf auth login, or set HF_TOKEN"),
    403: (
        "The token may not write to {repo} (403).",
        "Take a token with the right to write, or a repository of your own",
    ),
    404: (
        "The Hub has no such repository, and makes none (404).",
        "Look at the owner's name; make the repository on the Hub's page",
    ),
}


def upload(folder: Path, repo: str, *, private: bool, message: str) -> str:
    """Upload a folder's card, ``config.json`` and weights in one commit, and return it.

    The repository is made where it does not exist. `WeightsError`: the Hub refuses.
    """
    from huggingface_hub import HfApi, get_token

    first = f"Nothing was pushed to {repo}."
    if offline():
        raise WeightsError(
            first,
            "HF_HUB_OFFLINE keeps off the network.",
            "Unset HF_HUB_OFFLINE, or type --dry-run --folder FOLDER for the files",
        )
    if get_token() is None:
        raise WeightsError(
            first,
            "The Hub takes files for a token only, and there is none.",
            "Type: hf auth login, or set HF_TOKEN",
        )
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        # Of one that exists, the visibility stays as it is.
        public = private and api.model_info(repo).private is False
        if not public:
            files = [CARD, CONFIG, WEIGHTS]
            return api.upload_folder(
                repo_id=repo, folder_path=folder, allow_patterns=files, commit_message=message
            ).oid
    except Exception as error:
        meaning, remedy = explain(error, instead="type it again")
        true, remedy = _REFUSALS.get(status(error) or 0, (f"{meaning}.", remedy))
        raise WeightsError(first, true.replace("{repo}", repo), remedy) from error
    raise WeightsError(
        first,
        "It exists, and everybody can read it; --private does not change that.",
        "Give another name, make it private in its settings, or leave --private out",
    )
