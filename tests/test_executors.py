"""Many cells at once: every cell once, on whoever is free, with the numbers of one process."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from itertools import combinations, pairwise, product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import catalog, contents
from harness.cell import Cell, Result
from harness.cli import main
from harness.disk import held
from harness.executors import chosen, local, slurm, work
from harness.executors.queue import Queue
from harness.executors.ray import Ray, Worker, slots
from harness.executors.slurm import Slurm
from harness.executors.together import JointProgress
from harness.plan import Options, Planned, plan
from harness.store import Store

pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # submitit's and Ray's own
]


class Notes:
    """A watch that remembers."""

    def __init__(self):
        self.running, self.finished, self.said, self.read = [], [], [], 0.0

    def cell_started(self, cells, tokens):
        self.running, self.tokens, self.read = list(cells), tokens, 0.0

    def progressed(self, tokens):
        self.read += tokens

    def cell_finished(self, result):
        self.finished.append(result.cell)

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
def grid(wish):
    return plan(wish)


def command(*words):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code or 0


def planned(seconds, *, model="m", length=1, method="none", task="passkey"):
    cell = Cell(model=model, method=method, task=task, length=length)
    return Planned(cell=cell, tokens=1, seconds=seconds, bytes=1, fits=True, model=model)


def numbers(results):
    """What must be the same, whoever measured."""
    return {
        r.cell: (r.status, r.value, r.n, r.items, r.provenance.get("encoding")) for r in results
    }


def measured_here(grid, wish, folder):
    found = [*local.execute(grid, Store(folder), wish, Notes())]
    assert {r.status for r in found} == {"scored"}, found[0].reason
    return numbers(found)


# Which pass is next


def run_through(queue, workers):
    """What each worker did, if passes take as long as they were planned to."""
    holds, free, did = dict.fromkeys(workers), dict.fromkeys(workers, 0.0), {w: [] for w in workers}
    while queue.left:
        worker = min(workers, key=lambda w: free[w])
        unit = queue.take(worker, holds)
        holds[worker] = unit.model
        free[worker] += unit.seconds
        did[worker].append(unit)
    return did, max(free.values())


some_seconds = st.lists(st.integers(1, 100), min_size=1, max_size=7)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9))), st.integers(1, 4))
def test_every_pass_is_taken_once(passes, count):
    given_ = [[planned(s, model=m)] for m, s in passes]
    did, _ = run_through(Queue(given_), range(count))
    assert sorted(map(id, given_)) == sorted(id(unit.planned) for w in did for unit in did[w])


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9))))
def test_one_worker_reads_each_model_once_and_begins_with_the_longest(passes):
    did, _ = run_through(Queue([[planned(s, model=m)] for m, s in passes]), [0])
    models = [unit.model for unit in did[0]]
    assert sum(a != b for a, b in pairwise(models)) == max(0, len(set(models)) - 1)
    for model in set(models):
        lasts = [unit.seconds for unit in did[0] if unit.model == model]
        assert lasts == sorted(lasts, reverse=True)


@given(some_seconds)
def test_two_workers_are_within_a_sixth_of_the_best_order(each):
    """Graham's 4/3 - 1/3m for two workers, against every way to share."""
    _, took = run_through(Queue([[planned(s)] for s in each]), [0, 1])
    shares = (sum(c) for n in range(len(each) + 1) for c in combinations(each, n))
    best = min(max(share, sum(each) - share) for share in shares)
    assert took <= best * 7 / 6 + 1e-9


def test_two_workers_take_a_model_each():
    queue = Queue([[planned(5, model=m)] for m in "aabb"])
    did, _ = run_through(queue, [0, 1])
    assert [{unit.model for unit in did[w]} for w in did] == [{"a"}, {"b"}]


