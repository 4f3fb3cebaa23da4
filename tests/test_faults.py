"""What can go wrong while a grid runs, done to it: nothing is lost, and a sentence says what."""

import json
import os
import shutil
import signal
import string
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.cell import Cell, Result
from harness.cli import main
from harness.executors import local
from harness.gridfile import Grid, options
from harness.plan import Options, missing, plan
from harness.store import Store

pytestmark = pytest.mark.filterwarnings("default")


class Notes:
    """A watch that remembers what it was told, and may do something at each finished cell."""

    def __init__(self, finished=lambda result: None):
        self.said, self.done, self._finished = [], [], finished

    def cell_started(self, cells, tokens): ...

    def progressed(self, tokens): ...

    def cell_finished(self, result):
        self.done.append(result.cell)
        self._finished(result)

    def note(self, message):
        self.said.append(message)


@pytest.fixture
def wish(folder):
    return Options(
        models=(str(folder),),
        methods=("none", "pi"),
        tasks=("passkey",),
        lengths=(300, 600),
        samples=1,
        depths=(0.5,),
        dtype="float32",
        device="cpu",
    )


@pytest.fixture
def words(folder):
    """The same, as a command line."""
    asked = "-m none,pi -t passkey -l 300,600 --samples 1 --depths 0.5 --dtype float32"
    return ["run", "--model", str(folder), *asked.split(), "--device", "cpu"]


def done(options, root, watch=None):
    store = Store(root)
    return [*local.execute(missing(plan(options), store), store, options, watch or Notes())]


def command(*argv):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in argv])
    return left.value.code or 0


def files(root):
    """What results there are, byte for byte."""
    return {p.relative_to(root): p.read_bytes() for p in Path(root).rglob("*.json")}


def numbers(root):
    """The table, but for how long cells took."""
    rows = [result.row() for result in Store(root).results()]
    return [{k: v for k, v in r.items() if k not in ("seconds", "peak_memory")} for r in rows]


# Killed

THOROUGH = "CONTEXT_HARNESS_THOROUGH" in os.environ
"""As before a release: as often as is promised, which takes some minutes more."""
KILLS = 50 if THOROUGH else 20
KILLED = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from harness.executors import local
from harness.plan import Options, missing, plan
from harness.store import Store

class Silent:
    def cell_started(self, cells, tokens): ...
    def progressed(self, tokens): ...
    def cell_finished(self, result): ...
    def note(self, message): ...

folder, root, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
options = Options(
    models=(folder,), methods=("none", "pi", "yarn", "dynamic-ntk"), tasks=("passkey",),
    lengths=tuple(range(300, 900, 8)), samples=1, depths=(0.5,), dtype="float32", device="cpu",
)
grid, store = plan(options), Store(root)

def files():
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*.json")}

def run():
    for _ in local.execute(missing(grid, store), store, options, Silent()):
        pass

print(len(grid))
before, random_ = {}, random.Random(0)
for _ in range(kills):
    child = os.fork()
    if not child:
        run()
        os._exit(0)
    enough = len(before) + random_.randint(0, 6)
    while len(files()) < enough:
        time.sleep(0.001)
    time.sleep(random_.uniform(0.0, 0.02))
    os.kill(child, signal.SIGKILL)
    ended = os.waitpid(child, 0)[1]
    after = files()
    assert before.items() <= after.items(), "a finished cell was lost or measured twice"
    before = after
    print(len(after), os.WIFSIGNALED(ended))
run()
assert before.items() <= files().items()
"""


def killed(folder, root, kills):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    asked = [sys.executable, "-P", "-c", KILLED, str(folder), str(root), str(kills)]
    ran = subprocess.run(asked, capture_output=True, text=True, env=environment, check=False)
    assert ran.returncode == 0, ran.stderr
    count, *rounds = (line.split() for line in ran.stdout.splitlines())
    return int(count[0]), [(int(n), died == "True") for n, died in rounds]


@pytest.mark.slow
def test_killed_again_and_again_a_grid_comes_to_the_table_of_an_undisturbed_one(folder, tmp_path):
    count, rounds = killed(folder, tmp_path / "killed", KILLS)
    assert sum(died and found < count for found, died in rounds) >= 0.8 * KILLS, "most too late"
    killed(folder, tmp_path / "calm", 0)
    assert numbers(tmp_path / "killed") == numbers(tmp_path / "calm")
    assert len(files(tmp_path / "killed")) == count
    store = Store(tmp_path / "killed")
    assert len([*store.results()]) == count and store.broken == []


# Interrupted

WAITING = """
import sys, time
import harness.executors.local as local
from harness.cli import main
measured = local.execute

