"""Training data: nothing lost in packing, shares kept at every step, overlap found."""

import json
from pathlib import Path

import numpy as np
import pytest

from harness import model
from harness.corpora import find
from harness.reader import TokenReader
from harness.train.packing import AsClex, Carried, Read, open_sequences

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
