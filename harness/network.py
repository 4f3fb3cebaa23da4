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
