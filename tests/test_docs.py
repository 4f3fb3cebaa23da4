"""What is written for people holds: pages, help, examples, and remedies that errors name."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import metadata
from itertools import takewhile
from pathlib import Path

import pytest

import harness.methods
import harness.tasks
from harness import archive, cli
from harness.cli import main
from harness.documentation import protocols

ROOT = Path(__file__).parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md")])
COMMAND = cli.command()
OTHERS = {
    *("--no-deps", "--target", "--no-build-isolation"),  # pip's
    *("--rope-scaling", "--rope-scale", "--yarn-orig-ctx", "--yarn-beta-fast"),  # llama.cpp's
    *("--yarn-beta-slow", "--ctx-size", "--outfile"),
    *("--max-model-len", "--model-path", "--context-length"),  # vLLM's, SGLang's
    "--head",  # ray's
    "--porcelain",  # git's
    "--grad-norm",  # of YaRN's finetune.py
}
"""Flags that strings here name, and that other programs take."""
PASSED_ON = re.compile(r"harness lm-eval|lm-eval's")
"""Where such words stand, flags are lm-eval's."""


def call(*words):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code or 0


def found(words):
    """The command that these words begin with, by its name, and the words behind that."""
    command, name, rest = COMMAND, "harness", list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command, name = command.commands[rest[0]], f"{name} {rest[0]}"
        rest = rest[1:]
    return command, name, rest


def parsed(line):
    """The command a line of a shell gives, as far as typer goes before it calls anything."""
    words = shlex.split(line, comments=True)
    words = words[words.index("harness") + 1 :]
    command, name, rest = found(takewhile(lambda word: word not in "|><&&", words))
    assert command is not COMMAND or rest[:1] in ([], ["--code"], ["--install-completion"]), line
    command.make_context(name, [*rest, *(["FILE"] if "xargs" in line else [])])
    return name


def commands(command=COMMAND, name="harness"):
    for verb, inner in getattr(command, "commands", {}).items():
        yield pytest.param(inner, id=f"{name} {verb}")
        yield from commands(inner, f"{name} {verb}")


def flags(command):
    return {name for p in command.params for name in [*p.opts, *p.secondary_opts]} | {"--help"}


EVERY = list(commands())
EVERY_FLAG = set().union(*(flags(p.values[0]) for p in EVERY), flags(COMMAND))


# The command line


@pytest.mark.parametrize("command", EVERY)
def test_every_verb_says_what_it_is_with_two_examples(command):
    examples = [line for line in (command.epilog or "").splitlines() if "harness " in line]
    assert command.help and len(examples) >= 2


@pytest.mark.parametrize("command", EVERY)
def test_every_example_is_a_command_that_there_is(command):
    for line in (command.epilog or "").splitlines():
        if line.strip():
            parsed(line)


@pytest.mark.parametrize("command", EVERY)
def test_what_stands_behind_a_flag_is_what_it_takes_in_words(command):
    """Of a switch nothing: typer would write <bool>, and of what nobody named <str> or <path>."""
    options = [p for p in command.params if p.param_type_name == "option"]
    assert {p.metavar for p in options if p.is_flag} <= {""}
    plain = [p for p in options if not p.is_flag and "Literal" not in str(p.type_descriptor)]
    assert not [p.name for p in plain if not p.metavar]


def test_no_switch_takes_a_value_in_help(capsys):
    for verb in ([], ["run"], ["data", "build"]):
        assert call(*verb, "--help") == 0
        assert "bool" not in capsys.readouterr().out


def test_help_imports_next_to_nothing():
    """What it takes is imports: these, and no others but Python's own, are a fifth of a second."""
    code = (
        "import sys; there = {*sys.modules}\n"  # what this Python's own site brings
        "from harness.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "print(*{name.split('.')[0] for name in {*sys.modules} - there}, file=sys.stderr)"
    )
    told = subprocess.run(
        [sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True
    ).stderr
    own = {name for name in told.split() if name not in sys.stdlib_module_names}
    drawing = {"rich", "typer", "click", "shellingham", "markdown_it", "mdurl", "pygments"}
    assert "harness" in own
    assert {n for n in own if not n.startswith("_")} <= {
        "harness",
        "annotated_doc",
        "attr",
        *drawing,
    }


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_learns_the_verbs(shell):
    asked = {
        "_HARNESS_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "harness lead", "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "harness lead", "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-P", "-m", "harness"],
        env=os.environ | asked,
        capture_output=True,
        text=True,
    )
    assert "leaderboard" in done.stdout and "doctor" not in done.stdout


