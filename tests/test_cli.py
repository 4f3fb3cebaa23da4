"""What the command line answers: exit codes, a sentence for a mistake, pure JSON for --json."""

import json
import os
import subprocess
import sys
import types
from dataclasses import fields, replace

import pytest

from harness import catalog, gridfile
from harness.cell import Cell, Result, grid
from harness.cli import command, main
from harness.cli.settle import settle
from harness.gridfile import Grid, options, specs
from harness.plan import Options, Planned, _task, plan, unextended
from harness.store import Store


def call(*argv):
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in argv])
    return stop.value.code or 0


def no_space(*_):
    raise OSError(28, "No space left on device")


def mistake(capsys, *argv):
    """The one sentence it says of a mistake."""
    assert call(*argv) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("harness: ")
    return said.err


def planned(options):
    """An honest fake: reads names and lengths, measures nothing."""
    methods = [catalog.canonical("methods", m) for m in options.methods]
    tasks = [catalog.canonical("tasks", t) for t in options.tasks]
    return [
        Planned(cell=c, tokens=c.length, seconds=1.0, bytes=10**9, fits=c.length < 2**20)
        for c in grid(list(options.models), methods, tasks, list(options.lengths))
    ]


class Machine:
    """Stands in for the engine: each cell is scored 0.5, or what `does` makes of it."""

    def __init__(self):
        self.ran, self.does = [], lambda cell: None

    def execute(self, plan, store, options, watch):
        for p in plan:
            watch.cell_started([p.cell], p.tokens)
            watch.progressed(p.tokens)
            self.ran.append(p.cell)
            result = self.does(p.cell) or Result(
                cell=p.cell, status="scored", value=0.5, low=0.4, high=0.6, metric="accuracy"
            )
            store.write(result)
            watch.cell_finished(result)
            yield result


@pytest.fixture
def machine(monkeypatch):
    it = Machine()
    module = types.ModuleType("harness.executors.local")
    module.execute = it.execute
    monkeypatch.setitem(sys.modules, "harness.executors.local", module)
    monkeypatch.setattr("harness.plan.plan", planned)
    return it


@pytest.fixture
def run(tmp_path):
    def run(*more, method="none,pi", lengths="4k-8k", folder=tmp_path / "results"):
        return call("run", "-m", method, "-t", "passkey", "-l", lengths, "--results", folder, *more)

    return run


# What is asked for


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("none", ("none",)),
        ("none,yarn,factor=8,pi", ("none", "yarn,factor=8", "pi")),
        ("yarn,factor=8,beta_fast=64,yarn", ("yarn,factor=8,beta_fast=64", "yarn")),
        (["none, pi", "pi"], ("none", "pi")),
        ("org/model,/a=b/c", ("org/model", "/a=b/c")),
    ],
)
def test_a_parameter_belongs_to_the_name_before_it(text, names):
    assert specs(text) == names


def test_a_comma_in_a_value_is_named(tmp_path):
    (folder := tmp_path / "a,b").mkdir()
    with pytest.raises(ValueError, match="commas are not allowed in a name"):
        specs(str(folder))
    with pytest.raises(ValueError, match="Commas are not allowed in a value"):
        catalog.extended("longrope", {"factors": str(folder)})
    with pytest.raises(ValueError, match="no value has a comma"):
        catalog.load("methods", f"longrope,factors={folder}")


def test_a_list_may_be_longer_than_a_name_can_be():
    assert len(specs(",".join(f"passkey,seed={n}" for n in range(40)))) == 40


@pytest.mark.parametrize("text", ["", "yarn,", ",yarn", "factor=8", "a,,b"])
def test_a_list_that_misses_a_name_is_refused(text):
    with pytest.raises(ValueError, match="misses a name"):
        specs(text)


