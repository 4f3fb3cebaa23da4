"""The hub, or its cache alone where there is no network."""

import os
import socket
import sys
from functools import cache


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
