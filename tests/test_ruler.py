"""RULER's prompts are as long as asked for, hold what they ask for, and are graded as published."""

import json
import re
from itertools import accumulate, groupby, pairwise
from pathlib import Path

import pytest
from readers import Bytes, Spaced, Talking, prompt_of, questions, toy

from harness import catalog
from harness.metrics.ruler import match_all, match_any
from harness.show import show
from harness.tasks import _frequency
from harness.tasks._frequency import set_of_codes


def task(spec):
    return catalog.load("tasks", spec)


EVERY = catalog.variants("tasks", "ruler")
MADE = [name for name in EVERY if task(name).offline]
NEEDLES = [name for name in MADE if "niah" in name]
ESSAYS = [name for name in NEEDLES if hasattr(task(name), "corpus")]


@pytest.fixture(scope="module", params=[Bytes, toy])
def reader(request):
    return request.param()


def asked(name, reader, length=2048, **fields):
    parameters = "".join(f",{key}={value}" for key, value in {"samples": 3, **fields}.items())
    return task(name + parameters), questions(task(name + parameters), reader, length)[0]


# every one of the thirteen


def test_they_are_thirteen_and_the_bare_name_means_those_that_are_made_here():
    assert tuple(name.partition(".")[2] for name in EVERY) == task("ruler.vt").averaged
    assert len(EVERY) == 13 and catalog.members("tasks", "ruler") == MADE
    assert set(EVERY) - set(MADE) == {"ruler.qa_1", "ruler.qa_2"}
    for name in ("ruler", "ruler.qa_2", "infinitebench.code_run"):
        told = show(name)["about"]
        assert ("qa_1 and qa_2 ask" in told) != ("`sized=published`" in told)


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("length", [1200, 4200])
@pytest.mark.parametrize("read", [Bytes, Spaced, toy])
def test_prompt_and_answer_fill_the_length_and_never_pass_it(name, length, read):
    asked = task(f"{name},samples=3")
    requests, length = questions(asked, read(), length)
    unit = {"AmongNeedles": 120, "CommonWords": 80, "InEssays": 20}.get(type(asked).__name__, 100)
    for request in requests:
        full = len(request.tokens) + request.ask.max_new_tokens
        assert length - unit <= full <= length
        assert request.ask.max_new_tokens == asked.max_new_tokens


@pytest.mark.parametrize("name", MADE)
def test_one_more_unit_of_filler_would_be_too_many(name):
    asked, reader = task(f"{name},samples=1"), Bytes()
    (request,), length = questions(asked, reader, 3000)
    (question,) = asked.questions(reader, length)
    longer = question.text(request.about["filler"] + 1) + question.prefix
    assert 1 + len(reader.tokens(longer)) + asked.max_new_tokens > length


@pytest.mark.parametrize("name", MADE)
def test_a_seed_makes_the_same_questions_and_another_seed_others(name, reader):
    _, first = asked(name, reader)
    _, again = asked(name, reader)
    _, other = asked(name, reader, seed=7)
    assert [r.about for r in first] == [r.about for r in again]
    assert not any(
        a.about["answers"] == b.about["answers"] for a, b in zip(first, other, strict=True)
    )
    assert len({str(r.about["answers"]) for r in first}) == 3


@pytest.mark.parametrize("name", MADE)
def test_pairs_ask_the_same_at_every_length(name):
    """Of common words, also where the lists run out between."""
    far = 400_000 if name == "ruler.cwe" else 9000

    def answers(length, **fields):
        return [r.about["answers"] for r in asked(name, Bytes(), length, **fields)[1]]

    assert answers(6000, pair_lengths="true") == answers(far, pair_lengths="true")
    assert answers(6000) != answers(9000)


