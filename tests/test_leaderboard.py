import base64
import hashlib
import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from itertools import product
from math import exp
from pathlib import Path
from statistics import fmean
from unittest.mock import Mock

import pytest
from browser import Browser, chromium

from harness import catalog
from harness.archive import columns
from harness.catalog import canonical
from harness.cell import Cell, Result
from harness.cli import main
from harness.lengths import label
from harness.metric import higher_is_better
from harness.published import published
from harness.report.beside import beside
from harness.report.board import COLUMNS, board, fewer
from harness.report.page import _made, command, fitting, html, missing, percent
from harness.report.ranking import ranking, refreshed, summary
from harness.report.reach import CLAIM, MOST, Curve, budget, held, tax
from harness.report.table import escaped
from harness.store import Store
from harness.trained import Trained

ROOT = Path(__file__).parents[1]
LENGTHS = (4096, 8192, 16384, 32768)
READ = {"passkey.standard": ("accuracy", 0.1), "perplexity.whole,samples=10": ("perplexity", 1.0)}


def row(method, values, task="passkey.standard", model="toy", **more):
    """One result for each value; None: memory ran out."""
    metric, margin = READ.get(task, ("accuracy", 0.1))
    return [
        Result(
            cell=Cell(model=model, method=method, task=task, length=length),
            **{"status": "out_of_memory", "reason": "needs 90 GB"}
            if value is None
            else {"status": "scored", "value": value, "n": 20}
            | {"low": value - margin, "high": value + margin},
            metric=metric,
            protocol=task.split(",")[0],
            factor=8.0 if "factor" in method else None,
            **more,
        )
        for length, value in zip(LENGTHS, values, strict=False)
    ]


EXAMPLE = [
    *row("none", [0.95, 0.4, 0.2, 0.1]),
    *row("yarn,factor=8", [0.9, 0.85, 0.95, 0.85]),
    *row("dynamic-ntk", [0.95, 0.85, 0.85, 0.9]),
    *row("ntk,factor=8", [0.9, 0.9, None]),
    *row("pi,factor=8", [0.0, 0.0, 0.0, 0.0]),
]
READING = [
    *row("none", [20, 21, 40, 300], "perplexity.whole,samples=10"),
    *row("yarn,factor=8", [21, 20, 19.5, 19], "perplexity.whole,samples=10"),
    *row("pi,factor=8", [84, 84, 84, 84], "perplexity.whole,samples=10"),
]


def folder(place, results):
    store = Store(place / "results")
    for result in results:
        store.write(result)
    return store.root


def boarded(place, results=EXAMPLE, **more):
    return board(columns(folder(place, results), only=COLUMNS), lambda cell: 4096, **more)


@pytest.mark.parametrize("said", [None, 4096])
def test_the_window_is_asked_of_one_cell_with_a_value_for_each_base(said, tmp_path):
    """One that could not run does not say it; and each asked is a file or a pack to be read."""
    asked = []
    results = [*row("alibi", [None] * 4), *EXAMPLE, *READING]
    board(columns(folder(tmp_path, results), only=COLUMNS), lambda c: asked.append(c) or said)
    (cell,) = asked
    assert cell.method != "alibi" and cell.base == "toy"


def call(*argv):
    with pytest.raises(SystemExit) as left:
        main([str(part) for part in argv])
    return left.value.code or 0


def names(section):
    return [(row.rank, row.name, str(row.held)) for row in section.rows]


