"""`method=yarn length>=8192 status=scored`: which results a person means."""

import operator
import re
from collections.abc import Callable, Iterable
from typing import Any

from harness import nearest
from harness.cell import Cell, Result
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
}


def matching(results: Iterable[Result], where: str | None) -> list[Result]:
    """Those for which every condition holds; `method=yarn,pi` holds for either.

    Raises:
        ValueError: a condition is not key, comparison, value; or no result has such a key.
    """
    conditions = [_condition(text) for text in (where or "").split()]
    return [r for r in results if all(holds(r.row()) for holds in conditions)]


def _condition(text: str) -> Callable[[dict[str, Any]], bool]:
    parts = re.fullmatch(r"([a-z_]+)(!=|>=|<=|=|>|<)(.+)", text)
    if not parts:
        raise ValueError(
            f"{text!r} is no condition. Write key, comparison and value without spaces, several "
            "with spaces between: --where 'method=yarn length>=8k status=scored'."
        )
    key, sign, given = parts.groups()
    if key not in KNOWN or isinstance(KNOWN[key], dict):
        keys = [k for k, v in KNOWN.items() if not isinstance(v, dict)]
        raise ValueError(
            f"Results have no {key!r}.{nearest.hint(key, keys)} They have: {', '.join(keys)}."
        )
    wanted = [_value(key, one) for one in given.split(",")]
    if sign in ("=", "!="):
        return lambda row: (row[key] in wanted) == (sign == "=")
    if key not in NUMBERS or len(wanted) > 1:
        raise ValueError(f"In {text!r}, {sign} compares with one number; use = or != instead.")
    return lambda row: row[key] is not None and TESTS[sign](row[key], wanted[0])


def _value(key: str, text: str) -> Any:
    if text == "none" and key in ("factor", "value", "low", "high"):
        return None
    if key not in NUMBERS:
        return text
    try:
        return float(text)
    except ValueError:
        if key == "length":
            return lengths(text)[0]
        raise ValueError(f"{key} is a number, and {text!r} is none.") from None