@pytest.mark.parametrize("name", MADE)
def test_the_answer_begins_in_the_text_or_in_the_turn(name):
    for read, kind in ((Bytes(), "base"), (Talking(), "base"), (Talking(), "chat")):
        (question,) = task(f"{name},samples=1").questions(read, 3000)
        (request,) = asked(name, read, 3000, samples=1, prompt=kind)[1]
        tokens = request.tokens.tolist()
        assert tokens[0] == read.bos and tokens.count(read.bos) == 1
        assert question.prefix.startswith(" ") and len(question.prefix) > 6
        turns = "".join("|" if t == 257 else chr(t) for t in tokens[1:] if t != 256).split("|")
        if kind == "chat":
            assert turns[0] == "" and turns[1].startswith("user: ")
            assert turns[2] == question.prefix.lstrip()
            assert question.prefix.strip() not in turns[1][-len(question.prefix) - 20 :]
        else:
            assert turns[0].endswith(question.prefix) and len(turns) == 1


def test_a_conversation_is_chosen_where_there_is_a_template():
    assert 257 in asked("ruler.vt", Talking())[1][0].tokens
    assert 257 not in asked("ruler.vt", Bytes())[1][0].tokens
    with pytest.raises(LookupError, match="no chat template"):
        asked("ruler.vt", Bytes(), prompt="chat")


