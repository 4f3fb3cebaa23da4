"""`harness search`: settled before it starts, then evolved, and kept after every document."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import exp, inf, isinf
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace
from typing import Any

from harness import catalog, machine
from harness.corpora import label as corpus_label
from harness.cost import shape_of
from harness.disk import read_json, takes_files, write_whole
from harness.learned import strange
from harness.lengths import label
from harness.model import Card, describe, tokenizer
from harness.reader import TokenReader
from harness.rope import Encoding, Rope
from harness.search.evolution import Generation, evolve
from harness.search.objective import TASK, Objective
from harness.search.space import SCHEMES, START_TOKENS, Individual, Space
from harness.search.state import State
from harness.search.wish import Forecast, Rescaling, Standing, Watch, Wish
from harness.speed import measured

VALIDATION = "stdlib:validation"
"""What is searched on: of the default corpus, the part that no result is measured on."""


def prepare(wish: Wish) -> "Search":
    """See that the search can be made, without reading any weight.

    Raises:
        LookupError: no such model, method or corpus, or too few tokens in it.
        ValueError: the target is too short, what is found could not be kept, or the model was
            trained to be read otherwise.
    """
    if wish.samples < 1:
        raise ValueError(f"--samples is 1 or more, not {wish.samples}.")
    method = catalog.load("methods", wish.method)
    if not isinstance(method, Rescaling):
        raise ValueError(f"{wish.method} has no divisor for each pair to search: take longrope.")
    if "start_tokens" in catalog.split(wish.method)[1]:
        raise ValueError(
            "How many first tokens keep their rotation is searched, or given as --start-tokens: "
            f"leave start_tokens out of {wish.method}."
        )
    if wish.append:
        method = replace(method, factors=str(wish.append))
    card = describe(wish.model, trust_remote_code=wish.trust_remote_code)
    if why := strange(wish.method, card):
        raise ValueError(f"{why}. Search for what it was trained from.")
    rope = Rope.of(SimpleNamespace(config=card.config))
    _check_target(wish, rope, method)
    place, kept = _places(wish, card)
    catalog.extended(wish.method, {"factors": str(place)})  # it must do for a method's parameter
    search = Search(wish, card, rope, method, place, State(kept, {}))
    search.state = State.opened(kept, search.identity)
    return search


def _check_target(wish: Wish, rope: Rope, method: Rescaling) -> None:
    if wish.target < rope.original_length:
        raise ValueError(
            f"{wish.model} was trained on {rope.original_length:,} tokens, and a search for "
            f"{wish.target:,} would not extend it: take a longer --target."
        )
    known = method.found(rope)[1]
    if known and len(known["factors"]) != rope.dim // 2:
        raise ValueError(
            f"The factors to start from are {len(known['factors'])}, and {wish.model} takes "
            f"{rope.dim // 2}, one for each pair of channels that rotate."
        )
    if wish.append:
        if not (known and known.get("factor")):
            raise ValueError(
                f'{wish.append} does not say how far its factors reach: it must have "factor", as '
                "files of harness search do."
            )
        reach = known["factor"] * rope.original_length
        if wish.target >= reach:
            raise ValueError(
                f"{wish.append} holds factors for {reach:,.0f} tokens, and a part for shorter "
                f"inputs ends below that, not at {wish.target:,}: take a shorter --target."
            )


def _places(wish: Wish, card: Card) -> tuple[Path, Path]:
    """Where the factors will be, and the search's state beside them."""
    named = f"{catalog.split(wish.method)[0]}-{card.spec}-{label(wish.target)}.json"
    place = wish.append or wish.output or Path(named.replace("/", "-"))
    part = f".short-{label(wish.target)}" if wish.append else ""
    takes_files(place)
    kept = place.with_name(f"{place.stem}{part}.search.json")
    if place.exists() and not kept.exists() and not wish.append:
        raise ValueError(f"{place} is there already: give another --output, or delete it.")
    return place, kept


