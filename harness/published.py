"""What others printed: each number of their tables with its source, its protocol and its doubts.

`results/published/NAME.yaml` is one table. What holds for all of it stands at the top, what holds
for a column or a row stands there, and the nearest wins; only doubts add up. A row's cells stand
between bars, exactly as printed; an empty one was not read. A column that is nothing but a length
is written as one.

    page: YaRN paper                             # who printed it
    title: passkey retrieval                     # what the table is about
    source: https://arxiv.org/abs/2309.00071
    base: LLaMA-2-7B                             # the model that was extended
    task: passkey                                # as `harness list tasks` has it
    metric: accuracy
    columns: 64k | 128k
    rows:
      - {name: YaRN (s=16), method: "yarn,factor=16", train: 64k, printed: 96.3% | < 5%}

`method: null` says that this project has no counterpart. `marks` explains footnotes, `check` names
a file of what came out of the published predictions again. Published numbers were made by other
code on other samples: they are shown beside measured ones, and never averaged with them.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from harness import catalog, nearest, tablefile
from harness.lengths import lengths
from harness.tablefile import Check, Facts, Page, Row

CLAIM = "claim"
"""The task of what a page only claims: the length a model is said to take."""
NO_NUMBER = {"-", "OOM"}
"""Cells that hold no number: nothing was measured, or memory ran out."""


class Published(BaseModel):
    """One number that somebody printed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    page: str
    table: str
    """The file's name."""
    title: str
    source: str
    base: str
    """The model that was extended, or is read as it is."""
    method: str
    """This project's name for it, or the row's where it has none: see `counterpart`."""
    counterpart: bool
    """Whether this project has the method."""
    parameters: dict[str, str]
    name: str
    """The model or method as it was printed."""
    task: str
    part: str | None
    """Which of the task's parts, where it is not the value itself."""
    corpus: str | None
    metric: str
    protocol: str | None
    """This project's name for how it was measured, where that is known."""
    column: str
    """As printed."""
    length: int | None
    train_length: int | None
    trained: str | None
    """What on, in a phrase."""
    window: int | None
    """Tokens the model is said to take."""
    printed: str
    value: float | None
    """In the unit; None where no number was printed. A bound's is the number it names."""
    bound: Literal["<", ">"] | None
    unit: str
    doubts: list[str]
    regenerated: float | None = None
    """What this project's scorer makes of the published predictions, in the same unit."""
    why: str | None = None
    """Why that differs, or why there is none."""

    def row(self) -> dict[str, Any]:
        """Flat, with the names that rows of measured results have for the same things."""
        return self.model_dump(exclude={"parameters"}) | {
            "model": self.name,
            "task": self.task.partition(".")[0],
            "method_parameters": self.parameters,
            "factor": float(self.parameters["factor"]) if "factor" in self.parameters else None,
        }


def published(folder: Path) -> list[Published]:
    """Every number of the tables in this folder, in the order of their files; none without files.

    Raises:
        ValueError: a file is no table; names it, the row and what is wrong.
    """
    return [number for file in sorted(Path(folder).glob("*.yaml")) for number in table(file)]


def table(file: Path) -> list[Published]:
    """The numbers of one file, row by row.

    Raises:
        ValueError: it is no table; names it, the row and what is wrong.
        OSError: it cannot be read.
    """
    page = tablefile.page(file)
    checks = tablefile.checks(file.with_name(page.check)) if page.check else {}
    found: list[Published] = []
    for i, row in enumerate(page.rows, 1):
        try:
            found += _numbers(file.stem, page, row, checks)
        except (ValueError, LookupError) as error:
            raise ValueError(f"{file}, row {i}: {error}") from None
    return found


