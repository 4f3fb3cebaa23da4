"""SQL over the results, by DuckDB: one table, one row a cell, and nothing else within reach."""

import csv
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import archive
from harness.store import Broken

SHUT_IN = {
    "enable_external_access": "false",  # no file, no address, no extension
    "python_enable_replacements": "false",  # no variable of this program as a table
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


@dataclass(frozen=True)
class Answer:
    """A table: its columns' names, and its rows."""

    names: list[str]
    rows: list[tuple[Any, ...]]


def ask(sql: str, folder: Path, broken: list[Broken] | None = None) -> Answer:
    """What DuckDB answers over the table `results`: the columns of `harness.archive`.

    Raises:
        ModuleNotFoundError: DuckDB is not installed.
        ValueError: it is not one select, or DuckDB does not take it; says why.
    """
    try:
        import duckdb
    except ModuleNotFoundError:
        raise ModuleNotFoundError("DuckDB is not installed: pip install duckdb") from None
    with duckdb.connect(":memory:", config=SHUT_IN) as database:
        try:
            said = database.extract_statements(sql)
            kinds = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
            if len(said) != 1 or said[0].type not in kinds:
                raise ValueError("A query is one select, and this is another thing.")
            database.register("results", archive.columns(folder, broken=broken))
            database.execute("set lock_configuration = true")
            found = database.execute(said[0])
            return Answer([column[0] for column in found.description], found.fetchall())
        except duckdb.Error as error:
            raise ValueError(f"DuckDB does not take it: {error}") from None


def show(answer: Answer, form: str) -> None:
    """Print it: for a person, or as commas or JSON for a program."""
    if form == "json":
        rows = [dict(zip(answer.names, map(_plain, row), strict=True)) for row in answer.rows]
        print(json.dumps(rows, indent=2, default=str, allow_nan=False))
    elif form == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(answer.names)
        writer.writerows(answer.rows)
    else:
        _table(answer)


def _table(answer: Answer) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from harness.report.table import console

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for at, name in enumerate(answer.names):
        number = any(isinstance(row[at], int | float) for row in answer.rows)
        table.add_column(Text(name), justify="right" if number else "left")
    for row in answer.rows:
        table.add_row(*(Text(_said(value)) for value in row))
    console().print(table)


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def _plain(value: Any) -> Any:
    """JSON has no number that is none."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