def test_flags_and_a_grid_file_say_the_same(tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text(
        "method: [none, 'yarn,factor=8']\ntask: passkey\nlengths: [4k, 8192]\nfactor: 4\n"
        "depths: [0, 0.5, 1]\nsamples: 3\nseed: 7\nmodel: toy\ndtype: float32\n"
    )
    flags = {
        "method": ["none,yarn,factor=8"], "task": ["passkey"], "lengths": "4k-8k", "factor": "4",
        "depths": "0,0.5,1", "samples": 3, "seed": 7, "dtype": "float32",
    }  # fmt: skip
    expected = Options(
        methods=("none", "yarn,factor=8"), tasks=("passkey",), lengths=(4096, 8192), factor=4.0,
        depths=(0.0, 0.5, 1.0), samples=3, seed=7, dtype="float32",
    )  # fmt: skip
    assert options({}, file) == options(flags) == expected
    assert options({"seed": 8, "method": None}, file).seed == 8


def test_a_length_in_a_grid_file_is_what_is_written(tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text("method: pi\ntask: passkey\nlengths: [010, 4096, 8k]\nfactor: 2.5\n")
    chosen = options({}, file)
    assert chosen.lengths == (10, 4096, 8192) and chosen.factor == 2.5


@pytest.mark.parametrize(
    ("words", "model"),
    [
        ({"method": "longrope"}, "toy-longrope"),
        ({"method": "longrope", "factor": 8}, "toy"),
        ({"method": "longrope,factor=8"}, "toy"),
        ({"method": "longrope,yarn"}, "toy"),
        ({"method": "yarn"}, "toy"),
        ({"method": "longrope", "model": "toy"}, "toy"),
    ],
)
def test_a_method_alone_reads_the_toy_that_was_trained_with_it(words, model):
    assert options({"task": "passkey", "lengths": "4k", **words}).models == (model,)


def test_every_word_of_a_grid_file_is_a_flag():
    flags = {flag for it in command().commands["run"].params for flag in it.opts}
    assert {f"--{word.replace('_', '-')}" for word in Grid.model_fields} <= flags


GOOD = {"method": "pi", "task": "passkey", "lengths": "4k"}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"lengths": "8k-4k"}, "--lengths: '8k-4k' runs backwards: write it 4k-8k."),
        ({"lengths": "4q"}, "--lengths: '4q' is no length."),
        ({"lengths": "0"}, "a length is at least 1 token"),
        ({"factor": "0.5"}, "--factor: a factor must be at least 1, and 0.5 is less."),
        ({"factor": "nan"}, "--factor: takes a number or auto, and 'nan' is none."),
        ({"factor": "big"}, "--factor: takes a number or auto, and 'big' is none."),
        ({"depths": "0,2"}, "--depths: a depth is a share from 0 to 1, and 2 is none."),
        ({"depths": "top"}, "--depths: takes shares such as 0,0.5,1, and 'top' is none."),
        ({"samples": 0}, "--samples: must be at least 1, and 0 is less."),
        ({"seed": -1}, "--seed: must be at least 0, and -1 is less."),
        ({"device": "tpu"}, "--device: takes 'auto', 'cpu' or 'cuda', and 'tpu' is given"),
        ({"dtype": "int4"}, "--dtype: takes 'auto', 'bfloat16' or 'float32'"),
        ({"method": "factor=8"}, "--method: 'factor=8' misses a name"),
        ({"corpus": "stdlib"}, "--corpus: no task here takes it (passkey); leave it out."),
        ({"task": "perplexity", "depths": "0"}, "--depths: no task here takes it (perplexity)"),
        ({"task": "perplexity", "seed": 1}, "--seed: no task here takes it"),
        ({"prompt": "base"}, "--prompt: no task here takes it (passkey); leave it out."),
        ({"prompt": "chatty"}, "--prompt: takes 'auto', 'base' or 'chat', and 'chatty' is given"),
        ({"method": "yarn,pi", "factors": "f"}, "--factors: no method here takes it (yarn, pi)"),
        ({"method": "none", "factor": 2}, "--factor: no method here takes it (none)"),
    ],
)
def test_a_malformed_flag_is_named_with_what_it_takes(capsys, wrong, why):
    words = [w for key, value in (GOOD | wrong).items() for w in (f"--{key}", value)]
    assert why in mistake(capsys, "run", *words)


