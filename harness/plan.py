"""What a grid will cost, before any of it is run."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib.util import find_spec
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from harness import catalog
from harness.cell import OWN, Cell, Result, grid
from harness.learned import as_trained
from harness.machine import no_cycles
from harness.method import PLAIN, Keys
from harness.plugins import asked

if TYPE_CHECKING:
    from harness.cost import Shape, Speed, Work
    from harness.model import Card
    from harness.reader import TokenReader
    from harness.store import Store
    from harness.task import Task


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a person asked to be measured, read from the command line or a grid file."""

    models: tuple[str, ...] = ("toy",)
    methods: tuple[str, ...]
    """Specs, as `harness.catalog` reads them: `yarn,factor=8`."""
    tasks: tuple[str, ...]
    lengths: tuple[int, ...]
    """Tokens, the start token included."""
    factor: float | None = None
    """How many times further than trained; None: the longest length / the original length. A
    method that follows each input's length keeps to that."""
    factors: str | None = None
    """A file of LongRoPE's per-dimension factors."""
    corpus: str | None = None
    """None: the task's own."""
    samples: int | None = None
    """None: the task's own number."""
    depths: tuple[float, ...] | None = None
    """Shares of the input before the passkey, 0 to 1; None: the task's own."""
    seed: int | None = None
    prompt: Literal["auto", "base", "chat"] | None = None
    """Plain text, a conversation, or whichever the tokenizer has a template for; None: the task's
    own."""
    no_context: bool | None = None
    """The control: questions without what they are about; None: the task's own."""
    pair_lengths: bool | None = None
    """The same questions at every length; None: the task's own."""
    device: str = "auto"
    dtype: str = "auto"
    offload: Literal["auto", "on", "off"] = "auto"
    """Whether hidden states and keys lie in host memory; auto: where nothing else helps."""
    memory: int | None = None
    """Most bytes of the device to use; None: all."""
    device_map: str | None = None
    """How transformers places the weights; None: on one device."""
    shards: int = 1
    """Processes that share each weight; each has its heads and channels."""
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A cell and what it is expected to take."""

    cell: Cell
    tokens: int
    seconds: float
    bytes: int
    """Peak memory; of the whole row where that is read in one pass, and fits."""
    fits: bool
    why: str | None = None
    """Why it would not fit, or cannot be run, in words."""
    model: str = ""
    """Where the cell's model is: a known name, a folder, a hub name."""
    dtype: str = "auto"
    corpus: str | None = None
    """Where the cell's corpus is on this machine."""
    made_of: dict[str, Any] = field(default_factory=dict)
    """What its provenance must say, or it is another number: weights, task version, encoding."""
    unfit: str | None = None
    """Why the method cannot run on the model, in a phrase."""
    work: "Work | None" = None
    """What its pass does."""
    alone: int | None = None
    """Peak memory of this cell in a pass of its own; None: as `bytes`."""
    share: float = 1.0
    """Of the pass, as in the results: a row that is read in one pass shares it."""
    shape: "Shape | None" = None
    """Of the model."""
    keys: Keys = PLAIN
    """How they lie under the method."""


class Watch(Protocol):
    """Who is told how a run comes along: a live display, a log, nobody."""

    def cell_started(self, cells: Sequence[Cell], tokens: int) -> None:
        """A pass begins that fills these cells and reads so many tokens."""

    def progressed(self, tokens: float) -> None:
        """So many more tokens of the pass are read."""

    def cell_finished(self, result: Result) -> None:
        """It is stored."""

    def note(self, message: str) -> None:
        """What a person should know, in a sentence."""


@no_cycles()
def plan(options: Options, *, stand_in: bool = False) -> list[Planned]:
    """Every cell of the grid and its cost; reads configurations and corpora, but no weights.

    A method's scale is settled here, once for the whole grid: with `factor` None it is the longest
    length over the model's original length. Documents are those that reach the longest length.

    Args:
        options: what was asked for.
        stand_in: count without what is not on this machine: documents are of no words, and models
            that `harness.standin` knows need no hub. Nothing is timed here.

    Raises:
        ValueError: a malformed or impossible wish: a factor below 1, a length below the minimum.
        LookupError: an unknown name, or a corpus with too few tokens.
        ModuleNotFoundError: what answers are scored by is not installed; says how to.
    """
    every = [member for spec in options.tasks for member in catalog.members("tasks", spec)]
    options = replace(options, tasks=tuple(every))
    for kind, specs in (("methods", options.methods), ("tasks", options.tasks)):
        for spec in specs:
            if spec != OWN:
                catalog.load(kind, spec)  # a slip in a name is said before any model is looked for
    if not stand_in:
        for spec in options.tasks:
            _see_that_it_can_be_graded(spec)
    return [p for name in options.models for p in _plan_model(options, name, stand_in)]


