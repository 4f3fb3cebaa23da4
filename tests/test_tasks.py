"""Every task keeps these promises, whoever reads."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import groupby, pairwise
from math import exp, isfinite, log
from pathlib import Path

import numpy as np
import pytest

import harness
from harness import catalog
from harness.task import Choice, Document, Losses, Sample, Text, Verdict
from harness.tasks._haystack import NOISE
from harness.tasks.passkey import INTRO, QUESTION

TOY = Path(harness.__file__).parent / "toy"


class Bytes:
    """A byte is a token."""

    bos, spells_one_way, chats = 256, True, False

    def tokens(self, text):
        return list(text.encode())

    def text(self, tokens):
        return bytes(int(t) for t in tokens if t < 256).decode(errors="replace")

    def chat(self, messages, *, opening=""):
        raise LookupError("The tokenizer has no chat template.")

    def documents(self, corpus, *, reach, first):
        size = reach + 700
        draw = np.random.default_rng(0).integers(97, 123, size=(first, size), dtype=np.int32)
        return [Document(name=f"book {i}", tokens=row) for i, row in enumerate(draw)]


class Talking(Bytes):
    """It was trained on conversations: a token, 257, stands between turns."""

    chats = True

    def chat(self, messages, *, opening=""):
        turns = ([257, *self.tokens(f"{m['role']}: {m['content']}")] for m in messages)
        return [self.bos, *(t for turn in turns for t in turn), 257, *self.tokens(opening)]


class Pieces(Bytes):
    """A token is up to three letters or digits, and a space before them."""

    spells_one_way = False

    def __init__(self):
        self.known = {}

    def tokens(self, text):
        pieces = re.findall(r" ?\w{1,3}|\s|.", text)
        return [self.known.setdefault(piece, 300 + len(self.known)) for piece in pieces]

    def text(self, tokens):
        spelled = list(self.known)
        return "".join(spelled[t - 300] for t in tokens if t >= 300)

    def documents(self, corpus, *, reach, first):
        letters = super().documents(corpus, reach=3 * reach, first=first)
        read = [(d.name, self.tokens(Bytes.text(self, d.tokens))) for d in letters]
        return [Document(name=name, tokens=np.array(t, dtype=np.int32)) for name, t in read]


class Spaced(Pieces):
    """Begins every text with a space of its own, as SentencePiece does."""

    def tokens(self, text):
        return super().tokens(f" {text}")


def toy():
    from transformers import AutoTokenizer

    from harness.reader import TokenReader

    return TokenReader(AutoTokenizer.from_pretrained(TOY))


READERS = {"bytes": Bytes, "talking": Talking, "pieces": Pieces, "spaced": Spaced, "toy": toy}
NAMES = [v for name in catalog.names("tasks") for v in catalog.variants("tasks", name)]
EVERY = [v for v in NAMES if getattr(catalog.load("tasks", v), "offline", True)]
"""But those whose data must be fetched."""
PASSKEYS = [name for name in EVERY if name.startswith("passkey")]
PERPLEXITIES = [name for name in EVERY if name.startswith("perplexity")]


@pytest.fixture(params=READERS)
def reader(request):
    return READERS[request.param]()


def task(spec):
    return catalog.load("tasks", spec)


def gold(request, reader):
    """What a model says that is right, and certain of every token."""
    match request.ask:
        case Verdict(answer=answer):
            return answer
        case Text():
            if whole := request.about.get("gold"):
                return tuple(reader.tokens(f" {whole}"))
            key = request.about.get("key") or ", ".join(request.about["answers"])
            return tuple(reader.tokens(f" {key}. And"))
        case Choice():
            (right,) = request.about["answers"]
            return tuple(0.0 if label == right else -9.0 for label in request.about["labels"])
        case Losses(start=start, stop=stop):
            return np.zeros(stop - start)


CLUELESS = 257
"""The perplexity of who knows nothing of so many tokens."""


def silence(request, reader):
    """What a model says that knows nothing."""
    match request.ask:
        case Losses(start=start, stop=stop):
            return np.full(stop - start, log(CLUELESS))
        case _:
            return ()


def questions(asked, reader, length):
    """At this length, or where it says that it is too short, at the least that it says will do."""
    for _ in range(3):
        try:
            return list(asked.requests(reader, length)), length
        except ValueError as error:
            length = int(re.search(r"at least ([\d,]+) tokens", str(error))[1].replace(",", ""))
    raise AssertionError(f"{length} will not do either")


def scored(asked, reader, length, outcome):
    requests, _ = questions(asked, reader, length)
    return asked.score([asked.grade(r, outcome(r, reader), reader) for r in requests])


# every task


@pytest.mark.parametrize("name", EVERY)
def test_asks_the_same_questions_every_time(name, reader):
    first, again = (questions(task(name), reader, 1500)[0] for _ in range(2))
    assert [r.tokens.tolist() for r in first] == [r.tokens.tolist() for r in again]
    assert [(r.id, r.ask, r.about) for r in first] == [(r.id, r.ask, r.about) for r in again]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("length", [700, 1501, 4096])
def test_never_asks_past_the_length(name, length):
    requests, length = questions(task(name), Bytes(), length)
    assert requests and all(2 <= len(r.tokens) <= length for r in requests)
    assert all(r.tokens.dtype == np.int64 for r in requests)
    assert len({r.id for r in requests}) == len(requests)
    spans = [r.ask for r in requests if isinstance(r.ask, Losses)]
    assert all(0 < s.start < s.stop <= length for s in spans)


@pytest.mark.parametrize("name", [name for name in EVERY if name != "longppl.self"])
def test_the_gold_answer_scores_full_and_silence_nothing(name):
    """But for the one where a model's own losses say what is asked of it."""
    asked, reader = task(name), Bytes()
    full, nothing = (scored(asked, reader, 1000, outcome) for outcome in (gold, silence))
    best, worst = (1, 0) if asked.higher_is_better else (1, CLUELESS)
    assert full.value == pytest.approx(best) and nothing.value == pytest.approx(worst, rel=1e-4)
    assert full.n > 0 and all(isfinite(v) for v in full.parts.values())
    assert nothing.low <= nothing.value + 1e-9 and nothing.value - 1e-9 <= nothing.high


