import csv
import io
from math import exp
from statistics import fmean

import pytest
from rich.console import Console

from harness.archive import columns, pack
from harness.cell import Cell, Result
from harness.cli import main
from harness.effective import RULER
from harness.report.board import board
from harness.report.latex import latex
from harness.report.paper_table import alike, paper_tables
from harness.report.paper_text import commas, markdown, printed
from harness.report.sheet import apart_by_name, sheets
from harness.store import Store

LENGTHS = (4096, 8192, 16384)


def result(method, length, value, task="passkey.standard", model="toy", wide=0.1, **more):
    """The status where there is no value."""
    scored = not isinstance(value, str)
    said = {"value": value, "low": value - wide, "high": value + wide, "n": 20} if scored else {}
    return Result(
        cell=Cell(model=model, method=method, task=task, length=length),
        **{"status": "scored" if scored else value, "reason": None if scored else "it did not"},
        **{"metric": "perplexity" if "perplexity" in task else "accuracy"},
        **{"factor": 8.0 if "factor" in method else None, **said, **more},
    )


def row(method, values, **more):
    return [result(method, n, v, **more) for n, v in zip(LENGTHS, values, strict=False)]


EXAMPLE = [
    *row("none", [0.95, 0.4, 0.2]),
    *row("yarn,factor=8", [0.9, 0.9, 0.85]),
    *row("pi,factor=8", [0.1, "out_of_memory", "failed"]),
    *row("ntk,factor=8", [0.4, 0.9], truncated=0.5),
]
READING = [
    result("none", 4096, 20.0, "perplexity.whole", wide=1),
    result("yarn,factor=8", 4096, 30.0, "perplexity.whole", wide=1),
]


def tables(results=EXAMPLE):
    return paper_tables(results, lambda cell: 4096)


def marks(table):
    return {line.name: line.marks for line in table.lines}


def text(results=EXAMPLE, width=120, **more):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    printed(tables(results), console, **more)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()).strip()


def test_methods_stand_down_lengths_across_and_before_them_what_was_claimed_and_is_held():
    assert text() == (
        "toy · passkey.standard · accuracy\n"
        "method    trained at   claimed   effective        4k        8k        16k\n"
        "─────────────────────────────────────────────────────────────────────────\n"
        "none               ·        4k          4k    95 % ^      40 %       20 %\n"
        "ntk ×8             ·       32k        < 4k     40 %†   90 %† ^          ·\n"  # noqa: RUF001
        "pi ×8              ·       32k        < 4k      10 %       OOM     failed\n"  # noqa: RUF001
        "yarn ×8            ·       32k       ≥ 16k    90 % ≈    90 % ^     85 % ^\n"  # noqa: RUF001
        "^  the best of its column; higher is better\n"
        "≈  cannot be told from it, each row by itself: the interval of the paired difference has 0"
        " in it; where items were not\n"
        "kept, or the value is not their mean, the two intervals overlap\n"
        "claimed  the original length times the factor\n"
        "effective  the longest length that holds: 85 % of what the model as it is scores on short "
        "inputs\n"
        "n = 20 trials a cell\n"
        "†  cut to fit: 50 % of inputs\n"
        "failed  an error stopped it: pi ×8 at 16k, it did not\n"  # noqa: RUF001
        "OOM  out of memory: pi ×8 at 8k, it did not\n"  # noqa: RUF001
        "·  not measured"
    )


def test_on_a_terminal_the_best_is_bold_and_has_no_sign():
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system="standard")
    printed(tables(EXAMPLE), console)
    said = console.file.getvalue()
    assert "\x1b[1m   95 %" in said and "bold  the best" in said and "^" not in said


def test_the_best_of_a_column_is_the_highest_or_the_lowest_as_the_task_says():
    accuracy, perplexity = tables(EXAMPLE + READING)
    assert marks(accuracy) == {
        "none": ["best", "", ""],
        "yarn ×8": ["tied", "best", "best"],  # noqa: RUF001
        "pi ×8": ["", "", ""],  # noqa: RUF001
        "ntk ×8": ["", "best", ""],  # noqa: RUF001
    }
    assert marks(perplexity) == {"none": ["best"], "yarn ×8": [""]}  # noqa: RUF001


def test_a_column_of_one_has_no_best():
    (table,) = tables(row("none", [0.9, 0.8]))
    assert marks(table) == {"none": ["", ""]} and not any("bold" in n for n in table.notes)


def read(method, losses, wide):
    """A perplexity, and each document's mean loss."""
    items = {str(i): loss for i, loss in enumerate(losses)}
    return result(method, 4096, exp(fmean(losses)), "perplexity.whole", wide=wide, items=items)


