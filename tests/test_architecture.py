"""Who may import whom, and what must not be imported at all before it is needed."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "harness"
HEAVY = {"torch", "transformers", "datasets", "matplotlib"}

MAY_SEE = {
    "harness/cell.py": {"harness.catalog", "harness.checkpoints"},
    "harness/catalog.py": {"harness.nearest", "harness.method", "harness.plugins"},
    "harness/plugins.py": {"harness.method", "harness.task"},
    "harness/lengths.py": set(),
    "harness/stats.py": set(),
    "harness/effective.py": {"harness.stats"},
    "harness/task.py": set(),
    "harness/attention.py": {
        "harness.engine.bend",
        "harness.engine.biased",
        "harness.families",
        "harness.method",
        "harness.rope",
        "harness.rotation",
        "harness.train.attention",
    },
    "harness/method.py": set(),
    "harness/recipes.py": {"harness.method"},
    "harness/rope.py": set(),
    "harness/rotation.py": {"harness.rope"},
    "harness/rotary.py": {
        "harness.families",
        "harness.method",
        "harness.rope",
        "harness.rotation",
    },
    "harness/published.py": {
        "harness.catalog",
        "harness.lengths",
        "harness.nearest",
        "harness.tablefile",
    },
    "harness/tablefile.py": {
        "harness.disk",
        "harness.gridfile",
        "harness.lengths",
        "harness.nearest",
    },
    "harness/store.py": {"harness.cell", "harness.disk", "harness.mistakes", "harness.packs"},
    "harness/packs.py": {"harness.cell"},
    "harness/contents.py": {"harness.disk", "harness.machine"},
    "methods": {
        "harness.contents",
        "harness.disk",
        "harness.method",
        "harness.recipes",
        "harness.rope",
        "harness.rotary",
        "harness.rotation",
        "harness.attention",
    },
    "harness/lmeval.py": {"harness.nearest", "harness.network"},
    "harness/network.py": set(),
    "harness/asking.py": {"harness.task"},
    "harness/judge.py": set(),
    "tasks": {
        "harness.contents",
        "harness.disk",
        "harness.judge",
        "harness.task",
        "harness.stats",
        "harness.metrics",
        "harness.lmeval",
        "harness.asking",
        "harness.network",
    },
}
"""Of this project, by file or folder; whoever is not listed is held by another law below."""


def files(place):
    where = ROOT / place
    assert where.exists(), f"a law is of {place}, which is not there"
    return [where] if where.is_file() else sorted(where.rglob("*.py"))


def named(path, node):
    """The module that a `from` means, in full, where it begins with dots."""
    if not node.level:
        return node.module
    inside = path.relative_to(ROOT).parts[:-1]
    inside = inside if inside[0] == "harness" else ("harness", *inside)  # where it is installed
    return ".".join(filter(None, [*inside[: len(inside) + 1 - node.level], node.module]))


def imports(path, *, everywhere=True):
    """Modules a file names, `from harness import catalog` as `harness.catalog`."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level != 1:  # what lies beside it is free
            module = named(path, node)
            plain = module != "harness"
            yield from [module] if plain else (f"harness.{a.name}" for a in node.names)


def ours(path):
    return {name for name in imports(path) if name.split(".")[0] in {"harness", *FOLDERS}}


FOLDERS = {"methods", "tasks"}


@pytest.mark.parametrize("place", MAY_SEE)
def test_arrows_point_one_way(place):
    for path in files(place):
        seen = {n for n in ours(path) if not n.startswith("harness.metrics.")}
        assert seen <= MAY_SEE[place], path.relative_to(ROOT)


def test_metrics_are_pure():
    for path in files("harness/metrics"):
        assert {n for n in ours(path) if not n.startswith("harness.metrics")} == set(), path.name
        assert not HEAVY & {name.split(".")[0] for name in imports(path)}, path.name


def test_nobody_names_a_method_or_a_task_but_by_its_spec():
    for path in files("harness") + files("methods") + files("tasks"):
        named = {n for n in ours(path) if n.startswith(("harness.methods", "harness.tasks"))}
        assert not named and not ours(path) & FOLDERS, path.relative_to(ROOT)


def test_tasks_never_see_a_model():
    for path in files("tasks"):
        assert not HEAVY & {name.split(".")[0] for name in imports(path)}, path.name


