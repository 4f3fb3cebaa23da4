"""LongBench's scores are the official ones, row by row, and its questions are asked as published.

`golden/longbench.json` holds what the official metrics.py and eval.py gave: jieba 0.42.1, rouge
1.0.1, fuzzywuzzy 0.18.0 over difflib, Python 3.11.
"""

import json
import random
import re
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from zipfile import ZipFile

import numpy as np
import pytest

from harness import catalog
from harness.cell import Cell
from harness.metrics import longbench as metrics
from harness.metrics.longbench import DATASETS, averages, averages_extended, bin_of, row_score
from harness.metrics.longbench_v2 import chosen
from harness.metrics.rouge_l import rouge_l
from harness.run import _answered
from harness.tasks._longbench import forms

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


# the questions


class Bytes:
    """A byte is a token, 256 starts; it has no conversations."""

    bos, spells_one_way, chats = 256, True, False

    def tokens(self, text):
        return list(text.encode())

    def text(self, tokens):
        return bytes(int(t) for t in tokens if t < 256).decode(errors="replace")

    def chat(self, messages, *, opening=""):
        raise LookupError("The tokenizer has no chat template.")


class Talking(Bytes):
    """A token, 257, stands around turns."""

    chats = True

    def chat(self, messages, *, opening=""):
        turns = [t for m in messages for t in (257, *self.tokens(m["content"]), 257)]
        return [self.bos, *turns, *self.tokens(opening)]


class Pairs(Bytes):
    """Two letters are a token where they lie so: what is read anew may be spelled longer."""

    def tokens(self, text):
        raw = text.encode()
        return [
            300 + raw[i] * 256 + (raw[i + 1 : i + 2] or b"\0")[0] for i in range(0, len(raw), 2)
        ]

    def text(self, tokens):
        raw = b"".join(bytes(divmod(int(t) - 300, 256)) for t in tokens if t >= 300)
        return raw.replace(b"\0", b"").decode(errors="replace")


class TalkingPairs(Pairs, Talking):
    """Both."""


READERS = [Bytes, Talking, Pairs, TalkingPairs]
CLASSES = ["Food", "Date", "Number of something"]
ANSWERS = {
    "trec": "Food", "lsht": "Food", "passage_count": "7", "passage_retrieval_en": "Paragraph 7",
    "passage_retrieval_zh": "段落7", "multifieldqa_zh": "北京", "vcsum": "会议", "dureader": "可以",
}  # fmt: skip


def row(dataset, i=0, **other):
    classes = CLASSES if DATASETS[dataset].metric is metrics.classification else None
    return {
        "input": f"What about {i}?",
        "context": f"It {{began}} so. Of {i}: {'word ' * 900}It ended so.",
        "answers": [ANSWERS.get(dataset, "in Paris"), ANSWERS.get(dataset, "Paris")],
        "length": 3999 + 2000 * i, "dataset": dataset, "language": DATASETS[dataset].language,
        "all_classes": classes, "_id": f"{dataset}{i}",
    } | other  # fmt: skip


def written(folder, name, rows):
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(lines, "utf-8")


@pytest.fixture
def data(tmp_path):
    for name in DATASETS:
        for ending in ("", "_e") if DATASETS[name].extended else ("",):
            written(tmp_path, name + ending, [row(name, i) for i in range(3)])
    return tmp_path


def task(spec, data):
    return replace(catalog.load("tasks", spec), data=str(data))


def said(request, reader, words):
    return tuple(reader.tokens(words(request)))


def right(request):
    return request.about["answers"][0]


def outcome_of(asked, reader, length, words):
    requests = list(asked.requests(reader, length))
    return asked.score([asked.grade(r, said(r, reader, words), reader) for r in requests])


EVERY = [name for name in catalog.variants("tasks", "longbench") if ".all" not in name]


