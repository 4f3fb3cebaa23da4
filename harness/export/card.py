"""The parity card: what was exported, how it was checked, how to load it. JSON and Markdown."""

import json
from collections.abc import Iterator
from math import log, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.learned import noticed
from harness.lengths import label

if TYPE_CHECKING:
    from harness.export import Order
    from harness.export.carry import Carried
    from harness.export.parity import Parity, Stretch
    from harness.model import Live

LONG = 8
"""Numbers of a list that the page shows; parity.json and config.json have all."""


def facts_of(order: "Order", carry: "Carried", live: "Live") -> dict[str, Any]:
    """What the checkpoint is, before it is checked."""
    from harness import machine

    method, trained = order.method, order.card.trained
    text = carry.config.get_text_config()
    notice = noticed(order.spec, live, order.length)
    return {
        "source": order.card.spec,
        "source_weights": live.weights,
        "method": order.spec,
        "formula": method.formula,
        "paper": method.paper,
        "trained": trained and trained.model_dump(),
        "original_length": order.card.original_length,
        "length": order.length,
        "dtype": order.dtype,
        "rope_parameters": carry.rope,
        "max_position_embeddings": text.max_position_embeddings,
        "code": carry.code and carry.file,
        "notes": [*carry.notes, *([notice] if notice else [])],
        "made_with": machine.versions() | machine.commit(),
    }


def write(folder: Path, facts: dict[str, Any], parity: "Parity") -> None:
    """`parity.json` and `PARITY.md`."""
    text = json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "parity.json").write_text(text + "\n", "utf-8")
    (folder / "PARITY.md").write_text(markdown(facts, parity), "utf-8")


def markdown(facts: dict[str, Any], parity: "Parity") -> str:
    return "\n\n".join([*_about(facts), *_checked(facts, parity), *_loading(facts)]) + "\n"


def summary(parity: "Parity") -> str:
    """In a sentence: whether it is the model that was measured."""
    whole = parity.whole
    same = "the same logits" if parity.passed else "NOT the logits"
    return (
        f"Plain transformers finds {same} as the engine over {whole.stop:,} tokens: root mean "
        f"square difference {whole.rms:.2g} of the logits' own, largest {whole.largest:.2g}, the "
        f"same likeliest token at {whole.agreement:.2%} of positions."
    )


def _about(facts: dict[str, Any]) -> Iterator[str]:
    yield f"# {facts['source']}, extended by {facts['method']}"
    rows = {
        "method": f"`{facts['method']}`: {facts['paper']}",
        "formula": f"`{facts['formula']}`",
        "trained": _training(facts["trained"]),
        "original length": f"{facts['original_length']:,} tokens",
        "reads": f"{facts['length']:,} tokens",
        "weights": f"{facts['dtype']}, from sha256 {facts['source_weights'][:16]}",
    }
    yield _table(("", ""), rows.items())
    shown = {key: _short(value) for key, value in facts["rope_parameters"].items()}
    shown["max_position_embeddings"] = str(facts["max_position_embeddings"])
    yield "In `config.json`, under `rope_parameters` (the name of transformers 5):"
    yield _table(("field", "value"), shown.items())
    yield from facts["notes"]


def _checked(facts: dict[str, Any], parity: "Parity") -> Iterator[str]:
    yield "## Parity"
    yield f"**{'Passed' if parity.passed else 'FAILED'}.** {summary(parity)}"
    if not parity.passed:
        yield "Do not use this checkpoint for the numbers that `harness run` measured."
    n = parity.whole.stop
    seen = "" if n >= facts["length"] else " Positions beyond were not compared (--check-length)."
    yield (
        f"This folder, loaded by plain transformers, read {n:,} tokens of {facts['text']} in one "
        "pass; the engine of `harness run` read them with the method applied to the source; both "
        f"in float32.{seen}"
    )
    head = ("positions", "rms, share of the logits'", "tolerated", "largest", "same likeliest")
    yield _table(head, map(_row, parity.stretches))
    yield (
        "Tolerated is what rounding explains: transformers' table of angles is in float32, whose "
        "error grows with the position; the engine's is in float64."
    )
    made = facts["made_with"]
    yield "Made with " + ", ".join(f"{name} {made[name]}" for name in made if name != "dirty") + "."


