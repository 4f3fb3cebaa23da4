import csv
import io
import json
import re
from math import isnan
from unittest.mock import Mock, PropertyMock

import pytest
from rich.console import Console

from harness.cell import Cell, Result
from harness.plan import Planned
from harness.report.figures import length
from harness.report.figures.style import groups, slug
from harness.report.forecast import forecast, objects
from harness.report.live import Display, Lines, Progress, _current, duration, size
from harness.report.sheet import entry, number, readable, sheets
from harness.report.table import commas, drawn, markdown, refreshed, rows
from harness.where import matching


def result(method="none", length=4096, status="scored", task="passkey.standard", **more):
    cell = Cell(model="toy", method=method, task=task, length=length)
    said = {"value": 0.95, "low": 0.76, "high": 0.99, "n": 20} if status == "scored" else {}
    said |= {} if status == "scored" else {"reason": "it did not"}
    extended = {"factor": 8.0} if "factor" in method else {}
    return Result(cell=cell, status=status, metric="accuracy", **{**said, **extended, **more})


EXAMPLE = [
    result("yarn,factor=8", 4096, notice="an assumption"),
    result("yarn,factor=8", 8192, "out_of_memory", reason="needs 90 GB"),
    result("none", 4096),
    result("none", 8192, "failed", reason="RuntimeError: it\n  fell"),
    result("pi,factor=8", 8192, "unfit", reason="has no rope"),
]


