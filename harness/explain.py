"""Everything behind a number, and what lies between two: all is in their results already."""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any
from urllib.parse import quote, unquote

from harness import archive, nearest
from harness.again import HERE, Places, again
from harness.cell import SAFE, Cell, Result, in_any_dtype
from harness.lengths import label, lengths
from harness.store import Store

MOST = 20
"""Lines of a list that a person reads; JSON has them all."""
NAMES = ("model", "base", "method", "task", "protocol", "length", "cell")
APART = 10
"""Cells that an ambiguous word names."""


def find(folder: Path, words: Sequence[str], where: str | None = None) -> Result:
    """The one result that is meant.

    Args:
        folder: of results.
        words: a path, or model, task, method, length in any order, apart or with / between them.
        where: conditions, as `--where` takes them.

    Raises:
        LookupError: none is, or it cannot be read.
        ValueError: several are; names some.
    """
    store = Store(folder)
    if not words and not where:
        raise ValueError("Name a cell: its path, or words such as toy passkey yarn 16k.")
    if len(words) == 1 and words[0].endswith(".json"):
        return _read(store, _cell_at(store, words[0]))
    rows = archive.columns(folder, where, only=NAMES).to_pylist()
    slashed = _slashed(rows)
    split = [part for word in words for part in _parts(word, slashed)]
    meant = [row for row in rows if all(_names(word, row) for word in split)]
    exact = [row for row in meant if all(_is(word, row) for word in split)]
    by_name = [row for row in meant if {row["model"], row["base"]} & {*split}]
    meant = next((those for those in (exact, by_name) if len(those) == 1), meant)
    if not meant:
        raise LookupError(_none(split, rows, folder))
    if len(meant) > 1:
        some = "; ".join(row["cell"].removesuffix(".json") for row in meant[:APART])
        more = f"; and {len(meant) - APART} more" if len(meant) > APART else ""
        raise ValueError(f"That names {len(meant)} cells, say which: {some}{more}.")
    return _read(store, Cell.at(meant[0]["cell"]))


def explained(folder: Path, result: Result, places: Places = HERE) -> dict[str, Any]:
    """All that is known of a result, and the command that makes it again."""
    store = Store(folder)
    path = store.path(result.cell)
    losses, samples = path.with_suffix(".npz"), path.with_suffix(".samples.jsonl")
    beside = [str(file) for file in (losses, samples) if file.exists()]
    try:
        trusting = bool(result.provenance.get("remote_code"))
        words = again(result.cell, places, trusting=trusting)
        made = {"command": words.command, "missing": list(words.missing)}
    except (LookupError, ValueError) as error:
        made = {"command": None, "missing": [str(error)]}
    return {
        "path": str(path) if path.exists() else f"packed in {Path(folder) / 'packed'}",
        "beside": beside,
        **made,
        **result.model_dump(),
    }


def readable(about: dict[str, Any]) -> Iterator[str]:
    """For a person, section by section."""
    cell = about["cell"]
    yield f"{cell['model']} · {cell['task']} · {cell['method']} · {label(cell['length'])}"
    yield ""
    if about["value"] is None:
        yield f"{about['status']}: {about['reason']}"
    else:
        yield f"{about['metric'] or 'value'} = {about['value']:.10g}"
        if about["low"] is not None and about["high"] is not None:
            yield f"95 % interval = [{about['low']:.6g}, {about['high']:.6g}]"
        yield f"a mean over n = {about['n']}; {about['truncated']:.1%} of inputs cut to fit"
    if about["notice"]:
        yield f"note: {about['notice']}"
    if about["trained"]:
        yield f"trained: {about['trained']}"
    yield f"{about['tokens']:,} tokens in {about['seconds']:,.1f} s; " + (
        f"peak memory {about['peak_memory'] / 2**20:,.0f} MiB"
    )
    yield from _listed("parts", about["parts"])
    yield from _listed("items", about["items"])
    yield from _listed("made of", dict(flat(about["provenance"])), most=None)
    yield from ["", "stored", *(f"  {file}" for file in (about["path"], *about["beside"]))]
    yield from ["", "made again by", f"  {about['command'] or '-'}"]
    yield from (f"  missing here: {missing}" for missing in about["missing"])


def differences(a: Result, b: Result) -> dict[str, Any]:
    """What differs between two results: what they are, what they are made of, each dimension.

    Frequencies are radians a token; a wavelength is the tokens of one turn.
    """
    first, second = dict(flat(_settings(a))), dict(flat(_settings(b)))
    keys = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    both = sorted(a.items.keys() & b.items.keys())
    return {
        "a": str(a.cell.path),
        "b": str(b.cell.path),
        "value": {"a": a.value, "b": b.value, "difference": _minus(b.value, a.value)},
        "items": {
            "shared": len(both),
            "mean difference": fmean(b.items[i] - a.items[i] for i in both) if both else None,
            "differing": {i: [a.items[i], b.items[i]] for i in both if a.items[i] != b.items[i]},
        },
        "settings": {key: [first.get(key), second.get(key)] for key in keys},
        "dimensions": _dimensions(_frequencies(a), _frequencies(b)),
    }


