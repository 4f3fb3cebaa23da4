"""Two runs on one results folder: harmless, and the second is told of the first."""

from collections.abc import Iterator
from contextlib import contextmanager

from harness.disk import held
from harness.plan import Watch
from harness.store import Store


@contextmanager
def filling(store: Store, watch: Watch, how: str = "") -> Iterator[bool]:
    """Whether no other run on this machine fills the folder, which is said else; in here, we do.

    Args:
        store: of the folder.
        watch: who is told.
        how: what this run does about it.
    """
    with held(store.runs) as alone:
        if not alone:
            watch.note(
                f"Another harness run is filling {str(store.root)!r}: {how}what either has "
                "finished is not run again."
            )
        yield alone
