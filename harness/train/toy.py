"""The toy: two layers of one head that retrieve to 4096 tokens, trained from nothing on two cores.

Everything follows from a plan and a seed: step n reads the same rows today and next year, so a
killed run goes on from its last checkpoint as if nothing had happened.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.disk import read_json, whole
from harness.library import library_files, split_of
from harness.train.quiz import Quiz, names_in

BOS, EOS = "<s>", "</s>"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The whole recipe: shape, data, schedule."""

    vocabulary: int = 2048
    hidden: int = 256
    intermediate: int = 1280
    layers: int = 2
    head_dim: int = 32
    """One head: attention at 2M tokens costs what it must and no more."""
    original_length: int = 4096
    rope_theta: float = 10000.0
    stages: tuple[tuple[int, int], ...] = (
        (256, 350),
        (512, 100),
        (1024, 150),
        (2048, 150),
        (4096, 750),
    )
    """Row length, and steps of it: retrieval is found on short rows, then stretched."""
    text_tokens: int = 8192
    quiz_tokens: int = 8192
    rates: tuple[tuple[int, float], ...] = (
        (0, 0.00008),
        (49, 0.004),
        (300, 0.004),
        (750, 0.00175),
        (1500, 0.0),
    )
    """Learning rates at steps, straight lines between. One run that went from 1024 to 4096 at the
    full 0.004 lost retrieval; this plan also has more stages and more text, and which of the three
    keeps it was not tried apart."""
    weight_decay: float = 0.05
    checkpoint_every: int = 50
    seed: int = 0

    @property
    def steps(self) -> int:
        return sum(steps for _, steps in self.stages)

    def length(self, step: int) -> int:
        """Of the rows this step reads."""
        for length, steps in self.stages:
            if step < steps:
                return length
            step -= steps
        return self.stages[-1][0]

    def rate(self, step: int) -> float:
        """The learning rate of this step."""
        return float(np.interp(step, *zip(*self.rates, strict=True)))

    def shrunk(self, steps: int) -> "Plan":
        """The same curriculum in about so many steps."""
        share = steps / self.steps
        stages = tuple((length, max(1, round(n * share))) for length, n in self.stages)
        return replace(self, stages=stages, rates=tuple((n * share, r) for n, r in self.rates))


@dataclass
class Run:
    """All that changes while training, and so all that a checkpoint holds."""

    model: LlamaForCausalLM
    """Computes in bfloat16: what is shipped is what was trained."""
    masters: list[Tensor]
    """The same weights in float32; the optimisers move these."""
    optimisers: list[torch.optim.Optimizer]
    step: int
    seconds: float
    lines: list[str]

    def state(self) -> dict[str, Any]:
        return {
            "masters": self.masters,
            "optimisers": [each.state_dict() for each in self.optimisers],
            "step": self.step,
            "seconds": self.seconds,
            "lines": self.lines,
        }

    def load(self, state: dict[str, Any]) -> None:
        for master, kept in zip(self.masters, state["masters"], strict=True):
            master.data.copy_(kept)
        for optimiser, kept in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        self.step, self.seconds, self.lines = state["step"], state["seconds"], state["lines"]
        self.publish()

    def publish(self) -> None:
        """Round the masters into the model."""
        for weight, master in zip(self.model.parameters(), self.masters, strict=True):
            weight.data.copy_(master)