# Pages


def test_the_command_reference_is_the_command_line(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert call("docs", "--check") == 0


def test_pages_that_are_behind_are_named(tmp_path, capsys):
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copytree(ROOT / "results/protocols", tmp_path / "results/protocols")
    folder = tmp_path / "docs"
    (folder / "commands.md").write_text("old")
    page = (folder / "protocols.md").read_text("utf-8")
    (folder / "protocols.md").write_text(
        page.replace("| `lceg`, stride", "| `hole`, stride"), "utf-8"
    )
    assert call("docs", "--check", "--folder", folder) == 1
    said = capsys.readouterr().err
    assert "commands.md, " in said and "protocols.md: behind." in said
    assert call("docs", "--folder", folder) == 0
    assert call("docs", "--check", "--folder", folder) == 0
    assert (folder / "protocols.md").read_text("utf-8") == page


def test_a_table_of_protocols_is_of_one_model_and_one_text():
    found = archive.found(ROOT / "results/protocols").results
    protocols(found)
    other = found[0].cell.model_copy(update={"model": "toy,dtype=float32"})
    with pytest.raises(ValueError, match="of one model, and here are toy, toy,dtype=float32"):
        protocols([*found, found[0].model_copy(update={"cell": other})])
    with pytest.raises(ValueError, match="of one text"):
        protocols([*found, found[0].model_copy(update={"corpus": "other@0123abcd"})])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if (ROOT / "harness").is_dir() or not link.startswith(("harness", "methods", "tasks")):
            assert (page.parent / link).exists(), link


def commands(page):
    """Each line of a page's shell blocks that calls the command."""
    found, language = [], None
    for line in page.read_text("utf-8").replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            language = line[3:] if language is None else None
        elif language in ("", "bash", "sh") and re.match(r"(.*&& )?harness ", line):
            found.append(re.split(r" {3,}| \.\.\.", line)[0])
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_a_page_are_ones_there_are(page):
    for line in commands(page):
        parsed(line)


def test_the_readmes_blocks_are_read_to_its_end():
    said = commands(ROOT / "README.md")
    assert len(said) >= 22 and any("harness search" in line for line in said)


SHORT = {"4k-16k": "512,1k", "4k,8k": "512,1k", "length>=8k": "length>=1k", " 16k ": " 1k "}
"""Lengths of the pages, and what stands for them here."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["first-run", "add-a-method", "add-a-task", "add-a-model"])
def test_what_a_page_has_one_type_runs(name, tmp_path):
    page = (ROOT / "docs" / f"{name}.md").read_text("utf-8")
    lines = "".join(re.findall(r"^```bash\n(.*?)^```", page, re.M | re.S))
    lines = "\n".join(line for line in lines.splitlines() if not line.startswith("pip "))
    for long, short in SHORT.items():
        lines = lines.replace(long, short)
    place = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euxc", lines],
        cwd=tmp_path,
        env=os.environ | {"PATH": place},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and lines, done.stderr
    assert "none" in done.stdout and not [*tmp_path.glob("results")]


# What strings in the code tell people to do


def strings(tree):
    """Every text of a file, what is put into it as X."""
    inside = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inside |= {id(part) for part in node.values}
            parts = (p.value if isinstance(p, ast.Constant) else "X" for p in node.values)
            yield "".join(parts)
        elif isinstance(getattr(node, "value", None), str) and id(node) not in inside:
            yield node.value


def told():
    for package in (harness, harness.methods, harness.tasks):
        folder = Path(package.__path__[0])
        for path in sorted(folder.rglob("*.py")):
            for text in strings(ast.parse(path.read_text("utf-8"))):
                for paragraph in text.split("\n\n"):
                    yield path.relative_to(folder).as_posix(), " ".join(paragraph.split())


SAID = re.compile(r"(?<!from )(?<!he )(?<!this )(?<!--model )\bharness ([a-z-]+)([^.;`]*)")
"""A command; not Python, and not the harness as a thing."""


def test_every_command_that_a_text_names_is_there():
    seen = 0
    for path, text in told():
        for groups in SAID.findall(text):
            words = re.sub(r"'[^']*'", "X", " ".join(groups)).split()
            command, name, rest = found([word.strip(',:"()') for word in words])
            if PASSED_ON.search(text):
                continue
            if words[0].startswith("--"):
                assert words[0] in flags(COMMAND), (path, text)
                continue
            assert command is not COMMAND, (path, text)
            named = {w.partition("=")[0] for w in rest if re.match(r"--[a-z]", w)}
            assert named <= flags(command) | OTHERS, (path, name, text)
            seen += 1
    assert seen > 80


def test_every_extra_that_a_text_names_is_there():
    there, seen = set(metadata("context-harness").get_all("Provides-Extra")), set()
    for path, text in told():
        for extras in re.findall(r"(?:context-harness|')\[([a-z,-]+)\]'", text):
            assert set(extras.split(",")) <= there, (path, text)
            seen |= set(extras.split(","))
    assert {"train", "lm-eval", "ray", "query"} <= seen


def test_every_flag_that_a_text_names_is_there():
    seen = 0
    for path, text in told():
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*[a-z]\b", text):
            assert flag in EVERY_FLAG | OTHERS or PASSED_ON.search(text), (path, flag, text)
            seen += 1
    assert seen > 80


# The picture of a terminal


def test_a_run_is_recorded_as_a_picture_that_needs_nothing_else(tmp_path, monkeypatch, capsys):
    from harness.cell import Cell, Result
    from harness.report.picture import picture, save

    cell = Cell(model="toy", method="yarn,factor=8", task="passkey.standard", length=4096)
    result = Result(
        cell=cell, status="scored", value=0.85, low=0.64, high=0.95, n=20, metric="accuracy",
        protocol="passkey.standard", seconds=61.0, peak_memory=768 * 10**6,
    )  # fmt: skip
    words = ["harness", "run", "--where", "a b", *("--samples=4",) * 8]
    drawn = picture(words, [result])
    said = re.sub(r"<[^>]*>", " ", drawn).replace("&#160;", " ")
    assert "85 %" in said and "[64, 95]" in said and "1 min 01 s" in said
    assert "$ harness run --where &#x27;a b&#x27;" in said and "\\" in said
    assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "").replace(
        "https://www.textualize.io", ""
    )
    with pytest.raises(ValueError, match=r"picture\.svg"):
        save(tmp_path / "picture.png", words, [result])


def test_the_readmes_picture_shows_what_was_measured():
    from html import unescape

    from harness.report.sheet import entry
    from harness.store import Store

    picture = (ROOT / "results/figures/terminal.svg").read_text("utf-8")
    drawn = re.findall(r"<text[^>]* y=\"([\d.]+)\"[^>]*>([^<]*)</text>", picture)
    lines = {}
    for y, text in drawn:
        lines[y] = lines.get(y, "") + unescape(text).replace("\N{NO-BREAK SPACE}", " ")
    store = Store(ROOT / "results")
    shown = [r for r in store.results() if r.cell.task == "passkey.standard,samples=4"]
    mine = [r for r in shown if r.cell.base == r.cell.model == "toy" and r.cell.length <= 16384]
    for method in ("none", "pi,factor=8", "ntk,factor=8", "yarn,factor=8", "longrope,factor=8"):
        row = sorted((r for r in mine if r.cell.method == method), key=lambda r: r.cell.length)
        name = method.split(",")[0]
        (line,) = (text for text in lines.values() if text.split()[:1] == [name] and "%" in text)
        assert re.findall(r"\d+ % \[\d+, \d+\]", line) == [str(entry(r)) for r in row], method