def text(renderable, width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def test_a_table_has_methods_down_lengths_across_and_a_mark_for_every_cell():
    (sheet,) = sheets(EXAMPLE)
    assert text(drawn(sheet, 100)) == (
        "toy · passkey.standard · accuracy\n"
        "method                4k       8k\n"
        "─────────────────────────────────\n"
        "none       95 % [76, 99]   failed\n"
        "pi ×8                  ·      n/a\n"  # noqa: RUF001
        "yarn ×8*   95 % [76, 99]      OOM\n"  # noqa: RUF001
        "[low, high]  the 95 % interval\n"
        "n = 20 trials a cell\n"
        "failed  an error stopped it: none at 8k, RuntimeError: it fell\n"
        "OOM  out of memory: yarn ×8 at 8k, needs 90 GB\n"  # noqa: RUF001
        "n/a  cannot be run here: pi ×8 at 8k, has no rope\n"  # noqa: RUF001
        "·  not measured\n"
        "*  yarn ×8: an assumption"  # noqa: RUF001
    )


def test_what_must_be_known_of_several_methods_is_said_once():
    alike = [result(f"{name},factor=8", notice="a guess") for name in ("pi", "ntk")]
    (sheet,) = sheets([*alike, *EXAMPLE])
    assert [note for note in sheet.notes if note[0] == "*"] == [
        "*  pi ×8, ntk ×8: a guess",  # noqa: RUF001
        "*  yarn ×8: an assumption",  # noqa: RUF001
    ]


def test_markdown_is_the_same_table():
    page = markdown(sheets(EXAMPLE))
    assert "| method | 4k | 8k |\n|---|--:|--:|\n| none | 95 % [76, 99] | failed |\n" in page
    assert "- OOM: out of memory" in page and page.endswith("an assumption\n")


def test_a_number_whose_inputs_were_cut_is_marked_and_says_how_many():
    cut = [result(truncated=0.25), result(length=8192, truncated=1.0), result(length=16384)]
    (sheet,) = sheets(cut)
    assert [e.text for e in sheet.rows["none"]] == ["95 %†", "95 %†", "95 %"]
    assert "†  cut to fit: 25 to 100 % of inputs" in sheet.notes
    assert "95 %† [76, 99]" in text(drawn(sheet, 100)) and "| 95 %† [76, 99] |" in markdown([sheet])
    (sheet,) = sheets(cut[:1])
    assert "†  cut to fit: 25 % of inputs" in sheet.notes
    (sheet,) = sheets([result()])
    assert "†" not in text(drawn(sheet, 100)) + markdown([sheet])
    assert [row["truncated"] for row in rows(cut)] == [0.25, 1.0, 0.0]
    assert len(matching(cut, "truncated>0")) == 2


def test_a_reason_cannot_break_a_page():
    page = markdown(sheets([result(status="failed", reason="a | b <!-- /table:x -->")]))
    assert "<!--" not in page and r"a \| b" in page


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
def test_a_narrow_terminal_cuts_no_number(width):
    lengths = [1024 << i for i in range(12)]
    (sheet,) = sheets([result("yarn,factor=8", n) for n in lengths])
    page = text(drawn(sheet, width), width)
    assert "…" not in page and all(len(line) <= width for line in page.splitlines())
    assert page.count("95 %") == len(lengths) + 1 and page.count("[76, 99]") == len(lengths)


def test_planned_cells_without_a_result_are_missing_not_left_out():
    cells = [Cell(model="toy", method="none", task="passkey.standard", length=n) for n in (1, 2)]
    (sheet,) = sheets([], cells)
    assert [str(e) for e in sheet.rows["none"]] == ["·", "·"]


@pytest.mark.parametrize(
    ("x", "written"),
    [(23.1234, "23.1"), (9.996, "10.0"), (4.2, "4.20"), (123.4, "123"), (53248, "53,248"),
     (5.3e7, "5.3e7"), (99.96, "100")],
)  # fmt: skip
def test_numbers_have_three_figures(x, written):
    assert number(x, "perplexity") == written


def test_a_perplexity_has_its_interval_beside_it():
    one = result(value=23.1, low=21.0, high=25.4).model_copy(update={"metric": "perplexity"})
    assert str(entry(one)) == "23.1 [21.0, 25.4]"
    assert str(entry(one.model_copy(update={"low": None}))) == "23.1"


def test_a_spec_reads_well():
    assert readable("yarn,beta_fast=16,factor=8") == "yarn ×8, beta_fast 16"  # noqa: RUF001
    assert readable("none") == "none"


REACHES = "perplexity.whole,corpus=stdlib@3c0e128e,reach={},samples=5"


def test_what_only_a_path_needs_is_not_read_out():
    assert readable(REACHES.format(1024)) == "perplexity.whole, corpus stdlib, samples 5"
    (sheet,) = sheets([result(task=REACHES.format(1024))])
    assert sheet.title == "toy · perplexity.whole, corpus stdlib, samples 5 · accuracy"


def test_two_tables_never_have_the_same_title(tmp_path):
    two = [result(task=REACHES.format(n)) for n in (1024, 2048)]
    titles = [sheet.title for sheet in sheets(two)]
    assert all("stdlib@3c0e128e, reach" in title for title in titles) and len({*titles}) == 2
    assert len(groups(two)) == 2
    plan = [planned(1024, task=one.cell.task) for one in two]
    page = text(forecast(plan, []), 150)
    assert "reach 1024" in page and "reach 2048" in page


def test_cells_of_unlike_trials_say_so():
    (sheet,) = sheets([result(length=1), result(length=2, n=5)])
    assert "n = 5 to 20 trials a cell" in sheet.notes


def test_a_table_says_whether_what_was_trained_had_one_budget():
    said = "{}, recipe quick: 1,000 tokens of x in {} updates, sequences of 4,096"
    trained = [
        Result(
            cell=Cell(
                model=f"toy+{name}@0123abcd", method=name, task="perplexity.whole", length=4096
            ),
            status="scored",
            value=9.0,
            metric="perplexity",
            trained=said.format(name, updates),
        )
        for name, updates in (("pi", 10), ("yarn", 10), ("ntk", 20))
    ]
    last = [sheets(some)[0].notes[-1] for some in (trained[:1], trained[:2], trained)]
    assert last[0] == f"pi  {said.format('pi', 10)}"
    assert last[1].startswith("one budget") and last[2].startswith("unlike budgets")


def test_a_reason_names_the_method_as_the_table_does(capsys):
    spec = "longrope,factor=2,start_tokens=9"
    one = result(spec, status="failed", reason=f"{spec} left the model as it was")
    (sheet,) = sheets([one])
    Lines(1).cell_finished(one)
    for said in (sheet.notes[0], capsys.readouterr().err):
        assert "longrope ×2, start_tokens 9 left the model" in said  # noqa: RUF001
        assert spec not in said


def test_commas_and_objects_say_the_same():
    listed = [*csv.DictReader(io.StringIO(commas(EXAMPLE)))]
    assert [r["status"] for r in listed] == [r["status"] for r in rows(EXAMPLE)]
    assert listed[0]["method_parameters"] == "factor=8" and listed[0]["value"] == "0.95"
    assert commas([]) == ""
    assert json.loads(json.dumps(rows(EXAMPLE), allow_nan=False)) == rows(EXAMPLE)


@pytest.mark.parametrize(
    ("where", "count"),
    [
        (None, 5),
        ("method=yarn", 2),
        ("method=yarn,pi", 3),
        ("method!=yarn", 3),
        ("length>=8k status=scored", 0),
        ("length<8192 status=scored", 2),
        ("value>=0.9", 2),
        ("length=4k-8k", 5),
        ("length=8k-16k", 3),
        ("length!=4k-8k", 0),
        ("factor=8", 3),
        ("factor=none", 2),
        ("model=other", 0),
    ],
)
def test_conditions_choose(where, count):
    assert len(matching(EXAMPLE, where)) == count


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("model=toy", 2),
        ("model=toy,dtype=float32", 1),
        ("model=toy,dtype=float32,other", 2),
        ("base=toy", 3),
        ("model!=toy", 2),
        ("model!=toy,dtype=float32", 3),
    ],
)
def test_a_models_name_means_it_whatever_it_was_computed_in(where, count):
    named = ("toy", "toy,dtype=float32", "other", "toy+mine@0123abcd")
    cells = [Cell(model=name, method="none", task="passkey", length=1024) for name in named]
    every = [Result(cell=cell, status="scored", value=0.5) for cell in cells]
    assert len(matching(every, where)) == count


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("methd=yarn", "no 'methd'. Did you mean 'method'"),
        ("yarn", "'yarn' is no condition"),
        ("value>=high", "value is a number, and 'high' is none"),
        ("length>=eight", "is no length"),
        ("method>=yarn", "use = or != instead"),
        ("length>=4k,8k", "compares with one number"),
        ("length<=4k-8k", "compares with one number"),
        ("length>=none", "compares with one number"),
        ("value<none", "compares with one number"),
        ("method=yarn,factor=8", "factor is no name. A factor is a condition of its own"),
    ],
)
def test_a_condition_that_is_none_says_so(where, why):
    with pytest.raises(ValueError, match=why.replace("'", ".")):
        matching(EXAMPLE, where)


