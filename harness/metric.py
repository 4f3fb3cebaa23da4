"""What the name of a metric says of its values: which way is better, whether it is a share."""

import re
from functools import cache

from harness import catalog

LOWER = re.compile(
    r"perplexity|ppl|bits_per_byte|loss|brier|^ter$|^wer$|_bias|pct_stereotype|likelihood_diff"
    r"|toxicity",
    re.IGNORECASE,
)
"""In the names of metrics that are better where lower, if their task is not known here."""
WHOLE = {"accuracy", "recall", "substring match", "acc", "acc_norm", "exact_match"}
"""Shares of so few trials that tenths of a percent say nothing."""
SHARE = re.compile(r"accuracy|F1|ROUGE|edit similarity|right-prefix|share of|average of")
"""How the names of metrics begin that are shares of one, too, and read best in percent."""


@cache
def higher_is_better(task: str, metric: str) -> bool:
    """As the task says; of a task that is not known here, or asks elsewhere, as its metric does."""
    try:
        said = getattr(type(catalog.load("tasks", task.split(",")[0])), "higher_is_better", None)
    except (LookupError, ValueError, ImportError):
        said = None
    return said if isinstance(said, bool) else not LOWER.search(metric)


def is_share(metric: str) -> bool:
    """Whether it is a share of one, and reads best in percent."""
    return metric in WHOLE or SHARE.match(metric) is not None
