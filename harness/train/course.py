"""What a training will be, settled before it starts: method, recipe, data, memory.

From the command line's wishes to numbers that do not change; the same wishes give the same course,
so an interrupted one is found again and gone on with.
"""

from dataclasses import asdict, dataclass, replace
from math import ceil
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from harness import catalog, nearest
from harness.learned import strange
from harness.method import Method, Recipe
from harness.train.parallel import ALONE, Sharing

if TYPE_CHECKING:
    from harness.model import Card

BORROWED = "clex"
"""A method that nobody published a training for is trained as in this one's comparison."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """A training in full."""

    model: str
    """Where the base is: a known name, a folder, a hub name."""
    method: str
    """Spec, its factor written out."""
    recipe: str
    """The recipe's name."""
    numbers: Recipe
    """As they are used: the recipe's, and what the command line changed."""
    original_length: int
    rows: int
    """Sequences of one update, over all devices."""
    corpus: str
    stage: str = "lm"
    """`lm`: all text. `chat`: conversations. `retrieval`: keys hidden in text."""
    answers_only: bool = True
    """Of a chat, learn only what the assistant says."""
    dtype: str = "auto"
    """Of products. `auto` is another on another machine: `harness train` settles it first."""
    checkpointing: bool = True
    """Layers' activations are made again on the way back."""

    @property
    def target(self) -> int:
        """Tokens that the model learns to read."""
        factor = self.numbers.factor or 1.0
        return max(self.numbers.sequence_length, round(factor * self.original_length))

    @property
    def updates(self) -> int:
        return self.numbers.steps

    @property
    def tokens(self) -> int:
        """Read in all."""
        return self.numbers.steps * self.rows * self.numbers.sequence_length

    def identity(self) -> dict[str, Any]:
        """What must be the same for an interrupted course to be gone on with."""
        numbers = asdict(self.numbers)
        for said in ("sources", "disagreements", "data"):
            del numbers[said]
        files = catalog.load("methods", self.method).by_content()
        return {
            "method": catalog.extended(self.method, files),
            "recipe": numbers,
            "stage": self.stage,
            "answers_only": self.answers_only,
            "dtype": self.dtype,
        }


def recipes(method: Method) -> dict[str, Recipe]:
    """A method's published recipes by name; of one that has none, those it borrows."""
    return dict(method.recipes) or dict(catalog.load("methods", BORROWED).recipes)


def recipe(method: Method, name: str) -> Recipe:
    """A method's recipe by name; `quick` is its first one, scaled down.

    Raises:
        LookupError: it has none of that name; the message has the nearest.
    """
    held = recipes(method)
    if name == "quick" and "quick" not in held:
        return next(iter(held.values())).quick()
    if name not in held:
        known = [*held, "quick"]
        raise LookupError(
            f"No recipe named {name!r}.{nearest.hint(name, known)} There are: {', '.join(known)}."
        )
    return held[name]


