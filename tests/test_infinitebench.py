"""InfiniteBench's questions: as long as asked, the answer where it should be, and no other."""

import ast
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from harness import catalog
from harness.metrics.infinitebench import OFFICIAL
from harness.stats import wilson
from harness.task import Sample
from harness.tasks._infinitebench_draws import WANTED
from harness.tasks._infinitebench_prompts import BASE, CHAT

PROMPTS = json.loads((Path(__file__).parent / "golden" / "prompts.json").read_text("utf-8"))
"""The published templates, from a copy of their own."""
GENERATED = ("passkey", "number_string", "kv_retrieval", "math_find", "math_calc", "code_run")
READ = tuple(name for name in OFFICIAL if name not in GENERATED)
ASKING = ("longbook_qa_eng", "longbook_qa_chn", "longbook_choice_eng", "code_debug")
UNIT = {"kv_retrieval": 82, "code_run": 4 * 45, "math_find": 8, "math_calc": 6}
"""Bytes that one more of what a prompt is made of would take; of words eight, with a line's end."""


class Bytes:
    """A byte is a token."""

    bos, spells_one_way, chats = 256, True, False

    def tokens(self, text):
        return list(text.encode())

    def text(self, tokens):
        return bytes(int(t) for t in tokens if t < 256).decode(errors="replace")


class Talking(Bytes):
    """It was trained on conversations."""

    chats = True

    def chat(self, messages, *, opening=""):
        turns = ([257, *self.tokens(f"{m['role']}: {m['content']}")] for m in messages)
        return [self.bos, *(t for turn in turns for t in turn), 257, *self.tokens(opening)]


def task(name, **parameters):
    given = "".join(f",{key}={value}" for key, value in parameters.items())
    return catalog.load("tasks", f"infinitebench.{name}{given}")


def asked(name, length=4000, reader=None, **parameters):
    return list(task(name, **parameters).requests(reader or Bytes(), length))


def text(request):
    return Bytes().text(request.tokens)


# generated


@pytest.mark.parametrize("reader", [Bytes(), Talking()], ids=["base", "chat"])
@pytest.mark.parametrize("length", [1500, 1501, 6000, 20_011])
@pytest.mark.parametrize("name", GENERATED)
def test_a_prompt_is_as_long_as_its_unit_allows(name, length, reader):
    for request in asked(name, length, reader):
        assert length - UNIT.get(name, 8) < len(request.tokens) <= length
        assert request.tokens.dtype == np.int64 and request.tokens[0] == 256
        assert request.cut == 0 and request.about["units"] >= 1


@pytest.mark.parametrize("name", GENERATED)
def test_the_seed_decides(name):
    def texts(**parameters):
        return [text(request) for request in asked(name, **parameters)]

    assert texts() == texts(seed=0) != texts(seed=1)
    assert len(set(texts())) == 10


@pytest.mark.parametrize("name", GENERATED)
def test_right_scores_full_by_both_scorers(name):
    for scorer in ("official", "fixed"):
        posed = task(name, scorer=scorer)
        for request in posed.requests(Bytes(), 3000):
            gold = request.about["gold"]
            sample = posed.grade(request, Bytes().tokens(f" {gold}"), Bytes())
            assert sample.score == 1 and sample.expected == gold and sample.about["extracted"]
            assert posed.grade(request, (), Bytes()).score == 0


@pytest.mark.parametrize("name", ["passkey", "number_string"])
def test_a_key_stands_twice_at_its_depth_and_nowhere_else(name):
    requests = asked(name, 8000, samples=5)
    assert [r.about["depth"] for r in requests] == [0, 0.25, 0.5, 0.75, 1]
    for request in requests:
        said, key = text(request), request.about["gold"]
        assert said.count(key) == 2 and re.fullmatch(r"\d{5}|\d{10}", key)
        hay = said[said.index("The grass") if request.about["depth"] else said.index(" is ") :]
        at = said.index(f"is {key}. Remember") - said.index(hay)
        assert at / len(hay) == pytest.approx(request.about["depth"], abs=0.04)
        assert re.findall(r"\d+", said) == [key, key]


