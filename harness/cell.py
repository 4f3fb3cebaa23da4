"""A cell of the grid, and what came of it. No torch: reports read these."""

import re
from functools import cache
from itertools import product
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import quote, unquote

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness import checkpoints

SCHEMA = 1
SAFE = " ,=+@-_.~"
"""What stands in a path as it is."""
LONGEST = 255
"""Bytes of a folder's name, as file systems have it."""
UNEXTENDED = "none"
"""The method that leaves a model as it is: every table and picture starts from it."""
COMPUTED = ",dtype="
"""What stands in a model's spec before the numbers that it was computed in, where not bfloat16."""
STAMP = re.compile(r"@[0-9a-f]{8}(?=$|,)")
"""What a spec says of the content of a model that is no known name."""
OWN = "auto"
"""What stands for the method that a model was trained with, until the model is known."""
SHIPPED = {"toy+longrope@cb57d135": "toy-longrope"}
"""What the package calls trained models that come with it, by their specs."""
Status = Literal["scored", "failed", "out_of_memory", "unfit"]


def in_any_dtype(model: str) -> str:
    """A model's spec without what it was computed in."""
    return model.partition(COMPUTED)[0]


def unstamped(model: str) -> str:
    """A model's spec without its content: `my-toy@1a2b3c4d,dtype=float32` -> the rest."""
    return STAMP.sub("", model)


@cache
def names_of(model: str) -> frozenset[str]:
    """What a person may call a model; `meaning` finds it by any of these.

    That is its spec without its content, without what it was computed in, and of a trained one
    without its base.
    """
    whole = {model, unstamped(model)}
    if STAMP.search(model):
        whole |= {name.rpartition("+")[2] for name in whole}
    return frozenset(whole | {in_any_dtype(name) for name in whole})


def meaning(name: str) -> str:
    """A pattern of the specs of all models that a person calls so."""
    bare, computed, dtype = name.partition(COMPUTED)
    content = "" if STAMP.search(bare) else "@[0-9a-f]{8}"
    end = f"{computed}{re.escape(dtype)}$" if computed else f"($|{COMPUTED})"
    said = re.escape(bare)
    return f"^({said}|(.*[+])?{said}{content}){end}"


@cache
def base_of(model: str) -> str:
    """The spec of the model that a trained or published one started from, computed in the same."""
    name = in_any_dtype(model)
    published = checkpoints.find(name)
    return (published.started if published else name.partition("+")[0]) + model.removeprefix(name)


class Cell(BaseModel):
    """One model, extended by one method, on one task, at one length.

    Model, method and task are specs: a name and the parameters that differ from the default, as
    `harness.catalog` writes them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    method: str = Field(min_length=1)
    task: str = Field(min_length=1)
    length: int = Field(gt=0)

    @property
    def base(self) -> str:
        """The model that a trained one started from, and is shown beside: `toy+mine@3f` -> `toy`.

        A trained model's spec is its base's, a plus, and its own name and content.
        """
        return base_of(self.model)

    @property
    def training(self) -> str:
        """What the trained model is called; empty where the model is a base."""
        name = in_any_dtype(self.model)
        if checkpoints.find(name):
            return name.rpartition("/")[2]
        return re.sub(r"@[0-9a-f]{8}", "", name.partition("+")[2])

    def of_model(self, name: str) -> bool:
        """Whether a person means its model by this name, whatever it was computed in."""
        return name in names_of(self.model) | names_of(self.base)

    @property
    def folder(self) -> str:
        """Where its row's results lie below a results folder."""
        return "/".join(map(as_folder, (self.model, self.task, self.method)))

    @property
    def file(self) -> str:
        """Where its result lies below a results folder; one to one."""
        return f"{self.folder}/{self.length}.json"

    @property
    def path(self) -> PurePosixPath:
        """Its `file`, as a path."""
        return PurePosixPath(self.file)

    @classmethod
    def at(cls, path: PurePosixPath | str) -> "Cell":
        """Whose path this is: the way back.

        Raises:
            ValueError: no cell's.
        """
        parts = PurePosixPath(path).parts
        length = PurePosixPath(path).stem
        if len(parts) != 4 or not length.isdecimal():
            raise ValueError(f"{str(path)!r} is no model/task/method/length.json")
        model, task, method = map(unquote, parts[:3])
        cell = cls(model=model, task=task, method=method, length=int(length))
        if cell.path != PurePosixPath(path):
            raise ValueError(f"{str(path)!r} is written {str(cell.path)!r}")
        return cell


