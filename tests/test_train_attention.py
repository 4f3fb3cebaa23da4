"""Attention to train through has the gradients of the formula, and a checkpoint can keep it."""

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from harness import catalog
from harness.families import FAMILIES
from harness.train.attention import INTERFACE, attention, checkpoint_context
from harness.train.loss import in_pieces
from harness.train.moving import thawed
from harness.train.trainer import _attending, _check_shared

SIZES = dict(
    vocab_size=97,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=256,
    initializer_range=0.3,
)

LAYOUTS = {
    "mixtral": {"num_local_experts": 4},
    "smollm3": {"no_rope_layers": [1, 0, 1]},
    "gemma3_text": {"sliding_window": 24, "sliding_window_pattern": 2},
    "falcon": {"multi_query": True, "alibi": False},
    "bloom": {"n_head": 4, "seq_length": 256},
    "mpt": {"n_heads": 4, "d_model": 64, "max_seq_len": 256},
}


def small(family):
    torch.manual_seed(0)
    shape = SIZES | {"num_hidden_layers": 2, "pad_token_id": 0} | LAYOUTS.get(family, {})
    if family == "falcon":  # whose heads are always as wide as they say together
        del shape["head_dim"]
    config = AutoConfig.for_model(family, **shape)
    return AutoModelForCausalLM.from_config(config)


def inputs(dtype, batch=2, heads=4, key_heads=2, tokens=37, dim=16):
    torch.manual_seed(tokens)
    shapes = ((batch, n, tokens, dim) for n in (heads, key_heads, key_heads))
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def llama(**changed):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **changed}))


def trained_on(model, implementation, tokens, autocast=False, **checkpointed):
    """Loss and gradients of one step."""
    model.train().set_attn_implementation(implementation)
    if checkpointed:
        model.activation_checkpointing_enable({"use_reentrant": False, **checkpointed})
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = model(tokens, labels=tokens).loss
    loss.backward()
    model.activation_checkpointing_disable()
    return loss.detach(), [p.grad.clone() for p in model.parameters()]


def text(tokens=75):
    torch.manual_seed(1)
    return torch.randint(0, SIZES["vocab_size"], (2, tokens))


def distance(some, others):
    some, others = (torch.cat([x.double().flatten() for x in xs]) for xs in (some, others))
    return ((some - others).norm() / others.norm()).item()


class Calls(TorchDispatchMode):
    """Counts operators as they run."""

    def __init__(self):
        super().__init__()
        self.of = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.of[func.name().split("::")[1]] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
def test_its_gradient_is_that_of_its_values():
    qkv = inputs(torch.float64, tokens=9)
    # the kernel's exponential is of single precision
    assert torch.autograd.gradcheck(
        lambda *x: attention(*x, 0.3), qkv, eps=1e-3, atol=1e-3, rtol=1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torch_finds_the_operator_well_made(dtype):
    torch.library.opcheck(torch.ops.context_harness.attention.default, (*inputs(dtype), 0.25))


@pytest.mark.parametrize("key_heads", [1, 2, 4])
@pytest.mark.parametrize("tokens", [1, 37, 300])
def test_in_float32_it_is_torchs_attention(key_heads, tokens):
    qkv = inputs(torch.float32, key_heads=key_heads, tokens=tokens)
    ours = attention(*qkv, 0.3)
    theirs = scaled_dot_product_attention(*qkv, is_causal=True, scale=0.3, enable_gqa=True)
    torch.testing.assert_close(ours, theirs)
    grad = torch.randn_like(ours)
    for one, other in zip(
        *(torch.autograd.grad(x, qkv, grad) for x in (ours, theirs)), strict=True
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "key_heads"), [(torch.float32, 4), (torch.bfloat16, 2)], ids=str)
def test_on_a_gpu_no_kernel_is_asked_for_that_keeps_every_score(dtype, key_heads, monkeypatch):
    """Grouped heads have none but torch's plain one where flash has no such dtype."""
    asked = []

    def asked_for(q, k, v, *, is_causal, scale, enable_gqa):
        asked.append((k.shape[1], enable_gqa))
        return scaled_dot_product_attention(q, k, v, is_causal=is_causal, enable_gqa=enable_gqa)

    monkeypatch.setattr("harness.train.attention.scaled_dot_product_attention", asked_for)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    q, k, v = (torch.empty(1, n, 9, 16, dtype=dtype, device="meta") for n in (4, 2, 2))
    assert attention(q, k, v, 0.3).shape == q.shape
    assert asked == [(key_heads, key_heads != 4)]


