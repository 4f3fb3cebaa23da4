"""Our kernel keeps the contract of every kernel, as accurately as torch's, wherever it can run.

So does its gradient.
"""

import os
import subprocess
import sys

import pytest
import torch

from harness.engine import kernels, native
from harness.engine.attention import attend
from harness.engine.kernels import chosen, tiled, torch_cpu

here = pytest.mark.skipif(
    not (native.supported(torch.bfloat16, 64) and native.library()),
    reason="needs AVX-512 with bfloat16 dot products, no AMX, and a C compiler",
)


def inputs(key_heads, group, queries, keys, dim, gain=1.0):
    """As the engine gives them: queries by token, keys and values in a longer buffer."""
    torch.manual_seed(queries * keys + dim)
    q = gain * torch.randn(1, queries, key_heads * group, dim)
    k, v = torch.randn(2, 1, key_heads, keys + 5, dim).bfloat16()[..., 2 : keys + 2, :]
    return q.bfloat16().transpose(1, 2), k, v


def dense(q, k, v, causal, scale):
    groups = q.shape[1] // k.shape[1]
    scores = q.double() @ k.double().repeat_interleave(groups, 1).mT * scale
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    values = v.double().repeat_interleave(groups, 1)
    return scores.softmax(-1) @ values, scores.logsumexp(-1)


def rms(error):
    return error.double().pow(2).mean().sqrt().item()


def assert_accurate(q, k, v, causal, scale):
    """Within 2 steps of bfloat16 of the exact, and on average as near to it as torch's kernel."""
    (out, lse), (stock, _) = (f(q, k, v, causal, scale) for f in (native.attention, torch_cpu))
    exact, exact_lse = dense(q, k, v, causal, scale)
    assert out.shape == q.shape and out.dtype == torch.bfloat16 and lse.dtype == torch.float32
    torch.testing.assert_close(lse.double(), exact_lse, atol=1e-4, rtol=1e-6)
    torch.testing.assert_close(
        out, tiled(q, k, v, causal, scale)[0], atol=2 * 2**-8 * exact.abs().max().item(), rtol=0
    )
    assert rms(out - exact) <= 1.05 * rms(stock - exact) + 1e-6


@here
@pytest.mark.parametrize("dim", [16, 32, 64, 80, 96, 112, 128, 256])
@pytest.mark.parametrize(
    ("group", "queries", "keys", "gain"),
    [
        (1, 1, 1, 1.0),
        (3, 1, 300, 1.0),
        (3, 16, 7, 20.0),
        (1, 17, 256, 1.0),
        (4, 50, 50, 20.0),
        (3, 100, 531, 20.0),
        (1, 257, 257, 1.0),
    ],
)
def test_it_attends_as_the_dense_formula_does(dim, group, queries, keys, gain):
    q, k, v = inputs(2, group, queries, keys, dim, gain)
    for causal in {False, queries == keys}:
        assert_accurate(q, k, v, causal, dim**-0.5)


@here
def test_so_it_does_over_thousands_of_keys():
    assert_accurate(*inputs(1, 3, 70, 5000, 64), False, 0.125)
    assert_accurate(*inputs(1, 2, 1500, 1500, 32), True, 0.25)


@here
@pytest.mark.parametrize("at", [0, 255, 256, 999])
def test_one_key_that_outweighs_all_others_gives_its_value(at):
    q, k, v = inputs(1, 1, 40, 1000, 64)
    q[..., 0], k[..., 0] = 30, -30
    k[:, :, at, 0] = 30
    out, lse = native.attention(q, k, v, False, 1.0)
    assert torch.equal(out, v[:, :, at : at + 1].expand_as(out))
    torch.testing.assert_close(lse, q.float() @ k[0, 0, at].float(), atol=1e-3, rtol=1e-6)


@here
def test_what_is_no_number_stays_none_and_where_it_is():
    q, k, v = inputs(1, 1, 60, 60, 64)
    q[:, :, 20, 3] = torch.nan
    k[:, :, 50, 3] = torch.inf
    out, lse = native.attention(q, k, v, True, 0.125)
    wrong = out.isnan().any(-1)[0, 0]
    assert wrong[20] and torch.equal(wrong, lse.isnan()[0, 0])
    assert not wrong[:20].any() and not wrong[21:50].any()


