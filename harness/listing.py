"""What there is to run, in a line each: methods, tasks, models, corpora; none is imported."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

from harness import catalog

REGISTERS = {"models": ("harness.model", "KNOWN"), "corpora": ("harness.corpora", "KINDS")}
"""Where the names and their lines stand, of what is not a folder of files."""
KINDS = (*get_args(catalog.Kind), *REGISTERS)


def listed(kind: str) -> list[dict[str, Any]]:
    """Name and description; of methods and tasks also the source, of tasks the variants.

    Raises:
        LookupError: there is no such kind.
    """
    if kind in REGISTERS:
        return [{"name": k, "description": v} for k, v in _register(*REGISTERS[kind]).items()]
    if kind not in KINDS:
        raise LookupError(f"Nothing is listed as {kind!r}. There are: {', '.join(KINDS)}.")
    return [_described(kind, name) for name in catalog.names(kind)]


def _described(kind: str, name: str) -> dict[str, Any]:
    module = f"harness.{kind}.{name.replace('-', '_')}"
    first, _, rest = (ast.get_docstring(_tree(module)) or "").partition("\n")
    source = re.search(r".*?https?://[^\s,;)]+", rest)
    about = {"name": name, "description": first, "source": source[0].rstrip(".") if source else ""}
    known = _value(module, "variants")
    if isinstance(known, ast.Dict):
        keys = [key.value for key in known.keys if isinstance(key, ast.Constant)]
        about["variants"] = [f"{name}.{key}" for key in keys]
    return about


def _register(module: str, variable: str) -> dict[str, Any]:
    """A dictionary of literals at the top of a module, read, not run."""
    value = _value(module, variable)
    if value is None:
        raise LookupError(f"{module} has no {variable}.")
    return ast.literal_eval(value)


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
