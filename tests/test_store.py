import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest

import harness.store
from harness.cell import Cell, Result
from harness.disk import held
from harness.store import Store


def result(length=4096, *, status="scored", method="pi", **more):
    cell = Cell(model="toy", method=method, task="passkey", length=length)
    said = {"value": 0.5} if status == "scored" else {"reason": "it did not"}
    return Result(cell=cell, status=status, **{**said, **more})


def raised(*said):
    def fail(*_):
        raise OSError(*said)

    return fail


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_a_result_reads_back_as_written_from_where_its_cell_says(tmp_path):
    store, one = Store(tmp_path), result(provenance={"frequencies": [1.0, 0.5]})
    assert store.write(one) == tmp_path / "runs/toy/passkey/pi/4096.json"
    assert [*store.results()] == [one] and store.has(one.cell) and store.get(one.cell) == one
    assert files(tmp_path) == ["runs/toy/passkey/pi/4096.json"]


def test_the_same_result_is_the_same_bytes(tmp_path):
    store = Store(tmp_path)
    first = store.write(result(provenance={"b": 1, "a": 2})).read_bytes()
    assert store.write(result(provenance={"a": 2, "b": 1})).read_bytes() == first
    assert first == json.dumps(json.loads(first), sort_keys=True, indent=2).encode() + b"\n"


def test_losses_and_answers_lie_beside_and_come_back(tmp_path):
    store, one = Store(tmp_path), result()
    losses = {"file": np.arange(3.0), "a/b": np.ones(2, np.float32)}
    store.write(one, losses=losses, samples=[{"id": "é", "score": 1.0}])
    back = store.losses(one.cell)
    assert set(back) == set(losses)
    assert all((back[k] == v).all() and back[k].dtype == v.dtype for k, v in losses.items())
    assert store.samples(one.cell) == [{"id": "é", "score": 1.0}]
    store.write(one)
    assert store.losses(one.cell) == {} and store.samples(one.cell) == []


def test_an_answer_may_hold_what_ends_a_line_elsewhere(tmp_path):
    store, one = Store(tmp_path), result()
    said = [{"id": "a", "answer": "one\u2028two\x85three\r\nfour"}]
    store.write(one, samples=said)
    assert store.samples(one.cell) == said and store.broken == []


def spoiled(raw):
    """The compressed numbers of a file of arrays, with other bytes among them."""
    return raw[:60] + bytes(b ^ 0xFF for b in raw[60:90]) + raw[90:]


@pytest.mark.parametrize(
    "spoil", [lambda raw: raw[: len(raw) // 2], spoiled, lambda raw: b"", lambda raw: b"[]"]
)
def test_losses_that_are_torn_are_named_and_skipped(tmp_path, spoil):
    store, one = Store(tmp_path), result()
    store.write(one, losses={"a": np.random.default_rng(0).random(500)})
    path = store.path(one.cell).with_suffix(".npz")
    path.write_bytes(spoil(path.read_bytes()))
    assert store.losses(one.cell) == {}
    assert str(store.broken[0]).startswith(f"{path} is skipped: it is no")


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda raw: raw[:-5], "line 2 is no JSON: Unterminated string"),
        (lambda raw: raw + b"[" * 100_000, "line 3 is no JSON: maximum recursion"),
        (lambda raw: raw + b"7\n", "line 3 is no answer"),
        (lambda raw: b"\xff" + raw, "codec can't decode"),
    ],
)
def test_answers_that_are_torn_are_named_and_skipped(tmp_path, spoil, why):
    store, one = Store(tmp_path), result()
    store.write(one, samples=[{"id": "one"}, {"id": "two"}])
    path = store.path(one.cell).with_suffix(".samples.jsonl")
    path.write_bytes(spoil(path.read_bytes()))
    assert store.samples(one.cell) == []
    assert str(path) in str(store.broken[0]) and why in str(store.broken[0])


@pytest.mark.parametrize("status", ["failed", "out_of_memory", "unfit"])
def test_what_was_scored_never_gives_way_to_what_could_not_be(tmp_path, status):
    """Two runs meet at one cell, and the second has no room beside the first."""
    store, good = Store(tmp_path), result()
    store.write(good, samples=[{"id": "a"}])
    store.write(result(status=status))
    assert store.get(good.cell) == good and store.samples(good.cell) == [{"id": "a"}]
    other = result(8192, status=status)
    store.write(other)
    better = result(8192)
    store.write(better)
    assert store.get(better.cell) == better


