"""Reading networks from repositories of the Hugging Face Hub, and pushing them there."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import senetzoo
from senetzoo._utils.environment import offline
from senetzoo.errors import ConfigError, WeightsError
from senetzoo.io.card import card as written_card
from senetzoo.io.card import check_card
from senetzoo.io.folder import CONFIG, REMEDY, WEIGHTS, Read, opened
from senetzoo.io.save import Format, describe, save
from senetzoo.nn.classifier import Classifier
from senetzoo.nn.counting import count
from senetzoo.nn.provenance import provenance
from senetzoo.runs import Result
from senetzoo.weights.cache import hub_cache, or_spare
from senetzoo.weights.http import endpoint, explain, persistently, status
from senetzoo.weights.load import Trained
from senetzoo.weights.load import read as read_tensors
from senetzoo.weights.manifest import Entry, manifest

PREFIX = "hf-hub:"
CARD = "README.md"
_REPO = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def parsed(text: str) -> tuple[str, str | None]:
    """Split ``owner/name@revision`` into repository and revision."""
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
        f"{text!r} isn't the name of a repository on the Hugging Face Hub.",
        "It is owner/name, both made of letters, digits, and single ., - and _ between them.",
        "Type for example: hf-hub:owner/name, or hf-hub:owner/name@v1 for a revision",
    )


def branchless(text: str) -> str:
    """The repository `text` to push to; `ConfigError` if it has a revision."""
    name, revision = parsed(str(text).removeprefix(PREFIX))
    if revision is not None:
        raise ConfigError(
            f"{text} has a revision.",
            "Pushing makes a new commit on the main branch.",
            f"Type: {name}",
        )
    return name


# --- Reading -------------------------------------------------------------------------------------


def read(text: str) -> Trained:
    """The network in ``owner/name@revision``; downloads only its ``config.json``.

    Both files are of the same commit, which is part of the tag. Files that are cached for a full
    commit hash are not requested again, and offline nothing is requested.
    """
    repo, revision = parsed(text)
    config = _fetched(repo, CONFIG, revision)
    # The cache has a folder for each commit.
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
                f"With a network, type: hf download {repo} {CONFIG} {WEIGHTS}{wanted} "
                "--local-dir FOLDER; copy FOLDER here and load it",
            ) from error
        page = f"{endpoint()}/{repo}"
        meaning, remedy = explain(
            error,
            page=page,
            others=f"Give one that senetzoo push or timm made; {PREFIX}{repo} is its latest commit",
            instead="copy the files to a folder here and load that",
        )
        raise WeightsError(
            f"{file} of {at} could not be fetched.",
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
    """Push a network with a model card to the Hugging Face Hub, for `load`.

    Args:
        model: A network of this zoo.
        repo: The repository, ``owner/name``; created if needed.
        private: Whether to create it as private.
        card: A ``README.md`` to upload as it is; None to generate one.
        format: ``"timm"`` for files that timm and Transformers read too, as in `senetzoo.save`.

    Returns:
        The commit.

    Raises:
        ConfigError: `repo` isn't a repository name, or the network can't be saved.
        WeightsError: The weights aren't finite, or the Hub rejects the push.
    """
    name = branchless(repo)
    with tempfile.TemporaryDirectory() as scratch:
        title = stage(model, name, Path(scratch), card, format)
        return upload(Path(scratch), name, private=private, message=title)


Classifier.push_to_hub = push


def stage(
    model: Classifier,
    repo: str,
    folder: Path,
    own: Path | None,
    format: Format = "senetzoo",
    result: Result | None = None,
) -> str:
    """Write card, ``config.json`` and weights to `folder`, and return the commit's title.

    The card is the file `own`, or generated if that is None, with the `result` of the run that
    trained the network.
    """
    report, tag = provenance(model), ""
    entry: Entry | None = None
    # The manifest doesn't describe weights that were changed while or after they were loaded.
    if report and not (report.replaced or report.changed or report.origin == "folder"):
        known = manifest().get(report.tag)
        # Changes that belong to the file itself are recorded under the file's name.
        if known and all(where == known.source.file for where, _ in report.adapted):
            tag, entry = report.tag, known
    save(model, folder, format=format)
    if own is None:
        description = describe(model, (folder / WEIGHTS).read_bytes())
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        theirs = config["architecture"] if format == "timm" else ""
        # The size of the images on the card; the network's own may differ.
        size = description.preprocessing.size if description.preprocessing is not None else None
        text = written_card(repo, description, count(model, size), tag, entry, theirs, result)
    else:
        text = own.read_text(encoding="utf-8")
        check_card(text, str(own))
    (folder / CARD).write_text(text, encoding="utf-8")
    version = f"senetzoo {senetzoo.__version__}"
    return f"{tag}, by {version}" if tag else version


# What an HTTP status means for a push, and what to type.
_REFUSALS = {
    401: ("The Hub rejected the token (401).", "Type: hf auth login, or set HF_TOKEN"),
    403: (
        "The token has no write access to {repo} (403).",
        "Use a token with write access, or your own repository",
    ),
    404: (
        "The Hub has no such repository, and can't create it (404).",
        "Check the owner's name, or create the repository on the Hub's website",
    ),
}


def upload(folder: Path, repo: str, *, private: bool, message: str) -> str:
    """Upload a folder's card, ``config.json`` and weights in one commit, and return its hash.

    The repository is created if needed. Raises `WeightsError` if the Hub rejects the push.
    """
    from huggingface_hub import HfApi, get_token

    first = f"Nothing was pushed to {repo}."
    if offline():
        raise WeightsError(
            first,
            "HF_HUB_OFFLINE forbids network access.",
            "Unset HF_HUB_OFFLINE, or write the files with --dry-run --folder FOLDER",
        )
    if get_token() is None:
        raise WeightsError(
            first,
            "Uploading needs a token, and there is none.",
            "Type: hf auth login, or set HF_TOKEN",
        )
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        # An existing repository keeps its visibility.
        public = private and api.model_info(repo).private is False
        if not public:
            files = [CARD, CONFIG, WEIGHTS]
            return api.upload_folder(
                repo_id=repo, folder_path=folder, allow_patterns=files, commit_message=message
            ).oid
    except Exception as error:
        meaning, remedy = explain(error, instead="try again")
        true, remedy = _REFUSALS.get(status(error) or 0, (f"{meaning}.", remedy))
        raise WeightsError(first, true.replace("{repo}", repo), remedy) from error
    raise WeightsError(
        first,
        "It exists and is public; --private doesn't change that.",
        "Give another name, make it private in its settings, or leave out --private",
    )