def slowly(plan, store, options, watch):
    for result in measured(plan, store, options, watch):
        yield result
        {before}
        print("measured", file=sys.stderr, flush=True)
        {wait}

local.execute = slowly
main(sys.argv[1:])
"""


def interrupted(argv, wait, times, before="pass"):
    """Start a run, send it Ctrl-C after its first cell; its exit code, output and seconds since."""
    script = WAITING.format(wait=wait, before=before)
    with subprocess.Popen(
        [sys.executable, "-P", "-c", script, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while process.stderr.readline() != b"measured\n":
            assert process.poll() is None
        began = time.monotonic()
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.2)
        out, _ = process.communicate(timeout=60)
        return process.returncode, out.decode(), time.monotonic() - began


@pytest.mark.slow
def test_ctrl_c_leaves_the_table_of_what_is_done_and_130(words, tmp_path):
    code, out, _ = interrupted([*words, "--results", str(tmp_path), "--json"], "time.sleep(60)", 1)
    assert code == 130 and [row["status"] for row in json.loads(out)] == ["scored"]
    before = files(tmp_path)
    assert len(before) == 1
    assert command(*words, "--results", tmp_path, "--json") == 0
    assert before.items() <= files(tmp_path).items() and len(files(tmp_path)) == 4


@pytest.mark.slow
def test_a_second_ctrl_c_ends_a_process_that_cannot_listen(words, tmp_path):
    """As in a kernel: one call that the interpreter cannot interrupt, nor a signal's handler."""
    deaf = "import ctypes, signal; signal.signal(2, lambda *_: None)"
    asleep = "[ctypes.CDLL(None).usleep(900_000) for _ in iter(int, 1)]"
    code, _, took = interrupted([*words, "--results", str(tmp_path)], asleep, 2, before=deaf)
    assert code == 130 and took < 5
    assert len(files(tmp_path)) == 1


# Two at once


def test_a_second_run_on_a_folder_says_so_begins_at_the_other_end_and_doubles_nothing(
    wish, tmp_path
):
    second, nested = Notes(), []

    def another(result):
        if not nested:
            nested.append(result.cell)
            nested.extend(r.cell for r in done(wish, tmp_path, second))

    first = Notes(finished=another)
    found = done(wish, tmp_path, first)
    every = [p.cell for p in plan(wish)]
    assert [r.cell for r in found] == every[:1] and nested[1:] == every[:0:-1]
    assert "Another harness run is filling" in second.said[0] and first.said == []
    assert len(files(tmp_path)) == 4


def test_a_folder_is_let_go_whatever_happens(wish, tmp_path):
    def fell(result):
        raise OSError("it fell")

    with pytest.raises(OSError, match="it fell"):
        done(wish, tmp_path, Notes(finished=fell))
    watch = Notes()
    assert len(done(wish, tmp_path, watch)) == 3 and watch.said == []


# Disks

FULL = """
import resource, sys
from harness.cell import Cell, Result
from harness.store import Store
store = Store(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for length in range(1, 99):
    cell = Cell(model="m", method="k", task="t", length=length)
    store.write(Result(cell=cell, status="failed", reason="x" * 1000 * length))
"""


@pytest.mark.skipif(os.name != "posix", reason="its disks cannot be limited")
def test_a_disk_that_takes_no_more_is_said_and_what_it_took_is_whole(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-P", "-c", FULL, str(tmp_path)], capture_output=True, text=True
    )
    assert f"Results cannot be written to '{tmp_path}': File too large. Make room" in ran.stderr
    store = Store(tmp_path)
    assert sorted(r.cell.length for r in store.results()) == [*range(1, 20)]
    assert store.broken == [] and [*tmp_path.rglob("*.tmp")] == []


