"""With hidden states and keys in host memory the numbers are the same, and the device has less."""

import gc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from harness import catalog
from harness.engine import layers, offload
from harness.engine.attention import attend
from harness.engine.evaluate import evaluate
from harness.engine.offload import Budget, OnDevice, OnHost, memory
from harness.task import Losses, Request, Text, Verdict

LENGTH, BLOCK = 700, 64
SHAPE = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,  # large enough that a wrong position or key shows in the logits
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LAYOUTS = {
    "mistral": {"sliding_window": 100},
    "bloom": {"n_head": 4, "seq_length": 256},
    "falcon": {"multi_query": True, "alibi": False},
}
CASES = [
    ("llama", "yarn,factor=4"),
    ("llama", "dynamic-ntk"),
    ("llama", "self-extend,window=64"),
    ("llama", "streaming-llm"),
    ("mistral", "none"),
    ("bloom", "alibi"),
    ("falcon", "none"),
]


def small(name):
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **(SHAPE | LAYOUTS.get(name, {})))
    return AutoModelForCausalLM.from_config(config).eval()


def questions():
    rng = np.random.default_rng(0)
    text = rng.integers(3, 128, LENGTH)
    return [
        Request(id="losses", tokens=text, ask=Losses(start=1, stop=LENGTH)),
        Request(id="verdict", tokens=text[:500], ask=Verdict(answer=(5, 6, 7))),
        Request(id="text", tokens=text[:300], ask=Text(max_new_tokens=4)),
    ]


def answers(model, method="none", **ways):
    with catalog.load("methods", method).applied_to(model, LENGTH):
        return evaluate(model, questions(), **({"block": BLOCK} | ways))


@pytest.mark.parametrize(("name", "method"), CASES)
@pytest.mark.parametrize("piece", [50, 1000])
def test_the_answers_are_those_of_a_device_that_holds_everything(name, method, piece):
    model = small(name)
    ours, theirs = (
        answers(model, method, memory=m) for m in (OnHost("cpu", piece=piece), OnDevice())
    )
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_what_grows_with_the_length_is_not_on_the_device(monkeypatch):
    """Four times the text: but for tokens and what is asked, a device needs no more."""
    monkeypatch.setattr(layers, "TABLE_BLOCK", 256)
    model, peaks = small("llama"), {}
    for length in (1000, 4000):
        tokens = np.random.default_rng(0).integers(3, 128, length)
        asked = [Request(id="", tokens=tokens, ask=Losses(start=length - 5, stop=length))]
        for offloads in (False, True):
            kept = memory(model, offload=offloads, limit=10**9)
            kept.piece = 512
            evaluate(model, asked, block=BLOCK, memory=kept)
            peaks[length, offloads] = kept.budget.peak
    grown = {o: peaks[4000, o] - peaks[1000, o] for o in (False, True)}
    least = 3000 * (64 + 2 * 32 + 2 * 16) * 4  # hidden states, keys and values, cos and sin
    assert least <= grown[False] < 1.2 * least
    assert grown[True] < 0.1 * grown[False]


def test_a_budget_counts_what_is_alive_and_no_more():
    budget = Budget(10**6)
    with budget:
        x = torch.zeros(1000)
        view, other = x[:10], x + 1
        assert budget.used == 8000
        del x
        assert budget.used == 8000, "a view keeps all of it"
        del view
        assert budget.used == 4000
        with budget.elsewhere():
            host = torch.zeros(1000)
        assert budget.used == 4000 and (host[5:], budget.used)[1] == 4000
        del other
    gc.collect()
    assert budget.used == 0 and budget.peak == 8000


