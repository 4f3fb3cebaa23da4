"""BABILong's stories have one right answer, NoLiMa's questions no word of their needle; both lie
where they should in a prompt that fills the length."""

import json
import random
import re
from itertools import pairwise

import pytest
from readers import Bytes, Spaced, Talking, prompt_of, questions, toy

from harness import catalog
from harness.metrics.babilong import LABELS, compare_answers
from harness.tasks._stories import KINDS, story
from harness.tasks.nolima import NoLiMa

STORIES = catalog.members("tasks", "babilong")
HINTS = catalog.members("tasks", "nolima")


def task(spec):
    return catalog.load("tasks", spec)


@pytest.fixture(scope="module", params=[Bytes, Spaced, Talking, toy])
def reader(request):
    return request.param()


@pytest.mark.parametrize("name", [*STORIES, *HINTS])
@pytest.mark.parametrize("length", [2500, 5001])
def test_prompt_and_answer_fill_the_length_and_never_pass_it(name, length, reader):
    asked = task(name)
    requests, length = questions(asked, reader, length)
    for request in requests:
        full = len(request.tokens) + request.ask.max_new_tokens
        assert length - 16 <= full <= length and request.ask.max_new_tokens == asked.max_new_tokens


@pytest.mark.parametrize("name", [*STORIES, *HINTS])
def test_seeds_reproduce_and_pairs_ask_the_same_at_every_length(name):
    def asked(spec, length):
        return [
            (r.about["question"], r.about["answers"]) for r in task(spec).requests(Bytes(), length)
        ]

    assert asked(name, 5000) == asked(name, 5000) != asked(f"{name},seed=1", 5000)
    assert asked(name, 5000) != asked(name, 6000)
    assert asked(f"{name},pair_lengths=true", 5000) == asked(f"{name},pair_lengths=true", 6000)


# stories


def answers(facts, question):
    """What is right, read off the facts by somebody who knows no simulator."""
    at, held, way, north, gifts = {}, {}, {}, [], []
    for fact in facts:
        who, *_, last = fact.rstrip(".").removesuffix(" there").split()
        if found := re.fullmatch(r"The (\w+) is (\w+) of the (\w+)\.", fact):
            north.append(found.groups())
        elif found := re.search(r"(?:gave|passed|handed) the (\w+) to (\w+)", fact):
            gifts.append((who, *found.groups()))
            held[found[1]] = found[2]
        elif re.search(r"took|got|grabbed|picked", fact):
            held[last] = who
            way.setdefault(last, []).append(at[who])
        elif re.search(r"dropped|left|put|discarded", fact):
            del held[last]
        else:
            assert re.search(r"went|travelled|journeyed|moved", fact)
            at[who] = last
            for thing, holder in held.items():
                if holder == who:
                    way[thing].append(last)
    asked = question.rstrip("?").split()
    if found := re.fullmatch(r"Where was the (\w+) before the (\w+)\?", question):
        places = way[found[1]]
        return {a for a, b in pairwise(places) if b == found[2] != a}
    if question.startswith("Where is the"):
        return {way[asked[-1]][-1]}
    if question.startswith("Where is"):
        return {at[asked[-1]]}
    if found := re.fullmatch(r"What is (\w+) of the (\w+)\?", question):
        return {a for a, way, b in facts_both_ways(north) if (way, b) == found.groups()}
    if found := re.fullmatch(r"What is the (\w+) (\w+) of\?", question):
        return {b for a, way, b in facts_both_ways(north) if (a, way) == found.groups()}
    forms = (
        (r"What did (\w+) give to (\w+)\?", (0, 2), 1),
        (r"Who did (\w+) give the (\w+) to\?", (0, 1), 2),
        (r"Who gave the (\w+) to (\w+)\?", (1, 2), 0),
        (r"Who gave the (\w+)\?", (1,), 0),
        (r"Who received the (\w+)\?", (1,), 2),
    )
    for form, known, wanted in forms:
        if found := re.fullmatch(form, question):
            return {g[wanted] for g in gifts if tuple(g[i] for i in known) == found.groups()}
    raise AssertionError(question)


def facts_both_ways(told):
    other = {"north": "south", "south": "north", "east": "west", "west": "east"}
    return [*told, *((b, other[way], a) for a, way, b in told)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_facts_decide_the_one_right_answer(kind):
    found = set()
    for i in range(200):
        told = story(kind, random.Random(i))
        assert answers(told.facts, told.question) == {told.answer}, told
        assert told.answer in LABELS[kind] and told.answer not in told.question
        found.add(told.answer)
    assert found == set(LABELS[kind])


@pytest.mark.parametrize("name", STORIES)
def test_every_fact_lies_in_the_context_in_order_and_the_answer_scores(name, reader):
    asked = task(f"{name},samples=4")
    for request in questions(asked, reader, 3000)[0]:
        text, (right,) = prompt_of(request, reader), request.about["answers"]
        context = text[text.index("<context>") : text.index("</context>")]
        mentioned = re.findall(
            r"(?:Mary|John|Daniel|Sandra|Bill|Fred|Jeff) [A-Za-z ]+?\.|The \w+ is \w+ of the \w+\.",
            context,
        )
        assert answers(mentioned, request.about["question"]) == {right}
        assert text.count(f"Question: {request.about['question']}") == 1
        assert text.count("<example>") == 2
        for said, score in ((f" {right.upper()}. And", 1), (" I do not know", 0)):
            outcome = tuple(reader.tokens(said))
            assert asked.grade(request, outcome, reader).score == score


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("Kitchen", True), ("It is in the kitchen. Not the garden", True),
        ("kitchen or garden", False), ("garden", False), ("", False), (".kitchen", False),
        ("The milk is in the kitchen, before the office", True),
        ("kitchen <example> garden", True), ("kitchen Question garden", False),
    ],
)  # fmt: skip
def test_answers_are_compared_as_published(said, right):
    question = "Where was the milk before the office?"
    assert compare_answers("kitchen", said, question, LABELS["qa3"]) is right