def test_a_pass_that_a_worker_died_of_goes_to_another_while_one_lives():
    queue = Queue([[planned(1)]])
    unit = queue.take("a", {"a": None, "b": None})
    unit.tried.append("a")
    queue.again(unit)
    assert queue.take("a", {"a": None, "b": None}) is None
    assert queue.take("a", {"a": None}) is unit


# Where workers are


def node(name, alive=True, **has):
    return {"NodeID": name, "Alive": alive, "Resources": has}


def dealt(nodes, workers=None, gpus=1, device="auto"):
    return [(s.node, s.threads, s.gpus) for s in slots(nodes, workers, gpus, device)]


def test_workers_are_dealt_to_nodes_in_turn_and_share_their_cores():
    two = [node("a", CPU=8.0), node("b", CPU=4.0)]
    assert dealt(two) == [("a", 8, 0), ("b", 4, 0)]
    assert dealt(two, 3) == [("a", 4, 0), ("b", 4, 0), ("a", 4, 0)]
    assert dealt([node("a", CPU=2.0), node("b", False, CPU=64.0), node("c")], 2) == [
        ("a", 1, 0), ("a", 1, 0),
    ]  # fmt: skip
    assert dealt([node("a", CPU=1.0)], 3) == [("a", 1, 0)] * 3
    for cores, workers in ((2, 3), (4, 6), (5, 7)):  # as Ray rounds them, they still fit
        places = slots([node("a", CPU=float(cores))], workers, 1, "cpu")
        assert sum(round(place.cores * 10_000) for place in places) <= cores * 10_000


def test_a_worker_has_a_gpu_or_several_of_one_node():
    two = [node("a", CPU=16.0, GPU=2.0), node("b", CPU=16.0, GPU=1.0), node("c", CPU=64.0)]
    assert dealt(two) == [("a", 8, 1), ("b", 16, 1), ("a", 8, 1)]
    assert dealt(two, gpus=2) == [("a", 16, 2)]
    assert dealt(two, device="cpu") == [("a", 16, 0), ("b", 16, 0), ("c", 64, 0)]
    with pytest.raises(LookupError, match="No machine of the cluster has 3 GPUs"):
        dealt(two, gpus=3)  # and not the processors, in silence
    with pytest.raises(ValueError, match="--workers 4: the cluster has GPUs for 3"):
        dealt(two, 4)
    with pytest.raises(LookupError, match="--device cpu"):
        dealt([node("a", CPU=2.0)], device="cuda")
    with pytest.raises(LookupError, match="no machine"):
        dealt([node("a", False, CPU=2.0)])


def test_what_many_workers_tell_is_one_pass_to_the_watch(grid):
    watch = Notes()
    together = JointProgress(watch)
    first, second = grid[0].cell, grid[1].cell
    together.started("a", [first], 100)
    together.progressed("a", 30)
    together.started("b", [second], 50)
    assert watch.running == [first, second] and (watch.tokens, watch.read) == (150, 30)
    together.progressed("b", 5)
    assert watch.read == 35
    together.ended("a", [Result(cell=first, status="failed", reason="it fell")])
    assert watch.finished == [first] and watch.running == [second]
    assert (watch.tokens, watch.read) == (50, 5)


# Cell files


def test_a_row_that_may_be_one_pass_is_one_file(wish):
    wish = replace(wish, methods=("pi", "dynamic-ntk"), tasks=("perplexity",), corpus="stdlib")
    found = work.units(plan(replace(wish, depths=None)))
    assert [[p.cell.length for p in unit] for unit in found] == [[300, 600], [300], [600]]


def test_a_row_of_factors_for_short_inputs_too_is_a_pass_for_each(wish, tmp_path):
    place = shutil.copytree(wish.models[0], tmp_path / "longrope")
    config = json.loads((place / "config.json").read_text())
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "factor": 2.0}
    config["rope_parameters"] |= factors | {
        "rope_type": "longrope", "original_max_position_embeddings": 512,
    }  # fmt: skip
    (place / "config.json").write_text(json.dumps(config))
    wish = replace(wish, models=(str(place),), methods=("longrope",), tasks=("perplexity",))
    for lengths, rows in (((300, 600), 2), ((600, 900), 1)):
        found = plan(replace(wish, lengths=lengths, corpus="stdlib", depths=None))
        assert len(work.units(found)) == rows
        assert {one.share for one in found} == ({1.0} if rows == 2 else {0.4, 0.6})