def _numbers(
    table: str, page: Page, row: Row, checks: dict[tuple[str, str], Check]
) -> Iterator[Published]:
    cells = tablefile.cells(row.printed)
    if len(cells) != len(page.columns):
        raise ValueError(f"it has {len(cells)} cells, and the table {len(page.columns)} columns.")
    for printed, column in zip(cells, page.columns, strict=True):
        if not printed:
            continue
        facts = Facts.model_construct(**page.said() | column.said() | row.said())
        number = _number(table, page, facts, printed)
        told = [d for level in (page, column, row) for d in level.doubts]
        number["doubts"] = [*_doubts(told, facts), *_explained(page.marks, facts, printed)]
        if facts.predictions:
            number |= _again(checks, facts, printed)
        for length in facts.length or (None,):
            yield Published(**number, length=length)


def _number(table: str, page: Page, facts: Facts, printed: str) -> dict[str, Any]:
    """All that is known of one cell but its length, its doubts and what came out again."""
    for needed in ("name", "base", "task", "metric", "column"):
        if getattr(facts, needed) is None:
            raise ValueError(f"nothing says its {needed}: write it in the row, or above.")
    if "method" not in facts.model_fields_set:
        raise ValueError("nothing says its method: write it, or null if this project has none.")
    method, parameters = catalog.split(facts.method) if facts.method else (facts.name, {})
    if facts.method:
        _known("methods", method or "", "; write null if this project has none")
        float(parameters.get("factor", 1))  # or this is the row to name
    if facts.task != CLAIM:
        _known("tasks", (facts.task or "").partition(".")[0], "")
    value, bound, unit = _read(printed, page.marks)
    return {
        **{key: getattr(page, key) for key in ("page", "title", "source")},
        **{key: getattr(facts, key) for key in ("base", "name", "task", "part", "corpus")},
        **{key: getattr(facts, key) for key in ("metric", "column", "trained")},
        "table": table,
        "method": method,
        "counterpart": bool(facts.method),
        "parameters": parameters,
        "protocol": facts.protocol or (facts.task if "." in (facts.task or "") else None),
        "train_length": facts.train[0] if facts.train else None,
        "window": facts.window[0] if facts.window else None,
        "printed": printed,
        "value": value,
        "bound": bound,
        "unit": unit or facts.unit,
    }


def _known(kind: catalog.Kind, name: str, otherwise: str) -> None:
    if name not in (known := catalog.names(kind)):
        hint = nearest.hint(name, known)
        raise LookupError(f"no {kind.removesuffix('s')} is named {name!r}{otherwise}.{hint}")


def _read(printed: str, marks: dict[str, str]) -> tuple[float | None, Any, str]:
    """`> 100` -> (100.0, '>', ''); `64K` tokens -> (65536.0, None, ''); `-` -> no number."""
    text = printed
    for mark in marks:
        text = text.removesuffix(mark).strip()
    if text in NO_NUMBER:
        return None, None, ""
    parts = re.fullmatch(r"([<>]?)\s*(\d{1,9}(?:\.\d{1,9})?)([kK]?)\s*(%?)", text)
    if not parts:
        raise ValueError(f"{printed!r} is no number: write 5.98, > 100, 96.3%, - or OOM.")
    bound, number, kilo, unit = parts.groups()
    value = float(lengths(number + kilo)[0]) if kilo else float(number)
    return value, bound or None, unit


def _doubts(told: list[str | dict[str, str]], facts: Facts) -> Iterator[str]:
    """Those of every cell, and those of this one."""
    for doubt in told:
        if isinstance(doubt, str):
            yield doubt
        else:
            yield from (text for label, text in doubt.items() if label in facts.labels())


def _explained(marks: dict[str, str], facts: Facts, printed: str) -> Iterator[str]:
    """What the footnotes of this cell and its row say."""
    yield from (text for mark, text in marks.items() if mark in f"{facts.name} {printed}")


def _again(checks: dict[tuple[str, str], Check], facts: Facts, printed: str) -> dict[str, Any]:
    check = checks.get((facts.task or "", facts.predictions or ""))
    if check is None:
        raise ValueError(f"the check has nothing of {facts.task} by {facts.predictions}.")
    if check.printed.replace(" ", "") != printed.replace(" ", ""):
        raise ValueError(f"{printed!r} is printed, and the check is of {check.printed!r}.")
    return {"regenerated": check.regenerated, "why": check.why}