def test_a_gradient_that_is_one_number_spread_out_is_read_right():
    qkv = inputs(torch.bfloat16, tokens=50)
    spread = torch.autograd.grad(attention(*qkv, 0.25).sum(), qkv)
    written = torch.autograd.grad(out := attention(*qkv, 0.25), qkv, torch.ones_like(out))
    for one, other in zip(spread, written, strict=True):
        assert torch.equal(one, other)


def test_a_model_trained_through_it_has_the_same_gradients():
    model, tokens = llama(), text()
    (loss, ours), (reference, theirs) = (trained_on(model, i, tokens) for i in (INTERFACE, "sdpa"))
    torch.testing.assert_close(loss, reference)
    assert distance(ours, theirs) < 1e-5


def test_under_autocast_it_is_as_near_to_float32_as_torchs():
    model, tokens = llama(), text()
    _, exact = trained_on(model, "eager", tokens)
    ours, theirs = (trained_on(model, i, tokens, autocast=True)[1] for i in (INTERFACE, "sdpa"))
    assert all(g.dtype == torch.float32 for g in ours)
    assert distance(ours, exact) < 1.1 * distance(theirs, exact)


def test_under_autocast_queries_may_come_as_float32():
    q, k, v = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = attention(q, k.bfloat16(), v.bfloat16(), 0.25)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert q.grad.dtype == torch.float32 and q.grad.abs().sum() > 0


@pytest.mark.parametrize("dim", [24, 64])
def test_in_bfloat16_it_is_as_near_to_float32_as_torchs(dim):
    """Whichever kernel has the head dimension."""
    exact = inputs(torch.float32, heads=6, tokens=333, dim=dim)
    rounded = [x.detach().bfloat16().requires_grad_() for x in exact]
    grad = torch.randn(exact[0].shape).bfloat16()

    def grads(attend, qkv):
        return torch.autograd.grad(attend(*qkv), qkv, grad.to(qkv[0].dtype))

    def stock(q, k, v):
        return scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.2, enable_gqa=True)

    def ours(q, k, v):
        return attention(q, k, v, 0.2)

    truth = grads(stock, [x.detach().float().requires_grad_() for x in rounded])
    assert distance(grads(ours, rounded), truth) <= 1.05 * distance(grads(stock, rounded), truth)


@pytest.mark.parametrize("autocast", [False, True])
def test_a_checkpoint_keeps_it_and_recomputes_the_rest(autocast):
    model, tokens = llama(), text()
    counted = {}
    ways = {
        "plain": {},
        "kept": {"context_fn": checkpoint_context},
        "products": {"context_fn": partial(checkpoint_context, products=True)},
    }
    for name, more in ways.items():
        with Calls() as calls:
            found = trained_on(model, INTERFACE, tokens, autocast, **more, determinism_check="none")
        counted[name] = calls.of, found
    (plain, (loss, grads)), (kept, _), (products, _) = counted.values()
    layers = SIZES["num_hidden_layers"]
    assert plain["attention"] == 2 * layers and kept["attention"] == layers
    assert plain["attention_backward"] == kept["attention_backward"] == layers
    # of the seven of a layer, the last is never made again: nothing needs it
    assert plain["mm"] == kept["mm"] == products["mm"] + 6 * layers
    for _, (same_loss, same_grads) in counted.values():
        assert torch.equal(loss, same_loss)
        assert all(map(torch.equal, grads, same_grads))


