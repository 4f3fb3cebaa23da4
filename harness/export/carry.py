"""A configuration that carries a method's encoding, in transformers' own words where it has them.

The words are the method's (`native`). Where transformers has none, the frequencies themselves are
listed, and a few lines of code that come with the checkpoint read them.
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from torch import equal, nn, tensor

from harness.model import quiet
from harness.rope import Rope, parameters
from harness.rotary import Reencoding

FULL = "full_attention"
"""The layers that a method bends, where rope parameters are nested by type of layer."""
STILL = 1e20
"""A divisor of what does not turn: JSON has no infinity."""
KEPT = ("rope_theta", "partial_rotary_factor")
"""What stays of a checkpoint's own rope parameters."""


@dataclass(frozen=True)
class Carried:
    """A configuration, and what it does not say of itself."""

    config: Any
    length: int
    """Tokens that it is to read."""
    rope: dict[str, Any]
    """Its rope parameters; of the layers with full attention, where there are others."""
    code: str | None = None
    """A modelling file that it needs."""
    notes: tuple[str, ...] = ()

    @property
    def switches_at(self) -> int:
        """The longest pass that transformers reads by other factors; 0: there is none."""
        two = self.rope.get("short_factor") != self.rope.get("long_factor")
        return self.rope.get("original_max_position_embeddings", 0) if two else 0

    def unseen(self, n: int) -> str | None:
        """What a comparison over n tokens does not see, in words; None: it sees all there is."""
        if n <= self.switches_at:
            return (
                f"The {n:,} tokens of the check are read by `short_factor`: `long_factor` was not "
                f"compared. --check-length {self.switches_at + 1} does."
            )
        before = self.rope.get("lengths", [0])[:-1]
        if before and n <= before[-1]:
            return (
                f"The {n:,} tokens of the check are read by the encoding of that length: those of "
                f"longer texts were not compared. --check-length {before[-1] + 1} sees the last."
            )
        return None

    def encodes(self, n: int) -> int:
        """The length that transformers encodes for when a pass reads n tokens."""
        if self.rope["rope_type"] == "dynamic":
            return n
        if "lengths" in self.rope:
            return next((length for length in self.rope["lengths"] if n <= length), self.length)
        return self.switches_at if n <= self.switches_at else self.length

    def save(self, model: nn.Module, folder: Path) -> None:
        """The model's weights and this configuration, and the modelling file if there is one."""
        before, model.config = model.config, self.config
        try:  # transformers gives no class but its own the weights that it names otherwise on disk
            model.save_pretrained(folder, save_original_format=self.code is None)
        finally:
            model.config = before
        if self.code:
            (folder / self.file).write_text(self.code, "utf-8")

    @property
    def file(self) -> str:
        """The modelling file's name."""
        return f"modeling_{self.rope['rope_type'].replace('-', '_')}.py"


def carried(model: nn.Module, method: Reencoding, name: str, length: int) -> Carried:
    """The model's configuration, extended by a method to read `length` tokens.

    Raises:
        LookupError: as it is set, no checkpoint can carry the method.
    """
    rope, config = Rope.of(model), deepcopy(model.config)
    native = method.native(rope, length)
    if native == {}:
        return _unchanged(config, rope, length)
    found = _listed(model, method, name, length) if native is None else native
    text = config.get_text_config()
    text.max_position_embeddings = rope.original_length  # also for dynamic, whose rule reads it
    # Families with a field of this name put it above their rope parameters, and llama.cpp looks
    # nowhere else for the window that Llama 3's rule is about.
    text.original_max_position_embeddings = rope.original_length
    if getattr(text, "head_dim", 0) is None:  # Mixtral's, which rules for rope types multiply by
        text.head_dim = text.hidden_size // text.num_attention_heads
    if not _accepted(config, text, found):
        found = _divided(model, method, length)
        if not _accepted(config, text, found):
            raise LookupError(
                f"The configuration of a {text.model_type} refuses the rope type "
                f"{found['rope_type']!r}, so no checkpoint of it can carry {name}."
            )
    if found["rope_type"] != "dynamic":
        text.max_position_embeddings = length
    code = _code(model, found) if "frequencies" in found else None
    carry = Carried(
        config=config,
        length=length,
        rope=dict(parameters(text)),
        code=code,
        notes=(*_notes(method, found, length), *_between(method, rope, found, length)),
    )
    if code:
        at = f"{carry.file.removesuffix('.py')}.{_class(model)}"
        config.auto_map = {"AutoModelForCausalLM": at}
        config.architectures = [_class(model)]
    return carry