def test_a_pass_key_may_begin_with_a_nought_and_a_sequence_repeats_its_digits():
    keys = [r.about["gold"] for r in asked("passkey", 1000, samples=200)]
    assert 5 < sum(key[0] == "0" for key in keys) < 50
    for request in asked("number_string", 1000, samples=50):
        digits = request.about["gold"]
        assert len(digits) == 10 and sum(a == b for a, b in pairwise(digits)) >= 5


def test_a_value_stands_once_and_its_key_twice():
    for request in asked("kv_retrieval", 8000, samples=5):
        said, value = text(request), request.about["gold"]
        data, key = re.search(r"JSON data:\n(\{.*\})\n.*\nKey: \"(.*)\"\n", said, re.S).groups()
        pairs = json.loads(data)
        assert len(pairs) == request.about["units"] == data.count(": ")
        assert pairs[key] == value and said.count(value) == 1 and said.count(key) == 2
        depth = list(pairs).index(key) / (len(pairs) - 1)
        assert depth == pytest.approx(request.about["depth"], abs=0.02)
        assert said.endswith("The value associated with the specified key is: ")


def test_the_number_to_find_is_the_one_of_its_kind():
    kinds = {}
    for request in asked("math_find", 3000, samples=14):
        said = text(request)
        numbers = sorted(ast.literal_eval(re.search(r"\[.*\]", said)[0]))
        kind = re.search(r"What is the (.+) in the following", said)[1]
        assert f"The {kind} of the list is: " in said and kind == request.about["part"]
        different = sorted(set(numbers))
        rank = {"second": 1, "third": 2}.get(kind.split()[0], 0)
        half = len(numbers) // 2
        right = {
            "largest": different[-1 - rank],
            "smallest": different[rank],
            "median": sum(numbers[half - 1 : half + 1]) / 2,
        }[next(word for word in ("largest", "smallest", "median") if word in kind)]
        assert request.about["right"] == right and type(request.about["right"]) is type(right)
        assert numbers[0] >= 0 and numbers[-1] <= 99 and len(numbers) % 2 == 0
        kinds.setdefault(kind, []).append(numbers[-1] if "largest" in kind else numbers[0])
    assert len(kinds) == 7


def test_each_value_on_the_way_is_right_and_stays_below_a_hundred():
    for request in asked("math_calc", 3000, samples=3):
        terms = re.findall(r"Expression: ([^\n]+)\nValues:$", text(request))[0].split()
        values = [eval(" ".join(terms[: 2 * n + 1])) for n in range(1, request.about["units"])]
        assert request.about["right"] == values and all(0 <= value <= 99 for value in values)
        assert request.ask.max_new_tokens >= len(str(values))


def test_a_function_returns_what_is_right_at_its_depth():
    for request in asked("code_run", 6000, samples=5):
        said = text(request)
        source, call = re.search(
            r"functions_module.py:\n\n(.*)\n\n\n.*exact value of (.*)\. The", said, re.S
        ).groups()
        code = {}
        exec(source, code)
        assert eval(call, code) == request.about["right"]
        assert said.count(f"def {call.partition('(')[0]}(") == 1
        assert source.count("def ") == request.about["units"]
        names = [int(n) for n in re.findall(r"def func_(\d+)", source)]
        assert names == sorted(set(names)) and names[-1] <= 2 * len(names)
        deep, name = 1, call.partition("(")[0]
        while (body := re.search(rf"def {name}\(x\):\n    return (\w+)", source)[1]) != "x":
            deep, name = deep + 1, body
        assert request.about["part"] == f"depth {deep}"


@pytest.mark.parametrize("name", ["passkey", "number_string", "kv_retrieval", "code_run"])
def test_pairs_over_length_have_one_answer(name):
    def golds(length, **parameters):
        return [r.about["gold"] for r in asked(name, length, **parameters)]

    assert golds(3000, pair_lengths="true") == golds(5000, pair_lengths="true")
    assert golds(3000) != golds(5000)


def test_lists_that_are_paired_begin_alike():
    for name in ("math_find", "math_calc"):
        short, long = (asked(name, n, pair_lengths="true") for n in (2000, 4000))
        for a, b in zip(short, long, strict=True):
            assert (a.tokens[:1400] == b.tokens[:1400]).all()


