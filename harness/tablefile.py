"""A published table as a file: facts of all of it, of its columns and of its rows; and cells.

`harness.published` says how one is written, and makes numbers of it.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from harness import nearest
from harness.disk import parsed
from harness.gridfile import read
from harness.lengths import lengths

LARGEST = 256 * 1024
"""Bytes of a file of checks."""


def plain(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"{text!r} has characters that cannot be printed")
    return text


def _tokens(given: Any) -> tuple[int, ...]:
    return tuple(lengths(str(given)))


def _one(given: tuple[int, ...]) -> tuple[int, ...]:
    if len(given) != 1:
        raise ValueError("takes one length")
    return given


Text = Annotated[str, AfterValidator(plain), Field(min_length=1)]
Tokens = Annotated[tuple[int, ...], BeforeValidator(_tokens)]
Length = Annotated[Tokens, AfterValidator(_one)]


class Facts(BaseModel):
    """What may be said of a table, of a column or of a row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Text | None = None
    base: Text | None = None
    method: Text | None = None
    task: Text | None = None
    part: Text | None = None
    corpus: Text | None = None
    metric: Text | None = None
    protocol: Text | None = None
    unit: Literal["", "%", "tokens"] = ""
    column: Text | None = None
    length: Tokens | None = None
    train: Length | None = None
    trained: Text | None = None
    window: Length | None = None
    predictions: Text | None = None
    """Whose they are, as the file of checks calls the model."""
    doubts: list[Text | dict[Text, Text]] = []
    """Of all it holds for, or of one cell: `column: doubt`."""

    def said(self) -> dict[str, Any]:
        """What was written, and nothing else."""
        return {k: getattr(self, k) for k in Facts.model_fields if k in self.model_fields_set}

    def labels(self) -> tuple[str | None, ...]:
        """What a doubt of one cell may call it by."""
        return self.column, self.name


class Row(Facts):
    printed: str


def _columns(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    return [{"column": label, "length": label} for label in cells(given)]


class Page(Facts):
    """A file of results/published."""

    page: Text
    title: Text
    source: Annotated[str, Field(pattern=r"^https?://\S+$")]
    marks: dict[Text, Text] = {}
    check: Annotated[str, Field(pattern=r"^[\w.-]+\.json$")] | None = None
    columns: Annotated[list[Facts], BeforeValidator(_columns), Field(min_length=1)]
    rows: Annotated[list[Row], Field(min_length=1)]


class Check(BaseModel):
    """What came out of published predictions again."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    task: Text
    model: Text
    printed: Text
    regenerated: float | None
    why: Text | None


def page(file: Path) -> Page:
    """What a file says.

    Raises:
        ValueError: it is no table; names it, and what is wrong where.
        OSError: it cannot be read.
    """
    try:
        found = Page.model_validate(read(file, "table", "page, columns and rows"))
    except ValidationError as error:
        raise ValueError(f"{file}{_said(error)}") from None
    if lost := _lost(found):
        raise ValueError(f"{file} doubts {lost!r}, which no row or column is called: quote doubts.")
    return found


def checks(file: Path) -> dict[tuple[str, str], Check]:
    """By task and model.

    Raises:
        ValueError: the file is none of checks.
        OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        text = opened.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise ValueError(f"{file} is larger than {LARGEST // 1024} kB: it is no file of checks.")
    try:
        cells = [Check.model_validate(cell) for cell in parsed(text, "it")["cells"]]
    except (ValueError, LookupError, TypeError) as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{file} is no file of checks: {words.rstrip('.')}.") from None
    return {(cell.task, cell.model): cell for cell in cells}


def cells(text: str) -> list[str]:
    """What stands between bars, plain."""
    return [plain(cell.strip()) for cell in text.split("|")]


def _lost(page: Page) -> str | None:
    """What a doubt is said to be about, and nothing is; most often a doubt with a colon in it."""
    levels = [page, *page.columns, *page.rows]
    known = {label for level in levels for label in level.labels()}
    about = (label for it in levels for d in it.doubts if isinstance(d, dict) for label in d)
    return next((label for label in about if label not in known), None)


def _said(error: ValidationError) -> str:
    """`, row 3, train: ...`: the first thing that is wrong, and where."""
    first = error.errors()[0]
    where = [*first["loc"]]
    place = ""
    if len(where) > 1 and isinstance(where[1], int):
        place = f", {str(where[0]).removesuffix('s')} {where[1] + 1}"
        where = where[2:]
    word = str(where[0]) if where else "it"
    if first["type"] == "extra_forbidden":
        known = sorted({*Page.model_fields, *Row.model_fields})
        return f"{place}: unknown key {word!r}.{nearest.hint(word, known)}"
    if first["type"] == "missing":
        return f"{place}: {word} is missing."
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    return f"{place}, {word}: {message}, and {first['input']!r} is given."
