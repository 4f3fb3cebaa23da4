"""What a search minimises: the loss of a model that reads by an individual's factors."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any

from harness import machine
from harness.cost import Work
from harness.engine.evaluate import evaluate
from harness.model import Card, Live, load
from harness.probe import checked
from harness.rope import Encoding
from harness.rotation import rotated
from harness.search.space import Individual
from harness.task import Request, Task

TASK = "perplexity.whole"
"""One window of the target length a document; exp of the mean over documents of the mean loss."""


@dataclass
class Objective:
    """A model, what it reads, and how an individual is put on it."""

    card: Card
    task: Task
    reader: Any
    """A `harness.task.Reader`."""
    requests: Sequence[Request]
    """One a document."""
    encoding: Callable[[Individual], Encoding]
    device: str = "auto"
    dtype: str = "auto"
    trust_remote_code: bool = False
    read: int = 0
    """Documents so far, by this process."""
    meant: Callable[[str], None] = lambda weights: None
    """Told the weights' sha256, which of a model on the hub is not known before."""

    def loss(self, it: Individual, document: int) -> float:
        """Nats, the mean over one document; infinite where a logit is not finite."""
        request = self.requests[document]
        self.read += 1
        try:
            with rotated(self.live.model, self.encoding(it)):
                (outcome,) = evaluate(self.live.model, [request])
        except FloatingPointError:
            return inf
        return self.task.grade(request, outcome, self.reader).score

    @cached_property
    def live(self) -> Live:
        """Loaded when the first loss is read: a search that is done needs no model."""
        live = load(
            self.card.name,
            device=self.device,
            dtype=self.exact_dtype,
            trust_remote_code=self.trust_remote_code,
        )
        self.meant(live.weights)
        return checked(live)

    @property
    def exact_dtype(self) -> str:
        return str(machine.dtype(self.dtype, machine.device(self.device))).removeprefix("torch.")

    def costs(self) -> list[Work]:
        """Of each document."""
        return [Work.of([request]) for request in self.requests]
