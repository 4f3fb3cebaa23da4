"""What there is to run, in a line each: methods, tasks, models, corpora. No torch.

But for recipes: those are values, so their methods are imported; and so are tasks, which are light.
"""

import ast
import re
from importlib import import_module
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness import catalog, plugins

KINDS = ("methods", "tasks", "models", "corpora", "recipes")


def listed(kind: str) -> list[dict[str, Any]]:
    """Name and description; of methods and tasks also the source, of tasks the variants and data.

    Raises:
        LookupError: there is no such kind.
    """
    if kind == "methods":
        return [_method(name) for name in catalog.names(kind)]
    if kind == "tasks":
        return [_task(name) for name in catalog.names(kind)]
    if kind == "models":
        from harness.model import KNOWN

        return [{"name": name, "description": about} for name, about in KNOWN.items()]
    if kind == "corpora":
        from harness.corpora import KINDS as CORPORA

        return [{"name": k.written, "description": k.about} for k in CORPORA.values()]
    if kind == "recipes":
        return [_recipe(name, key) for name in catalog.names("methods") for key in _recipes(name)]
    raise LookupError(f"Nothing is listed as {kind!r}. There are: {', '.join(KINDS)}.")


def _method(name: str) -> dict[str, Any]:
    """What a file says of itself: read, not imported, for most would bring torch."""
    if brings := catalog.package("methods", name):
        return _described(name, _words_of(plugins.source(brings))) | _from(brings)
    spec = find_spec(f"harness.methods.{name.replace('-', '_')}")
    return _described(name, _words_of(Path(spec.origin) if spec and spec.origin else None))


def _words_of(file: Path | None) -> str:
    return (file and ast.get_docstring(ast.parse(file.read_text("utf-8")))) or ""


def _from(brings: EntryPoint) -> dict[str, str]:
    return {"package": plugins.owner(brings)}


def _task(name: str) -> dict[str, Any]:
    if brings := catalog.package("tasks", name):
        try:
            variants = catalog.variants("tasks", name)
        except (LookupError, ValueError) as error:  # of one package, which must not hide the rest
            return _described(name, str(error)) | _from(brings)
        about = _words_of(plugins.source(brings))
        return _described(name, about) | _from(brings) | {"variants": variants}
    about = import_module(f"harness.tasks.{name.replace('-', '_')}").__doc__ or ""
    variants = catalog.variants("tasks", name)
    named = {"variants": variants} if variants != [name] else {}
    return _described(name, about) | named | {"data": _data(variants)}


def _described(name: str, about: str) -> dict[str, Any]:
    """The first line of a file's own words, and the first source that they name."""
    first, _, rest = about.partition("\n")
    source = re.search(r"[^(\n]*?https?://[^\s,;)]+", rest)
    where = source[0].strip().rstrip(".") if source else ""
    return {"name": name, "description": first, "source": where}


FACTS = ("offline", "size", "licence", "source")


def _data(variants: list[str]) -> list[dict[str, Any]]:
    """What variants of a task ask about, those together that have it in common.

    `of` names them; `offline` says that all of it is here, `size` how much it is, `licence` what
    one may do with it, `source` where it is from.
    """
    kinds: dict[tuple[Any, ...], list[str]] = {}
    for variant in variants:
        task = catalog.load("tasks", variant)
        facts = tuple(getattr(task, fact, None) for fact in FACTS)
        kinds.setdefault(facts, []).append(variant)
    return [{"of": of, **dict(zip(FACTS, facts, strict=True))} for facts, of in kinds.items()]


def _recipes(name: str) -> list[str]:
    """What a method's recipes are called; `quick` is made of the first."""
    from harness.train.course import recipes

    return [*dict.fromkeys([*recipes(catalog.load("methods", name)), "quick"])]


def _recipe(name: str, key: str) -> dict[str, Any]:
    from harness.train.course import BORROWED, recipe

    method = catalog.load("methods", name)
    numbers = recipe(method, key)
    about = (
        f"{numbers.steps:,} updates of {numbers.batch_tokens:,} tokens, in sequences of "
        f"{numbers.sequence_length:,}"
    )
    if not method.recipes:
        about += f", as {BORROWED}: it was published with none"
    return {"name": f"{name}/{key}", "description": about, "source": numbers.data}
