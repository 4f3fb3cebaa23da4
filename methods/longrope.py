"""LongRoPE: a divisor for each pair of channels, found by search.

Ding et al. 2024, https://arxiv.org/abs/2402.13753. Where no search has been made for a model, the
search's starting point stands in, and a notice says so.

The package has the authors' factors for two models that were fine-tuned with them, to be named as
factors=NAME: llama-2-7b-128k, llama-2-7b-256k, mistral-7b-128k, mistral-7b-256k; and of a second
search, without training, with how far they reach after it: llama-2-7b-256k-2048k, -1024k and
-512k, likewise for the others, and -256k for those of 128k. They are no factors for a base model.
toy-longrope is this project's, for its toy.

Factors that serve a long input cost a short one: a file may hold others for short inputs under
"short", a list of {"up_to": 8192, "factors": [...], "start_tokens": 0}. Which are used is fixed by
the cell's length, and never changes within an input.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from math import inf, log, sqrt
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from harness import contents
from harness.disk import parsed
from harness.method import Recipe
from harness.rope import Encoding, Rope, yarn_attention_factor
from harness.rotary import RotaryMethod

PACKAGED = files(__package__) / "factors"
ENCODING = "utf-8-sig"
"""Of factors' files: UTF-8, with or without the mark that some editors begin with."""

PAPER = Recipe(
    sequence_length=131072,
    steps=400,
    batch_tokens=32 * 131072,
    learning_rate=2e-5,
    schedule="linear",
    factor=32,
    data="RedPajama, in segments of 128k between start and end tokens",
    sources={
        "sequence_length": "section 4.1, of LLaMA-2 (not re-checked)",
        "steps": "section 4.1 (not re-checked)",
        "batch_tokens": "section 4.1: 32 sequences (not re-checked)",
        "learning_rate": "section 4.1 (not re-checked)",
        "schedule": "section 4.1 (not re-checked)",
        "warmup": "the paper names none (not re-checked)",
        "weight_decay": "the paper is silent",
        "betas": "the paper is silent",
        "clip": "the paper is silent",
        "factor": "128k over LLaMA-2's 4,096 (not re-checked)",
        "trains": "section 4.1: all weights (not re-checked)",
        "data": "section 4.1 (not re-checked)",
        "seed": "the paper is silent",
    },
    disagreements=(
        "The repository holds the search alone, and no training.",
        "Here a start token stands before each document, and no end token behind it; documents "
        "run on from one sequence to the next.",
    ),
)
LONGER = replace(
    PAPER,
    sequence_length=262144,
    steps=600,
    batch_tokens=32 * 262144,
    factor=64,
    data="the same in segments of 256k, from the model that was trained at 128k",
    sources={
        **PAPER.sources,
        "sequence_length": "section 4.1 (not re-checked)",
        "steps": "section 4.1: so many more, from the model of 128k (not re-checked)",
        "factor": "256k over LLaMA-2's 4,096, with factors of a second search (not re-checked)",
    },
)


