"""What runs on a GPU, without one: this side of both CUDA kernels, held to strict stand-ins.

The stand-ins refuse what the real kernels refuse, or would read wrongly, and compute in float32.
The one for torch's operator is registered with torch itself, whose own schema checks every call.
"""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from harness.engine import attention, kernels
from harness.engine.attention import attend
from harness.engine.kernels import Kernel, chosen, kernel_for, tiled
from harness.probe import _logits

HALVES = (torch.float16, torch.bfloat16)
CLOSE = {"atol": 1e-2, "rtol": 2**-7}
"""Two roundings to bfloat16: of a part's output, then of the merged."""


def dense(q, k, v, scale, causal=True, window=None, softcap=None):
    """Float32 output and log-sum-exp; the queries are the last of the positions."""
    groups, past = q.shape[1] // k.shape[1], k.shape[2] - q.shape[2]
    k, v = (x.float().repeat_interleave(groups, 1) for x in (k, v))
    scores = q.float() @ k.mT * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if causal:
        rows, columns = torch.arange(past, k.shape[2])[:, None], torch.arange(k.shape[2])[None]
        hidden = (columns > rows) | (columns <= rows - (window or k.shape[2]))
        scores = scores.masked_fill(hidden, -torch.inf)
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def refuse_what_a_gpu_would(q, k, v):
    """Inputs (batch, tokens, heads, dim), as `mha_fwd` of flash_api.cpp checks them."""
    batch, _, heads, dim = q.shape
    for x in (q, k, v):
        if x.dtype not in HALVES or x.dtype != q.dtype:
            raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
        if x.stride(-1) != 1:
            raise RuntimeError("Input tensor must have contiguous last dimension")
        if x.shape[0] != batch or x.shape[-1] != dim or not x.shape[1]:
            raise RuntimeError("shapes differ, or nothing to attend to")
        if x.data_ptr() % 16 or any(step * 2 % 16 for step in x.stride()[:-1]):
            raise RuntimeError("rows are loaded 16 bytes at a time: misaligned address")
    if k.shape != v.shape or heads % k.shape[2]:
        raise RuntimeError("Number of heads in key/value must divide number of heads in query")
    if dim % 8 or dim > 256:
        raise RuntimeError("head_size must be a multiple of 8 and at most 256")


def flash_attn_func(
    q,
    k,
    v,
    dropout_p=0.0,
    softmax_scale=None,
    causal=False,
    window_size=(-1, -1),
    softcap=0.0,
    alibi_slopes=None,
    deterministic=False,
    return_attn_probs=False,
):
    """flash-attn 2.8's: (batch, tokens, heads, dim), causal to the bottom right, pads heads."""
    assert (dropout_p, window_size, alibi_slopes) == (0.0, (-1, -1), None), "not stood in for"
    dim, scale = q.shape[-1], q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale
    if dim % 8:
        q, k, v = (torch.nn.functional.pad(x, (0, 8 - dim % 8)) for x in (q, k, v))
    refuse_what_a_gpu_would(q, k, v)
    out, lse = dense(*(x.transpose(1, 2) for x in (q, k, v)), scale, causal, softcap=softcap)
    out = out.transpose(1, 2).to(q.dtype)[..., :dim]
    return (out, lse, None) if return_attn_probs else out


def aten_flash(padding):
    """torch's operator, whose log-sum-exp is padded to a multiple of `padding` by no numbers."""

    def operator(q, k, v, dropout_p=0.0, is_causal=False, return_debug_mask=False, *, scale=None):
        assert dropout_p == 0.0 and not return_debug_mask, "not stood in for"
        refuse_what_a_gpu_would(*(x.transpose(1, 2) for x in (q, k, v)))
        assert not is_causal or q.shape[2] == k.shape[2], "versions align others differently"
        out, lse = dense(q, k, v, q.shape[-1] ** -0.5 if scale is None else scale, is_causal)
        lse = torch.nn.functional.pad(lse, (0, -lse.shape[-1] % padding), value=torch.nan)
        none = q.new_empty(0)
        out = out.to(q.dtype).transpose(1, 2).contiguous().transpose(1, 2)
        return out, lse, none, none, q.shape[2], k.shape[2], none, none, none

    return operator


@pytest.fixture
def fresh():
    """No choice of a kernel is remembered, before or after."""
    chosen.cache_clear()
    yield
    chosen.cache_clear()


