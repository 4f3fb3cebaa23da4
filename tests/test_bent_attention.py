"""Methods that bend attention are their formula, written out for every pair of tokens."""

import json
import pickle
from contextlib import contextmanager
from functools import cache
from itertools import takewhile

import numpy as np
import pytest
import torch
from torch.nn.functional import pad
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

from harness import catalog
from harness.attention import bendable, straight
from harness.engine import attention as engine
from harness.engine.bend import View
from harness.engine.evaluate import evaluate
from harness.engine.layers import Stack
from harness.engine.offload import ON_DEVICE, OnHost
from harness.families import attention_layers
from harness.plan import takes
from harness.probe import (
    NotOn,
    _logits,
    check_engine,
    check_identity,
    prove,
    read_encoding,
    reads_alike,
)
from harness.rope import Encoding, Rope
from harness.rotation import untouched, unturned
from harness.show import show
from harness.task import Request, Text
from harness.train.attention import in_parts_of_a_layer

TRAINED, LENGTH = 64, 150
SHAPE = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": TRAINED,
    "initializer_range": 0.2,  # large enough that a wrong position shows in the logits
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LAYOUTS = {
    "llama": {},
    "mistral": {"sliding_window": 50},
    "qwen2": {"use_sliding_window": True, "sliding_window": 50, "max_window_layers": 1},
    "qwen3": {"head_dim": 32},
    "phi": {"partial_rotary_factor": 0.5},
    "phi3": {"sliding_window": None},
    "gemma2": {"head_dim": 16, "sliding_window": 50},
    "gemma3_text": {"head_dim": 16, "sliding_window": 24, "sliding_window_pattern": 2},
    "gpt_neox": {},
    "smollm3": {"no_rope_layers": [1, 0]},
}


# The papers' formulas: how far key j is from query i, and whether it is seen, for all pairs.