@pytest.mark.parametrize("name", NAMES)
def test_it_declares_how_an_answer_ends_and_what_counts(name):
    asked = task(name)
    assert asked.metric and asked.version >= 1 and asked.counts
    assert asked.truncation in ("none", "left", "middle") and asked.max_new_tokens >= 0
    assert all(isinstance(word, str) and word for word in asked.stop)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("reads", [Bytes, Talking])
def test_what_it_asks_is_what_it_declares(name, reads):
    asked, room = task(name), getattr(task(name), "chat_tokens", 0) if reads.chats else 0
    for request in questions(asked, reads(), 1500)[0]:
        assert not request.cut or asked.truncation != "none"
        if isinstance(request.ask, Text):
            assert request.ask.stop == asked.stop
            assert request.ask.max_new_tokens <= max(asked.max_new_tokens, room)
        if isinstance(request.ask, Verdict):
            assert len(request.ask.answer) <= asked.max_new_tokens


@pytest.mark.parametrize("name", EVERY)
def test_a_parameter_can_be_written_and_read_back(name):
    assert catalog.canonical("tasks", name) == name
    assert catalog.canonical("tasks", f"{name},samples=7") == f"{name},samples=7"


@pytest.mark.parametrize("name", EVERY)
def test_no_samples_are_refused(name):
    with pytest.raises(ValueError, match="at least 1"):
        task(f"{name},samples=0")


