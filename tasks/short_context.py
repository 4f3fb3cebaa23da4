"""The short-context tax: four tests that need no long context, and must not suffer for it.

Open LLM Leaderboard 2023, https://huggingface.co/docs/leaderboards/open_llm_leaderboard/archive

They are lm-eval's, with the leaderboard's metrics and numbers of examples: ARC-Challenge with 25,
HellaSwag with 10, MMLU with 5, TruthfulQA with its own 6. MMLU is lm-eval's mean over questions;
the leaderboard's was over subjects.
"""

from functools import partial

from ._lm_eval import of_name

test = partial(of_name, __name__)
bare_name_means_all = True
variants = {
    "arc_challenge": test(
        "arc_challenge", "acc_norm", licence="CC BY-SA 4.0", size="1,172 questions"
    )(shots=25),
    "hellaswag": test("hellaswag", "acc_norm", licence="MIT", size="10,042 questions")(shots=10),
    "mmlu": test("mmlu", "acc", licence="MIT", size="14,042 questions")(shots=5),
    "truthfulqa_mc2": test("truthfulqa_mc2", "acc", licence="Apache-2.0", size="817 questions")(),
}
