"""Word needles lie where the grid says and are asked for as they were hidden."""

import re
from itertools import pairwise

import numpy as np
import pytest
from readers import Bytes, Spaced, Talking, prompt_of, questions, toy

from harness import catalog
from harness.cost import Work
from harness.task import Text, Verdict

EVERY = catalog.variants("tasks", "needle")
NEEDLE = r"One of the special magic numbers for (\S+) is: (\d+)\."


def task(spec):
    return catalog.load("tasks", spec)


@pytest.fixture(scope="module", params=[Bytes, Spaced, Talking, toy])
def reader(request):
    return request.param()


def context_of(request, reader):
    text = prompt_of(request, reader)
    return text[text.index("afterwards.") : text.rindex("\nWhat")]


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("length", [1500, 3001])
def test_prompt_and_answer_fill_the_length_and_never_pass_it(name, length, reader):
    for request in questions(task(name), reader, length)[0]:
        assert length - 16 <= len(request.tokens) + task(name).max_new_tokens <= length


@pytest.mark.parametrize("name", EVERY)
def test_the_needle_that_is_asked_for_lies_at_its_depth(name, reader):
    for request in task(name).requests(reader, 6000):
        context, depth = context_of(request, reader), request.about["depth"]
        hay = re.split(NEEDLE, context)
        needles, hay = list(zip(hay[1::3], hay[2::3], strict=True)), hay[::3]
        first = next(i for i, (key, _) in enumerate(needles) if key in request.about["queries"])
        before = sum(map(len, hay[: first + 1])) - len("afterwards.")
        whole = sum(map(len, hay)) - len("afterwards.")
        assert before / whole == pytest.approx(depth, abs=0.02)


@pytest.mark.parametrize("name", EVERY)
def test_each_value_is_hidden_once_beside_its_key(name, reader):
    grid = task(name)
    for request in grid.requests(reader, 2000):
        context, about = context_of(request, reader), request.about
        needles = re.findall(NEEDLE, context)
        assert len(needles) == len(set(needles)) == grid.keys * grid.values
        assert [v for k, v in needles if k in about["queries"]] == sorted(
            about["answers"], key=context.index
        )
        assert all(prompt_of(request, reader).count(value) == 1 for value in about["answers"])


def test_of_several_needles_the_rest_lie_evenly_behind_the_first():
    for request in task("needle.multivalue").requests(Bytes(), 3000):
        depth = request.about["depth"]
        assert request.about["depths"] == [round(depth + (1 - depth) * i / 4, 4) for i in range(4)]


def test_one_answer_of_one_spelling_needs_no_writing():
    for read, kind in ((Bytes, Verdict), (toy, Verdict), (Talking, Verdict), (Spaced, Text)):
        reader = read()
        for request in task("needle.multikey").requests(reader, 2000):
            assert isinstance(request.ask, kind)
            if kind is Verdict:
                said = reader.text(request.ask.answer)
                assert said == f" {request.about['answers'][0]}."
    assert isinstance(next(task("needle.multivalue").requests(Bytes(), 2000)).ask, Text)


def test_a_verdict_is_graded_by_its_digits():
    grid = task("needle")
    request = next(grid.requests(Bytes(), 2000))
    (value,) = request.about["answers"]
    for said, score in (
        (f" {value}.", 1), (f" {value}\n", 1), (f" {value}0", 0), (f"x{value}.", 0), ("", 0),
    ):  # fmt: skip
        assert grid.grade(request, tuple(Bytes().tokens(said)), Bytes()).score == score


def test_room_is_kept_for_what_may_have_to_be_written():
    single, many = task("needle"), task("needle.multivalue")
    assert (single.version, many.version) == (2, 1) and (single.follows, many.follows) == (64, 0)
    (first, *_) = single.requests(Bytes(), 2000)
    assert Work.of([first]).room == 0
    assert Work.of([first], follows=single.follows).room == len(first.tokens) + 64


def test_what_says_something_before_the_number_is_written_out_and_its_first_number_counts():
    grid, reader = task("needle"), Bytes()
    request = next(grid.requests(reader, 2000))
    (value,) = request.about["answers"]
    size = len(request.ask.answer)
    written = grid.then(request, tuple(reader.tokens(f": {value}."))[:size], reader, 2000)
    assert isinstance(written.ask, Text) and grid.then(written, (), reader, 2000) is None
    for said, score in ((f": {value}.", 1), (f": 17, or {value}", 0), (f"{value}1", 0)):
        assert grid.grade(written, tuple(reader.tokens(said)), reader).score == score
        assert grid.judge(said, [value], {})[0] == score
    for said in (f" {value}.", f" {value[:2]}x{value[3:]}.", " 7777777."):
        assert grid.then(request, tuple(reader.tokens(said)), reader, 2000) is None


def test_deeper_prompts_begin_as_shallower_ones():
    requests = list(task("needle.single,samples=2").requests(Bytes(), 6000))
    assert len(requests) == 10
    for a, b in pairwise(requests):
        if a.about["depth"] > 0:
            n = min(len(a.tokens), len(b.tokens))
            shared = np.argmin(np.append(a.tokens[:n] == b.tokens[:n], False))
            assert shared > 4000 * a.about["depth"]


def test_recall_is_told_by_depth():
    grid, reader = task("needle.multiquery,samples=2"), Bytes()
    samples = []
    for request in grid.requests(reader, 2000):
        n = 4 if request.about["depth"] < 0.5 else request.about["trial"]
        said = ", ".join(request.about["answers"][:n])
        samples.append(grid.grade(request, tuple(reader.tokens(said)), reader))
    score = grid.score(samples)
    assert score.parts == {
        "depth 0.00": 1, "depth 0.25": 1, "depth 0.50": 0.125, "depth 0.75": 0.125,
        "depth 1.00": 0.125,
    }  # fmt: skip
    assert score.value == pytest.approx(0.475) and score.low < 0.475 < score.high


def test_depths_are_shares_and_the_same_depths_the_same_cell():
    with pytest.raises(ValueError, match="from 0 to 1"):
        task("needle,depths=0.5+1.5")
    assert catalog.canonical("tasks", "needle,depths=0.5+0+0.5") == "needle.single,depths=0+0.5"


def test_paired_lengths_hide_the_same_needles():
    def answers(spec, length):
        return [r.about["answers"] for r in task(spec).requests(Bytes(), length)]

    paired = "needle.multikey,pair_lengths=true"
    assert answers(paired, 2000) == answers(paired, 3000)
    assert answers("needle.multikey", 2000) != answers("needle.multikey", 3000)