@pytest.fixture
def installed(fresh, monkeypatch):
    """A flash-attn that imports."""
    module = ModuleType("flash_attn")
    module.__spec__ = ModuleSpec("flash_attn", None)
    module.flash_attn_func = flash_attn_func
    monkeypatch.setitem(sys.modules, "flash_attn", module)


@pytest.fixture
def missing(fresh, monkeypatch):
    """No flash-attn, whatever this machine has."""
    monkeypatch.setitem(sys.modules, "flash_attn", None)


@pytest.fixture(params=["flash-attn", "torch-flash-cuda", "torch-flash-cuda, padded"])
def kernel(request, monkeypatch):
    """Each kernel `chosen` gives on a GPU, over its stand-in, as the one this engine uses."""
    name = request.param.partition(",")[0]
    request.getfixturevalue("installed" if name == "flash-attn" else "missing")
    found = chosen("cuda", torch.bfloat16, 64)
    assert found.name == name
    for module in (kernels, attention):
        monkeypatch.setattr(module, "chosen", lambda *_: found, raising=False)
    library = torch.library.Library("aten", "IMPL")
    operator = aten_flash(128 if "padded" in request.param else 1)
    library.impl("_scaled_dot_product_flash_attention", operator, "CPU")
    yield found
    library._destroy()


def inputs(heads, key_heads, queries, keys, dim):
    torch.manual_seed(2)
    shapes = (heads, queries), (key_heads, keys), (key_heads, keys)
    return [torch.randn(1, *shape, dim).bfloat16() for shape in shapes]


def test_flash_attn_is_chosen_where_it_imports(installed):
    for dtype in HALVES:
        assert chosen("cuda", dtype, 64).name == "flash-attn"
    assert chosen("cuda", torch.bfloat16, 256).name == "flash-attn"


def test_torchs_kernel_is_chosen_where_it_does_not(missing):
    assert chosen("cuda", torch.bfloat16, 64).name == "torch-flash-cuda"
    assert chosen("cuda", torch.bfloat16, 64).call is kernels.torch_cuda


def test_a_flash_attn_built_for_another_torch_is_left_alone(fresh, tmp_path, monkeypatch):
    (tmp_path / "flash_attn").mkdir()
    source = "raise ImportError('undefined symbol')"
    (tmp_path / "flash_attn" / "__init__.py").write_text(source)
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert chosen("cuda", torch.bfloat16, 64).name == "torch-flash-cuda"


@pytest.mark.parametrize("there", ["installed", "missing"])
@pytest.mark.parametrize(("dtype", "dim"), [(torch.float32, 64), (torch.bfloat16, 264)])
def test_what_neither_kernel_does_is_tiled(there, dtype, dim, request):
    request.getfixturevalue(there)
    assert chosen("cuda", dtype, dim) == Kernel("tiled-float32", tiled)