def data(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_methods_are_ranked_by_how_far_they_read_and_share_a_rank_where_it_is_equal(tmp_path):
    (section,) = boarded(tmp_path).sections
    assert names(section) == [
        (1, "dynamic-ntk", "≥ 32k"),
        (1, "yarn ×8", "≥ 32k"),  # noqa: RUF001
        (3, "ntk ×8", "≥ 8k"),  # noqa: RUF001
        (4, "none", "4k"),
        (5, "pi ×8", "< 4k"),  # noqa: RUF001
    ]
    assert section.common and section.higher and section.lengths == [*LENGTHS]
    assert [row.name.split()[0] for row in section.rows if row.open] == ["ntk"]


def test_a_method_that_reads_badly_everywhere_has_kept_nothing(tmp_path):
    (section,) = boarded(tmp_path, READING).sections
    assert not section.higher and names(section)[0] == (1, "yarn ×8", "≥ 32k")  # noqa: RUF001
    assert names(section)[1:] == [(2, "none", "8k"), (3, "pi ×8", "< 4k")]  # noqa: RUF001
    pi = section.rows[-1]
    assert pi.tax.share == pytest.approx(3.2) and pi.tax.sure and pi.tax.length == 4096


def test_a_large_rise_of_perplexity_that_few_documents_cannot_show_does_not_hold():
    plain, ours = ([20.0, 21.0], [10.0, 10.0], [40.0, 40.0]), ([20.0, 25.0], [10.0] * 2, [40.0] * 2)
    curves = [Curve([4096, 8192], *values) for values in (plain, ours)]
    assert str(held(curves[1], curves[0], 4096, higher=False)) == "4k"
    assert str(held(curves[0], None, 4096, higher=False)) == "≥ 8k"


def test_what_was_not_measured_is_neither_bad_nor_good(tmp_path):
    results = [*row("none", [0.9, 0.1]), *row("yarn,factor=8", [None, None])]
    (section,) = boarded(tmp_path, results).sections
    assert names(section) == [(1, "none", "4k"), (None, "yarn ×8", "None")]  # noqa: RUF001


def test_without_the_model_as_it_is_a_row_is_held_against_itself():
    curve = Curve([4096, 8192, 16384], [0.5, 0.45, 0.1], [0.4, 0.4, 0.0], [0.6, 0.6, 0.2])
    assert str(held(curve, None, 4096, True)) == "8k" and tax(curve, None, 4096, True) is None
    reading = Curve([4096, 8192, 16384], [30, 31, 90], [28, 29, 85], [32, 33, 95])
    assert str(held(reading, None, 4096, False)) == "8k"
    assert str(held(reading, None, None, False)) == "8k"


def test_a_perplexity_is_held_from_the_original_length_on():
    plain = Curve([2048, 4096, 8192], [25, 20, 80], [24, 19, 78], [26, 21, 82])
    worse = Curve([2048, 4096, 8192], [24, 60, 61], [23, 58, 59], [25, 62, 63])
    reach = held(worse, plain, 4096, False)
    assert str(reach) == "< 4k" and reach.interval == ""
    later = Curve([8192], [20.5], [19.5], [21.5])
    assert str(held(later, plain, 4096, False)) == "≥ 8k"
    assert held(Curve([2048], [24], [23], [25]), plain, 4096, False) is None


def by_document(*rows: list[float]) -> Curve:
    """Of documents' losses, a list for each length; the intervals are as wide as a library's."""
    lengths = [4096 * 2**i for i in range(len(rows))]
    values = [exp(fmean(row)) for row in rows]
    documents = {
        n: dict(zip("abcde", row, strict=True)) for n, row in zip(lengths, rows, strict=True)
    }
    return Curve(
        lengths, values, [v / 2 for v in values], [v * 2 for v in values], documents.__getitem__
    )


def test_perplexities_are_paired_by_document_where_their_losses_are_at_hand():
    losses = [2.0, 2.4, 2.9, 3.3, 3.8]
    flat, worse = [x + 0.001 + x / 1e5 for x in losses], [x + 0.1 + x / 100 for x in losses]
    plain = by_document(losses, worse)
    assert str(held(plain, None, 4096, False)) == "4k"
    blind = replace(plain, items=lambda length: {})
    assert str(held(blind, None, 4096, False)) == "≥ 8k"  # two wide intervals see nothing
    some, much = (
        [x + by + x / 1e4 for x in losses] for by in (0.10, 0.20)
    )  # 1 / 0.85: 0.1625 nats
    assert str(held(by_document(some, some), plain, 4096, False)) == "≥ 8k"
    assert str(held(by_document(much, much), plain, 4096, False)) == "< 4k"
    assert held(by_document(flat, flat), plain, 4096, False).low == 8192
    early = Curve([1024, 8192], [20.0, 14.0], [19, 13], [21, 15])
    short = Curve([1024, 4096], [20.0, 15.0], [19, 14], [21, 16])
    assert str(held(early, short, 4096, False)) == "≥ 8k"  # they are alike where both were measured
    cost = tax(by_document(some, some), plain, 4096, False)
    assert cost.sure and cost.low == pytest.approx(cost.share, rel=0.01)
    assert cost.share == pytest.approx(exp(0.1) - 1, rel=0.01)
    wide = tax(replace(by_document(some, some), items=lambda length: {}), plain, 4096, False)
    assert not wide.sure and wide.low < 0 < wide.high


def test_what_a_score_costs_has_an_interval_of_the_same_questions():
    asked = [f"question {i}" for i in range(20)]

    def scored(right: int) -> Curve:
        items = {name: float(i < right) for i, name in enumerate(asked)}
        return Curve([4096], [right / 20], [0.0], [1.0], lambda length: items)

    cost = tax(scored(10), scored(20), 4096, True)
    assert cost.share == pytest.approx(0.5) and cost.sure and 0 < cost.low < 0.5 < cost.high < 1
    assert not tax(scored(19), scored(20), 4096, True).sure


def test_a_model_that_finds_nothing_is_no_measure_for_others():
    nothing, some = (Curve([4096], [v], [v], [v]) for v in (0.0, 0.5))
    assert held(some, nothing, 4096, True) is None and held(nothing, nothing, 4096, True) is None
    assert held(nothing, None, 4096, True) is None


def test_where_nothing_finds_anything_no_row_reads_far_and_none_is_first(tmp_path):
    results = [*row("none", [0.0, 0.0]), *row("pi,factor=8", [0.0, 0.0])]
    (section,) = boarded(tmp_path, results).sections
    assert [(r.rank, r.held) for r in section.rows] == [(None, None)] * 2


def test_where_the_model_as_it_is_was_not_measured_the_page_says_so(tmp_path):
    found = boarded(tmp_path, row("pi,factor=8", [0.8, 0.1]))
    page = ranking(found)
    assert "each row is held against itself, and none is ranked" in page and "**4k**" not in page
    assert data(html(found, [], lambda cell: None))["sections"][0]["alone"]
    assert [row.rank for row in found.sections[0].rows] == [None]
    page = ranking(boarded(tmp_path, [*row("none", [0.8, 0.1]), *row("pi,factor=8", [0.8, 0.1])]))
    assert "held against itself" not in page and "**4k**" in page


@pytest.mark.parametrize(("window", "ranks"), [(2048, [None, None]), (4096, [1, 1])])
def test_what_the_model_as_it_is_scores_beyond_its_window_is_no_measure(window, ranks, tmp_path):
    """A method that finds little everywhere reads far only beside who finds nothing there."""
    root = folder(tmp_path, [*row("none", [0.2, 0.2]), *row("pi,factor=8", [0.18, 0.18])])
    (section,) = board(columns(root, only=COLUMNS), lambda _: window).sections
    assert [row.rank for row in section.rows] == ranks and section.common == (window == 4096)


def test_who_was_not_measured_as_far_may_rank_higher(tmp_path):
    results = [*EXAMPLE, *row("clex,max_factor=8", [0.95, 0.94])]
    page = ranking(boarded(tmp_path, results))
    assert "| ≤ 3 | clex, max\\_factor 8 | ≥ 8k" in page and "| ≤ 1 |" not in page
    order = [line.split(" | ")[1] for line in page.splitlines() if line.startswith("| ≤ 3")]
    assert len(order) == 2  # and before those that fail there


def test_who_takes_the_factor_from_the_input_claims_nothing(tmp_path):
    results = [*EXAMPLE, *row("clex,max_factor=8", [0.95]), *row("clex", [0.95])]
    (section,) = boarded(tmp_path, results).sections
    said = {row.cell.method: row.claimed for row in section.rows}
    assert (said["none"], said["dynamic-ntk"], said["yarn,factor=8"]) == (4096, None, 32768)
    assert said["clex,max_factor=8"] == 32768 and said["clex"] == 65536
    assert catalog.load("methods", "clex").max_factor == MOST["clex"]
    own = [result.model_copy(update={"factor": 4.0}) for result in row("none", [0.9, 0.9, 0.9])]
    (section,) = boarded(tmp_path / "scaled", own).sections  # a checkpoint that comes with YaRN
    assert [row.claimed for row in section.rows] == [16384]


@pytest.mark.parametrize(("share", "said"), [
    (0.0, "0 %"), (0.004, "+0.4 %"), (-0.0008, "−0.08 %"), (1e-6, "0 %"),  # noqa: RUF001
    (0.0996, "+10 %"), (0.19, "+19 %"), (30.0, "+3,000 %"),
])  # fmt: skip
def test_what_can_be_told_from_nothing_is_not_printed_as_nothing(share, said):
    assert percent(share) == said


def test_what_blew_up_is_ranked_and_said_to_be_much_worse(tmp_path):
    task = "perplexity.whole,samples=10"
    results = [*row("none", [1.5, 1.5], task), *row("pi,factor=8", [1.7e308, 1.7e308], task)]
    found = boarded(tmp_path, results)
    (section,) = data(html(found, [], lambda cell: None))["sections"]
    assert [r["taxed"] for r in section["rows"]] == ["·", "> +1,000,000 %"]
    assert "| > +1,000,000 % |" in ranking(found)


def test_the_task_says_which_way_is_better():
    assert not higher_is_better("perplexity.whole,samples=3", "accuracy")
    assert higher_is_better("passkey.standard", "perplexity")
    assert not higher_is_better("gone.away", "word_perplexity")
    assert higher_is_better("gone.away,x=1", "exact match")
    for metric in ("pct_stereotype", "likelihood_diff", "wer", "gender_bias_score"):  # lm-eval's
        assert not higher_is_better(f"lm-eval:gone.{metric}", metric)


def test_the_budget_is_read_from_what_a_checkpoint_says_of_itself():
    trained = Trained(
        method="yarn,factor=4", recipe="quick", numbers={}, base="toy", base_weights="0",
        original_length=4096, corpus="text: 3 tokens of it", steps=400, sequence_length=16384,
        tokens=6553600, seed=0,
    )  # fmt: skip
    assert budget(trained.phrase) == (6553600, 16384) and budget(None) == (None, None)


def test_a_trained_model_stands_beside_its_base_with_its_tokens(tmp_path):
    phrase = "yarn,factor=8, recipe quick: 1,000,000 tokens of x in 10 updates, sequences of 16,384"
    mine = row("yarn,factor=8", [0.95] * 4, model="toy+mine@0123abcd", trained=phrase)
    (section,) = boarded(tmp_path, [*EXAMPLE, *mine]).sections
    first = section.rows[0]
    assert first.name == "yarn ×8 · mine" and first.trained_tokens == 1_000_000  # noqa: RUF001
    assert first.trained_length == 16384 and first.claimed == 32768
    assert {row.claimed for row in section.rows if row.plain} == {4096}


def test_what_is_too_much_leaves_by_rank_and_is_counted(tmp_path):
    whole = boarded(tmp_path, EXAMPLE + READING)
    assert (whole.cells, whole.rows, whole.shown) == (31, 8, 8)
    few = boarded(tmp_path, EXAMPLE + READING, most=4)
    assert few == fewer(whole, 4) and (few.rows, few.shown) == (8, 4)
    assert [[row.name for row in section.rows] for section in few.sections] == [
        ["dynamic-ntk", "yarn ×8"],  # noqa: RUF001
        ["yarn ×8", "none"],  # noqa: RUF001
    ]
    assert [section.left_out for section in few.sections] == [3, 1]
    assert "Of 8 rows the best 4" in ranking(few) and "1 more rows" in ranking(few)


def test_a_page_that_would_be_too_large_has_fewer_rows(tmp_path):
    whole = boarded(tmp_path)
    page, shown = fitting(whole, [], lambda cell: None)
    assert shown == whole
    less, shown = fitting(whole, [], lambda cell: None, largest=len(page.encode()) - 1)
    assert len(less) < len(page) and "of which the best 3 are here" in less
    assert data(less)["sections"][0]["out"] == 2
    assert "Of 5 rows the best 3 are in that page" in ranking(whole, on_page=shown)


EVIL = "<script>alert(1)</script>'\"&|`*_$x$[x](javascript:y)</td>"


def test_text_of_a_result_stays_text(tmp_path):
    said = {"reason": EVIL, "metric": EVIL, "corpus": EVIL, "trained": EVIL, "protocol": EVIL}
    cells = [
        Cell(model=EVIL, method=EVIL, task=EVIL, length=4096),
        Cell(model=f"toy+{EVIL}", method="none", task="passkey.standard", length=8192),
    ]
    about = {"commit": EVIL, "kernel": EVIL, "versions": {"torch": EVIL}, "device": EVIL}
    more = {"notice": EVIL, "provenance": about}
    results = [Result(cell=cell, status="failed", **said, **more) for cell in cells]
    root = folder(tmp_path, [*EXAMPLE, *results])
    assert call("leaderboard", "--results", root) == 0
    page = (root / "leaderboard.html").read_text("utf-8")
    scripts = [about for tag, about in Tags(page).found if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]
    assert page.lower().count("<script") == page.lower().count("</script") == 2
    section = next(s for s in data(page)["sections"] if s["model"] == EVIL)
    assert (section["metric"], section["rows"][0]["name"]) == (EVIL, EVIL)
    text = re.sub(r"\\.", "", (root / "LEADERBOARD.md").read_text("utf-8"))
    assert "<script" not in text and "](javascript" not in text and "alert(1)" in text
    assert re.sub(r"\\(.)", r"\1", escaped(EVIL)) == EVIL and r"\$x\$" in escaped(EVIL)


def test_the_page_loads_nothing_and_may_not(tmp_path):
    page = html(boarded(tmp_path), [], lambda cell: None)
    tags = Tags(page).found
    assert not [tag for tag, about in tags if {"src", "href", "style", "onclick"} & set(about)]
    assert not [tag for tag, _ in tags if tag in ("link", "img", "iframe", "base")]
    (policy,) = [about["content"] for _, about in tags if "http-equiv" in about]
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_published_rows_stand_apart_and_have_no_rank(tmp_path):
    printed = beside(published(ROOT / "results" / "published"))
    sections = data(html(boarded(tmp_path), printed, lambda cell: None))["sections"]
    apart = [section for section in sections if section["published"]]
    assert len(apart) > 5 and sections[: -len(apart)] == [s for s in sections if s not in apart]
    rows = [row for section in apart for row in section["rows"]]
    assert {(row["rank"], row["reach"]) for row in rows} == {(None, None)}
    numbers = published(ROOT / "results" / "published")
    told = {point[1] for row in rows for point in row["points"]}
    assert {number.printed for number in numbers} == told
    assert "regenerated" not in told and any(row["facts"] for row in rows)
    for section in printed:  # a bound is printed, and no point of a curve
        bounds = [p for row in section["rows"] for p in row["points"] if p[1][0] in "<>"]
        assert not [point for point in bounds if point[3] is not None]


def test_a_rows_command_makes_its_cells(tmp_path):
    corpus = "perplexity.whole,corpus=stdlib:tests@77e98ceb,reach=32768,samples=10"
    mine = row("pi", [9], model="toy+my it@0123abcd,dtype=float32")
    for section in boarded(
        tmp_path, [*EXAMPLE, *row("yarn,factor=8", [20], corpus), *mine]
    ).sections:
        for found in section.rows:
            words = shlex.split(command(found))
            flags = dict(zip(words[2::2], words[3::2], strict=True))
            assert words[:2] == ["harness", "run"] and flags["--results"] == "again"
            assert canonical("methods", flags["--method"]) == found.cell.method
            assert canonical("tasks", flags["--task"]) == found.cell.task.replace("@77e98ceb", "")
            own = ("my it", "float32") if found.cell.training else ("toy", "bfloat16")
            assert (flags["--model"], flags["--dtype"]) == own
            assert flags["--lengths"] == ",".join(map(label, found.curve.lengths))


def test_the_summary_has_methods_down_and_models_and_tasks_across(tmp_path):
    lines = summary(boarded(tmp_path, EXAMPLE + READING)).splitlines()
    assert lines[0] == "| method | toy<br>passkey | toy<br>perplexity |"
    assert lines[2] == "| yarn | **≥ 32k** | **≥ 32k** |" and lines[-1] == r"| pi | \< 4k | \< 4k |"
    assert "| dynamic-ntk | **≥ 32k** | · |" in lines


def test_of_several_settings_the_summary_names_the_best_and_ranks_methods(tmp_path):
    others = [*row("yarn,factor=4", [0.9, 0.2]), *row("yarn,factor=16", [0.9, 0.2, 0.1])]
    text = summary(boarded(tmp_path, EXAMPLE + others))
    assert "| yarn | **≥ 32k** ×8 |" in text and "chosen by the same numbers" in text  # noqa: RUF001
    order = [line.split(" | ")[0] for line in text.splitlines()[2:7]]
    assert order == ["| dynamic-ntk", "| yarn", "| ntk", "| none", "| pi"]


def test_methods_of_few_columns_come_last_in_the_summary(tmp_path):
    tasks = ("passkey.random", "passkey.strict", "passkey.yarn")
    rows = (row(name, [0.9] * 4, task) for task in tasks for name in ("none", "yarn,factor=8"))
    many = [one for found in rows for one in found]
    text = summary(boarded(tmp_path, [*many, *row("rerope", [1.0] * 4, "passkey.yarn")]))
    assert [line.split(" | ")[0] for line in text.splitlines()[2:5]] == [
        "| none", "| yarn", "| rerope",
    ]  # fmt: skip


def test_a_table_without_the_model_as_it_is_ranks_nobody_in_the_summary(tmp_path):
    alone = row("yarn,factor=8", [0.1] * 4, "passkey.random")
    alone += row("pi,factor=8", [0.1] * 4, "passkey.random")
    assert summary(boarded(tmp_path / "with", EXAMPLE + alone)).startswith(
        summary(boarded(tmp_path / "without"))
    )


def test_what_a_number_is_not_to_be_read_without_stands_with_its_rank(tmp_path):
    noted = boarded(tmp_path, [*EXAMPLE, *row("longrope", [0.9] * 4, notice="yarn stands in")])
    assert r"| longrope | **≥ 32k**\* |" in summary(noted) and "with a note" in summary(noted)
    (line,) = (line for line in ranking(noted).splitlines() if line.startswith("- "))
    assert line == r"- \* longrope: yarn stands in"
    assert r"\*" not in summary(boarded(tmp_path / "other"))


def test_tasks_of_one_name_are_told_apart_in_the_summary(tmp_path):
    both = ("none", "yarn,factor=8")
    more = [
        one
        for method, task in product(both, ("passkey.standard,samples=4", "passkey.strict"))
        for one in row(method, [1, 1], task)
    ]
    heads = summary(boarded(tmp_path, EXAMPLE + more)).splitlines()[0].split(" | ")[1:]
    assert {head.rstrip(" |").partition("<br>")[2] for head in heads} >= {
        "passkey.standard", "passkey, samples 4", "passkey.strict",
    }  # fmt: skip
    assert len({*heads}) == len(heads)


def test_the_same_results_make_the_same_pages_and_new_ones_make_them_stale(tmp_path, capsys):
    root = folder(tmp_path, EXAMPLE)
    assert call("leaderboard", "--results", root, "--check") == 1
    assert not (root / "leaderboard.html").exists()
    assert call("leaderboard", "--results", root) == 0
    pages = [(root / name).read_bytes() for name in ("LEADERBOARD.md", "leaderboard.html")]
    assert call("leaderboard", "--results", root, "--check") == 0
    again = folder(tmp_path / "again", reversed(EXAMPLE))
    assert call("leaderboard", "--results", again) == 0
    assert pages == [(again / n).read_bytes() for n in ("LEADERBOARD.md", "leaderboard.html")]
    folder(tmp_path, row("cl-scaling", [0.5]))
    capsys.readouterr()
    assert call("leaderboard", "--results", root, "--check") == 1
    assert "leaderboard.html: behind. The same command without --check" in capsys.readouterr().err
    assert pages[1] == (root / "leaderboard.html").read_bytes()


def test_a_readme_with_marks_beside_the_results_shows_the_summary(tmp_path):
    root, readme = folder(tmp_path, EXAMPLE), tmp_path / "README.md"
    readme.write_text("above\n\nno marks\n")
    call("leaderboard", "--results", root)
    assert readme.read_text() == "above\n\nno marks\n"
    readme.write_text("above\n<!-- leaderboard -->\nbygone\n<!-- /leaderboard -->\nbelow\n")
    assert call("leaderboard", "--results", root, "--check") == 1
    call("leaderboard", "--results", root)
    text = readme.read_text("utf-8")
    assert text.startswith("above\n<!-- leaderboard -->\n\n| method |") and "bygone" not in text
    assert text.endswith("\n\n<!-- /leaderboard -->\nbelow\n")
    assert refreshed(text, lambda: "new") == refreshed(refreshed(text, lambda: "x"), lambda: "new")
    assert call("leaderboard", "--results", root, "--check") == 0
    assert f"({root.name}/LEADERBOARD.md)" in text
    root.rename(root.with_name("mine"))
    for verb in ("leaderboard", "pages"):
        assert call(verb, "--results", root.with_name("mine")) == 0
        assert readme.read_text("utf-8") == text  # it shows another folder's


def test_what_ships_trained_is_called_by_its_name_in_its_command():
    for model, called in (
        ("toy+longrope@cb57d135", "toy-longrope"), ("toy+mine@cb57d135,dtype=float32", "mine"),
        ("toy+longrope@cb57d136", "longrope"),
    ):  # fmt: skip
        cell = Cell(model=model, method="longrope,factor=512", task="passkey", length=4096)
        row = Mock(cell=cell, curve=Mock(lengths=[4096]))
        dtype = "float32" if "dtype" in model else "bfloat16"
        said = shlex.split(command(row))
        assert said[said.index("--model") + 1] == called
        assert said[said.index("--dtype") + 1] == dtype


def test_a_command_says_where_what_it_needs_lies_and_the_page_what_must_be_brought():
    task = "perplexity.whole,corpus=text:novels@0123abcd"
    cell = Cell(model="toy+mine@cb57d135", method="none", task=task, length=4096)
    row = Mock(cell=cell, curve=Mock(lengths=[4096]))
    lying = {"toy+mine@cb57d135": "results/training/mine/adapter"}
    assert "--model results/training/mine/adapter " in command(row, lying)
    assert "corpus=text:novels" in command(row, lying)
    assert missing(cell, lying) == ["text:novels@0123abcd"]
    assert missing(cell, lying | {"text:novels@0123abcd": "text:x/novels"}) == []
    kept = cell.model_copy(update={"model": "toy", "task": "perplexity,corpus=stdlib@0123abcd"})
    assert missing(kept, {}) == []


def test_what_is_claimed_is_said_alike_wherever_it_is_shown(tmp_path):
    made = boarded(tmp_path, EXAMPLE)
    shown = html(made, [], lambda cell: None).replace("&#39;", "'")
    assert f"<dd>{CLAIM.capitalize()}.</dd>" in shown
    assert f"**Claimed** is {CLAIM}. " in ranking(made)


def test_code_that_came_with_a_model_is_in_the_row_and_in_its_command():
    cell = Cell(model="theirs", method="none", task="passkey", length=4096)
    found = Result(cell=cell, status="scored", value=1.0, provenance={"remote_code": True})
    row = Mock(cell=cell, curve=Mock(lengths=[4096]))
    assert "--trust-remote-code" in command(row, trusting=True)
    assert "--trust-remote-code" not in command(row)
    assert ("code of the model's own", "allowed to run") in _made(found)


def test_a_folder_without_results_and_a_torn_file_are_told(tmp_path, capsys):
    assert call("leaderboard", "--results", tmp_path) == 2
    assert "There are no results" in capsys.readouterr().err
    root = folder(tmp_path, EXAMPLE)
    (root / "runs" / "toy" / "torn.json").write_text("{")
    assert call("leaderboard", "--results", root) == 0
    assert "torn.json is skipped" in capsys.readouterr().err
    before = (root / "LEADERBOARD.md").read_text()
    for file in (root / "runs").rglob("*.json"):
        file.write_text("{")
    for words in (["leaderboard"], ["table"], ["results"]):
        assert call(*words, "--results", root) == 2
        assert "No file in" in capsys.readouterr().err
    assert (root / "LEADERBOARD.md").read_text() == before


def test_the_committed_leaderboard_is_that_of_the_committed_results():
    assert call("leaderboard", "--results", ROOT / "results", "--check") == 0


BROWSER = pytest.mark.skipif(not chromium(), reason="Chromium is not installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    place = tmp_path_factory.mktemp("page")
    slow = row("none", [0.9, 0.8], "passkey.yarn", model="other")
    root = folder(place, [*EXAMPLE, *READING, *slow, *row(EVIL, [0.2, None])])
    (root / "published").symlink_to(ROOT / "results" / "published")
    assert call("leaderboard", "--results", root) == 0
    return root / "leaderboard.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def opened(browser, page):
    browser.look(1280, 900)
    browser.open(page)
    yield browser
    assert browser.said == [] and set(browser.asked) <= {page.as_uri(), "about:blank"}


ROWS = "[...document.querySelectorAll('tr.row')].map(r => r.querySelector('.name').firstChild.data)"


def choose(browser, name, value):
    browser.run(
        f"(() => {{const it = document.querySelector('.bar').elements[{name!r}];"
        f"it.value = {value!r}; const one = it.length && it[0].type === 'radio'"
        "? [...it].find(r => r.checked) : it;"
        "one.dispatchEvent(new Event('change', {bubbles: true}))})()"
    )


@pytest.mark.slow
@BROWSER
def test_a_browser_shows_every_row_in_its_section(opened):
    assert opened.run(ROWS)[:3] == ["none", "dynamic-ntk", "yarn ×8"]  # noqa: RUF001
    titles = opened.run("[...document.querySelectorAll('.title')].map(t => t.textContent)")
    assert titles[:2] == ["other · passkey.yarn", "toy · passkey.standard"]
    assert opened.run("document.querySelector('#told').textContent") == "10 measured rows"
    assert opened.run("document.querySelectorAll('svg .band').length") == 9
    assert EVIL in opened.run(ROWS) and opened.run("document.scripts.length") == 2


@pytest.mark.slow
@BROWSER
def test_a_browser_sorts_by_what_is_clicked(opened):
    choose(opened, "task", "perplexity")
    assert opened.run(ROWS) == ["yarn ×8", "none", "pi ×8"]  # noqa: RUF001
    opened.run("document.querySelector('th[data-sort=tax] button').click()")
    assert opened.run(ROWS) == ["yarn ×8", "pi ×8", "none"]  # noqa: RUF001
    opened.run("document.querySelector('th[data-sort=tax] button').click()")
    assert opened.run(ROWS) == ["pi ×8", "yarn ×8", "none"], "what has no number is last"  # noqa: RUF001
    sort = "document.querySelector('th[aria-sort]')"
    assert opened.run(f"[{sort}.dataset.sort, {sort}.ariaSort]") == ["tax", "descending"]
    assert "sort=tax" in opened.run("location.hash") and "task=perplexity" in opened.run(
        "location.hash"
    )


@pytest.mark.slow
@BROWSER
def test_a_browser_filters_and_an_address_keeps_what_was_chosen(opened, page):
    for pick, value, count in (
        ("model", "other", 1),
        ("task", "perplexity", 3),
        ("protocol", "passkey.yarn", 1),
        ("method", "yarn", 2),
    ):
        choose(opened, pick, value)
        assert len(opened.run(ROWS)) == count
        opened.run("document.querySelector('[type=reset]').click()")
        assert len(opened.run(ROWS)) == 10
    choose(opened, "model", "other")
    choose(opened, "task", "perplexity")
    assert "Nothing matches" in opened.run("document.querySelector('.none').textContent")
    opened.open(page, "#flat=true&sort=reach&down=true&model=toy")
    assert opened.run(ROWS)[-1] == "pi ×8" and len(opened.run(ROWS)) == 9  # noqa: RUF001
    assert opened.run("document.querySelectorAll('.group').length") == 0
    opened.open(page, "#sort=constructor&model=nobody&source=%3Cb%3E")
    assert len(opened.run(ROWS)) == 10


@pytest.mark.slow
@BROWSER
def test_a_browser_says_of_published_rows_that_they_are_not_ranked(opened):
    choose(opened, "source", "published")
    assert "published rows, not ranked" in opened.run("told.textContent")
    assert set(opened.run("[...document.querySelectorAll('.rank')].map(r => r.textContent)")) == {
        ""
    }
    choose(opened, "source", "both")
    groups = opened.run("[...document.querySelectorAll('.under')].map(g => g.textContent)")
    where = ["not ranked" in group for group in groups]
    assert where == sorted(where) and any(where) and not all(where)


@pytest.mark.slow
@BROWSER
def test_a_browser_shows_a_number_for_several_lengths_once_under_what_was_printed(opened):
    choose(opened, "source", "published")
    choose(opened, "task", "passkey")
    said = "[...document.querySelectorAll('.look')].map(b => b.getAttribute('aria-label'))"
    (row,) = (words for words in opened.run(said) if "LongRoPE-LLaMA2" in words)
    many = "4k, 8k, 16k, 64k, 100k, 128k, 160k, 256k, 512k"
    assert row.endswith(f": {many} 100%, 1024k 100%, 1800k 100%, 2048k 60%")
    place = f"[...document.querySelectorAll('.look')].find(b => b.textContent.includes('{many}'))"
    assert opened.run(f"{place}.querySelector('.own').getAttribute('d').split('L').length") == 12


@pytest.mark.slow
@BROWSER
def test_a_browser_tells_by_mouse_and_by_keyboard_where_a_number_comes_from(opened):
    assert opened.run("tip.hidden")
    opened.point("tr.row .look")
    assert not opened.run("tip.hidden") and "harness run" in opened.run("tip.textContent")
    opened.press("Escape")
    assert opened.run("tip.hidden")
    for _ in range(40):
        opened.press("Tab")
        if opened.run("document.activeElement.className") == "look":
            break
    assert not opened.run("tip.hidden") and "4k90 %" in opened.run("tip.textContent")
    assert opened.run("document.activeElement.getAttribute('aria-describedby')") == "tip"
    opened.press("Tab")
    assert opened.run("tip.hidden") and opened.run("'copy' in document.activeElement.dataset")
    opened.call("Browser.grantPermissions", permissions=["clipboardReadWrite"])
    opened.press("Enter")
    copied = (
        "harness run --model other --method none --task passkey.yarn --lengths 4k,8k "
        "--dtype bfloat16 --results again"
    )
    assert opened.run("new Promise(r => setTimeout(r, 200)).then(() => told.textContent)").endswith(
        copied
    )
    assert opened.run("navigator.clipboard.readText()") == copied


@pytest.mark.slow
@BROWSER
@pytest.mark.parametrize("width", [1280, 800, 390])
@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it_at_any_width_in_light_and_dark(opened, tmp_path, width, dark):
    from matplotlib.image import imread

    opened.look(width, 900, dark=dark, mobile=width == 390)
    assert opened.run("document.documentElement.scrollWidth <= innerWidth")
    opened.picture(tmp_path / "page.png")
    picture = imread(tmp_path / "page.png")[..., :3]
    assert picture.shape[1] == width * (2 if width == 390 else 1)
    assert (picture.mean() < 0.3) == dark and picture.std() > 0.03