def test_a_budget_that_is_exceeded_says_so_and_all_is_given_back():
    model, peaks = small("llama"), []
    for offloads in (False, True):
        kept = memory(model, offload=offloads, limit=10**9)
        answers(model, memory=kept)
        peaks.append(kept.budget.peak)
    enough = sum(peaks) // 2
    kept = memory(model, offload=False, limit=enough)
    with pytest.raises(torch.OutOfMemoryError, match=r"out of memory: .* on a device of"):
        answers(model, memory=kept)
    gc.collect()
    bare = Budget(10**9)
    with OnDevice(bare).counted(model):
        assert kept.budget.used == pytest.approx(bare.used, rel=1e-3)  # the weights alone
    kept = memory(model, offload=True, limit=enough)
    answers(model, memory=kept)
    assert kept.budget.peak == peaks[1] < enough < peaks[0]


# A GPU's part, held to what its documentation says


class Gpu:
    """Streams and events of torch.cuda, that note what is asked of them in order."""

    def __init__(self):
        self.said, self.on = [], "main"

    def stream(self, stream):
        from contextlib import contextmanager

        @contextmanager
        def on():
            before, self.on = self.on, stream.name
            yield
            self.on = before

        return on()

    def made(self, name):
        def wait_stream(other):
            self.said.append((name, "waits for", other.name))

        def record_event():
            self.said.append((name, "marks"))
            return SimpleNamespace(of=name)

        def wait_event(event):
            self.said.append((name, "waits for the mark of", event.of))

        return SimpleNamespace(
            name=name, wait_stream=wait_stream, record_event=record_event, wait_event=wait_event
        )


def test_keys_come_along_a_stream_of_their_own_one_piece_ahead(monkeypatch):
    gpu = Gpu()
    monkeypatch.setattr(torch.cuda, "stream", gpu.stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: gpu.made("main"))
    kept = OnHost("cpu", piece=4)
    kept._side = gpu.made("side")
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda x, stream: gpu.said.append((stream.name, "uses"))
    )
    real = kept.here
    monkeypatch.setattr(kept, "here", lambda x: (gpu.said.append((gpu.on, "copies")), real(x))[1])
    k, v = torch.randn(2, 1, 2, 12, 16)
    for i, (keys, values) in enumerate(kept.pieces(k, v)):
        gpu.said.append(("main", "attends"))
        piece = slice(4 * i, 4 * i + 4)
        assert torch.equal(keys, k[:, :, piece]) and torch.equal(values, v[:, :, piece])
    send = [
        ("side", "waits for", "main"),
        ("side", "copies"),
        ("side", "copies"),
        ("side", "marks"),
    ]
    take = [("main", "waits for the mark of", "side"), ("main", "uses"), ("main", "uses")]
    use = [*take, ("main", "attends")]
    assert gpu.said == [*send, *send, *use, *send, *use, *use]


def test_what_a_gpu_copies_is_one_stretch_of_pinned_memory(monkeypatch):
    asked, real = [], torch.empty

    def empty(shape, *, dtype, pin_memory):
        asked.append(pin_memory)
        return real(shape, dtype=dtype)

    kept = OnHost("cpu")
    kept._side = Gpu().made("side")
    monkeypatch.setattr(offload.torch, "empty", empty)
    room = kept.room_for_keys(100, real(1, 2, 5, 16, dtype=torch.bfloat16))
    assert asked == [True] and room.shape == (1, 2, 100, 16) and room.dtype == torch.bfloat16
    stretch = room[:, :, 10:30]
    assert stretch.transpose(1, 2).is_contiguous()
    assert torch.empty_like(stretch).stride() == stretch.stride()


def test_a_gpu_is_limited_by_its_own_allocator(monkeypatch):
    said = []
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=24 * 10**9)
    )
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda *given: said.append(given)
    )
    model = SimpleNamespace(device=torch.device("cuda", 0))
    assert memory(model, offload=False, limit=12 * 10**9).budget is None
    assert said == [(0.5, torch.device("cuda", 0))]


def test_pieces_of_keys_are_one_attention():
    q, k, v = torch.randn(1, 4, 30, 16), *torch.randn(2, 1, 2, 200, 16)
    for window in (None, 70):
        ways = {"scale": 0.25, "window": window}
        apart = attend(q, k, v, **ways, memory=OnHost("cpu", piece=13))
        torch.testing.assert_close(apart, attend(q, k, v, **ways), atol=1e-5, rtol=0)