def test_there_are_21_datasets_and_13_by_length():
    assert len([name for name in EVERY if not name.endswith("_e")]) == 21
    assert len([name for name in EVERY if name.endswith("_e")]) == 13
    assert catalog.members("tasks", "longbench,samples=3")[0] == "longbench.narrativeqa,samples=3"
    assert len(catalog.members("tasks", "longbench")) == 21
    sizes = [catalog.load("tasks", f"longbench.{name}").size for name in DATASETS]
    assert sum(int(size.split()[0]) for size in sizes) == 4750


@pytest.mark.parametrize("name", EVERY)
def test_gold_scores_full_and_silence_nothing(name, data):
    asked = task(name, data)
    full = outcome_of(asked, Bytes(), 2500, right)
    nothing = outcome_of(asked, Bytes(), 2500, lambda request: "")
    assert full.value == pytest.approx(1) and nothing.value == 0 and full.n == 3
    assert nothing.low == 0 <= nothing.high and (full.low or 0) <= full.value + 1e-9


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ["hotpotqa", "gov_report", "trec", "lcc", "vcsum"])
@pytest.mark.parametrize("length", [1800, 1801, 9999])
def test_both_ends_stay_and_the_answer_has_room(reader, name, length, data):
    asked, reader = task(f"longbench.{name}", data), reader()
    for request in asked.requests(reader, length):
        text = reader.text(request.tokens)
        assert len(request.tokens) + request.ask.max_new_tokens <= length
        assert request.tokens.dtype == np.int64
        assert list(request.tokens).count(reader.bos) == 1 == list(request.tokens[:1]).count(256)
        assert "It {began} so." in text and "It ended so." in text
        assert ("What about" in text) == (name in ("hotpotqa", "trec"))
        whole = text.count("word ") == 900
        assert whole == (request.cut == 0) == (length == 9999)


def test_the_cut_is_as_long_as_what_it_took(data):
    asked = task("longbench.hotpotqa", data)
    (whole, *_), (cut, *_) = (asked.requests(Bytes(), n) for n in (9999, 3000))
    assert len(whole.tokens) - len(cut.tokens) == cut.cut > 0
    assert len(cut.tokens) == 3000 - 32


PUBLISHED = json.loads((Path(__file__).parent / "golden" / "prompts.json").read_text("utf-8"))


def test_prompts_are_the_published_ones():
    assert {name: form.prompt for name, form in forms().items()} == PUBLISHED["longbench"]


def test_limits_and_sizes_are_the_published_ones():
    own = {
        name: {
            "conversation": form.conversation,
            "first_line": DATASETS[name].first_line,
            "max_new_tokens": form.max_new_tokens,
            "questions": form.questions,
            "questions_e": form.questions_e,
        }
        for name, form in forms().items()
    }
    assert own == PUBLISHED["limits"]["longbench"]
    assert {name for name in own if own[name]["questions_e"]} == set(metrics.EXTENDED)
    for spec in EVERY:
        asked, limits = catalog.load("tasks", spec), own[catalog.load("tasks", spec).dataset]
        size = limits["questions_e" if asked.extended else "questions"]
        assert asked.size == f"{size} questions"
        assert asked.max_new_tokens == limits["max_new_tokens"]
    every = [catalog.load("tasks", f"longbench.{name}").size for name in ("all", "all_e")]
    assert every == [
        f"{sum(limits[key] for limits in own.values()):,} questions"
        for key in ("questions", "questions_e")
    ]


def test_prompts_read_as_published(data):
    request = next(task("longbench.trec", data).requests(Bytes(), 9999))
    context = row("trec")["context"]
    assert Bytes().text(request.tokens) == (
        "Please determine the type of the question below. Here are some examples of questions.\n\n"
        f"{context}\nWhat about 0?"
    )
    lcc = next(task("longbench.lcc", data).requests(Bytes(), 9999))
    text = "Please complete the code given below. \n" + context + "Next line of code:\n"
    assert Bytes().text(lcc.tokens) == text