@dataclass
class Search:
    """A search that can be made."""

    wish: Wish
    card: Card
    rope: Rope
    method: Rescaling
    place: Path
    """Of the factors."""
    state: State
    _last: Generation | None = field(default=None, init=False)

    @cached_property
    def scale(self) -> float:
        """s: how many times further than trained."""
        return self.wish.target / self.rope.original_length

    @cached_property
    def known(self) -> dict[str, Any] | None:
        """The factors that the method has already."""
        return self.method.found(self.rope)[1]

    @cached_property
    def space(self) -> Space:
        n_hat = self.wish.start_tokens
        beyond = SCHEMES[self.wish.settings.scheme].beyond
        return Space(
            self.rope.dim // 2, self.scale, START_TOKENS if n_hat is None else (n_hat,), beyond
        )

    @cached_property
    def starts(self) -> list[Individual]:
        """PI, NTK and YaRN; before them, where factors are known, those, stretched by what is left.

        A small population begins with what a search before found.
        """
        found = []
        if self.known:
            factors, n_hat = self.known["factors"], self.known.get("start_tokens", 0)
            reached = float(self.known.get("factor") or self.scale)
            longer = replace(self.rope, original_length=round(self.rope.original_length * reached))
            for way in self._ways(longer, max(1.0, self.scale / reached)):
                stretched = (a * b for a, b in zip(factors, way, strict=True))
                found.append(self.space.nearest(stretched, n_hat))
        found += [self.space.nearest(way) for way in self._ways(self.rope, self.scale)]
        return list(dict.fromkeys(found))

    def _ways(self, rope: Rope, scale: float) -> list[list[float]]:
        """The divisors of PI, of NTK, and of where the method starts."""
        known = [rope.frequencies / f for f in (rope.interpolated(scale), rope.ntk_aware(scale))]
        return [way.tolist() for way in (*known, self.method.started(rope, scale))]

    @cached_property
    def objective(self) -> Objective:
        """Raises: LookupError: the corpus has too few tokens."""
        wish = self.wish
        task = replace(catalog.load("tasks", TASK), corpus=self._corpus, samples=wish.samples)
        reader = TokenReader(tokenizer(self.card, wish.trust_remote_code), machine.cache_folder())
        return Objective(
            self.card,
            task,
            reader,
            list(task.requests(reader, wish.target)),
            self.encoding,
            wish.device,
            wish.dtype,
            wish.trust_remote_code,
        )

    def encoding(self, it: Individual) -> Encoding:
        """Of a model that reads by these factors.

        A part for short inputs is searched with the attention factor of the long ones: what
        transformers calls longrope has only one.
        """
        whole = self.known["factor"] if self.wish.append and self.known else self.scale
        return self.method.encoded(self.rope, it.factors, it.start_tokens, whole)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What makes it this search and no other; the same search may be given more iterations."""
        name, parameters = catalog.split(self.wish.method)
        for settled in ("factors", "factor"):  # by their content, and by the target
            parameters.pop(settled, None)
        settings = asdict(self.wish.settings)
        del settings["iterations"]
        known = json.dumps(self.known and self.known["factors"]).encode()
        return {
            "model": self.card.spec,
            "weights": self.card.weights,
            "dtype": self.objective.exact_dtype,
            "method": catalog.join(name, parameters),
            "known_factors": self.known and hashlib.sha256(known).hexdigest()[:8],
            "target": self.wish.target,
            "corpus": corpus_label(self._corpus),
            "samples": self.wish.samples,
            "start_tokens": self.wish.start_tokens,
            **settings,
        }

    def forecast(self) -> Forecast:
        """What is left of it, at most."""
        costs, on = self.objective.costs(), machine.device(self.wish.device)
        evaluations, done = self.wish.settings.evaluations, self._done
        documents = evaluations * len(costs)
        dtype = machine.dtype(self.objective.exact_dtype, on)
        shape, speed = shape_of(self.card), measured(self.card, on, dtype)
        whole = sum(cost.seconds(shape, speed) for cost in costs)
        return Forecast(
            evaluations=evaluations,
            documents=documents,
            done=done,
            tokens=evaluations * sum(cost.tokens for cost in costs),
            seconds=whole * max(0, documents - done) / len(costs),
            bytes=max(cost.bytes(shape, dtype.itemsize) for cost in costs),
        )

    def run(self, watch: Watch) -> dict[str, Any]:
        """Search, or go on searching; writes the factors' file and returns what was found.

        Raises:
            ValueError: not one individual has finite losses.
            OSError: what was found cannot be kept.
        """
        self.state.history.clear()
        self.state.write()
        self.objective.meant = self.state.of_weights

        def kept() -> None:
            self.state.write()
            table = self.state.table
            whole = [row for row in table.values() if len(row) == self.wish.samples]
            watch.stands(self.standing(len(table), min(map(fmean, whole), default=inf)))

        for generation in evolve(
            self.starts,
            self.space,
            self.wish.settings,
            self.objective.loss,
            self.wish.samples,
            self.state.table,
            kept,
        ):
            self._last = generation
            self.state.history.append(_line(generation))
            self.state.write()
            watch.generation(self.standing(generation.evaluations, generation.best))
        return self._written()

    def standing(self, evaluations: int, best: float) -> Standing:
        last, settings = self._last, self.wish.settings
        saved = last.saved if last else 0
        return Standing(
            generation=last.number if last else 0,
            generations=settings.iterations,
            evaluations=evaluations,
            of=settings.evaluations,
            read=self.objective.read,
            left=max(0, settings.evaluations * self.wish.samples - self._done - saved),
            saved=saved,
            best=None if isinf(best) else exp(best),
        )

    @property
    def _corpus(self) -> str:
        return self.wish.corpus or VALIDATION

    @property
    def _done(self) -> int:
        """Documents read, also by those before."""
        return sum(map(len, self.state.table.values()))

    def _written(self) -> dict[str, Any]:
        assert self._last is not None
        best, settings = self._last.parents[0], self.wish.settings
        if isinf(self._last.best):
            raise ValueError(
                f"Not one individual gave {self.wish.model} finite losses, so nothing is written."
            )
        found = {
            "factors": best.factors,
            "start_tokens": best.start_tokens,
            "factor": self.scale,
            **{key: self.identity[key] for key in ("model", "method", "dtype", "target", "corpus")},
            "samples": self.wish.samples,
            "perplexity": exp(self._last.best),
            "evaluations": self._last.evaluations,
            "documents_read": self._done,
            "documents_saved": self._last.saved,
            "generations": self._last.number,
            "scheme": settings.scheme,
            "seed": settings.seed,
        }
        whole = self._appended(found) if self.wish.append else found | self._kept()
        write_whole(self.place, json.dumps(whole, indent=1, allow_nan=False) + "\n")
        return found

    def _kept(self) -> dict[str, Any]:
        """What was appended to the file before this search went on."""
        if not self.place.exists():
            return {}
        before = read_json(self.place)
        return {"short": before["short"]} if "short" in before else {}

    def _appended(self, found: dict[str, Any]) -> dict[str, Any]:
        """The file as it is, with this part in it."""
        whole = read_json(self.place)
        others = [part for part in whole.get("short", []) if part["up_to"] != found["target"]]
        short = [*others, {"up_to": found["target"], **found}]
        return whole | {"short": sorted(short, key=lambda part: part["up_to"])}


def _line(generation: Generation) -> dict[str, Any]:
    return {
        "generation": generation.number,
        "best": None if isinf(generation.best) else generation.best,
        "worst_parent": None if isinf(generation.worst) else generation.worst,
        "evaluations": generation.evaluations,
        "saved": generation.saved,
    }
