"""What a pass is said to cost is what the engine then does."""

from collections import Counter

import numpy as np
import pytest
import torch

from harness import catalog
from harness.cost import OVERHEAD, Work, pairs, shape_of
from harness.engine.evaluate import evaluate, together, tree_of
from harness.engine.layers import Stack
from harness.engine.offload import memory
from harness.model import Card, describe, load
from harness.speed import Measured, _along, measured
from harness.standin import describe as published
from harness.task import Choice, Losses, Request, Text, Verdict

BLOCK = 48


@pytest.fixture(scope="module")
def live(folder):
    found = load(str(folder), device="cpu", dtype="float32")
    found.model.generation_config.eos_token_id = -1  # so that it writes as much as it may
    return found


def asked(seed=0):
    """Inputs that share a trunk, and questions of every kind but text."""
    rng = np.random.default_rng(seed)
    trunk = rng.integers(3, 250, 130)
    long = np.concatenate([trunk, rng.integers(3, 250, 70)])
    other = np.concatenate([trunk, rng.integers(3, 250, 40)])
    return [
        Request(id="losses", tokens=long, ask=Losses(start=20, stop=len(long))),
        Request(id="verdict", tokens=other, ask=Verdict(answer=(7, 8, 9))),
        Request(id="choice", tokens=long[:150], ask=Choice(options=((5, 6), (9,)))),
    ]


def written(seed=1):
    rng = np.random.default_rng(seed)
    trunk = rng.integers(3, 250, 100)
    asks = [(trunk, 4), (np.concatenate([trunk, rng.integers(3, 250, 25)]), 6)]
    return [Request(id=str(n), tokens=tokens, ask=Text(max_new_tokens=n)) for tokens, n in asks]


def counted(blocks):
    return Counter(map(tuple, blocks.tolist()))


@pytest.fixture
def done(monkeypatch):
    """The blocks that layers really run, by what is asked of them."""
    found = {"inner": Counter(), "last": Counter(), "stored": Counter()}
    run, one_each = Stack.run, Stack.one_each

    def watched(self, index, hidden, block, keys):
        top = index == len(self.layers) - 1
        which = ("last" if block.wanted else "stored") if top else "inner"
        if block.length:
            found[which][block.length, block.position] += 1
        return run(self, index, hidden, block, keys)

    def each(self, index, hidden, positions, keys):
        which = "last" if index == len(self.layers) - 1 else "inner"
        found[which].update((1, position) for position in positions.tolist())
        return one_each(self, index, hidden, positions, keys)

    monkeypatch.setattr(Stack, "run", watched)
    monkeypatch.setattr(Stack, "one_each", each)
    return found


@pytest.mark.parametrize(
    "requests", [asked(), written(), asked() + written()], ids=["scored", "written", "both"]
)
def test_every_block_that_the_engine_runs_is_counted_and_no_other(live, done, requests):
    evaluate(live.model, requests, block=BLOCK)
    work = Work.of(requests, BLOCK)
    read = [r for r in requests if not isinstance(r.ask, Text)]
    assert work.scored == sum(len(tree_of([read[i] for i in g]).tokens) for g in together(read))
    steps = counted(work.steps)
    assert done["inner"] == counted(work.inner) + steps  # of two layers one is inner
    assert done["last"] == counted(work.last) + steps
    assert done["stored"] == counted(work.stored)


def test_products_are_those_that_torch_counts(live):
    from torch.utils.flop_counter import FlopCounterMode

    requests = asked()
    with FlopCounterMode(display=False) as counter:
        evaluate(live.model, requests, block=BLOCK)
    kernels = {"aten.mm", "aten.addmm", "aten.bmm"}
    counts = counter.get_flop_counts()["Global"]
    products = sum(n for kernel, n in counts.items() if str(kernel) in kernels)
    work, shape = Work.of(requests, BLOCK), shape_of(live.card)
    attended = 4 * shape.heads * shape.head_dim
    attended *= pairs(work.inner).sum() + pairs(work.last).sum()
    assert work.flops(shape) - attended == pytest.approx(products, rel=0.02)


@pytest.mark.parametrize("window", [None, 1, 7, 50, 1000])
def test_pairs_are_those_a_query_sees(window):
    blocks = np.array([(5, 0), (8, 3), (1, 60), (20, 45)])
    brute = [
        sum(min(past + i + 1, window or 10**9) for i in range(tokens)) for tokens, past in blocks
    ]
    assert pairs(blocks, window).tolist() == brute