@here
def test_later_keys_and_what_lies_around_them_touch_nothing():
    q, k, v = inputs(2, 2, 100, 100, 64)
    before = native.attention(q, k, v, True, 0.125)
    around = torch.full((2, 1, 2, 110, 64), torch.nan).bfloat16()
    around[:, :, :, 5:105] = torch.stack([k, v])
    around[:, :, :, 65:105] = 9.0
    after = native.attention(q, *around[..., 5:105, :], True, 0.125)
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one[:, :, :60], other[:, :, :60])
        assert not other.isnan().any()


def gradients(q, k, v, grad, scale):
    """Ours, torch's from the same output, and those of the dense formula."""
    given = (grad, q, k, v, *native.attention(q, k, v, True, scale))
    stock = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        *given, 0.0, True, scale=scale
    )
    exact = [x.double().requires_grad_() for x in (q, k, v)]
    out, _ = dense(*exact, True, scale)
    return (
        native.backward(*given, scale),
        stock,
        torch.autograd.grad(out, exact, grad.double()),
    )


def assert_gradients_accurate(q, k, v, grad, scale):
    """Each within hundredths of the exact, and as near to it as torch's from the same output."""
    for x, one, stock, exact in zip((q, k, v), *gradients(q, k, v, grad, scale), strict=True):
        assert one.shape == x.shape and one.dtype == torch.bfloat16
        error, its = rms(one - exact), rms(stock - exact)
        assert error <= 0.02 * rms(exact) + 1e-6
        assert error <= 1.05 * its + 1e-6
        assert (one - exact).abs().max() <= 2 * (stock - exact).abs().max() + 1e-5


@here
@pytest.mark.parametrize("dim", [16, 32, 64, 80, 96, 112, 128, 256])
@pytest.mark.parametrize(
    ("group", "tokens", "gain"),
    [(1, 1, 1.0), (1, 2, 1.0), (3, 16, 20.0), (3, 97, 1.0), (4, 50, 20.0), (1, 257, 1.0)],
)
def test_its_gradients_are_those_of_the_dense_formula(dim, group, tokens, gain):
    q, k, v = inputs(2, group, tokens, tokens, dim, gain)
    assert_gradients_accurate(q, k, v, torch.randn_like(q), dim**-0.5)


@here
@pytest.mark.parametrize(("key_heads", "group"), [(1, 1), (1, 9), (5, 1), (3, 3), (17, 2)])
def test_so_they_are_however_heads_are_shared_and_cut_into_pieces(key_heads, group):
    q, k, v = inputs(key_heads, group, 401, 401, 32)
    assert_gradients_accurate(q, k, v, torch.randn_like(q), 0.2)


@here
def test_so_they_are_over_thousands_of_keys():
    q, k, v = inputs(1, 2, 2500, 2500, 64)
    assert_gradients_accurate(q, k, v, torch.randn_like(q), 0.125)


@here
def test_members_of_a_batch_know_nothing_of_each_other():
    q, k, v, grad = (torch.randn(3, n, 70, 64).bfloat16() for n in (4, 2, 2, 4))
    out, lse = native.attention(q, k, v, True, 0.125)
    together = out, lse, *native.backward(grad, q, k, v, out, lse, 0.125)
    for i in range(3):
        own = [x[i : i + 1] for x in (grad, q, k, v)]
        out, lse = native.attention(*own[1:], True, 0.125)
        alone = out, lse, *native.backward(*own, out, lse, 0.125)
        assert all(torch.equal(x[i : i + 1], y) for x, y in zip(together, alone, strict=True))


@here
def test_gradients_come_from_what_is_given_and_nothing_around_it():
    """Later gradients are zero, so no key after them gets any; memory around is no number."""
    q, k, v = inputs(2, 2, 100, 100, 64)
    grad = torch.randn_like(q)
    grad[:, :, 60:] = 0
    inner = (grad, q, k, v, *native.attention(q, k, v, True, 0.125))
    dq, dk, dv = native.backward(*inner, 0.125)
    assert all(x[:, :, 60:].count_nonzero() == 0 for x in (dq, dk, dv))
    around = []
    for x in inner:
        wider = x.new_full((1, x.shape[1] + 1, 107, *x.shape[3:]), torch.nan)
        wider[:, : x.shape[1], 3:103] = x
        around.append(wider[:, : x.shape[1], 3:103])
    for one, other in zip((dq, dk, dv), native.backward(*around, 0.125), strict=True):
        assert torch.equal(one, other)


