"""What a grid will cost, before any of it is run."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from harness import catalog
from harness.cell import UNEXTENDED, Cell, Result, grid

if TYPE_CHECKING:
    from harness.model import Card
    from harness.store import Store
    from harness.task import Task

OVERHEAD = 700 * 2**20
"""Bytes of a process before any model: Python, torch, transformers."""


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
    """How many times further than trained; None: the longest length / the original length."""
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
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A cell and what it is expected to take."""

    cell: Cell
    tokens: int
    seconds: float
    bytes: int
    """Peak memory."""
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


def plan(options: Options) -> list[Planned]:
    """Every cell of the grid and its cost; reads configurations and corpora, but no weights.

    A method's scale is settled here, once for the whole grid: with `factor` None it is the longest
    length over the model's original length. Documents are those that reach the longest length.

    Raises:
        ValueError: a malformed or impossible wish: a factor below 1, a length below the minimum.
        LookupError: an unknown name, or a corpus with too few tokens.
    """
    every = [member for spec in options.tasks for member in catalog.members("tasks", spec)]
    options = replace(options, tasks=tuple(every))
    for kind, specs in (("methods", options.methods), ("tasks", options.tasks)):
        for spec in specs:
            catalog.load(kind, spec)  # a slip in a name is said before any model is looked for
    return [planned for name in options.models for planned in _plan_model(options, name)]


def missing(plan: Sequence[Planned], store: "Store") -> list[Planned]:
    """Those that have no result yet.

    Raises:
        ValueError: a result was made of other weights, another task version or other factors.
    """
    for planned in plan:
        result = store.get(planned.cell)
        if result is None or result.status != "scored":
            continue
        method = result.provenance.get("method", {})
        then = result.provenance | {"encoding": [method.get(key) for key in ENCODING]}
        for name, now in planned.made_of.items():
            if now is not None and then.get(name) != now:
                raise ValueError(
                    f"{planned.cell.path} was measured with another {name.replace('_', ' ')} than "
                    "there is now. Delete it, or give another folder with --results."
                )
    return [planned for planned in plan if not store.has(planned.cell)]


def _plan_model(options: Options, name: str) -> list[Planned]:
    from harness import machine
    from harness.model import describe

    spec, parameters = catalog.split(name)
    if unknown := set(parameters) - {"dtype"}:
        raise ValueError(f"A model has no parameter {unknown.pop()!r}. It has: dtype.")
    card = describe(spec, trust_remote_code=options.trust_remote_code)
    on = machine.device(options.device)
    dtype = machine.dtype(parameters.get("dtype", options.dtype), on)
    exact = str(dtype).removeprefix("torch.")
    named = catalog.join(card.spec, {} if exact == "bfloat16" else {"dtype": exact})
    methods = [_method(m, options, card) for m in options.methods]
    tasks = {_task(t, options): _corpus(t, options) for t in options.tasks}
    reader, free = _reader(card, options), machine.free_memory(on)
    found = []
    for cell in grid([named], methods, list(tasks), list(options.lengths)):
        cost = _cost(reader, cell.task, tasks[cell.task], cell.length)
        taken = cost.bytes(card, dtype.itemsize)
        why = f"needs {taken / 2**30:.1f} GiB, and {free / 2**30:.1f} are free"
        # Of a row read in one pass each cell bears its share, as in the results.
        row, share = cost, 1.0
        if _in_one_pass(cell):
            row = _cost(reader, cell.task, tasks[cell.task], max(options.lengths))
            share = cell.length / sum(options.lengths)
        found.append(
            Planned(
                cell=cell,
                tokens=cost.rows,
                seconds=share * row.seconds(card, on),
                bytes=taken,
                fits=taken <= free,
                why=None if taken <= free else why,
                model=spec,
                dtype=exact,
                corpus=tasks[cell.task],
                made_of=_made_of(cell, card),
            )
        )
    return found


ENCODING = ("frequencies", "attention_factor", "start_tokens")


def _made_of(cell: Cell, card: "Card") -> dict[str, Any]:
    """Of a rope method also its encoding, computed now: factors that do not fit are said here."""
    method, model = catalog.load("methods", cell.method), SimpleNamespace(config=card.config)
    facts = {} if method.unfit(model, cell.length) else method.provenance(model, cell.length)
    return {
        "weights": card.weights,
        "task_version": catalog.load("tasks", cell.task).version,
        # Of one that follows the length no encoding is compared, unless a file holds its factors.
        "encoding": None
        if method.depends_on_length and "factors" not in facts
        else [facts.get(key) for key in ENCODING],
    }


def _in_one_pass(cell: Cell) -> bool:
    method, task = catalog.load("methods", cell.method), catalog.load("tasks", cell.task)
    return task.one_pass and not method.depends_on_length