def self_extend(i, j, w=16, g=3):
    return np.where(i - j < w, i - j, i // g + w - w // g - j // g), j <= i


def rerope(i, j, w=8):
    return np.minimum(i - j, w), j <= i


def leaky_rerope(i, j, w=8, k=(LENGTH - 8) / (TRAINED - 8)):
    return np.where(i - j < w, i - j, w + (i - j - w) / k), j <= i


def lm_infinite(i, j, w=TRAINED, g=10):
    return np.minimum(i - j, w), (j <= i) & ((i - j < w) | (j < g))


def streaming_llm(i, j, s=4, r=TRAINED - 5):
    return np.where(i - j <= r, i - j, np.minimum(i, s + r) - j), (j <= i) & (
        (i - j <= r) | (j < s)
    )


def dca(i, j, s=40, w=8):
    ago = i // s - j // s
    stands = np.select([ago == 0, ago == 1], [i % s, np.minimum(i % s + s, s + w)], s + w)
    return stands - j % s, j <= i


def log_n(i, j):
    return i - j, j <= i


def nope(i, j):
    return 0 * (i - j), j <= i


FORMULAS = {
    "self-extend": self_extend,
    "rerope": rerope,
    "leaky-rerope": leaky_rerope,
    "lm-infinite": lm_infinite,
    "lm-infinite,start=0,window=21": lambda i, j: lm_infinite(i, j, 21, 0),
    "streaming-llm": streaming_llm,
    "streaming-llm,recent=7,start=3": lambda i, j: streaming_llm(i, j, 3, 7),
    "dca": dca,
    "dca,chunk=16,local=5": lambda i, j: dca(i, j, 16, 5),
    "log-n": log_n,
    "rerope+log-n": rerope,
    "nope": nope,
}
PARTS = ["self-extend", "rerope", "leaky-rerope", "lm-infinite", "streaming-llm", "dca"]
every_part = pytest.mark.parametrize("spec", PARTS)
EVERYWHERE = [(family, spec) for family in LAYOUTS for spec in (*PARTS, "log-n", "nope")]
VARIANTS = [("llama", spec) for spec in FORMULAS if "," in spec]
VARIANTS += [("phi", "rerope+log-n"), ("mistral", "dca,chunk=16,local=5")]


@cache
def built(family="llama", **more):
    """Shared: whatever is done to a model is undone."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(SHAPE | LAYOUTS[family] | more))
    return AutoModelForCausalLM.from_config(config).eval()


def load(spec):
    return catalog.load("methods", spec)


TOKENS = torch.from_numpy(np.random.default_rng(0).integers(3, 128, (1, LENGTH)))


def logits(model, tokens=TOKENS):
    with torch.no_grad():
        return model(tokens, use_cache=False).logits[0]


def turned_scores(q, k, distance, frequencies):
    """q_i R(distance) k_j for every pair, in float64; channels in halves, the last may not turn."""
    pairs = len(frequencies)
    angles = torch.as_tensor(distance, dtype=torch.float64)[..., None] * frequencies
    (a, b), (c, d) = ((x[..., :pairs], x[..., pairs : 2 * pairs]) for x in (q, k))
    even = torch.einsum("hip,hjp,ijp->hij", a, c, angles.cos())
    even += torch.einsum("hip,hjp,ijp->hij", b, d, angles.cos())
    odd = torch.einsum("hip,hjp,ijp->hij", a, d, angles.sin())
    odd -= torch.einsum("hip,hjp,ijp->hij", b, c, angles.sin())
    return even + odd + q[..., 2 * pairs :] @ k[..., 2 * pairs :].mT


def by_the_book(module, q, k, v, mask, *, scaling, sliding_window=None, softcap=None, **_):
    """Attention with a number for every pair."""
    spec, frequencies = module.book
    n, heads = q.shape[2], q.shape[1]
    q, k, v = (x[0].double().repeat_interleave(heads // x.shape[1], 0) for x in (q, k, v))
    i, j = np.arange(n)[:, None], np.arange(n)[None]
    distance, seen = FORMULAS[spec](i, j) if spec else log_n(i, j)
    scores = turned_scores(q, k, distance, frequencies) * scaling
    if "log-n" in spec:
        scores *= (torch.arange(1, n + 1).log() / np.log(TRAINED)).clamp(min=1)[:, None]
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    unseen = torch.from_numpy(~seen | (i - j >= (sliding_window or n)))
    out = scores.masked_fill(unseen, -torch.inf).softmax(-1) @ v
    return out.transpose(0, 1)[None].float(), None


@contextmanager
def book(model, spec):
    """Every layer by the book; those of a type that keeps its own encoding by that."""
    AttentionInterface.register("by-the-book", by_the_book)
    decoder, others = model.get_decoder(), untouched(model)
    bent, none = bendable(model), torch.empty(0, dtype=torch.float64)
    for layer in attention_layers(decoder):
        rotates = layer in bent and getattr(layer, "use_rope", True)
        frequencies = Encoding.of(model, LENGTH).frequencies if rotates else none
        layer.book = (spec if layer in bent else "", frequencies)
    with unturned(model, others):
        before, decoder.config._attn_implementation = (
            decoder.config._attn_implementation,
            "by-the-book",
        )
        yield
        decoder.config._attn_implementation = before


@pytest.mark.parametrize(("family", "spec"), EVERYWHERE + VARIANTS)
def test_it_is_its_formula_in_every_layout(family, spec):
    if (family, spec) == ("gemma3_text", "nope"):
        pytest.skip("it is in all layers, and the book leaves those of a window as they are")
    model, method = built(family), load(spec)
    with book(model, spec):
        expected = logits(model)
    with method.applied_to(model, LENGTH):
        prove(model, method, LENGTH)
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-4)
        for block in (LENGTH, 37):
            ours = _logits(model, TOKENS[0], block)
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)
    off = (logits(model) - expected).abs().max()
    window = family == "mistral" and spec in ("lm-infinite", "streaming-llm")  # theirs is longer
    assert off > 1e-2 or window


@every_part
@pytest.mark.parametrize("family", ["llama", "phi", "qwen3"])
def test_what_is_written_is_what_the_formula_writes(family, spec):
    """Token by token, from keys that were kept: once, or twice where they are turned twice."""
    model, tokens = built(family), TOKENS[:, :90]
    with book(model, spec):
        for _ in range(5):
            tokens = torch.cat([tokens, logits(model, tokens)[-1].argmax().view(1, 1)], 1)
    asked = Request(id="", tokens=TOKENS[0, :90].numpy(), ask=Text(max_new_tokens=5))
    with load(spec).applied_to(model, LENGTH):
        (said,) = evaluate(model, [asked], block=32)
        (bend,) = {layer.bend for layer in attention_layers(model.get_decoder())}
    assert list(said) == list(takewhile(lambda t: t != model.config.eos_token_id, tokens[0, 90:]))
    assert len(bend.places) == (1 if spec in ("dca", "streaming-llm") else 2)


@every_part
def test_near_by_it_is_the_model_itself(spec):
    """Bit for bit, as long as no key is further back than the nearest part reaches."""
    model = built()
    found = []
    for method in (load("none"), load(spec)):
        with method.applied_to(model, LENGTH):
            found.append(_logits(model, TOKENS[0, :8], 8))
    assert torch.equal(*found)


# What attends in parts


def stretches(draw, queries, keys):
    """Three disjoint stretches for each query, whose ends stay, step or jump."""
    past = keys - queries
    own = torch.arange(past, keys)
    steps = torch.from_numpy(
        draw.choice([0, 1, 1, 1, 5], (2, queries), p=[0.2, 0.3, 0.3, 0.1, 0.1])
    )
    low, high = (s.cumsum(0) + int(draw.integers(-20, 20)) for s in steps)
    low, high = low.clamp(0).minimum(own), high.clamp(0).minimum(own)
    high = torch.maximum(low, high)
    return [(0 * own, low), (low, high), (high, own + 1)]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("window", [None, 9])
def test_any_stretches_attend_as_a_mask_would(seed, window):
    draw = np.random.default_rng(seed)
    queries, keys = ((40, 60), (60, 60), (1, 33))[seed % 3]
    torch.manual_seed(seed)
    v = torch.randn(1, 2, keys, 16)
    views = [
        View(torch.randn(1, 4, queries, 16), torch.randn(1, 2, keys, 16), *ends)
        for ends in stretches(draw, queries, keys)
    ]
    scores, at, own = [], torch.arange(keys), torch.arange(keys - queries, keys)[:, None]
    for q, k, first, stop, _ in views:
        seen = (at >= first[:, None]) & (at < stop[:, None]) & (at > own - (window or keys))
        scores.append((q @ k.repeat_interleave(2, 1).mT * 0.3).masked_fill(~seen, -torch.inf))
    values = v.repeat_interleave(2, 1)
    expected = torch.cat(scores, -1).softmax(-1) @ torch.cat([values] * 3, 2)
    for found in (
        engine.attend_in_parts(views, v, scale=0.3, window=window),
        in_parts_of_a_layer(views, v, None, scaling=0.3, sliding_window=window),
    ):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("memory", [ON_DEVICE, OnHost("cpu", piece=33)], ids=["here", "host"])
@pytest.mark.parametrize("window", [None, 70])
def test_channels_added_to_a_piece_at_a_time_are_those_of_the_whole(memory, window, monkeypatch):
    """As ALiBi's are, so that no layer's keys are copied at once."""
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 4, 30, 24), torch.randn(1, 2, 200, 16), torch.randn(1, 2, 200, 16)
    more = torch.randn(200, 8)
    wide = torch.cat([k, more.expand(1, 2, -1, -1)], -1), pad(v, (0, 8))
    whole = engine.attend(q, *wide, scale=0.3, window=window)
    monkeypatch.setattr(engine, "PIECE", 50)
    found = engine.attend(q, k, v, scale=0.3, window=window, more=more, memory=memory)
    torch.testing.assert_close(found, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("spec", ["self-extend", "dca", "lm-infinite"])
def test_its_gradient_is_that_of_the_formula(spec):
    model = built()
    found = []
    for way in (load(spec).in_training(model, LENGTH), book(model, spec)):
        with way:
            model.zero_grad()
            model(TOKENS, labels=TOKENS, use_cache=False).loss.backward()
            found.append([p.grad.clone() for p in model.parameters()])
    model.zero_grad(set_to_none=True)
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_in_bfloat16_it_stays_near():
    """The processor's own kernel included, where there is one."""
    model, spec = built(), "self-extend"
    with book(model, spec):
        exact = logits(model)
    short = built.__wrapped__().to(torch.bfloat16)
    with load(spec).applied_to(short, LENGTH):
        off = (_logits(short, TOKENS[0], 37) - exact).pow(2).mean().sqrt()
    assert off < 0.03 * exact.pow(2).mean().sqrt()


# What it costs


class Largest(TorchDispatchMode):
    """The most numbers that any result had."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        every = out if isinstance(out, tuple) else (out,)
        sizes = [x.numel() for x in every if isinstance(x, torch.Tensor)]
        self.numbers = max([self.numbers, *sizes])
        return out


def pairs(spec, length, monkeypatch, block=512):
    """Of queries and keys that kernels are given, for one layer of so many tokens."""
    counted, kernel_for = [0], engine.kernel_for

    def counting(*where):
        kernel = kernel_for(*where)

        def call(q, k, v, causal, scale):
            n, m = q.shape[2], k.shape[2]
            counted[0] += n * (n + 1) // 2 if causal else n * m
            return kernel.call(q, k, v, causal, scale)

        return type(kernel)(kernel.name, call)

    monkeypatch.setattr(engine, "kernel_for", counting)
    model = built(num_hidden_layers=1, max_position_embeddings=256)
    tokens = torch.arange(length) * 7 % 128
    with load(spec).applied_to(model, length), Largest() as largest:
        _logits(model, tokens, block)
    monkeypatch.undo()
    return counted[0], largest.numbers


@every_part
def test_each_pair_is_looked_at_once_and_no_matrix_of_them_exists(spec, monkeypatch):
    length = 1500
    looked, largest = pairs(spec, length, monkeypatch)
    i, j = np.arange(length)[:, None], np.arange(length)[None]
    seen = (j <= i) & (i - j < 256)
    if spec == "lm-infinite":
        seen |= (j <= i) & (j < 10)
    elif spec == "streaming-llm":
        seen = (j <= i) & ((i - j < 252) | (j < 4))
    else:
        seen = j <= i
    assert looked == seen.sum()
    assert largest <= length * 4 * 64 < length**2


@pytest.mark.parametrize("spec", ["lm-infinite", "streaming-llm"])
def test_it_is_linear_in_the_length(spec, monkeypatch):
    some, more = (pairs(spec, n, monkeypatch)[0] for n in (1024, 2048))
    most = pairs(spec, 4096, monkeypatch)[0]
    assert most - more == 2 * (more - some)


# What is published


def described(spec, length=15800, trained=4096):
    config = AutoConfig.for_model("llama", max_position_embeddings=trained)
    model = type("Described", (), {"config": config})()
    return load(spec).provenance(model, length)["attention"]["parts"]


def test_a_part_that_a_window_leaves_nothing_of_cuts_no_block():
    i = np.arange(1000, 1400)
    near, far = (i - 99, i + 1), (i - 199, i - 199)
    assert len([*engine._tiles([far, near])]) == len([*engine._tiles([near])]) <= 5


def test_where_no_layer_looks_beyond_the_window_of_a_method_that_is_said():
    model, method = built("mistral", sliding_window=20), catalog.load("methods", "rerope,window=32")
    assert "no further than 20 tokens" in method.notice(model, LENGTH)
    assert method.notice(model, 20) is None
    assert catalog.load("methods", "rerope,window=8").notice(model, LENGTH) is None
    assert method.notice(built("llama"), LENGTH) is None


def test_known_answers():
    """The README of Self-Extend has G = 5 for 15,800 tokens and a window of 1,024."""
    _, far = described("self-extend,window=1024")
    assert far["as_if_at"]["query"] == 15799 // 5 + 1024 - 1024 // 5
    assert far["as_if_at"]["keys"] == [0, (15799 - 1024) // 5]
    _, far = described("rerope")
    assert far["as_if_at"]["query"] == 512
    _, far = described("leaky-rerope,slowness=16", 65536)
    assert far["as_if_at"]["query"] == 65535 / 16 + 512 - 32
    near, first = described("lm-infinite")
    assert near["sees"] == [15800 - 4096, 15799] and first["sees"] == [0, 9]
    near, first = described("streaming-llm")
    assert near["sees"][0] == 15799 - 4091 and first["as_if_at"] == {"query": 4095, "keys": [0, 3]}
    own, before, earlier = described("dca")  # chunks of 2,560 and a local window of 512
    assert (own["sees"], earlier["sees"]) == ([15360, 15799], [0, 12799])
    assert before["as_if_at"] == {"query": 439 + 2560, "keys": [0, 2559]}
    assert earlier["as_if_at"]["query"] == 3072


@pytest.mark.parametrize("spec", ["self-extend", "leaky-rerope"])
@pytest.mark.parametrize("factor", [1, 1.5, 4, 16])
def test_no_distance_is_longer_than_the_trained_length(spec, factor):
    length = round(4096 * factor)
    for part in described(f"{spec},factor={factor}", length):
        stands = part["as_if_at"]
        assert stands["query"] - min(stands["keys"]) <= 4096
    with_more = described(f"{spec},factor={factor}", length // 2)
    assert with_more[-1]["as_if_at"]["keys"][0] == 0


# What cannot be


@pytest.mark.parametrize("spec", [*PARTS, "log-n", "nope,every=4"])
def test_a_family_whose_attention_cannot_be_reached_is_refused_by_name(spec):
    config = AutoConfig.for_model("falcon", **SHAPE, alibi=False)
    falcon, method = AutoModelForCausalLM.from_config(config), load(spec)
    assert "A falcon calls torch's attention itself" in method.unfit(falcon, LENGTH)
    with pytest.raises(LookupError, match="A falcon calls"), method.applied_to(falcon, LENGTH):
        pass
    assert not any(hasattr(layer, "bend") for layer in falcon.modules())


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("self-extend,window=64", "leaves nothing of the 64 positions"),
        ("leaky-rerope,window=100", "leaves nothing of the 64 positions"),
        ("streaming-llm,start=63", "no room"),
        ("dca,chunk=60", "longer than the trained 64"),
    ],
)
def test_sizes_that_do_not_fit_the_model_are_refused(spec, said):
    assert said in load(spec).unfit(built(), LENGTH)


@pytest.mark.parametrize(
    "spec",
    [
        *("self-extend,window=0", "self-extend,group=0", "self-extend,factor=0.5"),
        *("rerope,window=0", "leaky-rerope,slowness=0.5", "lm-infinite,start=-1"),
        *("streaming-llm,recent=0", "dca,chunk=0", "log-n,log_train=1", "nope,every=0"),
        *("p-rope,p=1.5", "p-rope,p=-1"),
    ],
)
def test_what_makes_no_sense_is_refused(spec):
    with pytest.raises(ValueError, match=r"^(?!.*has no parameter)"):
        load(spec)


def test_the_proof_sees_what_every_layer_does():
    for spec in (*PARTS, "log-n", "yarn+dca+log-n,factor=4"):
        model, method = built(), load(spec)
        with method.applied_to(model, LENGTH):
            prove(model, method, LENGTH)
            last = attention_layers(model.model)[-1]
            bend, last.bend = last.bend, None
            with pytest.raises(NotOn, match="otherwise"):
                prove(model, method, LENGTH)
            last.bend = bend
        with unturned(model), pytest.raises(NotOn, match="otherwise"):
            prove(model, load("rerope"), LENGTH)


def test_the_proof_sees_what_parts_turn_by():
    model = built()
    other = Encoding(frequencies=Rope.of(model).frequencies / 3)
    for spec in ("yarn+dca,factor=4", "rerope", "yarn+lm-infinite+log-n,factor=4"):
        method, digests = load(spec), set()
        with method.applied_to(model, LENGTH):
            digests.add(prove(model, method, LENGTH))
            bend = attention_layers(model.model)[0].bend
            turned = getattr(bend, "under", bend)
            own, turned.encoding = turned.encoding, other
            with pytest.raises(NotOn, match="turns by another encoding"):
                prove(model, method, LENGTH)
            digests.add(read_encoding(model, LENGTH).digest)
            turned.encoding = own
        assert len(digests) == 2


def test_the_proof_sees_which_layers_have_no_positions():
    model, method = built(num_hidden_layers=4), load("nope,every=2")
    layers = attention_layers(model.model)
    with method.applied_to(model, LENGTH):
        prove(model, method, LENGTH)
        for layer, other in ((layers[1], layers[0]), (layers[0], layers[1])):
            own, layer.bend = layer.bend, other.bend
            with pytest.raises(NotOn, match="other layers rotate"):
                prove(model, method, LENGTH)
            layer.bend = own


# In transformers' own forward


def test_padding_is_refused_where_tokens_are_counted():
    model, tokens = built(), TOKENS[:, :8].expand(2, -1)
    padded = torch.ones_like(tokens)
    padded[0, :3] = 0
    for spec in (*PARTS, "log-n"):
        with load(spec).applied_to(model, LENGTH):
            model(tokens, attention_mask=torch.ones_like(tokens))
            with pytest.raises(ValueError, match="would count padding"):
                model(tokens, attention_mask=padded)
    model(tokens, attention_mask=padded)


def test_transformers_generates_what_the_engine_does_or_says_why_not():
    """A cache that drops keys behind a layer's window has lost which position is whose."""
    window = 24
    for family, more in (("llama", {}), ("mistral", {"sliding_window": window})):
        model = built(family, **more)
        ids = TOKENS[:, : 2 * window]
        given = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 4, "do_sample": False}
        with load("dca,chunk=16,local=5").applied_to(model, LENGTH):
            asked = Request(id="", tokens=ids[0].numpy(), ask=Text(max_new_tokens=4))
            (ours,) = evaluate(model, [asked])
            if more:
                with pytest.raises(ValueError, match="dropped keys beyond its window"):
                    model.generate(ids, **given)
            cached = {"use_cache": not more}
            theirs = model.generate(ids, **given, **cached)[0, ids.shape[1] :].tolist()
        assert theirs[: len(ours)] == list(ours)


