"""The engine equals the plain forward: every family, whole or in blocks, alone or in a tree."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from harness import catalog
from harness.engine import kernels, layers
from harness.engine.attention import attend
from harness.engine.evaluate import evaluate
from harness.engine.kernels import chosen, tiled
from harness.engine.tree import Tree
from harness.families import FAMILIES, family_of
from harness.probe import _logits, check_engine, check_identity
from harness.task import Losses, Request, Text, Verdict

SHAPE = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.15,  # large enough that a wrong window or rotation shows in the logits
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LAYOUTS = {
    "llama": {},
    "mistral": {"sliding_window": 24},
    "mixtral": {"num_local_experts": 4, "sliding_window": None},
    "qwen2": {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    "qwen3": {"head_dim": 16},
    "smollm3": {"no_rope_layers": [1, 0, 1]},
    "phi": {"partial_rotary_factor": 0.5},
    "phi3": {"sliding_window": 20},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16, "sliding_window": 24},
    "gemma3_text": {"head_dim": 16, "sliding_window": 24, "sliding_window_pattern": 2},
    "gpt_neox": {},
    "falcon": {"multi_query": True, "alibi": False},
    "bloom": {"n_head": 6, "hidden_size": 96, "seq_length": 64},
    "mpt": {"n_heads": 6, "d_model": 96, "max_seq_len": 256, "attn_config": {"clip_qkv": 0.8}},
}
every_family = pytest.mark.parametrize("name", LAYOUTS)


def small(name, **more):
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **(SHAPE | LAYOUTS.get(name, {}) | more))
    return AutoModelForCausalLM.from_config(config).eval()


def plain(model, tokens):
    ids = torch.as_tensor(tokens)[None]
    with torch.inference_mode():
        return model(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0].float()


@pytest.fixture(scope="module")
def tokens():
    return np.random.default_rng(0).integers(3, 256, 150)


def test_every_supported_family_is_tried():
    assert set(LAYOUTS) == set(FAMILIES)


@every_family
@pytest.mark.parametrize("block", [150, 32, 17])
def test_logits_are_those_of_the_plain_forward(name, block, tokens):
    model = small(name)
    torch.testing.assert_close(
        _logits(model, torch.as_tensor(tokens), block), plain(model, tokens), atol=1e-4, rtol=0
    )


@every_family
def test_the_model_comes_back_as_it_was(name, tokens):
    model = small(name)
    before, implementation = plain(model, tokens), model.config._attn_implementation
    _logits(model, torch.as_tensor(tokens), 40)
    assert torch.equal(plain(model, tokens), before)
    assert model.config._attn_implementation == implementation


@every_family
def test_swapping_in_our_own_table_of_the_same_encoding_changes_nothing(name):
    model = small(name)
    check_engine(model)
    check_identity(model)


def test_a_family_nobody_checked_is_refused_by_name():
    with pytest.raises(LookupError, match=r"'gpt2' is not supported.*llama"):
        family_of(AutoConfig.for_model("gpt2"))


def test_alibi_is_refused_by_name():
    with pytest.raises(LookupError, match="falcon with ALiBi"):
        family_of(AutoConfig.for_model("falcon", alibi=True))
    for said, more in (
        ("attn_config.alibi false", {"attn_config": {"alibi": False}}),
        ("attn_config.qk_ln", {"attn_config": {"qk_ln": True}}),
        ("logit_scale", {"logit_scale": 0.3}),
    ):
        with pytest.raises(LookupError, match=f"{said}, which transformers does not read"):
            family_of(AutoConfig.for_model("mpt", **more))
    steep = AutoConfig.for_model("mpt", attn_config={"alibi_bias_max": 16})
    with pytest.raises(LookupError, match="alibi_bias_max 16, which transformers reads as 8"):
        family_of(steep)
    assert family_of(AutoConfig.for_model("mpt")).biased


def test_an_engine_that_differs_is_refused(monkeypatch):
    model = small("llama")

    def own(q, k, v, **_):
        return v[:, :, -q.shape[2] :].repeat(1, 2, 1, 1)

    monkeypatch.setattr(layers, "attend", own)
    with pytest.raises(LookupError, match="differ by"):
        check_engine(model)


@pytest.mark.parametrize("method", ["ntk-by-parts,factor=8", "llama3,factor=32", "pi,factor=1.01"])
def test_a_table_that_is_not_the_checkpoints_own_is_refused(method):
    model = small("llama", max_position_embeddings=4096)
    with (
        catalog.load("methods", method).applied_to(model, 4096),
        pytest.raises(LookupError, match="own rotary embedding is off by"),
    ):
        check_identity(model)


@pytest.mark.parametrize("method", ["dynamic-ntk", "dynamic-yarn", "longrope", "yarn"])
def test_a_method_gives_the_same_logits_in_blocks_as_in_one_piece(method, tokens):
    model, ids = small("llama"), torch.as_tensor(tokens)
    with catalog.load("methods", method).applied_to(model, 150):
        whole, pieces = _logits(model, ids, 150), _logits(model, ids, 11)
    torch.testing.assert_close(whole, pieces, atol=1e-4, rtol=0)


def test_requests_that_share_a_beginning_are_answered_as_if_alone(tokens):
    model = small("mistral")
    other = np.concatenate([tokens[:70], tokens[5:60]])
    asked = [
        Request(id="whole", tokens=tokens, ask=Losses(start=1, stop=150)),
        Request(id="short", tokens=tokens[:80], ask=Losses(start=50, stop=80)),
        Request(id="branch", tokens=other, ask=Losses(start=60, stop=120)),
        Request(id="answer", tokens=tokens[:70], ask=Verdict(answer=(5, 6, 7))),
        Request(id="alone", tokens=tokens[::-1].copy(), ask=Losses(start=140, stop=150)),
    ]
    together = evaluate(model, asked, block=16)
    for request, outcome in zip(asked, together, strict=True):
        np.testing.assert_allclose(outcome, evaluate(model, [request])[0], atol=1e-5)
    logits = plain(model, tokens)
    expected = torch.nn.functional.cross_entropy(
        logits[:-1], torch.as_tensor(tokens[1:]), reduction="none"
    )
    np.testing.assert_allclose(together[0], expected, atol=1e-4)


@every_family
def test_free_text_is_what_generate_writes_and_a_verdict_agrees(name, tokens):
    model, prompt = small(name), tokens[:60]
    ids = torch.as_tensor(prompt)[None]
    theirs = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False
    )[0, 60:].tolist()
    (ours,) = evaluate(model, [Request(id="", tokens=prompt, ask=Text(max_new_tokens=5))], block=16)
    assert list(ours) == theirs
    (said,) = evaluate(model, [Request(id="", tokens=prompt, ask=Verdict(answer=ours))], block=16)
    assert said == ours


def test_logits_that_are_no_numbers_are_named(tokens):
    model = small("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="'broken' at position 0"):
        evaluate(model, [Request(id="broken", tokens=tokens, ask=Losses(start=1, stop=9))])


def dense(q, k, v, scale, window=None, softcap=None):
    groups, past = q.shape[1] // k.shape[1], k.shape[2] - q.shape[2]
    scores = q @ k.repeat_interleave(groups, 1).mT * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    rows = torch.arange(past, k.shape[2])[:, None]
    columns = torch.arange(k.shape[2])[None]
    hidden = (columns > rows) | (columns <= rows - (window or k.shape[2]))
    return scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v.repeat_interleave(groups, 1)


@pytest.mark.parametrize("window", [None, 1, 2, 7, 20, 33, 50, 1000])
@pytest.mark.parametrize(("queries", "keys"), [(50, 50), (1, 50), (13, 50), (40, 41)])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_a_block_attends_as_a_dense_mask_would(window, queries, keys, softcap):
    torch.manual_seed(1)
    q = torch.randn(1, 6, queries, 16)
    k, v = torch.randn(1, 2, keys, 16), torch.randn(1, 2, keys, 16)
    ours = attend(q, k, v, scale=0.3, window=window, softcap=softcap)
    torch.testing.assert_close(ours, dense(q, k, v, 0.3, window, softcap), atol=1e-5, rtol=0)


@pytest.mark.parametrize("causal", [True, False])
def test_kernels_keep_the_contract_private_operators_might_break(causal):
    q, k, v = torch.randn(1, 6, 9, 16), torch.randn(1, 2, 9, 16), torch.randn(1, 2, 9, 16)
    ours, theirs = chosen("cpu").call(q, k, v, causal, 0.3), tiled(q, k, v, causal, 0.3)
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize(("causal", "queries"), [(True, 70), (False, 20)])
def test_tiles_are_one_attention_however_small(causal, queries, softcap, monkeypatch):
    q, k, v = torch.randn(2, 6, queries, 16), *torch.randn(2, 2, 3, 70, 16)
    whole = tiled(q, k, v, causal, 0.3, softcap)
    monkeypatch.setattr(kernels, "KEYS", 16)
    monkeypatch.setattr(kernels, "SCORES", 16 * 6 * 11)
    torch.testing.assert_close(tiled(q, k, v, causal, 0.3, softcap), whole, atol=1e-5, rtol=0)


def test_a_tree_holds_each_shared_token_once():
    inputs = [np.array(t) for t in ([1, 2, 3, 4], [1, 2, 5], [1, 2], [6], [1, 2, 3, 4, 7])]
    tree = Tree.of(inputs)
    assert len(tree.tokens) == 7 and tree.depth == 5
    for i, tokens in enumerate(inputs):
        assert tree.tokens[tree.rows(i, 0, len(tokens))].tolist() == tokens.tolist()