def _method(spec: str, options: Options, card: "Card") -> str:
    """The method's canonical spec, its scale settled."""
    spec = _as_trained(spec, options, card)
    method = catalog.load("methods", spec)
    given = catalog.split(spec)[1]
    known = {f.name for f in fields(method)}
    wish: dict[str, Any] = {}
    if "factor" in known and "factor" not in given:
        if options.factor is not None:
            wish["factor"] = options.factor
        elif not method.depends_on_length:
            wish["factor"] = max(1.0, max(options.lengths) / card.original_length)
    if "factors" in known and "factors" not in given and options.factors:
        wish["factors"] = options.factors
    return catalog.canonical("methods", catalog.extended(spec, wish))


def _as_trained(spec: str, options: Options, card: "Card") -> str:
    """The spec with what the checkpoint was trained with, where the command says nothing else.

    Raises:
        ValueError: it was trained with another method, and would be read otherwise than it learned.
    """
    if card.trained is None:
        return spec
    (name, given), (learned, parameters) = map(catalog.split, (spec, card.trained.method))
    if name == learned:
        asked = {} if options.factor is None else {"factor": catalog.written(options.factor)}
        return catalog.join(name, parameters | (asked if "factor" in parameters else {}) | given)
    model = SimpleNamespace(config=card.config)
    with_it = catalog.load("methods", card.trained.method)
    if _reads(with_it, model, card) != _reads(catalog.load("methods", UNEXTENDED), model, card):
        raise ValueError(
            f"{card.name} was trained with {card.trained.method}, and {name} would read it "
            f"otherwise than it learned. Give --method {learned}."
        )
    return spec


def _reads(method: Any, model: Any, card: "Card") -> list[Any]:
    """A method's encoding in numbers."""
    facts = method.provenance(model, card.original_length)
    return [facts.get(key) for key in ENCODING[:2]]


def _task(spec: str, options: Options) -> str:
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
    if (corpus := _corpus(spec, options)) and (field := place_of(task)):
        wish[field] = label_of(task, corpus)
    return catalog.canonical("tasks", catalog.extended(spec, wish))


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


def _reader(card: "Card", options: Options) -> Any:
    from harness.machine import cache_folder
    from harness.model import tokenizer
    from harness.reader import TokenReader

    return TokenReader(tokenizer(card, options.trust_remote_code), cache_folder())


@dataclass(frozen=True)
class Cost:
    """What a pass must read: rows of its tree, pairs of query and key, the longest input."""

    rows: int
    pairs: int
    depth: int
    generates: bool = False
    """Then the keys of all layers are kept."""

    def seconds(self, card: "Card", on: str) -> float:
        """A rough time, from rates measured for a moment on this machine."""
        s = card.shape
        products, pair = _rates(on, s["head_dim"])
        flops = 2 * self.rows * weights(card, s["experts"])
        return flops / products + self.pairs * s["layers"] * s["heads"] * pair

    def bytes(self, card: "Card", number: int) -> int:
        """A rough peak: weights, hidden state, keys and values, tables, head."""
        s = card.shape
        kept, layers = (0, s["layers"]) if self.generates else (self.rows, 1)
        hidden = kept * s["hidden"] * number
        keys = layers * self.depth * 2 * s["key_heads"] * s["head_dim"] * number
        table = self.depth * 2 * s["head_dim"] * number
        head = s["vocabulary"] * s["hidden"] * 4
        return OVERHEAD + weights(card, s["all_experts"]) * number + hidden + keys + table + head


def weights(card: "Card", experts: int) -> int:
    """Parameters with so many experts a layer: an estimate from the shape."""
    s = card.shape
    attention = 2 * s["hidden"] * (s["heads"] + s["key_heads"]) * s["head_dim"]
    layer = attention + 3 * s["hidden"] * s["intermediate"] * experts
    return s["layers"] * layer + s["vocabulary"] * s["hidden"]


@cache
def _cost(reader: Any, task: str, corpus: str | None, length: int) -> Cost:
    from harness.corpora import reading
    from harness.engine.evaluate import tree_of
    from harness.task import Text

    asked = reading(catalog.load("tasks", task), corpus)
    requests = list(asked.requests(reader, length))
    tree = tree_of(requests)
    written = [len(r.tokens) + r.ask.max_new_tokens for r in requests if isinstance(r.ask, Text)]
    return Cost(len(tree.tokens), tree.pairs, max([tree.depth, *written]), bool(written))


@cache
def _rates(on: str, head_dim: int) -> tuple[float, float]:
    """Floating-point operations a second in products, and seconds for a pair of one head."""
    import time

    import torch

    from harness import machine
    from harness.engine.kernels import chosen

    dtype = machine.dtype("auto", on)

    def timed(work: Any) -> float:
        work()
        started = time.perf_counter()
        work()
        if on == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    a, b = torch.randn(1024, 1024, device=on, dtype=dtype), torch.randn(1024, 1024, device=on)
    products = 2 * 1024**3 / timed(lambda: a @ b.to(dtype))
    q = torch.randn(1, 1, 1024, head_dim, device=on, dtype=dtype)
    k = torch.randn(1, 1, 8192, head_dim, device=on, dtype=dtype)
    kernel = chosen(on, dtype, head_dim)
    return products, timed(lambda: kernel.call(q, k, k, False, 1.0)) / (1024 * 8192)