@pytest.mark.parametrize("spec", [*PARTS, "log-n", "nope,every=2", "alibi"])
def test_a_cache_that_is_longer_than_what_was_read_is_refused(spec):
    model, ids = built(), TOKENS[:, :20]
    given = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 3, "do_sample": False}
    with load(spec).applied_to(model, LENGTH):
        with pytest.raises(ValueError, match="room for keys that are still to come"):
            model.generate(ids, **given, cache_implementation="static")
        plain, whole = (model.generate(ids, **given, use_cache=use) for use in (True, False))
    assert torch.equal(plain, whole)


@pytest.mark.parametrize("family", LAYOUTS)
def test_a_longer_cache_is_refused_in_every_family(family):
    model, ids = built(family), TOKENS[:, :20]
    refused = pytest.raises(ValueError, match="room for keys")
    with load("rerope,window=8").applied_to(model, LENGTH), refused:
        model.generate(ids, max_new_tokens=3, cache_implementation="static")


def test_a_pace_that_is_given_leaves_no_factor_to_be_said():
    for spec, reach in (("self-extend,group=2,window=24", 104), ("leaky-rerope,slowness=3", None)):
        method, model = load(spec), built()
        assert method.settled and not takes(method, "factor")
        if reach:
            assert method.made_for(model) * TRAINED == reach
        assert load(f"{spec},factor=4").made_for(model) == method.made_for(model)  # as it was said
    assert takes(load("self-extend"), "factor") and takes(
        load("yarn+self-extend,group=2"), "factor"
    )
    assert load("yarn+self-extend,group=2,factor=4").layers[0].factor == 4


