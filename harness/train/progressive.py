"""LongRoPE's progressive extension: search, train, search further, then win short inputs back.

Ding et al. 2024, https://arxiv.org/abs/2402.13753, section 3.3: a model is searched and trained at
lengths that training can bear, and what it has learned then carries a last search, without
training, to the final length. That costs short inputs, which get factors of their own.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from harness import catalog, machine
from harness.disk import read_json
from harness.lengths import label
from harness.model import describe
from harness.search.search import prepare
from harness.search.wish import Watch, Wish

Train = Callable[[str, str, int, Path], None]
"""Trains a model with a method's spec at a length into a folder, whole or to be gone on with."""

USUAL = "paper"
"""The recipe of a stage for whose length the method has none."""


class Extended(NamedTuple):
    """What came of it."""

    model: str
    """The last trained model's folder."""
    factors: Path


def extend(
    wish: Wish,
    folder: Path,
    *,
    through: Sequence[int],
    short: Sequence[int] = (),
    train: Train,
    watching: Callable[[], AbstractContextManager[Watch]],
    note: Callable[[str], None] = lambda said: None,
) -> Extended:
    """Extend a model in stages; what of them was made before, for the same wish, is not again.

    Args:
        wish: the last search: its target is the final length, its model the base.
        folder: gets `LENGTH.json` and `trained-LENGTH/` of each middle length, and `factors.json`.
        through: middle lengths, at which the model is searched and trained, in this order.
        short: lengths up to which inputs get factors of their own.
        train: makes a stage's training.
        watching: makes the watch of a search.
        note: told what each stage does.

    Raises:
        ValueError: the lengths do not rise to the target, the folder cannot be made, or it holds
            what another wish has made.
    """
    _check(wish, through, short)
    catalog.extended(wish.method, {"factors": str(folder)})  # it must do for a method's parameter
    if not folder.parent.is_dir():
        raise ValueError(f"There is no folder {folder.parent}: make it, or give another --output.")
    folder.mkdir(exist_ok=True)

    def search(asked: Wish, said: str) -> None:
        note(f"searching factors of {asked.model} for {said}{asked.target:,} tokens")
        with watching() as watch:
            prepare(asked).run(watch)
        machine.let_go()  # the model is read again in the training's own process

    model, method = wish.model, wish.method
    for length in through:
        factors, into = folder / f"{label(length)}.json", folder / f"trained-{label(length)}"
        search(replace(wish, model=model, method=method, target=length, output=factors), "")
        method = _with(wish.method, factors)
        note(f"training {model} with {method} into {into}")
        train(model, method, length, into)
        model = str(into)
    last = folder / "factors.json"
    search(replace(wish, model=model, method=method, output=last), "")
    for length in short:
        asked = replace(wish, model=model, target=length, output=None, append=last)
        search(asked, "inputs up to ")
    return Extended(model, last)


def by_command(wish: Wish, more: Sequence[str]) -> Train:
    """Trains by `harness train`, in a process of its own, as was wished and with further words.

    Of the recipe that is published for the stage's length, or the paper's with as many sequences an
    update as it has, unless the words name one.
    """
    how = ["--device", wish.device, "--dtype", wish.dtype, "--seed", str(wish.settings.seed)]
    how += ["--trust-remote-code"] if wish.trust_remote_code else []
    said = {word.partition("=")[0] for word in more}

    def train(model: str, method: str, length: int, into: Path) -> None:
        words = ["--model", model, "--method", method, "--sequence-length", str(length)]
        recipe = [] if "--recipe" in said else _recipe(method, length, "--batch-tokens" not in said)
        words += ["--output", str(into), *how, *recipe, *more]
        command = [sys.executable, "-P", "-m", "harness", "train", *words]
        if code := subprocess.run(command, check=False).returncode:
            raise ValueError(
                f"The training into {into} ended with exit code {code}, for the reason above; "
                "the same command goes on from there."
            )

    return train


def _recipe(method: str, length: int, batched: bool) -> list[str]:
    """Words for a stage's recipe; `batched`: with one for its tokens an update."""
    recipes = catalog.load("methods", method).recipes
    fitting = (name for name, it in recipes.items() if it.sequence_length == length)
    name = next(fitting, USUAL)
    if name not in recipes or not batched:
        return ["--recipe", name]
    sequences = recipes[name].batch_tokens // recipes[name].sequence_length
    return ["--recipe", name, "--batch-tokens", str(sequences * length)]


def _check(wish: Wish, through: Sequence[int], short: Sequence[int]) -> None:
    if not through or [*through, wish.target] != sorted({*through, wish.target}):
        raise ValueError(
            f"Lengths to train at rise, and end below the target of {wish.target:,}: "
            f"{', '.join(map(str, through)) or 'none'} do not."
        )
    if any(length >= wish.target for length in short):
        raise ValueError(f"Short inputs end below the target of {wish.target:,}.")
    least = describe(wish.model, trust_remote_code=wish.trust_remote_code).original_length
    if low := [length for length in (*through, *short) if length < least]:
        raise ValueError(
            f"{wish.model} was trained on {least:,} tokens, and a search for {min(low):,} would "
            "not extend it: take longer lengths."
        )


def _with(spec: str, factors: Path) -> str:
    """The method with these factors, at the s they were searched for."""
    made_for = read_json(factors)["factor"]
    return catalog.extended(spec, {"factors": str(factors), "factor": float(made_for)})
