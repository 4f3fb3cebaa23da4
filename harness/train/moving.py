"""Which weights move: all, a method's own, or low-rank adapters and what is trained beside them.

Hu et al. 2021, https://arxiv.org/abs/2106.09685
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel

from harness import adapters
from harness.adapters import OWN
from harness.method import Recipe


def thawed(model: nn.Module, numbers: Recipe, own: Collection[str]) -> nn.Module:
    """The model with the weights that the recipe moves ready to be moved; `own`: the method's."""
    if numbers.trains == "encoding" and not own:
        raise ValueError("This method has no weights of its own: train all, or adapters.")
    learner = _adapted(model, numbers) if numbers.trains == "lora" else model
    for name, parameter in learner.named_parameters():
        if numbers.trains == "all" or name.endswith(tuple(own)):
            parameter.requires_grad_(True)
    return learner


def save_own(learner: nn.Module, own: Collection[str], folder: Path) -> None:
    """The method's own weights, by the names they have in the model, as adapters know it not."""
    save_file({name: w.detach().contiguous() for name, w in _own(learner, own)}, folder / OWN)


def load_own(learner: nn.Module, own: Collection[str], folder: Path) -> None:
    """The way back.

    Raises:
        ValueError: the save has none, and what it holds would go on without them.
    """
    held = adapters.own(folder)
    if missing := {*own} - held.keys():
        raise ValueError(
            f"{folder} was saved without {min(missing)}: delete it, to go on from the one before."
        )
    with torch.no_grad():
        for name, weight in _own(learner, own):
            weight.copy_(held[name])


@contextmanager
def by_live_names(learner: nn.Module) -> Iterator[None]:
    """Let a save have weights by the names they have here, by which a training reads them again.

    transformers writes some by others, as experts are called in published checkpoints.
    """
    if not isinstance(learner, PreTrainedModel):  # adapters
        yield
        return
    learner.save_pretrained = partial(learner.save_pretrained, save_original_format=False)
    try:
        yield
    finally:
        del learner.save_pretrained


def see_whole(learner: nn.Module, folder: Path) -> None:
    """See that a save has every weight, for one that it lacks would go on as the base's.

    Raises:
        ValueError: it does not; says which.
    """
    files = sorted(folder.glob("model*.safetensors"))
    if not files:  # adapters
        return
    held = {name for file in files for name in _names(file)}
    here = learner.state_dict(keep_vars=True)
    there = {id(weight) for name, weight in here.items() if name in held}
    if lost := [name for name, weight in here.items() if id(weight) not in there]:
        raise ValueError(
            f"{folder} was saved without {lost[0]}: delete it, to go on from the one before."
        )


def _names(file: Path) -> list[str]:
    try:
        with safe_open(file, "pt") as held:
            return list(held.keys())
    except SafetensorError:
        raise ValueError(
            f"{file} is torn: delete {file.parent} to go on from the save before, or the start."
        ) from None


def _own(learner: nn.Module, own: Collection[str]) -> Iterator[tuple[str, nn.Parameter]]:
    for name, weight in learner.named_parameters():
        if name.removeprefix(adapters.AROUND) in own:
            yield name.removeprefix(adapters.AROUND), weight


def _adapted(model: nn.Module, numbers: Recipe) -> nn.Module:
    """Low-rank adapters on attention, and the modules a recipe trains beside them."""
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "Adapters need peft. Run: pip install 'context-harness[train]'"
        ) from None
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    apart, together = ("q_proj", "k_proj", "v_proj"), ("qkv_proj", "query_key_value", "Wqkv")
    attention_names = (*apart, *together, "o_proj", "out_proj", "dense")
    config = LoraConfig(
        r=numbers.rank,
        lora_alpha=numbers.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=[n for n in attention_names if n in names],
        modules_to_save=[n for n in sorted(names) if any(a in n for a in numbers.also)] or None,
        ensure_weight_tying=bool(numbers.also),  # a head that is the embedding is trained with it
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)
