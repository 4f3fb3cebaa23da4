"""A method: how to make a pretrained transformer read further than it was trained to."""

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A way to extend a model. Its fields are its hyperparameters, and go into every result."""

    formula: ClassVar[str]
    """The encoding in plain text, as the paper writes it."""
    paper: ClassVar[str]
    """Where it was published: authors, year, address."""
    depends_on_length: ClassVar[bool] = False
    """A shorter input would be encoded otherwise: each length needs a pass of its own."""

    @abstractmethod
    def applied_to(self, model: "nn.Module", length: int) -> AbstractContextManager[None]:
        """Extend the model to read `length` tokens, and put it back on the way out.

        The scale is fixed here, before the first token is read: whatever is read inside, whole or
        in pieces, is encoded alike. The model comes back bit for bit, also after an error.
        """

    def unfit(self, model: "nn.Module", length: int) -> str | None:
        """Why this method cannot run here, in a phrase; None if it can."""
        return None

    def notice(self, model: "nn.Module", length: int) -> str | None:
        """What a reader of the number must know (an assumption, a default); None if nothing."""
        return None

    def provenance(self, model: "nn.Module", length: int) -> dict[str, Any]:
        """All that was resolved for this model and length, for the result."""
        return {}
