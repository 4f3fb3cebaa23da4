"""Checkpoints that others published to be read far: what CLEX, LongRoPE and YaRN's pages list.

A model of such a name, `clex-llama-2-7b-16k`, is the hub's, with the method on that it was trained
with. The list is `checkpoints.yaml`; each name is the printed one in small letters.
"""

from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from harness import lengths
from harness.nearest import hint


class Checkpoint(BaseModel):
    """One of them, as its page prints it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """As it was printed."""
    page: str
    source: str
    """The page's address."""
    base: str
    """What it was trained from, as its page calls it."""
    started: str
    """Where that is on the hub."""
    chat: bool = False
    """It was trained on conversations."""
    trained: int | None = None
    """Tokens of its training sequences; None: no source says."""
    tested: int
    """Tokens of the longest input that its page says it was tested at or takes."""
    method: str
    """What it was trained with, as `harness.catalog` reads it."""
    hub: str | None = None
    """Where its weights are; None: they were not published."""
    note: str | None = None

    @property
    def key(self) -> str:
        """What a person types."""
        return self.name.lower()

    @property
    def phrase(self) -> str:
        """What it was trained on, as `harness.trained` says it of models of this project."""
        long = f": sequences of {self.trained:,}" if self.trained else ""
        return f"{self.base} trained further, by {self.page}{long}"


@cache
def every() -> tuple[Checkpoint, ...]:
    """In the order of their pages."""
    import yaml

    said = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text("utf-8"))
    bases = said["bases"]
    rows = ({**page, **row} for page in said["pages"] for row in page.pop("models"))
    return tuple(_read({**row, "started": bases[row["base"]]}) for row in rows)


def _read(row: dict[str, str]) -> Checkpoint:
    spelled = {k: lengths.lengths(row[k])[0] for k in ("trained", "tested") if k in row}
    return Checkpoint.model_validate({**row, **spelled})


@cache
def find(name: str) -> Checkpoint | None:
    """The one of this name, or at this place on the hub; in capitals or not."""
    meant = name.lower()
    return next((c for c in every() if meant in (c.key, (c.hub or "").lower())), None)


def place(name: str) -> str | None:
    """Where on the hub it is; None: no published checkpoint has this name.

    Raises:
        LookupError: it has, and its weights were never published.
    """
    found = find(name)
    if found is None:
        return None
    if found.hub is None:
        raise LookupError(
            f"The weights of {found.name} were never published, only its numbers: see `harness "
            "published`. Give a folder with a model that was trained so, and --method "
            f"{found.method}."
        )
    return found.hub


def near(name: str) -> str:
    """` Did you mean 'clex-phi-2-32k'?`, or nothing."""
    return hint(name.lower(), [c.key for c in every()])