@dataclass(frozen=True, kw_only=True)
class LongRoPE(RotaryMethod):
    formula = (
        "theta'_i = theta_i / lambda_i, but theta_i at the first n-hat positions; "
        "cos and sin times sqrt(1 + ln s / ln L0) elsewhere"
    )
    paper = "Ding et al. 2024, https://arxiv.org/abs/2402.13753"
    recipes: ClassVar[Mapping[str, Recipe]] = {"paper": PAPER, "256k": LONGER}

    factors: str = ""
    """A packaged file's name, or a path: a JSON list, a JSON object with "factors" and maybe
    "start_tokens", or numbers between commas or lines. Empty: the checkpoint's own, else those
    packaged under the model's name, else the start of the search. Results name a file by its
    content: factors@1a2b3c4d."""
    start_tokens: int | None = None
    """n-hat: so many first positions keep their rotation; None: as the factors' file says, or 0."""
    attention: Literal["su", "yarn"] = "su"
    """What cos and sin are multiplied by. su: sqrt(1 + ln s / ln L0); yarn: 0.1 ln s + 1."""
    start: Literal["yarn", "official"] = "yarn"
    """Where the search starts: YaRN's divisors 1 / (m + (1 - m) / s), or, as the published code
    has it, m + (1 - m) s, whose m counts turns in a sliding window if there is one, and from other
    limits for Mistral."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.start_tokens is not None and self.start_tokens < 0:
            raise ValueError(f"start_tokens must be 0 or more, not {self.start_tokens}.")
        if self.factors:
            _read(self.factors)  # a file that cannot be read is said before anything runs

    def frequencies(self, rope: Rope, scale: float) -> Tensor:
        return rope.frequencies / self.divisors(rope, scale)

    def attention_factor(self, rope: Rope, scale: float) -> float:
        if self.attention == "yarn":
            return yarn_attention_factor(scale)
        return sqrt(1 + log(scale) / log(rope.original_length))

    def divisors(self, rope: Rope, scale: float) -> Tensor:
        """The lambda_i, (dim/2,), float64.

        Raises:
            ValueError: there are too few or too many for this model, or one is below 1.
        """
        return self._divisors(rope, scale, *self.found(rope))

    def _divisors(
        self, rope: Rope, scale: float, source: str, found: dict[str, Any] | None
    ) -> Tensor:
        if found is None:
            return self.started(rope, scale)
        divisors = found["factors"]
        if len(divisors) != rope.dim // 2:
            raise ValueError(
                f"{source} holds {len(divisors)} factors, and this model takes {rope.dim // 2}, "
                "one for each pair of channels that rotate."
            )
        for index, divisor in enumerate(divisors):
            if not 1 <= divisor < inf:
                raise ValueError(
                    f"Factor {index} of {source} is {divisor:g}, and must be 1 or more."
                )
        return torch.tensor(divisors, dtype=torch.float64)

    def started(self, rope: Rope, scale: float) -> Tensor:
        """The divisors from which the search starts, (dim/2,)."""
        if self.start == "official":
            turning = replace(rope, original_length=rope.window or rope.original_length)
            kept = turning.kept(*((128, 2) if rope.family == "mistral" else (32, 1)))
            return kept + (1 - kept) * scale
        kept = rope.kept(32, 1)
        return 1 / (kept + (1 - kept) / scale)

    def encoding(self, rope: Rope, length: int) -> Encoding:
        scale, (source, found) = self.scale(rope, length), self._for(rope, length)
        start = (found or {}).get("start_tokens", 0)
        if self.start_tokens is not None:
            start = self.start_tokens
        whole = self.encoded(rope, self._divisors(rope, scale, source, found), start, scale)
        if source == OWN and rope.factors:
            return replace(whole, attention_factor=rope.factors.attention_factor)
        return whole

    def encoded(
        self, rope: Rope, factors: Sequence[float] | Tensor, start_tokens: int, scale: float
    ) -> Encoding:
        """The encoding with these divisors, (dim/2,), and this n-hat: what a search tries out."""
        return Encoding(
            frequencies=rope.frequencies / torch.as_tensor(factors, dtype=torch.float64),
            attention_factor=self.attention_factor(rope, scale),
            start_tokens=start_tokens,
            original=rope.frequencies,
        )

    @property
    def depends_on_length(self) -> bool:
        return bool(self.factors and _read(self.factors).get("short"))

    def follows(self, model: nn.Module) -> bool:
        return bool((self.found(Rope.of(model))[1] or {}).get("short"))

    def scale(self, rope: Rope, length: int) -> float:
        """As given; a file that has factors for short inputs too serves all with its own s.

        A checkpoint's own factors are for the s that it was trained for, whatever is given.
        """
        if not self.factors and rope.factors:
            return rope.factors.scale
        if self.factor is None and self.depends_on_length:
            made_for = _read(self.factors).get("factor")
            return float(made_for) if made_for else super().scale(rope, length)
        return super().scale(rope, length)

    def made_for(self, model: nn.Module) -> float | None:
        """As given, else as far as the factors were searched for."""
        source, found = self.found(Rope.of(model))
        searched = (found or {}).get("factor")
        given = None if source == OWN else self.factor
        return given or (float(searched) if searched else None)

    def files(self, model: nn.Module) -> dict[str, str]:
        source, found = self.found(Rope.of(model))
        return {} if found is None or source == OWN else {"factors": json.dumps(found)}

    def by_content(self) -> dict[str, str]:
        if not self.factors or self.factors in _packaged() or contents.find(self.factors):
            return {}
        place = Path(self.factors)
        text = place.read_text(ENCODING)
        return {"factors": contents.keep(re.sub("[,@]", "-", place.stem), text)}

    def native(self, rope: Rope, length: int) -> dict[str, Any]:
        scale = self.scale(rope, length)
        reads = (rope.original_length, length)
        if start := max(self.encoding(rope, n).start_tokens for n in reads):
            raise LookupError(
                f"transformers' LongRoPE cannot leave the first {start} tokens unscaled: export "
                "with --method longrope,start_tokens=0, and measure it so."
            )
        short, long = (self._divisors(rope, scale, *self._for(rope, n)) for n in reads)
        return rope.divided(long, self.encoding(rope, length).attention_factor, scale, short)

    def remark(self, rope: Rope, length: int) -> str | None:
        if self.found(rope)[0] == OWN:
            return (
                "LongRoPE's factors are the checkpoint's own, for "
                f"s = {self.scale(rope, length):g}: factor, attention and start change nothing."
            )
        said = super().remark(rope, length), self._guess(rope), self._doubt(rope, length)
        return " ".join(filter(None, said)) or None

    def _guess(self, rope: Rope) -> str | None:
        """That the model's name alone chose a published file, where it did."""
        source, found = self.found(rope)
        if self.factors or "about" not in (found or {}):
            return None
        return f"By its name this model gets {source}'s factors: right if fine-tuned with them."

    def _doubt(self, rope: Rope, length: int) -> str | None:
        source, found = self.found(rope)
        if found is None:
            return (
                f"No searched factors are known for this model{_but_for(rope.model)}, so the start "
                f"of LongRoPE's search ({source}) stands in; give a file as longrope,factors=FILE."
            )
        made_for, scale = found.get("factor"), self.scale(rope, length)
        target = found.get("target")
        window = target / made_for if made_for and isinstance(target, int) else rope.original_length
        if abs(window / rope.original_length - 1) > 0.01:
            return (
                f"{source} counts s from {window:,.0f} tokens, and this model's configuration from "
                f"{rope.original_length:,}, on which the scale of attention depends: write "
                f"original_max_position_embeddings {window:.0f} into its rope_parameters."
            )
        if made_for and float(made_for) != scale:
            return f"{source} was searched for s = {made_for:g}, and is used at {scale:g}."
        if made_for and length > made_for * rope.original_length:
            reach = round(made_for * rope.original_length)
            return f"{source} was searched for {reach:,} tokens, and reads {length:,}."
        return None

    def resolved(self, rope: Rope, length: int) -> dict[str, Any]:
        scale = self.scale(rope, length)
        factor = {"factor": scale} if self.found(rope)[0] == OWN else {}
        return (
            super().resolved(rope, length)
            | factor
            | {
                "factors": self._divisors(rope, scale, *self._for(rope, length)).tolist(),
                "factors_from": self.found(rope)[0],
                "start_tokens": self.encoding(rope, length).start_tokens,
            }
        )

    def found(self, rope: Rope) -> tuple[str, dict[str, Any] | None]:
        """Where the factors are from, and they; None where only the start of a search is known."""
        if self.factors:
            return self.factors, _read(self.factors)
        if own := rope.factors:
            short = {"up_to": rope.original_length, "factors": list(own.short)}
            return OWN, {"factors": list(own.long), "factor": own.scale, "short": [short]}
        if rope.model in _packaged():
            return rope.model, _read(rope.model)
        return self.start, None

    def _for(self, rope: Rope, length: int) -> tuple[str, dict[str, Any] | None]:
        """The same for inputs of this length: the shortest part that reaches it."""
        source, found = self.found(rope)
        reaching = [part for part in (found or {}).get("short", []) if length <= part["up_to"]]
        return source, min(reaching, key=lambda part: part["up_to"], default=found)