def test_tasks_load_nothing_heavy():
    code = "import sys; from harness import catalog\n" + "".join(
        f"catalog.load('tasks', {name!r})\n" for name in EVERY
    )
    code += "print({'torch', 'transformers', 'datasets', 'pyarrow', 'scipy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


# passkey


@pytest.mark.parametrize("length", [350, 351, 357, 512, 1000, 1001, 4096, 4097])
def test_a_passkey_prompt_is_exactly_as_long_as_asked(length, reader):
    requests = list(task("passkey").requests(reader, length + 150))
    assert {len(r.tokens) for r in requests} == {length + 150}
    assert all(r.tokens[0] == reader.bos for r in requests)


def test_paired_over_lengths_the_same_keys_are_hidden():
    def keys(spec, length):
        return [r.about["key"] for r in task(spec).requests(Bytes(), length)]

    assert keys("passkey,pair_lengths=true", 1000) == keys("passkey,pair_lengths=true", 2000)
    assert keys("passkey", 1000) != keys("passkey", 2000)


@pytest.mark.parametrize("name", ["babilong.qa1", "nolima.onehop"])
def test_a_control_asks_without_the_text(name, reader):
    for asked in questions(task(f"{name},no_context=true,samples=1"), reader, 4000)[0]:
        text = reader.text(asked.tokens[1:])
        assert len(text) < 2600 and text.rstrip().endswith("Answer:")
    whole = questions(task(f"{name},samples=1"), reader, 4000)[0]
    assert len(reader.text(whole[0].tokens[1:])) > len(text)


def test_the_whole_prompt_reads_as_published():
    request = next(task("passkey,depths=0.5").requests(Bytes(), 2000))
    text, key = Bytes().text(request.tokens), request.about["key"]
    intro, before, needle, after, question = text.split("\n")
    assert intro == INTRO and question == QUESTION
    assert needle == f"The pass key is {key}. Remember it. {key} is the pass key."
    hay = " ".join([NOISE] * 20)
    assert hay.startswith(before) and hay.startswith(after) and len(before) > 600 < len(after)


def test_the_key_stands_twice_in_its_prompt_and_nowhere_else(reader):
    requests = list(task("passkey,samples=3").requests(reader, 1200))
    keys = [r.about["key"] for r in requests]
    assert len(set(keys)) == len(keys) == 15 and all(re.fullmatch(r"\d{5}", k) for k in keys)
    for request in requests:
        text = reader.text(request.tokens[1:])
        assert text.count(request.about["key"]) == 2
        assert text.rstrip().endswith(QUESTION)


def test_the_needle_lies_at_its_depth(reader):
    depths = {}
    for request in task("passkey").requests(reader, 3000):
        text = reader.text(request.tokens[1:])
        rest = len(INTRO) + len(QUESTION) + 60
        at = text.index(f"The pass key is {request.about['key']}") - len(INTRO)
        depths[request.about["depth"]] = at / (len(text) - rest)
    assert all(found == pytest.approx(depth, abs=0.02) for depth, found in depths.items())


def test_trials_of_a_depth_differ_only_from_the_key_on(reader):
    requests = list(task("passkey,samples=3").requests(reader, 1000))
    for _, trials in groupby(requests, key=lambda r: r.about["depth"]):
        trials = list(trials)
        needle = reader.tokens(reader.text(trials[0].tokens[1:]).split("The pass key is")[0])
        for a, b in pairwise(trials):
            assert shared(a, b) >= len(needle)


def test_a_deeper_needle_shares_all_that_stands_before_a_shallower_one():
    requests = list(task("passkey,samples=1").requests(Bytes(), 4000))
    starts = [Bytes().text(r.tokens).index("\nThe pass key is") for r in requests]
    assert starts == sorted(starts)
    assert all(shared(a, b) >= n for (a, b), n in zip(pairwise(requests), starts, strict=False))


def shared(a, b):
    n = min(len(a.tokens), len(b.tokens))
    return int(np.argmin(np.append(a.tokens[:n] == b.tokens[:n], False)))