def test_a_cell_file_is_run_anywhere_with_the_same_numbers(tmp_path, wish, grid, capsys):
    here = measured_here(grid, wish, tmp_path / "here")
    words = ["-m", "none,pi", "-t", "passkey", "-l", "300,600", "--samples", 1, "--depths", "0.5"]
    words += ["--model", grid[0].model, "--dtype", "float32", "--device", "cpu"]
    there, cells = tmp_path / "there", tmp_path / "cells"
    asked = ["run", *words, "--results", there]
    assert command(*asked, "--write-cells", cells) == 0 and not there.exists()
    for file in sorted(cells.iterdir()):
        assert command("run-cell", file, "--results", there) == 0
    assert numbers(Store(there).results()) == here
    capsys.readouterr()
    assert command("run-cell", cells / "0.json", "--results", there) == 0
    assert capsys.readouterr().err == ""
    assert command(*asked, "--write-cells", tmp_path / "none") == 0
    assert [*(tmp_path / "none").iterdir()] == []


def test_a_file_that_a_method_reads_travels_with_its_cells(tmp_path, wish, capsys, monkeypatch):
    """Named by content: the same cell from any folder, and another once the file has changed."""
    factors = json.dumps({"factors": [1.5] * 8, "factor": 2.0})
    cells = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        file = tmp_path / folder / "my-found.json"
        file.write_text(factors)
        named = replace(wish, methods=(f"longrope,factors={file}",), lengths=(600,))
        cells.append(plan(named))
    (first,), (second,) = cells
    assert first.cell == second.cell and "factors=my-found@" in first.cell.method
    file.write_text(factors.replace("1.5", "1.25"))
    assert plan(named)[0].cell != first.cell
    (work_file,) = work.write([first], wish, tmp_path / "cells")
    for folder in ("a", "b"):
        (tmp_path / folder / "my-found.json").unlink()
    monkeypatch.setenv("CONTEXT_HARNESS_CACHE", str(tmp_path / "another machine"))
    monkeypatch.setattr(contents, "_known", {})
    with pytest.raises(ValueError, match="No factors can be read from 'my-found@"):
        catalog.load("methods", first.cell.method)
    ((said, _, _),) = Worker(1, False, {}).measure(work_file.read_text())
    assert Result.model_validate_json(said).status == "scored"
    monkeypatch.setenv("CONTEXT_HARNESS_CACHE", str(tmp_path / "a third"))
    monkeypatch.setattr(contents, "_known", {})
    assert command("run-cell", work_file, "--results", tmp_path / "there") == 0
    (result,) = Store(tmp_path / "there").results()
    assert result.provenance["method"]["factors"] == [1.5] * 8


def test_cell_files_begin_with_the_longest(tmp_path, wish, grid):
    files = work.write(grid, wish, tmp_path)
    assert [f.name for f in files] == ["0.json", "1.json", "2.json", "3.json"]
    took = [work.seconds(work.read(file).plan()) for file in files]
    assert took == sorted(took, reverse=True)
    with pytest.raises(ValueError, match="holds cell files already"):
        work.write(grid, wish, tmp_path)


