"""The published protocols, against what their own code does."""

import json
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise
from math import e, exp
from pathlib import Path
from random import Random

import numpy as np
import pytest

from harness import catalog
from harness.task import Document
from harness.tasks.passkey import published_prompt
from harness.tasks.perplexity import chunked_mean, sliding_windows, stream_windows

GOLDEN = json.loads((Path(__file__).parent / "golden" / "protocols.json").read_text())
BOS = 1


class Library:
    """A reader with documents of n tokens, numbered from 2 as in the golden values."""

    bos = BOS
    spells_one_way = True

    def __init__(self, *sizes):
        self.sizes = sizes

    def tokens(self, text):
        return [ord(c) % 250 + 2 for c in text]

    def documents(self, corpus, *, reach, first):
        found = [
            Document(name=f"{i}", tokens=np.arange(2, n + 2, dtype=np.int32))
            for i, n in enumerate(self.sizes)
            if n >= reach
        ]
        if len(found) < first:
            raise LookupError(f"{corpus} has {len(found)} documents and {first} are needed.")
        return found[:first]


def task(spec):
    return catalog.load("tasks", spec)


def as_golden(request):
    scored = request.ask.stop - request.ask.start
    assert request.tokens[0] == BOS and request.ask.stop == len(request.tokens)
    return {
        "input_len": len(request.tokens),
        "scored": scored,
        "first_tok": int(request.tokens[1]),
        "last_tok": int(request.tokens[-1]),
    }


@pytest.mark.parametrize("protocol", ["yarn", "longrope"])
@pytest.mark.parametrize("truncate", ["true", "false"])
def test_windows_are_those_of_the_published_loops(protocol, truncate):
    case = "doc10000_ctx4096_" + ("truncate" if truncate == "true" else "S256")
    expected = GOLDEN["perplexity_windows"][case][protocol]
    asked = task(f"perplexity.{protocol},samples=1,truncate={truncate}")
    windows = [as_golden(r) for r in asked.requests(Library(10_000), 4096)]
    assert len(windows) == expected["windows"]
    assert windows[: len(expected["first"])] == expected["first"]
    assert windows[-1] == expected["last"]
    assert sum(w["scored"] for w in windows) == expected["total_scored"]


@pytest.mark.parametrize("protocol", ["yarn", "longrope"])
def test_a_document_shorter_than_a_window_is_read_whole(protocol):
    expected = GOLDEN["perplexity_windows"]["doc3000_ctx4096_S256"][protocol]
    (window,) = task(f"perplexity.{protocol},truncate=false").windows(3000, 4096)
    assert window.scored == expected["total_scored"]
    assert window.end - window.begin + 1 == expected["first"][0]["input_len"]


def test_each_token_is_scored_once_and_none_is_skipped():
    windows = list(sliding_windows(10_000, 4095, 256))
    assert [w.end - w.scored for w in windows[1:]] == [w.end for w in windows[:-1]]
    assert windows[0].scored == windows[0].end and windows[-1].end == 10_000
    assert all(b.begin - a.begin == 256 for a, b in pairwise(windows))


def test_lceg_windows_are_those_of_the_published_loop():
    golden = GOLDEN["lceg_windows"]
    windows = stream_windows(golden["n_tokens"], golden["seq_len"], golden["stride"])
    assert len(windows) == golden["windows"]
    assert [[w.begin, w.end - 1] for w in windows[:3]] == golden["first"]
    assert [windows[-1].begin, windows[-1].end - 1] == golden["last"]
    assert {w.scored for w in windows} == {golden["seq_len"] - 1}


def test_lceg_reads_documents_as_one_stream_and_writes_e_as_published():
    lceg, reader = task("perplexity.lceg,samples=2"), Library(1000, 3998)
    requests = list(lceg.requests(reader, 1024))
    assert len(requests) == GOLDEN["lceg_windows"]["windows"]
    stream = np.r_[BOS, 2:1002, BOS, 2:4000]
    assert all((r.tokens == stream[(b := r.about["begin"]) : b + 1024]).all() for r in requests)
    assert [r.about["document"] for r in requests] == ["0"] * 4 + ["1"] * 11
    samples = [lceg.grade(r, np.full(1023, 2.0), reader) for r in requests]
    assert lceg.score(samples).value == pytest.approx(2.71828**2, rel=1e-12)
    assert all(s.losses is None for s in samples)
    assert len(list(replace(lceg, limit=3).requests(reader, 1024))) == 3


def test_clex_weights_each_chunk_by_all_its_tokens():
    golden = GOLDEN["clex_chunked_ppl_toy"]
    losses = np.full(golden["seq_len"] - 1, 1e9)  # of tokens 1 to 19; those of 8 and 16 are unused
    for begin, (n, _), loss in zip((0, 8, 16), golden["calls"], (1, 2, 3), strict=True):
        losses[begin : begin + n - 1] = loss
    assert exp(chunked_mean(losses, golden["chunk_size"])) == pytest.approx(golden["ppl"])


def test_clex_leaves_out_a_chunk_that_predicts_nothing():
    assert chunked_mean(np.r_[np.ones(7), 1e9], 8) == 1


@pytest.mark.parametrize("case", GOLDEN["passkey_prompts"])
def test_passkey_prompts_are_those_of_the_published_generator(case):
    prompt, key, _ = published_prompt(case["n_garbage"], Random(case["seed"]))
    assert sha256(prompt.encode()).hexdigest() == case["sha256"]
    assert key == str(case["pass_key"])
    assert prompt.index(f"The pass key is {key}") == case["info_line_char_offset"]


def test_longrope_takes_3_65_characters_a_token():
    class Wide(Library):
        def tokens(self, text):
            return [2] * (len(text) // 4)

    longrope = task("passkey.longrope")
    for length in ("4096", "8192", "32768", "131072"):
        expected = GOLDEN["longrope_chars_for_tokens"][length]
        assert longrope.characters(Wide(), int(length)) == expected


def test_yarn_counts_every_window_alike_and_sliding_every_token():
    reader, outcome = Library(8192), {}
    yarn = task("perplexity.yarn,samples=1,truncate=false")
    sliding = task("perplexity.sliding,samples=1,reach=8193")
    for asked in (yarn, sliding):
        requests = list(asked.requests(reader if asked is yarn else Library(8193), 4096))
        losses = [np.full(r.ask.stop - r.ask.start, float(i > 0)) for i, r in enumerate(requests)]
        samples = [asked.grade(r, loss, reader) for r, loss in zip(requests, losses, strict=True)]
        outcome[asked] = asked.score(samples).value
    assert outcome[yarn] == pytest.approx(e ** (17 / 18))
    assert outcome[sliding] == pytest.approx(e ** ((8192 - 4095) / 8192))