@pytest.mark.parametrize("name", PASSKEYS)
def test_a_prompt_that_cannot_be_so_short_says_how_long_it_must_be(name, reader):
    with pytest.raises(ValueError, match=r"needs (at least|more than) (\d+) tokens") as error:
        list(task(name).requests(reader, 50))
    minimum = int(re.search(r"needs (?:at least|more than) (\d+)", str(error.value))[1])
    assert "take longer lengths" in str(error.value) and minimum > 50
    if name == "passkey.standard":
        assert {len(r.tokens) for r in task(name).requests(reader, minimum)} == {minimum}


def test_a_number_that_only_begins_with_the_key_is_a_miss():
    asked, reader = task("passkey.longrope"), Bytes()
    request = next(asked.requests(reader, 2000))
    stop, digit = (tuple(reader.tokens(f" {request.about['key']}{c}")) for c in ".7")
    assert asked.grade(request, stop, reader).score == 1
    assert asked.grade(request, digit, reader).score == 0
    wrong = (ord("x"), *stop[1:])
    assert asked.grade(request, wrong, reader).score == 0


def test_text_is_graded_by_its_first_number():
    asked, reader = task("passkey"), Pieces()
    request = next(asked.requests(reader, 1000))
    key = request.about["key"]
    assert isinstance(request.ask, Text)
    for said, score in [(f"\n{key}, so", 1), (f" 1{key}", 0), (f" 3 or {key}", 0), ("no", 0)]:
        sample = asked.grade(request, reader.tokens(said), reader)
        assert (sample.score, sample.answer, sample.expected) == (score, said, key)


def test_accuracy_is_told_by_depth_with_an_interval():
    asked, reader = task("passkey,samples=2"), Bytes()
    samples = [
        asked.grade(r, r.ask.answer if r.about["depth"] < 0.5 else (), reader)
        for r in asked.requests(reader, 1000)
    ]
    score = asked.score(samples)
    assert score.value == 0.4 and score.n == 10 and 0.15 < score.low < 0.4 < score.high < 0.7
    assert score.parts["depth 0.25"] == 1 and score.parts["depth 0.50"] == 0
    assert len(score.parts) == 6 and score.parts["found"] == score.value


def test_a_key_that_was_found_and_not_said_at_once_is_told_apart():
    """As by a model that begins its answer with a word: each digit is right, given those before."""
    asked, reader = task("passkey,samples=1"), Bytes()
    samples = []
    for r, how in zip(asked.requests(reader, 1000), (0, 1, 2, 0, 0), strict=True):
        said = list(r.ask.answer)
        said[0] = said[0] if how == 0 else 300
        said[2] = said[2] if how < 2 else 300
        samples.append(asked.grade(r, tuple(said), reader))
    score = asked.score(samples)
    assert (score.value, score.parts["found"]) == (0.6, 0.8)
    assert (score.parts["depth 0.25"], score.parts["depth 0.50"]) == (0, 0)


def test_depths_lie_between_the_ends():
    with pytest.raises(ValueError, match="from 0 to 1"):
        task("passkey,depths=0.5+1.5")
    with pytest.raises(ValueError, match="from 0 to 1"):
        task("passkey,depths=nan")


def test_the_same_depths_are_the_same_cell():
    def named(depths):
        return catalog.canonical("tasks", f"passkey,depths={depths}")

    assert named("0.5+0") == named("0+0.5+0.5") == named("-0+0.50001")
    assert named("0.5+0") == "passkey.standard,depths=0+0.5"
    assert named("1+0.75+0.25+0+0.5") == "passkey.standard"
    assert task("passkey,depths=0.111111111111+0.1111111111112").depths == (0.1111,)


