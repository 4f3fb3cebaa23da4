"""Which choice an answer to LongBench v2 names, by the two patterns of its pred.py.

Bai et al. 2024, https://arxiv.org/abs/2412.15204; https://github.com/THUDM/LongBench (MIT). Case
counts and the first match is taken: "The correct answer is Apple" names A, and "is: D" nothing.
"""

import re

PATTERNS = (r"The correct answer is \(([A-D])\)", r"The correct answer is ([A-D])")


def chosen(response: str) -> str | None:
    """A to D, or None where no choice is named as the prompt asks; asterisks do not count."""
    plain = response.replace("*", "")
    found = (re.search(pattern, plain) for pattern in PATTERNS)
    return next((match[1] for match in found if match), None)