def test_the_engine_knows_no_method_no_task_and_no_report():
    allowed = ("harness.engine", "harness.families", "harness.task", "harness.machine")
    for path in files("harness/engine"):
        strangers = {name for name in ours(path) if not name.startswith(allowed)}
        assert not strangers, path.name


def test_reports_run_nothing_and_load_no_torch():
    allowed = ("harness.report", "harness.cell", "harness.catalog", "harness.lengths")
    allowed += ("harness.nearest", "harness.published", "harness.effective", "harness.pairing")
    allowed += ("harness.checkpoints", "harness.disk", "harness.metric")
    for path in files("harness/report"):
        strangers = {name for name in ours(path) if not name.startswith(allowed)}
        assert strangers <= {"harness.plan", "harness.stats", "harness.machine"}, path.name
        assert not {"torch", "transformers"} & {n.split(".")[0] for n in imports(path)}, path.name


def test_only_what_is_shown_sees_a_report():
    """The command line, the names for Python, and the pages and queries that are printed."""
    shown = {PACKAGE / f"{name}.py" for name in ("api", "documentation", "query")}
    for path in sorted({*PACKAGE.glob("*.py")} - shown):
        assert not {n for n in ours(path) if n.startswith("harness.report")}, path.name


def test_a_run_formats_nothing():
    for path in [PACKAGE / "run.py", *files("harness/executors")]:
        assert not {n for n in ours(path) if n.startswith(("harness.report", "harness.cli"))}


def test_the_command_line_imports_inside_the_verb_that_needs_it():
    for path in files("harness/cli"):
        top = {name for name in imports(path, everywhere=False) if name.startswith("harness.")}
        assert all(name.startswith("harness.cli") for name in top), path.name


@pytest.mark.parametrize(
    "code",
    [
        "import harness.cli",
        "import harness.report.table, harness.report.live, harness.where",
        "import harness.report.paper",
        "import harness.published, harness.report.printed",
        "import harness.store, harness.gridfile, harness.plan",
        "import harness.compare, harness.effective",
        "from harness.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from harness.cli import main\ntry: main(['list', 'methods'])\nexcept SystemExit: pass",
        "from harness.cli import main\ntry: main(['list', 'tasks'])\nexcept SystemExit: pass",
        "from harness.cli import main\ntry: main(['list', 'models'])\nexcept SystemExit: pass",
        "from harness.cli import main\ntry: main(['list', 'corpora'])\nexcept SystemExit: pass",
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(code):
    code += f"\nimport sys; print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_json_that_people_may_have_written_is_read_where_all_that_is_none_is_named():
    """100,000 brackets are a RecursionError."""
    readers = {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
        for place in ("harness", "methods", "tasks")
        for path in files(place)
        if re.search(r"\bjson\.loads?\(", path.read_text("utf-8"))
    }
    catching = {name for name, text in readers.items() if "RecursionError" in text}
    assert catching == {"harness/disk.py", "harness/corpora/files.py", "tasks/_records.py"}
    assert readers.keys() - catching == {
        "harness/packs.py",  # of this harness's own packs, checked page by page
        "harness/train/checkpoint.py",  # of what was made the line before
        "harness/train/parallel.py",  # what ships, as the next two
        "tasks/_longbench.py",
        "tasks/longbench_v2.py",
        "harness/train/toy.py",
    }


def test_every_folder_with_code_is_shipped():
    """Setuptools leaves out, in silence, a sub-package that nobody lists."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in files("harness")
        if "__pycache__" not in path.parts
    }
    nested = {p.parent for folder in FOLDERS for p in files(folder)} - {ROOT / f for f in FOLDERS}
    assert found | {f"harness.{folder}" for folder in FOLDERS} == set(listed)
    assert not nested


@pytest.mark.parametrize("place", ["harness", "methods", "tasks"])
def test_a_file_says_what_it_is(place):
    for path in files(place):
        tree = ast.parse(path.read_text("utf-8"))
        assert ast.get_docstring(tree) or path.name == "__main__.py", path


def test_the_nearest_name_is_sought_in_one_place():
    places = set(files("harness")) - set(files("harness/metrics"))  # whose difflib is a score's
    seekers = {path.name for path in places if "difflib" in imports(path)}
    assert seekers == {"nearest.py"}