@here
def test_threads_change_nothing():
    q, k, v = inputs(3, 3, 500, 700, 64)
    own = q, k[:, :, :500], v[:, :, :500]
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 7):
            torch.set_num_threads(threads)
            given = (q, *own, *native.attention(*own, True, 0.125))
            grads = native.backward(*given, 0.125)
            results.append((*native.attention(q, k, v, False, 0.125), *grads))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


@here
@pytest.mark.parametrize("window", [None, 70])
def test_a_block_attends_through_it_as_through_torch(window, monkeypatch):
    q, k, v = inputs(2, 3, 90, 400, 64)
    ours = attend(q, k, v, scale=0.125, window=window)
    monkeypatch.setattr(kernels, "native_cpu", torch_cpu)
    chosen.cache_clear()
    theirs = attend(q, k, v, scale=0.125, window=window)
    chosen.cache_clear()
    torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=2**-7)


@here
def test_it_is_chosen_where_it_can_and_left_where_it_cannot(monkeypatch):
    assert chosen("cpu", torch.bfloat16, 64).name == "native-avx512-bf16"
    assert chosen("cpu", torch.float32, 64).name == "torch-flash-cpu"
    assert chosen("cpu", torch.bfloat16, 72).name == "torch-flash-cpu"
    q, k, v = inputs(2, 2, 20, 20, 64)
    q.requires_grad_()
    chosen("cpu", torch.bfloat16, 64).call(q, k, v, True, 0.125)[0].sum().backward()
    assert q.grad.abs().sum() > 0


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Nothing compiled yet, and nothing left behind."""
    monkeypatch.setenv("CONTEXT_HARNESS_CACHE", str(tmp_path))
    native.library.cache_clear()
    chosen.cache_clear()
    yield tmp_path
    native.library.cache_clear()
    chosen.cache_clear()


@here
@pytest.mark.parametrize("missing", ["compiler", "source", "folder", "wish"])
def test_without_it_torchs_kernel_serves(missing, elsewhere, monkeypatch):
    if missing == "compiler":
        monkeypatch.setattr(native, "COMPILERS", ("no-such-compiler",))
    elif missing == "source":
        (elsewhere / "broken.c").write_text("int attend(")
        monkeypatch.setattr(native, "SOURCES", (elsewhere / "broken.c",))
    elif missing == "folder":
        (elsewhere / "native").write_text("in the way")
    else:
        monkeypatch.setenv("CONTEXT_HARNESS_KERNEL", "stock")
    assert chosen("cpu", torch.bfloat16, 64).name == "torch-flash-cpu"


@pytest.mark.slow
@here
def test_it_is_compiled_once_and_leaves_one_file(elsewhere):
    assert native.library() and len(list((elsewhere / "native").iterdir())) == 1
    native.library.cache_clear()
    assert native.library() and len(list((elsewhere / "native").iterdir())) == 1


@here
def test_threads_of_its_own_give_what_torchs_own_do(monkeypatch):
    q, k, v = inputs(3, 3, 500, 500, 64)
    found = [native.attention(q, k, v, True, 0.125)]
    assert native._team() is not None
    monkeypatch.setattr(native, "PROCESS", 0)
    assert native._team() is None
    found.append(native.attention(q, k, v, True, 0.125))
    assert all(map(torch.equal, *found))


@pytest.mark.slow
@here
def test_a_forked_process_attends():
    code = (
        "import os, torch; from harness.engine.kernels import chosen;"
        "q = torch.ones(1, 2, 400, 64).bfloat16(); call = chosen('cpu').call;"
        "call(q, q, q, True, 1.0); child = os.fork();"
        "out = call(q, q, q, True, 1.0)[0]; assert set(out[0, 1, 399].tolist()) == {1.0};"
        "os._exit(0) if not child else None; assert os.waitpid(child, 0)[1] == 0"
    )
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=120, env=environment)


@here
def test_no_heads_at_all_are_attended_to_nothing():
    q = torch.empty(1, 0, 5, 64, dtype=torch.bfloat16)
    out, lse = native.attention(q, q, q, True, 1.0)
    assert out.shape == q.shape and lse.shape == (1, 0, 5)
    assert [x.shape for x in native.backward(out, q, q, q, out, lse, 1.0)] == [q.shape] * 3