@pytest.mark.parametrize("tokens", [30, 75])
def test_a_window_shorter_than_the_text_is_kept_to(tokens):
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(**SIZES, sliding_window=32))
    (loss, ours), (reference, theirs) = (
        trained_on(model, i, text(tokens)) for i in (INTERFACE, "eager")
    )
    torch.testing.assert_close(loss, reference)
    assert distance(ours, theirs) < 1e-5


@pytest.mark.parametrize("checkpointed", [{}, {"context_fn": checkpoint_context}])
def test_capped_scores_are_capped(checkpointed):
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(Gemma2Config(**SIZES, sliding_window=32, attn_logit_softcapping=2.0))
    _, ours = trained_on(model, INTERFACE, text(), **checkpointed)
    _, theirs = trained_on(model, "eager", text())
    assert distance(ours, theirs) < 1e-5


def test_stretches_of_queries_are_one_attention(monkeypatch):
    monkeypatch.setattr("harness.train.attention.ROWS", 20)
    test_a_window_shorter_than_the_text_is_kept_to(75)


def test_a_model_still_writes_text_through_it():
    model = llama().eval()
    written = []
    for implementation in (INTERFACE, "sdpa"):
        model.set_attn_implementation(implementation)
        written.append(model.generate(text(9)[:1], max_new_tokens=12, do_sample=False))
    assert torch.equal(*written)


def test_what_it_cannot_do_it_refuses():
    model = llama(attention_dropout=0.1)
    with pytest.raises(ValueError, match="takes no dropout"):
        trained_on(model, INTERFACE, text())


def test_a_checkpoint_around_other_code_keeps_it_too():
    qkv = inputs(torch.float32)
    with Calls() as calls:
        out = checkpoint(
            lambda *x: attention(*x, 0.25).sin(),
            *qkv,
            use_reentrant=False,
            context_fn=checkpoint_context,
        )
        out.sum().backward()
    assert calls.of["attention"] == 1 and calls.of["sin"] == 1


# Of every family that is trained


@pytest.mark.parametrize("family", FAMILIES)
def test_in_training_no_token_sees_those_behind_it(family):
    """As a trainer has it: the loss of one token, of a text that is changed before or behind it."""
    model, method = small(family), "alibi" if FAMILIES[family].biased else "none"
    at, before, behind = 20, 10, 21
    one = text(40)[:1]
    labels = torch.full_like(one, -100)
    labels[0, at] = one[0, at]
    losses = []
    with (
        _attending(model, INTERFACE),
        in_pieces(model),
        catalog.load("methods", method).in_training(model, 40),
    ):
        model.train()
        for changed in (None, before, behind):
            read = one.clone()
            if changed is not None:
                read[0, changed] = (read[0, changed] + 1) % SIZES["vocab_size"]
            losses.append(float(model(input_ids=read, labels=labels)["loss"].detach()))
    whole, otherwise, later = losses
    assert later == pytest.approx(whole, rel=1e-6) and abs(otherwise - whole) > 1e-5


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's calls of transformers
@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_are_of_attention(family):
    pytest.importorskip("peft", reason="adapters are an extra: context-harness[train]")
    quick = catalog.load("methods", "yarn").recipes["paper"].quick()
    learner = thawed(small(family), replace(quick, trains="lora"), ())
    moved = [name for name, weight in learner.named_parameters() if weight.requires_grad]
    assert len(moved) >= 2 * 2 * 2 and all("att" in name for name in moved)


@pytest.mark.parametrize("family", ["falcon", "bloom", "mpt"])
def test_a_family_that_attends_by_itself_learns_as_it_is(family):
    model, tokens = small(family), text(40)
    plain = model(tokens, labels=tokens).loss
    with _attending(model, INTERFACE), in_pieces(model):
        ours = model(input_ids=tokens, labels=tokens)["loss"]
    torch.testing.assert_close(ours, plain)


def test_what_has_no_rotation_is_not_split_between_processes():
    model = small("bloom")
    with _attending(model, "sdpa"), pytest.raises(ValueError, match="leave it out"):
        _check_shared(model, "alibi")
