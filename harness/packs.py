"""A pack: any number of results in one Parquet file, nothing of them lost, columns at a glance.

Below a results folder, `packed/00001.parquet`, `packed/00002.parquet` ...: of a cell that lies in
several, the last one counts. Rows stand as in a store, and a group of them is read at a time.
"""

import json
import os
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from harness.cell import SCHEMA, Cell, Result

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

ROWS = 8192
"""Results of a group: what is read to have one of them."""
MARK = b"context-harness pack"
KNOWN = Result(
    cell=Cell(model="m", method="m", task="t", length=1), status="scored", value=0.0
).row()
WHOLE = ("length", "n", "tokens", "peak_memory")
NUMBERS = (*WHOLE, "factor", "value", "low", "high", "truncated", "seconds")
NESTED = tuple(f for f in Result.model_fields if f != "cell" and f not in KNOWN)
"""What a row does not say: kept as JSON, and read only where it is asked for."""
HEAVY = ("items", "provenance")
LARGEST = 2**63 - 1


def place(cell: PurePosixPath | str | None) -> tuple[str, int]:
    """Where a cell's path stands among others: rows together, short lengths first."""
    path = PurePosixPath(str(cell))
    return str(path.parent), int(path.stem) if path.stem.isdecimal() else 0


def schema(*, nested: bool = True) -> "pa.Schema":
    """Names and types of the columns; those with the flat ones only are what a report reads."""
    import pyarrow as pa

    kinds = {key: pa.int64() if key in WHOLE else pa.float64() for key in NUMBERS}
    names = ["cell", *KNOWN, *(NESTED if nested else ())]
    return pa.schema([(name, kinds.get(name, pa.string())) for name in names])


def row(result: Result, *, nested: bool = True) -> dict[str, Any]:
    """A result by column.

    Raises:
        ValueError: a number of it is too large for a column.
    """
    flat = {key: _text(v) if isinstance(v, dict | list) else v for key, v in result.row().items()}
    if any(abs(flat[key]) > LARGEST for key in WHOLE):
        raise ValueError("one of its whole numbers has more than 63 bits")
    more = {key: _text(getattr(result, key)) for key in NESTED} if nested else {}
    return {"cell": str(result.cell.path), **flat, **more}


def result(row: dict[str, Any]) -> Result:
    """The result of such a row; of what was left out, nothing.

    Raises:
        ValueError: it is none.
    """
    known = {key: v for key, v in row.items() if key in Result.model_fields and v is not None}
    nested = {key: json.loads(known[key]) for key in NESTED if key in known}
    found = Result.model_validate({**known, **nested, "cell": Cell.at(str(row["cell"]))})
    if found.schema_version != SCHEMA:
        raise ValueError(f"it is of schema {found.schema_version}, and this harness reads {SCHEMA}")
    return found


def paths(root: Path) -> list[Path]:
    """Every file among the packs, the one that counts first."""
    return sorted((Path(root) / "packed").glob("*.parquet"), key=_number, reverse=True)


def write(root: Path, rows: Iterable[dict[str, Any]]) -> Path | None:
    """A new pack of rows in a store's order; None if there are none."""
    import pyarrow as pa

    every = iter(rows)
    groups = iter(lambda: list(islice(every, ROWS)), [])
    return write_tables(root, (pa.Table.from_pylist(rows, schema=schema()) for rows in groups))


def write_tables(root: Path, tables: "Iterable[pa.Table]") -> Path | None:
    """A new pack of tables of rows, each a group of it; None if there are none.

    Written beside and renamed, so that it is there whole or not at all.
    """
    every = iter(tables)
    first = next(every, None)
    if first is None:
        return None
    folder = Path(root) / "packed"
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        with beside.open("xb") as file:
            _fill(file, chain([first], every))
            file.flush()
            os.fsync(file.fileno())
        return beside.replace(_free(folder))
    finally:
        beside.unlink(missing_ok=True)