def see_that_some_can_run(plan: Sequence[Planned]) -> None:
    """Raises ValueError: no cell of the grid can; says why."""
    if plan and all(planned.unfit for planned in plan):
        cell, reason = plan[0].cell, str(plan[0].unfit).rstrip(".")
        raise ValueError(f"{cell.method} cannot run on {cell.model}: {reason}.")


def _see_that_it_can_be_graded(spec: str) -> None:
    """Now, and not after hours of decoding."""
    for module, package in catalog.load("tasks", spec).packages.items():
        if find_spec(module) is None:
            raise ModuleNotFoundError(
                f"Answers to {catalog.split(spec)[0]} are scored by {module}, which is not "
                f"installed. Run: pip install '{package}'"
            )


def unextended(plan: Sequence[Planned], options: Options) -> list[str]:
    """Of methods whose factor came out as 1, with nobody asking for that: a sentence a model."""
    found: dict[str, dict[str, None]] = {}
    for planned in plan:
        name, parameters = catalog.split(planned.cell.method)
        if parameters.get("factor") == "1" and "factors" not in parameters:
            found.setdefault(planned.model, {})[name] = None
    given = {name for name, said in map(catalog.split, options.methods) if "factor" in said}
    return [
        f"No length here is beyond what {model} was trained on, so that with a factor of 1 "
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} the model as it is: give "
        "longer --lengths, or --factor."
        for model, methods in found.items()
        if options.factor is None and (names := [name for name in methods if name not in given])
    ]


SAID_LATER = ("config", "evaluator")
"""What the first results did not say of what made them."""


@no_cycles()
def missing(plan: Sequence[Planned], store: "Store") -> list[Planned]:
    """Those that have no result yet.

    Raises:
        ValueError: a result was made of other weights, another task version or other factors.
    """
    left, files, packed = [], store.files(), store.packed
    for planned in plan:
        cell = planned.cell
        filed = cell.file in files
        result = store.filed(cell.file) if filed else store.get(cell) if packed else None
        if result is not None and result.status == "scored":
            _see_that_it_is_the_same(planned, result, packed=not filed)
        done = filed if not (store.retry or packed) else store.has(cell)
        if not done:
            left.append(planned)
    return left


def _see_that_it_is_the_same(planned: Planned, result: Result, packed: bool) -> None:
    method = result.provenance.get("method", {})
    then = result.provenance | {"encoding": [method.get(key) for key in ENCODING]}
    for name, now in planned.made_of.items():
        if name in SAID_LATER and name not in then:
            continue  # results of before it was said
        if now is not None and then.get(name) != now:
            remedy = "Give" if packed else "Delete it, or give"  # a pack holds others too
            raise ValueError(
                f"{planned.cell.path} was measured with another {name.replace('_', ' ')} than "
                f"there is now. {remedy} another folder with --results."
            )


