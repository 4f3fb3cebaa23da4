"""Named GPUs: never faster than their data sheet, never fewer hours than the work has."""

import numpy as np
import pytest

from harness import gpus
from harness.bill import by_count, by_gpu, by_length
from harness.cost import Work, shape_of
from harness.gpus import GPUS, SHARED, Pass, Roofline, cheapest, named, passes, split, splits
from harness.plan import Options, plan
from harness.standin import Bytes, describe
from harness.task import Losses, Request, Text

LLAMA = "meta-llama/Llama-2-7b-hf"


def work(n, ask=None):
    tokens = np.zeros(n, np.int64)
    return Work.of([Request(id="", tokens=tokens, ask=ask or Losses(start=1, stop=n))])


def a_pass(seconds, runs=True):
    return Pass(cells=(), seconds=seconds, bytes=1.0, host=0.0, runs=runs)


@pytest.fixture(scope="module")
def grid():
    options = Options(
        models=(LLAMA,),
        methods=("none", "dynamic-ntk"),
        tasks=("perplexity.whole,samples=2", "passkey"),
        lengths=(4096, 8192),
        device="cpu",
        dtype="bfloat16",
    )
    return plan(options, stand_in=True)


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
@pytest.mark.parametrize("asked", [work(9000), work(9000, Text(max_new_tokens=50))])
def test_no_gpu_beats_its_data_sheet(gpu, asked):
    shape = shape_of(describe(LLAMA))
    seconds = asked.seconds(shape, Roofline(gpu, shape))
    assert seconds > asked.flops(shape) / gpu.bf16
    assert seconds > len(asked.steps) * 2 * shape.weights / gpu.bandwidth


def test_how_a_method_has_keys_lie_is_counted():
    """Twice, where they may stand at two places; a piece of them, where it is copied."""
    options = Options(
        models=(LLAMA,), methods=("none", "rerope", "alibi"), tasks=("perplexity.whole,samples=1",),
        lengths=(2**21,), device="cpu", dtype="bfloat16",
    )  # fmt: skip
    found = plan(options, stand_in=True)
    key = (2**21 - 1) * 4096 * 2  # of the last token nothing is asked
    plain, twice, copied = passes(found, GPUS["h100"])
    assert (plain.runs, twice.runs, copied.runs) == (True, False, True)
    assert twice.bytes - plain.bytes == key
    assert copied.bytes - plain.bytes == (2 * 2**14 * 32 * (128 + 16) + 16 * 2**21) * 2
    _, twice, _ = passes(found, GPUS["h100"], offload=True)
    assert twice.runs and twice.host > 3 * key


@pytest.mark.parametrize("gpu", GPUS.values(), ids=GPUS)
def test_every_number_of_a_gpu_is_plausible_and_has_a_source(gpu):
    assert 20e9 <= gpu.memory <= 300e9 and 1e12 <= gpu.bandwidth <= 10e12
    assert gpu.fp32 < gpu.bf16 < 3e15 and 0 < gpu.attention < 0.75
    assert gpu.source.startswith("https://") and named(gpu.name.upper()) is gpu


def test_an_unknown_gpu_is_said_with_the_nearest():
    with pytest.raises(LookupError, match="Did you mean 'h100'"):
        named("h1000")


def test_long_inputs_run_at_the_speed_of_attention():
    shape, gpu = shape_of(describe(LLAMA)), GPUS["h100"]
    long = work(2**21)
    seconds = long.seconds(shape, Roofline(gpu, shape))
    assert long.flops(shape) / seconds == pytest.approx(gpu.bf16 * gpu.attention, rel=0.03)


@pytest.mark.parametrize("gpus", [1, 2, 3, 8])
@pytest.mark.parametrize("shared", [1, 4])
def test_a_split_holds_all_passes(gpus, shared):
    seconds = [5000, 400, 300, 300, 200, 100, 100]
    found = [a_pass(s) for s in seconds]
    made = split(found, gpus, shared=shared)
    longest = max(seconds) / min(shared, gpus)
    assert made.hours * 3600 >= max(sum(seconds) / gpus, longest) - 1e-6
    assert made.hours * 3600 <= sum(seconds)
    if gpus == 1:
        assert made.hours * 3600 == sum(seconds)


def test_what_shares_a_pass_ends_it_sooner_and_takes_more():
    found = [a_pass(8000.0)]
    alone, together = split(found, 8), split(found, 8, shared=8)
    assert alone.hours * 3600 == 8000
    assert together.hours * 3600 == pytest.approx(8000 / 8 / SHARED)


def test_the_cheapest_is_the_soonest_that_wastes_nothing():
    every = splits([a_pass(100.0) for _ in range(8)], 16)
    assert [s.gpus for s in every] == [1, 2, 4, 8, 16]
    assert cheapest(every).gpus == 8
    rows = by_count([a_pass(100.0) for _ in range(8)], 12)
    assert [r["gpus"] for r in rows if r["cheapest"]] == [8] and rows[-1]["gpus"] == 12


def test_what_does_not_fit_is_counted_and_not_timed(grid):
    huge = plan(
        Options(
            models=(LLAMA,),
            methods=("none",),
            tasks=("perplexity.whole,samples=1",),
            lengths=(2**21,),
            device="cpu",
            dtype="bfloat16",
        ),
        stand_in=True,
    )
    (one,) = passes(huge, GPUS["4090"])
    assert not one.runs and split([one], 4).hours == 0
    (streamed,) = passes(huge, GPUS["4090"], offload=True)
    assert streamed.runs and streamed.bytes < 24e9 < streamed.host
    assert streamed.seconds > one.seconds
    (row,) = by_length([one])
    assert row["too_large"] == 1 and row["gpu_hours"] == 0
    unfit = {r["gpu"]: r["too_large"] for r in by_gpu(huge, 1)}
    assert unfit["GeForce RTX 4090 24 GB"] == 1 and unfit["B200 SXM 180 GB"] == 0


def test_a_row_in_one_pass_is_a_pass_and_lengths_share_it(grid):
    found = passes(grid, GPUS["h100"])
    assert len(grid) == 8 and sorted(len(p.cells) for p in found) == [1] * 6 + [2]
    rows = by_length(found)
    assert [r["length"] for r in rows] == [4096, 8192] and [r["cells"] for r in rows] == [4, 4]
    hours = sum(r["gpu_hours"] for r in rows)
    assert hours * 3600 == pytest.approx(sum(p.seconds for p in found))
    assert sum(r["tokens"] for r in rows) == sum(p.tokens for p in grid)


def test_a_stand_in_reads_as_many_tokens_as_are_asked_for(grid):
    first = {p.cell.task.partition(",")[0]: p for p in grid if p.cell.length == 4096}
    assert first["perplexity.whole"].tokens == 2 * 4095 - 4
    assert first["passkey.standard"].work.depth >= 4096
    assert all(p.seconds == 0 for p in grid)  # nothing was timed
    documents = Bytes().documents("stdlib", reach=10, first=3)
    assert len({d.tokens.tobytes() for d in documents}) == 3


def test_a_folder_with_nothing_but_a_configuration_is_enough(folder, tmp_path):
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    card = describe(str(tmp_path))
    assert shape_of(card).layers == 2 and card.weights is None and card.spec


def test_what_lies_in_host_memory_is_read_as_a_run_reads_it():
    from harness import cost
    from harness.engine import head, offload
    from harness.executors import local

    assert (local.BLOCKS[0], local.LARGE) == (gpus.BLOCK, gpus.LARGER * gpus.BLOCK)
    assert gpus.PIECE == offload.PIECE
    assert cost.LOGITS == head.SCORES