def test_what_another_run_scored_meanwhile_stays_with_its_losses(tmp_path, monkeypatch):
    """It comes between the look at the cell and the write."""
    store, good = Store(tmp_path), result()
    real = harness.store.held

    @contextmanager
    def late(folder, *, wait):
        monkeypatch.setattr(harness.store, "held", real)
        Store(tmp_path).write(good, losses={"a": np.ones(2)}, samples=[{"id": "a"}])
        with real(folder, wait=wait) as alone:
            yield alone

    monkeypatch.setattr(harness.store, "held", late)
    store.write(result(status="out_of_memory"))
    assert store.get(good.cell) == good
    assert [*store.losses(good.cell)] == ["a"] and store.samples(good.cell) == [{"id": "a"}]


def test_of_two_runs_at_one_row_one_waits(tmp_path, monkeypatch):
    store, one = Store(tmp_path), result()
    seen, real = [], os.fsync

    def look(handle):
        with held(store.path(one.cell).parent) as alone:
            seen.append(alone)
        real(handle)

    monkeypatch.setattr(os, "fsync", look)
    store.write(one, losses={"a": np.ones(2)})
    assert seen == [False, False, True]  # the losses, the result, and their folder at the end


def test_what_lies_beside_goes_only_when_the_result_has_come(tmp_path, monkeypatch):
    store, one = Store(tmp_path), result(status="failed")
    store.write(one, samples=[{"id": "a"}])
    with monkeypatch.context() as full, pytest.raises(OSError, match="No space"):
        full.setattr(os, "replace", raised(28, "No space left on device"))
        store.write(one)
    assert store.samples(one.cell) == [{"id": "a"}]
    store.write(one)
    assert store.samples(one.cell) == []


def test_a_number_that_is_none_is_refused_and_leaves_nothing(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="JSON compliant"):
        store.write(result(provenance={"x": float("nan")}))
    with pytest.raises(ValueError, match="JSON compliant"):
        store.write(result(), samples=[{"score": float("inf")}])
    with pytest.raises(ValueError, match="float32 or float64"):
        store.write(result(), losses={"a": np.arange(3)})
    assert files(tmp_path) == []


def test_rows_come_together_and_short_lengths_first(tmp_path):
    store = Store(tmp_path)
    for method in ("yarn,factor=8", "none"):
        for length in (16384, 4096, 131072):
            store.write(result(length, method=method))
    got = [(r.cell.method, r.cell.length) for r in store.results()]
    assert got == [(m, n) for m in ("none", "yarn,factor=8") for n in (4096, 16384, 131072)]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-40]), "EOF"),
        (lambda p: p.write_text(""), "EOF"),
        (lambda p: p.write_bytes(b"\xff\xfe"), "expected value"),
        (lambda p: p.write_text("[" * 100_000), "recursion"),
        (lambda p: p.write_text(p.read_text().replace('"value": 0.5', '"value": NaN')), "value"),
        (lambda p: p.write_text(p.read_text().replace("8192", "8191")), "belongs at"),
        (lambda p: p.write_text(p.read_text().replace('version": 1', 'version": 99')), "schema 99"),
        (lambda p: p.rename(p.with_name("9.json")), "belongs at"),
        (
            lambda p: p.write_text(p.read_text().replace("0.5", "null")),
            "is skipped: a value stands",
        ),
    ],
)
def test_a_file_that_is_no_result_is_named_and_skipped(tmp_path, spoil, why):
    store = Store(tmp_path)
    good = result(4096)
    store.write(good)
    spoil(store.write(result(8192)))
    assert [*store.results()] == [good]
    (broken,) = store.broken
    assert "toy/passkey/pi" in str(broken) and why in str(broken)
    assert [*store.results()] == [good] and len(store.broken) == 1


@pytest.mark.parametrize("status", ["failed", "out_of_memory"])
def test_what_another_try_may_cure_is_done_unless_asked_again(tmp_path, status):
    Store(tmp_path).write(result(status=status))
    assert Store(tmp_path).has(result().cell)
    assert not Store(tmp_path, retry=True).has(result().cell)


