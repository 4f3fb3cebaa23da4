"""`method=yarn length>=8192 status=scored`: which results a person means."""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from harness import nearest
from harness.cell import COMPUTED, Cell, Result, names_of
from harness.lengths import lengths

TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
KNOWN = Result(
    cell=Cell(model="m", method="m", task="t", length=1), status="scored", value=0.0
).row()
NUMBERS = {
    *("factor", "length", "value", "low", "high"),
    *("n", "truncated", "seconds", "tokens", "peak_memory"),
    *("train_length", "window", "regenerated"),
}
LENGTHS = {"length", "train_length", "window"}
MODELS = {"model", "base"}
"""Whose name alone means it, whatever is in its weights and whatever it was computed in."""
ABSENT = {"factor", "value", "low", "high", "regenerated", *LENGTHS}
"""Numbers that there may be none of: `factor=none`."""


@dataclass(frozen=True)
class Condition:
    """One test of one key: `length>=8192`, `method=yarn,pi`."""

    key: str
    sign: str
    wanted: tuple[Any, ...]
    """What it is compared with; more than one after = and != only."""

    def holds(self, row: dict[str, Any]) -> bool:
        value = row[self.key]
        if isinstance(value, bool):
            value = str(value).lower()
        if self.sign in ("=", "!="):
            called = names_of(value) if self.key in MODELS else {value}
            any_of = not called.isdisjoint(self.wanted)
            return any_of == (self.sign == "=")
        return value is not None and TESTS[self.sign](value, self.wanted[0])


def matching(results: Iterable[Result], where: str | None) -> list[Result]:
    """Those for which every condition holds; `method=yarn,pi` holds for either.

    Raises:
        ValueError: a condition is not key, comparison, value; or no result has such a key.
    """
    every = conditions(where)
    if not every:
        return list(results)
    return [r for r in results if (row := r.row()) and all(c.holds(row) for c in every)]


def conditions(where: str | None, known: Mapping[str, Any] = KNOWN) -> list[Condition]:
    """What a person wrote after `--where`; nothing means every result.

    Args:
        where: conditions with spaces between.
        known: a row with every key there is.

    Raises:
        ValueError: a condition is not key, comparison, value; or no result has such a key.
    """
    return [_condition(text, known) for text in (where or "").split()]


def _condition(text: str, known: Mapping[str, Any]) -> Condition:
    parts = re.fullmatch(r"([a-z_]+)(!=|>=|<=|=|>|<)(.+)", text)
    if not parts:
        raise ValueError(
            f"{text!r} is no condition. Write key, comparison and value without spaces, several "
            "with spaces between: --where 'method=yarn length>=8k status=scored'."
        )
    key, sign, given = parts.groups()
    if key not in known or isinstance(known[key], dict | list):
        keys = [k for k, v in known.items() if not isinstance(v, dict | list)]
        raise ValueError(
            f"Results have no {key!r}.{nearest.hint(key, keys)} They have: {', '.join(keys)}."
        )
    wanted = tuple(value for one in _listed(key, given) for value in _values(key, one))
    if sign not in ("=", "!=") and (key not in NUMBERS or len(wanted) > 1 or wanted == (None,)):
        raise ValueError(f"In {text!r}, {sign} compares with one number; use = or != instead.")
    return Condition(key, sign, wanted)


def _listed(key: str, given: str) -> list[str]:
    """What stands between commas, but for those of a model's own name: `toy,dtype=float32`."""
    mark = "\0"
    if key in ("method", "task") and (parameter := re.search(r",(\w+)=", given)):
        raise ValueError(
            f"In {key}={given}, {parameter[1]} is no name. A factor is a condition of its own, as "
            "in --where 'method=yarn factor=4'; other parameters cannot be asked for."
        )
    text = given.replace(COMPUTED, mark) if key in MODELS else given
    return [one.replace(mark, COMPUTED) for one in text.split(",")]


def _values(key: str, text: str) -> list[Any]:
    """What it says: one value, or the lengths of a range."""
    if text == "none" and key in ABSENT:
        return [None]
    if key not in NUMBERS:
        return [None, text] if text == "none" else [text]
    try:
        return [float(text)]
    except ValueError:
        if key in LENGTHS:
            return [*lengths(text)]
        raise ValueError(f"{key} is a number, and {text!r} is none.") from None
