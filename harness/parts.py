"""What a pass has read, kept until all of it is: a killed one goes on from its last whole document.

Losses and written answers lie in the cache, by all that they depend on: weights, encoding, dtype,
block, code. Whatever is otherwise is another folder, and read anew.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from harness import machine
from harness.disk import arrays, whole
from harness.engine.evaluate import together, tree_of
from harness.task import Losses, Outcome, Request, Text

FOLDER = "parts"
SOURCE = (".py", ".c")
OLD = 30 * 24 * 3600
"""Seconds after which nobody is expected to go on."""


class Parts:
    """What of one pass was read and written, by an earlier start or this one."""

    def __init__(self, provenance: dict[str, Any], *, keeps: bool = True) -> None:
        """Of one pass.

        Args:
            provenance: all that they depend on, but for what is read.
            keeps: not of a pass that ranks share, who would have to agree on what is known.
        """
        said = json.dumps([CODE, provenance], sort_keys=True, default=str)
        name = hashlib.sha256(said.encode()).hexdigest()
        self.folder = machine.cache_folder() / FOLDER / name
        self.keeps = keeps
        self.spent = 0.0
        """Seconds that an earlier start took for what is not read again."""

    def answers(
        self,
        ask: Callable[..., list[Outcome]],
        requests: Sequence[Request],
        *,
        apart: bool,
        step: Callable[[float], None],
    ) -> list[Outcome]:
        """Ask group by group, and of each only what is not known; in the order of the requests.

        Args:
            ask: reads some requests; of those that are written it takes `written` and `tell`, as
                `harness.engine.evaluate` does.
            requests: of the pass.
            apart: each by itself.
            step: told of tokens that need not be read.
        """
        every = [[i] for i in range(len(requests))] if apart else _groups(requests)
        found: dict[int, Outcome] = {}
        for group in every:
            some = [requests[i] for i in group]
            if self.keeps and isinstance(some[0].ask, Text):
                found.update(zip(group, self._written(ask, some), strict=True))
                continue
            keeps = self.keeps and len(every) > 1 and all(isinstance(r.ask, Losses) for r in some)
            known = self._known(some) if keeps else None
            if known is None:
                began = time.perf_counter()
                known = ask(some)
                if keeps:
                    self._keep(some, known, time.perf_counter() - began)
            else:
                step(len(tree_of(some).tokens))
            found.update(zip(group, known, strict=True))
        return [found[i] for i in range(len(requests))]

    def _written(self, ask: Callable[..., list[Outcome]], requests: list[Request]) -> list[Outcome]:
        """Each is kept as soon as it is there: one may take minutes."""
        known = {i: self._known([request]) for i, request in enumerate(requests)}
        written = {i: tuple(map(int, held[0])) for i, held in known.items() if held is not None}
        since = time.perf_counter()

        def tell(i: int, answer: tuple[int, ...]) -> None:
            nonlocal since
            now = time.perf_counter()
            self._keep([requests[i]], [np.array(answer, np.int64)], now - since)
            since = now

        return ask(requests, written=written, tell=tell)

    def drop(self) -> None:
        """Forget this pass, whose result is told, and those that nobody went on with."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            for other in self.folder.parent.iterdir():
                if time.time() - other.stat().st_mtime > OLD:
                    shutil.rmtree(other, ignore_errors=True)

    def _known(self, requests: Sequence[Request]) -> list[Outcome] | None:
        try:
            place = self._place(requests)
            with place.open("rb") as file:
                held = arrays(file)
            found = [held[str(i)] for i in range(len(requests))]
            self.spent += float(held["seconds"])
        except (OSError, ValueError, KeyError):  # none, or torn
            return None
        return found

    def _keep(self, requests: Sequence[Request], found: list[Any], seconds: float) -> None:
        """Where the cache takes none, the pass goes on without."""
        place = self._place(requests)
        with suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            with whole(place) as file:
                np.savez(file, seconds=seconds, **{str(i): held for i, held in enumerate(found)})

    def _place(self, requests: Sequence[Request]) -> Path:
        digest = hashlib.sha256()
        for request in requests:
            asked = f"{len(request.tokens)} {request.ask!r} "
            digest.update(asked.encode() + np.asarray(request.tokens, np.int64).tobytes())
        return self.folder / f"{digest.hexdigest()}.npz"


def _code() -> str:
    """What runs, by content: a commit says too little of code that was changed since."""
    digest = hashlib.sha256()
    for package in ("harness", "harness.methods", "harness.tasks"):
        found = find_spec(package)
        for place in map(Path, (found and found.submodule_search_locations) or ()):
            for file in sorted(place.rglob("*")):
                if file.suffix in SOURCE:
                    digest.update(file.relative_to(place).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


CODE = _code()
"""Of this process: read when it begins."""


def _groups(requests: Sequence[Request]) -> list[list[int]]:
    """As the engine reads them: what begins alike together; all that is written in one go."""
    written = [i for i, request in enumerate(requests) if isinstance(request.ask, Text)]
    return [*([written] if written else []), *together(requests)]