def test_items_tell_apart_what_intervals_do_not_and_the_other_way_round():
    losses = [2.0 + 0.3 * i for i in range(9)]
    a = read("pi", losses, wide=5)
    steady = read("ntk", [loss + 0.1 + 0.01 * (i % 2) for i, loss in enumerate(losses)], wide=5)
    assert not alike(a, steady)
    assert alike(a, steady.model_copy(update={"items": {}})), "the intervals overlap"
    wild = read("none", [loss + 2 * (-1) ** i for i, loss in enumerate(losses)], wide=1)
    assert alike(read("pi", losses, wide=1), wild)


def test_items_whose_mean_is_not_the_value_tell_nothing_of_it():
    """Two groups count alike, and one of them has a single item."""
    many = {f"many-{i}": 0.5 for i in range(19)}
    a = result("pi", 4096, 0.5, "longbench.all", wide=0.05, items={**many, "few": 0.5})
    b = result("ntk", 4096, 0.75, "longbench.all", wide=0.05, items={**many, "few": 1.0})
    assert not alike(a, b)
    assert alike(a.model_copy(update={"high": 0.72}), b)
    even = b.model_copy(update={"value": 0.525})
    assert alike(a, even), "here it is their mean"
    (table,) = tables([a.model_copy(update={"high": 0.72}), b])
    assert any(
        "the value is not their mean, the two intervals overlap" in note for note in table.notes
    )
    (table,) = tables([a, even])
    assert not any("overlap" in note for note in table.notes)
    assert {mark for line in table.lines for mark in line.marks} == {"best", "tied"}


def test_what_has_no_interval_is_not_called_alike():
    a, b = (result(m, 4096, 0.9, low=None, high=None) for m in ("pi", "ntk"))
    assert not alike(a, b.model_copy(update={"value": 0.8}))


def test_how_far_it_reads_is_what_the_leaderboard_says(tmp_path):
    store = Store(tmp_path)
    for one in EXAMPLE:
        store.write(one)
    (section,) = board(columns(tmp_path), lambda cell: 4096).sections
    (table,) = tables()
    assert {row.name: row.held for row in section.rows} == {l.name: l.held for l in table.lines}  # noqa: E741
    assert {r.name: r.claimed for r in section.rows} == {l.name: l.claimed for l in table.lines}  # noqa: E741


def test_a_trained_model_says_how_long_its_sequences_were():
    phrase = "yarn,factor=8, recipe quick: 1,000 tokens of x in 10 updates, sequences of 16,384"
    mine = row("yarn,factor=8", [0.9], model="toy+mine@0123abcd", trained=phrase)
    (table,) = tables([*row("none", [0.9]), *mine])
    assert table.lines[1].lead()[:3] == ["yarn ×8 · mine", "16k", "32k"]  # noqa: RUF001


def test_a_narrow_terminal_gets_several_tables_and_no_number_is_cut():
    said = text(width=66, intervals=True)
    heads = [line.split() for line in said.splitlines() if line.startswith("method")]
    assert heads[0] == ["method", "trained", "at", "claimed", "effective"]
    assert heads[1:] == [["method", "4k", "8k", "16k"]]
    assert "…" not in said and max(map(len, said.splitlines())) <= 66
    assert said.count("95 % [85, 105]") == 1
    small = text(width=28)
    assert len([line for line in small.splitlines() if line.startswith("method")]) == 3
    assert small.count("90 % ≈") == 1


def test_markdown_is_the_same_table():
    page = markdown(tables())
    assert "| method | trained at | claimed | effective | 4k | 8k | 16k |\n|---|--:" in page
    assert "| yarn ×8 | · | 32k | ≥ 16k | 90 % ≈ | **90 %** | **85 %** |" in page  # noqa: RUF001
    assert "| pi ×8 | · | 32k | \\< 4k | 10 % | OOM | failed |" in page  # noqa: RUF001
    assert "| **95 %** \\[85, 105\\] |" in markdown(tables(), intervals=True)
    assert "- \\[low, high\\]" in markdown(tables(), intervals=True) and "low, high" not in page