@pytest.mark.parametrize(
    ("capability", "name"),
    [((7, 5), "tiled-float32"), ((8, 0), "flash-attn"), ((12, 0), "flash-attn")],
)
def test_a_gpu_before_ampere_is_tiled(capability, name, installed, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert chosen("cuda", torch.float16, 64).name == name


@pytest.mark.parametrize(
    ("there", "uncapped", "capped"),
    [
        ("installed", "flash-attn", "flash-attn"),
        ("missing", "torch-flash-cuda", "tiled-float32"),
    ],
)
def test_the_kernel_recorded_is_the_one_that_caps(there, uncapped, capped, request):
    request.getfixturevalue(there)
    q, k, v = inputs(6, 2, 30, 30, 16)
    for softcap, name in ((None, uncapped), (0.0, uncapped), (3.0, capped)):
        assert kernel_for("cuda", torch.bfloat16, 16, softcap).name == name
    out, lse = kernel_for("cuda", torch.bfloat16, 16, 3.0).call(q, k, v, True, 0.5)
    theirs = dense(q, k, v, 0.5, softcap=3.0)
    torch.testing.assert_close(out.float(), theirs[0], **CLOSE)
    torch.testing.assert_close(lse, theirs[1], atol=1e-4, rtol=0)


def test_a_processor_caps_tiled(fresh):
    assert kernel_for("cpu", torch.float32, 64) == chosen("cpu", torch.float32, 64)
    assert kernel_for("cpu", torch.float32, 64, 50.0).name == "tiled-float32"


@pytest.mark.parametrize("window", [None, 1, 7, 20, 33, 1000])
@pytest.mark.parametrize(("queries", "keys"), [(50, 50), (1, 50), (13, 50), (40, 41)])
@pytest.mark.parametrize(
    ("key_heads", "dim", "softcap"),
    [(6, 16, None), (2, 16, None), (1, 20, None), (2, 256, None), (2, 16, 3.0)],
)
def test_a_block_attends_as_a_dense_mask_would(
    kernel, window, queries, keys, key_heads, dim, softcap
):
    q, k, v = inputs(6, key_heads, queries, keys, dim)
    ours = attend(q, k, v, scale=0.3, window=window, softcap=softcap)
    theirs = dense(q, k, v, 0.3, window=window, softcap=softcap)[0]
    assert ours.dtype == torch.bfloat16 and ours.shape == q.shape
    torch.testing.assert_close(ours.float(), theirs, **CLOSE)


@pytest.mark.parametrize("dim", [16, 20])
@pytest.mark.parametrize(
    ("queries", "keys", "causal"), [(9, 9, True), (9, 9, False), (5, 9, False)]
)
def test_kernels_give_the_contracts_shapes_and_numbers(kernel, queries, keys, causal, dim):
    q, k, v = inputs(6, 2, queries, keys, dim)
    (out, lse), theirs = kernel.call(q, k, v, causal, 0.3), dense(q, k, v, 0.3, causal)
    assert out.dtype == torch.bfloat16 and lse.dtype == torch.float32
    torch.testing.assert_close(out.float(), theirs[0], **CLOSE)
    torch.testing.assert_close(lse, theirs[1], atol=1e-4, rtol=0)


def test_keys_are_not_copied_on_their_way_to_a_kernel(kernel, monkeypatch):
    q, k, v = inputs(6, 2, 9, 30, 16)
    seen = []
    look = refuse_what_a_gpu_would
    monkeypatch.setitem(
        globals(),
        "refuse_what_a_gpu_would",
        lambda *given: (seen.extend(x.data_ptr() for x in given), look(*given)),
    )
    kernel.call(q, k[:, :, 3:], v[:, :, 3:], False, 0.3)
    assert seen == [q.data_ptr(), k[:, :, 3:].data_ptr(), v[:, :, 3:].data_ptr()]


def test_stand_ins_refuse_what_the_kernels_would(kernel):
    wide, (q, k, v) = inputs(6, 2, 9, 9, 264), inputs(6, 2, 9, 9, 16)
    refused = {
        "fp16 and bf16": (q.float(), k.float(), v.float()),
        "at most 256": wide,
        "must divide": (q[:, :5], k, v),
        "contiguous last": (q.mT.contiguous().mT, k, v),
        "misaligned": (*(x.repeat(1, 1, 1, 2)[..., 1:17] for x in (q, k, v)),),
    }
    for why, given in refused.items():
        with pytest.raises(RuntimeError, match=why):
            kernel.call(*given, False, 0.3)


def test_torch_itself_says_that_fewer_key_heads_and_this_log_sum_exp_are_right():
    q, k = (torch.empty(1, *s, 20, device="meta", dtype=torch.float16) for s in ((6, 9), (2, 30)))
    out, lse = kernels.torch_cuda(q, k, k, False, 0.3)
    assert out.shape == q.shape and out.dtype == q.dtype
    assert lse.shape == (1, 6, 9) and lse.dtype == torch.float32


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
    "phi": {"partial_rotary_factor": 0.5},
    "gemma2": {"head_dim": 16, "sliding_window": 24, "attn_logit_softcapping": 5.0},
}


@pytest.mark.parametrize("block", [150, 17])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_models_logits_are_those_of_the_plain_forward(name, block, kernel):
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **SHAPE, **LAYOUTS[name])
    model = AutoModelForCausalLM.from_config(config).bfloat16().eval()
    tokens = torch.randint(3, 256, (150,))
    with torch.inference_mode():
        plain = (
            model(
                tokens[None], attention_mask=torch.ones(1, 150, dtype=torch.long), use_cache=False
            )
            .logits[0]
            .float()
        )
    error = (_logits(model, tokens, block) - plain).pow(2).mean().sqrt()
    assert error < 0.03 * plain.pow(2).mean().sqrt()