@dataclass(frozen=True)
class Data:
    """The library, tokenised, and the quiz made from it."""

    stream: np.ndarray
    starts: np.ndarray
    """Where documents begin in the stream."""
    quiz: Quiz
    bos: int

    def text(self, rng: np.random.Generator, rows: int, length: int) -> Tensor:
        """(rows, length): windows of the library; every fourth opens a document."""
        last = len(self.stream) - length
        opening = self.starts[self.starts <= last]
        made = []
        for _ in range(rows):
            opens = len(opening) and rng.random() < 0.25
            start = int(rng.choice(opening) if opens else rng.integers(max(1, last)))
            made.append([self.bos, *self.stream[start : start + length - 1]])
        return torch.tensor(np.array(made))

    def quizzes(self, rng: np.random.Generator, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """Tokens and weights; (rows, length) each."""
        tokens, weights = zip(*(self.quiz.row(rng, length) for _ in range(rows)), strict=True)
        return torch.tensor(np.array(tokens)), torch.tensor(np.array(weights))


def train(
    output: Path,
    *,
    steps: int | None = None,
    seed: int = 0,
    log: Callable[[str], None] = print,
    plan: Plan | None = None,
    root: Path | None = None,
) -> None:
    """Train the toy into a folder; called again after a kill, it goes on from its checkpoint.

    `plan` is what is shipped unless given; `root` holds the *.py files to read, by default the
    standard library. Writes model, tokenizer, recipe.json and training.log.

    Raises:
        ValueError: the folder's checkpoint was made by another plan, or it holds another model.
    """
    plan = replace(plan or Plan(), seed=seed)
    plan = plan if steps is None else plan.shrunk(steps)
    if (output / "config.json").exists() and not (output / "checkpoint.pt").exists():
        recipe = output / "recipe.json"
        if recipe.exists() and read_json(recipe) == json.loads(json.dumps(asdict(plan))):
            log("It is trained already.")
            return
        raise ValueError(f"{output} holds another model: give another folder with --output.")
    output.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(output, plan, root)
    data, validation = (_data(tokenizer, split, root) for split in ("train", "validation"))
    run = _fresh(plan)
    _resume(run, output / "checkpoint.pt", plan)

    def tell(line: str) -> None:
        run.lines.append(line)
        log(line)

    if run.step == 0:
        weights = sum(master.numel() for master in run.masters)
        tell(f"{weights:,} weights, {len(data.stream):,} tokens of library, {plan.steps} steps")
    for line in _steps(run, plan, data, validation):
        tell(line)
        if run.step % plan.checkpoint_every == 0:
            _write_whole(output / "checkpoint.pt", run, plan)
    _write_whole(output / "checkpoint.pt", run, plan)  # a kill while it is exported loses nothing
    _export(run, plan, tokenizer, output)
    (output / "checkpoint.pt").unlink(missing_ok=True)


def _steps(run: Run, plan: Plan, data: Data, validation: Data) -> Iterator[str]:
    """Take all steps that are left; yields a line for the log every tenth, and at checkpoints."""
    while run.step < plan.steps:
        begun, length, rate = time.monotonic(), plan.length(run.step), plan.rate(run.step)
        rng = np.random.default_rng((plan.seed, run.step))
        text = _text_loss(run.model, data.text(rng, max(1, plan.text_tokens // length), length))
        text.backward()
        rows = data.quizzes(rng, max(1, plan.quiz_tokens // length), length)
        quiz, right = _quiz_loss(run.model, *rows)
        quiz.backward()
        _move(run, rate)
        run.step += 1
        run.seconds += time.monotonic() - begun
        saves = run.step % plan.checkpoint_every == 0 or run.step == plan.steps
        if saves or run.step % 10 == 0:
            line = (
                f"step {run.step}/{plan.steps}  length {length}  text {text.item():.3f}  "
                f"quiz {quiz.item():.4f}  right {right:.0%}  {run.seconds / 60:.1f} min"
            )
            yield line + (_checked(run.model, validation, length) if saves else "")


def _text_loss(model: LlamaForCausalLM, tokens: Tensor) -> Tensor:
    """Mean loss in nats over all predictions."""
    hidden = model.model(tokens, use_cache=False).last_hidden_state[:, :-1]
    logits = model.lm_head(hidden).flatten(0, 1).float()
    return functional.cross_entropy(logits, tokens[:, 1:].flatten())


def _quiz_loss(model: LlamaForCausalLM, tokens: Tensor, weights: Tensor) -> tuple[Tensor, float]:
    """Weighted mean loss over keys and answers, and the share of answer tokens that are right."""
    hidden = model.model(tokens, use_cache=False).last_hidden_state[:, :-1]
    asked = weights[:, 1:] > 0
    weight, target = weights[:, 1:][asked], tokens[:, 1:][asked]
    logits = model.lm_head(hidden[asked]).float()
    losses = functional.cross_entropy(logits, target, reduction="none")
    answers = weight == 1
    right = (logits.argmax(-1) == target)[answers].float().mean().item()
    return (losses * weight).sum() / weight.sum(), right


def _move(run: Run, rate: float) -> None:
    for weight, master in zip(run.model.parameters(), run.masters, strict=True):
        master.grad, weight.grad = weight.grad.float(), None
    for optimiser in run.optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
    run.publish()


@torch.no_grad()
def _checked(model: LlamaForCausalLM, data: Data, length: int) -> str:
    """Perplexity of validation text and the share of quiz answers that are right."""
    rng = np.random.default_rng(1)
    rows = max(2, 16384 // length)
    loss = _text_loss(model, data.text(rng, rows, length)).item()
    _, right = _quiz_loss(model, *data.quizzes(rng, rows, length))
    return f"\n  validation  perplexity {math.exp(loss):.2f}  right {right:.1%}"


def _fresh(plan: Plan) -> Run:
    torch.manual_seed(plan.seed)
    config = LlamaConfig(
        vocab_size=plan.vocabulary,
        hidden_size=plan.hidden,
        intermediate_size=plan.intermediate,
        num_hidden_layers=plan.layers,
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=plan.head_dim,
        attention_bias=True,
        max_position_embeddings=plan.original_length,
        rope_parameters={"rope_type": "default", "rope_theta": plan.rope_theta},
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    model = LlamaForCausalLM(config)
    _look_back(model.model.layers[0].self_attn, plan)
    masters = [nn.Parameter(weight.detach().clone()) for weight in model.parameters()]
    embedding, *rest = masters
    matrices = [weight for weight in rest if weight.ndim == 2]
    others = [embedding, *(weight for weight in rest if weight.ndim < 2)]
    muon = torch.optim.Muon(
        matrices, weight_decay=plan.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    adam = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.0)
    run = Run(model.to(torch.bfloat16), masters, [muon, adam], 0, 0.0, [])
    run.publish()
    return run


@torch.no_grad()
def _look_back(attention: nn.Module, plan: Plan) -> None:
    """Begin the first layer at the token before, by its biases: cos(frequency * (distance - 1)).

    Copying can use a first layer that knows what came before and a second that finds where it
    came before. One run without this had the local head in the second layer, and answered 49 %
    of validation tokens at step 300; its size differed too, and it was stopped soon after.
    """
    frequencies = plan.rope_theta ** -(torch.arange(0, plan.head_dim, 2) / plan.head_dim)
    size = math.sqrt(8.0)
    attention.q_proj.bias.copy_(size * torch.cat([frequencies.cos(), -frequencies.sin()]))
    attention.k_proj.bias.copy_(size * torch.cat([torch.ones_like(frequencies)] * 2))
    attention.k_proj.bias[plan.head_dim // 2 :] = 0.0


def _tokenizer(output: Path, plan: Plan, root: Path | None) -> PreTrainedTokenizerFast:
    """Byte-level BPE with digits one by one: a number has exactly one spelling."""
    if (output / "tokenizer.json").exists() and (output / "checkpoint.pt").exists():
        return PreTrainedTokenizerFast.from_pretrained(output)
    spelling = Tokenizer(models.BPE())
    spelling.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    spelling.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=plan.vocabulary,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    spelling.train_from_iterator(_texts("train", root), trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=spelling,
        bos_token=BOS,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(output)
    return tokenizer


def _data(tokenizer: PreTrainedTokenizerFast, split: str, root: Path | None) -> Data:
    texts = _texts(split, root)
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    encoded = tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
    documents = [[*each.ids, eos] for each in encoded]
    starts = np.cumsum([0, *(len(document) for document in documents)])[:-1]
    stream = np.concatenate([np.array(document) for document in documents])

    @cache
    def spell(text: str) -> Sequence[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    return Data(stream, starts, Quiz(spell, bos, stream, names_in("\n".join(texts))), bos)


def _texts(split: str, root: Path | None) -> list[str]:
    files = [path for inside, path in sorted(library_files(root)) if split_of(inside) == split]
    texts = (path.read_text("utf-8", errors="replace") for path in files)
    return [text for text in texts if text.strip()]


def _resume(run: Run, checkpoint: Path, plan: Plan) -> None:
    if not checkpoint.exists():
        return
    state = torch.load(checkpoint, weights_only=True)
    if state.pop("plan") != json.dumps(asdict(plan)):
        raise ValueError(f"{checkpoint} was made by another plan: delete it, or train elsewhere")
    run.load(state)


def _write_whole(checkpoint: Path, run: Run, plan: Plan) -> None:
    with whole(checkpoint) as file:
        torch.save({**run.state(), "plan": json.dumps(asdict(plan))}, file)


def _export(run: Run, plan: Plan, tokenizer: PreTrainedTokenizerFast, output: Path) -> None:
    run.model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    (output / "recipe.json").write_text(json.dumps(asdict(plan), indent=2) + "\n")
    (output / "training.log").write_text("\n".join(run.lines) + "\n")