def readable_differences(about: dict[str, Any]) -> Iterator[str]:
    """For a person."""
    yield from (f"A  {about['a']}", f"B  {about['b']}", "")
    value, items = about["value"], about["items"]
    yield f"value  {_short(value['a'])} in A, {_short(value['b'])} in B" + (
        "" if value["difference"] is None else f": {value['difference']:+.6g}"
    )
    if items["shared"]:
        yield (
            f"items  {items['shared']} shared, {len(items['differing'])} of them differ, "
            f"by {items['mean difference']:+.6g} in the mean over all"
        )
    yield from _listed(
        "settings",
        {k: f"{_short(x)} -> {_short(y)}" for k, (x, y) in about["settings"].items()},
        most=None,
    )
    dimensions = about["dimensions"]
    apart = [row for row in dimensions if row["ratio"] != 1.0]
    if not dimensions:
        yield from ("", "encoding: one of them keeps no frequencies")
    elif not apart:
        yield from (
            "",
            f"encoding: the same frequency in all {len(dimensions)} pairs of dimensions",
        )
    else:
        yield from ("", f"encoding: {len(apart)} of {len(dimensions)} frequencies differ")
        yield "  pair   frequency A   frequency B       A/B  wavelength A  wavelength B"
        for row in dimensions:
            yield f"  {row['pair']:4}  " + "  ".join(
                f"{_short(row[key]):>{wide}}"
                for key, wide in (
                    ("a", 12),
                    ("b", 12),
                    ("ratio", 8),
                    ("wavelength_a", 12),
                    ("wavelength_b", 12),
                )
            )


def flat(nested: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """`{"a": {"b": 1}}` as `("a.b", 1)`; lists whole."""
    if not isinstance(nested, dict):
        yield name, nested
        return
    for key in sorted(nested):
        yield from flat(nested[key], f"{name}.{key}" if name else str(key))


def _settings(result: Result) -> dict[str, Any]:
    """All that is not an outcome; frequencies have a table of their own."""
    kept = ("cell", "status", "metric", "protocol", "corpus", "truncated", "factor", "n", "reason")
    said = result.model_dump(include={*kept, "notice", "trained", "provenance", "schema_version"})
    method = said["provenance"].get("method")
    if isinstance(method, dict):
        said["provenance"]["method"] = {k: v for k, v in method.items() if k != "frequencies"}
    return said


def _frequencies(result: Result) -> list[float]:
    method = result.provenance.get("method")
    found = method.get("frequencies") if isinstance(method, dict) else None
    return found if isinstance(found, list) else []


def _dimensions(a: list[float], b: list[float]) -> list[dict[str, Any]]:
    """By pair of dimensions that turn together; one that only one side has is none on the other."""
    rows = []
    for pair in range(max(len(a), len(b)) if a and b else 0):
        x = a[pair] if pair < len(a) else None
        y = b[pair] if pair < len(b) else None
        rows.append(
            {
                "pair": pair,
                "a": x,
                "b": y,
                "ratio": None if x is None or not y else x / y,
                "wavelength_a": math.tau / x if x else None,
                "wavelength_b": math.tau / y if y else None,
            }
        )
    return rows


def _listed(title: str, values: dict[str, Any], most: int | None = MOST) -> Iterator[str]:
    if not values:
        return
    yield from ("", title)
    wide = max(len(name) for name in list(values)[:most])
    for name, value in list(values.items())[:most]:
        yield f"  {name:{wide}}  {_short(value)}"
    if most and len(values) > most:
        yield f"  and {len(values) - most} more: --json has them"


def _short(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_short, value)) + "]"
    return str(value)


def _minus(x: float | None, y: float | None) -> float | None:
    return None if x is None or y is None else x - y


def _cell_at(store: Store, text: str) -> Cell:
    """The cell of a path, from here or from below runs/."""
    path = Path(text).expanduser().absolute()
    runs = store.runs.absolute()
    below = path.relative_to(runs).as_posix() if path.is_relative_to(runs) else text
    return Cell.at(below)


def _read(store: Store, cell: Cell) -> Result:
    result = store.get(cell)
    if result is None:
        why = next((f": {broken.reason}" for broken in store.broken), "")
        raise LookupError(f"There is no result of {cell.path} in {str(store.root)!r}{why}.")
    return result


def _slashed(rows: list[dict[str, Any]]) -> list[str]:
    """Names with slashes of their own, which paths quote; long ones first."""
    cells = (row["cell"].split("/")[:3] for row in rows if "%2F" in row["cell"])
    names = {unquote(part) for parts in cells for part in parts if "%2F" in part}
    names |= {row["base"] for row in rows if "/" in row["base"]}
    return sorted(names, key=len, reverse=True)


def _parts(word: str, slashed: list[str]) -> Iterator[str]:
    """What stands between its slashes."""
    while word:
        name = next((n for n in slashed if word == n or word.startswith(f"{n}/")), None)
        part = name or word.partition("/")[0]
        if part:
            yield part
        word = word[len(part) + 1 :]


def _is(word: str, row: dict[str, Any]) -> bool:
    """Whether it is one of the cell's own names, to the letter."""
    return quote(word, safe=SAFE) in row["cell"].split("/") or _length(word) == row["length"]


def _names(word: str, row: dict[str, Any]) -> bool:
    """Whether it is one of the cell's names, or the beginning of one before its parameters."""
    known = (row[key] for key in ("model", "base", "method", "task", "protocol"))
    models = (in_any_dtype(row[key]) for key in ("model", "base"))
    return word in known or word in models or _is(word, row)


@cache
def _length(word: str) -> int | None:
    try:
        [length] = lengths(word)
        return length
    except ValueError:
        return None


def _none(words: Sequence[str], rows: list[dict[str, Any]], folder: Path) -> str:
    for word in words:
        if not any(_names(word, row) for row in rows):
            known = {str(row[key]) for row in rows for key in ("model", "method", "task")}
            known |= {label(row["length"]) for row in rows}
            return (
                f"Nothing in {str(folder)!r} is called {word!r}.{nearest.hint(word, known)} "
                "harness results says what there is."
            )
    return (
        f"No cell in {str(folder)!r} is meant by all of that; harness results says what there is."
    )
