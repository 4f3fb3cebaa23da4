"""A dataset of the Hugging Face hub as a corpus."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.corpora.text import Corpus, Text, require, texts_of_rows
from harness.network import pinned


@dataclass(frozen=True)
class Hub(Corpus):
    """A dataset of the Hugging Face hub, streamed: only as much is fetched as is asked for.

    Joined rows must follow one another.
    """

    dataset: str
    config: str | None
    split: str
    column: str
    join: str

    @property
    def joins(self) -> str:
        return "" if self.join else "+join:COLUMN"

    def texts(self, first: int) -> Iterator[Text]:
        return texts_of_rows(self.rows(), self.column, self.join, self.name, grouped=True)

    def rows(self, whole: bool = True) -> Iterator[dict[str, Any]]:
        """With all their columns: the hub does not send fewer."""
        from datasets import load_dataset

        name, revision = pinned(self.dataset)
        try:
            rows = load_dataset(
                name, self.config, split=self.split, streaming=True, revision=revision
            )
        except Exception as error:  # what it raises is not documented, and differs by cause
            why = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise LookupError(f"{self.name} could not be opened: {why}") from error
        return (self._checked(row) for row in rows)

    def label(self) -> str:
        return self.name

    def _checked(self, row: dict[str, Any]) -> dict[str, Any]:
        require([self.column, *([self.join] if self.join else [])], row, self.dataset)
        return row
