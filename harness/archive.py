"""Many results at once: as columns, from single JSON files and from Parquet packs alike."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cell import Result
from harness.report.where import KNOWN, NUMBERS, matching

if TYPE_CHECKING:
    import pyarrow as pa

    from harness.store import Broken

WHOLE = ("length", "n", "tokens", "peak_memory")
"""Columns of whole numbers; what else is a number may have a fraction."""


def columns(
    folder: Path,
    where: str | None = None,
    *,
    only: Iterable[str] | None = None,
    broken: "list[Broken] | None" = None,
) -> "pa.Table":
    """One row a cell: the keys of `Result.row()`, nested ones as JSON, and `cell`, its path.

    Args:
        folder: of results, with `runs/` in it.
        where: conditions, as `--where` takes them.
        only: the columns wanted, which is faster; None: all.
        broken: filled with the files that are no results, and were skipped.

    Raises:
        ValueError: a condition is none, or there is no such column.
    """
    import pyarrow as pa

    from harness.store import Store

    store = Store(folder)
    rows = [_row(result) for result in matching(store.results(), where)]
    if broken is not None:
        broken += store.broken
    table = pa.Table.from_pylist(rows, schema=schema())
    return table if only is None else table.select(list(only))


def schema() -> "pa.Schema":
    """Names and types of the columns."""
    import pyarrow as pa

    kinds = {key: pa.int64() if key in WHOLE else pa.float64() for key in NUMBERS}
    return pa.schema([("cell", pa.string())] + [(k, kinds.get(k, pa.string())) for k in KNOWN])


def _row(result: Result) -> dict[str, Any]:
    row = {key: _flat(value) for key, value in result.row().items()}
    return {"cell": str(result.cell.path), **row}


def _flat(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value
