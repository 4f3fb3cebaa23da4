"""`harness lm-eval`: lm-eval's own command line, with this project's models in it."""

import sys
from typing import Annotated

import typer

HELP = (
    "Run lm-eval's own command line; --model harness is a model of this project, a method on.\n\n"
    "Its --model_args are model, method, length, dtype, device, start_token, and what the method "
    "takes. Everything else is as `lm-eval --help` says. To have a task in the same tables as the "
    "long ones, take harness run --task lm-eval:NAME."
)
EXAMPLES = (
    "harness lm-eval run --model harness --model_args model=toy,method=yarn,factor=4,length=16k "
    "--tasks arc_easy --limit 100\n\n"
    "harness lm-eval ls tasks"
)


def lm_eval(
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGUMENTS...", help="Given on as they are.")
    ] = None,
) -> None:
    """Run lm-eval's command line."""
    from importlib.util import find_spec

    if find_spec("lm_eval") is None:
        raise ModuleNotFoundError(
            "lm-eval is not installed. Run: pip install 'context-harness[lm-eval]'"
        )
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.api.registry import model_registry

    if "harness" not in model_registry:
        model_registry.register("harness", target="harness.lmeval_model:HarnessLM")
    before, sys.argv = sys.argv, ["lm-eval", *(arguments or ["--help"])]
    try:
        cli_evaluate()
    finally:
        sys.argv = before