def test_a_page_is_made_anew_between_its_marks_only():
    page = "a\n<!-- table:x method=yarn -->\nold\n<!-- /table:x -->\nb\n"
    after = refreshed(page, lambda where: f"new: {where}\n")
    assert after == "a\n<!-- table:x method=yarn -->\n\nnew: method=yarn\n\n<!-- /table:x -->\nb\n"
    assert refreshed(after, lambda where: f"new: {where}\n") == after


@pytest.mark.parametrize("page", ["none", "<!-- table:x -->\n", "<!-- /table:x -->"])
def test_a_page_without_both_marks_is_refused(page):
    with pytest.raises(ValueError, match="opens"):
        refreshed(page, lambda where: "")


def planned(n, *, fits=True, seconds=10.0, task="passkey.standard"):
    cell = Cell(model="toy", method="none", task=task, length=n)
    why = None if fits else "needs 90 GB"
    return Planned(cell=cell, tokens=n, seconds=seconds, bytes=10**9, fits=fits, why=why)


def test_a_forecast_lists_every_cell_and_sums_what_is_missing():
    plan = [planned(4096), planned(8192), planned(16384, fits=False)]
    page = text(forecast(plan, {plan[0].cell}))
    assert "3 cells: 1 done, 2 to run, about 20.0 s, 1.0 GB at most; 1 would not fit" in page
    assert "needs 90 GB" in page and "16,384" in page
    said = objects(plan, {plan[0].cell})
    assert [o["state"] for o in said] == ["done", "missing", "missing"]
    assert [o["fits"] for o in said] == [True, True, False]