@pytest.mark.parametrize("word", ["no-context", "pair-lengths"])
def test_a_flag_that_no_task_knows_is_refused(capsys, tmp_path, word):
    words = [w for k, v in (GOOD | {"task": "perplexity"}).items() for w in (f"--{k}", v)]
    assert f"--{word}: no task here takes it (perplexity)" in mistake(
        capsys, "run", *words, f"--{word}"
    )
    file = tmp_path / "grid.yaml"
    file.write_text(f"method: pi\ntask: perplexity\nlengths: 4k\n{word}: yes\n")
    assert f"grid.yaml, {word}: no task here takes it" in mistake(capsys, "run", file)
    file.write_text(f"method: pi\ntask: perplexity\nlengths: 4k\n{word}: 3\n")
    assert f"grid.yaml, {word}: takes a valid boolean" in mistake(capsys, "run", file)


def test_a_control_is_asked_of_tasks_that_have_one_alone(capsys, tmp_path):
    words = ("run", "-m", "none", "-l", "4k", "--no-context")
    said = mistake(capsys, *words, "-t", "infinitebench")
    assert "--no-context: infinitebench.passkey, infinitebench.number_string," in said
    controls = said[said.index("Take --task ") :].split()[2].rstrip(".").split(",")
    assert len(controls) == 4 and "infinitebench.longbook_qa_eng" in controls
    assert options({"task": controls, "method": "none", "lengths": "4k", "no_context": True})
    said = mistake(capsys, *words, "-t", "passkey,longbench.qasper")
    assert "passkey cannot be asked without a text. Take --task longbench.qasper." in said


def test_a_word_that_some_tasks_leave_as_they_are_is_said():
    asked = options(
        {"task": "needle,perplexity,passkey", "method": "none", "lengths": "4k", "prompt": "base"}
    )
    assert gridfile.untaken(asked) == ["--prompt changes nothing of perplexity, passkey."]
    assert gridfile.untaken(replace(asked, prompt=None)) == []


def test_what_an_answer_is_scored_by_is_missed_before_a_model_is_read(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jieba", None)
    said = mistake(
        capsys, "run", "--model", "no/such-model", "-m", "none", "-t", "longbench.dureader",
        "-l", "4k",
    )  # fmt: skip
    assert "scored by jieba, which is not installed" in said
    assert "pip install 'context-harness[longbench]'" in said


@pytest.mark.parametrize("task", catalog.names("tasks"))
@pytest.mark.parametrize(
    ("word", "value", "written"),
    [
        ("prompt", "base", "prompt=base"),
        ("no_context", True, "no_context=true"),
        ("pair_lengths", True, "pair_lengths=true"),
        ("samples", 11, "samples=11"),
    ],
)
def test_a_word_reaches_the_tasks_that_know_it_and_no_other(task, word, value, written):
    for name in catalog.variants("tasks", task):
        known = word in {f.name for f in fields(catalog.load("tasks", name))}
        wish = Options(methods=("none",), tasks=(), lengths=(64,), **{word: value})
        try:
            assert (written in _task(name, wish, stand_in=False).split(",")) == known
        except ValueError:
            assert known and word in ("no_context", "pair_lengths", "seed")  # refused in words


@pytest.mark.parametrize("key", GOOD)
def test_what_is_missing_is_named(capsys, key):
    words = [w for k, v in GOOD.items() if k != key for w in (f"--{k}", v)]
    assert f"--{key} is missing" in mistake(capsys, "run", *words)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (
            "methdo: pi\n",
            "has the unknown key 'methdo'. Did you mean 'method'? Known: method, task",
        ),
        ("trust_remote_code: true\n", "unknown key 'trust_remote_code'"),
        ("- pi\n", "is no grid file: write lines such as 'method: yarn'"),
        ("method: [pi\n", "is no grid file"),
        ("method: !!python/name:os.system\n", "is no grid file"),
        ("method: &a [pi]\ntask: *a\n", "uses an alias"),
        ("seed: !!bool maybe\n", "uses a tag"),
        ("seed: !!timestamp x\n", "uses a tag"),
        ("method: pi\ntask: passkey\nlengths: 4k\nlengths: 8k\n", "it says lengths twice"),
        ("method: pi\ntask: passkey\nlengths: 1:30\n", "lengths: '1:30' has a step but no range"),
        (
            "method: pi\ntask: passkey\nlengths: 4k\nsamples: 010\n",
            "samples: takes a valid integer, and '010' is given",
        ),
        ("method: pi\ntask: passkey\nlengths: 4k\nfactor: 1:30.5\n", "'1:30.5' is none"),
        ("[" * 9000, "more than 100 brackets"),
        ("- " * 7000, "is no grid file"),
        ("#" * 70_000, "is larger than 16 kB"),
        ("", "is no grid file"),
        ("method: []\ntask: passkey\nlengths: 4k\n", "method: names nothing: write one name"),
        ("method: pi\ntask: []\nlengths: 4k\n", "task: names nothing"),
        ("method: pi\ntask: passkey\nlengths: []\n", "lengths: "),
        ("method: pi\ntask: passkey\nlengths: 4k\nmodel: []\n", "model: names nothing"),
        ("method: pi\ntask: passkey\nlengths: 4k\ndepths: []\n", "depths: takes shares such as"),
        ("method: {a: 1}\ntask: passkey\nlengths: 4k\n", "method: takes names, and"),
        ("method: pi\ntask: passkey\nlengths: [true]\n", "lengths: takes lengths such as 4k-32k"),
        (
            "method: pi\ntask: passkey\nlengths: 4k\nsamples: yes\n",
            "samples: takes a valid integer, and True",
        ),
        ("method: pi\ntask: passkey\nlengths: 4k\nfactor: .inf\n", "factor: takes a number"),
        ("method: pi\ntask: passkey\nlengths: 4k\ndepths: {}\n", "depths: takes shares"),
    ],
)
def test_a_grid_file_that_is_none_says_why(capsys, tmp_path, text, why):
    file = tmp_path / "grid.yaml"
    file.write_text(text)
    assert why in mistake(capsys, "run", file)