def test_prompts_of_one_haystack_begin_alike():
    first, *others = asked("passkey", 8000, samples=5)
    deep = next(i for i, r in enumerate(others) if r.about["depth"] == 0.75)
    a, b = others[deep].tokens, others[deep + 1].tokens
    assert (a[:5800] == b[:5800]).all() and not (first.tokens[:5800] == a[:5800]).all()


@pytest.mark.parametrize(("name", "units"), [("passkey", 5220 * 19), ("math_calc", 15_000)])
def test_what_is_as_large_as_published_loses_its_middle(name, units):
    (request,) = asked(name, 5000, sized="published", samples=1)
    (whole,) = asked(name, 2_000_000, sized="published", samples=1)
    assert len(request.tokens) == 5000 and whole.cut == 0 and request.about["units"] == units
    assert request.cut == len(whole.tokens) - 5000 and request.about["gold"] == whole.about["gold"]
    assert (request.tokens[:2500] == whole.tokens[:2500]).all()
    assert (request.tokens[-2500:] == whole.tokens[-2500:]).all()


def test_published_functions_stand_in_equal_layers():
    requests = asked("code_run", 5000, sized="published", samples=5)
    assert [r.about["units"] for r in requests] == [4400, 4400, 4398, 4400, 4400]


@pytest.mark.parametrize(
    ("name", "rows", "places"),
    [
        ("passkey", 590, [90 * (i // 10) for i in range(590)]),
        ("number_string", 590, [90 * (i // 10) for i in range(590)]),
        ("kv_retrieval", 500, [5 * i for i in range(500)]),
    ],
)
def test_published_answers_lie_where_they_are_published(name, rows, places):
    """Before so many of 5,220 lines, or of 2,500 pairs."""
    posed, units = task(name, sized="published", samples=rows), 5220
    units = posed.published - 1 if name == "kv_retrieval" else units
    assert [round(posed.depth(i) * units) for i in range(rows)] == places
    few = task(name, sized="published", samples=10)
    assert [round(few.depth(i) * units) for i in range(10)] == places[:: rows // 10]
    assert posed.version == task(name).version + 1


def test_published_kinds_follow_one_another():
    find = task("math_find", sized="published", samples=350)
    kinds = [find.turn(i, list(WANTED)) for i in range(350)]
    assert kinds == [kind for kind in WANTED for _ in range(50)]
    run = task("code_run", sized="published", samples=400)
    assert [run.deep(i) for i in range(400)] == [n for n in (2, 4, 6, 8, 10) for _ in range(80)]
    assert task("math_calc", sized="published").version == task("math_calc").version


@pytest.mark.parametrize("name", GENERATED)
def test_too_short_a_length_says_what_will_do(name):
    with pytest.raises(ValueError, match=r"take lengths of at least \d+ tokens"):
        asked(name, 60)


# read from files


def row(name, i, context):
    chosen = name in ("longbook_choice_eng", "code_debug")
    options = [f"option {c} {i}" for c in "wxyz"] if chosen else []
    return {
        "id": 10 + i,
        "context": context,
        "input": f"Who is {i}?",
        "answer": options[2:3] or [f"Anna {i}", "Bo"],
        "options": options,
    }


@pytest.fixture
def books(tmp_path):
    """A folder as the hub has it: two books, three questions on each."""
    for name in READ:
        rows = [row(name, i, f"Book {i // 3}. " + "It was so. " * 400) for i in range(6)]
        lines = (json.dumps(r, ensure_ascii=False) for r in rows)
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return tmp_path


@pytest.mark.parametrize("reader", [Bytes(), Talking()], ids=["base", "chat"])
@pytest.mark.parametrize("name", READ)
def test_a_book_that_is_too_long_loses_its_middle(name, reader, books):
    whole = asked(name, 9000, reader, data=books, samples=6)
    cut = asked(name, 3001, reader, data=books, samples=6)
    for a, b in zip(whole, cut, strict=True):
        assert a.cut == 0 and b.cut == len(a.tokens) - len(b.tokens) > 0
        assert 2990 < len(b.tokens) <= 3001
        assert (a.tokens[:1300] == b.tokens[:1300]).all()
        assert (a.tokens[-1300:] == b.tokens[-1300:]).all()
        assert a.about["question"] == b.about["question"]


@pytest.mark.parametrize("name", READ)
def test_questions_on_one_book_begin_alike(name, books):
    for length in (3000, 9000):
        first, second, third = asked(name, length, data=books, samples=3)
        same = 1500 if length == 3000 else 4400
        assert (first.tokens[:same] == second.tokens[:same]).all()
        assert (first.tokens[:same] == third.tokens[:same]).all()


def test_questions_on_one_book_are_not_counted_as_if_they_were_apart(books):
    def width(scores):
        requests = asked("longbook_qa_eng", 9000, data=books, samples=6)
        samples = [
            Sample(id=r.id, score=score, about=r.about)
            for r, score in zip(requests, scores, strict=True)
        ]
        score = task("longbook_qa_eng").score(samples)
        return score.high - score.low

    by_book = [0.1, 0.1, 0.2, 0.6, 0.7, 0.7]
    apart = [{"book": str(i)} for i in range(6)]
    alone = task("longbook_qa_eng").score(
        [Sample(id=str(i), score=x, about=apart[i]) for i, x in enumerate(by_book)]
    )
    assert width(by_book) > alone.high - alone.low
    requests = asked("longbook_qa_eng", 9000, data=books, samples=6)
    samples = [
        Sample(id=r.id, score=s, about=r.about) for r, s in zip(requests, by_book, strict=True)
    ]
    assert sorted(task("longbook_qa_eng").items(samples).values()) == pytest.approx(
        [0.4 / 3, 2 / 3]
    )
    assert width([0.0] * 6) > 0.5  # that two books were missed is not certainty
    hits = task("passkey").score([Sample(id=str(i), score=float(i > 0)) for i in range(6)])
    assert (hits.low, hits.high) == wilson(5, 6)


@pytest.mark.parametrize("scorer", ["official", "fixed"])
@pytest.mark.parametrize("name", READ)
def test_what_a_file_says_is_right_scores_full(name, scorer, books):
    posed = task(name, data=books, samples=6, scorer=scorer)
    requests = list(posed.requests(Bytes(), 2000))
    samples = [posed.grade(r, Bytes().tokens(r.about["gold"]), Bytes()) for r in requests]
    silent = [posed.grade(r, (), Bytes()) for r in requests]
    if name == "longdialogue_qa_eng" and scorer == "official":
        assert posed.score(samples).value == 0  # "Anna 1" is no one word in capitals
    else:
        assert posed.score(samples).value == 1
    assert posed.score(silent).value == 0 and posed.score(silent).n == 6
    assert all(s.cut > 0 for s in samples)


@pytest.mark.parametrize(
    "name", ["longbook_qa_eng", "longbook_qa_chn", "longbook_choice_eng", "code_debug"]
)
def test_the_control_leaves_only_the_context_out(name, books):
    for with_it, without in zip(
        asked(name, 9000, data=books, samples=3),
        asked(name, 9000, data=books, samples=3, no_context="true"),
        strict=True,
    ):
        context = "Book 0. " + "It was so. " * 400
        assert text(with_it).replace(context, "") == text(without)
        assert with_it.about == without.about


def test_each_model_is_asked_as_was_published(books):
    for name in OFFICIAL:
        parameters = {"data": books, "samples": 1} if name in READ else {"samples": 1}
        for prompt, templates in (("base", BASE), ("chat", CHAT)):
            (request,) = asked(name, 9000, Talking(), prompt=prompt, **parameters)
            pieces = re.split(r"\{\w+\}", templates[name])
            said = text(request)
            assert all(piece in said for piece in pieces) and "{context}" not in said
            assert ("user: " in said) == (prompt == "chat")


def test_prompts_are_the_published_ones():
    assert PROMPTS["infinitebench"] == {"base": BASE, "chat": CHAT}


def test_limits_and_sizes_are_the_published_ones():
    own = {}
    for name in OFFICIAL:
        posed = task(name)
        questions = int(posed.size.split()[0])
        own[name] = {"max_new_tokens": posed.max_new_tokens, "questions": questions}
        if name in GENERATED:
            own[name] |= {"units": posed.published}
            assert posed.rows == questions
    assert own == PROMPTS["limits"]["infinitebench"]


def test_who_chats_has_room_for_a_sentence_around_the_answer(books):
    def room(name, prompt, **given):
        (request,) = asked(name, 9000, Talking(), prompt=prompt, samples=1, **given)
        return request.ask.max_new_tokens

    assert [room("passkey", prompt) for prompt in ("base", "chat")] == [6, 128]
    assert [room("code_debug", kind, data=books) for kind in ("base", "chat")] == [5, 1024]
    assert [room("longbook_sum_eng", kind, data=books) for kind in ("base", "chat")] == [1200, 1200]


def test_the_metric_names_its_scorer():
    assert task("passkey").metric == "accuracy-official"
    assert task("longbook_qa_eng", scorer="fixed").metric == "F1-fixed"


def test_the_bare_name_means_all_twelve():
    members = catalog.members("tasks", "infinitebench,samples=3")
    assert members == [f"infinitebench.{name},samples=3" for name in _official_order()]
    assert set(_official_order()) == set(OFFICIAL)


def test_a_parameter_of_the_bare_name_is_set_where_it_is_known():
    members = catalog.members("tasks", "infinitebench,data=x,seed=1")
    assert "infinitebench.passkey,seed=1" in members
    assert "infinitebench.code_debug,data=x" in members
    with pytest.raises(ValueError, match="has no parameter 'sed'"):
        catalog.load("tasks", catalog.members("tasks", "infinitebench,sed=1")[0])


def test_where_files_lie_is_no_part_of_a_cell(books, tmp_path, monkeypatch):
    from harness.plan import Options, plan

    monkeypatch.setenv("CONTEXT_HARNESS_CACHE", str(tmp_path / "cache"))
    spec = f"infinitebench.longbook_qa_eng,data={books / 'longbook_qa_eng.jsonl'},samples=2"
    (planned,) = plan(Options(methods=("none",), tasks=(spec,), lengths=(300,)))
    assert str(tmp_path) not in planned.cell.task and str(tmp_path) in planned.corpus
    assert re.search(r",data=longbook_qa_eng.jsonl@[0-9a-f]{8},", planned.cell.task)
    assert planned.tokens < 600 and planned.fits


def _official_order():
    return [full.partition(".")[2] for full in catalog.variants("tasks", "infinitebench")]


def test_a_file_that_is_not_there_says_how_to_point_to_one(tmp_path):
    with pytest.raises(LookupError, match=r"longbook_qa_eng.*data=FOLDER"):
        asked("longbook_qa_eng", data=tmp_path)


@pytest.mark.parametrize("field", ["id", "context", "input", "answer"])
def test_a_missing_field_is_named_with_file_and_line(field, books):
    file = books / "longbook_qa_eng.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    del rows[1][field]
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    with pytest.raises(ValueError, match=rf"longbook_qa_eng.jsonl, line 2: .*'{field}'"):
        asked("longbook_qa_eng", data=books)


def test_options_of_which_none_is_right_are_refused(books):
    file = books / "code_debug.jsonl"
    file.write_text(json.dumps(row("code_debug", 1, "x") | {"answer": ["main"]}), "utf-8")
    with pytest.raises(ValueError, match="line 1: one of four options should be right"):
        asked("code_debug", data=books, samples=1)


def test_more_samples_than_there_are_questions_are_refused(books):
    with pytest.raises(LookupError, match="has 6 questions of longbook_sum_eng, and 7 samples"):
        asked("longbook_sum_eng", data=books, samples=7)


@pytest.mark.parametrize("prompt", ["base", "chat"])
@pytest.mark.parametrize("name", READ)
def test_no_cut_goes_through_a_question(name, prompt, books):
    fields = {"data": books, "samples": 6, "prompt": prompt}
    with pytest.raises(ValueError, match=rf"{name} needs lengths of at least") as error:
        asked(name, 40, Talking(), **fields)
    enough = int(re.search(r"at least ([\d,]+) tokens", str(error.value))[1].replace(",", ""))
    for request in asked(name, enough, Talking(), **fields):
        pieces = re.split(r"\{\w+\}", (BASE if prompt == "base" else CHAT)[name])
        assert all(piece in text(request) for piece in pieces) and request.cut > 0