def test_a_cell_file_cannot_ask_for_code_of_others(tmp_path, wish, grid):
    (file, *_) = work.write(grid, replace(wish, trust_remote_code=True), tmp_path)
    assert "trust" not in file.read_text()
    assert work.read(file).options().trust_remote_code is False


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda t: t[:100], "EOF"),
        (lambda t: "[]", "object"),
        (lambda t: t.replace('"model"', '"modle"', 1), "modle|model"),
        (lambda t: t.replace('"schema_version": 1', '"schema_version": 9'), "schema_version"),
        (lambda t: t.replace('"none"', '"nine"'), "No method named 'nine'"),
        (lambda t: t.replace("passkey.standard", "passky"), "No task named 'passky'"),
        (lambda t: t + " " * 2**20, "is larger than 1024 kB"),
        (lambda t: t.replace('"device"', '"trust_remote_code": true, "device"'), "trust_remote"),
    ],
)
def test_a_file_that_is_no_cell_file_says_why(tmp_path, wish, grid, capsys, spoil, why):
    (file, *_) = work.write(grid[:1], wish, tmp_path / "cells")
    file.write_text(spoil(file.read_text()))
    with pytest.raises((ValueError, LookupError), match=why):
        work.read(file)
    assert command("run-cell", file, "--results", tmp_path) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_pass_of_other_weights_or_another_text_is_not_measured(tmp_path, wish, grid):
    other = replace(grid[0], made_of={"weights": "0" * 64})
    (result,) = local.execute([other], Store(tmp_path), wish, Notes())
    assert result.status == "failed" and "other weights here" in result.reason
    (tmp_path / "text.txt").write_text("so it goes " * 1000)
    asked = replace(wish, tasks=("perplexity",), depths=None, corpus=f"text:{tmp_path}/text.txt")
    (row,) = work.units(plan(replace(asked, methods=("none",))))
    (tmp_path / "text.txt").write_text("so it went " * 1000)
    found = [*local.execute(row, Store(tmp_path), asked, Notes())]
    assert {r.status for r in found} == {"failed"} and "Copy it anew" in found[0].reason