def test_a_grid_file_that_is_not_there_is_named(capsys, tmp_path):
    assert "none.yaml: No such file" in mistake(capsys, "run", tmp_path / "none.yaml")


def test_no_grid_file_is_read_without_end(tmp_path):
    (tmp_path / "big").write_bytes(b"a: 1\n" * 10**6)
    with pytest.raises(ValueError, match="larger"):
        gridfile.read(tmp_path / "big")


# Verbs and names that are none


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["lst"], "Did you mean 'list'?"),
        (["run", "--methd", "x"], "No such option: --methd"),
        (["run", "--tasks", "x"], "No such option: --tasks. Here it is --task."),
        (["run", "--limit", "3"], "No such option: --limit. Here it is --samples."),
        (["run", "--max_length", "4k"], "Here it is --lengths."),
        (["list", "things"], "There are: methods, tasks, models, corpora, recipes."),
        (["run", "--samples", "many"], "'--samples'"),
        (["show", "yarm"], "No method or task named 'yarm'. Did you mean 'yarn'?"),
        (["show", "yarn", "--theta", "10000"], "give --head-dim and --original-length too"),
        (["show", "yarn", "--length", "0"], "'0'"),
        (
            ["show", "yarn", "--length", "4k"],
            "give --head-dim and --theta and --original-length too",
        ),
        (["show", "passkey", "--head-dim", "64"], "leave --head-dim out"),
        (["show", "passkey", "--length", "4k"], "give --model and --length"),
        (["show", "passkey", "--model", "toy"], "Say at which length: --length 4k."),
        (["show", "yarn", "--model", "toy", "--length", "4k"], "No task named 'yarn'"),
        (
            ["show", "yarn", "--head-dim", "63", "--theta", "1e4", "--original-length", "64"],
            "an even number of at least 4 channels",
        ),
        (["results", "--results", "nowhere"], "There are no results in 'nowhere'."),
        (["results", "--format", "xml"], "'--format': 'xml' is not one of"),
        (["plan", "--offload", "x"], "'--offload': 'x' is not one of"),
        (["results", "--where", "model=toy", "pack"], "Flags go behind the word pack"),
        (["results", "--check"], "--check is for --page"),
        (["results", "--page", "README.md", "--format", "csv"], "--page has its conditions"),
        (["plan", "-m", "pi", "-t", "passkey", "-l", "4k", "--share", "2"], "are for --gpu"),
        (["plan", "-m", "pi", "--check"], "--check is for --page"),
        (["chat", "--port", "80"], "--host and --port are for --web"),
        (["run", "--record", "it.png"], "--record takes a FILE.svg"),
        (["run", "--record", "it.svg", "--dry-run"], "--record takes a FILE.svg for a picture"),
        (["run", "--write-cells", "x", "--dry-run"], "--write-cells runs nothing"),
        (["train", "toy"], "Missing option '--output'"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(capsys, argv, why):
    assert why in mistake(capsys, *argv)


@pytest.mark.parametrize(
    ("flag", "name", "why"),
    [
        ("method", "yarm", "No method named 'yarm'. Did you mean 'yarn'?"),
        ("method", "yarn,factr=8", "yarn has no parameter 'factr'. Did you mean 'factor'?"),
        ("method", "yarn,factor=0.5", "A factor is a number from 1 up"),
        ("method", "yarn,factor=big", "factor takes a number, and 'big' is none."),
        ("task", "passky", "No task named 'passky'. Did you mean 'passkey'?"),
        ("task", "perplexity.slidng", "Did you mean 'sliding'?"),
        ("task", "passkey.", "'passkey' has no variant ''. There are: standard"),
        ("method", "none.", "'none' has no variants"),
        ("method", "yarn,factor=8,factor=4", "says factor twice"),
    ],
)
def test_an_unknown_name_comes_with_the_nearest(capsys, machine, flag, name, why):
    words = [w for key, value in (GOOD | {flag: name}).items() for w in (f"--{key}", value)]
    assert why in mistake(capsys, "run", *words)


def test_what_a_machine_or_a_model_would_not_do_is_a_sentence():
    from harness.cli import _words
    from harness.probe import NotOn

    assert _words(NotOn("It is not on.")) == "It is not on."
    assert _words(MemoryError()) == "It does not fit: out of memory"
    assert _words(RuntimeError("CUDA out of memory. Tried\nto")).endswith("memory. Tried")
    assert _words(RuntimeError("a fault")) is None
    assert "write ./~NAME" in _words(RuntimeError("Could not determine home directory."))


def test_the_words_of_a_picture_are_those_that_measure():
    from harness.cli.run import _without

    for typed in (["run", "--record", "a.svg", "-l", "4k"], ["run", "--record=a.svg", "-l", "4k"]):
        assert _without("--record", typed) == ["run", "-l", "4k"]


def test_a_program_error_keeps_its_traceback(monkeypatch):
    def broken(options):
        return {}["a"]

    monkeypatch.setattr("harness.plan.plan", broken)
    with pytest.raises(KeyError):
        main(["run", "-m", "pi", "-t", "passkey", "-l", "4k"])


# Running


def test_a_run_measures_every_cell_and_prints_a_table(capsys, machine, run):
    assert run() == 0
    said = capsys.readouterr()
    assert "50 % [40, 60]" in said.out and "pi" in said.out and "8k" in said.out
    assert len(said.err.splitlines()) == len(machine.ran) == 4


def test_the_same_command_again_runs_only_what_is_missing(capsys, machine, run):
    run()
    del machine.ran[:]
    assert run() == 0 and machine.ran == []
    assert run(lengths="4k-16k") == 0 and [c.length for c in machine.ran] == [16384] * 2
    assert "8k" in capsys.readouterr().out


def test_json_is_one_array_of_all_its_cells_and_nothing_else(capsys, machine, run):
    run(lengths="4k")
    capsys.readouterr()
    assert run("--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["method"], r["length"], r["value"]) for r in rows] == [
        ("none", 4096, 0.5), ("none", 8192, 0.5), ("pi", 4096, 0.5), ("pi", 8192, 0.5),
    ]  # fmt: skip


def test_a_cell_that_cannot_run_is_marked_and_the_rest_goes_on(capsys, machine, run):
    def does(cell):
        if cell.length == 8192:
            status = "out_of_memory" if cell.method == "pi" else "unfit"
            return Result(cell=cell, status=status, reason="it is so")

    machine.does = does
    assert run() == 0
    page = capsys.readouterr().out
    assert "OOM" in page and "n/a" in page and "it is so" in page


def test_a_failed_cell_is_told_by_the_exit_code_and_run_again_when_asked(capsys, machine, run):
    machine.does = lambda cell: Result(cell=cell, status="failed", reason="it fell")
    assert run(lengths="4k") == 1
    machine.does = lambda cell: None
    assert run(lengths="4k") == 1 and "failed" in capsys.readouterr().out
    assert run("--retry", lengths="4k") == 0 and "failed" not in capsys.readouterr().out


def test_an_interrupt_prints_what_is_done_and_exits_130(capsys, machine, run):
    def does(cell):
        if cell.length == 8192:
            raise KeyboardInterrupt

    machine.does = does
    assert run("--json") == 130
    said = capsys.readouterr()
    (row,) = json.loads(said.out)
    assert (row["method"], row["length"]) == ("none", 4096) and "Interrupted" not in said.err


def interrupted(*_):
    raise KeyboardInterrupt


def test_an_interrupt_before_the_first_cell_says_so(capsys, machine, run, monkeypatch):
    machine.does = interrupted
    assert run() == 130
    assert capsys.readouterr().err == "Interrupted before anything was measured.\n"
    monkeypatch.setattr("harness.plan.plan", interrupted)
    assert run() == 130
    assert capsys.readouterr().err == "Interrupted before anything was measured.\n"


def test_an_interrupt_after_the_last_cell_says_that_results_are_stored(
    capsys, machine, run, monkeypatch
):
    with monkeypatch.context() as printing:
        printing.setattr("harness.report.sheet.sheets", interrupted)
        assert run() == 130
    said = capsys.readouterr().err
    assert "What was measured is stored" in said and "before anything" not in said
    assert run() == 0 and len(machine.ran) == 4


def test_a_dry_run_measures_nothing_and_writes_nothing(capsys, machine, run, tmp_path):
    assert run("--dry-run", lengths="4k,2048k") == 0
    page = capsys.readouterr().out
    assert "4 cells: 0 done, 4 to run" in page and "2 would not fit" in page
    assert machine.ran == [] and not (tmp_path / "results").exists()
    run(lengths="4k")
    capsys.readouterr()
    run("--dry-run", "--json", lengths="4k,8k")
    states = [r["state"] for r in json.loads(capsys.readouterr().out)]
    assert states == ["done", "missing"] * 2


def test_a_folder_without_a_name_is_not_this_one(capsys, machine):
    words = [w for key, value in GOOD.items() for w in (f"--{key}", value)]
    said = mistake(capsys, "run", *words, "--results", "")
    assert "'--results': it names no folder" in said and machine.ran == []
    assert "it names no folder" in mistake(capsys, "results", "--results", "")


def test_a_results_folder_that_takes_no_files_is_said_before_anything_runs(
    capsys, machine, run, tmp_path
):
    (tmp_path / "file").write_text("")
    assert run(folder=tmp_path / "file") == 2
    assert "Results cannot be written to" in capsys.readouterr().err and machine.ran == []


def test_a_full_disk_ends_the_run_and_loses_nothing(capsys, machine, run, tmp_path, monkeypatch):
    def does(cell):
        if cell.method == "pi":
            monkeypatch.setattr(os, "fsync", no_space)

    machine.does = does
    assert run() == 2
    monkeypatch.undo()
    assert "No space left on device. Make room" in capsys.readouterr().err
    assert len([*Store(tmp_path / "results").results()]) == 2


def test_a_run_takes_away_what_a_killed_one_left_half_written(run, machine, tmp_path):
    run(lengths="4k")
    half = next((tmp_path / "results/runs").rglob("4096.json")).with_name(f".{'a' * 32}.tmp")
    half.write_text("{")
    os.utime(half, (0, 0))
    assert run(lengths="4k") == 0 and half.exists()  # where nothing is to do, nothing is done
    assert run(lengths="4k,8k") == 0 and not half.exists()


def test_a_torn_result_is_named_kept_and_not_counted(capsys, machine, run, tmp_path):
    run(lengths="4k")
    torn = tmp_path / "results" / "runs" / Cell(
        model="toy", method="pi", task="passkey.standard", length=4096
    ).path  # fmt: skip
    torn.write_text('{"cell":')
    capsys.readouterr()
    assert run("--json", lengths="4k") == 1
    said = capsys.readouterr()
    assert len(json.loads(said.out)) == 1 and str(torn) in said.err and "--retry" in said.err
    assert call("results", "--results", tmp_path / "results", "--format", "json") == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)) == 1 and str(torn) in said.err
    assert torn.read_text() == '{"cell":'
    assert run("--retry", "--json", lengths="4k") == 0
    said = capsys.readouterr()
    assert len(json.loads(said.out)) == 2 and str(torn) not in said.err


