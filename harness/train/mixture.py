"""A mixture: named parts, the share of tokens each has, and a folder of sequences made of them.

The sequences of the parts take turns so that after every one of them each part has had its share
to within a sequence: R. Tijdeman, The chairman assignment problem, Discrete Mathematics 32 (1980),
https://doi.org/10.1016/0012-365X(80)90269-1. So any beginning of a mixture is mixed alike, and
nothing needs to be in memory but the sequences that are being shuffled.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count, repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness import corpora, gridfile, nearest
from harness.reader import TokenReader
from harness.train.folder import Writer
from harness.train.packing import AsClex, Carried, Packed, Read, dtype, read

SHIPPED = Path(__file__).parent / "mixtures"
LEFT_OUT = "none"
"""In place of a part's corpus."""
SHUFFLED = 256
"""Sequences of a part that wait, so that which comes next is a matter of chance ..."""
WAITING = 2**24
"""... but never more tokens than this."""


class Part(BaseModel):
    """What a mixture has so much of."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    share: float = Field(gt=0, allow_inf_nan=False)
    """Beside the other parts' shares: they need not sum to anything."""
    corpus: str = Field(min_length=1)


class Mixture(BaseModel):
    """The words of a mixture file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parts: dict[str, Part] = Field(min_length=1)
    about: str = ""

    @property
    def shares(self) -> dict[str, Fraction]:
        """Of all tokens; they sum to one."""
        given = {name: Fraction(str(part.share)) for name, part in self.parts.items()}
        whole = sum(given.values())
        return {name: share / whole for name, share in given.items()}

    def replaced(self, corpora_by_part: Mapping[str, str]) -> "Mixture":
        """With other texts for some parts; a part whose corpus is `none` is left out.

        Raises:
            LookupError: it has no such part.
            ValueError: no part is left.
        """
        parts = dict(self.parts)
        for name, corpus in corpora_by_part.items():
            if name not in self.parts:
                raise LookupError(
                    f"The mixture has no part {name!r}.{nearest.hint(name, self.parts)} "
                    f"It has: {', '.join(self.parts)}."
                )
            if corpus == LEFT_OUT:
                del parts[name]
            else:
                parts[name] = parts[name].model_copy(update={"corpus": corpus})
        if not parts:
            raise ValueError("No part of the mixture is left: keep at least one.")
        return self.model_copy(update={"parts": parts})


def shipped() -> list[str]:
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def find(name: str) -> Mixture:
    """A mixture by its name or file, or a corpus as a mixture of one part.

    Raises:
        LookupError: there is none of this name.
        ValueError: its file is malformed; says where.
        OSError: its file cannot be read.
    """
    if name in shipped():
        return parse(SHIPPED / f"{name}.yaml")
    if name.endswith((".yaml", ".yml")):
        return parse(Path(name))
    if name.partition(":")[0] in corpora.KINDS:
        return Mixture(parts={"all": Part(share=1, corpus=name)})
    raise LookupError(
        f"No mixture named {name!r}.{nearest.hint(name, shipped())} There are: "
        f"{', '.join(shipped())}; or name a .yaml file, or a corpus such as stdlib:train."
    )


def parse(file: Path) -> Mixture:
    """Read a mixture file.

    Raises:
        ValueError: it is malformed or larger than people write; says where.
        OSError: it cannot be read.
    """
    words = gridfile.read(file, "mixture", "parts, each with share and corpus")
    try:
        return Mixture.model_validate(words)
    except ValidationError as error:
        raise ValueError(f"{file} {_said(error)}") from None


def _said(error: ValidationError) -> str:
    """The first thing that is wrong, in one sentence."""
    found = error.errors()
    first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
    *where, word = map(str, first["loc"])
    at = f" in {'.'.join(where)}" if where else ""
    if first["type"] == "extra_forbidden":
        known = Part.model_fields if where else Mixture.model_fields
        hint = nearest.hint(word, known)
        return f"has the unknown key {word!r}{at}.{hint} Known: {', '.join(known)}."
    if first["type"] == "missing":
        return f"misses {word!r}{at}."
    return f"has a wrong {word!r}{at}: {first['msg'].replace('Input should be', 'it must be')}."


def turns(shares: Sequence[Fraction]) -> Iterator[int]:
    """Whose turn it is, so that after each turn everyone has had their share to within one.

    Of those who are behind by `1 / (2k - 2)`, the one takes it who would first be late. Nobody is
    ever off by more than `1 - 1 / (2k - 2)`, and no order does better for all shares.
    """
    if len(shares) == 1:
        yield from repeat(0)
    slack = Fraction(1, 2 * len(shares) - 2)
    had = [0] * len(shares)
    for turn in count(1):
        behind = (i for i, share in enumerate(shares) if share * turn - had[i] >= slack)
        next_ = min(behind, key=lambda i: (had[i] + 1 - slack) / shares[i])
        had[next_] += 1
        yield next_


@dataclass
class Source:
    """A part while it is read."""

    name: str
    part: Part
    share: Fraction
    sequences: int = 0
    documents: int = 0
    """That begin in its sequences."""
    passes: int = 0
    """How often its text was read to the end."""

    def read(self, reader: TokenReader, again: bool) -> Iterator[Read]:
        """Its documents, and where wanted the same again without end."""
        corpus = corpora.find(self.part.corpus)
        while True:
            empty = True
            for document in read(corpus.every(), reader):
                empty = False
                yield document
            self.passes += 1
            if empty or not again:
                return


@dataclass(frozen=True, kw_only=True)
class Build:
    """What is to be built; the same build makes the same bytes."""

    name: str
    mixture: Mixture
    reader: TokenReader
    model: str
    """Whose tokenizer it is."""
    length: int
    tokens: int | None = None
    """At most; None: until a part has no more."""
    seed: int = 0
    again: bool = False
    """Read a part from its start again when it has no more."""
    packing: Literal["carried", "clex"] = "carried"
    watch: Callable[[Sequence[Source]], None] = field(default=lambda sources: None)
    """Called after each sequence."""

    def to(self, output: Path) -> dict[str, Any]:
        """Build it into a folder that is there when it is whole; returns its card.

        Raises:
            LookupError: a part's corpus is not there.
            ValueError: there is too little text or too much wanted, or the folder is there.
        """
        if self.again and self.tokens is None:
            raise ValueError("To read short parts again, say how many --tokens are enough.")
        if self.tokens is not None and self.tokens < self.length:
            raise ValueError(
                f"{self.tokens:,} tokens are less than one sequence of {self.length:,}: "
                "raise --tokens or lower --length."
            )
        for part in self.mixture.parts.values():
            corpora.find(part.corpus)
        sources = [
            Source(name, self.mixture.parts[name], share)
            for name, share in self.mixture.shares.items()
        ]
        with Writer(output, self.length, dtype(self.reader)) as writer:
            packers = [self._packer(place) for place in range(len(sources))]
            ended = self._fill(writer, sources, packers)
            if not writer.sequences:
                raise ValueError(self._too_short(sources, packers, ended))
            return writer.finish(self._card(sources, packers, ended))

    def _packer(self, place: int) -> Carried | AsClex:
        if self.packing == "carried":
            return Carried(self.length)
        return AsClex(self.length, SHUFFLED, np.random.default_rng([self.seed, place]))

    def _fill(
        self, writer: Writer, sources: list[Source], packers: list[Carried | AsClex]
    ) -> Source | None:
        """Write the sequences as they take turns; returns the part that had no more."""
        streams = [self._stream(*both) for both in enumerate(zip(sources, packers, strict=True))]
        for turn in turns([source.share for source in sources]):
            if self.tokens is not None and (writer.sequences + 1) * self.length > self.tokens:
                return None
            packed = next(streams[turn], None)
            source = sources[turn]
            if packed is None:
                return source
            writer.write(packed, turn)
            source.sequences += 1
            source.documents += len(packed.begins)
            self.watch(sources)
        return None

    def _stream(self, place: int, both: tuple[Source, Carried | AsClex]) -> Iterator[Packed]:
        source, packer = both
        packed = packer.pack(source.read(self.reader, self.again))
        if self.packing == "clex":  # which shuffles by itself
            return packed
        buffer = min(SHUFFLED, max(1, WAITING // self.length))
        if self.tokens is not None:
            buffer = min(buffer, int(source.share * self.tokens / self.length) + 1)
        return shuffled(packed, buffer, np.random.default_rng([self.seed, place]))

    def _too_short(
        self, sources: list[Source], packers: list[Carried | AsClex], ended: Source | None
    ) -> str:
        short = ended or sources[0]
        tokens = packers[sources.index(short)].left_over
        return (
            f"The part {short.name!r}, {short.part.corpus}, has {tokens:,} tokens, and one "
            f"sequence takes {self.length:,}: take a shorter --length or more text."
        )

    def _card(
        self, sources: list[Source], packers: list[Carried | AsClex], ended: Source | None
    ) -> dict[str, Any]:
        total = sum(source.sequences for source in sources)
        return {
            "name": self.name,
            "about": self.mixture.about,
            "seed": self.seed,
            "packing": self.packing,
            "wanted": self.tokens,
            "ended_by": ended.name if ended else None,
            "tokenizer": {
                "model": self.model,
                "fingerprint": self.reader.fingerprint,
                "start": self.reader.bos,
            },
            "parts": {
                source.name: {
                    "corpus": corpora.label(source.part.corpus),
                    "wanted": float(source.share),
                    "reached": source.sequences / total,
                    "tokens": source.sequences * self.length,
                    "documents": source.documents,
                    "passes": source.passes,
                    "left_over": packer.left_over
                    if source is ended or self.packing == "clex"
                    else None,
                }
                for source, packer in zip(sources, packers, strict=True)
            },
        }


def shuffled(packed: Iterator[Packed], waiting: int, rng: np.random.Generator) -> Iterator[Packed]:
    """The same in another order: each comes out of as many as wait."""
    buffer: list[Packed] = []
    for one in packed:
        if len(buffer) < waiting:
            buffer.append(one)
            continue
        place = rng.integers(waiting)
        yield buffer[place]
        buffer[place] = one
    yield from (buffer[i] for i in rng.permutation(len(buffer)))