def _plan_model(options: Options, name: str, stand_in: bool) -> list[Planned]:
    from harness import machine
    from harness.cost import shape_of

    spec, parameters = catalog.split(name)
    if unknown := set(parameters) - {"dtype"}:
        raise ValueError(f"A model has no parameter {unknown.pop()!r}. It has: dtype.")
    card, reader = _card_and_reader(spec, options, stand_in)
    if options.shards > 1:
        from harness.model import sharing

        sharing(card, options.shards, options.device_map)  # or it says why not
    on = machine.device(options.device)
    dtype = machine.dtype(parameters.get("dtype", options.dtype), on)
    exact = str(dtype).removeprefix("torch.")
    named = catalog.join(card.spec, {} if exact == "bfloat16" else {"dtype": exact})
    methods = list(dict.fromkeys(settled(m, options, card) for m in options.methods))
    corpora = {_task(t, options, stand_in): _corpus(t, options) for t in options.tasks}
    shape = shape_of(card).shared(options.shards)
    free = machine.free_memory(on) // (options.shards if on == "cpu" else 1)  # each has a part
    costs = _Costs(reader, shape, options.lengths, dtype.itemsize, free)
    if not stand_in:
        from harness.speed import measured

        costs.speed = measured(card, on, dtype)
    made_of = _MadeOf(card, options.lengths, None if stand_in else reader)
    found = []
    for cell in grid([named], methods, list(corpora), list(options.lengths)):
        together = _reads_beginnings(cell.task) and made_of.alike(cell.method)
        unfit = made_of.unfit(cell.method, cell.length)
        keys = PLAIN if unfit else made_of.keys(cell.method, cell.length)
        never = {"fits": False, "why": unfit, "seconds": 0.0} if unfit else {}
        found.append(
            Planned(
                cell=cell,
                **costs.of(cell.task, corpora[cell.task], cell.length, together, keys) | never,
                model=spec,
                dtype=exact,
                corpus=corpora[cell.task],
                made_of=made_of(cell),
                unfit=unfit,
            )
        )
    return found


def _card_and_reader(name: str, options: Options, stand_in: bool) -> tuple["Card", Any]:
    """A model's configuration and how it reads."""
    if stand_in:
        from harness.standin import Bytes, describe

        return describe(name), Bytes()
    from harness.machine import cache_folder
    from harness.model import describe, tokenizer
    from harness.reader import TokenReader

    card = describe(name, trust_remote_code=options.trust_remote_code)
    return card, TokenReader(tokenizer(card, options.trust_remote_code), cache_folder())


@dataclass
class _Costs:
    """What cells of one model take; a pass is counted once for all methods."""

    reader: Any
    shape: "Shape"
    lengths: tuple[int, ...]
    number: int
    """Bytes of a weight."""
    free: int
    """Bytes."""
    speed: "Speed | None" = None
    """None: nothing is timed."""

    def __post_init__(self) -> None:
        self.of, self._pass = cache(self._of), cache(self._pass)

    def _of(
        self, task: str, corpus: str | None, length: int, together: bool, keys: Keys
    ) -> dict[str, Any]:
        """The numbers of a `Planned`."""
        own = self._pass(task, corpus, length)
        row = self._pass(task, corpus, max(self.lengths)) if together else own
        share = length / sum(set(self.lengths)) if together else 1.0
        needs, whole = (w.bytes(self.shape, self.number, keys=keys) for w in (own, row))
        why = f"needs {needs / 2**30:.1f} GiB, and {self.free / 2**30:.1f} are free"
        return {
            "tokens": own.tokens,
            "seconds": share * row.seconds(self.shape, self.speed) if self.speed else 0.0,
            "bytes": whole if whole <= self.free else needs,
            "alone": needs,
            "fits": needs <= self.free,
            "why": None if needs <= self.free else why,
            "work": row,
            "share": share,
            "shape": self.shape,
            "keys": keys,
        }

    def _pass(self, task: str, corpus: str | None, length: int) -> "Work":
        from harness.corpora import reading
        from harness.cost import Work

        posed = reading(catalog.load("tasks", task), corpus)
        with asked(task):
            return Work.of(list(posed.requests(self.reader, length)), follows=posed.follows)


ENCODING = ("frequencies", "attention_factor", "start_tokens")