def _fill(file: IO[bytes], tables: "Iterable[pa.Table]") -> None:
    import pyarrow.parquet as pq

    said = schema().with_metadata({MARK: str(SCHEMA).encode()})
    flat = schema(nested=False).names
    with pq.ParquetWriter(
        file,
        said,
        compression="zstd",
        write_statistics=flat,  # of long texts they would fill the footer
        use_dictionary=[name for name in flat if name not in NUMBERS],
        write_page_checksum=True,
    ) as writer:
        for table in tables:
            writer.write_table(table.replace_schema_metadata(said.metadata))


@dataclass(frozen=True)
class Pack:
    """One file of packed results."""

    path: Path
    groups: "pa.parquet.FileMetaData"

    @classmethod
    def open(cls, path: Path) -> "Pack":
        """Look at what it says of itself.

        Raises:
            ValueError: it is torn, or none of this harness's; says which.
            OSError: it cannot be read.
        """
        known = path.stat()
        return cls(path, _groups(path, known.st_mtime_ns, known.st_size))

    def __len__(self) -> int:
        return self.groups.num_rows

    def get(self, cell: Cell) -> Result | None:
        """The cell's result, if it is in this pack."""
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = str(cell.path)
        for group in self._may_hold(wanted):
            table = self._read(group)
            at = pc.index(table["cell"], pa.scalar(wanted)).as_py()
            if at >= 0:
                return result(table.slice(at, 1).to_pylist()[0])
        return None

    def rows(self) -> Iterator[dict[str, Any]]:
        """All, in a store's order, to make results of."""
        for group in range(self.groups.num_row_groups):
            for batch in self._read(group).to_batches(max_chunksize=256):
                yield from batch.to_pylist()

    def columns(self, names: Iterable[str], where: "pc.Expression | None" = None) -> "pa.Table":
        """Only these columns, of the rows that the expression holds for."""
        from pyarrow import dataset

        checked = dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
        kind = dataset.ParquetFileFormat(default_fragment_scan_options=checked)
        whole = dataset.dataset(self.path, schema=schema(), format=kind)
        return whole.to_table(columns=list(names), filter=where)

    def _may_hold(self, cell: str) -> Iterator[int]:
        for group in range(self.groups.num_row_groups):
            known = self.groups.row_group(group).column(0).statistics
            if known is None or not known.has_min_max or known.min <= cell <= known.max:
                yield group

    def _read(self, group: int) -> "pa.Table":
        known = self.path.stat()
        return _group(self.path, known.st_mtime_ns, known.st_size, group)


@lru_cache(maxsize=64)
def _groups(path: Path, changed: int, size: int) -> "pa.parquet.FileMetaData":
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        said = pq.read_schema(path)
        mark = (said.metadata or {}).get(MARK, b"").decode("ascii", "replace")
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"it is no whole Parquet file: {_first(error)}") from None
    if mark != str(SCHEMA):
        why = f"of schema {mark}, and this harness reads {SCHEMA}" if mark else "no pack of results"
        raise ValueError(f"it is {why}")
    theirs = {field.name: field.type for field in said}
    for field in schema():
        if theirs.get(field.name, field.type) != field.type:
            raise ValueError(f"its column {field.name!r} is {theirs[field.name]}")
    if said.names[:1] != ["cell"]:
        raise ValueError("its first column is not 'cell'")
    return pq.read_metadata(path)


@lru_cache(maxsize=2)
def _group(path: Path, changed: int, size: int, group: int) -> "pa.Table":
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        return file.read_row_group(group)


def _number(path: Path) -> tuple[int, str]:
    return int(path.stem) if path.stem.isdecimal() else 0, path.name


def _free(folder: Path) -> Path:
    """A name that nothing has yet, and that is now taken."""
    last = max((_number(path)[0] for path in folder.glob("*.parquet")), default=0)
    while True:
        last += 1
        try:
            (folder / f"{last:05}.parquet").touch(exist_ok=False)
        except FileExistsError:
            continue
        return folder / f"{last:05}.parquet"


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)


def _first(error: Exception) -> str:
    return " ".join(str(error).split("\n")[0].split())