def test_depths_that_are_near_are_told_apart():
    asked, reader = task("passkey,depths=0.111+0.112+0.5"), Bytes()
    assert list(scored(asked, reader, 1000, gold).parts) == [
        "depth 0.111", "depth 0.112", "depth 0.50", "found",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("passkey,digits=1,samples=2", "too few keys"),
        ("passkey,digits=0", "1 to 18 digits, and 0 were"),
        ("passkey,digits=5000", "1 to 18 digits, and 5000 were"),
        *((f"passkey.longrope,rate={x}", "above 0 and at most 100") for x in ("inf", "nan", -5, 0)),
        ("passkey.longrope,rate=1e9", "at most 100, and 1e[+]09 is not"),
    ],
)
def test_a_passkey_that_makes_no_sense_is_refused(spec, why):
    with pytest.raises(ValueError, match=why):
        task(spec)


# perplexity


def test_whole_is_the_start_token_and_the_beginning_of_each_document():
    reader, whole = Bytes(), task("perplexity")
    documents = reader.documents("stdlib", reach=800, first=3)
    for request, document in zip(
        replace(whole, reach=800).requests(reader, 500), documents, strict=True
    ):
        assert request.tokens.tolist() == [reader.bos, *document.tokens[:499]]
        assert request.ask == Losses(start=1, stop=500)
        assert request.about["document"] == document.name


@pytest.mark.parametrize("name", [n for n in PERPLEXITIES if task(n).one_pass])
def test_where_one_pass_is_enough_shorter_inputs_are_beginnings(name):
    asked = replace(task(name), reach=2000)
    for short, long in zip(
        asked.requests(Bytes(), 700), asked.requests(Bytes(), 2000), strict=True
    ):
        assert (long.tokens[:700] == short.tokens).all() and short.id == long.id
        assert short.ask.start == long.ask.start == 1
    assert not task("perplexity.yarn,truncate=false").one_pass


def test_every_document_counts_alike_and_is_told():
    asked, reader = task("perplexity"), Bytes()
    samples = [
        asked.grade(r, np.full(4999, float(i)), reader)
        for i, r in enumerate(asked.requests(reader, 5000))
    ]
    score = asked.score(samples)
    assert score.value == pytest.approx(exp(1)) and score.n == 3
    margin = 4.302653 * 3**-0.5  # Student's t of two degrees, and the standard error of 0, 1, 2
    assert score.low == 1 and 1 - margin < 0  # a perplexity is never below one
    assert score.high == pytest.approx(exp(1 + margin), rel=1e-6)
    assert score.parts["book 2"] == pytest.approx(exp(2))
    assert all(s.losses.dtype == np.float64 and len(s.losses) == 4999 for s in samples)


def test_the_last_2k_tokens_show_a_collapse():
    asked, reader = task("perplexity"), Bytes()
    losses = np.r_[np.ones(3000), np.full(2048, 6.0)]
    samples = [asked.grade(r, losses, reader) for r in asked.requests(reader, 5049)]
    assert asked.score(samples).parts["last-2k"] == pytest.approx(exp(6))
    assert "last-2k" not in scored(asked, reader, 2049, gold).parts


def test_of_windows_that_slide_the_last_one_of_each_document_has_the_last_2k():
    asked = task("perplexity.sliding,window=8192,stride=4096")
    samples = [
        Sample(id=f"{name}-{begin}", score=1.0, about={"document": name, "begin": begin},
               losses=np.full(4096, begin / 4096))
        for name in ("a", "b") for begin in (0, 4096, 8192)
    ]  # fmt: skip
    assert asked.score(samples).parts["last-2k"] == pytest.approx(exp(2))


def test_one_document_has_no_interval():
    score = scored(task("perplexity,samples=1"), Bytes(), 100, silence)
    assert (score.low, score.high) == (None, None)


def test_sliding_scores_the_same_text_at_every_length():
    asked = task("perplexity.sliding,reach=3000,samples=1,stride=100")
    for length in (500, 1000, 3000):
        told = [r.tokens[r.ask.start : r.ask.stop] for r in asked.requests(Bytes(), length)]
        document = Bytes().documents("", reach=3000, first=1)[0]
        assert (np.concatenate(told) == document.tokens[:2999]).all()