# Methods over one another


def test_a_method_goes_over_another_by_its_name():
    method = load("yarn+log-n,factor=8,log_train=100")
    assert [type(layer).__name__ for layer in method.layers] == ["YaRN", "LogN"]
    assert method.layers[0].factor == 8 and method.layers[1].log_train == 100
    assert catalog.canonical("methods", "yarn+log-n,log_train=100,factor=8.0") == (
        "yarn+log-n,factor=8,log_train=100"
    )
    assert catalog.canonical("methods", "yarn+log-n") == "yarn+log-n"
    assert pickle.loads(pickle.dumps(method)) == method
    assert {"factor", "beta_fast", "log_train"} <= catalog.settings(method).keys()


@pytest.mark.parametrize("over", ["streaming-llm", "lm-infinite"])
def test_a_parameter_is_for_the_part_that_takes_it(over):
    lower, upper = load(f"longrope+{over},start=3").layers
    assert (lower.start, upper.start) == ("yarn", 3)
    official = f"longrope+{over},start=official"
    lower, upper = load(official).layers
    assert lower.start == "official" and upper == load(over)
    assert catalog.canonical("methods", official) == official
    both = "longrope+lm-infinite,factor=4,start=3"
    assert catalog.canonical("methods", both) == both
    with pytest.raises(ValueError, match="start takes a whole number, and 'far' is none"):
        load(f"longrope+{over},start=far")
    assert {part.factor for part in load("yarn+self-extend,factor=4").layers} == {4}
    with pytest.raises(ValueError, match="one thing in dynamic-ntk and another in self-extend"):
        load("dynamic-ntk+self-extend,factor=2")
    shown = show("yarn+log-n", factor=8.0)
    assert shown["parameters"]["factor"]["value"] == 8.0
    assert "ln L0" in shown["formula"] and "YaRN" in shown["about"]
    json.dumps(shown)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("yarn+pi", "goes over any encoding"),
        ("self-extend+dca", "Only one method"),
        ("log-n+dca", "write that one first"),
        ("log-n+log-n", "write it once"),
        ("alibi+rerope", "Only one method"),
        ("yarn+log", "Did you mean 'log-n'"),
        ("passkey+log-n", "No method named 'passkey'"),
    ],
)
def test_what_cannot_go_together_is_refused(spec, said):
    with pytest.raises(LookupError, match=said):
        load(spec)


