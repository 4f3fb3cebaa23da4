"""What others printed, held against plain copies of their pages: tests/golden/published."""

import csv
import io
import json
import re
from pathlib import Path
from statistics import fmean

import pytest

import harness
from harness import catalog
from harness.cli import main
from harness.lengths import label, lengths
from harness.metrics.longbench import GROUPS
from harness.published import CLAIM, published, table
from harness.report.beside import beside
from harness.report.printed import latex

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "published"
GOLDEN = Path(__file__).parent / "golden" / "published"
EVERY = published(FOLDER)
CLEX = ("clex-models", None, "clex-llama-2", "clex-64k", "clex-longcorpus")
PIPED = {
    "clex": (*CLEX, "clex-longbench", "clex-infinitebench"),
    "clex-reupload": ("clex-reupload",),
}
"""Of a page's tables with bars, in their order, the file; None is a mixture, tested by itself."""
SPACED = ("longrope-proof-pile", "longrope-books3", "longrope-pg19", "longrope-short")
SPACED += ("longrope-passkey",)
NO_SCORES = {"Model Type", "Starting Point", "Train Data", "Train Length", "HF Repo", "Source"}
"""Columns that say of what a row is."""


def page(name):
    return (GOLDEN / f"{name}.txt").read_text("utf-8")


def piped(text):
    """Header and rows of each table with bars; a header may miss the first, empty cell."""
    lines = text.splitlines()
    for i, line in enumerate(lines):
        if re.fullmatch(r"\|?(---\|)+", line):
            wide = line.count("---")
            header = [cell.strip() for cell in lines[i - 1].strip("|").split("|") if cell.strip()]
            rows = []
            for row in lines[i + 1 :]:
                cells = [cell.strip() for cell in row.strip("|").split("|")]
                if len(cells) != wide or "---" in lines[lines.index(row) + 1 :][:1]:
                    break
                rows.append(cells)
            yield ["", *header] if len(header) < wide else header, rows


def scores(header, rows):
    """Row label, column label, cell: what a table with bars says, row by row."""
    for cells in rows:
        for column, cell in list(zip(header, cells, strict=True))[1:]:
            if column not in NO_SCORES:
                yield cells[0], re.sub(r"^Eval\.\((.*)\)$", r"\1", column), cell


def spaced(text):
    """The same of tables that a copy has spaces in; nine lengths with commas are one column."""
    found = []
    for line in text.splitlines():
        if line.startswith("Context Window"):
            header = re.findall(r"(?:\S+, )*\S+", line.removeprefix("Context Window "))
            found.append([])
        elif line.startswith("LongRoPE-"):
            name, *cells = line.split()
            cells = cells[len(cells) - len(header) :]
            found[-1] += [(name, *pair) for pair in zip(header, cells, strict=True)]
    return found


def of(stem):
    return [number for number in EVERY if number.table == stem]


def entered(stem):
    """What a file says, as `scores` says it; one printed cell may stand for many lengths."""
    turned = stem == "clex-infinitebench"
    return list(
        dict.fromkeys(
            (n.column, n.name, n.printed) if turned else (n.name, n.column, n.printed)
            for n in of(stem)
        )
    )


# the pages, number by number


@pytest.mark.parametrize("name", PIPED)
def test_every_number_of_a_page_with_bars_is_there_in_its_row_and_order(name):
    tables = list(piped(page(name)))
    assert len(tables) == len(PIPED[name])
    for stem, (header, rows) in zip(PIPED[name], tables, strict=True):
        if stem:
            assert rows and entered(stem) == list(scores(header, rows)), stem


def test_every_number_of_longropes_page_is_there_in_its_row_and_order():
    tables = spaced(page("longrope"))
    assert [entered(stem) for stem in SPACED] == tables
    assert [len(cells) for cells in tables] == [14, 18, 6, 8, 8]


