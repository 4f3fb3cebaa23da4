"""Training data: nothing lost in packing, shares kept at every step, overlap found."""

import json
import re
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import corpora, model
from harness.cli import main
from harness.corpora import find
from harness.reader import TokenReader
from harness.train import decontaminate, mixture
from harness.train.folder import Writer
from harness.train.mixture import Build, Mixture, turns
from harness.train.packing import (
    CARD,
    AsClex,
    Carried,
    Packed,
    Read,
    open_sequences,
    read_card,
)

GOLDEN = Path(__file__).parent / "golden"
BOS = 1


@pytest.fixture(scope="module")
def tokenizer():
    return model.tokenizer(model.describe("toy"))


@pytest.fixture(scope="module")
def reader(tokenizer):
    return TokenReader(tokenizer)


def documents(*sizes):
    """Documents whose every token tells which and where it is."""
    at = 10
    for size in sizes:
        yield Read(np.array([BOS, *range(at, at + size - 1)], dtype=np.int32), size)
        at += size


def jsonl(path, texts, **columns):
    rows = [{"text": text} | {k: v[i] for k, v in columns.items()} for i, text in enumerate(texts)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return f"jsonl:{path}"


# packing

SIZES = [(3, 5, 2, 40, 1, 9), (8, 8), (7,), (100, 3), (1,) * 30]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("length", [1, 4, 8, 64])
def test_packing_loses_nothing_and_says_what_is_left(sizes, length):
    packer = Carried(length)
    packed = list(packer.pack(documents(*sizes)))
    stream = np.concatenate([d.tokens for d in documents(*sizes)])
    assert all(len(p.tokens) == length for p in packed)
    assert len(packed) == sum(sizes) // length and packer.left_over == sum(sizes) % length
    together = [t for p in packed for t in p.tokens.tolist()]
    assert together == stream[: len(together)].tolist()
    for p in packed:
        assert [i for i, t in enumerate(p.tokens) if t == BOS] == p.begins


def test_the_packer_of_clex_is_the_published_one():
    toy = json.loads((GOLDEN / "packing.json").read_text())["clex_packing_toy"]
    texts = (
        Read(np.array([1, *(ord(c) - 94 for c in text)], dtype=np.int32), len(text))
        for text in toy["docs"]
    )
    packer = AsClex(toy["seq_length"], sequences=toy["num_of_sequences"])
    assert [p.tokens.tolist() for p in packer.pack(texts)] == toy["chunks"]
    assert packer.left_over == 1


def test_the_packer_of_clex_drops_what_ours_carries_on():
    sizes = (5,) * 40
    clex, carried = AsClex(8, sequences=1), Carried(8)
    fewer, whole = list(clex.pack(documents(*sizes))), list(carried.pack(documents(*sizes)))
    assert len(whole) == sum(sizes) // 8 and len(fewer) < len(whole)
    assert clex.left_over + 8 * len(fewer) == sum(sizes)


# sequences straight from a corpus


def test_sequences_are_the_documents_of_a_corpus_one_behind_another(tokenizer, reader, tmp_path):
    texts = ["The sea was calm. " * 9, "Ships.", "A storm came over the hills. " * 20]
    corpus = jsonl(tmp_path / "a.jsonl", texts)
    found = open_sequences(corpus, tokenizer, 16, tmp_path / "cache")
    stream = [t for text in texts for t in [reader.bos, *reader.tokens(text)]]
    assert [t for item in found for t in item["input_ids"].tolist()] == stream[: 16 * len(found)]
    assert len(found) == len(stream) // 16 and found.left_over == len(stream) % 16
    for item in found:
        begins = [i for i, t in enumerate(item["input_ids"].tolist()) if t == reader.bos]
        assert item["document"].tolist() == sorted({0, *begins})
    assert found.label == find(corpus).label()
    assert any((tmp_path / "cache").rglob("*.npy"))


def test_a_sequence_is_found_from_either_end_and_none_beyond(tokenizer, tmp_path):
    found = open_sequences(jsonl(tmp_path / "a.jsonl", ["word " * 99]), tokenizer, 8)
    assert found[-1]["input_ids"].tolist() == found[len(found) - 1]["input_ids"].tolist()
    with pytest.raises(IndexError):
        found[len(found)]


def test_a_corpus_shorter_than_a_sequence_says_what_it_has_and_what_is_needed(tokenizer, tmp_path):
    corpus = jsonl(tmp_path / "a.jsonl", ["Short."])
    with pytest.raises(ValueError, match=r"has \d tokens, and one sequence takes 4,096"):
        open_sequences(corpus, tokenizer, 4096)


def test_only_as_many_sequences_as_are_wanted_are_read(tokenizer, tmp_path):
    corpus = jsonl(tmp_path / "a.jsonl", ["word " * 99] * 9)
    some, every = (open_sequences(corpus, tokenizer, 8, first=n) for n in (3, None))
    assert len(some) == 3 < len(every)
    assert all((a["input_ids"] == b["input_ids"]).all() for a, b in zip(some, every, strict=False))


def test_the_library_gives_each_file_as_a_document(tokenizer):
    files = find("stdlib:validation").files()
    found = open_sequences("stdlib:validation", tokenizer, 512, first=4)
    first = TokenReader(tokenizer).tokens(files[0][1].read_text())
    assert found[0]["input_ids"].tolist()[1:50] == first[:49]


def test_a_folder_that_no_build_made_says_how_one_is_made(tokenizer, tmp_path):
    with pytest.raises(ValueError, match="harness data build"):
        open_sequences(str(tmp_path), tokenizer, 8)


# mixtures


@pytest.fixture
def parts(tmp_path):
    """Three corpora of which every document says whose it is."""
    words = {"sea": "The sea was calm. ", "hill": "A hill is green. ", "code": "x = f(y)\n"}
    return {
        name: jsonl(tmp_path / f"{name}.jsonl", [word * n for n in range(20, 80)])
        for name, word in words.items()
    }


@pytest.fixture
def mixed(parts, reader, tmp_path):
    """Builds 6 : 3 : 1 of them, into a new folder each time, and returns it."""
    shares = dict(zip(parts, (6, 3, 1), strict=True))
    given = {n: {"share": shares[n], "corpus": corpus} for n, corpus in parts.items()}
    numbers = iter(range(99))

    def mixed(output=None, **changes):
        folder = output or tmp_path / f"built-{next(numbers)}"
        said = {"length": 32, "tokens": 6400, "seed": 1} | changes
        wanted = {"name": "m", "mixture": Mixture(parts=given), "reader": reader, "model": "toy"}
        Build(**(wanted | said)).to(folder)
        return folder

    return mixed


def card(folder):
    return json.loads((folder / CARD).read_text())


@given(st.lists(st.integers(1, 50), min_size=1, max_size=7), st.integers(1, 200))
def test_after_every_turn_each_has_had_its_share_to_within_one(weights, many):
    shares = [Fraction(w, sum(weights)) for w in weights]
    had = [0] * len(shares)
    for turn, i in enumerate(islice(turns(shares), many), 1):
        had[i] += 1
        assert all(abs(h - share * turn) < 1 for h, share in zip(had, shares, strict=True))


def test_every_beginning_of_a_mixture_has_its_shares_to_within_a_sequence(mixed):
    folder = mixed()
    whose = np.load(folder / "parts.npy")
    assert len(whose) == card(folder)["sequences"] == 200
    for share, i in ((0.6, 0), (0.3, 1), (0.1, 2)):
        so_far = np.cumsum(whose == i)
        assert (np.abs(so_far - share * np.arange(1, 201)) < 1).all()
    reached = {name: part["reached"] for name, part in card(folder)["parts"].items()}
    assert reached == {"sea": 0.6, "hill": 0.3, "code": 0.1}


def test_a_sequence_is_of_the_part_it_is_said_to_be(mixed, tokenizer):
    folder = mixed()
    found = open_sequences(str(folder), tokenizer, 32)
    for item, part in zip(found, np.load(folder / "parts.npy"), strict=True):
        text = tokenizer.decode(item["input_ids"])
        assert [word in text for word in ("sea", "hill", "f(y")].index(True) == part


def test_boundaries_are_where_documents_begin(mixed, tokenizer, reader):
    folder = mixed()
    found = open_sequences(str(folder), tokenizer, 32)
    documents = 0
    for item in found:
        begins = [i for i, t in enumerate(item["input_ids"].tolist()) if t == reader.bos]
        assert item["document"].tolist() == sorted({0, *begins})
        documents += len(begins)
    assert documents == sum(p["documents"] for p in card(folder)["parts"].values())


def test_a_seed_makes_the_same_bytes_and_another_the_same_text_in_another_order(mixed):
    one, same, other = mixed(), mixed(), mixed(seed=2)
    assert card(one) == card(same) and card(one)["label"] != card(other)["label"]
    assert all((one / n).read_bytes() == (same / n).read_bytes() for n in card(one)["files"])


def test_without_a_number_of_tokens_it_ends_with_the_first_part_that_does(mixed, parts, reader):
    folder = mixed(tokens=None)
    found = card(folder)
    ended = found["ended_by"]
    held = sum(1 + len(reader.tokens_of(t)) for t in find(parts[ended]).every())
    used = found["parts"][ended]
    assert used["tokens"] + used["left_over"] == held and used["left_over"] < 32


def test_a_short_part_is_read_again_where_wanted_and_the_card_says_so(mixed):
    whole = card(mixed(tokens=None))["tokens"]
    folder = mixed(tokens=3 * whole, again=True)
    found = card(folder)
    assert found["tokens"] > 3 * whole - 32 and found["ended_by"] is None
    assert found["parts"]["sea"]["passes"] > 1


def test_the_folder_is_read_at_every_length_that_divides_its_own(mixed, tokenizer):
    folder = str(mixed())
    whole, half = (open_sequences(folder, tokenizer, n) for n in (32, 16))
    assert len(half) == 2 * len(whole) and half.label == whole.label
    together = half[6]["input_ids"].tolist() + half[7]["input_ids"].tolist()
    assert together == whole[3]["input_ids"].tolist()
    with pytest.raises(ValueError, match="does not divide"):
        open_sequences(folder, tokenizer, 24)


def test_many_files_are_read_as_one(tmp_path, tokenizer):
    rows = np.arange(40, dtype=np.int32).reshape(10, 4)
    with Writer(tmp_path / "built", 4, np.uint16, shard_tokens=12) as writer:
        for i, row in enumerate(rows):
            writer.write(Packed(row, [i % 4]), 0)
        writer.finish(
            {"name": "m", "tokenizer": {"fingerprint": TokenReader(tokenizer).fingerprint}}
        )
    assert len([*(tmp_path / "built").glob("sequences-*.npy")]) == 4
    found = open_sequences(str(tmp_path / "built"), tokenizer, 4)
    assert [item["input_ids"].tolist() for item in found] == rows.tolist()
    assert [item["document"].tolist() for item in found][1:3] == [[0, 1], [0, 2]]


def test_a_build_that_stops_leaves_nothing(mixed, tmp_path):
    seen = []

    def stop(sources):
        seen.append(sources)
        if len(seen) == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mixed(tmp_path / "stopped", watch=stop)
    assert not [*tmp_path.glob("stopped*")]


def test_a_build_says_what_a_killed_one_left_and_spares_what_is_there(mixed, tmp_path):
    (left := tmp_path / "killed.part").mkdir()
    with pytest.raises(ValueError, match="delete it to build again"):
        mixed(tmp_path / "killed")
    assert left.exists()
    folder = mixed()
    before = card(folder)
    with pytest.raises(ValueError, match="is there already"):
        mixed(folder, seed=5)
    assert card(folder) == before


def test_a_folder_for_another_tokenizer_is_refused(mixed, tmp_path, folder):
    built = mixed()
    from transformers import AutoTokenizer

    with pytest.raises(ValueError, match="built for toy"):
        open_sequences(str(built), AutoTokenizer.from_pretrained(folder), 32)


@pytest.mark.parametrize("name", mixture.shipped())
def test_a_shipped_mixture_names_corpora_there_can_be(name):
    found = mixture.find(name)
    assert found.about and sum(found.shares.values()) == 1
    assert all(corpora.find(part.corpus) for part in found.parts.values())


def test_longcorpus_has_the_published_shares():
    shares = [float(share) for share in mixture.find("longcorpus").shares.values()]
    assert shares == [0.4, 0.2, 0.2, 0.1, 0.05, 0.05]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("parts: {a: {share: 1, corpus: stdlib, shar: 2}}", "'shar' in parts.a.*mean 'share'"),
        ("part: {}", "unknown key 'part'.*mean 'parts'"),
        ("parts: {a: {corpus: stdlib}}", "misses 'share' in parts.a"),
        ("parts: {a: {share: 0, corpus: stdlib}}", "wrong 'share' in parts.a: it must be greater"),
        ("parts: {}", "wrong 'parts'"),
        ("- a", "write parts"),
        ("parts: [", "is no mixture file"),
        ("[" * 9000, "more than 100 brackets: that is no mixture file"),
        ("about: &a [x]\nparts: *a\n", "uses an alias, and a mixture file needs none"),
        ("#" * 70_000, "larger than 16 kB: that is no mixture file"),
    ],
)
def test_a_malformed_mixture_says_what_is_wrong_and_where(tmp_path, text, why):
    (file := tmp_path / "m.yaml").write_text(text)
    with pytest.raises(ValueError, match=why):
        mixture.find(str(file))