@pytest.mark.parametrize("name", MADE)
def test_part_of_the_answers_scores_their_share(name):
    asked_, (first, *_) = asked(name, Bytes(), 3000)
    answers = first.about["answers"]
    half = answers[: len(answers) // 2]
    sample = asked_.grade(first, tuple(Bytes().tokens(" and ".join(half).upper())), Bytes())
    assert sample.score == len(half) / len(answers)


def test_a_mean_of_shares_has_an_interval():
    ruler, requests = asked("ruler.niah_multivalue", Bytes(), samples=4)
    said = [tuple(Bytes().tokens(" ".join(r.about["answers"][:k]))) for k, r in enumerate(requests)]
    score = ruler.score(
        [ruler.grade(r, outcome, Bytes()) for r, outcome in zip(requests, said, strict=True)]
    )
    assert score.value == (0 + 1 + 2 + 3) / 16 and score.low < 0.375 < score.high


# as published

PUBLISHED = json.loads((Path(__file__).parent / "golden" / "prompts.json").read_text("utf-8"))


def as_a_pattern(text):
    """Whatever stands in its places; what stands in a place of one name is one."""
    pattern, seen = "", set()
    for piece in re.split(r"(\{\w+\})", text):
        name = piece[1:-1]
        if not piece.startswith("{"):
            pattern += re.escape(piece)
        else:
            pattern += f"(?P={name})" if name in seen else f"(?P<{name}>.*)"
            seen.add(name)
    return pattern


@pytest.mark.parametrize("name", ["vt", "cwe", "fwe", "qa_1", "qa_2"])
def test_questions_are_put_in_the_published_words(name, data):
    words = PUBLISHED["ruler"][name.partition("_")[0]]
    fields = {"data": data / f"{name}.json"} if "qa" in name else {}
    for request in asked(f"ruler.{name}", Bytes(), 3000, **fields)[1]:
        whole = as_a_pattern(words["template"] + words["prefix"])
        said = prompt_of(request, Bytes())
        example = {"vt": f"{whole} (?:[A-Z]+ ?)+\n\n", "cwe": rf"{whole} 1\. .* 10\. \S+\n"}
        if name in example:
            said = re.sub(example[name], "", said, count=1, flags=re.S)
        assert re.fullmatch(whole, said, re.S), said


def test_needles_are_put_in_the_published_words():
    words = PUBLISHED["ruler"]["niah"]
    for name in NEEDLES:
        request = asked(name, Bytes(), 3000, samples=1)[1][0]
        template, prefix = words["template"], words["prefix"]
        if len(request.about["answers"]) == 1:
            for many, one in (("Some", "A"), ("are all", "is"), ("are", "is")):
                template, prefix = template.replace(many, one), prefix.replace(many, one)
        found = re.fullmatch(as_a_pattern(template + prefix), prompt_of(request, Bytes()), re.S)
        kinds = {"numbers", "uuids"}
        assert found["type_needle_v"] in (kinds if "are" in prefix else {k[:-1] for k in kinds})
        needle = re.escape(words["needle"]).replace(r"\{type_needle_v\}", "(?:numbers|uuids)")
        needle = needle.replace(r"\{key\}", re.escape(request.about["queries"][0]))
        needle = needle.replace(r"\{value\}", re.escape(request.about["answers"][0]))
        assert re.search(needle, found["context"])


def test_limits_and_rules_are_the_published_ones():
    own = {}
    for name in EVERY:
        half = task(name).matched("this", ["this", "that"], {})
        rule = {0.5: "all", 1.0: "part"}[half]
        own[name.partition(".")[2]] = {
            "max_new_tokens": task(name).max_new_tokens,
            "matches": rule,
        }
    assert own == PUBLISHED["limits"]["ruler"]


# needles


@pytest.mark.parametrize("name", NEEDLES)
def test_each_needle_lies_in_its_prompt_once(name, reader):
    ruler, requests = asked(name, reader)
    for request in requests:
        prompt = prompt_of(request, reader)
        assert len(request.about["answers"]) == ruler.queries * ruler.values
        for answer in request.about["answers"]:
            assert prompt.count(answer) == 1
        for query in request.about["queries"]:
            assert prompt.count(f"for {query} is: ") == ruler.values
            assert prompt.count(query) == ruler.values + 2
        asks = "is the special magic" if len(request.about["answers"]) == 1 else "are all the"
        assert f"What {asks}" in prompt
        if name in ESSAYS:
            assert prompt.count("One of the special magic") == ruler.keys * ruler.values


@pytest.mark.parametrize("name", ["niah_multikey_2", "niah_multikey_3"])
def test_needles_among_needles_are_all_unlike(name, reader):
    (request, *_) = asked(f"ruler.{name}", reader)[1]
    lines = prompt_of(request, reader).split("\n")[1:-1]
    pairs = [re.fullmatch(r"One of the special magic \w+ for (.*) is: (.*)\.", x) for x in lines]
    assert len(lines) == request.about["filler"] + 1 > 10
    words = [word for pair in pairs for word in pair.groups()]
    assert len(set(words)) == len(words)


@pytest.mark.parametrize("name", ESSAYS)
def test_needles_lie_at_their_depths_between_sentences(name, reader):
    for request in asked(name, Bytes(), 9000)[1]:
        context = prompt_of(request, Bytes()).split("\n")[1]
        *hay, _ = pieces = re.split(r"One of the special magic \w+ for \S+ is: \S+\.", context)
        ends = list(accumulate(map(len, hay)))
        assert all(piece.strip() == "" or piece.strip()[-1] == "." for piece in hay)
        for depth, end in zip(request.about["depths"], ends, strict=True):
            assert end / sum(map(len, pieces)) == pytest.approx(depth, abs=0.01)


def test_a_single_needle_is_asked_for_as_published():
    (request, *_) = asked("ruler.niah_single_1", Bytes(), 1000)[1]
    (key,), (value,) = request.about["queries"], request.about["answers"]
    intro, *lines, question = prompt_of(request, Bytes()).split("\n")
    assert intro == (
        "A special magic number is hidden within the following text. Make sure to memorize it. I "
        "will quiz you about the number afterwards."
    )
    assert lines.count(f"One of the special magic numbers for {key} is: {value}.") == 1
    assert set(lines) - {f"One of the special magic numbers for {key} is: {value}."} == {
        "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
    }
    assert question == (
        f"What is the special magic number for {key} mentioned in the provided text? "
        f"The special magic number for {key} mentioned in the provided text is"
    )


def test_several_needles_are_asked_for_as_published():
    (request, *_) = asked("ruler.niah_multiquery", Bytes(), 2000)[1]
    a, b, c, d = request.about["queries"]
    assert prompt_of(request, Bytes()).endswith(
        f"\nWhat are all the special magic numbers for {a}, {b}, {c}, and {d} mentioned in the "
        f"provided text? The special magic numbers for {a}, {b}, {c}, and {d} mentioned in the "
        "provided text are"
    )


def test_needles_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="as many queries as keys or fewer"):
        task("ruler.niah_multikey_1,queries=5")


