"""The command that makes a cell again: the words of `harness run` that resolve to this cell.

A result names a corpus and a local model by content, and a command by place: `Places` says where
they are on this machine.
"""

import re
import shlex
from dataclasses import dataclass, fields
from typing import Any

from harness import catalog, plugins
from harness.cell import SHIPPED, Cell

STAMP = re.compile(r"@[0-9a-f]{8}$")
"""What a name by content ends with."""


@dataclass(frozen=True)
class Places:
    """Where things are on this machine that results name by content."""

    corpora: tuple[str, ...] = ()
    """As `--corpus` takes them; folders and files of questions too."""
    models: tuple[str, ...] = ()
    """Folders."""


@dataclass(frozen=True)
class Again:
    """A cell's own words for `harness run`."""

    words: dict[str, str]
    """By flag."""
    missing: tuple[str, ...] = ()
    """What is named by content, and was not found: the command says its name, not its place."""
    code: tuple[str, ...] = ()
    """Files that a method or a task is in."""
    trusting: bool = False
    """Whether code that came with the model was allowed to run: a command asks for it by name."""

    @property
    def command(self) -> str:
        """For a shell; into another folder, for in its own the cell is done."""
        given = (part for flag, value in self.words.items() for part in (f"--{flag}", value))
        code = (part for file in self.code for part in ("--code", file))
        trust = ["--trust-remote-code"] if self.trusting else []
        return shlex.join(["harness", *code, "run", *given, *trust, "--results", "again"])


HERE = Places()


def again(cell: Cell, places: Places = HERE, *, trusting: bool = False) -> Again:
    """The words that resolve to this cell, and to no other.

    Args:
        cell: of a result.
        places: where what it names by content is.
        trusting: whether code that came with the model was allowed to run.

    Raises:
        LookupError, ValueError: its method or task is no longer there, or takes no such parameter.
    """
    catalog.load("methods", cell.method)
    model, lost = _model(cell, places)
    task, gone = _task(cell, places)
    words = {
        "model": model,
        "method": cell.method,
        "task": task,
        "lengths": str(cell.length),
        "dtype": catalog.split(cell.model)[1].get("dtype", "bfloat16"),
    }
    named = [*catalog.split(cell.method)[0].split("+"), catalog.split(cell.task)[0]]
    code = filter(None, (plugins.place(name.partition(".")[0]) for name in named))
    missing = tuple(filter(None, (lost, gone)))
    return Again(words, missing, tuple(map(str, code)), trusting)


def _model(cell: Cell, places: Places) -> tuple[str, str]:
    """Its name or its folder; and what is missing, in words."""
    spec = catalog.split(cell.model)[0]
    if not STAMP.search(spec):
        return spec, ""
    if spec in SHIPPED:
        return SHIPPED[spec], ""
    for folder in places.models:
        from harness.model import describe

        if describe(folder).spec == spec:
            return folder, ""
    return spec, f"the model {spec}: say where its folder is with --model"


def _task(cell: Cell, places: Places) -> tuple[str, str]:
    """The spec with every parameter that a command would fill in otherwise."""
    name, given = catalog.split(cell.task)
    plain = {key: value for key, value in given.items() if key not in ("corpus", "data")}
    task = catalog.load("tasks", catalog.join(name, plain))
    if "reach" in {f.name for f in fields(task)} and "reach" not in plain:
        plain["reach"] = catalog.written(task.reach)
    kind = next(iter(given.keys() - plain.keys()), None)
    if kind is None:
        return catalog.join(name, plain), ""
    place = _place(task, given[kind], places)
    lost = f"the corpus {given[kind]}: say where it is with --corpus"
    return catalog.join(name, plain | {kind: place or STAMP.sub("", given[kind])}), (
        "" if place else lost
    )


def _place(task: Any, label: str, places: Places) -> str | None:
    """Where a corpus of this label is; None: nobody knows."""
    from harness.corpora import label_of

    for place in (*places.corpora, STAMP.sub("", label)):
        try:
            if label_of(task, place) == label:
                return place
        except (LookupError, ValueError, OSError):
            continue
    return None
