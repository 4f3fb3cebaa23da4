"""The first file of a method or a task of one's own: it runs at once, and keeps every law."""

import keyword
import re
from pathlib import Path
from typing import Literal

from harness import catalog

METHOD = '''\
"""{Name}: say in a line what it does to the rotary embedding.

Who found it, and where: authors, year, https://...
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.rope import Rope
from harness.rotary import RotaryMethod


@dataclass(frozen=True, kw_only=True)
class {Name}(RotaryMethod):
    formula = "theta'_i = theta_i / s^(strength x_i), x_i from 0 (fast) to 1 (slow)"
    paper = "unpublished, https://example.org"

    strength: float = 1.0
    """How much of the scale the slowest channel gets: 1 all of it, 0 nothing."""

    def frequencies(self, rope: Rope, scale: float) -> Tensor:
        """Radians a token, the fastest channel first; (dim / 2,), float64."""
        own = rope.frequencies
        slowness = torch.linspace(0, 1, len(own), dtype=own.dtype)
        return own / scale ** (self.strength * slowness)


method = {Name}()
'''
TASK = '''\
"""{Name}: say in a line what it asks.

Who asked it first, and where: authors, year, https://...
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from harness.stats import wilson
from harness.task import Outcome, Reader, Request, Sample, Score, Task, Verdict

HAY = "The grass is green. The sky is blue. The sun is yellow. Here we go. "
FACT = "\\nThe door key is {{code}}. Remember it. {{code}} is the door key.\\n"
QUESTION = "\\nWhat is the door key? The door key is"


@dataclass(frozen=True, kw_only=True)
class {Name}(Task):
    metric = "accuracy"
    counts = "the code and the full stop behind it, said at once"
    max_new_tokens = 10

    samples: int = 10
    """Questions at each length."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError("{Name} needs at least 1 sample.")

    def requests(self, reader: Reader, length: int) -> Iterator[Request]:
        hay, question = reader.tokens(HAY * (length // 8)), reader.tokens(QUESTION)
        for i in range(self.samples):
            draw = Random(f"{{length}} {{i}}")  # the same questions, today and next year
            code = draw.randint(10_000, 99_999)
            fact, answer = reader.tokens(FACT.format(code=code)), reader.tokens(f" {{code}}.")
            room = length - 1 - len(fact) - len(question)
            if room < 0:
                raise ValueError(f"{Name} needs lengths of at least {{length - room:,}} tokens.")
            before = draw.randint(0, room)
            tokens = [reader.bos, *hay[:before], *fact, *hay[: room - before], *question]
            yield Request(
                id=f"question-{{i}}",
                tokens=np.array(tokens, dtype=np.int64),
                ask=Verdict(answer=tuple(answer)),
                about={{"code": str(code)}},
            )

    def grade(self, request: Request, outcome: Outcome, reader: Reader) -> Sample:
        right = tuple(outcome) == request.ask.answer
        said = reader.text(outcome)
        return Sample(id=request.id, score=float(right), about=request.about, answer=said)

    def score(self, samples: Sequence[Sample]) -> Score:
        hits, n = sum(sample.score for sample in samples), len(samples)
        low, high = wilson(hits, n)
        return Score(value=hits / n, low=low, high=high, n=n)


task = {Name}()
'''
TRY = {
    "method": "harness run --method none,{file} --task passkey --lengths 4k,8k --samples 1",
    "task": "harness run --method none,yarn --task {file} --lengths 4k,8k",
}


def write(kind: Literal["method", "task"], name: str, folder: Path) -> Path:
    """Write the file, and say where it is.

    Raises:
        ValueError: the name cannot be a file's or a class's, something has it, or it is there.
        OSError: the folder takes no file.
    """
    stem = name.replace("-", "_").removesuffix(".py")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", stem) or keyword.iskeyword(stem):
        raise ValueError(
            f"{name!r} cannot name a {kind}: begin with a letter, and go on with small letters, "
            "digits and dashes, as in my-rope."
        )
    kinds: tuple[catalog.Kind, ...] = ("methods", "tasks")
    if taken := [k for k in kinds if stem.replace("_", "-") in catalog.names(k)]:
        raise ValueError(f"{name} is a name in harness list {taken[0]} already: take another.")
    title = "".join(part.capitalize() for part in stem.split("_"))
    text = {"method": METHOD, "task": TASK}[kind]
    if re.search(rf"\b{title}\b", text):
        raise ValueError(f"A class {title} would hide what its own file needs: take another name.")
    file = folder / f"{stem}.py"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text.format(Name=title))
    except FileExistsError:
        raise ValueError(
            f"{file} is there already: take another name, or another folder with --into."
        ) from None
    return file


def attempt(kind: Literal["method", "task"], file: Path) -> str:
    """The command that tries it."""
    place = str(file) if file.is_absolute() else f"./{file.as_posix()}"
    return TRY[kind].format(file=place)