def test_comma_separated_values_are_numbers_and_marks():
    rows = list(csv.DictReader(io.StringIO(commas(tables(EXAMPLE + READING), intervals=True))))
    assert [row["method"][:3] for row in rows] == ["non", "ntk", "pi ", "yar", "non", "yar"]
    pi, yarn = rows[2], rows[3]
    assert (pi["4k"], pi["8k"], pi["16k"], pi["8k_low"]) == ("0.1", "OOM", "failed", "")
    assert (yarn["effective"], yarn["effective_low"], yarn["claimed"]) == ("16384", "0", "32768")
    assert float(yarn["16k_low"]) == pytest.approx(0.75) and rows[4]["8k"] == ""
    least = "effective_at_least"
    assert (yarn[least], pi["effective"], pi[least], rows[4][least]) == ("1", "0", "0", "1")
    assert "_low" not in commas(tables()) and least in commas(tables())


def test_rows_of_another_version_of_a_task_are_not_held_against_one_another():
    about = [{"provenance": {"task_version": n, "dtype": "float32"}} for n in (1, 2)]
    old, new = result("pi,factor=8", 4096, 0.85, **about[0]), result("yarn", 4096, 0.9, **about[1])
    (table,) = tables([old, new])
    assert marks(table) == {"pi ×8": [""], "yarn": ["best"]}  # noqa: RUF001
    assert "unlike versions  asked by versions 1 and 2" in "\n".join(table.notes)
    (table,) = tables([old, result("yarn", 4096, 0.9, **about[0])])
    assert marks(table)["pi ×8"] == ["tied"] and "unlike" not in "\n".join(table.notes)  # noqa: RUF001


def test_a_value_without_an_interval_is_not_taken_for_told_apart():
    one = {"low": None, "high": None, "n": 1}
    some = [result(m, 4096, x, "perplexity.whole", **one) for m, x in (("none", 10), ("pi", 10.01))]
    (table,) = tables(some)
    assert marks(table)["pi"] == [""] and any(note.startswith("no sign") for note in table.notes)
    assert not any(note.startswith("no sign") for note in tables()[0].notes)


def test_a_row_that_was_measured_beyond_the_window_alone_is_not_held_against_itself():
    """Where the model as it is was not measured, either."""
    (line,) = tables([result("pi,factor=8", 16384, 0.05)])[0].lines
    assert line.held is None
    (line,) = tables([result("pi,factor=8", 16384, 13.3, "perplexity.whole")])[0].lines
    assert line.held is None


def test_latex_is_booktabs_with_the_best_in_bold():
    page = latex(tables())
    assert page.count(r"\toprule") == page.count(r"\bottomrule") == 1
    assert r"\begin{tabular}{lrrrrrr}" in page and r"\label{tab:toy-passkey-standard}" in page
    assert (
        r"yarn $\times$8 & $\cdot$ & 32k & $\geq$ 16k & 90 \%\,$^{\approx}$ & \textbf{90 \%} & "
        r"\textbf{85 \%} \\" in page
    )
    assert r"\textbf{95 \%} {\scriptsize [85, 105]}" in latex(tables(), intervals=True)
    rows = [line for line in page.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") - line.count(r"\&") for line in rows} == {6}


def test_a_caption_is_of_sentences():
    caption = next(line for line in latex(tables()).splitlines() if "caption" in line)
    assert r"accuracy. \emph{bold}: the best of its column; higher is better. $\approx$" in caption
    assert r". \emph{claimed}: the original length times the factor. \emph{effective}:" in caption


def test_latex_keeps_text_text():
    evil = r"a_b%$#{\input{x}}&~^"
    page = latex(tables([result(evil, 4096, 0.5), result("none", 4096, 0.9)]))
    assert r"\input{" not in page and r"a\_b\%\$\#\{\textbackslash{}input\{x\}\}\&" in page
    assert all(32 <= ord(c) < 127 or c in "\n" for c in page)


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "latex"])
def test_the_command_prints_each(form, tmp_path, capsys):
    store = Store(tmp_path)
    for one in EXAMPLE:
        store.write(one)
    with pytest.raises(SystemExit) as left:
        main(["table", "--results", str(tmp_path), "--format", form, "--where", "method=yarn,none"])
    said = capsys.readouterr()
    assert not left.value.code and "yarn" in said.out and "pi" not in said.out.split()
    assert not said.err


def test_rulers_rule_holds_a_score_against_its_own_threshold():
    row = [result("none", 4096, 0.9), result("none", 8192, 0.84)]
    (kept,) = paper_tables(row, lambda cell: 4096)
    (strict,) = paper_tables(row, lambda cell: 4096, RULER)
    assert str(kept.lines[0].held) == "≥ 8k" and str(strict.lines[0].held) == "4k"


