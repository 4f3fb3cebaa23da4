"""Many results at once: found by conditions, or as columns, from single files and packs alike.

What lies in a pack is sought by Parquet's columns; a `Result` is made only of what was meant.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import nearest, packs
from harness.cell import UNEXTENDED, Cell, Result, meaning, names_of
from harness.disk import held
from harness.store import Broken, Store
from harness.where import MODELS, NUMBERS, TESTS, Condition, conditions, matching

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc


@dataclass(frozen=True)
class Found:
    """The results that were meant, rows together, short lengths first."""

    results: list[Result]
    among: int
    """Of how many; counted only where few are, or none was meant."""
    broken: list[Broken]


@dataclass(frozen=True)
class Packed:
    """What packing came to."""

    path: Path | None
    """The new pack; None where nothing was left to pack."""
    cells: int
    """In the new pack."""
    removed: int
    """Single files whose cell is in a pack, as they say it, and that are gone now."""
    broken: list[Broken]


def columns(
    folder: Path,
    where: str | None = None,
    *,
    only: Iterable[str] | None = None,
    broken: list[Broken] | None = None,
) -> "pa.Table":
    """One row a cell: the keys of `Result.row()`, nested ones as JSON, and `cell`, its path.

    Rows of a table stand together, short lengths first, as in a `Store`.

    Args:
        folder: of results, with `runs/` or `packed/` in it.
        where: conditions, as `--where` takes them.
        only: the columns wanted, which is faster; None: all.
        broken: filled with the files that are no results, and were skipped.

    Raises:
        ValueError: a condition is none, or there is no such column.
    """
    store = Store(folder)
    names = packs.schema(nested=False).names if only is None else list(only)
    if unknown := set(names) - set(packs.schema().names):
        raise ValueError(f"Results have no column {min(unknown)!r}.")
    table = _table(store, where, names)
    if broken is not None:
        broken += store.broken
    return table


def found(folder: Path, where: str | None = None) -> Found:
    """The results meant, to be looked at: without items and provenance where any are packed.

    Raises:
        ValueError: a condition is none.
    """
    store = Store(folder)
    conditions(where)  # a slip in them is said before anything is read
    if not list(store.opened()):
        every = list(store.results())
        return Found(matching(every, where), len(every), store.broken)
    names = [name for name in packs.schema().names if name not in packs.HEAVY]
    results = []
    for batch in _table(store, where, names).to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            with store.skipping(store.runs / row["cell"]):
                results.append(packs.result(row))
    among = 0 if results else _table(store, None, ["status"]).num_rows
    return Found(results, among, store.broken)


def unheld(folder: Path, where: str | None) -> str:
    """A condition that holds of no result by itself, and what may be meant; empty: there is none.

    Raises:
        ValueError: a condition is none.
    """
    for condition in conditions(where):
        if condition.sign != "=" or condition.key in NUMBERS:
            continue
        known = _known(folder, condition.key)
        if None not in condition.wanted and known.isdisjoint(condition.wanted):
            key, wanted = condition.key, condition.wanted[0]
            if key == "task" and wanted in _known(folder, "protocol"):
                return f"none has {key}={wanted}: write protocol={wanted}."
            begun = (name for name in known if wanted.startswith((f"{name}.", f"{name},")))
            meant = max(begun, key=len, default=None)
            hint = nearest.hint(meant or wanted, known)
            return f"none has {key}={wanted}.{hint}"
    return ""


def _known(folder: Path, key: str) -> set[str]:
    """What results say of this."""
    values = set(columns(folder, only=[key])[key].to_pylist()) - {None}
    return set().union(*map(names_of, values)) if key in MODELS else values


def whole(folder: Path, results: Sequence[Result]) -> list[Result]:
    """These with all that is stored of them, and behind them what they are judged by.

    That is the other lengths of their rows, and their models as they are on the same tasks: what a
    condition left out decides how far a row reads all the same.
    """
    store, meant = Store(folder), {result.cell for result in results}
    judged = {cell.model_copy(update={"length": 1}) for cell in meant}
    judged |= {
        cell.model_copy(update={"model": cell.base, "method": UNEXTENDED}) for cell in judged
    }
    rows = {cell.folder: cell for cell in judged}
    paths = store.files()
    for pack in store.opened():
        paths.update(pack.columns(["cell"])["cell"].to_pylist())
    lengths = [
        row.model_copy(update={"length": int(name.removesuffix(".json"))})
        for place, _, name in (path.rpartition("/") for path in sorted(paths))
        if (row := rows.get(place)) and name.removesuffix(".json").isdecimal()
    ]
    every = [*(result.cell for result in results), *(c for c in lengths if c not in meant)]
    read = {result.cell: result for result in results if result.provenance}  # not so from a pack
    return [result for cell in every if (result := read.get(cell) or store.get(cell))]


def pack(folder: Path, *, remove: bool = False) -> Packed:
    """Put every single result that is in no pack yet into a new one.

    Args:
        folder: of results.
        remove: then take away the single files that a pack holds, each read again and compared.

    Raises:
        OSError: the folder does not take it.
    """
    store = Store(folder)
    opened = list(store.opened())
    count = 0

    def fresh() -> Iterable[dict[str, Any]]:
        nonlocal count
        for result in store.single():
            with store.skipping(store.runs / result.cell.path):
                if _packed(opened, result) != result:
                    row = packs.row(result)
                    count += 1
                    yield row

    path = packs.write(store.root, fresh())
    removed = _remove(store) if remove else 0
    return Packed(path, count, removed, store.broken)


def _packed(opened: Sequence[packs.Pack], result: Result) -> Result | None:
    found = (pack.get(result.cell) for pack in opened)
    return next((result for result in found if result is not None), None)


def _remove(store: Store) -> int:
    opened, removed = list(store.opened()), 0
    for file in sorted(store.files(), key=packs.place):
        path = store.runs / file
        with held(path.parent, wait=True):  # so that no run writes it meanwhile
            if path.exists() and (one := store.filed(file)) and _packed(opened, one) == one:
                path.unlink()
                removed += 1
    return removed


def _table(store: Store, where: str | None, names: list[str]) -> "pa.Table":
    wanted = conditions(where)
    of_single, cells = _of_single(store, wanted, names)
    tables, opened = [of_single], list(store.opened())
    seen = {str(cell.path) for cell in cells} if opened else set()
    for pack in opened:
        with store.skipping(pack.path):
            tables.append(pack.columns(names, _meaning(wanted, seen)))
            if pack is not opened[-1]:
                seen.update(pack.columns(["cell"])["cell"].to_pylist())
    filled = [table for table in tables if table.num_rows] or tables[:1]
    # In one piece: rows are taken from it a thousand times faster than from a hundred chunks.
    return (filled[0] if len(filled) == 1 else _ordered(filled)).combine_chunks()


def _of_single(
    store: Store, wanted: list[Condition], names: list[str]
) -> tuple["pa.Table", list[Cell]]:
    """Those of the single files that are meant; and the cells of all."""
    import pyarrow as pa

    nested = bool(set(names) & set(packs.NESTED))
    rows, cells = [], []
    for result in store.single():
        cells.append(result.cell)
        row = result.row() if wanted else {}
        if all(condition.holds(row) for condition in wanted):
            try:
                rows.append(packs.row(result, nested=nested))
            except ValueError as error:
                store.skip(store.runs / result.cell.path, error)
    return pa.Table.from_pylist(rows, schema=packs.schema(nested=nested)).select(names), cells


def _ordered(tables: list["pa.Table"]) -> "pa.Table":
    """Several tables as one, rows together, short lengths first."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = pa.concat_tables(tables)
    if "cell" not in table.column_names:
        return table
    text = table["cell"].cast(pa.large_string())
    number = pc.extract_regex(text, r"/(?P<length>[0-9]{1,18})\.json$")
    length = pc.fill_null(pc.struct_field(number, "length").cast(pa.int64()), 0)
    row = pc.replace_substring_regex(text, r"/[^/]*$", "")
    order = pc.sort_indices(
        pa.table({"row": row, "length": length}),
        sort_keys=[("row", "ascending"), ("length", "ascending")],
    )
    return table.take(order)


def _meaning(wanted: list[Condition], seen: set[str]) -> "pc.Expression | None":
    """The conditions as Parquet's reader takes them, and none of the cells seen before."""
    import operator
    from functools import reduce

    import pyarrow as pa
    import pyarrow.compute as pc

    every = [_expression(condition) for condition in wanted]
    if seen:
        every.append(~pc.field("cell").isin(pa.array(sorted(seen), pa.string())))
    return reduce(operator.and_, every) if every else None


def _expression(condition: Condition) -> "pc.Expression":
    import pyarrow as pa
    import pyarrow.compute as pc

    field, kind = pc.field(condition.key), packs.schema().field(condition.key).type
    if condition.sign in ("=", "!="):
        given = [v for v in condition.wanted if v is not None]
        if pa.types.is_integer(kind):
            given = [int(v) for v in given if float(v).is_integer() and abs(v) < packs.LARGEST]
        same = field.isin(pa.array(given, kind))
        for name in given if condition.key in MODELS else ():
            same = same | pc.match_substring_regex(field, meaning(name))
        if None in condition.wanted:
            same = same | field.is_null()
        return same if condition.sign == "=" else ~same
    return TESTS[condition.sign](field, condition.wanted[0])
