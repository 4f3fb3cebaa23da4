"""What there is to run, in a line each: methods, tasks, models, corpora. No torch.

But for recipes: those are values, so their methods are imported.
"""

import ast
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness import catalog

KINDS = ("methods", "tasks", "models", "corpora", "recipes")


def listed(kind: str) -> list[dict[str, Any]]:
    """Name and description; of methods and tasks also the source, of tasks the variants.

    Raises:
        LookupError: there is no such kind.
    """
    if kind == "methods" or kind == "tasks":
        return [_described(kind, name) for name in catalog.names(kind)]
    if kind == "models":
        from harness.model import KNOWN

        return [{"name": name, "description": about} for name, about in KNOWN.items()]
    if kind == "corpora":
        from harness.corpora import KINDS as CORPORA

        return [{"name": k.written, "description": k.about} for k in CORPORA.values()]
    if kind == "recipes":
        return [_recipe(name, key) for name in catalog.names("methods") for key in _recipes(name)]
    raise LookupError(f"Nothing is listed as {kind!r}. There are: {', '.join(KINDS)}.")


def _described(kind: str, name: str) -> dict[str, Any]:
    """What a file says of itself: read, not imported, for most would bring torch."""
    module = f"harness.{kind}.{name.replace('-', '_')}"
    first, _, rest = (ast.get_docstring(_tree(module)) or "").partition("\n")
    source = re.search(r"[^(\n]*?https?://[^\s,;)]+", rest)
    about = {
        "name": name,
        "description": first,
        "source": source[0].strip().rstrip(".") if source else "",
    }
    known = _value(module, "variants")
    if isinstance(known, ast.Dict):
        keys = [key.value for key in known.keys if isinstance(key, ast.Constant)]
        about["variants"] = [f"{name}.{key}" for key in keys]
    return about


def _recipes(name: str) -> list[str]:
    """What a method's recipes are called; `quick` is made of the first."""
    held = list(catalog.load("methods", name).recipes)
    return [*held, "quick"] if held else []


def _recipe(name: str, key: str) -> dict[str, Any]:
    from harness.train.course import recipe

    numbers = recipe(catalog.load("methods", name), key)
    about = (
        f"{numbers.steps:,} updates of {numbers.batch_tokens:,} tokens, in sequences of "
        f"{numbers.sequence_length:,}"
    )
    return {"name": f"{name}/{key}", "description": about, "source": numbers.data}


def _value(module: str, variable: str) -> ast.expr | None:
    """What a name is set to at the top of a module; None if it is not."""
    for line in _tree(module).body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        if any(isinstance(t, ast.Name) and t.id == variable for t in targets):
            return getattr(line, "value", None)
    return None


def _tree(module: str) -> ast.Module:
    spec = find_spec(module)
    return ast.parse(Path(spec.origin).read_text("utf-8") if spec and spec.origin else "")
