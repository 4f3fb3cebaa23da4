"""`harness export`: an extended model as a checkpoint that plain transformers reads."""

import json
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

EXAMPLES = (
    "harness export my-yarn --to my-yarn-hf\n\n"
    "harness export smollm2-135m --method yarn,factor=4 --to smollm2-32k\n\n"
    "harness export toy --method longrope --length 16k --to toy-16k"
)
HELP = (
    "Write an extended model as a Hugging Face checkpoint, and check that it is the same model.\n\n"
    "The encoding goes into config.json in transformers' own words, where it has them, so that "
    "vLLM, SGLang and llama.cpp can read it too. The folder's PARITY.md and parity.json compare "
    "its logits, by plain transformers, with the engine's. Exits with 0, with 1 if they differ "
    "(the folder stays), with 2 if the command is wrong."
)


def export(
    source: Annotated[
        str, typer.Argument(help="A folder of `harness train`, or any model's name or folder.")
    ],
    to: Annotated[Path, Option("--to", metavar="DIR", help="The folder to write.")],
    method: Annotated[
        str | None,
        Option("--method", "-m", metavar="NAME", help="Such as yarn,factor=4; else as trained."),
    ] = None,
    length: Annotated[
        str | None,
        Option("--length", "-l", metavar="N", help="Tokens it is to read, such as 32k."),
    ] = None,
    dtype: Annotated[
        str | None, Option(metavar="NAME", help="bfloat16, float16 or float32; else as it is.")
    ] = None,
    check_length: Annotated[
        str | None,
        Option(metavar="N", help="Tokens to compare; else as many as take some seconds."),
    ] = None,
    corpus: Annotated[
        str, Option(metavar="CORPUS", help="The text to compare on: `list corpora`.")
    ] = "stdlib",
    as_json: Annotated[bool, Option("--json", help="Print parity.json.")] = False,
    trust_remote_code: Annotated[
        bool, Option("--trust-remote-code", help="Run code that comes with a model.")
    ] = False,
) -> None:
    """Write an extended model as a Hugging Face checkpoint, and check that it is the same model."""
    from harness.export import export as write
    from harness.export.card import summary

    done = write(
        source,
        to,
        method=method,
        length=_length("--length", length),
        dtype=dtype,
        check_length=_length("--check-length", check_length),
        corpus=corpus,
        trust_remote_code=trust_remote_code,
    )
    if as_json:
        print(json.dumps(done.facts, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        facts = done.facts
        rope = facts["rope_parameters"]["rope_type"]
        print(f"{to} reads {facts['length']:,} tokens by {facts['method']}, rope type {rope}.")
        print(summary(done.parity))
    if not done.parity.passed:
        typer.echo(
            f"harness: {to} is not the model that was measured; see its PARITY.md.", err=True
        )
        raise typer.Exit(1)


def _length(flag: str, text: str | None) -> int | None:
    from harness.lengths import one

    return None if text is None else one(text, flag)