def _unchanged(config: Any, rope: Rope, length: int) -> Carried:
    """As it is; only a checkpoint without a scaling may say that it reads further."""
    text = config.get_text_config()
    if rope.scaling == "default" and length > text.max_position_embeddings:
        text.original_max_position_embeddings = rope.original_length
        text.max_position_embeddings = length
    return Carried(config, length, dict(parameters(text)))


def _accepted(config: Any, text: Any, found: dict[str, Any]) -> bool:
    """Put rope parameters into the configuration; whether it comes back from disk with them."""
    own = text.rope_parameters
    layers = own.get(FULL, own)
    put = {key: layers[key] for key in KEPT if key in layers} | found
    text.rope_parameters = {**own, FULL: put} if FULL in own else put
    try:
        with quiet():
            back = type(config).from_dict(config.to_dict())
    except (ValueError, KeyError, StrictDataclassError):  # Phi-3's knows LongRoPE alone
        text.rope_parameters = own
        return False
    return parameters(back.get_text_config()) == put


def _divided(model: nn.Module, method: Reencoding, length: int) -> dict[str, Any]:
    """The encoding of one length, as LongRoPE's divisors: any frequencies can be had by them."""
    rope, facts = Rope.of(model), method.provenance(model, length)
    each = rope.frequencies / tensor(facts["frequencies"], dtype=rope.frequencies.dtype)
    each = each.clamp(max=STILL)
    scale = max(1.0, length / rope.original_length)
    return rope.divided(each, float(facts["attention_factor"]), scale)


def _listed(model: nn.Module, method: Reencoding, name: str, length: int) -> dict[str, Any]:
    """The encoding as its frequencies: of each stage of lengths, or of the one there is."""
    name = name.partition("@")[0]  # of a file, whose content is no part of a rope type
    stages = method.stages(model, length)
    each = [method.provenance(model, n) for n in stages]
    found = {
        "rope_type": f"{name}-fixed",
        "frequencies": each[-1]["frequencies"],
        "attention_factor": float(each[-1]["attention_factor"]),
    }
    if len(stages) == 1:
        return found
    rates = [facts["frequencies"] for facts in each]
    return found | {
        "rope_type": f"{name}-by-length",
        "lengths": list(stages),
        "frequencies": rates,
    }


def _notes(method: Reencoding, found: dict[str, Any], length: int) -> list[str]:
    kind = found["rope_type"]
    if kind == "dynamic":
        return [
            "transformers scales anew at each forward pass, by the last position of that pass: "
            "while text is generated, keys read earlier keep an older rotation. `harness run` "
            "fixes the scale before the first token, so beyond the original length the two differ. "
            "The check below reads its input in one pass, where they agree."
        ]
    notes, two = [], found.get("short_factor") != found.get("long_factor")
    if two:
        notes.append(
            "transformers takes `short_factor` for passes within the original length and "
            "`long_factor` beyond it: where text grows past that, keys read earlier keep the short "
            "rotation. `harness run` fixes the choice before the first token."
        )
    elif kind == "longrope":
        notes.append(
            "transformers takes `short_factor` for passes within the original length and "
            "`long_factor` beyond it; here they are the same, so nothing changes as text grows."
        )
    if "lengths" in found:
        notes.append(
            f"The modelling file takes one of {len(found['lengths'])} encodings by the length of a "
            "text as it begins, as `harness run` does by a cell's. Where text grows past what that "
            "is for, the next one turns what comes, and keys read earlier keep the older rotation."
        )
    elif method.depends_on_length and not two:
        notes.append(
            "This method encodes inputs of another length otherwise. transformers keeps keys as "
            f"they were rotated, so the encoding here is the one for {length:,} tokens, at every "
            "length."
        )
    if "frequencies" in found:
        notes.append(
            "transformers has no rope type for this encoding. The frequencies are in config.json, "
            "and the modelling file beside it reads them: `trust_remote_code=True` is needed. "
            "Without it loading fails; nothing is read wrongly in silence."
        )
    return notes


