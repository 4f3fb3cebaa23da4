"""The verbs that only look: `list`, `show`, `results`, `doctor`."""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer import Option

from harness.cli.settle import settle

if TYPE_CHECKING:
    from harness.cell import Result
    from harness.store import Broken

LIST_EXAMPLES = "harness list methods\n\nharness list tasks --json"
DOCTOR_EXAMPLES = "harness doctor\n\nharness doctor --json"
SHOW_EXAMPLES = (
    "harness show passkey\n\n"
    "harness show recipe clex/paper\n\n"
    "harness show yarn --head-dim 64 --theta 100000 --original-length 8k --length 64k --json"
)
RESULTS_EXAMPLES = (
    "harness results --where 'method=yarn,pi length>=8k status=scored'\n\n"
    "harness results --format csv > results.csv\n\n"
    "harness results --page README.md\n\n"
    "harness results pack --remove"
)


def _folder(given: str | Path) -> Path:
    """Nothing would mean the folder one happens to be in."""
    if not str(given).strip():
        raise typer.BadParameter("it names no folder; write . for this one")
    return Path(given)


Folder = Annotated[
    Path,
    Option(
        "--results", parser=_folder, metavar="DIR", help="The folder they are kept in, below runs/."
    ),
]
Where = Annotated[
    str | None, Option("--where", help="Conditions with spaces between: 'method=yarn length>=8k'.")
]
Json = Annotated[bool, Option("--json", help="Print JSON.")]


def list_(
    kind: Annotated[str, typer.Argument(metavar="methods|tasks|models|corpora|recipes")],
    as_json: Json = False,
) -> None:
    """Name what there is to run, with a line about each."""
    from harness.listing import listed

    items = listed(kind)
    if as_json:
        print(json.dumps(items, indent=2, ensure_ascii=False))
        return
    widest = max((len(item["name"]) for item in items), default=0)
    for item in items:
        brought = f"  [{item['package']}]" if "package" in item else ""
        print(f"{item['name']:{widest}}  {item['description']}{brought}")
        lines = [item.get("source", ""), *map(_of_data, item.get("data", []))]
        for line in filter(None, lines):
            print(f"{'':{widest}}  {line}")


def _of_data(data: dict[str, Any]) -> str:
    """`standard, yarn, longrope: offline · any · Apache-2.0 · generated`."""
    names = ", ".join(name.partition(".")[2] for name in data["of"])
    where = "offline" if data["offline"] else "needs its data"
    told = " · ".join(filter(None, (where, data["size"], data["licence"], data["source"])))
    return f"{names}: {told}" if names else told


def show(
    name: Annotated[
        str, typer.Argument(help="A method or a task: yarn, perplexity.sliding; or `recipe`.")
    ],
    of: Annotated[
        str | None, typer.Argument(metavar="[METHOD/RECIPE]", help="After `recipe`: yarn/128k.")
    ] = None,
    head_dim: Annotated[int | None, Option(help="Channels of a head that rotate.")] = None,
    theta: Annotated[float | None, Option(help="The rotary embedding's base.")] = None,
    original_length: Annotated[str | None, Option(help="Tokens of the trained window.")] = None,
    length: Annotated[str | None, Option(help="Tokens to extend to, such as 64k.")] = None,
    input_length: Annotated[
        str | None, Option(help="Tokens of the input, where the encoding depends on it.")
    ] = None,
    factor: Annotated[float | None, Option(help="Instead of --length.")] = None,
    factors: Annotated[str | None, Option(help="A file of LongRoPE's factors.")] = None,
    as_json: Json = False,
) -> None:
    """Say what a method or a task is; with a rotary embedding given, what a method makes of it.

    `harness show recipe METHOD/RECIPE` prints the training that a method was published with.
    """
    from harness.lengths import one
    from harness.plugins import named
    from harness.show import recipe
    from harness.show import show as described

    if name == "recipe" or of is not None:
        about = recipe(name, of)
        print(json.dumps(about, indent=2, ensure_ascii=False) if as_json else _readable(about))
        return
    for flag, value in {"--head-dim": head_dim, "--theta": theta}.items():
        if value is not None and value <= 0:
            raise ValueError(f"{flag} must be above zero, and {value:g} is not.")
    about = described(
        named(name),
        head_dim=head_dim,
        theta=theta,
        original_length=one(original_length, "--original-length") if original_length else None,
        length=one(length, "--length") if length else None,
        input_length=one(input_length, "--input-length") if input_length else None,
        factor=factor,
        factors=factors,
    )
    print(json.dumps(about, indent=2, ensure_ascii=False) if as_json else _readable(about))