# Looking


def test_results_print_in_every_form(capsys, machine, run, tmp_path):
    run()
    capsys.readouterr()
    for form, part in {
        "table": "50 % [40, 60]",
        "json": '"peak_memory"',
        "csv": "model,method,",
        "markdown": "| pi | 50 % [40, 60] |",
    }.items():
        folder = tmp_path / "results"
        assert call("results", "--results", folder, "--format", form, "--where", "method=pi") == 0
        said = capsys.readouterr()
        assert part in said.out and "none" not in said.out.replace("None", "")
    assert "Did you mean 'method'?" in mistake(
        capsys, "results", "--results", folder, "--where", "methd=pi"
    )


def test_a_page_is_refreshed_and_checked(capsys, machine, run, tmp_path):
    run()
    page = tmp_path / "README.md"
    page.write_text("# Hello\n<!-- table:a method=pi -->\n<!-- /table:a -->\n")
    asked = ["results", "--results", tmp_path / "results", "--page", page]
    assert call(*asked, "--check") == 1 and "| pi |" not in page.read_text()
    assert call(*asked) == 0 and "| pi | 50 % [40, 60] |" in page.read_text()
    assert call(*asked, "--check") == 0


def test_a_page_stays_as_it_was_where_a_disk_takes_no_other(capsys, tmp_path, monkeypatch):
    page, link = tmp_path / "README.md", tmp_path / "link.md"
    page.write_text("mine")
    link.symlink_to(page)
    with monkeypatch.context() as full, pytest.raises(OSError, match="No space"):
        full.setattr(os, "replace", no_space)
        settle({page: "theirs"}, check=False)
    assert page.read_text() == "mine" and {*tmp_path.iterdir()} == {page, link}
    assert settle({link: "new", tmp_path / "b.md": "b"}, check=True) == 1
    assert f"{link}, {tmp_path / 'b.md'}: behind." in capsys.readouterr().err
    assert settle({link: "new"}, check=False) == 0 and link.is_symlink()
    assert page.read_text() == "new" and settle({link: "new"}, check=True) == 0


