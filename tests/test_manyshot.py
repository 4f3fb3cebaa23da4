"""Examples fill the length, labels are balanced, and nothing that is asked for was shown."""

import re
from collections import Counter
from math import log

import pytest
from readers import Bytes, Spaced, Talking, prompt_of, questions, toy

from harness import catalog
from harness.task import Choice, Text

SHOT = r"Text: (.*)\nLabel: (.*)\n\n"


def task(spec):
    return catalog.load("tasks", spec)


@pytest.fixture(scope="module", params=[Bytes, Spaced, Talking, toy])
def reader(request):
    return request.param()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trec")
    kinds = [
        ("NUM:dist", "How far is {}?"),
        ("HUM:ind", "Who made {}?"),
        ("LOC:city", "Where is {}?"),
    ]
    rows = [(label, text.format(f"thing {i}")) for i in range(40) for label, text in kinds]
    rows += [("NUM:age", "How old is it?"), ("NUM:age", "How old are you?")]
    (folder / "a.label").write_text("".join(f"{label} {text}\n" for label, text in rows))
    (folder / "b.tsv").write_text("".join(f"{label}\t{text}\n" for label, text in rows))
    lines = (f'{{"text": "{text}", "label": "{label}"}}\n' for label, text in rows)
    (folder / "c.jsonl").write_text("".join(lines))
    return folder


@pytest.mark.parametrize("length", [1400, 2801])
def test_examples_fill_the_length(length, reader):
    asked = task("manyshot")
    lengths = [len(r.tokens) + 10 for r in asked.requests(reader, length)]
    assert length - 45 <= max(lengths) <= length


def test_labels_are_balanced_and_say_one_thing_each(reader):
    for request in task("manyshot,samples=2").requests(reader, 3000):
        shots = re.findall(SHOT, prompt_of(request, reader))
        counts = Counter(label for _, label in shots)
        assert len(shots) == request.about["filler"] >= 10
        assert set(counts) == set(request.about["labels"]) and len(counts) == 10
        assert max(counts.values()) - min(counts.values()) <= 1


def test_what_is_asked_for_is_not_shown():
    nouns, kinds = {}, {}
    requests = list(task("manyshot,samples=40").requests(Bytes(), 9000))
    for text, label in re.findall(SHOT, prompt_of(requests[0], Bytes())):
        nouns.setdefault(label, set()).add(text.split()[1])
    for request in requests:
        noun, (label,) = request.about["text"].split()[1], request.about["answers"]
        assert noun not in set().union(*nouns.values())
        assert prompt_of(request, Bytes()).endswith(f"Text: {request.about['text']}\nLabel:")
        kinds.setdefault(label, set()).add(noun)
    assert Counter(r.about["answers"][0] for r in requests) == dict.fromkeys(nouns, 4)


def test_all_questions_of_a_cell_stand_behind_the_same_examples():
    requests = list(task("manyshot").requests(Bytes(), 2000))
    heads = {prompt_of(r, Bytes()).rsplit("Text: ", 1)[0] for r in requests}
    assert len(heads) == 1 and len(requests) == 20


def test_a_choice_is_right_where_the_right_label_is_the_likeliest():
    asked, reader = task("manyshot"), Bytes()
    request = next(asked.requests(reader, 2000))
    labels, (right,) = request.about["labels"], request.about["answers"]
    assert isinstance(request.ask, Choice)
    assert [reader.text(option) for option in request.ask.options] == [f" {x}" for x in labels]
    likely = [log(0.3) if label == right else log(0.1) for label in labels]
    assert asked.grade(request, tuple(likely), reader).score == 1
    assert asked.grade(request, tuple(reversed(likely)), reader).score == (labels[4] == labels[5])
    assert asked.grade(request, tuple(log(0.1) for _ in labels), reader).score == 0
    assert asked.grade(request, (), reader).score == 0