def results(
    context: typer.Context,
    form: Annotated[
        Literal["table", "json", "csv", "markdown"], Option("--format", help="How to print.")
    ] = "table",
    where: Where = None,
    folder: Folder = Path("results"),
    page: Annotated[
        Path | None, Option(help="Make the tables anew between the marks of this file instead.")
    ] = None,
    check: Annotated[
        bool, Option("--check", help="With --page: change nothing, exit with 1 if it is behind.")
    ] = False,
) -> None:
    """Print what was measured.

    A page holds tables between <!-- table:NAME CONDITIONS --> and <!-- /table:NAME -->, with the
    conditions of --where.
    """
    context.obj = folder
    if verb := context.invoked_subcommand:
        if where or page or check or form != "table":
            raise ValueError(
                f"Flags go behind the word {verb}: harness results {verb} --help says which it has."
            )
        return
    if check and not page:
        raise typer.BadParameter("--check is for --page")
    if page and (where or form != "table"):
        raise typer.BadParameter("--page has its conditions in its marks, and tables in markdown")
    if page:
        raise typer.Exit(refresh(page, folder, check))
    from harness.report import table
    from harness.report.sheet import sheets

    found = _found(folder, where)
    if form == "json":
        print(json.dumps(table.rows(found), indent=2, allow_nan=False))
    elif form == "csv":
        print(table.commas(found), end="")
    elif form == "markdown":
        print(table.markdown(sheets(found)), end="")
    else:
        table.printed(sheets(found), table.console())


def doctor(as_json: Json = False) -> None:
    """Say what this machine has, which kernel it will use, and what is missing."""
    from harness.doctor import checks

    found = checks()
    if as_json:
        print(json.dumps([check.__dict__ for check in found], indent=2, ensure_ascii=False))
        return
    widest = max(len(check.name) for check in found)
    for check in found:
        print(f"{'ok' if check.ok else '--'}  {check.name:{widest}}  {check.found}")
        if check.get:
            print(f"    {'':{widest}}  {check.get}")


def existing(folder: Path) -> Path:
    """The folder, if results are kept in it; see `harness.disk.existing`."""
    from harness import disk

    return disk.existing(folder)


def not_all_broken(folder: Path, count: int, broken: "Sequence[Broken]") -> None:
    """See that something can be read; files that are no results are named on standard error.

    Raises:
        ValueError: nothing there is a result.
    """
    tell_skipped(broken)
    if broken and not count:
        raise ValueError(f"No file in {str(folder)!r} can be read as a result.")


def tell_skipped(broken: "Sequence[Broken]") -> None:
    """Say on standard error what was skipped."""
    for file in broken:
        print(f"note: {file}", file=sys.stderr)


def _found(folder: Path, where: str | None) -> "list[Result]":
    """The results meant; files that are none are named on standard error."""
    from harness import archive

    found = archive.found(existing(folder), where)
    not_all_broken(folder, len(found.results) or found.among, found.broken)
    if not found.results:
        print(f"note: none of the {found.among} results here matches", file=sys.stderr)
    return found.results


def readme_of(folder: Path) -> Path | None:
    """The README.md beside a folder of results, unless it shows the leaderboard of another."""
    from harness.disk import text_of

    readme = folder.resolve().parent / "README.md"
    text = text_of(readme)
    if text is None:
        return None
    own = f"({folder.resolve().name}/LEADERBOARD.md)" in text
    return readme if own or "/LEADERBOARD.md)" not in text else None


def refresh(page: Path, folder: Path, check: bool) -> int:
    from harness.report.sheet import sheets
    from harness.report.table import markdown, refreshed

    before = page.read_text("utf-8")

    def made(where: str | None) -> str:
        if found := _found(folder, where):
            return markdown(sheets(found))
        raise ValueError(f"{page} has a table of results that are not in {str(folder)!r}: {where}.")

    return settle({page: refreshed(before, made)}, check)


def _said(value: Any) -> str:
    """As it is written in a spec, where it can be."""
    from harness.catalog import written

    return "none" if value is None else written(value) or "''"


def _number(value: Any) -> str:
    """As it is read best: 4,194,304."""
    if isinstance(value, list):
        return ", ".join(map(_number, value)) or "none"
    return f"{value:,}" if isinstance(value, int) else _said(value)


def _readable(about: dict[str, Any]) -> str:
    return "\n".join(_paragraphs(about))


def _paragraphs(about: dict[str, Any]) -> Iterable[str]:
    for key, value in about.items():
        name = key.replace("_", " ")
        if key == "parameters":
            yield f"{name}:" + ("" if value else " none")
            for parameter, said in value.items():
                value = _said(said["value"])
                yield f"  {parameter} = {value}  ({said['type']}) {said['doc']}".rstrip()
        elif key == "numbers":
            for number, said in value.items():
                if said["value"] == "":
                    continue
                yield f"{number.replace('_', ' ')}: {_number(said['value'])}"
                yield f"    {said['source'] or 'no source is given'}"
        elif key == "disagreements":
            yield from ["where sources disagree:"] if value else []
            yield from (f"  - {line}" for line in value)
        elif isinstance(value, list):
            yield f"{name}: {', '.join(f'{v:.6g}' if isinstance(v, float) else v for v in value)}"
        elif isinstance(value, float):
            yield f"{name}: {value:.12g}"
        elif isinstance(value, bool):
            yield f"{name}: {'yes' if value else 'no'}"
        elif value is not None:
            yield f"{name}: {value}"