@pytest.mark.parametrize("name", DATASETS)
def test_examples_and_code_are_never_put_in_a_conversation(name, data):
    wrapped = {
        prompt: 257 in next(replace(asked, prompt=prompt).requests(Talking(), 3000)).tokens
        for prompt in ("auto", "base", "chat")
        for asked in [task(f"longbench.{name}", data)]
    }
    plain = name in ("trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p")
    assert wrapped == {"auto": not plain, "base": False, "chat": not plain}


def test_a_task_says_whether_it_became_a_conversation(data):
    def way(name, reader, **given):
        return replace(task(f"longbench.{name}", data), **given).asked_as(reader())

    assert [way("hotpotqa", r) for r in (Talking, Bytes)] == ["chat", "base"]
    assert [way("lcc", Talking, prompt=p) for p in ("auto", "chat")] == ["base", "base"]
    assert [way("all", r) for r in (Talking, Bytes)] == ["base and chat", "base"]
    assert catalog.load("tasks", "longbench-v2,prompt=base").asked_as(Talking()) == "base"
    assert catalog.load("tasks", "perplexity").asked_as(Talking()) is None


def test_what_scores_chinese_is_said_before_anything_is_asked():
    needs = {n for n in EVERY if catalog.load("tasks", n).packages}
    assert needs == {f"longbench.{n}" for n in ("multifieldqa_zh", "dureader", "vcsum")}
    assert "jieba" in catalog.load("tasks", "longbench.all").packages
    assert not catalog.load("tasks", "longbench.all_e").packages
    assert "rouge_score" in catalog.load("tasks", "infinitebench.longbook_sum_eng").packages


def test_a_template_that_is_not_there_is_said(data):
    with pytest.raises(LookupError, match="no chat template"):
        next(task("longbench.hotpotqa,prompt=chat", data).requests(Bytes(), 3000))


def goes_on(request):
    return f"\n{right(request)}\nQuestion: what next?"


def test_only_the_first_line_of_what_goes_on_and_on_counts(data):
    for name in ("trec", "triviaqa", "samsum"):
        score = outcome_of(task(f"longbench.{name}", data), Bytes(), 3000, goes_on)
        assert score.value == pytest.approx(1)
    asked = task("longbench.samsum", data)
    assert next(asked.requests(Bytes(), 3000)).ask.stop == ("\nDialogue",)


def test_without_context_nothing_is_left_to_find(data):
    request = next(task("longbench.hotpotqa,no_context=true", data).requests(Bytes(), 3000))
    text = Bytes().text(request.tokens)
    assert "began" not in text and "What about 0?" in text and request.cut == 0


def test_longbench_e_is_told_by_length(data):
    asked = task("longbench.hotpotqa_e", data)
    score = outcome_of(asked, Bytes(), 3000, lambda r: right(r) * (r.about["length"] < 6000))
    assert score.parts == {"0-4k": 1, "4-8k": pytest.approx(0.5)}
    written(data, "hotpotqa_e", [row("hotpotqa", length=n) for n in (3999, 4000, 7999, 8000)])
    assert outcome_of(asked, Bytes(), 3000, right).parts == {"0-4k": 1, "4-8k": 1, "8k+": 1}


def test_all_of_them_are_averaged_as_on_the_leaderboard(data):
    asked = task("longbench.all", data)
    score = outcome_of(asked, Bytes(), 2500, lambda r: right(r) * (r.about["dataset"] != "lsht"))
    assert score.n == 63 and score.parts["lsht"] == 0 == score.parts["zh few-shot"]
    assert score.parts["en average"] == pytest.approx(1)
    assert score.parts["zh average"] == pytest.approx(5 / 6)
    assert score.value == score.parts["average"] == pytest.approx((5 + 3 / 4) / 6)
    assert score.low is score.high is None, "every answer of a dataset scores alike"
    half = outcome_of(asked, Bytes(), 2500, lambda r: right(r) * (r.id.endswith("0")))
    assert 0 <= half.low < half.value < half.high < 1


