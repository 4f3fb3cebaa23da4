"""What a method or a task is, as data: `harness show NAME` prints it."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import fields
from importlib import import_module
from itertools import pairwise
from typing import Any, get_type_hints

from harness import catalog, nearest, plugins
from harness.method import Recipe

EVERYWHERE = {
    "samples": "How many questions are asked.",
    "seed": "What is random follows from it.",
    "corpus": "Where text is from, as `harness list corpora` writes it.",
    "data": "Where the questions are: a file, or a folder.",
}
"""What parameters mean that many tasks have, where their own files do not say it."""


def show(
    name: str,
    *,
    head_dim: int | None = None,
    theta: float | None = None,
    original_length: int | None = None,
    length: int | None = None,
    input_length: int | None = None,
    factor: float | None = None,
    factors: str | None = None,
) -> dict[str, Any]:
    """Describe a method or a task, and resolve a rope method where a rotary embedding is given.

    Args:
        name: a spec: `yarn`, `yarn,beta_fast=64`, `perplexity.sliding`.
        head_dim: channels of a head that rotate.
        theta: the base of the rotary embedding.
        original_length: tokens of the trained window.
        length: tokens to extend to: the factor is how many times further than trained this is.
        input_length: tokens of the input, where the encoding depends on it; None: `length`.
        factor: how many times further than trained, instead of by `length`.
        factors: a file of LongRoPE's divisors.

    Raises:
        LookupError: nothing has that name; the message has the nearest.
        ValueError: the rotary embedding is given in part, or to what takes none.
    """
    rope = {"head_dim": head_dim, "theta": theta, "original_length": original_length}
    lengths = {"length": length, "input_length": input_length}
    if _kind(name) == "tasks":
        if given := [k for k, v in (rope | lengths).items() if v is not None]:
            raise ValueError(
                f"{name} is a task, and has no rotary embedding: leave {_flags(given)} out; to see "
                "what it asks of a model, give --model and --length."
            )
        return _task(name)
    method = _given(catalog.load("methods", name), name, {"factor": factor, "factors": factors})
    if all(value is None for value in (rope | lengths).values()):
        return _method(method, name)
    return _method(method, name) | _resolved(method, name, rope, length, input_length)


def recipe(verb: str, name: str | None) -> dict[str, Any]:
    """A recipe in full: every number, what it means, where it is from.

    Args:
        verb: the word before it, which must be `recipe`.
        name: `yarn/128k`; a method alone means its first.

    Raises:
        LookupError: there is no such method, or it has no such recipe.
        ValueError: no recipe is named, or the word before it is another.
    """
    from harness.train.course import recipe as found

    if verb != "recipe" or not name:
        raise ValueError(
            "Write harness show recipe METHOD/RECIPE, such as yarn/paper; "
            "harness list recipes names them all."
        )
    spec, _, key = name.partition("/")
    method = catalog.load("methods", spec)
    key = key or next(iter(method.recipes), "quick")
    numbers = found(method, key)
    return {
        "name": f"{spec}/{key}",
        "kind": "recipe",
        "paper": method.paper,
        "numbers": dict(_sourced(numbers)),
        "disagreements": list(numbers.disagreements),
    }


def _sourced(numbers: Recipe) -> Iterator[tuple[str, dict[str, Any]]]:
    """By field: value, meaning and source, of all that this training has."""
    meaning = _meanings(Recipe)
    left_out = {"sources", "disagreements"}
    if numbers.trains != "lora":
        left_out |= {"also", "rank", "alpha"}
    for f in fields(Recipe):
        if f.name not in left_out:
            value = getattr(numbers, f.name)
            yield (
                f.name,
                {
                    "value": list(value) if isinstance(value, tuple) else value,
                    "doc": meaning.get(f.name, ""),
                    "source": numbers.sources.get(f.name, ""),
                },
            )


def _file(spec: str) -> str:
    """Whose name it begins with: `perplexity.sliding`, `lm-eval:arc_easy`."""
    return re.split("[.:+]", catalog.split(spec)[0])[0]


def _kind(name: str) -> catalog.Kind:
    bare = _file(name)
    if "@" in bare:
        return "tasks" if _has_tasks(bare) else "methods"
    kinds: tuple[catalog.Kind, ...] = ("methods", "tasks")
    for kind in kinds:
        if bare in catalog.names(kind):
            return kind
    known = [name for kind in kinds for name in catalog.names(kind)]
    raise LookupError(
        f"No method or task named {bare!r}.{nearest.hint(bare, known)} "
        f"There are: {', '.join(known)}."
    )


def _has_tasks(name: str) -> bool:
    """Whether a file that somebody named holds a task, or variants of one."""
    from harness.task import Task

    inside = plugins.opened(name)
    first = next(iter(getattr(inside, "variants", {}).values()), None)
    return hasattr(inside, "task") or isinstance(first, Task)


def _method(method: Any, name: str) -> dict[str, Any]:
    return _about("methods", method, name) | {
        "kind": "method",
        "formula": getattr(method, "formula", "not said"),
        "paper": getattr(method, "paper", "not said"),
        "depends_on_length": method.depends_on_length,
    }


def _resolved(
    method: Any, name: str, rope: dict[str, Any], length: int | None, input_length: int | None
) -> dict[str, Any]:
    """The method's encoding of one rotary embedding."""
    from harness.rope import Rope
    from harness.rotary import Reencoding

    if missing := [key for key, value in rope.items() if value is None]:
        raise ValueError(f"To compute the encoding, give {_flags(missing)} too.")
    if not isinstance(method, Reencoding):
        raise ValueError(f"{name} does not bend the rotary embedding: it has no frequencies.")
    trained = rope["original_length"]
    target = length or round(trained * (getattr(method, "factor", None) or 1))
    reach = (input_length or target) if method.depends_on_length else target
    given = Rope(theta=rope["theta"], dim=rope["head_dim"], original_length=trained)
    numbers = rope | {"length": target, "input_length": input_length or target}
    return numbers | method.resolved(given, reach) | {"notice": method.remark(given, reach)}


