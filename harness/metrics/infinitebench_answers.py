"""What is right in InfiniteBench: the shapes that its files have it in, made one."""

import re
from collections.abc import Callable
from typing import Any


def normal(task: str, right: Any) -> Any:
    """What is right, in the one form that the rules take.

    Raises:
        ValueError: it is no answer to a question of this task.
    """
    shape, says = SHAPES[task]
    for form in (right, right[0] if isinstance(right, list) and len(right) == 1 else None):
        if (found := shape(form)) is not None:
            return found
    raise ValueError(f"{_short(right)} is no answer of {task}, which has {says}")


def _text(right: Any) -> str | None:
    return right if isinstance(right, str) and right else None


def _digits(right: Any) -> str | None:
    return right if isinstance(right, str) and re.fullmatch("[0-9]+", right) else None


def _texts(right: Any) -> list[str] | None:
    right = [right] if isinstance(right, str) else right
    whole = isinstance(right, list) and right and all(isinstance(each, str) for each in right)
    return right if whole else None


def _option(right: Any) -> list[str] | None:
    right = _texts(right)
    return right if right and len(right) == 2 and right[1] in tuple("ABCD") else None


def _whole(right: Any) -> int | None:
    if isinstance(right, str) and re.fullmatch("-?[0-9]+", right):  # as the hub's own loader has it
        return int(right)
    return right if isinstance(right, int) and not isinstance(right, bool) else None


def _number(right: Any) -> int | float | None:
    if isinstance(right, str) and re.fullmatch(r"-?[0-9]+\.[0-9]+", right):
        return float(right)
    return right if isinstance(right, float) else _whole(right)


def _wholes(right: Any) -> list[int] | None:
    if not isinstance(right, list) or not right:
        return None
    numbers = [_whole(each) for each in right]
    return None if None in numbers else [n for n in numbers if n is not None]


SHAPES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "passkey": (_digits, "a string of digits"),
    "number_string": (_digits, "a string of digits"),
    "kv_retrieval": (_text, "one string"),
    "longbook_sum_eng": (_texts, "a text or a list of texts"),
    "longbook_choice_eng": (_option, "an option's text and its letter"),
    "longbook_qa_eng": (_texts, "a text or a list of texts"),
    "longbook_qa_chn": (_texts, "a text or a list of texts"),
    "longdialogue_qa_eng": (_texts, "a name or a list of names"),
    "math_find": (_number, "one number"),
    "math_calc": (_wholes, "a list of whole numbers"),
    "code_run": (_whole, "one whole number"),
    "code_debug": (_option, "a function's name and its letter"),
}


def _short(value: Any) -> str:
    said = repr(value)
    return said if len(said) <= 60 else f"{said[:57]}..."
