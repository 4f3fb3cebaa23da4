"""LongPPL: the tokens it picks are those of the published code, and they can be held fixed."""

import re
from math import exp

import numpy as np
import pytest
import torch

from harness import catalog, contents
from harness.cell import Cell
from harness.cli import main
from harness.executors.work import CellFile
from harness.model import load
from harness.plan import Options, Planned
from harness.reader import TokenReader
from harness.run import run
from harness.stats import mean_interval
from harness.store import Store
from harness.task import Document

SMALL = "longppl.self,samples=2,short=96,stride=32,alpha=0.2,beta=3"


@pytest.fixture(scope="module")
def live():
    return load("toy", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def reader(live):
    return TokenReader(live.tokenizer)


def finished(live, reader, task, lengths=(400,), method="none"):
    cells = [Cell(model="toy", method=method, task=task, length=n) for n in lengths]
    return run(live, reader, cells)


def stored(tmp_path, live, reader, task=SMALL, lengths=(400,), method="none"):
    """The file of losses that a run leaves."""
    done = finished(live, reader, task, lengths, method)[-1]
    store = Store(tmp_path)
    store.ready()
    store.write(done.result, losses=done.losses, samples=done.samples)
    path = tmp_path / "keys.npz"
    store.path(done.result.cell).with_suffix(".npz").rename(path)
    return done.result, path


def published(model, tokens, bos, short, stride, alpha, beta):
    """find_key_token of the published longppl.py, with a start token before every window."""

    def losses(read, last):
        inputs = torch.tensor([[bos, *read.tolist()]])
        with torch.no_grad():
            logits = model(inputs[:, :-1]).logits[0].double()
        every = torch.nn.functional.cross_entropy(logits, inputs[0, 1:], reduction="none")
        return every[len(every) - last :]

    full = losses(tokens, len(tokens))
    keys = []
    for start in range(0, len(tokens) - short, stride):
        step = min(stride, len(tokens) - short - start)
        window = losses(tokens[start : start + short + step], step)
        long = full[start + short : start + short + step]
        keys += [start + short + i for i in torch.where((window - long > alpha) & (long < beta))[0]]
    return full.numpy(), [int(k) for k in keys]


def test_the_key_tokens_are_those_of_the_published_code(live, reader):
    [done] = finished(live, reader, SMALL)
    asked = catalog.load("tasks", SMALL)
    documents = reader.documents("stdlib", reach=400, first=2)
    picked, every = [], []
    for i, document in enumerate(documents):
        full, keys = published(
            live.model, document.tokens[:399], reader.bos, 96, 32, alpha=0.2, beta=3
        )
        name = asked.key(i, document)
        assert asked.keys(name, 399, done.losses).tolist() == keys and keys
        picked.append(full[keys])
        every.append(full)
    values = np.concatenate(picked)
    result = done.result
    assert result.value == pytest.approx(exp(values.mean()), rel=1e-5)
    assert result.n == len(values)
    assert result.parts["perplexity"] == pytest.approx(exp(np.concatenate(every).mean()), rel=1e-5)
    assert result.parts["share of key tokens"] == len(values) / (2 * (399 - 128))
    low, high = mean_interval(values, np.repeat([0, 1], [len(p) for p in picked]))
    assert (result.low, result.high) == pytest.approx((exp(max(low, 0)), exp(high)), rel=1e-4)


def test_by_its_own_losses_a_model_scores_as_by_itself(tmp_path, live, reader):
    alone, path = stored(tmp_path, live, reader)
    by = SMALL.replace("self", "by") + f",losses={path}"
    [done] = finished(live, reader, by)
    assert done.result.value == pytest.approx(alone.value, rel=1e-6)
    assert done.result.n == alone.n and done.result.parts == pytest.approx(alone.parts, rel=1e-6)
    assert set(done.losses) == {name for name in done.losses if "-from-" not in name}


def test_a_result_says_whose_losses_decide(tmp_path, live, reader):
    alone, path = stored(tmp_path, live, reader)
    by = SMALL.replace("self", "by") + f",losses={path}"
    assert catalog.load("tasks", by).evaluated_by() is None
    path.with_suffix(".json").write_text(alone.model_dump_json())
    [done] = finished(live, reader, by)
    told = {"model": "toy", "method": "none", "task": SMALL, "length": 400}
    assert done.result.provenance["evaluated_by"] == told
    path.with_suffix(".json").write_text("[1]")
    assert catalog.load("tasks", by).evaluated_by() is None


def test_every_method_is_scored_on_the_same_tokens(tmp_path, live, reader):
    alone, path = stored(tmp_path, live, reader)
    by = SMALL.replace("self", "by") + f",losses={path}"
    [other] = finished(live, reader, by, method="pi,factor=4")
    [own] = finished(live, reader, SMALL, method="pi,factor=4")
    assert other.result.n == alone.n != own.result.n
    assert other.result.value != alone.value


def test_its_own_value_is_below_what_the_threshold_allows(live, reader):
    """Which is why it is no number to compare methods by."""
    for method in ("none", "pi,factor=8"):
        [done] = finished(live, reader, SMALL, method=method)
        assert done.result.value < exp(3)


def test_an_evaluator_is_known_by_its_losses_wherever_they_lie(tmp_path, live, reader, monkeypatch):
    monkeypatch.setenv("CONTEXT_HARNESS_CACHE", str(tmp_path / "cache"))
    alone, path = stored(tmp_path, live, reader)
    path.with_suffix(".json").write_text(alone.model_dump_json())
    store, by = Store(tmp_path / "there"), SMALL.replace("self", "by")

    def cells(losses):
        words = f"run -m none -t {by},losses={losses} -l 400 --device cpu --dtype float32"
        with pytest.raises(SystemExit) as ended:
            main([*words.split(), "--results", str(store.root)])
        assert not ended.value.code
        return {result.cell for result in store.results()}

    (cell,) = cells(path)
    named = re.search(r"losses=(keys@[0-9a-f]{8})", cell.task)[1]
    assert store.get(cell).provenance["evaluated_by"]["task"] == SMALL
    (tmp_path / "moved").mkdir()
    moved = path.rename(tmp_path / "moved" / "keys.npz")
    assert cells(moved) == cells(named) == {cell}
    with np.load(moved) as held:
        np.savez(moved, **{name: losses + 0.5 for name, losses in held.items()})
    assert len(cells(moved)) == 2


def test_a_worker_finds_an_evaluators_losses_where_they_were_named(tmp_path, monkeypatch):
    monkeypatch.setenv("CONTEXT_HARNESS_CACHE", str(tmp_path / "here"))
    np.savez(tmp_path / "keys.npz", it=np.zeros(3))
    spec = f"longppl.by,losses={tmp_path / 'keys.npz'}"
    named = catalog.extended(spec, catalog.load("tasks", spec).by_content())
    cell = Cell(model="toy", method="none", task=named, length=8192)
    planned = Planned(cell=cell, tokens=9, seconds=1.0, bytes=1, fits=True)
    said = CellFile.of([planned], Options(methods=(), tasks=(), lengths=())).model_dump_json()
    monkeypatch.setenv("CONTEXT_HARNESS_CACHE", str(tmp_path / "elsewhere"))
    monkeypatch.setattr(contents, "_places", {})
    with pytest.raises(LookupError, match="no file keys@"):
        catalog.load("tasks", named).evaluator({})
    monkeypatch.setattr(contents, "_places", {})
    CellFile.said(said)
    assert catalog.load("tasks", named).evaluator({})["it"].tolist() == [0, 0, 0]


@pytest.mark.slow
def test_a_longer_evaluation_serves_shorter_lengths(tmp_path, live, reader):
    task = SMALL + ",reach=400"
    _, path = stored(tmp_path, live, reader, task, lengths=(300, 400))
    by = task.replace("self", "by") + f",losses={path}"
    [done] = finished(live, reader, by, lengths=(300,))
    [alone] = finished(live, reader, task, lengths=(300,))
    assert done.result.value == pytest.approx(alone.result.value, rel=1e-5)


def test_the_long_input_is_read_once_for_both(live, reader):
    [done] = finished(live, reader, SMALL)
    windows = len(range(32, 399 - 96, 32))
    assert done.result.tokens <= 2 * (399 + windows * (96 + 32))


# mistakes


def test_a_token_that_more_context_does_not_help_is_no_key(reader):
    asked = catalog.load("tasks", SMALL)
    requests = list(asked.requests(reader, 300))
    flat = [asked.grade(r, np.ones(r.ask.stop - r.ask.start), reader) for r in requests]
    with pytest.raises(ValueError, match="no key tokens"):
        asked.score(flat)


def test_losses_of_other_documents_are_refused(tmp_path, live, reader):
    _, path = stored(tmp_path, live, reader)
    by = catalog.load("tasks", SMALL.replace("self", "by") + f",losses={path}")
    document = Document(name="it", tokens=np.arange(500, dtype=np.int32) + 300)
    with pytest.raises(ValueError, match="hold 0 tokens of document-0-"):
        by.keys(by.key(0, document), 399, by.evaluator({}))
    own = reader.documents("stdlib", reach=500, first=2)[0]
    with pytest.raises(ValueError, match=r"hold 399 tokens .* and 450 are needed"):
        by.keys(by.key(0, own), 450, by.evaluator({}))


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("longppl.by", "losses=FILE"),
        ("longppl.by,losses=nowhere.npz", "no file nowhere.npz"),
        ("longppl.by,losses=README.md", "no .npz file"),
        ("longppl.by,losses={tmp}/cut.npz", "no .npz file"),
        ("longppl.by,losses={tmp}/one.npy", "no .npz file"),
        ("longppl,short=0", "takes a short of 1 or more"),
        ("longppl", "at least 5,122 tokens"),
    ],
)
def test_a_mistake_is_said_in_a_sentence(capsys, monkeypatch, tmp_path, task, words):
    from pathlib import Path

    (tmp_path / "cut.npz").write_bytes(b"PK\3\4 and no more")
    np.save(tmp_path / "one.npy", np.zeros(3))
    task = task.format(tmp=tmp_path)
    monkeypatch.chdir(Path(__file__).parents[1])
    length = "1k" if task == "longppl" else "8k"
    with pytest.raises(SystemExit) as stop:
        main(["run", "-m", "none", "-t", task, "-l", length, "--dry-run"])
    assert stop.value.code == 2 and words in capsys.readouterr().err