def test_a_parameter_nobody_has_is_refused():
    with pytest.raises(ValueError, match="yarn\\+log-n has no parameter 'window'"):
        load("yarn+log-n,window=3")


@pytest.mark.parametrize("spec", ["yarn+log-n,factor=4", "pi+self-extend,factor=2", "alibi+log-n"])
def test_both_are_on_and_both_are_gone(spec):
    model, method = built(), load(spec)
    before = logits(model)
    lower, upper = (layer.applied_to(model, LENGTH) for layer in method.layers)
    with lower:
        alone = logits(model)
        with upper:
            both = logits(model)
        assert torch.equal(logits(model), alone)
    with method.applied_to(model, LENGTH):
        prove(model, method, LENGTH)
        assert torch.equal(logits(model), both)
        torch.testing.assert_close(_logits(model, TOKENS[0], 37), both, rtol=0, atol=1e-4)
    assert torch.equal(logits(model), before)
    assert not torch.allclose(both, alone, atol=1e-2)


def test_log_n_sharpens_by_how_much_is_seen():
    config = AutoConfig.for_model("llama", max_position_embeddings=4096)
    model = type("Described", (), {"config": config})()
    found = load("log-n").provenance(model, 65536)["attention"]["logits_times"]
    assert found == pytest.approx(16 / 12)
    assert load("log-n").provenance(model, 4096)["attention"]["logits_times"] == 1.0


