"""A paper's figures, tables and bibliography from results, and a skeleton that puts them together.

All but `main.tex` is made anew each time; that is written once and then belongs to its author.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from harness.catalog import Kind, split
from harness.cell import Cell, Result
from harness.disk import text_of, write_whole
from harness.lengths import label
from harness.report.bibliography import Source, bibliography, idea, source
from harness.report.figures import (
    bars,
    cost,
    depth,
    frequencies,
    front,
    length,
    position,
    search,
    training,
)
from harness.report.figures.saved import MARK, behind, marked, save
from harness.report.figures.style import DOUBLE, Picture, slug
from harness.report.latex import NARROWED, explained, tabular
from harness.report.paper_table import PaperTable, paper_tables
from harness.report.tex import escaped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GENERATED = "% Made by `harness report --paper`: changes here are lost.\n"
Cited = tuple[Kind, str, Source | None]
"""Kind, name and where it is from."""
UNKNOWN = "Not of this project"
"""What is said of a method or task whose file lies elsewhere."""
BENCHMARKS = ("longbench", "infinitebench")
"""Whose rows are shown as bars, a group for each dataset."""
MAIN = r"""% Written once by `harness report --paper`: it is yours; what it reads is made anew.
\documentclass[10pt,twocolumn]{article}
\usepackage[utf8]{inputenc}
\IfFileExists{lmodern.sty}{\usepackage[T1]{fontenc}\usepackage{lmodern}}{}
\usepackage[letterpaper,textwidth=6.9in,textheight=9.2in]{geometry}
\usepackage{booktabs}
\usepackage{graphicx}
\usepackage[numbers]{natbib}
\usepackage[hidelinks]{hyperref}
\setlength{\columnsep}{0.3in} % columns of 3.3 inches, as wide as the figures
\extrafloats{200}

\title{How far do context-extension methods read?}
\author{}
\date{}

\begin{document}
\maketitle

\section{Methods and tasks}
\input{methods}

\section{Results}
Models, tasks and lengths are those of the tables; what bands and bars in a figure are, its caption
says.
\input{tables}
\input{figures}

