"""The numbers are those of the published code, and of transformers.

`golden/` holds what the official classes of the YaRN, LongRoPE and LCEG repositories computed, in
float32: a frequency agrees with them to 1e-6, an attention factor, computed in float64, to 1e-12.
"""

import json
from math import sqrt
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from harness import catalog
from harness.rope import Rope

GOLDEN = {
    p.stem: json.loads(p.read_text()) for p in (Path(__file__).parent / "golden").glob("*.json")
}


def rope(entry):
    return Rope(
        theta=entry["base"], dim=entry["head_dim"], original_length=entry["original_length"]
    )


def encoding(spec, entry, length=None):
    target = length or entry["original_length"] * entry["factor"]
    return catalog.load("methods", spec).encoding(rope(entry), target)


def called(entry):
    return "-".join(str(entry[key]) for key in entry if isinstance(entry[key], int))


def same(mine, theirs, rtol=1e-6):
    assert mine.dtype == torch.float64
    theirs = torch.tensor(theirs, dtype=torch.float64)
    torch.testing.assert_close(mine, theirs, rtol=rtol, atol=0)


every_static = pytest.mark.parametrize("entry", GOLDEN["static"], ids=called)


@every_static
@pytest.mark.parametrize(
    ("spec", "key"),
    [
        ("pi", "pi"),
        ("ntk", "ntk"),
        ("yarn", "yarn"),
        ("yarn,beta_fast=128,beta_slow=2", "yarn_mistral"),
        ("ntk-by-parts", "yarn"),
    ],
)
def test_static_frequencies_are_the_published_ones(entry, spec, key):
    same(encoding(spec, entry).frequencies, entry[key])
    same(encoding(f"{spec},factor={entry['factor']}", entry, 100).frequencies, entry[key])


@every_static
def test_only_yarn_sharpens_attention(entry):
    for spec in ("yarn", "yarn,beta_fast=128,beta_slow=2"):
        found = encoding(spec, entry).attention_factor
        assert found == pytest.approx(entry["yarn_attention_factor"], rel=1e-12)
    for spec in ("pi", "ntk", "ntk-by-parts", "llama3", "cl-scaling"):
        assert encoding(spec, entry).attention_factor == 1.0
    assert encoding("yarn,attention=1.5", entry).attention_factor == 1.5


@every_static
def test_longrope_is_the_published_one(entry, tmp_path):
    file = tmp_path / "factors.json"
    file.write_text(json.dumps(entry["longrope_factors"]))
    su = encoding(f"longrope,factors={file}", entry)
    same(su.frequencies, entry["longrope"])
    assert su.attention_factor == pytest.approx(entry["su"], rel=1e-12)
    yarn = encoding(f"longrope,factors={file},attention=yarn", entry)
    assert yarn.attention_factor == pytest.approx(entry["yarn_policy"], rel=1e-12)


@every_static
def test_longrope_starts_where_the_search_does(entry):
    own = rope(entry)
    for start in ("official", "yarn"):
        method = catalog.load("methods", f"longrope,start={start}")
        same(method.divisors(own, entry["factor"]), entry[f"search_start_{start}"])


every_dynamic = pytest.mark.parametrize("entry", GOLDEN["dynamic"]["dynamic"], ids=called)


@every_dynamic
@pytest.mark.parametrize("factor", [1, 2, 8])
def test_dynamic_ntk_is_the_published_one(entry, factor):
    found = encoding(f"dynamic-ntk,factor={factor}", entry, entry["seq_len"])
    same(found.frequencies, entry[f"ntk_{factor}"])


@every_dynamic
def test_dynamic_yarn_is_the_published_one(entry):
    found = encoding("dynamic-yarn", entry, entry["seq_len"])
    same(found.frequencies, entry["yarn"])
    assert found.attention_factor == pytest.approx(entry["yarn_attention_factor"], rel=1e-12)


@pytest.mark.parametrize("entry", GOLDEN["dynamic"]["lceg_ntk"].values(), ids=["32k", "64k"])
def test_the_controlled_comparison_froze_dynamic_ntk_at_its_target(entry):
    own = Rope(theta=1e4, dim=entry["head_dim"], original_length=entry["original"])
    method = catalog.load("methods", f"dynamic-ntk,factor={entry['factor']:g}")
    same(method.encoding(own, entry["target"]).frequencies, entry["inv_freq"])
    same(own.with_base(entry["new_base"]), entry["inv_freq"])


