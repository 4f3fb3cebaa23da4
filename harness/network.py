"""The hub, or its cache alone where there is no network."""

import os
import re
import socket
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path


def offline() -> None:
    """Take everything of the hub from the cache, also where libraries have been imported."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    for module, constant in (
        ("huggingface_hub.constants", "HF_HUB_OFFLINE"),
        ("datasets.config", "HF_HUB_OFFLINE"),
    ):
        if module in sys.modules:
            setattr(sys.modules[module], constant, True)


@cache
def reachable() -> bool:
    """There is a network: else datasets would wait half a minute for one."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY")):
        return True
    host = os.environ.get("HF_ENDPOINT", "https://huggingface.co").split("//")[-1]
    try:
        socket.getaddrinfo(host.partition("/")[0].partition(":")[0], 443)
    except OSError:
        return False
    return True


PATIENCE = 10
"""Seconds for the hub to say which commit a name means."""


def pinned(name: str) -> tuple[str, str | None]:
    """A dataset's name and the revision behind its @: a commit, a tag, a branch; None: the last."""
    repository, _, revision = name.partition("@")
    return repository, revision or None


@cache
def commit(where: str) -> str | None:
    """The commit that `hf:NAME[@REVISION]...` means now.

    None: it is not on the hub; or nobody can say, for there is neither network nor a fetched copy.
    """
    kind, _, rest = where.partition("+join:")[0].partition(":")
    if kind != "hf":
        return None
    from huggingface_hub import HfApi, constants
    from huggingface_hub.file_download import repo_folder_name

    repository, revision = pinned(rest.partition(":")[0])
    if revision and re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    with suppress(Exception):  # what it raises is not documented, and differs by cause
        return HfApi().dataset_info(repository, revision=revision, timeout=PATIENCE).sha
    folder = repo_folder_name(repo_id=repository, repo_type="dataset")
    refs = Path(constants.HF_HUB_CACHE, folder, "refs", revision or "main")
    with suppress(OSError, ValueError):
        return refs.read_text("utf-8").strip() or None
    return None


SAID = {
    "GatedRepoError": "it is gated: ask for access on its page, then log in with: hf auth login",
    "RepositoryNotFoundError": "the hub has none of this name, or shows it to others only: check "
    "the name, or log in with: hf auth login",
    "LocalEntryNotFoundError": "the hub cannot be reached and the cache does not hold it: check "
    "the connection, or give a folder",
}
"""By the hub's errors, what to do."""


def why(error: BaseException | None) -> str | None:
    """What kept a file of the hub from us, in words; None: it was not the hub."""
    names = set()
    while error:
        names.add(type(error).__name__)
        error = error.__cause__ or error.__context__
    return next((f"{said}." for name, said in SAID.items() if name in names), None)