def settle(
    card: "Card",
    spec: str,
    name: str,
    *,
    corpus: str,
    factor: float | None = None,
    budget: int | None = None,
    changes: dict[str, Any] | None = None,
    **rest: Any,
) -> Course:
    """The course for these wishes.

    Args:
        card: the base.
        spec: the method's.
        name: the recipe's.
        corpus: what it reads, as `harness.corpora` names it, or a folder of sequences.
        factor: how many times further than trained; None: the method's or that of its factors'
            file, else the recipe's, else as far as the sequences are long.
        budget: tokens in all: the steps follow. None: the recipe's steps.
        changes: the recipe's numbers that the command line gave.
        rest: further fields of `Course`.

    Raises:
        LookupError: no such method or recipe, or the model has no rope to extend.
        ValueError: numbers that cannot be, or the base was trained to be read otherwise.
    """
    method = catalog.load("methods", spec)
    if why := strange(spec, card):
        learned = catalog.split(card.own_method or "")[0]
        raise ValueError(f"{why}. Give --method {learned}, or train what it was trained from.")
    wished = {key: value for key, value in (changes or {}).items() if value is not None}
    whole = recipe(method, name)
    numbers = replace(whole, **wished)
    chosen = _factor(method, numbers, card) if factor is None else factor
    _check(replace(numbers, factor=chosen))
    follows = method.trained_for(chosen)
    said = method.made_for(SimpleNamespace(config=card.config)) is not None
    if factor is not None and _needless(method, follows, card):
        raise ValueError(f"{spec} is trained alike for any factor: leave --factor out.")
    if factor is not None and said and {"factor", *follows} & catalog.split(spec)[1].keys():
        raise ValueError(f"--factor and {spec} both say how far: leave one out.")
    spec = catalog.extended(spec, follows)
    rows = max(1, round(numbers.batch_tokens / numbers.sequence_length))
    each = rows * numbers.sequence_length
    if budget is not None:
        if budget < each:
            raise ValueError(
                f"A budget of {budget:,} tokens is less than one update of {each:,}. "
                "Give more, or shorter sequences."
            )
        numbers = replace(numbers, steps=budget // each)
    numbers = replace(numbers, factor=chosen, batch_tokens=each, warmup=_warmup(numbers, whole))
    _check(numbers)
    return Course(
        model=card.name,
        method=catalog.canonical("methods", spec),
        recipe=name,
        numbers=numbers,
        original_length=card.original_length,
        rows=rows,
        corpus=corpus,
        **rest,
    )


def _needless(method: Method, follows: dict[str, Any], card: "Card") -> bool:
    """Whether it learns the same, however far it is to read."""
    from harness.rope import parameters

    plain = type(method).in_training is Method.in_training
    own = parameters(card.config.get_text_config()).get("rope_type")
    moves = own in ("dynamic", "longrope")  # a scaling that the checkpoint has by itself
    return plain and not follows and not method.depends_on_length and not moves


def _warmup(numbers: Recipe, whole: Recipe) -> float:
    """A count of updates shrinks with the course; a share does so by itself."""
    if numbers.warmup < 1 or numbers.steps >= whole.steps:
        return numbers.warmup
    return round(numbers.warmup * numbers.steps / whole.steps)


def _factor(method: Method, numbers: Recipe, card: "Card") -> float:
    """The method's own, else the recipe's, or as far as the sequences are long if that is more."""
    own = method.made_for(SimpleNamespace(config=card.config))
    longer = numbers.sequence_length / card.original_length
    return float(own or max(numbers.factor or 1.0, longer))


LEAST = {"steps": 1, "sequence_length": 16, "learning_rate": 0, "factor": 1}


def _check(numbers: Recipe) -> None:
    for name, least in LEAST.items():
        value = getattr(numbers, name)
        if not value >= least or value == float("inf"):
            raise ValueError(f"{name.replace('_', ' ')} must be at least {least}, not {value:g}.")


def memory(
    course: Course, card: "Card", sharing: Sharing = ALONE, *, products: bool = False
) -> int:
    """A rough peak of one process in bytes: weights, what moves them, what a sequence leaves.

    Weights, gradients and AdamW's two averages are float32; products mostly run in bfloat16.
    Processes share what moves the weights; each has read them whole before it keeps its part.

    Args:
        course: what is trained.
        card: of the model.
        sharing: with other processes.
        products: those of each layer are kept, where the rest is made again on the way back.
    """
    from harness.cost import OVERHEAD, shape_of
    from harness.families import family_of
    from harness.train.loss import PIECE

    s, n = card.shape, ceil(course.numbers.sequence_length / sharing.sequence)
    whole = shape_of(card).weights
    adapters = course.numbers.trains == "lora"
    moved = 4 * s["layers"] * course.numbers.rank * 2 * s["hidden"] if adapters else whole
    if course.numbers.trains == "encoding":
        moved = 0
    number = 4 if course.dtype == "float32" else 2
    kept = n * s["hidden"] * (4 + number)  # a layer's input in float32, its attention's output
    inside = 12 * s["hidden"] + 6 * s["intermediate"] + 8 * s["heads"] * s["head_dim"]
    inside *= n * number
    if family_of(card.config).biased:  # its own forward writes out scores, biased and as shares
        inside += 16 * s["heads"] * n * n
    if products:
        channels = (s["heads"] + 2 * s["key_heads"]) * s["head_dim"] + s["hidden"]
        channels += s["experts"] * (2 * s["intermediate"] + s["hidden"])
        kept += n * channels * number
    activations = s["layers"] * (kept if course.checkpointing else inside) + inside
    logits = PIECE * s["vocabulary"] * 4 * 3
    return OVERHEAD + 6 * whole + 12 * moved // sharing.weights + activations + logits
