"""RULER's matching: an answer counts where it stands in what was said, case aside.

Hsieh et al. 2024, https://arxiv.org/abs/2404.06654; scripts/eval/synthetic of
https://github.com/NVIDIA/RULER
"""

import re
from collections.abc import Sequence


def cleaned(prediction: str) -> str:
    """Stripped, and every control character a new line."""
    return re.sub(r"[\x00-\x1f]", "\n", prediction.strip()).strip()


def match_all(prediction: str, references: Sequence[str]) -> float:
    """The share of references that stand in the prediction: `string_match_all` of one sample."""
    return sum(_hits(prediction, references)) / len(references)


def match_any(prediction: str, references: Sequence[str]) -> float:
    """One if any reference stands in the prediction: `string_match_part` of one sample."""
    return float(any(_hits(prediction, references)))


def _hits(prediction: str, references: Sequence[str]) -> list[bool]:
    said = cleaned(prediction).lower()
    return [reference.lower() in said for reference in references]