def test_an_unknown_name_has_its_nearest():
    with pytest.raises(LookupError, match="Did you mean 'longcorpus'"):
        mixture.find("longcorps")
    with pytest.raises(LookupError, match=r"no part 'boook'\. Did you mean 'book'"):
        mixture.find("longcorpus").replaced({"boook": "stdlib"})
    with pytest.raises(ValueError, match="keep at least one"):
        mixture.find("stdlib:train").replaced({"all": "none"})


# what a test has in common with training


def similarity(text, train, orders):
    """By its definition."""

    def grams(words, n):
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    shares = []
    for n in orders:
        own = grams(decontaminate.words(text), n)
        there = set().union(*(grams(decontaminate.words(t), n) for t in train))
        shares += [len(own & there) / len(own)] if own else []
    return sum(shares) / len(shares) if shares else 0.0


def judged(texts, train, orders=(2, 3, 4), **options):
    test = [decontaminate.Item({"text": t}, f"item {i}", t, "all") for i, t in enumerate(texts)]
    return [v.similarity for v in decontaminate.judged(test, lambda: train, orders, **options)]


WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=12).map(" ".join)


@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(WORDS, max_size=4), st.integers(1, 30))
def test_similarity_is_its_definition_however_many_items_are_taken_at_a_time(test, train, some):
    for orders in ((2, 3, 4), (1,), (13,)):
        expected = [similarity(text, train, orders) for text in test]
        assert judged(test, train, orders, at_a_time=some) == pytest.approx(expected, abs=1e-12)