def test_every_number_of_yarns_tables_is_there_in_its_row_and_order():
    proof, ablation, passkey = page("yarn").split("\n\n")
    found = []
    for s, values, at in re.findall(r"YaRN s=(\d+): (\S+) at (\S+)", proof):
        columns = [at_.removesuffix("k") + "k" for at_ in at.split("/")]
        found += [(f"YaRN (s={s})", *pair) for pair in zip(columns, values.split("/"), strict=True)]
    assert entered("yarn-proof-pile") == found and len(found) == 8
    columns = re.search(r"\((\S+)k\)", ablation)[1].split("/")
    assert entered("yarn-8k") == [
        (name, f"{column}k", value)
        for name, values in re.findall(r"(\w+) ([\d./]{9,})", ablation)
        for column, value in zip(columns, values.split("/"), strict=True)
    ]
    pairs = dict(re.findall(r"s=(\d+) (\S+%)", passkey))
    assert {n.parameters["factor"]: n.printed for n in of("yarn-passkey")} == pairs
    assert len(pairs) == 2


def test_no_number_of_a_page_stands_nowhere():
    """Cruder, and blind to places: nothing but numbers, of whole pages."""
    for name, stems in {**PIPED, "longrope": SPACED}.items():
        known = set(re.findall(NUMBER, MIXTURE.read_text()))
        for n in (n for stem in stems if stem for n in of(stem)):
            said = f"{n.name} {n.column} {n.printed} {n.base} {n.corpus} {n.trained} "
            said += " ".join(label(tokens) for tokens in (n.train_length, n.window) if tokens)
            known |= set(re.findall(NUMBER, said))
        lines = [line for line in page(name).splitlines() if " Open LLM" not in line]
        assert {n for line in lines for n in re.findall(NUMBER, line)} <= known, name


NUMBER = r"\d+(?:\.\d+)?"
MIXTURE = Path(harness.__file__).parent / "train/mixtures/longcorpus.yaml"


def test_lengths_are_those_that_the_page_trained_at():
    trained = {}
    for stem, (header, rows) in zip(PIPED["clex"], piped(page("clex")), strict=True):
        if stem and "Train Length" in header:
            at = header.index("Train Length")
            trained |= {(stem, cells[0]): cells[at] for cells in rows}
    assert len(trained) == 6 + 12 + 1 + 4 + 10
    for (stem, name), printed in trained.items():
        wanted = None if printed == "-" else lengths(printed)[0]
        assert {n.train_length for n in of(stem) if n.name == name} == {wanted}, name


def test_the_mixture_that_clex_prints_is_the_one_that_ships():
    shares = [cells[1].rstrip("%") for cells in list(piped(page("clex")))[1][1]]
    assert shares == re.findall(r"share: (\d+)", MIXTURE.read_text())


def test_every_file_has_a_page():
    stems = {file.stem for file in FOLDER.glob("*.yaml")}
    pages = {stem for stems in PIPED.values() for stem in stems if stem} | {*SPACED}
    assert stems == pages | {"yarn-proof-pile", "yarn-8k", "yarn-passkey"}
    assert {n.table for n in EVERY} == stems


# laws over all numbers


def test_a_value_is_what_is_printed():
    for n in EVERY:
        if n.value is None:
            assert n.printed == "-" and n.bound is None
            continue
        bound, number, kilo, percent = re.fullmatch(
            r"([<>]?) ?([\d.]+)([kK]?)(%?)", n.printed
        ).groups()
        assert n.value == float(number) * (1024 if kilo else 1), n
        assert n.bound == (bound or None)
        assert n.unit == "%" or not percent


def test_lengths_rise_along_a_row():
    for stem in {n.table for n in EVERY}:
        for name in {n.name for n in of(stem)}:
            row = [n.length for n in of(stem) if n.name == name and n.length]
            assert row == sorted(set(row))


def test_a_length_is_the_columns():
    for n in EVERY:
        if n.length and n.column != "262244":
            assert n.length in lengths(n.column)


def test_every_number_names_its_source_and_what_is_doubted():
    for n in EVERY:
        assert re.match(r"https://\S+$", n.source) and n.doubts and all(n.doubts)


def test_a_place_is_taken_once():
    places = [(n.table, n.name, n.column, n.length) for n in EVERY]
    assert len(places) == len(set(places))


def test_a_method_is_this_projects_or_said_to_be_none_of_it():
    for n in {(n.method, n.counterpart, n.name, *n.parameters.items()): n for n in EVERY}.values():
        if n.counterpart:
            catalog.load("methods", catalog.join(n.method, n.parameters))
        else:
            assert n.method == n.name and n.method not in catalog.names("methods")
    without = {n.name for n in EVERY if not n.counterpart}
    assert without == {"GPT-4", "Kimi-Chat", "Claude 2", "GPT-3.5-Turbo-16K"}