def test_a_window_is_counted_in_the_layers_that_have_one():
    from transformers import Gemma3TextConfig

    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    config = Gemma3TextConfig(num_hidden_layers=6, sliding_window=16, layer_types=kinds)
    shape = shape_of(Card("gemma", "gemma", config))
    assert shape.windows == (16,) * 5 + (None,)
    whole = Request(id="", tokens=np.arange(400), ask=Losses(start=1, stop=400))
    sliding = Work.of([whole]).flops(shape)
    config.layer_types = ["full_attention"] * 6
    full = Work.of([whole]).flops(shape_of(Card("gemma", "gemma", config)))
    triangle, band = 399 * 400 // 2, 399 * 16 - 15 * 16 // 2
    assert full - sliding == 4 * shape.heads * shape.head_dim * 5 * (triangle - band)


def test_llama_2_7b_has_as_many_weights_as_published():
    shape = shape_of(published("meta-llama/Llama-2-7b-hf"))
    assert shape.weights == 6_738_415_616 - 4096  # but for the last norm
    assert shape.used == shape.layer and shape.windows == (None,) * 32


def test_of_experts_only_the_chosen_are_multiplied():
    from transformers import MixtralConfig

    config = MixtralConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, num_local_experts=8, num_experts_per_tok=2,
    )  # fmt: skip
    shape = shape_of(Card("mixtral", "mixtral", config))
    assert shape.layer - shape.used == 6 * 3 * 64 * 96


def test_the_last_layer_costs_almost_nothing_for_verdicts(live):
    shape = shape_of(live.card)
    verdict = Request(id="", tokens=np.arange(200) % 250, ask=Verdict(answer=(1, 2)))
    losses = Request(id="", tokens=np.arange(201) % 250, ask=Losses(start=1, stop=201))
    both = [Work.of([one], BLOCK) for one in (verdict, losses)]
    assert both[0].last[:, 0].sum() == 2 and both[0].stored[:, 0].sum() == 199
    assert both[0].flops(shape) < 0.6 * both[1].flops(shape)


def test_a_token_more_takes_its_hidden_state_its_keys_and_its_rotation():
    shape = shape_of(describe("toy"))

    def at(n):
        request = Request(id="", tokens=np.zeros(n, np.int64), ask=Verdict(answer=(1,)))
        return Work.of([request]).bytes(shape, 2)

    token = 2 * (256 + 2 * 32 + 2 * 32)  # bfloat16: hidden, one layer's keys and values, cos, sin
    assert (at(60_000) - at(20_000)) / 40_000 == pytest.approx(token + 3 * 8)
    assert at(20_000) > OVERHEAD + 2 * shape.weights


@pytest.mark.parametrize("spec", ["none", "rerope,window=64", "alibi"])
def test_memory_grows_with_an_input_as_is_planned_of_a_method(live, spec):
    """Of one that keeps keys twice, and of one that has each block copy them, too."""
    method, shape, peaks, planned = catalog.load("methods", spec), shape_of(live.card), [], []
    for n in (20_000, 40_000):
        tokens = np.random.default_rng(0).integers(3, 250, n)
        request = Request(id="", tokens=tokens, ask=Losses(start=n - 9, stop=n))
        room = memory(live.model, offload=False, limit=10**12)
        with method.applied_to(live.model, n):
            evaluate(live.model, [request], block=512, memory=room)
        peaks.append(room.budget.peak)
        planned.append(Work.of([request]).bytes(shape, 4, keys=method.keys(live.model, n)))
    assert np.diff(peaks) == pytest.approx(np.diff(planned), rel=0.15)


def test_written_text_keeps_the_keys_of_all_layers():
    shape = shape_of(describe("toy"))
    prompt = Request(id="", tokens=np.zeros(5000, np.int64), ask=Text(max_new_tokens=100))
    work = Work.of([prompt])
    assert work.room == 5100 and work.kept == 0 and len(work.steps) == 99
    more = Work.of([Request(id="", tokens=prompt.tokens, ask=Text(max_new_tokens=200))])
    assert more.bytes(shape, 2) - work.bytes(shape, 2) == 100 * 2 * 32 * 2 * (shape.layers + 1)