LIBRARY = [(name, path.read_text("utf-8", "replace")) for name, path in find("stdlib").files()]


def test_a_copy_is_found_in_real_text_and_what_is_no_copy_is_not():
    copied, other = [text for _, text in LIBRARY if len(text) > 20_000][:2]
    train = [text for _, text in LIBRARY if text not in (copied, other)]
    around = [*train, "Here it begins. " + copied[: len(copied) // 2] + " Here it ends."]
    without = judged([copied, other], train, (13,))
    found = judged([copied, other], around, (13,))
    assert found[0] > 0.4 and max(found[1], *without) < 0.10


def test_case_and_punctuation_hide_nothing():
    text = "It was a bright cold day in April, and the clocks were striking thirteen"
    train = ["it WAS a bright; cold day -- in April and the clocks\nwere striking thirteen!"]
    assert judged([text], train, (13,)) == [1.0]


def test_of_chinese_each_character_is_a_word():
    assert decontaminate.words("北京ab。大学") == ["北", "京", "ab", "大", "学"]


def test_prose_has_its_short_n_grams_in_common_with_all_prose():
    """Why the published measure drops everything beside a large training text."""
    topics = [text for text in pydoc_topics() if len(text) > 4_000]
    test, train = topics[::6], [t for i, t in enumerate(topics) if i % 6]
    assert min(judged(test, train)) >= 0.10
    assert sum(near >= 0.10 for near in judged(test, train, (13,))) < len(test) / 2


def pydoc_topics():
    from pydoc_data.topics import topics

    return [topics[name] for name in sorted(topics)]


# the command line


def command(*words):
    with pytest.raises(SystemExit) as done:
        main(["data", *map(str, words)])
    return done.value.code


def test_a_mixture_is_built_of_local_files_in_place_of_the_hub(parts, tmp_path, capsys):
    names = ("book", "arxiv", "general", "code", "qa", "summarisation")
    local = [*parts.values()] * 2
    sets = [w for n, c in zip(names, local, strict=True) for w in ("--set", f"{n}={c}")]
    output = tmp_path / "long"
    code = command("build", "longcorpus", *sets, "--length", 64, "--tokens", "5k", "-o", output)
    assert code == 0
    printed = capsys.readouterr().out
    assert "78 sequences of 64 tokens, 4,992 in all" in printed and "40.00%" in printed
    assert card(output)["name"] == "longcorpus" and str(tmp_path) not in json.dumps(card(output))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["longcorpus", "--set", "book", "--length", "64"], "--set takes part=corpus"),
        (["stdlib", "--length", "4k-8k"], "--length takes one length"),
        (["stdlib", "--length", "64", "--tokens", "many"], "--tokens takes a number"),
        (["stdlib", "--length", "64", "--tokens", "9"], "less than one sequence"),
        (["stdlib", "--length", "64", "--repeat"], "how many --tokens"),
        (["stdlib:tset", "--length", "64"], "mean 'test'"),
        (["stdlib", "--length", "64m"], "has .* tokens, and one sequence takes"),
    ],
)
def test_a_mistake_has_a_sentence_and_leaves_nothing(words, why, tmp_path, capsys):
    assert command("build", *words, "-o", tmp_path / "no") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and re.search(why, said)
    assert not [*tmp_path.iterdir()]