@contextmanager
def read_only():
    """A folder that takes no files, also for root, who is somebody else meanwhile."""
    place, me = Path(tempfile.mkdtemp()), os.geteuid()
    place.chmod(0o555)
    try:
        if me == 0:
            os.seteuid(65534)
        yield place
    finally:
        os.seteuid(me)
        shutil.rmtree(place)


@pytest.mark.skipif(os.name != "posix", reason="it has no such rights")
def test_a_read_only_folder_is_said_before_anything_runs(words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(local, "execute", None)
    (tmp_path / "taken").touch()
    with patch(
        "harness.plan.plan", return_value=plan_of_one()
    ):  # who reads no modules has all then
        assert command(*words, "--results", tmp_path / "taken") == 2
    with read_only() as place, patch("harness.plan.plan", return_value=plan_of_one()):
        assert command(*words, "--results", place) == 2
    said = capsys.readouterr().err
    assert f"Results cannot be written to '{place}': Permission denied." in said


def plan_of_one():
    from harness.plan import Planned

    cell = Cell(model="m", method="none", task="passkey.standard", length=9)
    return [Planned(cell=cell, tokens=9, seconds=1.0, bytes=1, fits=True)]


@pytest.mark.parametrize("keep", [0, 1, 100, -2])
def test_a_result_cut_short_is_named_kept_and_measured_again_when_asked(
    words, tmp_path, capsys, keep
):
    assert command(*words, "--results", tmp_path) == 0
    whole = numbers(tmp_path)
    torn = next(tmp_path.rglob("600.json"))
    torn.write_bytes(torn.read_bytes()[:keep])
    capsys.readouterr()
    assert command(*words, "--results", tmp_path) == 1
    assert f"{torn} is skipped" in capsys.readouterr().err
    assert command(*words, "--results", tmp_path, "--retry") == 0
    assert numbers(tmp_path) == whole


def test_a_clock_that_goes_backwards_changes_nothing(wish, tmp_path, monkeypatch):
    now = [2e9]

    def backwards():
        now[0] -= 3600
        return now[0]

    monkeypatch.setattr(time, "time", backwards)
    monkeypatch.setattr(time, "time_ns", lambda: int(backwards() * 1e9))
    found = done(wish, tmp_path)
    assert len(found) == 4 and all(r.status == "scored" and r.seconds > 0 for r in found)
    assert [*tmp_path.rglob("*.json")] and done(wish, tmp_path) == []


# Models


def spoilt(folder, place, spoil):
    shutil.copytree(folder, place)
    spoil(place / "model.safetensors")
    return place


def halve(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def lose(file):
    from safetensors.torch import load_file, save_file

    weights = load_file(file)
    del weights["model.layers.0.self_attn.q_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})


@pytest.mark.parametrize(("spoil", "why"), [(halve, "could not be read"), (lose, "is not whole")])
def test_a_model_that_cannot_be_loaded_fails_its_cells_and_the_others_go_on(
    folder, tmp_path, wish, spoil, why
):
    bad = spoilt(folder, tmp_path / "bad", spoil)
    found = done(replace(wish, models=(str(bad), str(folder))), tmp_path / "results")
    assert [r.status for r in found] == ["failed"] * 4 + ["scored"] * 4
    assert all(why in r.reason and "\n" not in r.reason for r in found[:4])
    assert numbers(tmp_path / "results")


def test_weights_that_change_after_the_plan_are_not_measured_under_its_name(folder, tmp_path, wish):
    from safetensors.torch import load_file, save_file

    place = shutil.copytree(folder, tmp_path / "model")
    grid = plan(replace(wish, models=(str(place),)))
    weights = load_file(place / "model.safetensors")
    weights["model.norm.weight"] *= 2
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    found = [*local.execute(grid, Store(tmp_path / "results"), wish, Notes())]
    assert {r.status for r in found} == {"failed"} and "other weights here" in found[0].reason


class Gate(BaseHTTPRequestHandler):
    """A hub on this machine: org/gated is gated, and it knows no other."""

    def do_GET(self):
        gated = "org/gated" in self.path
        self.send_response(403 if gated else 404)
        self.send_header("X-Error-Code", "GatedRepo" if gated else "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET

    def log_message(self, *_): ...


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("org/gated", "it is gated: ask for access"),
        ("org/nothing", "the hub has none of this name"),
        ("org/away", "the hub cannot be reached"),
    ],
)
def test_a_hub_that_says_no_is_put_in_a_sentence_and_other_models_go_on(words, tmp_path, name, why):
    with ThreadingHTTPServer(("127.0.0.1", 0), Gate) as hub:
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        where = f"http://127.0.0.1:{hub.server_port}"
        if name == "org/away":
            where = "http://hub.invalid"
        environment = os.environ | {"HF_ENDPOINT": where, "HF_HOME": str(tmp_path / "hf")}
        environment = {k: v for k, v in environment.items() if "OFFLINE" not in k}
        asked = [sys.executable, "-P", "-m", "harness", *words, "--model", name, "--json"]
        ran = subprocess.run(
            [*asked, "--results", str(tmp_path / "r")],
            capture_output=True, text=True, env=environment, timeout=120,
        )  # fmt: skip
        hub.shutdown()
    assert ran.returncode == 1 and "Traceback" not in ran.stderr
    assert f"note: The model '{name}' could not be read: {why}" in ran.stderr
    assert [row["status"] for row in json.loads(ran.stdout)] == ["scored"] * 4


# Numbers that are none


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_no_numbers_fail_the_cell_and_name_the_first_position(
    tmp_path, wish, monkeypatch, bad
):
    real = local.load

    def broken(*names, **more):
        """A model whose output is bad from its 141st position on."""
        live = real(*names, **more)
        norm = live.model.model.norm
        norm.register_forward_hook(lambda _, given, out: out.index_fill(0, rows(out), bad))
        return live

    def rows(out):
        return torch.arange(140, max(140, len(out)))

    monkeypatch.setattr(local, "load", broken)
    asked = replace(wish, tasks=("perplexity",), methods=("none",), depths=None, corpus="stdlib")
    (result,) = done(replace(asked, lengths=(300,)), tmp_path)
    assert result.status == "failed" and result.value is None
    assert "at position 140 are not finite" in result.reason
    assert Store(tmp_path).losses(result.cell) == {}


# What nobody meant to write

SANE = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
JUNK = st.one_of(
    st.text(SANE, max_size=12),
    st.sampled_from(["", "-", "--", "-1", "0", "1e999", "nan", "4k-", "9" * 30, "a=b", ",", ".."]),
    st.integers(-(10**20), 10**20).map(str),
)
KNOWN = st.sampled_from(
    ["yarn", "pi,factor=8", "none", "passkey", "perplexity.sliding", "4k-32k", "512", "auto", "toy",
     "methods", "tasks", "corpora", "recipes", "recipe", "json", "csv", "ray", "slurm"]
)  # fmt: skip
FLAGS = st.sampled_from(
    [f"--{word.replace('_', '-')}" for word in Grid.model_fields]
    + ["--results", "--where", "--format", "--json", "--retry", "--dry-run", "--engine",
       "--workers", "--address", "--job", "-m", "-t", "-l", "--theta", "--head-dim", "--factors",
       "--offline"]
)  # fmt: skip
VERBS = st.sampled_from(["run", "run", "run", "run-cell", "list", "show", "plot", "score", "lst"])
LINES = st.builds(
    lambda verb, rest: [verb, *rest],
    VERBS,
    st.lists(st.one_of(FLAGS, FLAGS, KNOWN, JUNK), max_size=10),
)


@contextmanager
def nothing_is_run(place):
    """No generated line that turns out well may measure, nor leave anything behind."""

    def well(options):
        raise ValueError("This one would run.")

    with patch.dict(os.environ), patch("harness.plan.plan", well):
        before = Path.cwd()
        os.chdir(place)
        try:
            yield
        finally:
            os.chdir(before)


def said(argv):
    """The exit code, and what it says on standard error."""
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as left:
        main(argv)
    return left.value.code or 0, err.getvalue()


def holds(law, about, count):
    """Of so many examples, none of which may take ten seconds."""
    how = settings(
        max_examples=count,
        deadline=10_000,
        database=None,
        derandomize=not THOROUGH,
        print_blob=True,
        suppress_health_check=[*HealthCheck],
    )
    how(given(about)(law))()


def bad_lines(place, count):
    def law(argv):
        code, words = said(argv)
        assert code in (0, 2), words
        assert code == 0 or (words.startswith("harness: ") and words.count("\n") == 1)

    with nothing_is_run(place):
        holds(law, LINES, count)


VALUES = st.recursive(
    st.one_of(JUNK, KNOWN, st.none(), st.booleans(), st.integers(), st.floats()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(JUNK, st.integers()), inner, max_size=3),
    ),
    max_leaves=8,
)
GRIDS = st.one_of(
    st.binary(max_size=200),
    st.text(st.sampled_from(string.printable), max_size=200).map(str.encode),
    st.dictionaries(st.one_of(st.sampled_from(list(Grid.model_fields)), JUNK), VALUES).map(
        lambda words: yaml.safe_dump(words).encode()
    ),
    st.fixed_dictionaries(
        {"method": st.one_of(VALUES, KNOWN), "task": st.one_of(VALUES, KNOWN), "lengths": VALUES}
    ).map(lambda words: json.dumps(words).encode()),
)


def bad_grids(place, count):
    file = place / "grid.yaml"

    def law(text):
        file.write_bytes(text)
        try:
            options({}, file)
        except (ValueError, LookupError) as error:
            assert str(error) and not isinstance(error, KeyError | IndexError)

    holds(law, GRIDS, count)


CELL = Cell(model="toy", method="pi", task="passkey.standard", length=4096)
WHOLE = Result(
    cell=CELL, status="scored", value=0.5, low=0.4, high=0.6, parts={"0.5": 1.0}
).model_dump()


def leaves(tree, path=()):
    """The paths to everything in it."""
    yield path
    for key, value in tree.items() if isinstance(tree, dict) else ():
        yield from leaves(value, (*path, key))


def changed(path, value):
    tree = json.loads(json.dumps(WHOLE))
    if not path:
        return value
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return tree


TEXT = json.dumps(WHOLE).encode()
RESULTS = st.one_of(
    st.binary(max_size=200),
    st.integers(0, len(TEXT) - 1).map(lambda n: TEXT[:n]),
    st.tuples(st.integers(0, len(TEXT) - 1), st.binary(max_size=3)).map(
        lambda at: TEXT[: at[0]] + at[1] + TEXT[at[0] + 1 :]
    ),
    st.builds(changed, st.sampled_from([*leaves(WHOLE)]), VALUES).map(
        lambda tree: json.dumps(tree).encode()
    ),
)


def bad_results(place, count):
    good = Result(cell=CELL.model_copy(update={"method": "none"}), status="scored", value=0.5)
    Store(place).write(good)
    file = place / "runs" / CELL.path
    file.parent.mkdir()

    def law(text):
        file.write_bytes(text)
        store = Store(place)
        found = [*store.results()]
        named = [broken.path for broken in store.broken]
        assert good in found and (len(found) == 2) != (named == [file])
        assert all(np.isfinite(r.value) for r in found if r.status == "scored")
        assert all(str(broken) for broken in store.broken)
        if len(found) == 2:  # an odd one, that a table must bear
            code, words = said(["results", "--results", str(place)])
            assert code == 0, words

    holds(law, RESULTS, count)


FEW, MANY = 200, 20_000 if THOROUGH else 4000


def test_no_generated_command_line_brings_a_traceback(tmp_path):
    bad_lines(tmp_path, FEW)


def test_no_generated_grid_file_brings_a_traceback(tmp_path):
    bad_grids(tmp_path, FEW)


def test_no_generated_result_file_is_taken_for_one_or_hides_another(tmp_path):
    bad_results(tmp_path, FEW)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("law", "count"),
    [(bad_lines, MANY * 3 // 5), (bad_grids, MANY * 3 // 20), (bad_results, MANY // 4)],
)
def test_nor_do_thousands(tmp_path, law, count):
    """Others each time."""
    law(tmp_path, count)
