"""LongBench's scores of an answer, its datasets, and the averages of its leaderboard.

Bai et al. 2024, https://arxiv.org/abs/2308.14508; rules as in LongBench/metrics.py and eval.py of
https://github.com/THUDM/LongBench (MIT). Every rule is kept with its quirks, and they are named:
the published numbers were made by them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from statistics import fmean
from typing import Any, Literal

from harness.metrics.rouge_l import DEEPEST, rouge_l, subsequences
from harness.metrics.text import bag_f1, characters, token_f1

Metric = Callable[[str, str, Sequence[str]], float]
"""Prediction, one true answer, all classes -> 0 to 1."""
Language = Literal["en", "zh", "code"]
Backend = Literal["difflib", "levenshtein"]
SEGMENTER = {"jieba": "context-harness[longbench]"}
"""What parts Chinese into words, and what to install for it."""


# one answer


def qa_f1(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """F1 of bags of words, normalised as SQuAD's: hyphens are deleted, not spaced."""
    return token_f1(prediction, truth)


def qa_f1_zh(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """F1 of bags of jieba's words; depends on its version and dictionary."""
    return bag_f1(chinese_words(prediction), chinese_words(truth))


def rouge(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """`harness.metrics.rouge_l`."""
    return rouge_l(prediction, truth)


def rouge_zh(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """The same over jieba's words. "。" is a word and ends no sentence."""
    said, true = (" ".join(segmenter().cut(text)) for text in (prediction, truth))
    return rouge_l(said, true, deepest=DEEPEST - 1)  # the official one calls `rouge`


def classification(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """One over how many classes the answer names, if it names the right one."""
    named = classes_named(prediction, classes)
    for name in named:  # as published: what follows one that is taken out is not looked at
        if name in truth and name != truth:
            named.remove(name)
    return 1 / len(named) if truth in named else 0.0


def count(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """The share of the numbers said that are the right one, as written: 05 is not 5."""
    numbers = numbers_in(prediction)
    return numbers.count(truth) / len(numbers) if numbers else 0.0


def retrieval(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """`count` of the number of the paragraph."""
    return count(prediction, numbered("Paragraph ", truth))


def retrieval_zh(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """`count` of the number of the paragraph."""
    return count(prediction, numbered("段落", truth))


def code_similarity(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """The ratio of fuzzywuzzy for the first line of code, over the standard library's difflib.

    That is what the official requirements install. Where python-Levenshtein is there as well,
    fuzzywuzzy takes it in silence, and scores are other: `code_similarity_levenshtein`.
    """
    line = code_line(prediction)
    return percent(1.0 if line == truth else SequenceMatcher(None, line, truth).ratio())


def code_similarity_levenshtein(prediction: str, truth: str, classes: Sequence[str] = ()) -> float:
    """The same over python-Levenshtein: twice the common subsequence, over both lengths.

    About 2.8 points higher than difflib on lines of code, and far higher where the truth has 200
    characters or more, of which difflib overlooks the frequent ones.
    """
    line = code_line(prediction)
    both = len(line) + len(truth)
    return percent(2 * subsequences(line, truth)[-1][-1] / both if both else 1.0)


def chinese_words(text: str) -> list[str]:
    words = ("".join(characters(word)) for word in segmenter().cut(text))
    return [word for word in words if word]


def classes_named(text: str, classes: Sequence[str]) -> list[str]:
    return [name for name in classes if name in text]


def numbers_in(text: str) -> list[str]:
    return re.findall(r"\d+", text)


def numbered(what: str, truth: str) -> str:
    """The first number after a word.

    Raises:
        ValueError: there is none.
    """
    found = re.search(rf"{what}(\d+)", truth)
    if found is None:
        raise ValueError(f"The answer should read '{what}1' or another number, and is {truth!r}")
    return found[1]


def code_line(text: str) -> str:
    """The first without a back-tick or a comment; one of spaces is one."""
    lines = text.lstrip("\n").split("\n")
    return next((s for s in lines if not any(mark in s for mark in ("`", "#", "//"))), "")


def percent(ratio: float) -> float:
    return round(100 * ratio) / 100


@cache
def segmenter() -> Any:
    """jieba's, from its own dictionary and never from a cache that another version may have left.

    Raises:
        ModuleNotFoundError: it is not installed; says how to.
    """
    import logging
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its regular expressions, as Python 3.12 reads them
        try:
            import jieba
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "Chinese answers are scored by the words that jieba finds. "
                f"Run: pip install '{SEGMENTER['jieba']}'"
            ) from None
    jieba.setLogLevel(logging.WARNING)
    cutter = jieba.Tokenizer()
    cutter.FREQ, cutter.total = cutter.gen_pfdict(cutter.get_dict_file())
    cutter.initialized = True
    return cutter


# the datasets


@dataclass(frozen=True)
class Dataset:
    """One of the 21: where it counts, and how an answer to it is scored."""

    group: str
    language: Language
    metric: Metric
    called: str
    """The metric's name in results."""
    extended: bool = False
    """Also in LongBench-E."""
    first_line: bool = False
    """Of an answer only the first line counts: few-shot examples go on and on."""


F1 = (qa_f1, "F1")
F1_ZH = (qa_f1_zh, "F1 (jieba)")
ROUGE = (rouge, "ROUGE-L (rouge 1.0.1)")
ROUGE_ZH = (rouge_zh, "ROUGE-L (rouge 1.0.1, jieba)")
CLASSES = (classification, "accuracy, shared among the classes named")
COUNT = (count, "share of numbers")
CODE = (code_similarity, "edit similarity (difflib)")
CODE_BACKENDS: dict[Backend, Metric] = {
    "difflib": code_similarity,
    "levenshtein": code_similarity_levenshtein,
}

DATASETS = {
    "narrativeqa": Dataset("single", "en", *F1),
    "qasper": Dataset("single", "en", *F1, extended=True),
    "multifieldqa_en": Dataset("single", "en", *F1, extended=True),
    "multifieldqa_zh": Dataset("single", "zh", *F1_ZH),
    "hotpotqa": Dataset("multi", "en", *F1, extended=True),
    "2wikimqa": Dataset("multi", "en", *F1, extended=True),
    "musique": Dataset("multi", "en", *F1),
    "dureader": Dataset("multi", "zh", *ROUGE_ZH),
    "gov_report": Dataset("summarization", "en", *ROUGE, extended=True),
    "qmsum": Dataset("summarization", "en", *ROUGE),
    "multi_news": Dataset("summarization", "en", *ROUGE, extended=True),
    "vcsum": Dataset("summarization", "zh", *ROUGE_ZH),
    "trec": Dataset("few-shot", "en", *CLASSES, extended=True, first_line=True),
    "triviaqa": Dataset("few-shot", "en", *F1, extended=True, first_line=True),
    "samsum": Dataset("few-shot", "en", *ROUGE, extended=True, first_line=True),
    "lsht": Dataset("few-shot", "zh", *CLASSES, first_line=True),
    "passage_count": Dataset("synthetic", "en", *COUNT, extended=True),
    "passage_retrieval_en": Dataset("synthetic", "en", retrieval, COUNT[1], extended=True),
    "passage_retrieval_zh": Dataset("synthetic", "zh", retrieval_zh, COUNT[1]),
    "lcc": Dataset("code", "code", *CODE, extended=True),
    "repobench-p": Dataset("code", "code", *CODE, extended=True),
}
LANGUAGES: set[Language] = {"en", "zh", "code"}
GROUPS = tuple(dict.fromkeys(d.group for d in DATASETS.values()))
EXTENDED = tuple(name for name, dataset in DATASETS.items() if dataset.extended)
BINS = ("0-4k", "4-8k", "8k+")
"""LongBench-E's, by `length`: words of English and code, characters of Chinese."""


def packages(dataset: str) -> dict[str, str]:
    """Modules that its metric imports, with what to install."""
    return SEGMENTER if DATASETS[dataset].metric in (qa_f1_zh, rouge_zh) else {}


def scored_text(dataset: str, prediction: str) -> str:
    """What of an answer is looked at."""
    if not DATASETS[dataset].first_line:
        return prediction
    return prediction.lstrip("\n").split("\n")[0]


def row_score(
    dataset: str,
    prediction: str,
    answers: Sequence[str],
    classes: Sequence[str] | None = None,
    *,
    metric: Metric | None = None,
) -> float:
    """The best over all true answers, 0 to 1."""
    said, metric = scored_text(dataset, prediction), metric or DATASETS[dataset].metric
    return max((metric(said, answer, classes or ()) for answer in answers), default=0.0)


def extracted(dataset: str, prediction: str, classes: Sequence[str] = ()) -> str:
    """What of an answer decides: a line of code, numbers, classes, or all that is looked at."""
    said, metric = scored_text(dataset, prediction), DATASETS[dataset].metric
    if metric is code_similarity:
        return code_line(said)
    if metric is classification:
        return ", ".join(classes_named(said, classes))
    if metric in (count, retrieval, retrieval_zh):
        return ", ".join(numbers_in(said))
    return said


def bin_of(length: int) -> str:
    return BINS[(length >= 4000) + (length >= 8000)]


# the leaderboard


def averages(scores: Mapping[str, float]) -> dict[str, float]:
    """From datasets' scores to the leaderboard's columns: `en single` ... `en average`, `zh ...`.

    A group is the mean of its datasets of that language, and code belongs to both; an average is
    the mean of the six groups, `average` of those over both languages, so it is not the mean of
    21 scores. What a missing dataset belongs to is left out.
    """
    columns: dict[str, float] = {}
    for title, languages in (("en ", {"en", "code"}), ("zh ", {"zh", "code"}), ("", LANGUAGES)):
        means = group_means(scores, languages)
        columns |= {title + group: mean for group, mean in means.items()}
        if len(means) == len(GROUPS):
            columns[f"{title}average"] = fmean(means.values())
    return columns


def averages_extended(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """LongBench-E's curve: of each length bin, the mean of the six groups' means.

    Args:
        scores: of each of the 13 datasets, its score in each bin.
    """
    columns: dict[str, float] = {}
    for bin in BINS:
        there = {name: of_bin[bin] for name, of_bin in scores.items() if bin in of_bin}
        means = group_means(there, LANGUAGES, among=EXTENDED)
        columns |= {f"{bin} {group}": mean for group, mean in means.items()}
        if len(means) == len(GROUPS):
            columns[f"{bin} average"] = fmean(means.values())
    return columns


def group_means(
    scores: Mapping[str, float], languages: set[Language], among: Sequence[str] = tuple(DATASETS)
) -> dict[str, float]:
    """The mean of each group's datasets of these languages, where all of them are there."""
    groups: dict[str, list[str]] = {}
    for name in among:
        if DATASETS[name].language in languages:
            groups.setdefault(DATASETS[name].group, []).append(name)
    return {
        group: fmean(scores[name] for name in names)
        for group, names in groups.items()
        if all(name in scores for name in names)
    }
