"""What others bring: files that are named, packages by entry points, and a first file to write."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import test_methods
import test_tasks

from harness import catalog, plugins
from harness.cell import Cell
from harness.cli import main
from harness.new import write

TINY = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "context-harness-tiny"
version = "0.1"

[project.entry-points."harness.methods"]
tiny-rope = "tiny.tiny_rope"

[project.entry-points."harness.tasks"]
tiny-door = "tiny.tiny_door:task"

[tool.setuptools]
packages = ["tiny"]
""",
    "tiny/__init__.py": "",
}


@pytest.fixture(autouse=True)
def nothing_is_named_yet(monkeypatch):
    monkeypatch.setattr(plugins, "_files", {})
    monkeypatch.setenv(plugins.CODE, "")
    catalog._default.cache_clear()


@pytest.fixture
def rope(tmp_path):
    return write("method", "my-rope", tmp_path)


@pytest.fixture
def door(tmp_path):
    return write("task", "my-door", tmp_path)


@pytest.fixture(scope="module")
def llama():
    return test_methods.built("llama")


def harness(*words):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code or 0


def changed(file, before, after):
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))
    return f"{file},factor=8"


# A file that is new keeps the laws of all methods, or of all tasks


@pytest.mark.parametrize("law", ["of_every_method", "of_every_rotary_method"])
def test_a_new_method_keeps_the_laws(law, rope, llama):
    name = plugins.named(str(rope))
    if law == "of_every_method":
        test_methods.test_the_model_comes_back_as_it_was(llama, name)
        test_methods.test_it_travels_to_another_process(name)
        test_methods.test_it_says_what_it_is(name)
        test_methods.test_its_spec_has_one_name(name)
    else:
        for length in (16, 2048, 5000, 2**21):
            test_methods.test_frequencies_fall_from_one(name, length, 64)
        test_methods.test_no_pair_turns_faster_than_it_was_trained_to(name)
        test_methods.test_inside_the_trained_window_nothing_is_stretched(name)
        test_methods.test_read_in_pieces_the_logits_are_the_same(llama, name)
        test_methods.test_it_resolves_to_plain_data(llama, name)


def test_a_plus_in_a_path_is_said_to_be_in_the_way(tmp_path):
    file = tmp_path / "c++" / "mine.py"
    file.parent.mkdir()
    file.touch()
    with pytest.raises(ValueError, match=r"A plus joins methods.*move or link .*/c\+\+/mine.py"):
        plugins.named(f"{file},factor=2")


def test_a_new_task_keeps_the_laws(door):
    name = plugins.named(str(door))
    for reader in (test_tasks.Bytes(), test_tasks.Talking(), test_tasks.Spaced()):
        test_tasks.test_asks_the_same_questions_every_time(name, reader)
    for length in (700, 1501, 4096):
        test_tasks.test_never_asks_past_the_length(name, length)
    test_tasks.test_the_gold_answer_scores_full_and_silence_nothing(name)
    test_tasks.test_a_parameter_can_be_written_and_read_back(name)
    test_tasks.test_no_samples_are_refused(name)
    test_tasks.test_it_declares_how_an_answer_ends_and_what_counts(name)
    for reads in (test_tasks.Bytes, test_tasks.Talking, test_tasks.Spaced):
        test_tasks.test_what_it_asks_is_what_it_declares(name, reads)