def test_a_linearly_scaled_model_is_position_interpolation_by_what_it_was_trained_at():
    scaled = {
        n.name: (n.parameters["factor"], n.train_length)
        for n in of("clex-longbench")
        if n.method == "pi"
    }
    assert scaled == {"Vicuna-v1.5-7B": ("4", 4 * 4096), "LongChat-v1.5-7B": ("8", 8 * 4096)}
    assert all(any("scales linearly" in d for d in n.doubts) for n in EVERY if n.name in scaled)


def test_tasks_protocols_and_metrics_are_this_projects():
    whole = {(n.task, n.protocol, n.metric) for n in EVERY if n.part is None}
    for task, protocol, metric in whole - {(CLAIM, None, "claimed length")}:
        assert catalog.load("tasks", protocol or task).metric == metric
        assert (protocol or task).partition(".")[0] == task.partition(".")[0]


def test_a_part_has_not_the_metric_of_the_whole():
    for n in (n for n in EVERY if n.part):
        whole = catalog.load("tasks", n.protocol or n.task).metric
        assert n.metric == "average of the group's datasets" != whole


def test_a_mean_over_subjects_is_not_taken_for_one_over_questions():
    doubted = [n.column for n in EVERY if any("mean over subjects" in d for d in n.doubts)]
    assert doubted == ["MMLU"] * 2


# known answers


def test_a_bound_is_no_value():
    bounds = {(n.name, n.length): (n.value, n.bound) for n in of("clex-llama-2") if n.bound}
    assert bounds["Naive FT", 65536] == (100, ">") and bounds["LLaMA-2-7B", 65536] == (1000, ">")
    assert len(bounds) == 8
    assert [n.bound for n in of("clex-models")] == [None] * 4 + [">"] * 2


def test_one_printed_cell_may_stand_for_nine_lengths():
    row = [n for n in of("longrope-passkey") if "Mistral" in n.name]
    assert [n.value for n in row] == [100] * 9 + [90] * 3
    assert [label(n.length) for n in row[8:]] == ["512k", "1024k", "1800k", "2048k"]
    assert "columns that cannot be told apart" in row[0].doubts[0]


def test_footnotes_are_spelled_out():
    cut = {n.name for n in of("clex-longbench") if "inputs are cut to the train length" in n.doubts}
    own = {n.name for n in of("clex-longbench") if "evaluated by CLEX's authors" in n.doubts}
    assert cut == {"XGen-7B**", "InternLM-7B**", "Llama2-7B-chat**"}
    assert own == {"CodeLLaMA-7B†", "Baichuan-13B† (ALiBi)", "ALiBi-7B-4K†"}


def test_longbenchs_average_is_that_of_its_six_groups():
    for name in dict.fromkeys(n.name for n in of("clex-longbench")):
        average, *groups = [n for n in of("clex-longbench") if n.name == name]
        assert average.part is None and tuple(n.part for n in groups) == GROUPS
        assert fmean(n.value for n in groups) == pytest.approx(average.value, abs=0.00501)


def test_infinitebench_stands_beside_what_comes_out_again():
    checked = [n for n in of("clex-infinitebench") if n.regenerated is not None]
    differ = [n for n in checked if n.why]
    assert (len(checked), len(differ)) == (43, 7)
    assert [n.name for n in EVERY if n.why and n.regenerated is None] == ["YaRN-Mistral-7B"]
    for n in checked:
        decimals = len(n.printed.strip("%").partition(".")[2])
        same = n.regenerated < 5 if n.bound else round(n.regenerated, decimals) == n.value
        assert same == (n.why is None), n


def test_every_check_is_of_a_printed_number():
    cells = json.loads((FOLDER / "infinitebench_check.json").read_text())["cells"]
    joined = [n for n in EVERY if n.regenerated is not None or n.why]
    assert len(joined) == len(cells) == 44


def test_the_checkpoint_that_was_uploaded_anew_is_doubted():
    (row,) = {tuple(n.doubts) for n in of("clex-llama-2") if n.name == "CLEX-LLaMA-2-7B-16K"}
    assert any("re-uploaded checkpoint" in doubt for doubt in row)
    assert any("t = n // 4096, and not chunked" in doubt for doubt in row)