@pytest.mark.parametrize(
    "spec",
    [
        "ruler.niah_multivalue,values=41",
        "ruler.niah_multikey_3,values=4",
        "ruler.vt,hops=20",
    ],
)
def test_there_is_room_for_all_that_is_asked_for(spec, reader):
    request, *_ = asked(spec, reader, 16_000)[1]
    answer = " ".join(request.about["answers"])
    assert len(reader.tokens(answer)) <= request.ask.max_new_tokens
    assert task(spec).version == task(spec.partition(",")[0]).version + 1
    assert task("ruler.vt").max_new_tokens == 30
    assert task("ruler.niah_multivalue").max_new_tokens == 128


# chains, lists


def test_a_chain_hands_its_value_on_and_an_example_stands_before(reader):
    for request in asked("ruler.vt", reader)[1]:
        example, prompt = re.split(r"\n\n(?=Memorize)", prompt_of(request, reader))
        names, value = request.about["answers"], request.about["value"]
        links = re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", prompt)
        assert links == list(zip(names, [value, *names], strict=False)) and len(links) == 5
        assert prompt.endswith(f"5 variables are assigned the value {value}, they are: ")
        assert all(prompt.count(name) == 2 for name in names[:-1]) and prompt.count(names[-1]) == 1
        asks, shown = example.rsplit(":  ", 1)
        shown = shown.split(" ")
        assert [a for a, _ in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", example)] == shown
        assert all(len(name) == 3 for name in shown)
        assert len(reader.tokens(asks)) <= 500 or asks.count("The grass is green.") == 5


@pytest.mark.parametrize("length", [2048, 9000])
def test_each_assignment_has_a_line_of_its_own_as_published(length, reader):
    """No two before the same line of noise, and none behind the last."""
    noise = (
        "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
    )
    for request in asked("ruler.vt", reader, length, samples=20)[1]:
        prompt = prompt_of(request, reader)
        blocks = re.findall(r"following text\.\n\n(.*?)\nQuestion: ", prompt, re.S)
        assert len(blocks) == 2
        for block in blocks:
            lines = block.split("\n")
            links = [i for i, line in enumerate(lines) if line != noise]
            assert re.fullmatch(r"VAR [A-Z]+ = \d{5}", lines[links[0]])
            assert all(re.fullmatch(r"VAR [A-Z]+ = VAR [A-Z]+ ", lines[i]) for i in links[1:])
            assert all(b - a > 1 for a, b in pairwise([*links, len(lines)])) and len(links) == 5
        assert request.about["filler"] == len(lines) - 5


def test_examples_are_drawn_anew_for_every_sample(reader):
    for name in ("ruler.vt", "ruler.cwe"):
        examples = {prompt_of(r, reader)[:700] for r in asked(name, reader)[1]}
        assert len(examples) == 3


@pytest.mark.parametrize(("length", "often", "seldom"), [(3000, 6, 1), (6000, 30, 3)])
def test_common_words_come_as_often_as_published(length, often, seldom, reader):
    (request, *_) = asked("ruler.cwe", reader, length)[1]
    example, question = prompt_of(request, reader).split("\nBelow is")
    words = re.findall(r"\d+\. (\S+)", question.split("\n")[1])
    counts = {word: len(list(group)) for word, group in groupby(sorted(words))}
    assert {w for w, n in counts.items() if n == often} == set(request.about["answers"])
    assert {n for n in counts.values()} == {often, seldom}
    assert re.match(r"\d+", example.rsplit("list are: ", 1)[1])
    assert len(re.findall(r"\d+\. \S+", example.rsplit("list are: ", 1)[1])) == 10


def test_where_words_run_out_all_are_pairs():
    words = {
        length: re.findall(r"\d+\. (\S+)", prompt_of(r, Bytes()))
        for length in (6000, 100_000)
        for r in asked("ruler.cwe", Bytes(), length, samples=1)[1]
    }
    assert not any("-" in word for word in words[6000])
    assert all("-" in word for word in words[100_000]) and len(set(words[100_000])) > 1385


def test_the_three_most_frequent_words_come_after_the_dots(reader):
    for request in asked("ruler.fwe", reader)[1]:
        words = (
            prompt_of(request, reader).split("coded words. ", 1)[1].split("\nQuestion")[0].split()
        )
        counts = {word: len(list(group)) for word, group in groupby(sorted(words))}
        ranked = sorted(counts, key=counts.get, reverse=True)
        assert ranked[0] == "..." and set(ranked[1:4]) == set(request.about["answers"])
        assert counts[ranked[3]] > counts[ranked[4]]


@pytest.mark.parametrize(("length", "words"), [(4096, 80), (4100, 81), (131_072, 2620)])
def test_coded_words_are_of_as_many_as_published(length, words, monkeypatch):
    """A fiftieth of the tokens that the prompt may have, as the answer has room."""
    drawn = []

    def counted(rng, n, real=set_of_codes):
        drawn.append(n)
        return real(rng, n)

    monkeypatch.setattr(_frequency, "set_of_codes", counted)
    next(task("ruler.fwe,samples=1").questions(Bytes(), length))
    assert drawn == [words]


# documents

SQUAD = {
    "data": [
        {
            "title": f"t{a}",
            "paragraphs": [
                {
                    "context": f"Paragraph {p} of article {a} says seventeen things.",
                    "qas": [
                        {
                            "question": f"What says {a} {p}?",
                            "answers": [{"text": f"article {a} "}, {"text": "seventeen"}],
                            "is_impossible": p == 1,
                        }
                    ],
                }
                for p in range(3)
            ],
        }
        for a in range(20)
    ]
}
HOTPOT = [
    {
        "question": f"Who is {i}?",
        "answer": f"The {i}th",
        "context": [[f"T{i}-{j}", [f"It is the {i}th.", " Yes."]] for j in range(4)],
    }
    for i in range(20)
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ruler")
    for name, rows in (("qa_1", SQUAD), ("qa_2", HOTPOT)):
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return folder


@pytest.mark.parametrize("name", ["qa_1", "qa_2"])
def test_documents_with_the_answer_are_there_and_the_rest_fills_up(name, data):
    fields = {"data": data / f"{name}.json"}
    for length in (900, 1700):
        ruler, requests = asked(f"ruler.{name}", Bytes(), length, **fields)
        for i, request in enumerate(requests):
            prompt, n = prompt_of(request, Bytes()), request.about["filler"]
            assert 0 <= length - 32 - len(request.tokens) < 70
            assert [int(k) for k in re.findall(r"Document (\d+):\n", prompt)] == [*range(1, n + 1)]
            assert prompt.endswith(f"Question: {request.about['query']} Answer:")
            wanted = [(0, 0), (0, 2), (1, 0)][i]
            wanted = "Paragraph {1} of article {0} ".format(*wanted)
            wanted = wanted if name == "qa_1" else f"T{i}-3\n"
            assert prompt.count(wanted) == 1
            answer = request.about["answers"][-1]
            assert ruler.grade(request, Bytes().tokens(f"so {answer}!"), Bytes()).score == 1
            assert ruler.grade(request, (), Bytes()).score == 0


@pytest.mark.parametrize("name", ["qa_1", "qa_2"])
def test_a_control_shows_no_document(name, data):
    fields = {"data": data / f"{name}.json", "no_context": "true"}
    for request in asked(f"ruler.{name}", Bytes(), 2000, **fields)[1]:
        text = prompt_of(request, Bytes())
        assert "Document 1" not in text and text.endswith(f"{request.about['query']} Answer:")


def test_questions_on_one_paragraph_are_one_item(tmp_path):
    """The published script takes questions in the file's order, so that ten are on few texts."""
    every = [
        {"context": f"Paragraph {p}.", "qas": [
            {"question": f"{p} {q}?", "answers": [{"text": str(p)}], "is_impossible": False}
            for q in range(6)
        ]} for p in range(2)
    ]  # fmt: skip
    (tmp_path / "qa_1.json").write_text(json.dumps({"data": [{"paragraphs": every}]}))
    ruler, requests = asked("ruler.qa_1", Bytes(), 900, samples=12, data=tmp_path / "qa_1.json")
    samples = [ruler.grade(r, Bytes().tokens("0"), Bytes()) for r in requests]
    score = ruler.score(samples)
    assert (score.value, score.low, score.high) == (0.5, 0, 1)
    assert sorted(ruler.items(samples).values()) == [0, 1]


@pytest.mark.parametrize("name", ["qa_1", "qa_2"])
def test_where_documents_run_out_they_come_again(name, data):
    for request in asked(f"ruler.{name}", Bytes(), 9000, data=data / f"{name}.json")[1]:
        prompt, every = prompt_of(request, Bytes()), {"qa_1": 60, "qa_2": 80}[name]
        assert 9000 - 32 - 80 < len(request.tokens) <= 9000 - 32
        pattern = r"Document (\d+):\n(.*?)(?=\n\nDocument|\n\nAnswer)"
        numbers, shown = zip(*re.findall(pattern, prompt, re.S), strict=True)
        assert [int(k) for k in numbers] == [*range(1, request.about["filler"] + 1)]
        times = [shown.count(text) for text in set(shown)]
        assert len(times) == every < len(shown) and max(times) - min(times) <= 1


def test_data_that_is_not_there_or_another_is_named(data, tmp_path):
    (tmp_path / "other.json").write_text('{"rows": []}')
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for fields, why in (
        ({}, "download it and name the file with data=FILE"),
        ({"data": tmp_path / "none.json"}, "no file .*none.json"),
        ({"data": tmp_path / "other.json"}, "is not SQuAD 2.0"),
        ({"data": tmp_path / "deep.json"}, "is not SQuAD 2.0"),
        ({"data": data / "qa_1.json", "samples": 1000}, "has 40 questions, and 1,000 samples"),
    ):
        with pytest.raises(LookupError, match=why):
            asked("ruler.qa_1", Bytes(), **fields)


# the metric


@pytest.mark.parametrize(
    ("said", "references", "every", "one"),
    [
        ("It was 1066 AD.", ["1066", "in 1066", "year 1066"], 1 / 3, 1),
        ("  \x00a\tB ", ["A\nb"], 1, 1),
        ("", ["x"], 0, 0),
        ("1 and 2", ["1", "2", "3", "4"], 0.5, 1),
        ("no", ["yes"], 0, 0),
    ],
)
def test_matching_is_that_of_the_published_scorer(said, references, every, one):
    assert match_all(said, references) == pytest.approx(every)
    assert match_any(said, references) == one


def test_anybodys_predictions_can_be_judged():
    assert task("ruler.niah_multivalue").judge(" A b\n", ["b", "c"], {}) == (0.5, "A b")
    assert task("ruler.qa_1").judge("b", ["b", "c"], {}) == (1.0, "b")
    with pytest.raises(ValueError, match="is none"):
        task("ruler.vt").judge("b", [""], {})


def test_essays_that_are_shorter_than_the_length_are_taken_together_and_begin_again(tmp_path):
    """Which is what the published script does with Paul Graham's."""
    from harness.reader import TokenReader
    from harness.tasks._haystack import Hay

    reader = TokenReader(toy().tokenizer)
    for i in range(5):
        (tmp_path / f"{i}.txt").write_text(f"Essay {i} begins here. It goes on. " * 30)
    (one, few, every) = (Hay.of(reader, f"text:{tmp_path}", n) for n in (200, 1500, 100_000))
    whole = [f"Essay {i}" in " ".join(every.words) for i in range(5)]
    assert all(whole) and len(every.words) == 5 * 30 * 7
    assert len(one.words) < len(few.words) < len(every.words)
    assert few.words == every.words[: len(few.words)]
    spec = f"ruler.niah_single_2,samples=1,corpus=text:{tmp_path}"
    (request,) = task(spec).requests(reader, 20_000)
    assert len(request.tokens) > 19_000
    with pytest.raises(LookupError, match="has 0 documents"):
        (tmp_path / "none").mkdir()
        (tmp_path / "none" / "a.txt").write_text("")
        Hay.of(reader, f"text:{tmp_path / 'none'}", 200)