# The choice


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--workers", "2"], "--workers is for --engine ray or slurm, not for local"),
        (["--engine", "slurm", "--address", "a:1"], "--address is for --engine ray"),
        (["--gpus-per-worker", "2"], "--gpus-per-worker is for --engine ray, not for local"),
        (["--engine", "ray", "--gpus-per-worker", "0"], "--gpus-per-worker must be at least 1"),
        (["--engine", "ray", "--job", "name=a"], "--job is for --engine slurm"),
        (["--engine", "ray", "--workers", "0"], "--workers must be at least 1"),
        (["--engine", "slurm", "--job", "long"], "--job takes name=value,name=value"),
        (["--engine", "dask"], "'dask' is not one of 'local', 'ray', 'slurm'"),
    ],
)
def test_a_wish_that_no_engine_takes_is_refused(capsys, words, why):
    assert command("run", "-m", "pi", "-t", "passkey", "-l", "512", *words) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(("engine", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_an_engine_that_is_not_installed_says_what_to_install(
    tmp_path, wish, grid, monkeypatch, engine, package
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"context-harness\[{engine}\]") as error:
        [*chosen(engine).execute(grid, Store(tmp_path), wish, Notes())]
    assert error.value.name is None


@pytest.mark.parametrize("engine", [Ray(address="127.0.0.1:1"), Slurm(cluster="debug", tick=0.0)])
def test_the_second_run_on_a_folder_is_told_so_whatever_runs_its_cells(
    tmp_path, wish, grid, engine
):
    pytest.importorskip("ray")
    pytest.importorskip("submitit")
    watch, store = Notes(), Store(tmp_path / "there")
    with held(store.runs), suppress(LookupError):  # of a cluster that is nowhere
        [*engine.execute(grid[:1], store, wish, watch)]
    assert "Another harness run is filling" in watch.said[0]


# Slurm


def test_jobs_fill_the_results_folder(tmp_path, wish, grid):
    pytest.importorskip("submitit")
    watch, store = Notes(), Store(tmp_path / "there")
    found = numbers(Slurm(cluster="debug", tick=0.0).execute(grid, store, wish, watch))
    assert found == measured_here(grid, wish, tmp_path / "here")
    assert len(watch.finished) == 4 and "jobs are submitted" in watch.said[0]


def test_words_that_slurm_does_not_know_are_refused(tmp_path, wish, grid):
    pytest.importorskip("submitit")
    with pytest.raises(ValueError, match=r"--engine slurm: .*gpu_count"):
        engine = Slurm(job={"gpu_count": 1}, cluster="local")
        [*engine.execute(grid, Store(tmp_path), wish, Notes())]


def test_what_sbatch_refuses_is_said_and_nothing_stays_in_the_queue(
    tmp_path, wish, grid, monkeypatch
):
    submitit = pytest.importorskip("submitit")
    submit, submitted = submitit.AutoExecutor.map_array, []

    def refusing(self, *words):
        if submitted:
            raise RuntimeError("sbatch: error: invalid partition specified")
        submitted.extend(submit(self, *words))
        return submitted

    monkeypatch.setattr(slurm, "ARRAY", 1)
    monkeypatch.setattr(submitit.AutoExecutor, "map_array", refusing)
    ended = []
    monkeypatch.setattr(submitit.DebugJob, "cancel", lambda job, check=True: ended.append(job))
    with pytest.raises(ValueError, match="--engine slurm: sbatch: error: invalid partition"):
        [*Slurm(cluster="debug").execute(grid, Store(tmp_path), wish, Notes())]
    assert ended == submitted and len(ended) == 1


def test_a_machine_without_slurm_says_so(tmp_path, wish, grid):
    pytest.importorskip("submitit")
    if shutil.which("sbatch"):
        pytest.skip("this machine has Slurm")
    with pytest.raises(ValueError, match=r"--engine slurm: .*[Ss]lurm"):
        [*Slurm().execute(grid, Store(tmp_path), wish, Notes())]
    assert not (tmp_path / "jobs").exists()


@pytest.mark.slow
def test_a_job_that_dies_is_submitted_again_then_said(tmp_path, wish, grid, monkeypatch):
    pytest.importorskip("submitit")
    tries, perform = tmp_path / "tries", slurm._perform

    def mortal(file, *how):
        if '"pi' in file.read_text():
            with tries.open("a") as log:
                log.write("x")
            os.kill(os.getpid(), 9)
        perform(file, *how)

    monkeypatch.setattr(slurm, "_perform", mortal)
    store, watch = Store(tmp_path / "there"), Notes()
    engine = Slurm(cluster="local", tick=0.1, grace=0.2, retries=1)
    found = {r.cell: r for r in engine.execute([grid[0], grid[-1]], store, wish, watch)}
    assert found[grid[0].cell].status == "scored"
    lost = found[grid[-1].cell]
    assert lost.status == "failed" and "its job ended 2 times without it" in lost.reason
    assert tries.read_text() == "xx" and len(watch.finished) == 2
    assert store.get(lost.cell) == lost


# Ray


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one core each, on this machine."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


def told(seconds=0.0, dies=None):
    """A worker that tells when and where it measured; it may take longer, or die of a method:
    once, where a file is named that marks it, or each time.

    Made in here, so that it travels by value: workers do not see this file.
    """

    class Told(Worker):
        def measure(self, asked):
            import ray

            began, where = time.time(), ray.get_runtime_context().get_node_id()
            for name, mark in (dies or {}).items():
                if f'"method":"{name}' not in asked or (mark and Path(mark).exists()):
                    continue
                if mark:
                    Path(mark).write_text(where)
                os.kill(os.getpid(), 9)
            found = super().measure(asked)
            time.sleep(seconds)
            gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            about = {"node": where, "began": began, "ended": time.time(), "gpus": gpus}
            return [(said, losses, [about]) for said, losses, _ in found]

    return Told


@pytest.fixture
def on(cluster, monkeypatch, tmp_path, wish, grid):
    """Run the grid on the cluster; what workers told, and the results."""

    def on(worker, watch=None, meanwhile=lambda: None, wish=wish, **more):
        monkeypatch.setattr("harness.executors.ray.Worker", worker)
        store, found = Store(tmp_path / "there"), []
        engine = Ray(address=cluster.address, **more)
        for result in engine.execute(grid, store, wish, watch or Notes()):
            assert store.get(result.cell) == result
            found.append(result)
            meanwhile()
        return found, [s for r in found for s in store.samples(r.cell)]

    return on


@pytest.mark.slow
def test_two_nodes_work_at_the_same_time_with_the_numbers_of_one_process(on, tmp_path, wish, grid):
    watch = Notes()
    found, places = on(told(seconds=1.0), watch)
    assert numbers(found) == measured_here(grid, wish, tmp_path / "here")
    assert {r.provenance["threads"] for r in found} == {1}
    assert sorted(map(str, watch.finished)) == sorted(str(p.cell) for p in grid)
    overlaps = [
        min(a["ended"], b["ended"]) - max(a["began"], b["began"])
        for a, b in product(places, places)
        if a["node"] < b["node"]
    ]
    assert len({p["node"] for p in places}) == 2 and max(overlaps) > 0.5


@pytest.mark.slow
def test_a_pass_whose_worker_dies_is_tried_elsewhere_and_failed_where_every_one_dies(on, tmp_path):
    mark = tmp_path / "died"
    found, _ = on(told(dies={"none": str(mark), "pi": None}), retries=1)
    assert len(found) == 4 and mark.exists()
    for result in found:
        if result.cell.method.startswith("pi"):
            assert result.status == "failed" and "its worker died 2 times" in result.reason
        else:
            assert result.status == "scored"


@pytest.mark.slow
def test_a_node_that_dies_takes_no_cell_with_it(cluster, on):
    extra = cluster.add_node(num_cpus=1)
    gone = []

    def dies():
        if not gone:
            gone.append(extra.node_id)
            cluster.remove_node(extra, allow_graceful=False)

    found, places = on(told(seconds=1.5), meanwhile=dies)
    assert gone and len(found) == 4 and {r.status for r in found} == {"scored"}
    assert {p["node"] for p in places if p["ended"] > places[0]["ended"] + 1.0} <= {
        p["node"] for p in places
    } - set(gone)


@pytest.mark.slow
def test_a_worker_of_two_gpus_sees_its_own(cluster, on, wish):
    """Of a node that says it has four: there, as nothing is on them, the model is on the CPU."""
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("the GPUs that the node claims would be used")
    extra = cluster.add_node(num_cpus=2, num_gpus=4)
    try:
        _, places = on(told(seconds=0.5), wish=replace(wish, device="auto"), gpus=2)
    finally:
        cluster.remove_node(extra)
    assert {p["gpus"] for p in places} == {"0,1", "2,3"}


LOOPBACK = """
import psutil
from harness.executors.ray import _connected
with _connected(None) as ray:
    me = psutil.Process()
    every = [me, *me.children(recursive=True)]
    ports = [c.laddr.ip for p in every for c in p.net_connections() if c.status == "LISTEN"]
    print(len(ports), sorted({ip.removeprefix("::ffff:") for ip in ports}))
"""


@pytest.mark.slow
def test_nothing_listens_beyond_this_machine_unless_told_to():
    pytest.importorskip("ray")
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOOPBACK], capture_output=True, text=True, check=True
    )
    count, where = done.stdout.splitlines()[-1].split(" ", 1)
    assert int(count) >= 3 and where == "['127.0.0.1']"


def test_an_address_without_a_cluster_is_said(tmp_path, wish, grid):
    pytest.importorskip("ray")
    with pytest.raises(LookupError, match=r"No Ray cluster is at 127\.0\.0\.1:1"):
        [*Ray(address="127.0.0.1:1").execute(grid, Store(tmp_path), wish, Notes())]
