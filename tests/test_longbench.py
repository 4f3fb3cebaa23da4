"""LongBench's scores are the official ones, row by row, and its questions are asked as published.

`golden/longbench.json` holds what the official metrics.py and eval.py gave: jieba 0.42.1, rouge
1.0.1, fuzzywuzzy 0.18.0 over difflib, Python 3.11.
"""

import json
import random
import sys
from pathlib import Path
from statistics import fmean

import pytest

from harness.metrics import longbench as metrics
from harness.metrics.longbench import DATASETS, averages, averages_extended, bin_of, row_score
from harness.metrics.rouge_l import rouge_l

GOLDEN = json.loads((Path(__file__).parent / "golden" / "longbench.json").read_text("utf-8"))
ROWS = {row["id"]: row for row in GOLDEN["rows"]}


def scored(row, **how):
    texts = row["prediction"], row["ground_truths"], row["all_classes"]
    return row_score(row["dataset"], *texts, **how)


# the metrics


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda r: f"{r['dataset']}-{r['id']}")
def test_every_row_scores_as_the_official_code_scores_it(row):
    assert scored(row) == pytest.approx(row["score"], abs=1e-9)


def test_the_other_backend_of_edit_similarity_is_a_metric_of_its_own():
    key = "score_if_python_Levenshtein_installed"
    rows = [row for row in ROWS.values() if key in row]
    assert sum(row[key] != row["score"] for row in rows) == 3
    for row in rows:
        mine = scored(row, metric=metrics.code_similarity_levenshtein)
        assert mine == pytest.approx(row[key], abs=1e-9)


@pytest.mark.parametrize("group", GOLDEN["dataset_level"], ids=lambda g: g["dataset"])
def test_a_dataset_and_its_length_bins_are_means_over_rows(group):
    rows = [scored(ROWS[i]) for i in group["row_ids"]]
    assert round(100 * fmean(rows), 2) == group["scorer"]
    bins = {}
    for score, length in zip(rows, group["lengths"], strict=True):
        bins.setdefault(bin_of(length), []).append(score)
    assert {b: round(100 * fmean(s), 2) for b, s in bins.items()} == group["scorer_e"]


def test_rouge_is_that_of_the_package_on_any_text():
    official = pytest.importorskip("rouge").Rouge(metrics=["rouge-l"])
    draw = random.Random(0)
    words = ["a", "b", "c", "d", "e", "f.", ".", "g.", "The", "the,", "\n", "x.y"]
    for _ in range(60):
        said, true = (" ".join(draw.choices(words, k=draw.randint(1, 60))) for _ in "st")
        try:
            theirs = official.get_scores([said], [true], avg=True)["rouge-l"]["f"]
        except ValueError:  # of dots alone
            theirs = 0.0
        assert rouge_l(said, true) == pytest.approx(theirs, abs=1e-12), (said, true)


def test_a_text_that_is_too_long_for_the_package_scores_nothing_wherever_it_is_scored():
    def text(words):
        return " ".join(f"w{i}" for i in range(words))

    def deep(frames):
        return deep(frames - 1) if frames else rouge_l(text(990), text(990))

    assert rouge_l(text(990), text(990)) == deep(500) == pytest.approx(1)
    assert rouge_l(text(991), text(991)) == 0
    assert sys.getrecursionlimit() >= 1000


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_truth_scores_full_and_silence_nothing(dataset):
    truth = {"passage_retrieval_en": "Paragraph 7", "passage_retrieval_zh": "段落7"}
    answer = truth.get(dataset, "7")
    assert row_score(dataset, answer, ["5", answer][-1:], ["7", "Food"]) == pytest.approx(1)
    assert row_score(dataset, "", [answer], ["7", "Food"]) == 0


def test_an_answer_that_cannot_be_right_is_refused():
    with pytest.raises(ValueError, match="should read 'Paragraph 1'"):
        row_score("passage_retrieval_en", "5", ["five"])


def test_without_jieba_a_chinese_answer_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    metrics.segmenter.cache_clear()
    try:
        with pytest.raises(
            ModuleNotFoundError, match=r"pip install 'context-harness\[longbench\]'"
        ):
            row_score("dureader", "北京", ["北京"])
    finally:
        metrics.segmenter.cache_clear()


# the leaderboard

CHATGLM3 = {
    "narrativeqa": 26.0, "qasper": 43.3, "multifieldqa_en": 51.7, "multifieldqa_zh": 62.3,
    "hotpotqa": 54.4, "2wikimqa": 44.9, "musique": 40.4, "dureader": 44.78, "gov_report": 36.8,
    "qmsum": 23.9, "multi_news": 27.9, "vcsum": 17.8, "trec": 79.0, "triviaqa": 87.1,
    "samsum": 38.2, "lsht": 42.0, "passage_count": 2.0, "passage_retrieval_en": 99.0,
    "passage_retrieval_zh": 94.0, "lcc": 57.66, "repobench-p": 54.76,
}  # fmt: skip
"""ChatGLM3-6B-32k, from the official README, as are the columns below."""


def test_the_averages_are_those_of_the_leaderboard():
    columns = averages(CHATGLM3)
    published = {
        "en average": 48.5, "en single": 40.3, "en multi": 46.6, "en summarization": 29.5,
        "en few-shot": 68.1, "en code": 56.2, "en synthetic": 50.5,
        "zh average": 52.8, "zh single": 62.3, "zh multi": 44.8, "zh summarization": 17.8,
        "zh few-shot": 42.0, "zh code": 56.2, "zh synthetic": 94.0,
    }  # fmt: skip
    assert {key: columns[key] for key in published} == pytest.approx(published, abs=0.051)
    assert columns["average"] == pytest.approx(50.22, abs=0.01)
    assert fmean(CHATGLM3.values()) == pytest.approx(48.95, abs=0.01)  # is another number


def test_what_a_missing_dataset_belongs_to_has_no_average():
    columns = averages({k: v for k, v in CHATGLM3.items() if k != "lsht"})
    assert {"en average", "zh single", "synthetic"} <= set(columns)
    assert not {"zh few-shot", "few-shot", "zh average", "average"} & set(columns)


def test_longbench_e_is_averaged_by_length():
    scores = {name: {"0-4k": i / 10, "8k+": 0.5} for i, name in enumerate(metrics.EXTENDED)}
    columns = averages_extended(scores)
    assert columns["8k+ average"] == 0.5 and columns["0-4k single"] == pytest.approx(0.05)
    assert not any(column.startswith("4-8k") for column in columns)