def test_sliding_windows_may_be_shorter_than_the_length():
    asked = task("perplexity.sliding,window=400,samples=1")
    assert {len(r.tokens) for r in asked.requests(Bytes(), 1000)} == {400, 232}
    with pytest.raises(ValueError, match="does not fit"):
        list(asked.requests(Bytes(), 300))
    with pytest.raises(ValueError, match="take 1 to 399"):
        list(replace(asked, stride=400).requests(Bytes(), 1000))


@pytest.mark.parametrize(
    "spec",
    [
        "lceg,limit=-1",
        "lceg,stride=0",
        "yarn,stride=-5",
        "longrope,stride=0",
        "sliding,stride=0",
        "sliding,window=-1",
    ],
)
def test_windows_that_make_no_sense_are_refused(spec):
    with pytest.raises(ValueError, match=r"takes a \w+ of \d or more, and -?\d is less"):
        task(f"perplexity.{spec}")


def test_a_stream_cannot_be_truncated_nor_read_in_one_pass():
    with pytest.raises(ValueError, match="has no parameter 'truncate'"):
        task("perplexity.lceg,truncate=true")
    assert not task("perplexity.lceg").one_pass


@pytest.mark.parametrize("name", PERPLEXITIES)
def test_one_token_predicts_nothing(name):
    with pytest.raises(ValueError, match="at least 2 tokens"):
        list(task(name).requests(Bytes(), 1))


def test_a_stream_that_is_too_short_says_what_it_has():
    with pytest.raises(LookupError, match=r"have 7,020 tokens, and 8,449 are needed"):
        list(task("perplexity.lceg").requests(Bytes(), 8192))


def test_a_stride_that_nothing_would_use_is_refused():
    with pytest.raises(ValueError, match="truncate=false"):
        task("perplexity.yarn,stride=128")
    assert task("perplexity.longrope,stride=128,truncate=false").stride == 128


def test_items_average_to_the_value():
    windows = [("a", 1.0), ("a", 3.0), ("b", 1.0), ("b", 4.0)]
    losses = [Sample(id=f"{d}-{x}", score=x, about={"document": d}) for d, x in windows]
    task = catalog.load("tasks", "perplexity.sliding")
    assert task.items(losses) == {"a": 2.0, "b": 2.5}
    assert task.score(losses).value == pytest.approx(exp(2.25))
    trials = [Sample(id=str(i), score=float(i > 0)) for i in range(4)]
    assert catalog.load("tasks", "ruler.vt").items(trials) == {"0": 0, "1": 1, "2": 1, "3": 1}


ASKED = """
import hashlib, sys

sys.path.insert(0, {tests!r})
import test_tasks as law

for name in law.EVERY:
    asked = law.task(name)
    said = law.questions(asked, law.Bytes(), 3000)[0]
    said = [(r.id, r.tokens.tolist(), repr(r.ask), repr(r.about)) for r in said]
    print(name, asked.version, hashlib.sha256(repr(said).encode()).hexdigest()[:16])
"""


def asked_elsewhere(seed):
    """Of each task, what another process asks, in short."""
    code = ASKED.format(tests=str(Path(__file__).parent))
    return subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=os.environ | {"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()


def test_every_process_asks_the_same_and_what_moves_has_another_version():
    """Resuming, pairs and `harness rerun` rest on it."""
    one, other = (asked_elsewhere(seed) for seed in "12")
    assert one == other and len(one) > 20
    asked = {name: [int(version), said] for name, version, said in map(str.split, one)}
    kept = json.loads((Path(__file__).parent / "golden" / "questions.json").read_text("utf-8"))
    moved = {name for name in kept if asked.get(name) != kept[name]}
    assert asked.keys() == kept.keys() and not moved, "raise `version`, and write the file anew"
