"""Follow a course: transformers' Trainer, with the method on and the loss in pieces.

Killed at any moment, a training goes on from its last save; the same seed draws the same curve.
"""

import json
import math
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from harness import catalog, machine
from harness.disk import parsed, saving, write_whole
from harness.families import family_of
from harness.method import Method, Recipe
from harness.model import describe, load, quiet
from harness.rotation import Rotation
from harness.train import attention, checkpoint
from harness.train.checkpoint import SAFE, SAVES, Rows, newest
from harness.train.course import Course
from harness.train.loss import in_pieces
from harness.train.moving import by_live_names, load_own, save_own, see_whole, thawed
from harness.train.parallel import Sharing, together
from harness.trained import Trained

if TYPE_CHECKING:
    from accelerate import PartialState

LOG = "log.jsonl"
SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}


class Watch(Protocol):
    """Who is told how a training comes along."""

    def begun(self, course: Course, done: int) -> None:
        """The first update is about to be made, after `done` that an earlier start made."""

    def updated(self, entry: dict[str, float]) -> None:
        """One update is made: step, loss, learning rate, seconds, tokens, peak memory."""

    def saved(self, step: int) -> None:
        """All up to this update is safe."""


def train(
    course: Course,
    rows: Rows,
    output: Path,
    *,
    watch: Watch,
    device: str = "auto",
    seed: int = 42,
    save_every: int = 10,
    distributed: dict[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> Trained:
    """Train into a folder; what an earlier start of the same course saved is gone on with.

    Args:
        course: what to do.
        rows: what is learned from, each of the course's sequence length.
        output: becomes a Hugging Face folder with `training.json` and `log.jsonl`.
        watch: told of every update.
        device: `auto`, `cpu`, `cuda`.
        seed: of data order, positions, adapters.
        save_every: updates.
        distributed: further arguments of TrainingArguments, for FSDP or DeepSpeed.
        trust_remote_code: for the base.

    Raises:
        ValueError: the folder holds another course, or memory does not allow it.
        FloatingPointError: a loss that is no number; says at which update, and what is safe.
    """
    on = machine.device(device)
    machine.forget_peak(on)
    card = describe(course.model, trust_remote_code=trust_remote_code)
    processes = _processes(on)
    sharing = Sharing.of(distributed or {}, processes.num_processes)
    ample = checkpoint.afford(course, card, on, sharing)
    facts = checkpoint.facts(course, rows, card, seed)
    checkpoint.own(output, facts)
    method = catalog.load("methods", course.method)
    _fits(method, SimpleNamespace(config=card.config), course)  # as far as that says
    live = load(course.model, device=on, dtype="float32", trust_remote_code=trust_remote_code)
    facts["weights"] = live.weights
    checkpoint.own(output, facts)
    _fits(method, live.model, course)
    cached = live.model.config.use_cache
    torch.manual_seed(seed)  # of new weights: adapters, a method's own
    with ExitStack() as stack:
        stack.enter_context(quiet())
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", module="peft")
        warnings.simplefilter("ignore", FutureWarning)  # its calls of transformers
        split = "parallelism_config" in (distributed or {})
        stack.enter_context(_attending(live.model, "sdpa" if split else attention.INTERFACE))
        stack.enter_context(in_pieces(live.model))
        base = {name for name, _ in live.model.named_parameters()}
        stack.enter_context(method.in_training(live.model, course.target))
        if split:
            _check_shared(live.model, course.method)
        own = {name for name, _ in live.model.named_parameters()} - base
        learner = thawed(live.model, course.numbers, own)
        arguments = _arguments(course, output, on, seed, save_every, ample, distributed or {})
        processes.wait_for_everyone()  # all have seen that the folder is free
        if processes.is_main_process:
            checkpoint.begin(output, facts, course, card)
        trainer = _Trainer(
            own=own if learner is not live.model else (),
            model=learner,
            args=arguments,
            train_dataset=_Labelled(rows, course.updates * course.rows),
            data_collator=_stacked,
            callbacks=[_Halting(), _Telling(watch, course, output)],
        )
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        last = newest(output)
        _check_processes(last, processes.num_processes)
        watch.begun(course, int(last.name.rpartition("-")[2]) if last else 0)
        trainer.train(resume_from_checkpoint=str(last) if last else None)
        trained = checkpoint.account(course, rows, live, seed, own)
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # of all processes
        if trainer.is_world_process_zero():
            live.model.config.use_cache = cached  # which Trainer has put off
            if template := getattr(rows, "template", None):  # it learned one it did not have
                live.tokenizer.chat_template = template
            checkpoint.publish(trainer.model, weights, live, own, output, trained)
    return trained


def _fits(method: Method, model: Any, course: Course) -> None:
    """Raises ValueError: it cannot be trained on this model."""
    if reason := method.unfit(model, course.target):
        why = reason.removesuffix(".")
        raise ValueError(f"{course.method} cannot be trained on {course.model}: {why}.")


def _check_processes(save: Path | None, count: int) -> None:
    """Each process draws its own positions, and goes on drawing where it was saved.

    Raises:
        ValueError: another number of processes saved.
    """
    before = len([*save.glob("rng_state*.pth")]) if save else count
    if before != count:
        raise ValueError(
            f"{save} was saved by {before} processes, and {count} would go on otherwise than "
            f"they: start {before}, or give another --output."
        )


def _processes(on: str) -> "PartialState":
    from accelerate import PartialState

    return PartialState(cpu=on == "cpu")


@contextmanager
def _attending(model: nn.Module, interface: str) -> Iterator[None]:
    """Attention whose memory does not grow with the square, and whose output is kept.

    Where processes share a sequence it must be torch's own, which accelerate then splits. Families
    that do not ask transformers' interface keep their own: by a name that transformers has no mask
    for, they would see what comes.
    """
    config, family = model.get_decoder().config, family_of(model.config)
    before = config._attn_implementation
    if not (family.biased or family.calls_sdpa):
        config._attn_implementation = interface
    try:
        yield
    finally:
        config._attn_implementation = before


def _check_shared(model: nn.Module, method: str) -> None:
    """See that processes which share a sequence encode their parts of it as one would the whole."""
    decoder = model.get_decoder()
    rotary = getattr(decoder, "rotary_emb", None)
    if type(rotary) is not Rotation or decoder.config._attn_implementation != "sdpa":
        raise ValueError(
            f"{method} draws positions or bends attention over a whole sequence, which "
            "--context-parallel splits: leave it out."
        )


def shared(rows: int, world: int, distributed: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Turns of an update in which each group of processes reads one sequence; and how they share.

    Processes that share a sequence are a group.

    Raises:
        ValueError: they cannot.
    """
    each = together(distributed)
    if world % each:
        raise ValueError(f"--context-parallel {each} does not divide {world} processes.")
    groups = world // each
    if rows % groups:
        raise ValueError(
            f"{rows} sequences an update cannot be shared by {groups} "
            f"{'processes' if each == 1 else 'groups of processes'}: "
            "choose --batch-tokens so that they can."
        )
    if each > 1:
        from accelerate.utils import ParallelismConfig

        how = ParallelismConfig(cp_size=each, dp_shard_size=groups)
        distributed = distributed | {"parallelism_config": how}
    return rows // groups, distributed


def _arguments(
    course: Course,
    output: Path,
    on: str,
    seed: int,
    save_every: int,
    ample: bool,
    distributed: dict[str, Any],
) -> TrainingArguments:
    numbers = course.numbers
    turns, distributed = shared(course.rows, _processes(on).num_processes, distributed)
    kept = partial(attention.checkpoint_context, products=ample)
    keep = {"use_reentrant": False, "context_fn": kept}
    arguments = TrainingArguments(
        output_dir=str(output / SAVES),
        max_steps=numbers.steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=turns,
        learning_rate=numbers.learning_rate,
        lr_scheduler_type=SCHEDULES[numbers.schedule],
        warmup_steps=_warmup(numbers),
        weight_decay=numbers.weight_decay,
        adam_beta1=numbers.betas[0],
        adam_beta2=numbers.betas[1],
        max_grad_norm=numbers.clip or 0.0,
        bf16=machine.dtype(course.dtype, on) is torch.bfloat16,
        use_cpu=on == "cpu",
        activation_checkpointing=course.checkpointing,
        activation_checkpointing_kwargs=keep if course.checkpointing else None,
        save_steps=save_every,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        seed=seed,
        data_seed=seed,
        report_to=[],
        remove_unused_columns=False,
        disable_tqdm=True,
        dataloader_pin_memory=on == "cuda",
        **distributed,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # else one process spreads over all GPUs it sees
    return arguments


class _Labelled(torch.utils.data.Dataset):
    """Rows with what is to be learned of them: every token, where they do not say."""

    def __init__(self, rows: Rows, wanted: int) -> None:
        self.rows, self.wanted = rows, wanted

    def __len__(self) -> int:
        """As many as the course reads: at the end of a pass an update would read less."""
        return max(len(self.rows), self.wanted)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        row = self.rows[range(len(self))[index] % len(self.rows)]
        return {"input_ids": row["input_ids"], "labels": row.get("labels", row["input_ids"])}


def _stacked(rows: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


class _Trainer(Trainer):
    """Stops at the first loss that is no number; shards weights on CPUs too.

    Beside adapters, of which alone peft takes care, a save holds the method's own weights. It is
    whole once its state is there, which the first process writes when all have written theirs.
    """

    def __init__(self, *, own: Collection[str], **arguments: Any) -> None:
        self._own = own
        super().__init__(**arguments)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        with by_live_names(self.model):
            super()._save(output_dir, state_dict)
        if self._own:
            save_own(self.model, self._own, Path(output_dir or self.args.output_dir))

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if not self.is_fsdp_enabled:  # which has weights in files of its own
            see_whole(self.model, Path(resume_from_checkpoint))
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self._own:
            load_own(self.model, self._own, Path(resume_from_checkpoint))

    def create_accelerator_and_postprocess(self) -> None:
        """Accelerate leaves FSDP out on CPUs, in silence; torch's fully_shard works there."""
        from accelerate import PartialState
        from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

        super().create_accelerator_and_postprocess()
        state, asked = self.accelerator.state, self.args.fsdp_plugin_args
        if asked is None or state.distributed_type != DistributedType.MULTI_CPU:
            return
        plugin = FullyShardedDataParallelPlugin(**asked)
        if state.mixed_precision != "no":
            plugin.set_mixed_precision(state.mixed_precision)
        state.fsdp_plugin = plugin
        for each in (PartialState(), state):  # the second copies the first, again and again
            each.distributed_type = DistributedType.FSDP
        self.is_fsdp_enabled = True

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        _check_number("loss", loss, self.args, self.state)
        return loss

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        with saving(Path(self.args.output_dir), SAFE):
            super()._save_checkpoint(*args, **kwargs)


def _check_number(what: str, value: Tensor, args: Any, state: Any) -> None:
    if value.isfinite():
        return
    last = newest(Path(args.output_dir).parent)
    safe = f"update {last.name[11:]}" if last else "none yet"
    raise FloatingPointError(
        f"The {what} is {float(value)} at update {state.global_step + 1}. Last save: {safe}. "
        "A lower --learning-rate, into another --output, may help."
    )


class _Halting(TrainerCallback):
    """Makes no update of gradients that are no numbers: what is saved stays good."""

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: nn.Module, **_: Any
    ) -> None:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        _check_number("gradient", nn.utils.get_total_norm(gradients), args, state)


class _Telling(TrainerCallback):
    """Every update into the log, and to whoever watches."""

    def __init__(self, watch: Watch, course: Course, output: Path) -> None:
        self.watch, self.course, self.log = watch, course, output / LOG
        self.since = time.perf_counter()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.since = time.perf_counter()
        if not state.is_world_process_zero:
            return
        kept = self.log.read_text("utf-8").splitlines() if self.log.exists() else []
        known = [line for line in kept if 0 < _step(line) <= state.global_step]
        write_whole(self.log, "".join(f"{line}\n" for line in known))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict, **_: Any) -> None:
        if "loss" not in logs or not state.is_world_process_zero:
            return
        each = self.course.rows * self.course.numbers.sequence_length
        seconds, self.since = time.perf_counter() - self.since, time.perf_counter()
        entry = {
            "step": state.global_step,
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "gradient_norm": float(logs.get("grad_norm", math.nan)),
            "seconds": round(seconds, 3),
            "tokens": state.global_step * each,
            "tokens_per_second": round(each / seconds, 1),
            "peak_memory": machine.peak_memory("cpu" if args.use_cpu else "cuda"),
        }
        with saving(self.log, SAFE), self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        self.watch.updated(entry)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.watch.saved(state.global_step)


def _step(line: str) -> int:
    """Of a line of the log; 0 of one that was not written whole."""
    try:
        return int(parsed(line, "it")["step"])
    except (ValueError, KeyError, TypeError):
        return 0


def _warmup(numbers: Recipe) -> float:
    """A share that would be all there is, of a few updates, is none: else nothing moved."""
    share = numbers.warmup < 1
    return (
        0
        if share and math.ceil(numbers.warmup * numbers.steps) >= numbers.steps
        else numbers.warmup
    )