def _row(s: "Stretch") -> tuple[str, ...]:
    numbers = (f"{s.rms:.2g}", f"{s.tolerance:.2g}", f"{s.largest:.2g}", f"{s.agreement:.2%}")
    return (f"{s.start:,} to {s.stop - 1:,}", *numbers)


def _loading(facts: dict[str, Any]) -> Iterator[str]:
    yield "## Loading"
    extra = ", trust_remote_code=True" if facts["code"] else ""
    yield f"```python\nmodel = AutoModelForCausalLM.from_pretrained(DIR{extra})\n```"
    commands, remarks = _serving(facts)
    if commands:
        yield "```sh\n" + "\n".join(commands) + "\n```"
        yield "These servers have this rope type by their documentation; none was run here."
    yield from remarks


def _serving(facts: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Commands of vLLM, SGLang and llama.cpp, and what to know of them."""
    rope, n = facts["rope_parameters"], facts["length"]
    kind = rope["rope_type"]
    llama = {
        "default": "",
        "llama3": "",
        "linear": f" --rope-scaling linear --rope-scale {rope.get('factor', 1):g}",
        "yarn": _yarn_flags(rope),
    }
    remarks = _remarks(facts, kind, rope)
    if kind not in (*llama, "longrope"):
        return [], remarks
    commands = [
        f"vllm serve DIR --max-model-len {n}",
        f"python -m sglang.launch_server --model-path DIR --context-length {n}",
    ]
    if kind in llama:
        commands += [
            "python convert_hf_to_gguf.py DIR --outfile model.gguf",
            f"llama-server -m model.gguf --ctx-size {n}{llama[kind]}",
        ]
    return commands, remarks


def _yarn_flags(rope: dict[str, Any]) -> str:
    return (
        f" --rope-scaling yarn --rope-scale {rope.get('factor', 1):g}"
        f" --yarn-orig-ctx {rope.get('original_max_position_embeddings')}"
        f" --yarn-beta-fast {rope.get('beta_fast', 32):g}"
        f" --yarn-beta-slow {rope.get('beta_slow', 1):g}"
    )


def _remarks(facts: dict[str, Any], kind: str, rope: dict[str, Any]) -> list[str]:
    if facts["code"]:
        return ["Servers that do not run a checkpoint's own code cannot read this one."]
    if kind == "dynamic":
        return [
            "vLLM and SGLang hold `dynamic` at one scale, `factor` times the original length, and "
            "llama.cpp does not have it: served so, it is another encoding than this one."
        ]
    if kind == "linear":
        return [
            "Give the length as above: without it, vLLM and SGLang multiply "
            "`max_position_embeddings` by the factor once more."
        ]
    if kind == "yarn" and "attention_factor" in rope:
        return [
            f"`attention_factor` is {rope['attention_factor']:g} here, not YaRN's own 0.1 ln s + "
            f"1 = {0.1 * log(rope['factor']) + 1:.4g}. transformers reads it; older vLLM, SGLang "
            "and llama.cpp may take YaRN's: compare before relying on them."
        ]
    if kind != "longrope":
        return []
    found, original = [], rope["original_max_position_embeddings"]
    implied = sqrt(1 + log(facts["max_position_embeddings"] / original) / log(original))
    if abs(implied - rope["attention_factor"]) > 1e-6:
        found.append(
            f"vLLM and SGLang compute LongRoPE's attention factor from the lengths, {implied:.6g}, "
            f"and do not read the {rope['attention_factor']:.6g} of this checkpoint."
        )
    found.append("llama.cpp has LongRoPE for Phi-3 and its kin only.")
    return found


def _training(trained: dict[str, Any] | None) -> str:
    if trained is None:
        return "no: the weights are the source's"
    return (
        f"from {trained['base']}, recipe {trained['recipe']}: {trained['tokens']:,} tokens in "
        f"{trained['steps']:,} updates, sequences of {label(trained['sequence_length'])}"
    )


def _short(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    if value and isinstance(value[0], list):
        return f"{len(value)} lists of {len(value[0])}"
    shown = ", ".join(f"{number:.6g}" for number in value[:LONG])
    return shown if len(value) <= LONG else f"{shown}, ... ({len(value)})"


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