def test_progress_learns_from_what_cells_really_take(monkeypatch):
    now = iter([100.0, 130.0, 130.0]).__next__
    monkeypatch.setattr("time.monotonic", now)
    progress = Progress([planned(1, seconds=1.0), planned(2, seconds=3.0)])
    assert progress.remaining is None
    progress.finish(result(length=1).model_copy(update={"cell": planned(1).cell}))
    assert progress.remaining == 90.0


def test_the_display_shows_the_grid_as_it_fills():
    plan = [planned(4096), planned(8192), planned(16384)]
    console = Console(file=io.StringIO(), width=90, force_terminal=True, color_system=None)
    display = Display(plan, [result(length=4096)], console)
    with display:
        display.cell_started([plan[1].cell], 8192)
        display.progressed(4096)
        display.note("the starting point is used")
        page = text(display, 90)
    assert "0 of 2 cells" in page and re.search(r"· \d+(\.\d)? [MG]B now", page)
    assert "none · passkey.standard · 8k · 4,096 of 8,192" in page
    assert page.splitlines()[-1].split() == ["none", "95", "%", "[76,", "99]", "…", "·"]
    display.cell_finished(result(length=8192, value=0.5, peak_memory=1_200_000_000))
    page = text(display, 90)
    assert "1 of 2 cells" in page and "50 %" in page and "1.2 GB at most" in page
    assert "note: the starting point is used" in console.file.getvalue()


def test_what_is_drawn_lasts_though_its_cell_ends_meanwhile():
    """The display is drawn by a thread of its own."""
    looks = [[planned(4096).cell], []]
    now = Mock(spec=Progress, read=1.0, tokens=2.0)
    type(now).current = PropertyMock(side_effect=lambda: looks.pop(0))
    assert "4k · 1 of 2 tokens" in _current(now) and _current(now) == "getting ready"
    progress = Progress([planned(4096)])
    progress.start([planned(4096).cell], 4096)
    before = progress.current
    progress.finish(result(length=4096).model_copy(update={"cell": before[0]}))
    assert len(before) == 1 and progress.current == []


def test_a_log_has_a_line_for_each_cell(capsys):
    lines = Lines(2)
    lines.cell_finished(result(length=8192, seconds=4.25))
    lines.cell_finished(result(length=16384, status="failed", reason="it\nfell"))
    said = capsys.readouterr()
    assert said.out == "" and said.err.splitlines() == [
        "1/2  toy  passkey.standard  none  8k  95 % [76, 99]  4.2 s",
        "2/2  toy  passkey.standard  none  16k  failed: it fell  0.0 s",
    ]


def test_times_and_sizes_are_said_as_people_say_them():
    assert [duration(s) for s in (4.24, 59.99, 200, 7500)] == [
        "4.2 s", "1 min 00 s", "3 min 20 s", "2 h 05 min",
    ]  # fmt: skip
    assert [size(b) for b in (640e6, 1.25e9)] == ["640 MB", "1.2 GB"]


@pytest.mark.parametrize(
    ("share", "said"), [(0, "0 %"), (4e-5, "0.004 %"), (2e-4, "0.02 %"), (0.99996, "99.996 %")]
)
def test_a_share_is_nothing_or_all_only_where_it_is(share, said):
    assert number(share, "accuracy") == said


def test_a_line_is_broken_at_a_length_that_has_no_value():
    row = [result("yarn", n) for n in (1024, 4096, 65536)]
    figure = length.draw([*row, result("yarn", 16384, "out_of_memory")])
    (line,) = figure.axes[0].get_lines()[:1]
    assert [bool(isnan(y)) for y in line.get_ydata()] == [False, False, True, False]
    assert line.get_xdata()[2] / line.get_xdata()[0] == pytest.approx(16)


def test_words_in_any_script_have_a_file_of_their_own():
    names = [slug(f"perplexity {book}.txt") for book in ("红楼梦", "西游记", "emma")]
    assert len({*names}) == 3 and all(name.isascii() for name in names)
    assert names[2] == "perplexity-emma-txt"
