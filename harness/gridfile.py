"""What is to be measured, from flags, from a YAML file with the same words, or from both."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, StrictBool, StrictInt, ValidationError

from harness import catalog, checkpoints, nearest
from harness.cell import OWN
from harness.lengths import lengths
from harness.plan import Options, takes
from harness.plugins import named, written_as_file

LARGEST = 16 * 1024
"""Bytes of such a file: far more than an honest one takes."""
DEEPEST = 100
"""Brackets in such a file: YAML takes a minute to find that thousands never close."""
PARAMETERS: dict[str, catalog.Kind] = {
    "corpus": "tasks",
    "samples": "tasks",
    "depths": "tasks",
    "seed": "tasks",
    "prompt": "tasks",
    "no_context": "tasks",
    "pair_lengths": "tasks",
    "factor": "methods",
    "factors": "methods",
}
"""Words that set a parameter of that name, and of what: they make no sense where none has it."""
EXAMPLES = {"method": "yarn,pi", "task": "passkey", "lengths": "4k-32k"}


def specs(given: Any) -> tuple[str, ...]:
    """`none,yarn,factor=8,pi` names three: a `key=value` belongs to the name before it.

    Raises:
        ValueError: a name is missing, or is of a folder with a comma in it.
    """
    for text in _texts(given):
        if "," in text and _is_there(text):
            raise ValueError(f"commas are not allowed in a name: rename or link {text!r}.")
    found: list[str] = []
    for part in (part.strip() for text in _texts(given) for part in text.split(",")):
        parameter = re.match(r"[A-Za-z_]\w*=", part)
        if not part or (parameter and not found):
            raise ValueError(f"{', '.join(_texts(given))!r} misses a name: write name,key=value.")
        if parameter:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return tuple(dict.fromkeys(found))


def _is_there(text: str) -> bool:
    """Whether it is a file or folder; a list of names may be longer than a name can be."""
    try:
        return Path(text).exists()
    except OSError:
        return False


def _texts(given: Any) -> Sequence[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list | tuple) or not all(isinstance(t, str) for t in texts):
        raise ValueError(f"takes names, and {given!r} is none.")
    if not texts:
        raise ValueError("names nothing: write one name, or several.")
    return texts


def _lengths(given: Any) -> tuple[int, ...]:
    items = given if isinstance(given, list | tuple) else [given]
    if not all(isinstance(n, int | str) and not isinstance(n, bool) for n in items):
        raise ValueError(f"takes lengths such as 4k-32k, and {given!r} is none.")
    return tuple(lengths(",".join(str(n) for n in items)))


def _factor(given: Any) -> float | None:
    if given in (None, "auto"):
        return None
    factor = _number(given, "a number or auto")
    if factor < 1:
        raise ValueError(f"a factor must be at least 1, and {factor:g} is less.")
    return factor


def _depths(given: Any) -> tuple[float, ...] | None:
    if given is None:
        return None
    items = given.split(",") if isinstance(given, str) else given
    items = items if isinstance(items, list | tuple) else [items]
    if not items:
        raise ValueError("takes shares such as 0,0.5,1, and names none.")
    depths = tuple(_number(item, "shares such as 0,0.5,1") for item in items)
    if outside := [d for d in depths if not 0 <= d <= 1]:
        raise ValueError(f"a depth is a share from 0 to 1, and {outside[0]:g} is none.")
    return tuple(dict.fromkeys(depths))


def _number(given: Any, what: str) -> float:
    try:
        number = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"takes {what}, and {given!r} is none.")
    return number


def _at_least(least: int) -> BeforeValidator:
    def check(given: Any) -> Any:
        if isinstance(given, int) and given < least:
            raise ValueError(f"must be at least {least}, and {given} is less.")
        return given

    return BeforeValidator(check)


Specs = Annotated[tuple[str, ...], BeforeValidator(specs)]


class Grid(BaseModel):
    """The words of a grid file; each is a flag of `harness run` too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Specs
    task: Specs
    lengths: Annotated[tuple[int, ...], BeforeValidator(_lengths)]
    model: Specs = ("toy",)
    factor: Annotated[float | None, BeforeValidator(_factor)] = None
    factors: str | None = None
    corpus: str | None = None
    samples: Annotated[StrictInt | None, _at_least(1)] = None
    depths: Annotated[tuple[float, ...] | None, BeforeValidator(_depths)] = None
    seed: Annotated[StrictInt | None, _at_least(0)] = None
    prompt: Literal["auto", "base", "chat"] | None = None
    no_context: StrictBool | None = None
    pair_lengths: StrictBool | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"


