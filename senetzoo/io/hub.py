"""Repositories of the Hugging Face Hub that hold a network: reading one, and pushing to one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from senetzoo._utils.environment import offline
from senetzoo.errors import ConfigError, WeightsError
from senetzoo.io.folder import CONFIG, WEIGHTS, opened
from senetzoo.weights.cache import sha256 as hash_of
from senetzoo.weights.download import persistently, status
from senetzoo.weights.load import Trained

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PREFIX = "hf-hub:"
CARD = "README.md"
_REPO = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_repo(text: str) -> bool:
    """Whether `text` can be a repository, ``owner/name`` or ``owner/name@revision``."""
    return _REPO.fullmatch(text) is not None


def parsed(text: str) -> tuple[str, str | None]:
    """The repository and the revision of ``owner/name@revision``.

    Raises:
        ConfigError: `text` names no repository.
    """
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
    """The repository that `text` names, to push to.

    Raises:
        ConfigError: It names none, or a revision.
    """
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

    Raises:
        ConfigError: `text` names no repository.
        WeightsError: It can't be had.
    """
    repo, revision = parsed(text)
    config = _fetched(repo, CONFIG, revision)
    # The cache has a folder of each commit.
    found = config.parent.name
    commit = found if _COMMIT.fullmatch(found) else revision or "main"

    def fetch(sha256: str) -> tuple[Path, str]:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(repo, WEIGHTS, revision=commit)
        if not isinstance(cached, str):
            return _fetched(repo, WEIGHTS, commit), "hub"
        if hash_of(Path(cached)) == sha256 or offline():
            return Path(cached), "cache"
        return _fetched(repo, WEIGHTS, commit, again=True), "hub"

    return opened(config, f"{PREFIX}{repo}@{commit}", fetch)


def _fetched(repo: str, file: str, revision: str | None, *, again: bool = False) -> Path:
    """A file of a repository, from the cache or from the Hub.

    Raises:
        WeightsError: It can't be had.
    """
    from huggingface_hub import hf_hub_download

    local = offline()
    try:
        found = persistently(
            lambda: hf_hub_download(
                repo,
                file,
                revision=revision,
                force_download=again,
                local_files_only=local,
            )
        )
    except Exception as error:
        raise _unreadable(error, repo, file, revision) from error
    return Path(found)


def _unreadable(error: Exception, repo: str, file: str, revision: str | None) -> WeightsError:
    """What an error of the client means."""
    from huggingface_hub import errors

    at = f"{repo} at {revision}" if revision else repo
    if isinstance(error, errors.GatedRepoError):
        return WeightsError(
            f"{repo} can't be read.",
            "Its owner gives access to some only, and not to this token, or there is no token.",
            f"Ask for access on the page of {repo}, and type: hf auth login",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return WeightsError(
            f"There is no repository {repo} on the Hugging Face Hub, and no such folder here.",
            "It may also be a private one that this token, or no token, does not open.",
            "Look at the name; for a private one type: hf auth login",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return WeightsError(
            f"{repo} has no revision {revision!r}.",
            "A revision is a branch, a tag, or a full commit.",
            f"Type for example: hf-hub:{repo}",
        )
    if isinstance(error, errors.LocalEntryNotFoundError) and offline():
        wanted = f" --revision {revision}" if revision else ""
        return WeightsError(
            f"{at} is not in the cache, and HF_HUB_OFFLINE forbids downloads.",
            f"It needs the files {CONFIG} and {WEIGHTS}; {file} is missing.",
            f"With a network type: hf download {repo} {CONFIG} {WEIGHTS}{wanted} --local-dir "
            "FOLDER; copy FOLDER here and load it",
        )
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(
        error, errors.LocalEntryNotFoundError
    ):
        return WeightsError(
            f"{at} holds no network of senetzoo.",
            f"It has no {file}.",
            "Give a repository that senetzoo push made",
        )
    return WeightsError(
        f"{file} of {at} could not be fetched.",
        _told(error),
        "Check the network, or bring the files in a folder and load that",
    )


def _told(error: Exception) -> str:
    """An error of the client in a line."""
    cause = error.__cause__ or error
    lines = str(cause).splitlines() or str(error).splitlines()
    return f"{type(cause).__name__}: {lines[0] if lines else 'no message'}"


# --- Pushing -------------------------------------------------------------------------------------


def push(folder: Path, repo: str, *, private: bool, message: str) -> str:
    """Upload a folder's card, ``config.json`` and weights in one commit.

    Args:
        folder: The folder.
        repo: ``owner/name``; made where it does not exist.
        private: Whether it is made a private one.
        message: Message of the commit.

    Returns:
        The commit.

    Raises:
        WeightsError: The Hub refuses.
    """
    from huggingface_hub import HfApi, get_token

    if offline():
        raise WeightsError(
            f"Nothing was pushed to {repo}.",
            "HF_HUB_OFFLINE keeps off the network.",
            "Unset HF_HUB_OFFLINE, or type --dry-run --folder FOLDER for the files",
        )
    if get_token() is None:
        raise WeightsError(
            f"Nothing was pushed to {repo}.",
            "The Hub takes files for a token only, and there is none.",
            "Type: hf auth login, or set HF_TOKEN",
        )
    api = HfApi()
    try:
        _make(api, repo, private)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=[CARD, CONFIG, WEIGHTS],
            commit_message=message,
        )
    except WeightsError:
        raise
    except Exception as error:
        raise _refused(error, repo) from error
    return commit.oid


def _make(api: HfApi, repo: str, private: bool) -> None:
    api.create_repo(repo, private=private, exist_ok=True)
    # Of one that exists, the visibility stays as it is.
    if private and api.model_info(repo).private is False:
        raise WeightsError(
            f"Nothing was pushed to {repo}.",
            "It exists, and everybody can read it; --private does not change that.",
            "Give another name, make it private in its settings, or leave --private out",
        )


def _refused(error: Exception, repo: str) -> WeightsError:
    """What an error of the client at a push means."""
    first = f"Nothing was pushed to {repo}."
    if status(error) == 401:
        return WeightsError(
            first, "The Hub does not know the token (401).", "Type: hf auth login, or set HF_TOKEN"
        )
    if status(error) == 403:
        return WeightsError(
            first,
            f"The token may not write to {repo} (403).",
            "Take a token with the right to write, or a repository of your own",
        )
    if status(error) == 404:
        return WeightsError(
            first,
            "The Hub has no such repository, and makes none (404).",
            "Look at the owner's name; make the repository on the Hub's page",
        )
    return WeightsError(first, _told(error), "Check the network, and type it again")