@pytest.mark.parametrize(("kind", "name"), [("task", "score"), ("method", "rope")])
def test_a_name_that_would_hide_what_the_file_needs_is_refused(kind, name, tmp_path):
    with pytest.raises(ValueError, match="take another name"):
        write(kind, name, tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_new_method_is_thirty_lines(rope):
    assert len(rope.read_text().splitlines()) == 30


@pytest.mark.parametrize("kind", ["method", "task"])
def test_a_new_file_is_clean(kind, tmp_path):
    write(kind, "mine", tmp_path)
    ruff = [sys.executable, "-m", "ruff"]
    rules = ["--config", str(Path(__file__).parents[1] / "pyproject.toml"), str(tmp_path)]
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run([*ruff, *words, *rules], capture_output=True, text=True)
        assert not done.returncode, done.stdout


# A file that is named


def test_a_file_is_known_by_its_content_and_not_by_its_place(rope, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    copy = elsewhere / rope.name
    copy.write_text(rope.read_text())
    spec = plugins.named(f"{rope},factor=8.0")
    assert spec == plugins.named(f"{copy},factor=8.0")
    assert catalog.canonical("methods", spec) == f"{spec.split(',')[0]},factor=8"
    assert str(tmp_path) not in spec and spec.startswith("my-rope@")
    copy.write_text(rope.read_text() + "\n# another\n")
    assert plugins.named(str(copy)) != spec.split(",")[0]


def test_its_cell_has_a_path_that_leads_back(rope):
    cell = Cell(model="toy", method=plugins.named(f"{rope},factor=8"), task="passkey", length=4096)
    assert Cell.at(cell.path) == cell


def test_a_file_goes_under_another_method(rope):
    method = catalog.load("methods", plugins.named(f"{rope}+log-n,factor=4"))
    assert [type(layer).__name__ for layer in method.layers] == ["MyRope", "LogN"]


def test_a_file_may_hold_variants(door):
    text = door.read_text().replace("task = MyDoor()", "")
    door.write_text(text + 'variants = {"few": MyDoor(samples=2), "many": MyDoor(samples=99)}\n')
    few = plugins.named(str(door))
    assert catalog.load("tasks", few).samples == 2
    many = plugins.named(f"{door}.many,samples=9")
    assert many == f"{few}.many,samples=9" and catalog.load("tasks", many).samples == 9


def test_naming_a_file_does_not_run_it(tmp_path):
    file = tmp_path / "loud.py"
    file.write_text("raise SystemExit('run')")
    assert plugins.named(str(file)).startswith("loud@")


def test_no_result_and_no_cell_file_can_have_a_file_run(rope, tmp_path, capsys):
    stranger = tmp_path / "stranger.py"
    stranger.write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    for spec in (str(stranger), f"{stranger},factor=8", "stranger@00000000"):
        with pytest.raises(LookupError):
            catalog.load("methods", spec)
    assert not (tmp_path / "run").exists()


def test_no_grid_file_can_have_a_file_run(rope, capsys):
    grid = rope.parent / "grid.yaml"
    grid.write_text(f"method: none,{rope}\ntask: passkey\nlengths: 1k\n")
    assert harness("run", grid, "--dry-run") == 2
    assert f"with --method {rope}" in capsys.readouterr().err
    assert harness("run", grid, "--method", rope, "--dry-run") == 0


def test_a_process_that_works_for_this_one_finds_it_again(rope):
    name = plugins.named(str(rope))
    code = f"from harness import catalog; print(catalog.load('methods', {name!r}).strength)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1.0"


def test_a_file_that_changed_is_told_from_what_it_was(rope):
    name = plugins.named(str(rope))
    changed(rope, "strength: float = 1.0", "strength: float = 0.5")
    plugins._files.clear()  # as another process begins
    with pytest.raises(LookupError, match=r"my_rope.py is my-rope@\w{8} now.*--code FILE"):
        catalog.load("methods", name)


def test_results_of_a_file_are_read_with_its_code_named(rope, capsys):
    name = plugins.named(str(rope))
    plugins._files.clear()
    os.environ[plugins.CODE] = ""
    assert harness("show", name) == 2
    assert "harness --code FILE" in capsys.readouterr().err
    assert harness("--code", rope, "show", name) == 0
    assert "MyRope" in capsys.readouterr().out


def test_the_command_that_measures_again_names_the_file(rope):
    from harness.again import again
    from harness.cell import Cell

    name = plugins.named(str(rope))
    cell = Cell(model="toy", method=f"{name}+log-n,factor=4", task="passkey.standard", length=4096)
    words = again(cell).command
    assert words.startswith(
        f"harness --code {rope.resolve()} run --model toy --method {name}+log-n"
    )


def test_a_task_of_ones_own_needs_nothing_fetched(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert harness("new", "task", "my-task") == 0
    capsys.readouterr()
    assert harness("data", "fetch", "./my_task.py", "--dry-run") == 0
    assert "works offline" in capsys.readouterr().out
    assert harness("score", "--task", "./my_task.py", "--predictions", "x.jsonl") == 2
    assert "cannot be scored from a file" in capsys.readouterr().err


# What is wrong with it, in a sentence with file and line


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("import torch\n", "import torhc\n", r"my_rope.py, line 8: ModuleNotFoundError: .*torhc"),
        ("class MyRope(", "class MyRope((", r"my_rope.py, line 16: invalid syntax"),
        ("method = MyRope()", "", r"my-rope@\w+ has no method: end its file with method = "),
        ("method = MyRope()", "method = MyRope", r"is the class MyRope: end the file with method"),
        (
            "        return own",
            "        own",
            r"for each pair of channels, and not a None",
        ),
        ("method = MyRope()", "method = 3", r"method is a int, and must be a harness.method.Meth"),
        ("frequencies(self", "freq(self", r"my_rope.py, line 30: TypeError: .*abstract method"),
        ("@dataclass(frozen=True, kw_only=True)\n", "", r"above class MyRope: .*'strength' is no"),
        ("own / scale", "own / scal", r"my_rope.py, line 27: NameError: name 'scal' is not def"),
        ("own / scale **", "own / None **", r"my_rope.py, line 27: TypeError: "),
        (", rope: Rope, scale: float)", ")", r"my_rope.py: TypeError: .*takes 1 positional argum"),
        ("        own = ", "        raise ValueError\n        own = ", r"line 25: ValueError"),
        ("import torch\n", "import sys, torch\nsys.exit(0)\n", r"my_rope.py"),
        (
            "        own = ",
            "        float('x')\n        own = ",
            r"line 25: ValueError",
        ),
    ],
)
def test_a_fault_in_a_file_is_one_sentence(before, after, said, rope, capsys):
    spec = changed(rope, before, after)
    words = ["--method", spec, "--task", "passkey", "--lengths", "1k", "--dry-run"]
    assert harness("run", *words, "--results", rope.parent / "results") == 2
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 1 and captured.out == ""
    assert re.search(said, captured.err), captured.err


def test_what_a_file_says_on_purpose_is_left_as_it_is(rope, capsys):
    spec = changed(rope, "        own = ", "        raise ValueError('Take 3.')\n        own = ")
    words = ["--method", spec, "--task", "passkey", "--lengths", "1k", "--dry-run"]
    assert harness("run", *words, "--results", rope.parent / "results") == 2
    assert capsys.readouterr().err == "harness: Take 3.\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "./nowhere.py"], "harness new method NAME"),
        (["new", "method", "yarn"], "harness list methods"),
        (["new", "task", "3x"], "begin with a letter"),
        (["new", "method", "class"], "begin with a letter"),
    ],
)
def test_a_slip_is_told_with_its_remedy(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert harness(*words) == 2
    assert said in capsys.readouterr().err


def test_nothing_is_written_over(rope, capsys):
    assert harness("new", "method", "my-rope", "--into", rope.parent) == 2
    assert "--into" in capsys.readouterr().err


# A package


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package as pip leaves it: its files, and what says that they are there."""
    for name, text in TINY.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    write("method", "tiny-rope", tmp_path / "tiny")
    write("task", "tiny-door", tmp_path / "tiny")
    about = tmp_path / "context_harness_tiny-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: context-harness-tiny\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text(
        "[harness.methods]\ntiny-rope = tiny.tiny_rope\nyarn = tiny.tiny_rope\n"
        "[harness.tasks]\ntiny-door = tiny.tiny_door:task\ntiny-broken = tiny.nowhere\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    plugins.packaged.cache_clear()
    catalog._default.cache_clear()
    yield tmp_path
    plugins.packaged.cache_clear()
    catalog._default.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "tiny"]:
        del sys.modules[name]


def test_what_a_package_brings_is_listed_with_its_name(installed, capsys):
    harness("list", "methods")
    line = next(x for x in capsys.readouterr().out.splitlines() if x.startswith("tiny-rope"))
    assert line.endswith("TinyRope: say in a line what it does to the rotary embedding.  "
                         "[context-harness-tiny 0.1]")  # fmt: skip
    harness("list", "tasks", "--json")
    tasks = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert tasks["tiny-door"]["package"] == "context-harness-tiny 0.1"


def test_a_package_that_is_broken_hides_no_other(installed, capsys):
    harness("list", "tasks")
    listed = capsys.readouterr().out
    assert "'tiny-broken' comes with context-harness-tiny 0.1, and cannot be imported" in listed
    assert "passkey" in listed
    assert harness("show", "tiny-broken") == 2


def test_its_method_and_its_task_are_like_any_other(installed, llama):
    assert catalog.canonical("methods", "tiny-rope,factor=8.0") == "tiny-rope,factor=8"
    test_methods.test_the_model_comes_back_as_it_was(llama, "tiny-rope")
    assert catalog.load("tasks", "tiny-door,samples=3").samples == 3
    assert catalog.brought(methods="tiny-rope+log-n", tasks="passkey") == {
        "brought": {"tiny-rope": {"package": "context-harness-tiny 0.1"}}
    }


def test_a_name_that_is_ours_stays_ours(installed):
    assert type(catalog.load("methods", "yarn")).__module__ == "harness.methods.yarn"
    assert catalog.brought(methods="yarn", tasks="passkey") == {}


def test_a_result_says_whose_code_it_is(rope, tmp_path, capsys):
    folder = tmp_path / "results"
    words = ["--method", f"{rope},factor=8", "--task", "passkey", "--lengths", "512"]
    assert harness("run", *words, "--results", folder, "--json") == 0
    name = plugins.named(str(rope))
    (file,) = (folder / "runs").rglob("512.json")
    assert file.parent.name == f"{name},factor=8"
    brought = json.loads(file.read_text())["provenance"]["brought"]
    assert brought == {name: {"file": "my_rope.py", "sha256": plugins._files[name].sha256}}
    assert str(tmp_path) not in file.read_text()


@pytest.mark.slow
def test_a_wheel_from_elsewhere_is_measured_like_what_is_ours(tmp_path):
    """Built, installed beside us, listed, shown, and run, each by its own process."""
    source, target = tmp_path / "source", tmp_path / "target"
    for name, text in TINY.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text)
    write("method", "tiny-rope", source / "tiny")
    write("task", "tiny-door", source / "tiny")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(tmp_path)]
    subprocess.run([*pip, *build, str(source)], check=True)
    (wheel,) = tmp_path.glob("context_harness_tiny-0.1-*.whl")
    into = ["install", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, *into, str(wheel)], check=True)

    def said(*words):
        path = os.pathsep.join(filter(None, [str(target), os.environ.get("PYTHONPATH")]))
        done = subprocess.run(
            [sys.executable, "-P", "-m", "harness", *words],
            cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
        )  # fmt: skip
        assert not done.returncode, done.stderr
        return done.stdout

    assert "[context-harness-tiny 0.1]" in said("list", "methods")
    assert "strength" in said("show", "tiny-rope")
    grid = ["--method", "none,tiny-rope,factor=8", "--task", "tiny-door", "--lengths", "1k"]
    rows = json.loads(said("run", *grid, "--samples", "4", "--json"))
    assert [row["status"] for row in rows] == ["scored", "scored"]
    assert rows[0]["value"] == 1