class _MadeOf:
    """What the provenance of a cell must say; factors that do not fit are said here."""

    def __init__(self, card: "Card", lengths: Sequence[int], reader: "TokenReader | None") -> None:
        self.card, self.shortest, self.longest = card, min(lengths), max(lengths)
        self.reader = reader
        self.model = SimpleNamespace(config=card.config)
        self._facts, self.alike = cache(self._facts), cache(self._alike)
        self._task = cache(self._task)
        self.unfit, self._method = cache(self._unfit), cache(self._method)
        self.keys = cache(lambda spec, n: self._method(spec).keys(self.model, n))

    def __call__(self, cell: Cell) -> dict[str, Any]:
        at = self.longest if self.alike(cell.method) else cell.length
        return self._facts(cell.method, at) | self._task(cell.task)

    def _unfit(self, spec: str, length: int) -> str | None:
        """Why the method cannot run on the model, as far as its configuration says.

        What reads the longest input reads the shorter ones.
        """
        if length < self.longest and self.unfit(spec, self.longest) is None:
            return None
        with asked(spec):
            return self._method(spec).unfit(self.model, length)

    def _method(self, spec: str) -> Any:
        return catalog.load("methods", spec)

    def _facts(self, method: str, length: int) -> dict[str, Any]:
        return {
            "weights": self.card.weights,
            "config": self.card.settings,
            "start_token": self.reader and self.reader.bos,
            "encoding": self._encoding(method, length),
        }

    def _task(self, spec: str) -> dict[str, Any]:
        """What is the task's, and how it asks this model."""
        task, reader = catalog.load("tasks", spec), self.reader
        in_turns = reader and "chat" in (task.asked_as(reader) or "")
        return {
            "task_version": task.version,
            "evaluator": task.evaluator_hash,
            "thinking": reader.thinking if reader and in_turns else None,
        }

    def _alike(self, spec: str) -> bool:
        """Whether it encodes all lengths as the longest: a checkpoint's own scaling may not."""
        if self._method(spec).depends_on_length or self.unfit(spec, self.longest):
            return False
        return self._encoding(spec, self.shortest) == self._encoding(spec, self.longest)

    def _encoding(self, spec: str, length: int) -> list[Any] | None:
        """Of one that follows the length none is compared, unless a file holds its factors."""
        method = self._method(spec)
        facts = {} if self.unfit(spec, length) else method.provenance(self.model, length)
        if method.depends_on_length and "factors" not in facts:
            return None
        return [facts.get(key) for key in ENCODING]


@cache
def _reads_beginnings(task: str) -> bool:
    return catalog.load("tasks", task).one_pass


def takes(asked: Any, flag: str) -> bool:
    """Whether a flag is meant for this method or task.

    A method that follows each input's length has no factor to be given, unless by its own name.
    """
    needless = flag == "factor" and (asked.depends_on_length or getattr(asked, "settled", False))
    return flag in catalog.settings(asked) and not needless


def _says(spec: str, flag: str) -> bool:
    """Whether a flag says what the method's spec does not."""
    return flag not in catalog.split(spec)[1] and takes(catalog.load("methods", spec), flag)


def settled(spec: str, options: Options, card: "Card") -> str:
    """The method's canonical spec, its scale settled."""
    spec = as_trained(spec, card, options.factor)
    if options.factors and _says(spec, "factors"):
        spec = catalog.extended(spec, {"factors": options.factors})
    if _says(spec, "factor"):  # after the file, which may leave none to be said
        reach = max(1.0, max(options.lengths) / card.original_length)
        factor = reach if options.factor is None else options.factor
        spec = catalog.extended(spec, {"factor": factor})
    spec = catalog.canonical("methods", spec)
    return catalog.extended(spec, catalog.load("methods", spec).by_content())


def _task(spec: str, options: Options, stand_in: bool) -> str:
    """The task's canonical spec: options that it knows, and its corpus by content."""
    from harness.corpora import label_of, place_of

    task = catalog.load("tasks", spec)
    given = catalog.split(spec)[1]
    known = {f.name for f in fields(task)}
    wish = {
        name: value
        for name in ("samples", "depths", "seed", "prompt", "no_context", "pair_lengths")
        if (value := getattr(options, name)) is not None and name in known - set(given)
    }
    if "reach" in known and "reach" not in given:
        wish["reach"] = max(options.lengths)
    if not stand_in and (corpus := _corpus(spec, options)) and (field := place_of(task)):
        wish[field] = label_of(task, corpus)
    spec = catalog.extended(spec, wish | task.by_content())
    return catalog.canonical("tasks", spec)


def _corpus(spec: str, options: Options) -> str | None:
    """Where the task's text or its questions come from; None if it reads none."""
    from harness.corpora import place_of

    task: Task = catalog.load("tasks", spec)
    field = place_of(task)
    if field is None:
        return None
    if field == "corpus" and options.corpus and field not in catalog.split(spec)[1]:
        return options.corpus
    return str(getattr(task, field))
