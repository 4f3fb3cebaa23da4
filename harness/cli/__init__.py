"""The command line: parse, call, print. What a person can cause is caught here, and only here."""

import sys
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli import (
    archive,
    cell,
    chat,
    compare,
    data,
    docs,
    explain,
    export,
    leaderboard,
    lmeval,
    look,
    models,
    new,
    pages,
    plan,
    published,
    report,
    run,
    score,
    search,
    table,
    train,
)

ELSEWHERE = {
    "methods": "method",
    "models": "model",
    "tasks": "task",
    **dict.fromkeys(("limit", "num-samples", "n-samples"), "samples"),
    **dict.fromkeys(("max-length", "context-length", "max-seq-length"), "lengths"),
    **dict.fromkeys(("output-path", "output-dir", "save-dir"), "results"),
}
"""Flags of other programs of the field, and what is here for the same."""


def _dashed(name: str) -> str:
    """`no_context` is `no-context`, as it is in Python and in a grid's file."""
    return name.replace("_", "-")


app = typer.Typer(
    help="Measure how far a method lets a pretrained transformer read.",
    epilog=(
        "harness run --method longrope --task passkey --lengths 4k-32k\n\n"
        "harness list methods\n\n"
        "harness results --where 'task=passkey length>=16k'"
    ),
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": _dashed},
)
app.command("run", help=run.HELP, epilog=run.EXAMPLES)(run.run)
app.command("plan", help=plan.HELP, epilog=plan.EXAMPLES)(plan.plan)
app.command("run-cell", help=cell.HELP, epilog=cell.EXAMPLES)(cell.run_cell)
app.command("list", epilog=look.LIST_EXAMPLES)(look.list_)
app.command("models", help=models.HELP, epilog=models.EXAMPLES)(models.models)
app.command("show", epilog=look.SHOW_EXAMPLES)(look.show)
app.command("score", help=score.HELP, epilog=score.EXAMPLES)(score.score)
app.add_typer(archive.results, name="results")
app.command("query", epilog=archive.QUERY_EXAMPLES)(archive.query)
app.command("explain", epilog=explain.EXPLAIN_EXAMPLES)(explain.explain)
app.command("diff", epilog=explain.DIFF_EXAMPLES)(explain.diff)
app.command("rerun", help=explain.RERUN_HELP, epilog=explain.RERUN_EXAMPLES)(explain.rerun)
app.command("published", help=published.HELP, epilog=published.EXAMPLES)(published.published)
app.command("compare", help=compare.HELP, epilog=compare.EXAMPLES)(compare.compare)
app.command("plot", epilog=report.PLOT_EXAMPLES)(report.plot)
app.command("report", help=report.HELP, epilog=report.EXAMPLES)(report.report)
app.command("table", help=table.HELP, epilog=table.EXAMPLES)(table.table)
app.command("leaderboard", help=leaderboard.HELP, epilog=leaderboard.EXAMPLES)(
    leaderboard.leaderboard
)
app.command("pages", help=pages.HELP, epilog=pages.EXAMPLES)(pages.pages)
app.command("new", help=new.HELP, epilog=new.EXAMPLES)(new.new)
app.command("chat", help=chat.HELP, epilog=chat.EXAMPLES)(chat.chat)
app.command("docs", help=docs.HELP, epilog=docs.EXAMPLES)(docs.docs)
app.command("doctor", epilog=look.DOCTOR_EXAMPLES)(look.doctor)
app.add_typer(train.app, name="train")
app.command("search", help=search.HELP, epilog=search.EXAMPLES)(search.search)
app.add_typer(data.app, name="data")
app.command(
    "lm-eval",
    help=lmeval.HELP,
    epilog=lmeval.EXAMPLES,
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "allow_interspersed_args": False,
    },
)(lmeval.lm_eval)
app.command("export", help=export.HELP, epilog=export.EXAMPLES)(export.export)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("context-harness"))
        raise typer.Exit


@app.callback()
def _harness(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")
    ] = False,
    code: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Know the method or task of this file by its content."),
    ] = None,
) -> None:
    from harness.plugins import named

    for file in code or ():
        named(str(file))


def main(argv: list[str] | None = None) -> None:
    """Run the command line, and exit.

    0: done; 1: a cell failed; 2: a mistake; 130: interrupted; 141: who read its output left.
    """
    sys.exit(_code(sys.argv[1:] if argv is None else argv))


def _code(argv: list[str]) -> int:
    try:
        return command()(argv or ["--help"], prog_name="harness", standalone_mode=False) or 0
    except SystemExit as left:
        if isinstance(left.__context__, BrokenPipeError):
            return 141  # as the system has it, and not 1: no cell failed
        raise
    except Exception as error:
        message = _words(error)
        if not message:
            raise
    print(f"harness: {' '.join(message.split())}", file=sys.stderr)
    return 2


@cache
def command() -> Any:
    """What typer makes of the functions: once, however often a program calls `main`."""
    made = typer.main.get_command(app)
    _without_values(made)
    return made


def _without_values(verb: Any, above: Any = None) -> None:
    """Let nothing stand behind a flag in `--help`: typer writes <bool>, as if it took a value."""
    context = typer.Context(verb, parent=above, **verb.context_settings)
    for parameter in verb.get_params(context):
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    for inner in getattr(verb, "commands", {}).values():
        _without_values(inner, context)


def _words(error: Exception) -> str | None:
    """What a person can do something about, in a sentence; None: it is a fault of this program."""
    if isinstance(error, typer.TyperException):
        said = _called_otherwise(error) or error.format_message()
        return said.replace(": Value error, ", ": ")  # pydantic's, in typer's
    from harness.plugins import blamed

    if said := blamed(error):
        return said
    if isinstance(error, KeyError | IndexError):
        return None  # LookupErrors, but of a program: nobody typed them
    if isinstance(error, ModuleNotFoundError):
        return None if error.name else str(error)  # ours have a sentence and no name
    if isinstance(error, MemoryError | RuntimeError):
        return _words_of_a_machine(error)
    if not isinstance(error, ValueError | LookupError | OSError | FloatingPointError):
        return None
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'The system'}: {error.strerror}."
    return str(error)


def _called_otherwise(error: typer.TyperException) -> str | None:
    """Of a flag that this verb has by another name than other programs do."""
    name, context = getattr(error, "option_name", ""), getattr(error, "ctx", None)
    ours = f"--{ELSEWHERE.get(_dashed(name).lstrip('-'))}"
    flags = (parameter.opts for parameter in context.command.params) if context else ()
    known = any(ours in names for names in flags)
    return f"No such option: {name}. Here it is {ours}." if known else None


def _words_of_a_machine(error: Exception) -> str | None:
    """Of what a model would not do, or could not for want of memory."""
    from harness.engine.parallel import out_of_memory
    from harness.probe import NotOn

    if isinstance(error, NotOn):
        return str(error)
    said = str(error).strip().partition("\n")[0]
    if "home directory" in said:  # pathlib's, of ~nobody
        return "There is no such home folder: write ./~NAME for a file of that name."
    return f"It does not fit: {said or 'out of memory'}" if out_of_memory(error) else None