TEXTS = {
    "copied": "Call me Ishmael. Some years ago, never mind how long precisely, I went to sea. " * 3,
    "own": "A colourless green idea slept furiously beside the window that nobody had opened. ",
}


def test_items_that_training_has_are_dropped_and_named_by_domain(tmp_path, capsys):
    train = jsonl(tmp_path / "train.jsonl", ["Nothing here.", "He said: " + TEXTS["copied"]])
    rows = {"domain": ["novel", "news"], "title": [*TEXTS], "answer": ["yes", "\ud83d"]}
    test = jsonl(tmp_path / "test.jsonl", [*TEXTS.values()], **rows)
    output = tmp_path / "out" / "clean.jsonl"
    words = ["--train", train, "--test", test, "--domain-column", "domain", "-o", output]
    assert command("decontaminate", *words) == 0
    assert [json.loads(line)["answer"] for line in output.read_text().splitlines()] == ["\ud83d"]
    told = json.loads((tmp_path / "out" / "clean.report.json").read_text())
    assert [item["name"] for item in told["dropped_items"]] == ["copied"]
    assert told["domains"]["novel"]["dropped"] == 1 and told["domains"]["news"]["dropped"] == 0
    assert told["ngrams"] == [2, 3, 4] and str(tmp_path) not in json.dumps(told)
    assert "1 of 2 items stay" in capsys.readouterr().out