@pytest.mark.parametrize(("rule", "held"), [("nolima", "≥ 8k"), ("ruler", "4k"), ("0.5", "≥ 8k")])
def test_a_score_of_ones_own_is_a_rule(rule, held, tmp_path, capsys):
    for one in (result("none", 4096, 0.9), result("none", 8192, 0.84)):
        Store(tmp_path).write(one)
    words = ["table", "--results", str(tmp_path), "--rule", rule, "--format", "markdown"]
    with pytest.raises(SystemExit) as left:
        main(words)
    assert not left.value.code and f"| {held} |" in capsys.readouterr().out


@pytest.mark.parametrize("rule", ["lamp", "0", "85", "nan"])
def test_a_rule_that_is_none_is_refused(rule, tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        main(["table", "--results", str(tmp_path), "--rule", rule])
    assert left.value.code == 2 and "a score above 0 and up to 1" in capsys.readouterr().err


TWICE = [
    *row("yarn,factor=8", [0.9, 0.8, 0.7], model="toy+mine@00000001"),
    *row("yarn,factor=8", [0.6, 0.5, 0.4], model="toy+mine@00000002"),
    *row("yarn,factor=8", [0.3, 0.2, 0.1], model="toy+other@00000003"),
]


def test_two_checkpoints_of_one_name_are_two_rows_everywhere(tmp_path):
    named = ["yarn ×8 · mine 00000001", "yarn ×8 · mine 00000002", "yarn ×8 · other"]  # noqa: RUF001
    (sheet,) = sheets(TWICE)
    assert {name: entries[0].text for name, entries in sheet.rows.items()} == dict(
        zip(named, ["90 %", "60 %", "30 %"], strict=True)
    )
    (table,) = tables(TWICE)
    assert [line.name for line in table.lines] == named
    store = Store(tmp_path)
    for each in TWICE:
        store.write(each)
    (section,) = board(columns(tmp_path), lambda cell: 4096).sections
    assert [row.name for row in section.rows] == named
    assert all(row.cell.model in {r.cell.model for r in TWICE} for row in section.rows)
    assert apart_by_name(EXAMPLE) == EXAMPLE  # only where it must be


def test_a_base_keeps_its_content_whatever_was_trained_from_it():
    plain = row("none", [0.9, 0.2, 0.1], model="m@aaaaaaaa")
    ours = [
        *row("yarn,factor=8", [0.9, 0.8, 0.7], model="m@aaaaaaaa+mine@bbbbbbbb"),
        *row("yarn,factor=8", [0.6, 0.5, 0.4], model="m@aaaaaaaa+mine@cccccccc"),
    ]
    other = row("none", [0.8, 0.1, 0.1], model="m@dddddddd")
    (sheet,) = sheets([*plain, *ours])
    names = ["none", "yarn ×8 · mine bbbbbbbb", "yarn ×8 · mine cccccccc"]  # noqa: RUF001
    assert [*sheet.rows] == names
    assert [t.base for t in tables([*plain, *ours, *other])] == ["m@aaaaaaaa", "m@dddddddd"]


def printed_by(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main(["table", *map(str, words)])
    assert not left.value.code
    return capsys.readouterr().out


def rows_of(page):
    """Lines of Markdown by the name that they begin with."""
    return {line.split(" | ")[0]: line for line in page.splitlines() if line.startswith("| ")}


@pytest.mark.parametrize("where", ["method=yarn", "length>=16k", "method=pi"])
def test_a_condition_chooses_what_is_shown_and_not_what_it_is_judged_by(tmp_path, capsys, where):
    store = Store(tmp_path)
    for one in EXAMPLE + READING:
        store.write(one)
    said = ("--results", tmp_path, "--format", "csv")
    far = {(r["method"], r["task"]): r["effective"] for r in csv_rows(printed_by(capsys, *said))}
    some = csv_rows(printed_by(capsys, *said, "--where", where))
    assert some and all(r["effective"] == far[r["method"], r["task"]] for r in some)


def csv_rows(text):
    return [*csv.DictReader(io.StringIO(text))]


def test_without_the_model_as_it_is_a_table_says_what_a_row_is_held_against():
    assert "of what the row itself scores on short inputs" in text(EXAMPLE[3:6])
    assert "the model's as it is" not in text(READING[1:])


def test_packed_results_make_the_same_tables(tmp_path, capsys):
    store = Store(tmp_path)
    items = {f"trial-{i}": float(i % 3 > 0) for i in range(20)}
    for one in EXAMPLE:
        store.write(one.model_copy(update={"items": items} if one.value is not None else {}))
    before = printed_by(capsys, "--results", tmp_path, "--intervals")
    pack(tmp_path, remove=True)
    assert not [*(tmp_path / "runs").rglob("*.json")]
    assert printed_by(capsys, "--results", tmp_path, "--intervals") == before