def test_a_torn_file_is_done_unless_asked_again_which_cures_it(tmp_path):
    Store(tmp_path).write(result()).write_text("{")
    assert Store(tmp_path).has(result().cell)
    store = Store(tmp_path, retry=True)
    assert not store.has(result().cell) and store.broken
    store.write(result())
    assert store.get(result().cell) == result() and not store.broken


def test_a_folder_named_as_a_file_is_no_result(tmp_path):
    store = Store(tmp_path)
    store.write(result(method="longrope,factors=f.json"))
    assert [r.cell.method for r in store.results()] == ["longrope,factors=f.json"]
    assert store.broken == []


def test_what_is_measured_or_unfit_is_never_run_again(tmp_path):
    store = Store(tmp_path, retry=True)
    store.write(result(4096))
    store.write(result(8192, status="unfit"))
    assert store.has(result(4096).cell) and store.has(result(8192).cell)


def test_nothing_is_written_through_a_link_that_leads_out(tmp_path):
    store, elsewhere = Store(tmp_path / "results"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    store.ready()
    (store.runs / "toy").symlink_to(elsewhere)
    with pytest.raises(ValueError, match="leads out"):
        store.write(result())
    assert files(elsewhere) == []


def test_a_results_folder_may_itself_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "results").symlink_to(tmp_path / "disk")
    store = Store(tmp_path / "results")
    store.write(result())
    assert [*store.results()] == [result()]


def test_a_folder_that_takes_no_files_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot be written to .*file.*--results"):
        Store(tmp_path / "file").ready()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_loses_nothing(tmp_path, monkeypatch, step):
    store, kept = Store(tmp_path), result()
    store.write(kept, losses={"a": np.arange(2.0)})
    before = files(tmp_path)

    monkeypatch.setattr(os, step, raised(28, "No space left on device"))
    with pytest.raises(OSError, match=r"No space left on device\. Make room"):
        store.write(result(value=0.75), losses={"a": np.arange(9.0)})
    monkeypatch.undo()
    assert files(tmp_path) == before and store.get(kept.cell) == kept


def test_what_a_killed_run_left_half_written_is_taken_away_when_nobody_writes_it(tmp_path):
    store, kept = Store(tmp_path), result()
    store.write(kept)
    row, packed = store.path(kept.cell).parent, tmp_path / "packed"
    packed.mkdir()
    half = [place / f".{name * 32}.tmp" for name in "ab" for place in (row, packed)]
    own = [row / ".notes.tmp", row / ("a" * 32)]
    for file in (*half, *own):
        file.write_text("half")
    for file in (*half[:2], *own):
        os.utime(file, (0, 0))
    store.sweep()
    assert [file.exists() for file in (*half, *own)] == [False, False, True, True, True, True]
    assert store.get(kept.cell) == kept


WRITER = """
import sys, numpy as np
from harness.cell import Cell, Result
from harness.store import Store
store, value = Store(sys.argv[1]), float(sys.argv[2])
print("on", flush=True)
while True:
    for length in (1, 2, 3):
        cell = Cell(model="m", method="k", task="t", length=length)
        result = Result(cell=cell, status="scored", value=value, reason="x" * 50_000)
        store.write(result, losses={"a": np.full(500, value)}, samples=[{"id": "a"}] * 50)
"""


@pytest.mark.slow
def test_killed_at_any_moment_two_writers_leave_whole_files_only(tmp_path):
    def writer(value):
        command = [sys.executable, "-P", "-c", WRITER, str(tmp_path), str(value)]
        return subprocess.Popen(command, stdout=subprocess.PIPE)

    seen = 0
    for round_ in range(5):
        two = [writer(1.0), writer(2.0)]
        for process in two:
            process.stdout.readline()
        time.sleep(0.03 + 0.017 * round_)
        for process in two:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
        store = Store(tmp_path)
        for found in store.results():
            seen += 1
            assert found.value in (1.0, 2.0) and len(found.reason) == 50_000
            assert set(store.losses(found.cell)["a"]) <= {1.0, 2.0}
            assert len(store.samples(found.cell)) == 50
        assert store.broken == []
    assert seen
    assert [*store.results()]
