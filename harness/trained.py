"""What a trained checkpoint says of itself: the method it was trained with, and on how much.

`training.json` beside the weights. Who evaluates the checkpoint reads the method from here, and the
budget into every result.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from harness import catalog
from harness.disk import write_whole
from harness.mistakes import first

FILE = "training.json"


class Trained(BaseModel):
    """How a checkpoint came to be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    """Spec, its factor written out: `yarn,factor=4`."""
    files: tuple[str, ...] = ()
    """Parameters of the method that name a file beside this one."""
    own: tuple[str, ...] = ()
    """Weights of the method's own, by name: without them it is not what was trained."""
    recipe: str
    """`paper`, `quick`."""
    numbers: dict[str, Any]
    """All of the recipe's, as they were used."""
    base: str
    """The model it started from, by name."""
    base_weights: str
    """sha256 of those."""
    original_length: int
    """Tokens of the window the base was trained on."""
    corpus: str
    """What it read, by content."""
    steps: int
    sequence_length: int
    tokens: int
    """Read in training, each as often as it was."""
    seed: int
    made_with: dict[str, Any] = {}
    """Library versions and commit."""

    @property
    def phrase(self) -> str:
        """For tables: the method, and the budget it was trained on."""
        return (
            f"{self.method}, recipe {self.recipe}: {self.tokens:,} tokens of {self.corpus} in "
            f"{self.steps:,} updates, sequences of {self.sequence_length:,}"
        )


def read(folder: Path) -> Trained | None:
    """Of a checkpoint; None if it was not trained here. Files of its method are found beside it.

    Raises:
        ValueError: the file is there and does not parse.
    """
    try:
        text = (folder / FILE).read_text("utf-8")
    except OSError:
        return None
    try:
        return _found(Trained.model_validate_json(text), folder)
    except ValidationError as error:
        where, why = first(error)
        raise ValueError(
            f"{folder / FILE} does not parse ({where or 'its text'}: {why})."
        ) from None


def _found(trained: Trained, folder: Path) -> Trained:
    """With the method's files where the checkpoint is now."""
    spelled = catalog.split(trained.method)[1]
    here = {name: folder / spelled[name] for name in trained.files}
    if not here:
        return trained
    return trained.model_copy(update={"method": catalog.extended(trained.method, here)})


def write(folder: Path, trained: Trained) -> None:
    """Whole or not at all."""
    write_whole(folder / FILE, trained.model_dump_json(indent=2) + "\n")
