"""Any task of lm-eval by its name, `lm-eval:arc_easy`, asked through this project's engine.

Gao et al. 2024, https://github.com/EleutherAI/lm-evaluation-harness

The length is what lm-eval calls max_length: longer inputs lose their left, and are counted. The
number is the task's main metric, and the name in results says which: `lm-eval:arc_easy.acc_norm`;
another is asked for by that name. Prompts are plain text, as published numbers of base models are.
"""

import re

from harness import lmeval

from ._lm_eval import LmEval, of_name

WITH_METRIC = re.compile(r"(.+)\.([A-Za-z]\w*(?:@\w+)?(?::.+)?)")
BY_LENGTH = re.compile(r"\.\d{4,}$")
task = LmEval()


def named(name: str) -> LmEval:
    """NAME, or NAME.METRIC, or NAME.METRIC:FILTER; no name of lm-eval's ends as a metric does."""
    match = WITH_METRIC.fullmatch(name)
    return of_name(__name__, *(match.groups() if match else (name,)))()


def meant(name: str, data: str = "") -> list[str]:
    """The name with its metric; of a tag, or a group without a number, one for each task below.

    Raises:
        ValueError: a metric is named by a length, as RULER's there.
    """
    if WITH_METRIC.fullmatch(name):
        return [name]
    found = lmeval.full_names(BY_LENGTH.sub("", name), data)
    if not all(map(WITH_METRIC.fullmatch, found)):
        raise ValueError(
            f"lm-eval's {name} names its metrics by length and asks 4,096 tokens, whatever the "
            "cell's length: take this project's own RULER, as -t ruler.vt."
        )
    return found