def test_published_rows_are_asked_as_they_are(tmp_path):
    rows = [
        {"input": f"Mary went to the garden. {'It rained. ' * 30}", "question": "Where is Mary?",
         "target": "garden"}
    ] * 3  # fmt: skip
    (tmp_path / "qa1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for data in (tmp_path, tmp_path / "qa1.jsonl"):
        asked = task(f"babilong.published_qa1,samples=2,data={data}")
        requests = list(asked.requests(Bytes(), 5000))
        assert len(requests) == 2 and prompt_of(requests[0], Bytes()).count("It rained.") == 30
        assert asked.grade(requests[0], tuple(b" the garden"), Bytes()).score == 1
    with pytest.raises(ValueError, match="take lengths of at least"):
        list(asked.requests(Bytes(), 500))
    with pytest.raises(LookupError, match="data=FILE"):
        list(task("babilong.published_qa1").requests(Bytes(), 5000))
    (tmp_path / "qa2.jsonl").write_text('{"input": "a", "target": "b"}\n')
    with pytest.raises(ValueError, match=r"line 1: there is no field 'question'"):
        list(task(f"babilong.published_qa2,samples=1,data={tmp_path}").requests(Bytes(), 5000))
    with pytest.raises(LookupError, match="has 3 rows, and 10 samples"):
        list(task(f"babilong.published_qa1,data={tmp_path}").requests(Bytes(), 5000))
    with pytest.raises(ValueError, match="leave out seed"):
        task("babilong.published_qa1,seed=7")


def test_anybodys_answers_can_be_judged():
    row = {"question": "Where is Mary?"}
    assert task("babilong.qa1").judge("In the Garden.", "garden", row) == (1.0, "garden")
    assert task("babilong.qa1").judge("garden, kitchen", "garden", row) == (0.0, "garden, kitchen")
    assert task("nolima").judge("It is Anouk!", "Anouk", {}) == (1.0, "It is Anouk!")


# hints

COMMON = {
    *(
        "a",
        "an",
        "and",
        "at",
        "be",
        "been",
        "by",
        "character",
        "could",
        "for",
        "from",
        "has",
        "in",
        "is",
    ),
    *("name", "not", "of", "on", "or", "the", "to", "was", "which", "who", "with", "would"),
}


@pytest.mark.parametrize("name", HINTS)
def test_needle_and_question_have_no_word_in_common(name):
    hints = task(name).hints()
    assert len(hints) == len({needle for needle, _ in hints}) >= 20
    for needle, question in hints:
        words = [set(re.findall(r"\w+", text.lower())) - COMMON for text in (needle, question)]
        assert not words[0] & words[1], (needle, question)


@pytest.mark.parametrize("name", HINTS)
def test_the_name_stands_once_at_its_depth(name, reader):
    asked: NoLiMa = task(name)
    needles = {question: needle for needle, question in asked.hints()}
    for request in asked.requests(reader, 6000):
        text, (right,) = prompt_of(request, reader), request.about["answers"]
        context = text[text.index("<text>\n") + 7 : text.index("\n</text>")]
        needle = needles[request.about["question"]].replace("{name}", right)
        assert text.count(right) == context.count(needle) == 1
        at = context.index(needle) / (len(context) - len(needle))
        assert at == pytest.approx(request.about["depth"], abs=0.02)
        assert asked.grade(request, tuple(reader.tokens(f" {right}.")), reader).score == 1


def test_hits_are_told_by_depth():
    asked, reader = task("nolima"), Bytes()
    samples = [
        asked.grade(
            r, tuple(reader.tokens(r.about["answers"][0] if r.about["depth"] else "")), reader
        )
        for r in asked.requests(reader, 2000)
    ]
    score = asked.score(samples)
    assert score.value == 0.8 and score.parts["depth 0.00"] == 0 and score.parts["depth 1.00"] == 1


def test_own_needles_are_read_from_a_file(tmp_path):
    row = {"needle": "{name} climbed Everest.", "onehop": "Who was in Nepal?", "twohop": "In Asia?"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row) + "\n")
    request = next(
        task(f"nolima.own_twohop,data={tmp_path / 'mine.jsonl'}").requests(Bytes(), 2000)
    )
    assert f"{request.about['answers'][0]} climbed Everest." in prompt_of(request, Bytes())
    assert request.about["question"] == "In Asia?"
    (tmp_path / "bad.jsonl").write_text(json.dumps(row | {"needle": "nobody"}) + "\n")
    for data, why in (("", "data=FILE"), (f",data={tmp_path / 'bad.jsonl'}", "line 1: the needle")):
        with pytest.raises((LookupError, ValueError), match=why):
            list(task(f"nolima.own_onehop{data}").requests(Bytes(), 2000))
