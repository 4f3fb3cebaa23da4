"""What RULER's thirteen questions share: how an answer is graded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from harness.judge import Judge
from harness.metrics.ruler import cleaned, match_all

from ._filled import Filled

THIRTEEN = (
    "niah_single_1",
    "niah_single_2",
    "niah_single_3",
    "niah_multikey_1",
    "niah_multikey_2",
    "niah_multikey_3",
    "niah_multivalue",
    "niah_multiquery",
    "vt",
    "cwe",
    "fwe",
    "qa_1",
    "qa_2",
)


@dataclass(frozen=True, kw_only=True)
class Ruler(Filled, Judge):
    """The share of answers that stand in what was said; 500 samples are published."""

    metric = "recall"
    max_new_tokens = 128
    averaged = THIRTEEN
    counts = "each answer that stands somewhere in what is said, whatever the case"

    def matched(self, said: str, answers: Sequence[str], about: Mapping[str, Any]) -> float:
        return match_all(said, answers)

    def judge(
        self, prediction: str, gold: Sequence[str], row: Mapping[str, Any]
    ) -> tuple[float, str | None]:
        """What anybody's model has said, by the same rule."""
        answers = gold if isinstance(gold, list | tuple) else [gold]
        if not answers or not all(isinstance(answer, str) and answer for answer in answers):
            raise ValueError(f"RULER's answers are texts, and {gold!r} is none.")
        return self.matched(prediction, answers, row), cleaned(prediction) or None

    def columns(self, scores: Mapping[str, float]) -> dict[str, float]:
        """RULER's own average, the plain mean over all thirteen."""
        if not scores.keys() >= {*THIRTEEN}:
            return {}
        return {"average": fmean(scores[name] for name in THIRTEEN)}