OWN = "the checkpoint's own"


def _packaged() -> list[str]:
    """The models whose factors come with this package."""
    if not PACKAGED.is_dir():
        return []
    return sorted(f.name.removesuffix(".json") for f in PACKAGED.iterdir() if ".json" in f.name)


def _but_for(model: str) -> str:
    """That there are factors for what was fine-tuned from it, if there are."""
    kin = [name for name in _packaged() if _based_on(name, model)]
    return f" as it is (those packaged as {kin[0]} are for one fine-tuned with them)" if kin else ""


def _based_on(name: str, model: str) -> bool:
    return str(_read(name).get("model", "")).lower().endswith(f"/{model}")


def _read(name: str) -> dict[str, Any]:
    """The factors of a packaged file or of a path.

    Raises:
        ValueError: there is no such file, or it holds something else.
    """
    if name in _packaged():
        text = (PACKAGED / f"{name}.json").read_text(ENCODING)
    elif (held := contents.find(name)) is not None:
        text = held
    else:
        try:
            text = Path(name).read_text(ENCODING)
        except (OSError, UnicodeDecodeError) as error:
            known = ", ".join(_packaged()) or "none"
            raise ValueError(
                f"No factors can be read from {name!r} ({type(error).__name__}). "
                f"Give a file, or a packaged name: {known}."
            ) from None
    try:
        held = (
            parsed(text, name)
            if text.lstrip()[:1] in ("[", "{")
            else text.replace(",", " ").split()
        )
        held = held if isinstance(held, dict) else {"factors": held}
        short = [{**_part(part), "up_to": int(part["up_to"])} for part in held.get("short", [])]
        return _part(held) | {"short": short}
    except (ValueError, TypeError, KeyError):
        raise ValueError(
            f'{name} holds no factors: it must be a JSON list, an object with "factors" and '
            'maybe numbers as "factor" and "start_tokens", or numbers between commas.'
        ) from None


def _part(held: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError, TypeError, KeyError: it is no factors, or says of them what cannot be."""
    part = held | {"factors": [float(factor) for factor in held["factors"]]}
    if held.get("factor") is not None:
        part["factor"] = float(held["factor"])
        if not 1 <= part["factor"] < inf:
            raise ValueError("s is 1 or more")
    if held.get("start_tokens") is not None:
        part["start_tokens"] = int(held["start_tokens"])
        if part["start_tokens"] < 0:
            raise ValueError("n-hat is 0 or more")
    return part


method = LongRoPE()