def _flags(names: Iterable[str]) -> str:
    return " and ".join(f"--{name.replace('_', '-')}" for name in names)


def _task(name: str) -> dict[str, Any]:
    task = catalog.load("tasks", name)
    about = _about("tasks", task, name)
    return about | {
        "about": "\n\n".join(dict.fromkeys([*_of_the_file(name), about["about"]])),
        "kind": "task",
        "metric": task.metric,
        "version": task.version,
        "higher_is_better": task.higher_is_better,
        "truncation": task.truncation,
        "max_new_tokens": task.max_new_tokens,
        "stop": [*map(repr, task.stop), "the end token"],
        "what_counts": task.counts,
        "variants": catalog.variants("tasks", _file(name)),
    }


def _of_the_file(name: str) -> Iterator[str]:
    """What the file of a benchmark says, whose tasks may be made in others."""
    file = _file(name)
    if "@" not in file and catalog.package("tasks", file) is None:
        told = import_module(f"harness.tasks.{file.replace('-', '_')}").__doc__
        yield inspect.cleandoc(told or "")


def _given(method: Any, name: str, values: dict[str, Any]) -> Any:
    """The method with what was asked for on the command line, where it has such parameters."""
    values = {key: value for key, value in values.items() if value is not None}
    for key in values.keys() - catalog.settings(method).keys():
        raise ValueError(f"{name} has no parameter {key!r}.")
    return catalog.load("methods", catalog.extended(name, values))


def _about(where: catalog.Kind, thing: Any, name: str) -> dict[str, Any]:
    """What it says of itself, and its parameters: value, default, type and meaning of each."""
    default = catalog.settings(catalog.load(where, catalog.split(name)[0]))
    layers = getattr(thing, "layers", (thing,))
    modules = [inspect.getmodule(type(layer)) for layer in layers]
    return {
        "name": name,
        "about": "\n\n".join(inspect.cleandoc((m and m.__doc__) or "") for m in modules),
        "parameters": {
            f.name: {
                "value": getattr(layer, f.name),
                "default": default[f.name],
                "type": _type(get_type_hints(type(layer))[f.name]),
                "doc": _meanings(type(layer)).get(f.name) or EVERYWHERE.get(f.name, ""),
            }
            for layer in layers
            for f in fields(layer)
        },
    }


def _type(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _meanings(kind: type) -> dict[str, str]:
    """The line of text below each field, in this class and those it builds on."""
    found: dict[str, str] = {}
    for base in reversed([k for k in kind.__mro__ if "__dataclass_fields__" in vars(k)]):
        tree = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        body = tree.body if isinstance(tree, ast.ClassDef) else []
        for line, below in pairwise(body):
            if (
                isinstance(line, ast.AnnAssign)
                and isinstance(line.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                found[line.target.id] = " ".join(str(below.value.value).split())
    return found