def test_what_is_read_is_not_written_over(tmp_path, capsys):
    train, test = (jsonl(tmp_path / f"{name}.jsonl", [*TEXTS.values()]) for name in ("a", "b"))
    before = (tmp_path / "b.jsonl").read_text()
    for output in (tmp_path / "a.jsonl", tmp_path / "b.jsonl"):
        words = ["--train", train, "--test", test, "-o", output]
        assert command("decontaminate", *words) == 2
        assert "reads: give another --output" in capsys.readouterr().err
    assert (tmp_path / "b.jsonl").read_text() == before and len([*tmp_path.iterdir()]) == 2


def test_what_another_process_is_writing_stays_its_own(tmp_path):
    others = [tmp_path / f"clean{name}.part" for name in (".jsonl", ".report.json")]
    for other in others:
        other.write_text("half")
    item = decontaminate.Item({"text": "own"}, "own", "own", "all")
    verdict = decontaminate.Verdict("own", "all", ())
    decontaminate.write(tmp_path / "clean.jsonl", [item], [verdict], 0.5, {})
    assert (tmp_path / "clean.jsonl").read_text() == '{"text": "own"}\n'
    assert [other.read_text() for other in others] == ["half", "half"]


def test_a_folder_of_sequences_is_read_as_the_text_it_was_made_of(tmp_path, capsys, tokenizer):
    train = jsonl(tmp_path / "train.jsonl", [TEXTS["copied"] * 9, "Some words to go on. " * 40])
    test = jsonl(tmp_path / "test.jsonl", [*TEXTS.values()])
    assert command("build", train, "--length", 64, "-o", tmp_path / "built") == 0
    output = tmp_path / "clean.jsonl"
    words = ["--train", tmp_path / "built", "--test", test, "--ngrams", 13, "-o", output]
    assert command("decontaminate", *words) == 0
    assert [json.loads(line)["text"] for line in output.read_text().splitlines()] == [TEXTS["own"]]
    assert json.loads(output.with_suffix(".report.json").read_text())["train"][0].startswith("mix")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--threshold", "0"], "--threshold is a share"),
        (["--ngrams", "two"], "--ngrams takes numbers"),
        (["--domain-column", "domian"], "no column 'domian'.* mean 'domain'"),
        (["--train", "jsonl:nowhere.jsonl"], "no file or folder nowhere.jsonl"),
    ],
)
def test_a_mistake_about_a_test_has_a_sentence(words, why, tmp_path, capsys):
    test = jsonl(tmp_path / "t.jsonl", ["a b c"], domain=["x"])
    output = tmp_path / "clean.jsonl"
    assert command("decontaminate", "--train", test, "--test", test, *words, "-o", output) == 2
    assert re.search(why, capsys.readouterr().err) and not output.exists()