\clearpage
\bibliographystyle{plainnat}
\bibliography{references}
\end{document}
"""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """All that a paper can be made of."""

    results: Sequence[Result]
    whole: Sequence[Result] = ()
    """Those, and what tables judge them by; none: nothing but those."""
    losses: Callable[[Cell], position.Losses] = lambda cell: {}
    """Per token, where they are still kept."""
    windows: Mapping[str, int] = field(default_factory=dict)
    """By model: tokens of the window it was trained on."""
    searches: Sequence[Path] = ()
    trainings: Sequence[Path] = ()
    benchmarks: Sequence[Path] = ()


@dataclass(frozen=True, kw_only=True)
class Report:
    """Files below a folder."""

    pictures: "dict[str, Figure]"
    """By name, without an ending."""
    kinds: tuple[str, ...]
    """The endings of each."""
    texts: dict[str, str] = field(default_factory=dict)
    """By name; made anew each time."""
    once: dict[str, str] = field(default_factory=dict)
    """By name; written where there is none yet."""
    left_out: tuple[str, ...] = ()
    """Figures that have no data, and why, in a line each."""

    def write(self, folder: Path) -> list[Path]:
        """Write what is not there already or is behind; says which."""
        written = [p for p, figure in self._figures(folder) if save(figure, p)]
        for name, text in self.texts.items():
            if text_of(folder / name) != text:
                written.append(_put(folder / name, text))
        written += [
            _put(folder / n, text) for n, text in self.once.items() if not (folder / n).exists()
        ]
        return written

    def stale(self, folder: Path) -> list[str]:
        """What is not as it would be written now, in words."""
        found = [
            f"{path} {why}"
            for path, figure in self._figures(folder)
            if (why := behind(figure, path))
        ]
        for name, text in self.texts.items():
            if text_of(folder / name) != text:
                found.append(
                    f"{folder / name} {'differs' if (folder / name).exists() else 'is missing'}"
                )
        found += [f"{folder / n} is missing" for n in self.once if not (folder / n).exists()]
        return found + [
            f"{path} is made of nothing any more: remove it" for path in self._orphans(folder)
        ]

    def _figures(self, folder: Path) -> "Iterator[tuple[Path, Figure]]":
        for name, figure in self.pictures.items():
            for kind in self.kinds:
                yield folder / f"{name}.{kind}", figure

    def _orphans(self, folder: Path) -> list[Path]:
        """Figures that a report once made, and this one does not."""
        mine = {path for path, _ in self._figures(folder)}
        there = (p for kind in self.kinds for p in folder.rglob(f"*.{kind}") if p not in mine)
        return sorted(path for path in there if (marked(path) or "").startswith(MARK))


def paper(given: Inputs) -> Report:
    """Everything that the inputs give, at the width of a column or of two.

    Raises:
        ValueError: there is no result, and so nothing to write about.
    """
    if not given.results:
        raise ValueError("There is nothing to write about: no result is meant.")
    left_out: list[str] = []
    pictures = [*_pictures(given, left_out)]
    shown = {result.cell for result in given.results}
    every, windows = given.whole or given.results, given.windows
    found = paper_tables(every, lambda cell: windows.get(cell.base), shown=shown)
    tables = {f"tables/{slug(table.title)}.tex": table for table in found}
    cited = [*_sources(given.results)]
    return Report(
        pictures={f"figures/{one.name}": one.figure for one in pictures},
        kinds=("pdf", "png"),
        texts={
            **{name: f"{GENERATED}{tabular(table)}\n" for name, table in tables.items()},
            "tables.tex": GENERATED + "\n".join(_table(*item) for item in tables.items()),
            "figures.tex": GENERATED + "\n".join(map(_float, pictures)),
            "methods.tex": GENERATED + _methods(cited),
            "references.bib": bibliography(found for _, _, found in cited if found),
        },
        once={"main.tex": MAIN},
        left_out=tuple(left_out),
    )


def page(given: Inputs) -> Report:
    """A picture for each model and task, for a page to show: maps of depth, or a curve.

    And one of the trainings of each base, and of the searches of each kind, where there are any.
    """
    groups: dict[tuple[str, str], list[Result]] = {}
    for r in given.results:
        groups.setdefault((r.cell.base, r.cell.task), []).append(r)
    pictures, left_out = {}, []
    for (base, task), group in sorted(groups.items(), key=lambda item: -len(item[1])):
        name = f"{slug(base)}/{slug(split(task)[0].partition('.')[0])}"
        if name in pictures:  # the fuller one has the short name
            name = f"{slug(base)}/{slug(task)}"
        try:
            if any(map(depth.by_depth, group)):
                pictures[name] = depth.draw(group)
            else:
                pictures[name] = length.draw(group, given.windows, width=DOUBLE)
        except ValueError as why:
            left_out.append(f"{name} is not drawn: {why}")
    if given.trainings:
        pictures |= {one.name: one.figure for one in training.pictures(given.trainings)}
    if given.searches:
        pictures |= {one.name: one.figure for one in search.pictures(given.searches)}
    return Report(pictures=pictures, kinds=("png",), left_out=tuple(left_out))


def _pictures(given: Inputs, left_out: list[str]) -> Iterator[Picture]:
    """Of every kind; a kind without data says why in `left_out`."""
    results = given.results
    kinds: dict[str, Iterable[Picture]] = {
        "value by length": length.pictures(results, given.windows),
        "length by depth": depth.pictures(results),
        "loss by position": position.pictures(results, given.losses, given.windows),
        **{f"bars of {name}": bars.pictures(results, name) for name in BENCHMARKS},
        "frequencies": frequencies.pictures(results, given.windows),
        "quality by training tokens": front.pictures(results),
        "progress of a search": search.pictures(given.searches),
        "training loss": training.pictures(given.trainings),
        "memory and time": cost.pictures(results, _benchmarks(given.benchmarks, left_out)),
    }
    for kind, pictures in kinds.items():
        try:
            yield from pictures
        except ValueError as why:
            left_out.append(f"{kind} is not drawn: {why}")


def _benchmarks(files: Iterable[Path], left_out: list[str]) -> list[cost.Benchmark]:
    """Those that hold figures; a file that does not says so in `left_out`."""
    found = []
    for file in files:
        try:
            found.append(cost.read(file))
        except (OSError, ValueError) as why:
            left_out.append(f"a benchmark is not drawn: {why}")
    return found


def _sources(results: Sequence[Result]) -> Iterator[Cited]:
    """Kind, name and source of every method and task that has a result, in order.

    Of `yarn+log-n` both: each was published by itself.
    """
    methods = sorted({part for r in results for part in split(r.cell.method)[0].split("+")})
    tasks = sorted({split(r.cell.task)[0] for r in results})
    for name in methods:
        yield "methods", name, source("methods", name)
    for name in tasks:
        yield "tasks", name, source("tasks", name)


def _methods(cited: Sequence[Cited]) -> str:
    """A list of what was compared, each with its idea and its paper."""
    lines = [
        rf"\item[\texttt{{{escaped(name)}}}] {escaped(idea(kind, name) or UNKNOWN)}"
        + (rf"~\citep{{{found.key}}}." if found else ".")
        for kind, name, found in cited
    ]
    return "\n".join([r"\begin{description}", *lines, r"\end{description}", ""])


def _float(one: Picture) -> str:
    kind = "figure*" if one.wide else "figure"
    return (
        f"\\begin{{{kind}}}[tp]\n\\centering\n\\includegraphics{{figures/{one.name}}}\n"
        f"\\caption{{{escaped(one.caption)}}}\n\\label{{fig:{one.name}}}\n\\end{{{kind}}}\n"
    )


def _table(name: str, table: PaperTable) -> str:
    """It spans both columns, smaller the more lengths it has."""
    size = r"\small" if len(table.lengths) < 5 else r"\scriptsize"
    lengths = f"{label(table.lengths[0])} to {label(table.lengths[-1])} tokens"
    caption = f"{escaped(table.title)}, {lengths}. {explained(table)}"
    return (
        f"\\begin{{table*}}[tp]\n\\centering\n\\caption{{{caption}}}\n"
        f"\\label{{tab:{Path(name).stem}}}\n{size}\n"
        f"{NARROWED}{{\\input{{{name.removesuffix('.tex')}}}}}\n\\end{{table*}}\n"
    )


def _put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
    return path
