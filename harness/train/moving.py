"""Which weights move: all, a method's own, or low-rank adapters and what is trained beside them.

Hu et al. 2021, https://arxiv.org/abs/2106.09685
"""

from collections.abc import Collection

from torch import nn

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


def _adapted(model: nn.Module, numbers: Recipe) -> nn.Module:
    """Low-rank adapters on attention, and the modules a recipe trains beside them."""
    try:
        from peft import LoraConfig, get_peft_model
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "Adapters need peft. Run: pip install 'context-harness[train]'"
        ) from None
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    attention_names = ("q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "query_key_value")
    config = LoraConfig(
        r=numbers.rank,
        lora_alpha=numbers.alpha,
        lora_dropout=0.0,
        bias="none",
        target_modules=[n for n in (*attention_names, "dense") if n in names],
        modules_to_save=[n for n in sorted(names) if any(a in n for a in numbers.also)] or None,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)
