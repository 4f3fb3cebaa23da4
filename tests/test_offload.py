"""With hidden states and keys in host memory the numbers are the same, and the device has less."""

import gc
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import psutil
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from harness import catalog
from harness.cli.run import _bytes
from harness.engine import layers, offload
from harness.engine.attention import attend
from harness.engine.evaluate import evaluate
from harness.engine.offload import Budget, OnDevice, OnHost, memory
from harness.executors import local
from harness.executors.local import IN_HOST
from harness.model import load, within_reach
from harness.plan import Options, plan
from harness.store import Store
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


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="nobody says what is resident")
def test_room_for_a_whole_input_goes_back_to_the_system():
    def resident():
        return psutil.Process().memory_info().rss

    room = OnDevice().empty((1, 10, 2**20), torch.empty(0, dtype=torch.bfloat16))
    before = resident()
    room.fill_(1)
    assert resident() - before > 19e6
    del room
    assert resident() - before < 1e6


def test_room_that_there_is_not_is_out_of_memory(monkeypatch):
    monkeypatch.setattr(offload.mmap, "mmap", Mock(side_effect=OSError(12, "Cannot allocate")))
    with pytest.raises(MemoryError, match="no room for 40 bytes"):
        OnDevice().empty((1, 10), torch.empty(0))


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


# In a run


class Notes:
    """A watch that remembers what it was told."""

    def __init__(self):
        self.said = []

    def cell_started(self, cells, tokens): ...

    def progressed(self, tokens): ...

    def cell_finished(self, result): ...

    def note(self, message):
        self.said.append(message)


@pytest.fixture
def measured(folder, tmp_path):
    """One perplexity cell of 1,500 tokens, measured with these options."""

    def measured(samples=1, **more):
        wish = Options(models=(str(folder),), methods=("pi",), tasks=("perplexity",),
                       lengths=(1500,), corpus="stdlib", samples=samples, device="cpu",
                       dtype="float32", **more)  # fmt: skip
        place, watch = tmp_path / str(len([*tmp_path.iterdir()])), Notes()
        place.mkdir()
        (result,) = local.execute(plan(wish), Store(place), wish, watch)
        return result, watch.said

    return measured


def test_out_of_memory_is_tried_in_smaller_blocks_then_in_host_memory_then_said(measured):
    """The ladder; the row holds the step that was taken, and what the device held."""
    roomy, said = measured(memory=10**9)
    assert said == [] and taken(roomy) == (2048, False)
    peak = roomy.provenance["device_memory"]["peak"]
    tight, said = measured(memory=peak - 1)
    assert "trying again in blocks of 512 tokens." in said[0] and taken(tight) == (512, False)
    least = tight.provenance["device_memory"]["peak"]
    steps = {}
    for room in np.linspace(0.3, 0.95, 9) * least:
        result, said = measured(memory=int(room))
        steps.setdefault((result.status, taken(result)), []).append((result, said))
    assert ("out_of_memory", (None, None)) in steps
    offloaded = [step for (_, step) in steps if step[1]]
    assert offloaded, "no budget had room for a step with host memory"
    for (status, step), found in steps.items():
        for result, said in found:
            if status == "scored":
                assert result.value == pytest.approx(roomy.value, rel=1e-4)
                assert bool(step[1]) == (IN_HOST in (said or [""])[-1])
            else:
                assert f"in blocks of 128 tokens{IN_HOST}: out of memory" in result.reason
                assert len(said) == 5


def test_what_does_not_fit_together_is_read_one_by_one(measured):
    """The last step, where there is room for one of three documents and no more."""
    together, _ = measured(samples=3)
    one, _ = measured(memory=10**9, offload="off")
    peak = one.provenance["device_memory"]["peak"]
    rooms = (int(share * peak) for share in np.linspace(0.3, 1, 29))
    room = next(r for r in rooms if measured(memory=r, offload="off")[0].status == "scored")
    found, said = measured(samples=3, memory=room, offload="off")
    assert "its inputs one by one" in said[-1] and found.provenance["apart"] is True
    assert found.value == pytest.approx(together.value, rel=1e-4)
    assert found.items.keys() == together.items.keys()
    assert "apart" not in together.provenance


def taken(result):
    return result.provenance.get("block"), result.provenance.get("offload")


def test_host_memory_is_used_or_left_alone_as_asked(measured):
    alone, _ = measured()
    on, _ = measured(offload="on")
    assert (alone.provenance["offload"], on.provenance["offload"]) == (False, True)
    assert on.value == pytest.approx(alone.value, rel=1e-4)
    off, said = measured(offload="off", memory=200_000)
    assert off.status == "out_of_memory" and len(said) == 2


@pytest.mark.parametrize(("device", "more", "needed", "expected"), [
    ("cpu", {}, 1, [(2048, False), (512, False), (128, False)]),
    ("cpu", {}, 10**18, []),
    ("cuda", {}, 10**18, [(8192, True), (2048, True), (512, True), (128, True)]),
    ("cuda", {"offload": "off"}, 10**18, []),
    ("cuda", {"device_map": "balanced"}, 10**18, [(2048, False), (512, False), (128, False)]),
])  # fmt: skip
def test_what_cannot_fit_is_not_begun_but_in_host_memory(
    monkeypatch, device, more, needed, expected
):
    monkeypatch.setattr(local.machine, "whole_memory", lambda on: 24 * 10**9)
    wish = Options(methods=(), tasks=(), lengths=(), **more)
    assert local.steps(device, wish, needed) == expected


@pytest.mark.parametrize(("size", "count"), [("24GB", 24 * 10**9), ("1.5g", 1.5e9), ("800M", 8e8)])
def test_a_size_is_read(size, count):
    assert _bytes(size) == count


@pytest.mark.parametrize("size", ["", "GB", "-1GB", "0", "1e9", "9" * 30, "12 parsecs"])
def test_what_is_no_size_is_said(size):
    with pytest.raises(ValueError, match="--memory takes a size such as 24GB"):
        _bytes(size)


# Weights that transformers places


def test_a_device_map_changes_nothing_but_where_weights_lie(folder, monkeypatch):
    asked, real = [], AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM,
        "from_pretrained",
        lambda *a, **words: asked.append(words.get("device_map")) or real(*a, **words),
    )
    plainly, placed = (
        load(str(folder), device="cpu", dtype="float32", device_map=name).model
        for name in (None, "auto")
    )
    assert asked == [None, "auto"]
    assert evaluated(placed) == evaluated(plainly)


def test_layers_that_are_fetched_to_be_called_are_called(folder, tmp_path):
    plainly = load(str(folder), device="cpu", dtype="float32").model
    names = ["model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "lm_head"]
    places = dict.fromkeys(names, "cpu") | {"model.layers.1": "disk", "model.rotary_emb": "cpu"}
    placed = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, device_map=places, offload_folder=tmp_path
    )
    assert placed.model.layers[1].mlp.up_proj.weight.is_meta
    assert evaluated(within_reach(placed)) == evaluated(plainly)


def test_a_head_that_cannot_be_read_is_refused(folder):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    with pytest.raises(LookupError, match="--device-map leaves the model's head"):
        within_reach(model)


def evaluated(model):
    tokens = np.random.default_rng(0).integers(3, 128, 200)
    (losses,) = evaluate(
        model, [Request(id="", tokens=tokens, ask=Losses(start=1, stop=200))], block=64
    )
    return losses.tolist()