def test_a_slip_is_doubted_in_its_cell_only():
    doubted = [n for n in EVERY if any("slip" in doubt for doubt in n.doubts)]
    assert [(n.name, n.length, n.printed) for n in doubted] == [
        ("LongRoPE-LLaMA2-2048k", 32768, "3.63")
    ]


def test_a_row_has_the_names_of_a_measured_one():
    from harness.where import KNOWN

    row = of("clex-infinitebench")[1].row()
    assert (row["task"], row["protocol"]) == ("infinitebench", "infinitebench.passkey")
    measured = {"base", "method", "method_parameters", "factor", "task", "protocol", "metric"}
    assert measured | {"corpus", "length", "value", "trained", "model"} <= row.keys() & KNOWN.keys()
    assert json.loads(json.dumps(row)) == row


# beside a leaderboard


def points(stem, name):
    (section,) = beside(of(stem))
    return next(row["points"] for row in section["rows"] if row["name"] == name)


def test_a_number_for_several_lengths_is_told_once_and_drawn_over_all_of_them():
    row = points("longrope-passkey", "LongRoPE-LLaMA2-2048k")
    assert [label(p[0]) for p in row][:2] == ["4k", "8k"] and len(row) == 9 + 3
    assert {(p[1], p[3]) for p in row[:9]} == {("100%", 100.0)}
    assert [p[6] for p in row[:9]] == ["4k, 8k, 16k, 64k, 100k, 128k, 160k, 256k, 512k", *[""] * 8]
    assert [(label(p[0]), p[1], p[6:]) for p in row[9:]] == [
        ("1024k", "100%", []), ("1800k", "100%", []), ("2048k", "60%", []),
    ]  # fmt: skip


def test_a_length_that_is_printed_otherwise_is_shown_as_printed():
    row = points("longrope-proof-pile", "LongRoPE-LLaMA2-2048k")
    assert [p[6:] for p in row] == [[]] * 6 + [["262244"]]
    assert (row[0][0], row[-1][0]) == (4096, 262144)


# files that are wrong

GOOD = """\
page: A page
title: perplexity
source: https://example.org/page
base: toy
task: perplexity
metric: perplexity
columns: 4k | 8k
rows:
  - {name: PI, method: pi, printed: 5.9 | > 100}
"""


def written(folder, text):
    (folder / "mine.yaml").write_text(text, "utf-8")
    return folder / "mine.yaml"


def test_a_small_table_reads_as_written(tmp_path):
    first, second = table(written(tmp_path, GOOD))
    assert (first.table, first.length, first.value, first.doubts) == ("mine", 4096, 5.9, [])
    assert (second.column, second.value, second.bound) == ("8k", 100, ">")
    assert published(tmp_path) == [first, second]
    assert published(tmp_path / "none") == []


def test_memory_that_ran_out_and_an_empty_cell_are_no_numbers(tmp_path):
    (only,) = table(written(tmp_path, GOOD.replace("5.9 | > 100", "OOM | ")))
    assert (only.printed, only.value, only.bound, only.length) == ("OOM", None, None, 4096)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("5.9 | > 100", "5.9", r"mine.yaml, row 1: it has 1 cells, and the table 2 columns"),
        ("5.9", "five", r"mine.yaml, row 1: 'five' is no number: write 5.98, > 100"),
        ("5.9", "5.9*", r"row 1: '5.9\*' is no number"),
        ("5.9", "nan", r"row 1: 'nan' is no number"),
        ("method: pi", "method: pj", r"row 1: no method is named 'pj'; write null if this project"),
        ("method: pi, ", "", r"row 1: nothing says its method"),
        ("base: toy\n", "", r"row 1: nothing says its base"),
        ("task: perplexity", "task: perplexty", r"row 1: no task is named 'perplexty'"),
        ("https://", "example://", r"mine.yaml, source: "),
        ("page: A page\n", "", r"mine.yaml: page is missing"),
        ("4k | 8k", "4k | 8q", r"mine.yaml, column 2, length: '8q' is no length"),
        ("name: PI", "nam: PI", r"mine.yaml, row 1: unknown key 'nam'. Did you mean 'name'"),
        ("name: PI", "name: PI, train: 4k-8k", r"mine.yaml, row 1, train: takes one length"),
        ("name: PI", "name: PI, doubts: [a: b]", r"mine.yaml doubts 'a', .* quote doubts"),
        ("title: perplexity", 'title: "\\e[31m"', r"mine.yaml, title: .* cannot be printed"),
        ("page: A page", "page: A page\npage: B", r"says page twice"),
        ("page: A page", "page: &a A page\nbase: *a", r"uses an alias"),
        ("page: A page", "page: !!python/name:os.system x", r"mine.yaml is no table file"),
        ("page: A page", "check: ../secret.json\npage: A", r"mine.yaml, check: "),
        (GOOD, "- 1", r"mine.yaml is no table file: write page, columns and rows"),
        (GOOD, "#" * 20_000, r"mine.yaml is larger than 16 kB: that is no table file"),
    ],
)
def test_a_file_that_is_wrong_is_named_and_said_where(tmp_path, old, new, why):
    assert old in GOOD
    with pytest.raises(ValueError, match=why):
        published(written(tmp_path, GOOD.replace(old, new, 1)).parent)