def test_what_is_written_is_right_where_its_line_is_the_label():
    asked, reader = task("manyshot,answer=text,labels=names"), Bytes()
    request = next(asked.requests(reader, 2000))
    (right,) = request.about["answers"]
    assert isinstance(request.ask, Text) and request.ask.stop == ("\n",)
    for said, score in ((f" {right}\n\nText", 1), (f" {right}s", 0), ("", 0), (f" a {right}", 0)):
        assert asked.grade(request, tuple(reader.tokens(said)), reader).score == score


def test_labels_are_numbers_of_equally_many_digits_dealt_by_the_seed():
    def labels(spec, n):
        return list(task(spec).named([f"kind {i}" for i in range(n)]).values())

    for n, digits in ((2, 1), (10, 1), (11, 2), (90, 2), (91, 3), (150, 3)):
        assert {len(x) for x in labels("manyshot", n)} == {digits} and len(
            labels("manyshot", n)
        ) == n
    assert labels("manyshot", 10) != labels("manyshot,seed=1", 10)
    assert labels("manyshot,labels=names", 2) == ["kind 0", "kind 1"]


def test_seeds_reproduce_and_pairs_ask_the_same_at_every_length():
    def texts(spec, length):
        return [r.about["text"] for r in task(spec).requests(Bytes(), length)]

    assert texts("manyshot", 2000) == texts("manyshot", 2000) != texts("manyshot,seed=1", 2000)
    assert texts("manyshot", 2000) != texts("manyshot", 3000)
    paired = "manyshot,pair_lengths=true"
    assert texts(paired, 2000) == texts(paired, 3000)


@pytest.mark.parametrize("name", ["a.label", "b.tsv", "c.jsonl"])
def test_files_of_texts_and_labels_are_read(name, files):
    spec = f"manyshot.file,samples=6,labels=names,data={files / name}"
    requests, _ = questions(task(spec), Bytes(), 3000)
    shots = re.findall(SHOT, prompt_of(requests[0], Bytes()))
    assert set(label for _, label in shots) == {"NUM", "HUM", "LOC"}
    assert Counter(r.about["answers"][0] for r in requests) == {"NUM": 2, "HUM": 2, "LOC": 2}
    assert not {r.about["text"] for r in requests} & {text for text, _ in shots}
    assert task(f"{spec},fine=true").named(["NUM:age"]) == {"NUM:age": "NUM:age"}
    fine = next(task(f"{spec},fine=true").requests(Bytes(), 3000)).about["labels"]
    assert fine == ["HUM:ind", "LOC:city", "NUM:age", "NUM:dist"]


def test_texts_that_run_out_come_again_and_labels_stay_balanced(files):
    request = next(task(f"manyshot.file,data={files / 'a.label'}").requests(Bytes(), 12_000))
    shots = re.findall(SHOT, prompt_of(request, Bytes()))
    assert len(shots) > 2 * len(set(shots)) / 1.1 > 100
    counts = Counter(label for _, label in shots)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_what_cannot_be_read_is_named(files, tmp_path):
    (tmp_path / "one.tsv").write_text("a\tb\n")
    (tmp_path / "bad.tsv").write_text("a\tb\nc\n")
    for data, why in (
        ("", "name a .jsonl of text and label"),
        (f",data={tmp_path / 'none.tsv'}", "no file .*none.tsv"),
        (f",data={tmp_path / 'one.tsv'}", "has 0 labels of at least two texts"),
        (f",data={tmp_path / 'bad.tsv'}", "bad.tsv, line 2: this is no label and text"),
        (f",samples=1000,data={files / 'a.label'}", "There are 30 texts to ask for, and 1,000"),
    ):
        with pytest.raises((LookupError, ValueError), match=why):
            list(task(f"manyshot.file{data}").requests(Bytes(), 2000))


@pytest.mark.parametrize("name", ["a.label", "b.tsv"])
def test_a_mark_before_the_text_and_empty_lines_are_nothing(name, files, tmp_path):
    plain = (files / name).read_text("utf-8")
    (tmp_path / name).write_text("\ufeff" + plain.replace("\n", "\n\n", 9) + "\n", "utf-8")
    both = (list(task(f"manyshot.file,data={place / name}").rows()) for place in (files, tmp_path))
    assert next(both) == next(both)
