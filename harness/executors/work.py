"""The unit of work: what one pass needs, as a cell file that `harness run-cell` takes anywhere.

Paths in it are of the machine that reads it; whether what lies there is what was meant, hashes say.
It cannot ask for code that comes with a model: who runs it must.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness import catalog, contents, mistakes
from harness.cell import Cell
from harness.disk import write_whole
from harness.plan import Options, Planned

LARGEST = 2**20
"""Bytes of a cell file: far more than an honest one takes."""


class Share(BaseModel):
    """A cell of the pass, and what it is expected to take."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    cell: Cell
    tokens: int = Field(ge=0)
    seconds: float = Field(ge=0)
    bytes: int = Field(ge=0)
    alone: int | None = Field(None, ge=0)
    why: str | None = None
    """Why it would not fit where it was planned."""


class CellFile(BaseModel):
    """A pass, as the file says that any machine may be given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """Where the cells' model is: a known name, a folder, a hub name."""
    weights: str | None = None
    """sha256 of the weights that are meant."""
    dtype: Literal["bfloat16", "float32", "auto"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    offload: Literal["auto", "on", "off"] = "auto"
    memory: int | None = Field(None, gt=0)
    device_map: str | None = None
    shards: int = Field(1, ge=1)
    corpus: str | None = None
    """Where its text is."""
    named: dict[str, str] = {}
    """Small files that the method reads, by content."""
    files: dict[str, str] = {}
    """Where those are that the task reads by content."""
    cells: tuple[Share, ...] = Field(min_length=1)
    schema_version: Literal[1] = 1

    @classmethod
    def of(cls, unit: Sequence[Planned], options: Options) -> "CellFile":
        first = unit[0]
        shares = [Share(**{name: getattr(p, name) for name in Share.model_fields}) for p in unit]
        return cls(
            model=first.model,
            weights=first.made_of.get("weights"),
            dtype=first.dtype,
            device=options.device,
            offload=options.offload,
            memory=options.memory,
            device_map=options.device_map,
            shards=options.shards,
            corpus=first.corpus,
            named={
                value: text
                for value in catalog.split(first.cell.method)[1].values()
                if (text := contents.find(value)) is not None
            },
            files={
                value: str(place)
                for value in catalog.split(first.cell.task)[1].values()
                if (place := contents.where(value)) is not None
            },
            cells=shares,
        )

    @classmethod
    def said(cls, text: str | bytes) -> "CellFile":
        """As it was written; the files that it reads by content are at hand from here on."""
        work = cls.model_validate_json(text)
        for stamped, held in work.named.items():
            contents.keep(stamped.rpartition("@")[0], held)
        for stamped, place in work.files.items():
            contents.point(stamped, Path(place))
        return work

    def plan(self) -> list[Planned]:
        return [
            Planned(
                **{**dict(share), "cell": share.cell},
                fits=share.why is None,
                model=self.model,
                dtype=self.dtype,
                corpus=self.corpus,
                made_of={"weights": self.weights},
            )
            for share in self.cells
        ]

    def options(self, trust_remote_code: bool = False) -> Options:
        """As much of a person's wish as a worker needs."""
        return Options(
            methods=(),
            tasks=(),
            lengths=(),
            device=self.device,
            offload=self.offload,
            memory=self.memory,
            device_map=self.device_map,
            shards=self.shards,
            trust_remote_code=trust_remote_code,
        )


def units(plan: Sequence[Planned]) -> list[list[Planned]]:
    """What workers are given: a row that may be read in one pass stays together."""
    found = []
    for (_, method, task), same in groupby(
        plan, lambda p: (p.cell.model, p.cell.method, p.cell.task)
    ):
        row = list(same)
        encoded = [planned.made_of.get("encoding") for planned in row]
        together = (
            catalog.load("tasks", task).one_pass
            and not catalog.load("methods", method).depends_on_length
            and all(one == encoded[0] for one in encoded)
        )
        found += [row] if together else [[planned] for planned in row]
    return found


def longest_first(found: Sequence[list[Planned]]) -> list[list[Planned]]:
    """Those of a model together, and of these the longest first."""
    models = list(dict.fromkeys(unit[0].cell.model for unit in found))
    return sorted(found, key=lambda u: (models.index(u[0].cell.model), -seconds(u)))


def seconds(unit: Sequence[Planned]) -> float:
    return sum(planned.seconds for planned in unit)


def write(plan: Sequence[Planned], options: Options, folder: Path) -> list[Path]:
    """A cell file for each pass, `0.json` the longest of the first model, and so on.

    Raises:
        ValueError: there are cell files already, which these would be mixed with.
        OSError: the folder does not take them.
    """
    if folder.is_dir() and any(folder.glob("*.json")):
        raise ValueError(f"{folder} holds cell files already: empty it, or give another folder.")
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for i, unit in enumerate(longest_first(units(plan))):
        files.append(folder / f"{i}.json")
        write_whole(files[-1], CellFile.of(unit, options).model_dump_json(indent=2) + "\n")
    return files


def read(file: Path) -> CellFile:
    """A cell file.

    Raises:
        ValueError: it is none.
        LookupError: it names a method or a task that is not here.
        OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        text = opened.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise ValueError(f"{file} is larger than {LARGEST // 1024} kB: that is no cell file.")
    try:
        work = CellFile.said(text)
    except ValidationError as error:
        where, why = mistakes.first(error)
        raise ValueError(
            f"{file} is no cell file{where and f', at {where}'}: {why}. "
            "Make some with: harness run ... --write-cells DIR"
        ) from None
    if len({share.cell.model for share in work.cells}) > 1:
        raise ValueError(f"{file} is no cell file: its cells are of more than one model.")
    for share in work.cells:
        catalog.load("methods", share.cell.method)
        catalog.load("tasks", share.cell.task)
    return work