CHECKED = GOOD.replace("rows:", "check: c.json\nrows:").replace("pi,", "pi, predictions: m,")


@pytest.mark.parametrize(
    ("check", "why"),
    [
        ("[]", "c.json is no file of checks"),
        ('{"cells": [{"task": 1}]}', "c.json is no file of checks"),
        (
            '{"cells": [{"task": "perplexity", "model": "m", "printed": "6", "regenerated": 6,'
            ' "why": null}]}',
            "mine.yaml, row 1: '5.9' is printed, and the check is of '6'",
        ),
        ('{"cells": []}', "mine.yaml, row 1: the check has nothing of perplexity by m"),
    ],
)
def test_a_check_that_is_wrong_is_named(tmp_path, check, why):
    (tmp_path / "c.json").write_text(check)
    with pytest.raises(ValueError, match=why):
        table(written(tmp_path, CHECKED))


# the verb


def printed(capsys, *argv):
    with pytest.raises(SystemExit) as done:
        main(["published", *map(str, argv)])
    said = capsys.readouterr()
    assert done.value.code in (0, None), said.err
    return said


def test_the_verb_shows_printed_beside_regenerated_with_the_reason(capsys):
    said = printed(capsys, "--results", ROOT / "results", "--where", "table=clex-infinitebench").out
    assert "39.59% (37.06)" in said and "< 5% (15.48)" in said and "< 5% (2.28)" in said
    assert "GPT-4 at Code.Debug, Kimi-Chat at Code.Debug: no revision of the scorer" in said
    assert "https://github.com/DAMO-NLP-SG/CLEX/" in said and "doubt  " in said
    heads = said.splitlines()[1]
    assert heads.index("GPT-4") < heads.index("YaRN-Mistral-7B") < heads.index("Claude 2")


def test_the_verb_puts_lengths_across(capsys):
    said = printed(capsys, "--results", ROOT / "results", "--where", "table=clex-llama-2").out
    lines = said.splitlines()
    assert lines[1].split() == ["method", "trained", "at", "4k", "8k", "16k", "32k", "64k"]
    row = next(line for line in lines if line.startswith("Yarn (s=32)"))
    assert row.split()[2:] == ["yarn", "×32", "16k", "6.61", "5.94", "5.96", "6.08", "6.22"]  # noqa: RUF001


def test_what_rows_are_of_and_were_trained_on_is_printed(capsys):
    where = ("--results", ROOT / "results", "--where")
    said = printed(capsys, *where, "table=clex-models").out.splitlines()
    assert said[1].split() == ["method", "base", "trained", "on", "trained", "at", "MAX", "Test",
                               "Length"]  # fmt: skip
    row = next(line for line in said if line.startswith("CLEX-Phi-2-32K"))
    assert row.split()[1:] == ["clex", "Phi-2-2.7B", "LongCorpus-2.5B", "32k", "128K"]
    said = printed(capsys, *where, "table=clex-longcorpus").out  # of many columns: below
    assert "base  CLEX-Phi-2-2.7B: Phi-2-2.7B; CLEX-Mixtral-8x7B: Mixtral-8x7B" in said
    assert "trained on  CLEX-Phi-2-2.7B, CLEX-Mixtral-8x7B: LongCorpus-2.5B" in said
    assert "base  LLaMA-2-7B\n" in printed(capsys, *where, "table=yarn-8k").out