def options(
    flags: dict[str, Any], file: Path | None = None, *, trust_remote_code: bool = False
) -> Options:
    """What a person asked for; a flag outweighs the file's word of the same name.

    Raises:
        ValueError: a word is unknown, missing or malformed, or nothing takes it; names it, and says
            what it may be.
        LookupError: no method or task has that name.
        OSError: the file cannot be read.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    words = read(file) if file else {}
    if _published((words | given).get("model")):
        words.setdefault("method", OWN)
    try:
        grid = Grid.model_validate(words | given)
    except ValidationError as error:
        raise ValueError(_said(error, file, given)) from None
    grid = grid.model_copy(update=_files(grid, file, given))
    for word, kind in PARAMETERS.items():
        if getattr(grid, word) is None:
            continue
        names = _members(grid.task) if kind == "tasks" else grid.method
        if not _taken(word, kind, names):
            raise ValueError(
                f"{_where(word, file, given)}: no {kind.removesuffix('s')} here takes it "
                f"({', '.join(names)}); leave it out."
            )
    _see_controls(grid, _where("no_context", file, given))
    own = None if "model" in words | given else _own_toy(grid)
    return Options(
        models=(own,) if own else grid.model,
        methods=grid.method,
        tasks=grid.task,
        **grid.model_dump(exclude={"model", "method", "task"}),
        trust_remote_code=trust_remote_code,
    )


def names_models(flags: dict[str, Any], file: Path | None) -> bool:
    """Whether a person said which model, in a flag or in the file."""
    return "model" in flags or (file is not None and "model" in read(file))


def _own_toy(grid: Grid) -> str | None:
    """The toy as trained with the one method that is asked for, by its name alone."""
    from harness.model import TRAINED

    name = f"toy-{grid.method[0]}"
    plain = len(grid.method) == 1 and grid.factor is None and grid.factors is None
    return name if plain and name in TRAINED else None


class Loader(yaml.SafeLoader):
    """YAML in which nothing is said twice, and 010 is not 8, nor 1:30 90."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        said = [key.value for key, _ in node.value]
        if twice := [word for word in said if said.count(word) > 1]:
            raise ValueError(f"it says {twice[0]} twice")
        return super().construct_mapping(node, deep)

    def number(self, node: yaml.ScalarNode) -> int | str:
        """A whole number if it is written as one, else the text: who takes it will say."""
        return int(node.value) if re.fullmatch(r"-?(0|[1-9]\d*)", node.value) else node.value


Loader.add_constructor("tag:yaml.org,2002:int", Loader.number)
Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_scalar)


def read(
    file: Path, kind: str = "grid", holds: str = "lines such as 'method: yarn'"
) -> dict[str, Any]:
    """The words of a grid file, or of another kind that people write by hand.

    Args:
        file: YAML.
        kind: what it is called.
        holds: what is to be written into it.

    Raises:
        ValueError: it is too large, no YAML, or no mapping.
        OSError: it cannot be read.
    """
    with file.open("rb") as opened:
        text = opened.read(LARGEST + 1)
    if len(text) > LARGEST:
        raise ValueError(f"{file} is larger than {LARGEST // 1024} kB: that is no {kind} file.")
    if text.count(b"[") + text.count(b"{") > DEEPEST:
        raise ValueError(f"{file} has more than {DEEPEST} brackets: that is no {kind} file.")
    try:
        for token in yaml.scan(text):
            if isinstance(token, yaml.AliasToken | yaml.TagToken):
                what = "an alias" if isinstance(token, yaml.AliasToken) else "a tag"
                raise ValueError(f"it uses {what}, and a {kind} file needs none")
        words = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no {kind} file: {error}.") from None
    if not isinstance(words, dict):
        raise ValueError(f"{file} is no {kind} file: write {holds}.")
    return {str(key).replace("-", "_"): value for key, value in words.items()}


def _published(models: Any) -> bool:
    """Whether the method that each was trained with is known by its name."""
    try:
        return all(checkpoints.find(name.partition(",")[0]) for name in specs(models))
    except ValueError:  # which is said with its flag
        return False


def _files(grid: Grid, file: Path | None, flags: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """Specs with the files of a person's own by content; only a flag has a file run."""
    found = {}
    for word in ("method", "task"):
        said = getattr(grid, word)
        found[word] = tuple(map(named, said)) if word in flags else said
        if code := next((s for s in said if word not in flags and written_as_file(s)), None):
            raise ValueError(
                f"{file}, {word}: a grid file cannot have code run. Give it on the command line, "
                f"with --{word} {code}."
            )
    return found


def _members(tasks: Sequence[str]) -> tuple[str, ...]:
    """Each task by itself, also of a benchmark's bare name."""
    return tuple(member for spec in tasks for member in catalog.members("tasks", spec))


def _see_controls(grid: Grid, where: str) -> None:
    """Raises ValueError: a control is asked for, and some tasks have none; names those that do."""
    if not grid.no_context:
        return
    every = {name: takes(catalog.load("tasks", name), "no_context") for name in _members(grid.task)}
    if without := [name for name, has in every.items() if not has]:
        having = ",".join(name for name, has in every.items() if has)
        raise ValueError(
            f"{where}: {', '.join(without)} cannot be asked without a text. Take --task {having}."
        )


def untaken(asked: Options) -> list[str]:
    """Of words that some of the tasks take, and others leave as they were: a sentence for each."""
    said = []
    for word in ("prompt", "pair_lengths"):
        if getattr(asked, word) is None:
            continue
        without = [n for n in _members(asked.tasks) if not takes(catalog.load("tasks", n), word)]
        if without:
            said.append(f"--{word.replace('_', '-')} changes nothing of {', '.join(without)}.")
    return said


def _taken(word: str, kind: catalog.Kind, names: Sequence[str]) -> bool:
    return any(name == OWN or takes(catalog.load(kind, name), word) for name in names)


def _where(word: str, file: Path | None, flags: dict[str, Any]) -> str:
    written = word.replace("_", "-")
    return f"{file}, {written}" if file and word not in flags else f"--{written}"


def _said(error: ValidationError, file: Path | None, flags: dict[str, Any]) -> str:
    """The first thing that is wrong, in one sentence."""
    found = error.errors()
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    word = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        hint, known = nearest.hint(word, Grid.model_fields), ", ".join(Grid.model_fields)
        return f"{file or 'The grid'} has the unknown key {word!r}.{hint} Known: {known}."
    where = _where(word, file, flags)
    if first["type"] == "missing":
        return f"{where} is missing: give it, for example --{word} {EXAMPLES[word]}."
    message = first["msg"].removeprefix("Value error, ").replace("Input should be", "takes")
    if first["type"] != "value_error":
        message = f"{message}, and {first['input']!r} is given."
    return f"{where}: {message}"