@pytest.mark.parametrize("kind", ["methods", "tasks", "models", "corpora"])
def test_everything_is_listed_with_a_line_about_it(capsys, kind):
    assert call("list", kind, "--json") == 0
    items = json.loads(capsys.readouterr().out)
    assert items and all(item["name"] and item["description"] for item in items)
    assert call("list", kind) == 0
    said = capsys.readouterr().out
    assert all(item["name"] in said for item in items)


def test_every_task_says_where_its_data_is_from_how_much_and_if_it_works_offline(capsys):
    call("list", "tasks", "--json")
    for item in json.loads(capsys.readouterr().out):
        of = [name for data in item["data"] for name in data["of"]]
        assert sorted(of) == sorted(item.get("variants", [item["name"]]))
        for data in item["data"]:
            assert isinstance(data["offline"], bool), item["name"]
            assert data["source"] and data["licence"] and data["size"], item["name"]
    call("list", "tasks")
    said = capsys.readouterr().out
    assert "standard, yarn, longrope: offline · any · Apache-2.0 · generated" in said


def test_every_method_and_task_names_its_source(capsys):
    for kind in ("methods", "tasks"):
        call("list", kind, "--json")
        sources = [item["source"] for item in json.loads(capsys.readouterr().out)]
        assert all(
            "http" in source and source[-1].isalnum() | (source[-1] == "/") for source in sources
        )