@pytest.mark.parametrize("name", ["hotpotqa", "hotpotqa_e", "all", "all_e"])
def test_questions_on_one_text_are_not_counted_as_if_they_were_apart(name, tmp_path):
    """A hundred questions on ten texts are no surer than ten."""
    widths, items = {}, {}
    for each in (1, 10):
        for dataset in metrics.EXTENDED if name == "all_e" else DATASETS:
            rows = [
                row(dataset, length=4000 * (i // each % 3), context=f"Text {i // each}.")
                for i in range(10 * each)
            ]
            written(tmp_path, f"{dataset}_e" if name.endswith("_e") else dataset, rows)
        asked = task(f"longbench.{name}", tmp_path)
        requests = list(asked.requests(Bytes(), 3000))
        samples = [asked.grade(r, said(r, Bytes(), right), Bytes()) for r in requests]
        samples = [
            replace(sample, score=float(int(sample.id.split("-")[-1]) // each % 2))
            for sample in samples
        ]
        score = asked.score(samples)
        widths[each], items[each] = score.high - score.low, len(asked.items(samples))
    assert widths[10] >= 0.9 * widths[1] and items[1] == items[10]


def test_all_lengths_of_all_datasets_are_averaged_or_there_is_no_average(data):
    for name in metrics.EXTENDED:
        written(data, f"{name}_e", [row(name, i, length=4000 * i) for i in range(3)])
    asked = task("longbench.all_e", data)
    score = outcome_of(asked, Bytes(), 2500, lambda r: right(r) * (r.about["length"] < 8000))
    assert score.n == 39 and score.value == pytest.approx(2 / 3)
    assert score.parts["4-8k average"] == pytest.approx(1)
    with pytest.raises(
        ValueError, match=r"none of qasper \(8k\+\), multifieldqa_en \(8k\+\).*more"
    ):
        next(task("longbench.all_e,samples=2", data).requests(Bytes(), 2500))
    rows = [(1.0, r.about) for r in asked.requests(Bytes(), 2500) if r.id != "trec_e-0"]
    with pytest.raises(ValueError, match=r"there are none of trec \(0-4k\)"):
        asked.average(rows)


def test_code_says_which_backend_compared_it(data):
    both = [task(f"longbench.lcc,backend={name}", data) for name in ("difflib", "levenshtein")]
    assert [b.metric for b in both] == [
        "edit similarity (difflib)",
        "edit similarity (levenshtein)",
    ]
    said, true = ROWS[185]["prediction"], ROWS[185]["ground_truths"]
    assert [b.judge(said, true, {})[0] for b in both] == [0.17, 0.67]


def test_a_zip_is_read_as_its_folder_is(data, tmp_path):
    with ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.write(data / "trec.jsonl", "data/trec.jsonl")
    zipped, plain = (task("longbench.trec", place) for place in (tmp_path / "data.zip", data))
    assert list(zipped.rows()) == list(plain.rows())
    with pytest.raises(LookupError, match=r"data\.zip has no file lcc\.jsonl"):
        list(task("longbench.lcc", tmp_path / "data.zip").rows())


def test_a_zip_that_is_torn_is_refused(tmp_path):
    (tmp_path / "data.zip").write_bytes(b"PK\3\4 and no more")
    with pytest.raises(ValueError, match=r"data\.zip cannot be unpacked .*download it anew"):
        list(task("longbench.trec", tmp_path / "data.zip").rows())


def test_one_file_answers_for_its_own_dataset_alone(data, tmp_path):
    with pytest.raises(ValueError, match="line 1: this is of trec, and not of lsht"):
        list(task("longbench.lsht", data / "trec.jsonl").rows())
    assert list(task("longbench.trec_e", data / "trec_e.jsonl").rows())


@pytest.mark.parametrize("name", ["input", "context", "answers", "length", "_id", "all_classes"])
def test_a_missing_field_is_named_with_its_file_and_line(name, data):
    broken = {key: value for key, value in row("trec").items() if key != name}
    written(data, "trec", [row("trec"), broken])
    with pytest.raises(ValueError, match=rf"trec\.jsonl, line 2: there is no field '{name}'"):
        list(task("longbench.trec", data).requests(Bytes(), 3000))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "line 1: this is no JSON"),
        ("[]", "line 1: this is no JSON object"),
        (json.dumps(row("trec", answers="Food")), "'answers' holds 'Food', which is no list"),
        (json.dumps(row("trec", answers=[])), "'answers' should list texts"),
        ("[" * 100_000, "line 1: this is no JSON"),
        (json.dumps(row("trec", length="long")), "'length' holds 'long', which is no whole number"),
    ],
)
def test_a_row_that_is_none_is_refused(line, why, data):
    (data / "trec.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=why):
        list(task("longbench.trec", data).rows())


@pytest.mark.parametrize("name", ["longbench.trec", "longbench-v2"])
def test_a_file_without_rows_is_named(name, tmp_path):
    file = tmp_path / ("trec.jsonl" if name == "longbench.trec" else "data.json")
    file.write_text("[]" if file.suffix == ".json" else "\n\n")
    with pytest.raises(ValueError, match=rf"{file.name} has no rows"):
        list(task(name, tmp_path).requests(Bytes(), 3000))


def test_data_that_is_not_there_says_how_to_point_to_it(tmp_path, monkeypatch):
    with pytest.raises(LookupError, match=r"no trec\.jsonl in .*say with data=FOLDER"):
        list(task("longbench.trec", tmp_path).rows())
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("longbench.trec", "longbench-v2"):
        with pytest.raises(LookupError, match=r"cannot be fetched from the hub .*data=PATH"):
            list(catalog.load("tasks", name).requests(Bytes(), 9999))


def test_a_length_without_room_says_which_has(data):
    asked = task("longbench.gov_report", data)
    with pytest.raises(
        ValueError, match=r"gov_report needs lengths of at least \d+ tokens"
    ) as error:
        list(asked.requests(Bytes(), 512))
    enough = int(re.search(r"at least (\d+)", str(error.value))[1])
    assert all(len(r.tokens) <= enough - 512 for r in asked.requests(Bytes(), enough))


@pytest.mark.parametrize("reader", [Bytes, Talking])
@pytest.mark.parametrize(
    "name", ["longbench.hotpotqa", "longbench.trec", "longbench-v2", "longbench-v2.likelihood"]
)
def test_no_cut_goes_through_a_question(name, reader, tmp_path):
    asks = " ".join(f"Which{i}" for i in range(150))
    dataset = name.partition(".")[2]
    (tmp_path / "data.json").write_text(json.dumps([question(), question(1, question=asks)]))
    if dataset in DATASETS:
        written(tmp_path, dataset, [row(dataset), row(dataset, 1, input=asks)])
    asked = task(name, tmp_path)
    with pytest.raises(ValueError, match="a cut would go through its questions; 1,800") as error:
        list(asked.requests(reader(), 1800))
    enough = int(re.search(r"at least ([\d,]+)", str(error.value))[1].replace(",", ""))
    _, second = asked.requests(reader(), enough)
    assert asks in reader().text(second.tokens) and second.cut > 0


def test_a_text_that_is_asked_about_may_be_cut_as_its_context_may(data):
    written(data, "triviaqa", [row("triviaqa", input="Passage " * 500)])
    (request,) = task("longbench.triviaqa", data).requests(Bytes(), 1800)
    assert request.cut > 0


def test_predictions_of_the_official_layout_are_judged():
    asked = catalog.load("tasks", "longbench.trec")
    line = {"pred": "Food\nType", "answers": ["Food"], "all_classes": CLASSES, "length": 10}
    assert asked.judge(line["pred"], line["answers"], line) == (1, "Food")
    assert asked.judge("nothing", ["Food"], line) == (0, None)
    with pytest.raises(ValueError, match="without 'all_classes'"):
        asked.judge("Food", ["Food"], {})
    for classes in ("Food", [1], 5):
        with pytest.raises(ValueError, match="'all_classes' of trec are a list of texts"):
            asked.judge("Food", ["Food"], {"all_classes": classes})
    count = catalog.load("tasks", "longbench.passage_count")
    assert count.judge("8 of 10", ["8"], {}) == (0.5, "8, 10")


# version 2


def question(i=0, **other):
    return {
        "_id": f"q{i}", "domain": "Single-Document QA", "sub_domain": "Academic",
        "difficulty": ("easy", "hard")[i % 2], "length": ("short", "medium", "long")[i % 3],
        "question": f"Which of {i}? ", "choice_A": "one", "choice_B": "two", "choice_C": "three",
        "choice_D": "four", "answer": "ABCD"[i % 4],
        "context": f" It began at $Q$. Of {i}: {'word ' * 900}It ended there.\n",
    } | other  # fmt: skip


@pytest.fixture
def questions(tmp_path):
    (tmp_path / "data.json").write_text(json.dumps([question(i) for i in range(4)]))
    return tmp_path / "data.json"


@pytest.mark.parametrize(
    ("response", "choice"),
    [
        ("The correct answer is (B).", "B"),
        ("**The correct answer is (C)**", "C"),
        ("The correct answer is D", "D"),
        ("The correct answer is Apple", "A"),
        ("The correct answer is: D", None),
        ("the correct answer is (A)", None),
        ("The correct answer is A. No: The correct answer is (B)", "B"),
        ("B", None),
        ("", None),
    ],
)
def test_a_choice_is_found_by_the_published_patterns(response, choice):
    assert chosen(response) == choice


def test_a_choice_is_asked_as_published(questions):
    asked = task("longbench-v2", questions)
    first = next(asked.requests(Bytes(), 9999))
    assert Bytes().text(first.tokens) == (
        "Please read the following text and answer the question below.\n\n<text>\n"
        f"{question()['context'].strip()}\n</text>\n\n"
        "What is the correct answer to this question: Which of 0?\nChoices:\n(A) one\n(B) two\n"
        '(C) three\n(D) four\n\nFormat your response as follows: "The correct answer is (insert '
        'answer here)".'
    )
    cut = next(asked.requests(Talking(), 1500))
    assert len(cut.tokens) <= 1500 - 128 and cut.cut > 3000
    assert "<text>\nIt began at $Q$." in Bytes().text(cut.tokens)
    control = next(replace(asked, no_context=True).requests(Bytes(), 1500))
    assert "word" not in Bytes().text(control.tokens) and control.cut == 0


def answers(request):
    return f"The correct answer is ({request.about['gold']})."


def test_choices_are_told_by_difficulty_length_and_domain(questions):
    asked = task("longbench-v2", questions)
    score = outcome_of(asked, Bytes(), 1500, lambda r: answers(r) if r.id != "q3" else "")
    assert score.value == 0.75 and score.low < 0.75 < score.high
    assert score.parts == {
        "easy": 1, "hard": 0.5, "short": 0.5, "medium": 1, "long": 1,
        "Single-Document QA": 0.75, "compensated": 0.8125,
    }  # fmt: skip


def test_choices_about_one_text_are_not_counted_as_if_they_were_apart(questions):
    rows = [question(i, context=f"Text {i // 5}.") for i in range(20)]
    questions.write_text(json.dumps(rows))
    asked = task("longbench-v2", questions)
    requests = list(asked.requests(Bytes(), 1500))
    hits = [float(i < 10) for i in range(20)]
    samples = [
        replace(asked.sample(r, "", None), score=hit) for r, hit in zip(requests, hits, strict=True)
    ]
    score = asked.score(samples)
    assert (score.low, score.high) == (0, 1) and score.value == 0.5 and score.n == 20
    assert sorted(asked.items(samples).values()) == [0, 0, 1, 1]


def test_reasoning_is_put_to_the_model_again_without_the_text(questions):
    asked, reader = task("longbench-v2.cot", questions), Talking()
    requests = list(asked.requests(reader, 3000))
    assert all(r.ask.max_new_tokens == 1024 and len(r.tokens) <= 3000 - 1024 for r in requests)
    assert "step by step:" in reader.text(requests[0].tokens)

    def answered(these):
        return [tuple(reader.tokens("I see The correct answer is (A)")) for _ in these]

    cells = [Cell(model="toy", method="none", task="longbench-v2.cot", length=3000)]
    (last,), outcomes = _answered(asked, reader, cells, [requests], answered)
    text = reader.text(last[0].tokens)
    assert (
        "step by step: I see The correct answer is (A)\n\nBased on" in text and "word" not in text
    )
    assert "Which of 0?\nChoices:\n(A) one" in text and last[0].ask.max_new_tokens == 128
    scores = [asked.grade(r, o, reader).score for r, o in zip(last, outcomes, strict=True)]
    assert scores == [1, 0, 0, 0] and [r.id for r in last] == ["q0", "q1", "q2", "q3"]
    with pytest.raises(ValueError, match="Without the text nothing is reasoned"):
        task("longbench-v2.cot,no_context=true", questions)


@pytest.mark.parametrize("reader", READERS)
def test_the_likelihood_of_each_choice_is_a_metric_of_its_own(reader, questions):
    asked, reader = task("longbench-v2.likelihood", questions), reader()
    requests = list(asked.requests(reader, 1500))
    assert all(len(r.tokens) + max(map(len, r.ask.options)) <= 1500 for r in requests)
    assert reader.text(requests[0].tokens).endswith("The correct answer is")
    assert [reader.text(option).strip() for option in requests[0].ask.options] == [
        "(A)", "(B)", "(C)", "(D)",
    ]  # fmt: skip
    best = [asked.grade(r, (-3.0, -1.0, -2.0, -9.0), reader) for r in requests]
    assert [s.score for s in best] == [0, 1, 0, 0] and best[0].about["chosen"] == "B"
    assert asked.grade(requests[0], (), reader).score == 0
    assert asked.metric == "accuracy (likelihood)" != catalog.load("tasks", "longbench-v2").metric


def test_predictions_of_the_official_layout_of_version_2_are_judged():
    asked = catalog.load("tasks", "longbench-v2")
    line = {"pred": "B", "response": "The correct answer is (B)", "answer": "B"}
    assert asked.judge(line["pred"], line["answer"], line) == (1, "B")
    with pytest.raises(ValueError, match="A, B, C or D"):
        asked.judge("", "E", {})


def test_a_letter_alone_is_a_choice_where_nothing_else_was_kept():
    asked = catalog.load("tasks", "longbench-v2")
    for said, found in (("B", (1, "B")), (" B\n", (1, "B")), ("C", (0, "C")), ("E", (0, None))):
        assert asked.judge(said, "B", {"pred": said}) == found
    assert asked.judge("B", "B", {"response": "I do not know"}) == (0, None)
    assert asked.judge("It is B", "B", {}) == (0, None)


@pytest.mark.parametrize("name", ["choice_C", "answer", "difficulty"])
def test_a_field_that_version_2_lacks_is_named(name, questions):
    broken = {key: value for key, value in question().items() if key != name}
    questions.write_text(json.dumps([question(), broken]))
    with pytest.raises(ValueError, match=rf"data\.json, row 2: there is no field '{name}'"):
        list(task("longbench-v2", questions).rows())


@pytest.mark.parametrize("name", ["longbench.lcc", "longbench.all", "longbench-v2.likelihood"])
def test_no_samples_are_refused(name):
    with pytest.raises(ValueError, match="at least 1 sample, and 0 were"):
        catalog.load("tasks", f"{name},samples=0")


@pytest.mark.parametrize("name", ["longbench", "longbench-v2"])
def test_every_variant_says_where_its_data_are_from(name):
    for spec in catalog.variants("tasks", name):
        asked = catalog.load("tasks", spec)
        assert catalog.canonical("tasks", f"{spec},samples=7") == f"{spec},samples=7"
        assert asked.offline is False and asked.source.startswith("https://huggingface.co/")
        assert asked.metric and asked.size.endswith("questions") and asked.licence
