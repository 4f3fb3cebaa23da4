"""A task that can grade what anybody's model has said: `harness score` asks it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

Question = tuple[Any, Mapping[str, Any]]
"""What is right, and what else is known of it."""
Judged = Sequence[tuple[float, Mapping[str, Any]]]
"""Of each row its score, and what it is of."""


class Judge(ABC):
    """It must have `judge`; the rest is for benchmarks whose files say less, or average."""

    metric: ClassVar[str]
    name: ClassVar[str]
    """Of its files, where another task averages it."""
    data: str = ""
    """Where its questions are, if it reads them from a file."""
    averaged: ClassVar[tuple[str, ...]] = ()
    """Variants of the benchmark that its average is made of, where its bare name means others."""

    @abstractmethod
    def judge(self, prediction: str, gold: Any, row: Mapping[str, Any]) -> tuple[float, str | None]:
        """The score, 0 to 1, and what of the prediction decided it; None: nothing that could.

        Args:
            prediction: as it was said, whole.
            gold: what is right, as the file has it: `ground_truth`, `label` or `answers`.
            row: the line of the file, `all_classes` and `length` for one; and as `model` whose
                predictions these are.

        Raises:
            ValueError: `gold` is no answer to a question of this task.
        """

    @property
    def local(self) -> bool:
        """Its questions are on this machine."""
        return not self.data.startswith("hf:")

    def answers(self) -> Mapping[Any, Question]:
        """Its questions by id, where it reads them from a file."""
        return {}

    def members(self) -> Mapping[str, "Judge"]:
        """By dataset the tasks that it averages."""
        return {}

    def whose(self, file: Path, name: str) -> str | None:
        """The model whose predictions of the task of this name a file has; None: it has others."""
        folder = file.absolute().parent
        stem = f"{file.stem}_e" if folder.parent.name == "pred_e" else file.stem
        return folder.name if stem in (name, f"preds_{name}") else None

    def average(self, judged: Judged) -> float:
        """What the metric's name says, of all rows.

        Raises:
            ValueError: what it is made of is not all there; says what is missing.
        """
        return fmean(score for score, _ in judged)

    def parts(self, judged: Judged) -> dict[str, float]:
        """What the task tells apart, as lengths."""
        return {}

    def columns(self, scores: Mapping[str, float]) -> dict[str, float]:
        """The leaderboard's averages, of scores by variant: those that nothing is missing of."""
        return {}