@cache
def as_folder(part: str) -> str:
    """As a folder; the name again by unquoting it.

    Raises:
        ValueError: no folder can have so long a name.
    """
    quoted = quote(part, safe=SAFE)
    if len(quoted) > LONGEST:
        raise ValueError(
            f"{part[:60]!r}... would be a folder with a name of {len(quoted)} bytes, and {LONGEST} "
            "are allowed: give it fewer parameters, such as fewer depths."
        )
    return {".": "%2E", "..": ".%2E"}.get(quoted, quoted)


def grid(models: list[str], methods: list[str], tasks: list[str], lengths: list[int]) -> list[Cell]:
    """Every combination once, rows together, short lengths first."""
    rows = product(dict.fromkeys(models), dict.fromkeys(tasks), dict.fromkeys(methods))
    return [
        Cell(model=m, task=t, method=k, length=n) for m, t, k in rows for n in sorted(set(lengths))
    ]


class Result(BaseModel):
    """What a cell came to. A cell that could not run says why; it is not left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cell: Cell
    status: Status
    value: float | None = None
    low: float | None = None
    """The 95 % interval's lower end."""
    high: float | None = None
    n: int = 0
    """What the value is a mean over: documents, trials; of some protocols windows or tokens."""
    metric: str = ""
    protocol: str = ""
    corpus: str | None = None
    truncated: float = Field(default=0.0, ge=0, le=1)
    """The share of inputs that something was taken out of, to make them fit."""
    factor: float | None = None
    parts: dict[str, float] = {}
    items: dict[str, float] = {}
    """What the value is made of, and two methods are paired by: the score of each trial, the mean
    loss in nats of each document."""
    reason: str | None = None
    notice: str | None = None
    seconds: float = 0.0
    """This cell's share of its pass."""
    tokens: int = 0
    peak_memory: int = 0
    """Bytes: the process's resident peak on a CPU, the allocator's on a GPU."""
    trained: str | None = None
    """What a trained model was trained on, in a phrase; None where the model is a base."""
    provenance: dict[str, Any] = {}
    """Hashes of weights, corpus, probe; resolved parameters; kernel, device, versions, commit."""
    schema_version: int = SCHEMA

    @model_validator(mode="after")
    def _finite_if_and_only_if_scored(self) -> "Result":
        if (self.value is not None) != (self.status == "scored"):
            raise ValueError("a value stands in a result if and only if its status is scored")
        if self.status != "scored" and not self.reason:
            raise ValueError("a cell that was not scored says why")
        return self

    def row(self) -> dict[str, Any]:
        """Flat, for `harness results --format json` and tables."""
        from harness.catalog import split

        task, parameters = split(self.cell.task)
        return {
            "model": self.cell.model,
            "method": split(self.cell.method)[0],
            "method_parameters": split(self.cell.method)[1],
            "factor": self.factor,
            "task": task.split(".")[0],
            "protocol": self.protocol,
            "task_parameters": parameters,
            "metric": self.metric,
            "corpus": self.corpus,
            "length": self.cell.length,
            "status": self.status,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "n": self.n,
            "truncated": self.truncated,
            "seconds": self.seconds,
            "tokens": self.tokens,
            "peak_memory": self.peak_memory,
            "reason": self.reason,
            "notice": self.notice,
            "base": self.cell.base,
            "trained": self.trained,
        }
