"""Rows of a leaderboard from columns: each row's numbers by length, models and tasks together."""

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from harness.cell import base_of
from harness.report.reach import Curve, Held

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


class Candidate(NamedTuple):
    """What is known of every row, whether it comes onto the page or not."""

    model: str
    task: str
    method: str
    curve: Curve
    places: "np.ndarray"
    """Of its cells among the columns, short lengths first."""
    held: Held | None = None


def candidates(columns: "pa.Table") -> Iterator[Candidate]:
    """Every row, sections together, each with its numbers by length."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if not columns.num_rows:
        return
    text = columns["cell"].cast(pa.large_string()).combine_chunks()
    coded = pc.replace_substring_regex(text, "/[^/]*$", "").dictionary_encode()
    names = [_parts(name) for name in coded.dictionary.to_pylist()]
    place = np.empty(len(names), dtype=np.int64)
    place[sorted(range(len(names)), key=lambda i: _order(*names[i]))] = np.arange(len(names))
    codes, lengths = coded.indices.to_numpy(), columns["length"].to_numpy()
    order = np.lexsort((lengths, place[codes]))
    twice = (np.diff(codes[order]) == 0) & (np.diff(lengths[order]) == 0)
    order = order[np.concatenate([[True], ~twice])]
    numbers = [_or_none(columns[name].to_numpy()[order]) for name in ("value", "low", "high")]
    codes, lengths = codes[order], lengths[order].tolist()
    starts = np.flatnonzero(np.diff(codes, prepend=-1)).tolist()
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        curve = Curve(lengths[start:stop], *(column[start:stop] for column in numbers))
        yield Candidate(*names[codes[start]], curve, order[start:stop])


def _order(model: str, task: str, method: str) -> tuple[str, str, str, str]:
    """Sections together."""
    return base_of(model), task, method, model


def _parts(path: str) -> tuple[str, str, str]:
    model, task, method = path.split("/")
    return _unquoted(model), _unquoted(task), unquote(method)


@cache
def _unquoted(text: str) -> str:
    return unquote(text)


def _or_none(column: "np.ndarray") -> list[float | None]:
    """Where there is no number, none."""
    numbers = column.tolist()
    for i in (column != column).nonzero()[0].tolist():
        numbers[i] = None
    return numbers