def test_show_prints_what_a_method_makes_of_an_embedding(capsys):
    asked = "show yarn --head-dim 64 --theta 100000 --original-length 8192 --length 65536 --json"
    assert call(*asked.split()) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["frequencies"]) == 32 and said["factor"] == 8.0
    assert said["frequencies"][0] == 1.0 and said["attention_factor"] == pytest.approx(1.2079441541)


def test_show_prints_a_parameter_as_it_is_written(capsys):
    call("show", "longrope,start_tokens=4")
    page = capsys.readouterr().out
    assert "  factors = ''  (str)" in page and "  factor = none  (" in page
    assert "  start_tokens = 4  (" in page
    call("show", "passkey")
    page = capsys.readouterr().out
    assert "  depths = 0+0.25+0.5+0.75+1  (" in page
    assert "  seed = 0  (int) What is random" in page and "  digits = 5  (int) Of a key." in page


def test_show_prints_what_a_task_asks_a_model_first(capsys):
    assert call("show", "passkey", "--model", "toy", "--length", "1k") == 0
    said = capsys.readouterr().out
    assert "begins: <s>There is an important info hidden" in said
    assert "The pass key is\nasked: whether it goes on with ' 68571.'" in said
    assert call("show", "perplexity", "--model", "toy", "--length", "1k", "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert (about["tokens"], about["asked"]) == (1024, "the loss of each token from 1 up to 1,024")


@pytest.mark.parametrize(("given", "said"), [
    ({}, "with a factor of 1 pi, yarn are the model as it is: give longer --lengths"),
    ({"method": ["pi,factor=1,yarn,none"]}, "with a factor of 1 yarn is the model as it is"),
    ({"factor": "1"}, ""), ({"lengths": "4k-8k"}, ""), ({"method": ["none", "dynamic-ntk"]}, ""),
])  # fmt: skip
def test_a_factor_that_comes_out_as_1_is_said(given, said):
    asked = options({"method": ["none,pi,yarn"], "task": ["passkey"], "lengths": "1k-4k"} | given)
    found = unextended(plan(asked), asked)
    assert len(found) == bool(said) and said in "".join(found)


def test_doctor_names_the_kernel_and_what_is_missing(capsys):
    assert call("doctor", "--json") == 0
    said = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert {"python", "torch", "processor", "memory", "kernel", "cache", "hub"} <= set(said)
    assert all(check["ok"] or check["get"] for check in said.values())
    assert said["duckdb"]["use"] == "answers harness query"
    assert call("doctor") == 0
    page = capsys.readouterr().out
    assert all(check["use"] in page for check in said.values() if check["use"])


def test_training_is_handed_what_was_asked_for(monkeypatch, tmp_path):
    asked = []
    module = types.ModuleType("harness.train.toy")
    module.train = lambda output, *, steps, seed: asked.append((output, steps, seed))
    monkeypatch.setitem(sys.modules, "harness.train.toy", module)
    assert call("train", "toy", "--output", tmp_path, "--steps", 3, "--seed", 5) == 0
    assert asked == [(tmp_path, 3, 5)]


def test_help_and_version_are_there(capsys):
    for argv in ([], ["--help"], ["run", "-h"], ["train", "toy", "--help"], ["--version"]):
        assert call(*argv) == 0
        assert capsys.readouterr().out


def test_a_flag_may_have_underscores(capsys):
    words = "run -m none -t babilong.qa1 -l 1k --no_context --dry_run --json"
    assert call(*words.split()) == 0
    (cell,) = json.loads(capsys.readouterr().out)
    assert "no_context=true" in cell["task"]


@pytest.mark.parametrize(
    "words",
    [
        ["list", "methods"],
        ["run", "-m", "none", "-t", "passkey", "-l", "1k", "--dry-run"],
        ["--help"],
    ],
)
def test_a_closed_pipe_is_neither_a_mistake_nor_a_cell_that_failed(words):
    command = [sys.executable, "-P", "-m", "harness", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.wait(60) == 141 and process.stderr.read() == b""


@pytest.mark.parametrize(("verb", "more"), [("run", ["--dry-run"]), ("plan", [])])
def test_offline_is_told_to_the_network(verb, more, monkeypatch, tmp_path):
    told = []
    monkeypatch.setattr("harness.network.offline", lambda: told.append(verb))
    words = (verb, "-m", "none", "-t", "passkey", "-l", "1k", "--results", tmp_path, *more)
    assert call(*words) == 0 and told == []
    assert call(*words, "--offline") == 0 and told == [verb]


def test_doctor_names_the_kernel_that_a_run_uses(capsys, tmp_path):
    assert call("doctor", "--json") == 0
    said = {check["name"]: check["found"] for check in json.loads(capsys.readouterr().out)}
    words = ("-m", "none", "-t", "passkey", "-l", "512", "--depths", "0.5", "--results", tmp_path)
    assert call("run", *words) == 0
    (result,) = Store(tmp_path).results()
    assert said["kernel"].startswith(f"{result.provenance['kernel']},")