def test_long_documents_pass_one_by_one_and_what_they_share_together(live, done, monkeypatch):
    rng = np.random.default_rng(2)
    document = rng.integers(3, 250, 200)
    requests = [
        Request(id="a", tokens=document, ask=Losses(start=100, stop=200)),
        Request(id="b", tokens=rng.integers(3, 250, 150), ask=Losses(start=1, stop=150)),
        Request(id="a, shorter", tokens=document[:120], ask=Losses(start=1, stop=120)),
    ]
    whole = evaluate(live.model, requests, block=BLOCK)
    assert Work.of(requests, BLOCK).kept == 199 + 149
    monkeypatch.setattr("harness.engine.evaluate.ROWS", 250)
    for kinds in done.values():
        kinds.clear()
    apart = evaluate(live.model, requests, block=BLOCK)
    work = Work.of(requests, BLOCK)
    assert work.kept == 199 and done["inner"] == counted(work.inner)
    for one, other in zip(whole, apart, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


class OneSecond:
    """A machine where each row of a layer takes a second, and one of the head a thousand."""

    def start(self, work):
        return 0.5

    def layer(self, blocks, window):
        return float(blocks[:, 0].sum())

    def stored(self, blocks):
        return 0.25 * float(blocks[:, 0].sum())

    def head(self, rows):
        return 1000.0 * rows


def test_a_pass_takes_what_its_parts_take(live):
    work = Work.of(written(), BLOCK)
    shape = shape_of(live.card)
    inner, last, stored = (float(b[:, 0].sum()) for b in (work.inner, work.last, work.stored))
    steps = 3 + 5
    layers = inner + last + 0.25 * stored + 2 * steps
    assert work.seconds(shape, OneSecond()) == 0.5 + layers + 1000 * (2 + steps)


def assert_timed(speed):
    """Every part has a time, and all together some; which is larger is a busy machine's to say."""
    parts = [*speed.whole, *speed.keyed, speed.key, speed.pair, speed.head_few, speed.head_many]
    assert all(0 <= seconds < 60 for seconds in parts)
    assert speed.layer(np.array([(speed.rows[-1], 8192)]), None) > 0


@pytest.mark.parametrize("name", ["folder", "toy"])
def test_a_layer_of_this_model_is_timed_here(name, folder, request):
    card = describe(str(folder) if name == "folder" else name)
    speed = measured(card, "cpu", torch.float32)
    assert speed is measured(card, "cpu", torch.float32)
    assert_timed(speed)
    assert speed.head(0) == 0 < speed.head(1) and speed.head(2 * speed.head_rows) > 0


@pytest.mark.parametrize("kind", ["gemma3_text", "gpt_neox", "falcon", "phi", "mixtral"])
def test_a_layer_of_every_kind_of_family_can_be_timed(kind):
    from transformers import AutoConfig

    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "vocab_size": 500}
    grouped = {"num_key_value_heads": 2, "head_dim": 16}
    more = grouped if kind in ("gemma3_text", "mixtral") else {}
    config = AutoConfig.for_model(kind, **sizes, **heads, **more)
    speed = measured(Card(kind, kind, config), "cpu", torch.float32)
    assert_timed(speed)


def test_rows_beyond_what_was_timed_go_on_alike():
    speed = Measured(
        rows=(1, 10), whole=(2.0, 11.0), keyed=(1.0, 1.0), key=0.0, pair=0.0,
        head_rows=4, head_few=1.0, head_many=4.0, once=0.0,
    )  # fmt: skip
    assert speed.layer(np.array([(1, 0), (4, 0), (20, 0)]), None) == 2 + 5 + 21
    assert speed.head(9) == 4 + 4 + 1


def test_a_plan_counts_a_pass_once_for_all_methods(folder, monkeypatch):
    from harness.plan import Options, plan

    calls = []
    of = Work.of
    monkeypatch.setattr(Work, "of", lambda requests, **how: calls.append(1) or of(requests, **how))
    options = Options(
        models=(str(folder),),
        methods=("none", "pi", "yarn", "dynamic-ntk"),
        tasks=("perplexity", "passkey"),
        lengths=(600, 1200),
        samples=2,
        dtype="float32",
        device="cpu",
    )
    planned = plan(options)
    assert len(planned) == 16 and len(calls) == 4
    row = [p for p in planned if p.cell.task.startswith("perplexity") and p.cell.method == "none"]
    assert sum(p.share for p in row) == pytest.approx(1) and row[0].work is row[1].work
    whole = catalog.load("tasks", row[0].cell.task)
    assert row[1].tokens == row[1].work.tokens > row[0].tokens and whole.one_pass


def test_no_block_takes_less_than_no_time():
    """On a busy machine the last of what is timed may be the faster one."""
    beyond = _along(np.array([10_000]), (1, 512, 2048), (0.1, 2.0, 1.0))
    assert beyond == pytest.approx([1.0])