def _between(method: Reencoding, rope: Rope, found: dict[str, Any], length: int) -> list[str]:
    """What is said of lengths that have factors of their own, and no place in a configuration."""
    first, last = (method.encoding(rope, n) for n in (rope.original_length + 1, length))
    if found["rope_type"] != "longrope" or equal(first.frequencies, last.frequencies):
        return []
    source = method.resolved(rope, length).get("factors_from")
    if source in (None, getattr(method, "start", None)):  # none were searched
        return []
    return [
        f"`harness run` reads inputs beyond {rope.original_length:,} tokens, up to where the "
        "factors were searched for them, by other factors than those for "
        f"{length:,}: transformers knows two sets alone, and takes `long_factor` for them."
    ]


def _class(model: nn.Module) -> str:
    return f"Fixed{type(model).__name__}"


def _code(model: nn.Module, found: dict[str, Any]) -> str:
    """The modelling file. It keeps no buffer of its own: transformers 5 would refill it."""
    family, by_length = type(model).__name__, "lengths" in found
    which = "a list for each of the `lengths`" if by_length else "the same at every length"
    first = 'rope["frequencies"][0]' if by_length else 'rope["frequencies"]'
    return f'''"""{family}, turned by the frequencies listed in its config.json.

Radians per token, one for each pair of channels, fastest first; {which}.
"""

import torch
from transformers import {family}
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS


def listed(config, device=None, seq_len=None, layer_type=None, **_):
    rope = config.rope_parameters
    rope = rope if layer_type is None else rope[layer_type]
    frequencies = torch.tensor({first}, dtype=torch.float32, device=device)
    return frequencies, rope["attention_factor"]


ROPE_INIT_FUNCTIONS["{found["rope_type"]}"] = listed
{CHOOSING if by_length else ""}

class {_class(model)}({family}):
    """As it is: its rotary embedding asks for the rule above by the name of the rope type."""
{HOOKED if by_length else ""}'''


CHOOSING = '''

def choose(rotary, args, kwargs):
    """Before each pass: by a text's length as it begins, and the next where it grows past that."""
    given = dict(zip(("x", "position_ids", "layer_type"), args)) | kwargs
    positions, layer_type = given["position_ids"], given.get("layer_type")
    rope = rotary.config.rope_parameters
    rope = rope if layer_type is None else rope[layer_type]
    if "lengths" not in rope:
        return
    n = int(positions.max()) + 1
    stage = sum(n > length for length in rope["lengths"][:-1])
    if positions.shape[-1] < n:  # it began in a pass before
        stage = max(stage, rotary.stage)
    rotary.stage = stage
    name = "inv_freq" if layer_type is None else f"{layer_type}_inv_freq"
    frequencies = rope["frequencies"][stage]
    setattr(rotary, name, torch.tensor(frequencies, dtype=torch.float32, device=positions.device))
'''
HOOKED = """
    def __init__(self, config):
        super().__init__(config)
        self.get_decoder().rotary_emb.stage = 0
        self.get_decoder().rotary_emb.register_forward_pre_hook(choose, with_kwargs=True)
"""
"""What a modelling file has besides, where the encoding is one of several, by the text's length."""