# Models that were trained with ALiBi


ALIBI = {
    "bloom": {"seq_length": TRAINED, "num_attention_heads": 6, "hidden_size": 96},
    "mpt": {"max_seq_len": TRAINED, "num_attention_heads": 6, "hidden_size": 96},
}


@pytest.mark.parametrize("family", ALIBI)
def test_alibi_reads_on_what_was_trained_with_it(family):
    """As their own forward does, which builds its biases for as many tokens as MPT's is told."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SHAPE | ALIBI[family])
    model, method = AutoModelForCausalLM.from_config(config).eval(), load("alibi")
    check_engine(model)
    check_identity(model)
    assert method.unfit(model, LENGTH) is None
    before = repr(model)
    with method.applied_to(model, LENGTH):
        prove(model, method, LENGTH)
        assert reads_alike(model, method, [TRAINED, LENGTH])
        ours = [_logits(model, TOKENS[0], block) for block in (LENGTH, 37)]
    assert repr(model) == before and not any(hasattr(m, "bend") for m in model.modules())
    model.config.max_seq_len = LENGTH
    for found in ours:
        torch.testing.assert_close(found, logits(model), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ALIBI)
def test_of_other_methods_they_take_none(family):
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **SHAPE | ALIBI[family]))
    for spec in (*PARTS, "log-n", "nope", "p-rope", "yarn", "none"):
        said = load(spec).unfit(model, LENGTH)
        assert f"A {family} has no rotary embedding" in said and said.endswith("--method alibi.")
    assert f"A {family} has ALiBi in an attention of its own" in straight(model)


# Layers without positions


def test_nope_leaves_out_positions_in_the_layers_where_smollm3_does():
    """The same weights under Llama's name, and the method on."""
    small = built("smollm3", num_hidden_layers=4, no_rope_layers=None, no_rope_layer_interval=2)
    assert small.config.no_rope_layers == [1, 0, 1, 0]
    theta = small.config.rope_parameters["rope_theta"]
    rope = {"rope_theta": theta, "rope_type": "default"}
    llama = built("llama", num_hidden_layers=4)
    same = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("llama", **SHAPE | {"num_hidden_layers": 4, "rope_parameters": rope})
    ).eval()
    same.load_state_dict(small.state_dict())
    expected = logits(small)
    with load("nope,every=2").applied_to(same, LENGTH):
        torch.testing.assert_close(logits(same), expected, rtol=0, atol=1e-4)
        ours = _logits(same, TOKENS[0], 37)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(_logits(small, TOKENS[0], 37), expected, rtol=0, atol=1e-4)
    assert not torch.allclose(logits(llama), expected, atol=1e-2)


@pytest.mark.parametrize("dim", [4, 16, 64])
def test_p_rope_goes_from_nope_to_rope(dim):
    rope = Rope(theta=1e4, dim=dim, original_length=2048)
    for p in (0.0, 0.25, 0.75, 1.0):
        found = load(f"p-rope,p={p}").encoding(rope, 4096).frequencies
        turning = int(p * (dim // 2))
        assert torch.equal(found[:turning], rope.frequencies[:turning])
        assert (found[turning:] == 0).all()


def test_keys_of_a_layer_are_kept_as_its_bend_has_them():
    model = built()
    with load("rerope").applied_to(model, LENGTH):
        assert len(Stack(model, LENGTH).bends) == 2 and all(Stack(model, LENGTH).bends)
    assert not any(Stack(model, LENGTH).bends)


@pytest.mark.parametrize(("family", "spec"), EVERYWHERE)
def test_every_family_comes_back_as_it_was_its_configuration_too(family, spec):
    model = built(family)
    before, said = logits(model), json.dumps(model.config.to_dict(), default=str)
    with load(spec).applied_to(model, LENGTH):
        logits(model)
    assert torch.equal(logits(model), before)
    assert json.dumps(model.config.to_dict(), default=str) == said
