"""BABILong's rule: of all places or people that could be right, only the right one is named.

Kuratov et al. 2024, https://arxiv.org/abs/2406.10149; babilong/metrics.py of
https://github.com/booydar/babilong
"""

from collections.abc import Iterable

PLACES = ("bathroom", "bedroom", "garden", "hallway", "kitchen", "office")
LABELS = {
    **dict.fromkeys(("qa1", "qa2", "qa3", "qa4"), PLACES),
    "qa5": ("Bill", "Fred", "Jeff", "Mary", "apple", "football", "milk"),
}
"""What can be right, by task."""
ENDS = (".", "<context>", "<example>")
"""Whichever comes first ends the answer; the official code looks for `Question` as well, but in
lower case, so never finds it."""


def extracted(prediction: str, question: str, labels: Iterable[str]) -> list[str]:
    """The labels that are named in the first sentence and not in the question."""
    said, asked = prediction.lower(), question.lower()
    for end in ENDS:
        said = said.split(end)[0]
    return sorted(label for label in map(str.lower, labels) if label in said and label not in asked)


def compare_answers(target: str, prediction: str, question: str, labels: Iterable[str]) -> bool:
    """Just the target is named; what stands in the question is never counted."""
    return extracted(prediction, question, labels) == [target.lower()]