@pytest.mark.slow
def test_the_real_model_reads_what_was_built_for_it(tmp_path, capsys):
    words = ["stdlib:validation", "--model", "smollm2-135m", "--length", "2k", "--tokens", "100k"]
    assert command("build", *words, "-o", tmp_path / "built") == 0
    real = model.tokenizer(model.describe("smollm2-135m"))
    found = open_sequences(str(tmp_path / "built"), real, 2048)
    assert len(found) == 48 and card(tmp_path / "built")["tokenizer"]["model"] == "smollm2-135m"
    texts = [path.read_text("utf-8") for _, path in find("stdlib:validation").files()]
    for item in list(found)[:5]:
        begin, *more = item["document"].tolist()
        piece = item["input_ids"][begin + 1 : more[0] if more else None]
        assert any(real.decode(piece) in text for text in texts)
    with pytest.raises(ValueError, match="built for smollm2-135m"):
        open_sequences(str(tmp_path / "built"), model.tokenizer(model.describe("toy")), 2048)


@pytest.mark.parametrize(("output", "report"), [
    ("clean.jsonl", "clean.report.json"), ("novels.v1", "novels.v1.report.json"),
    ("novels.v2.jsonl", "novels.v2.report.json"),
])  # fmt: skip
def test_every_output_has_a_report_of_its_own(output, report):
    assert decontaminate.report_of(Path("there") / output) == Path("there") / report


@pytest.mark.parametrize(
    ("text", "why"),
    [("[" * 100_000, "is no JSON: maximum rec"), ("{", "no JSON"), ("[]", "holds no")],
)
def test_a_card_that_is_none_is_named(tmp_path, text, why):
    (tmp_path / CARD).write_text(text)
    with pytest.raises(ValueError, match=rf"{CARD} .*{why}"):
        read_card(tmp_path)
