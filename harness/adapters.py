"""Low-rank adapters as peft writes them, put into the model they were trained on.

A folder with adapter_config.json and no weights of its own is read as its base with W + s B A in
the place of W: Hu et al. 2021, https://arxiv.org/abs/2106.09685. Nothing of peft is needed for it.
"""

import json
from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import trained

if TYPE_CHECKING:
    from torch import Tensor, nn

ADAPTER = "adapter"
"""The folder of them in a trained model's, whose name they go by."""
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
AROUND = "base_model.model."
"""What peft puts before a weight's name."""
PLAIN: dict[str, Any] = {
    **{"peft_type": "LORA", "bias": "none", "use_dora": False, "fan_in_fan_out": False},
    **{"rank_pattern": {}, "alpha_pattern": {}, "layer_replication": None},
    "trainable_token_indices": None,
}
"""What is read; of a setting that is missing, its default."""


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
        LookupError: a weight that the model does not have.
    """
    import torch

    weights = dict(model.named_parameters())
    for its, change, instead in _changes(folder):
        if its not in weights or weights[its].shape != change.shape:
            raise LookupError(f"{folder} changes {its}, which its base has not, or not so large.")
        with torch.no_grad():
            held = weights[its]
            new = change if instead else held.to(dtype).float() + change.to(held.device)
            held.copy_(new.to(dtype))


def _changes(folder: Path) -> Iterator[tuple[str, "Tensor", bool]]:
    """A weight's name, and what is added to it, or put instead of it; float32."""
    from safetensors.torch import load_file

    config, held = _config(folder), load_file(folder / WEIGHTS)
    rank = config["r"]
    scale = config["lora_alpha"] / (sqrt(rank) if config.get("use_rslora") else rank)
    for key, tensor in held.items():
        weight = key.removeprefix(AROUND)
        if ".lora_A." in weight:
            low, high = tensor.float(), held[key.replace(".lora_A.", ".lora_B.")].float()
            yield weight.replace(".lora_A", ""), scale * (high @ low), False
        elif ".lora_B." not in weight:
            yield weight, tensor.float(), True


def _config(folder: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise LookupError(f"{folder / CONFIG} cannot be read: {error}") from None
    if unlike := [k for k, plain in PLAIN.items() if config.get(k, plain) not in (plain, None)]:
        raise LookupError(
            f"{folder} holds adapters with {unlike[0]}={config[unlike[0]]!r}, and only plain LoRA "
            "is read: merge them into their base with peft."
        )
    return config
