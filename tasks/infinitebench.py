"""InfiniteBench: twelve tasks of 100k tokens and more; six are made here, at any length.

Zhang et al. 2024, https://arxiv.org/abs/2402.13718; https://github.com/OpenBMB/InfiniteBench

Prompts are as long as the length, and the answer comes after: the published code leaves it no room.
Answers are read whole, up to their end token, by `scorer=official`, as the published script has it
with its slips, or by `scorer=fixed`, without them; the metric's name says which.

Unless it says otherwise, each asks ten questions, and those that are made here are as long as the
cell. The published sizes are `sized=published` and as many `samples` as `size` says: then depths
and kinds are the published ones, row by row; fewer samples are taken evenly from all of them.
"""

from ._infinitebench import CodeRun, KeyValue, MathCalc, MathFind, NumberString, PassKey
from ._infinitebench_books import (
    BookQA,
    ChineseBookQA,
    Choice,
    CodeDebug,
    Dialogue,
    Summary,
)

bare_name_means_all = True
variants = {
    "passkey": PassKey(),
    "number_string": NumberString(),
    "kv_retrieval": KeyValue(),
    "longbook_sum_eng": Summary(),
    "longbook_choice_eng": Choice(),
    "longbook_qa_eng": BookQA(),
    "longbook_qa_chn": ChineseBookQA(),
    "longdialogue_qa_eng": Dialogue(),
    "math_find": MathFind(),
    "math_calc": MathCalc(),
    "code_run": CodeRun(),
    "code_debug": CodeDebug(),
}