def in_form(capsys, form, where):
    return printed(capsys, "--results", ROOT / "results", "--format", form, "--where", where).out


def test_a_published_table_is_markdown_with_its_source_and_doubts(capsys):
    page = in_form(capsys, "markdown", "table=clex-llama-2,yarn-passkey")
    assert page.count("### ") == 2 and "### CLEX README · language modelling" in page
    assert "|  | method | trained at | 4k | 8k | 16k | 32k | 64k |\n|---|--:|--:|" in page
    assert r"| Naive FT | naive-ft | 16k | 5.98 | 5.93 | 5.91 | 18.31 | \> 100 |" in page
    assert f"- <{of('clex-llama-2')[0].source}>" in page
    assert "- doubt: whole sequences, read at t = n // 4096" in page


def test_a_published_table_is_latex_that_stands_in_a_paper(capsys):
    page = in_form(capsys, "latex", "table=clex-llama-2,clex-longbench")
    assert page.count(r"\toprule") == page.count(r"\bottomrule") == 2
    assert r"\label{tab:published-clex-llama-2}" in page
    assert r"Yarn (s=16) & yarn $\times$16 & 16k & 6.5 & 5.71 & 5.73 & 5.99 & 8.51 \\" in page
    assert rf"\url{{{of('clex-llama-2')[0].source}}}. \emph{{task}}: perplexity." in page
    assert not any(r"\url" in line for line in page.splitlines() if line.startswith(r"\caption"))
    assert r"\emph{metric}: Avg.: average of six groups; Single-Document QA, " in page
    assert "≈" not in page and r"\textbf" not in page
    rows = [line for line in page.splitlines() if line.endswith(r"\\")]
    assert {line.count(" & ") for line in rows} == {7, 9}


def test_an_address_with_words_of_latex_stays_text(tmp_path):
    evil = GOOD.replace("example.org/page", r"example.org/\input{x}%#")
    page = latex(table(written(tmp_path, evil)))
    assert (
        r"\input" not in page and r"\url" not in page and r"\textbackslash{}input\{x\}\%\#" in page
    )


def test_comma_separated_published_numbers_are_all_that_is_known_of_each(capsys):
    lines = [*csv.DictReader(io.StringIO(in_form(capsys, "csv", "table=clex-llama-2")))]
    assert len(lines) == len(of("clex-llama-2")) == 60
    bound = next(line for line in lines if line["name"] == "Naive FT" and line["column"] == "64k")
    assert (bound["printed"], bound["value"], bound["bound"]) == ("> 100", "100.0", ">")
    assert bound["source"].startswith("https://") and bound["doubts"].count(" | ") == 1
    scaled = next(line for line in lines if line["name"] == "Yarn (s=32)")
    assert (scaled["method"], scaled["method_parameters"]) == ("yarn", "factor=32")


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("", len(EVERY)),
        ("method=clex length>=256k", 3),
        ("method=longrope length=1800k", 2),
        ("train_length=64k task=perplexity", 12),
        ("regenerated!=none", 43),
        ("counterpart=true", sum(number.counterpart for number in EVERY)),
        ("counterpart!=true", sum(not number.counterpart for number in EVERY)),
        ("corpus=none", sum(number.corpus is None for number in EVERY)),
        ("base=Phi-2-2.7B value=none", 1),
        ("method=alibi,pi length=8k", 3),
    ],
)
def test_conditions_choose_among_published_numbers(capsys, where, count):
    said = printed(capsys, "--results", ROOT / "results", "--json", "--where", where).out
    assert len(json.loads(said)) == count


def test_the_verb_says_what_it_lacks(capsys, tmp_path):
    for argv, why in [
        (["--results", tmp_path], "There are no published tables in"),
        (["--results", ROOT / "results", "--where", "colour=red"], "have no 'colour'"),
        (["--json", "--format", "csv"], "give one of them"),
    ]:
        with pytest.raises(SystemExit) as done:
            main(["published", *map(str, argv)])
        assert done.value.code == 2 and why in capsys.readouterr().err