@pytest.mark.parametrize("spec", ["cl-scaling", "cl-scaling,base=1e6"])
def test_code_llama_has_a_base_of_a_million(spec):
    method, own = catalog.load("methods", spec), Rope(theta=1e4, dim=128, original_length=4096)
    for length in (16, 4096, 65536):
        same(method.encoding(own, length).frequencies, GOLDEN["dynamic"]["cl_scaling"])


@pytest.mark.parametrize("entry", GOLDEN["tables"], ids=called)
def test_tables_are_the_published_ones(entry, tmp_path):
    file = tmp_path / "factors.csv"
    file.write_text("\n".join(map(str, entry["longrope"]["rescale_factors"])))
    specs = {"pi": "pi", "ntk_aware": "ntk", "yarn": "yarn", "longrope": f"longrope,factors={file}"}
    for key, spec in specs.items():
        agrees(encoding(spec, entry), entry[key], entry["positions"])


@pytest.mark.parametrize("entry", GOLDEN["tables"], ids=called)
@pytest.mark.parametrize("in_file", [False, True])
def test_the_first_tokens_keep_their_rotation(entry, in_file, tmp_path):
    start, file = entry["start"], tmp_path / "factors.json"
    n_hat = start["n_hat"]
    held = {"factors": start["rescale_factors"]} | ({"start_tokens": n_hat} if in_file else {})
    file.write_text(json.dumps(held))
    spec = f"longrope,factors={file}" + ("" if in_file else f",start_tokens={n_hat}")
    agrees(encoding(spec, entry), start, start["positions"])


def agrees(encoding, entry, positions):
    """Theirs is float32: an angle is off by its own rounding, 6e-8 of it."""
    cos, sin = encoding.table(torch.tensor(positions))
    for mine, theirs in ((cos, entry["cos"]), (sin, entry["sin"])):
        torch.testing.assert_close(
            mine, torch.tensor(theirs, dtype=torch.float64), rtol=0, atol=4e-7 * max(positions)
        )


FACTORS = [1 + 0.1 * i for i in range(32)]


@pytest.mark.parametrize("theta", [1e4, 5e5])
@pytest.mark.parametrize("factor", [1.0, 2.0, 7.3, 32.0])
@pytest.mark.parametrize(
    ("spec", "theirs", "more"),
    [
        ("pi", "linear", {}),
        ("yarn", "yarn", {}),
        ("yarn,beta_fast=20,beta_slow=3", "yarn", {"beta_fast": 20.0, "beta_slow": 3.0}),
        ("ntk-by-parts", "yarn", {"attention_factor": 1.0}),
        ("dynamic-ntk", "dynamic", {}),
        ("llama3", "llama3", {"low_freq_factor": 1.0, "high_freq_factor": 4.0}),
        ("longrope,factors={}", "longrope", {"long_factor": FACTORS, "short_factor": FACTORS}),
    ],
)
def test_frequencies_agree_with_transformers(spec, theirs, more, factor, theta, tmp_path):
    (tmp_path / "f.json").write_text(json.dumps(FACTORS))
    spec = f"{spec.format(tmp_path / 'f.json')},factor={factor}"
    given = {"rope_type": theirs, "rope_theta": theta, "factor": factor} | more
    if theirs in ("yarn", "llama3", "longrope"):
        given["original_max_position_embeddings"] = 2048
    config = LlamaConfig(
        hidden_size=512,
        num_attention_heads=8,
        max_position_embeddings=2048,
        rope_parameters=given,
    )
    expected, attention = ROPE_INIT_FUNCTIONS[theirs](config, torch.device("cpu"), seq_len=5000)
    own = Rope(theta=theta, dim=64, original_length=2048)
    found = catalog.load("methods", spec).encoding(own, 5000)
    same(found.frequencies, expected.tolist())
    assert found.attention_factor == pytest.approx(attention, rel=1e-12)


def test_llama_3_checkpoints_carry_what_llama3_computes():
    """The published numbers of Llama 3.1: 8 times 8192, theta 500000, 128 channels."""
    own = Rope(theta=5e5, dim=128, original_length=8192)
    found = catalog.load("methods", "llama3,factor=8").encoding(own, 131072).frequencies
    turns = own.frequencies * 8192 / (2 * torch.pi)
    assert torch.equal(found[turns > 4], own.frequencies[turns > 4])
    same(found[turns < 1], (own.frequencies[turns < 1] / 8).tolist(), rtol=1e-15)


def test_su_is_one_inside_the_window():
    own = Rope(theta=1e4, dim=64, original_length=4096)
    method = catalog.load("methods", "longrope")
    assert method.attention_factor(own, 1.0) == 1.0
    assert method.attention_factor(own, 4096.0) == pytest.approx(sqrt(2), rel=1e-15)
