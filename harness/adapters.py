"""Low-rank adapters as peft writes them, put into the model they were trained on.

A folder with adapter_config.json and no weights of its own is read as its base with W + s B A in
the place of W: Hu et al. 2021, https://arxiv.org/abs/2106.09685. Nothing of peft is needed for it.
"""

from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import trained
from harness.disk import parsed

if TYPE_CHECKING:
    from torch import Tensor, nn

ADAPTER = "adapter"
"""The folder of them in a trained model's, whose name they go by."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
OWN = "method.safetensors"
"""Beside them: the weights of a method that has some, as CLEX's equation."""
AROUND = "base_model.model."
"""What peft puts before a weight's name."""
READ = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),
}
"""What settings must be that change what the weights mean: some starts change the base, too."""
SAID = {
    *("r", "lora_alpha", "use_rslora", "lora_dropout", "target_modules", "modules_to_save"),
    *("base_model_name_or_path", "task_type", "inference_mode", "revision", "peft_version"),
    *("auto_mapping", "exclude_modules", "layers_to_transform", "layers_pattern", "eva_config"),
    *("megatron_core", "ensure_weight_tying", "target_parameters", "loftq_config"),
    *("qalora_group_size", "runtime_config"),
}
"""Settings that change nothing else. Any other must be off."""


def is_adapter(folder: Path) -> bool:
    """Whether it holds what to add to another model, and no model."""
    return (folder / CONFIG).is_file() and not any(folder.glob("model*.safetensors"))


def name(folder: Path) -> str:
    """What a model with them is called."""
    place = folder.resolve()
    return place.parent.name if place.name == ADAPTER else place.name


def base(folder: Path) -> str:
    """The model it belongs to, by name.

    Raises:
        LookupError: it does not say, or is of a kind that is not read.
    """
    its = _config(folder).get("base_model_name_or_path")
    if not its:
        raise LookupError(f"{folder} does not say which model its adapters belong to.")
    return str(its)


def check(folder: Path, weights: str) -> None:
    """See that the base is the one they were trained on, as far as they say.

    Args:
        folder: of adapters.
        weights: sha256 of the base's.

    Raises:
        LookupError: it is another.
    """
    said = trained.read(folder)
    if said and said.base_weights != weights:
        raise LookupError(
            f"{folder} was trained on {said.base} with the weights {said.base_weights[:8]}, and "
            f"here they are {weights[:8]}."
        )


def put_into(model: "nn.Module", folder: Path, dtype: Any) -> None:
    """Add them to the weights, rounded as a checkpoint in `dtype` would be.

    Raises:
        LookupError: a weight that the model does not have, or that is not there to be changed.
    """
    import torch

    changes = list(_changes(folder))
    _untie(model, {its for its, _, instead in changes if instead})
    weights = dict(model.named_parameters(remove_duplicate=False))
    for its, change, instead in changes:
        if its not in weights or weights[its].shape != change.shape:
            raise LookupError(f"{folder} changes {its}, which its base has not, or not so large.")
        if weights[its].is_meta:
            raise LookupError(
                f"--device-map leaves {its} where it is only fetched to be called, and {folder} "
                "changes it: give more memory, or merge them into their base with peft."
            )
        with torch.no_grad():
            held = weights[its]
            new = change if instead else held.to(dtype).float() + change.to(held.device)
            held.copy_(new.to(dtype))


def _untie(model: "nn.Module", replaced: set[str]) -> None:
    """Give the head weights of its own, if it has the embedding's and only those are replaced."""
    from torch import nn

    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    names = dict(model.named_parameters(remove_duplicate=False))
    both = {name for name, weight in names.items() if weight is embedding.weight}
    if head.weight is embedding.weight and len(both & replaced) == 1:
        head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False


def own(folder: Path) -> dict[str, "Tensor"]:
    """The weights of the method that they were trained with, by name; none of most methods."""
    from safetensors.torch import load_file

    return load_file(folder / OWN) if (folder / OWN).is_file() else {}


def _changes(folder: Path) -> Iterator[tuple[str, "Tensor", bool]]:
    """A weight's name, and what is added to it, or put instead of it; float32."""
    from safetensors.torch import load_file

    config, held = _config(folder), load_file(folder / WEIGHTS)
    rank = config["r"]
    scale = config["lora_alpha"] / (sqrt(rank) if config.get("use_rslora") else rank)
    for key in sorted(held):
        weight = key.removeprefix(AROUND)
        if key.endswith(".lora_A.weight") and key.replace(".lora_A.", ".lora_B.") in held:
            high = held[key.replace(".lora_A.", ".lora_B.")].float()
            yield weight.replace(".lora_A", ""), scale * (high @ held[key].float()), False
        elif key.endswith(".lora_B.weight") and key.replace(".lora_B.", ".lora_A.") in held:
            continue
        elif "lora_" in key:
            raise LookupError(f"{folder} holds {key}, which is no part of plain LoRA.")
        else:
            yield weight, held[key].float(), True


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = parsed((folder / CONFIG).read_bytes(), "it")
        rank, alpha = config["r"], config["lora_alpha"]
        if not (isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float)):
            raise ValueError("r and lora_alpha are no numbers above 0")
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else error
        raise LookupError(f"{folder / CONFIG} cannot be read: {said}") from None
    unlike = [key for key, may in READ.items() if config.get(key, may[0]) not in may]
    unlike += [key for key in config if key not in SAID | READ.keys() and config[key]]
    if unlike:
        raise LookupError(
            f"{folder} holds adapters with {unlike[0]}={config[unlike[0]]!r}, and only plain LoRA "
            "is read: merge them into their base with peft."
        )
    return config
