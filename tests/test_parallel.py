"""Several processes that read one input together answer as one process does."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from transformers import AutoConfig, AutoModelForCausalLM

from harness import catalog
from harness import run as run_module
from harness.cell import Cell
from harness.cli import main
from harness.cost import shape_of
from harness.engine import parallel
from harness.engine.cut import Block
from harness.engine.evaluate import evaluate, tree_of
from harness.engine.offload import OnHost
from harness.engine.parallel import ALONE, Elsewhere, Ranks, Shards, even, out_of_memory
from harness.engine.tree import Tree
from harness.executors import chosen, ranks
from harness.model import describe, load, sharing
from harness.plan import Options, plan
from harness.reader import TokenReader
from harness.store import Store
from harness.task import Choice, Losses, Request, Text, Verdict

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it has no fork to rely on")

LENGTH, BLOCK, LEAST = 700, 64, 8
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
CASES = {
    "yarn": ("llama", "yarn,factor=4"),
    "of the length": ("llama", "dynamic-ntk"),
    "longrope": ("qwen3", "longrope"),
    "bent": ("llama", "rerope,window=48"),
    "sharpened": ("llama", "yarn+log-n,factor=4"),
    "windowed": ("mistral", "none"),
    "biased": ("bloom", "alibi"),
    "calls sdpa": ("falcon", "none"),
}
LAYOUTS = {
    "mistral": {"sliding_window": 100},
    "bloom": {"n_head": 4, "seq_length": 256},
    "falcon": {"multi_query": True, "alibi": False},
}


def small(name):
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **(SHAPE | LAYOUTS.get(name, {})))
    return AutoModelForCausalLM.from_config(config).eval()


def tree():
    """Questions on a shared trunk, with branches long and short, and one that shares nothing."""
    rng = np.random.default_rng(0)
    text, other = rng.integers(3, 128, LENGTH), rng.integers(3, 128, 150)
    branch = np.concatenate([text[:500], rng.integers(3, 128, 120)])
    return [
        Request(id="whole", tokens=text, ask=Losses(start=1, stop=LENGTH)),
        Request(id="branch", tokens=branch, ask=Losses(start=400, stop=620)),
        Request(id="other", tokens=other, ask=Verdict(answer=(5, 6, 7))),
        Request(id="choice", tokens=text[:600], ask=Choice(options=((4,), (5, 6), (5, 7, 8)))),
    ]


def free():
    rng = np.random.default_rng(1)
    text = rng.integers(3, 128, 400)
    ends = (text, text[:399], np.concatenate([text[:300], rng.integers(3, 128, 90)]))
    return [Request(id=str(i), tokens=t, ask=Text(max_new_tokens=4)) for i, t in enumerate(ends)]


def answers(requests, case, **ways):
    model, method = small(CASES[case][0]), catalog.load("methods", CASES[case][1])
    with method.applied_to(model, LENGTH):
        return evaluate(model, requests, block=BLOCK, **ways)


def together(size, place: Path, work):
    """What `work(ranks)` returns on each of so many processes; an exception as it is."""
    context = multiprocessing.get_context("fork")
    ends = [context.Pipe(duplex=False) for _ in range(size)]
    heard = context.Event()

    def be(rank, out):
        torch.set_num_threads(1)
        store = dist.FileStore(str(place / "store"), size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
        parallel.LEAST = LEAST
        try:
            out.send(work(Ranks()))
        except Exception as error:
            out.send(error)
        heard.wait(60)  # tensors are fetched from whoever sent them
        dist.destroy_process_group()

    processes = [context.Process(target=be, args=(i, out)) for i, (_, out) in enumerate(ends)]
    try:
        for process in processes:
            process.start()
        assert all(came.poll(60) for came, _ in ends)
        found = [came.recv() for came, _ in ends]
    finally:
        heard.set()
        for process in processes:
            process.join(5)
            process.kill()
    return found


@pytest.fixture(scope="module", params=[2, 4])
def shared(request, tmp_path_factory):
    """Every case, of every rank."""

    def work(ranks):
        found = {case: answers(tree(), case, ranks=ranks) for case in CASES}
        found["free"] = answers(free(), "yarn", ranks=ranks)
        found["on the host"] = answers(tree(), "bent", ranks=ranks, memory=OnHost("cpu", piece=50))
        return found

    return together(request.param, tmp_path_factory.mktemp("ranks"), work)


def same(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_ranks_answer_as_one_process_does(shared, case):
    expected = answers(tree(), case)
    for of_rank in shared:
        same(of_rank[case], expected)


def test_ranks_write_what_one_process_writes(shared):
    assert all(of_rank["free"] == answers(free(), "yarn") for of_rank in shared)


def test_ranks_may_have_their_keys_in_host_memory(shared):
    for of_rank in shared:
        same(of_rank["on the host"], answers(tree(), "bent"))


OF_WEIGHTS = {
    **{case: CASES[case] for case in ("yarn", "longrope", "bent", "sharpened", "windowed")},
    "biased": ("llama", "alibi"),
    "fused": ("phi3", "pi,factor=4"),
    "experts": ("mixtral", "ntk,factor=4"),
    "capped": ("gemma2", "none"),
    "neox": ("gpt_neox", "none"),
}


@pytest.fixture(scope="module")
def of_weights(tmp_path_factory):
    """Every case, of two ranks that share each weight; and how many numbers lie on each."""
    place = tmp_path_factory.mktemp("shards")
    for name in {family for family, _ in OF_WEIGHTS.values()}:
        small(name).save_pretrained(place / name)

    def work(_):
        def sharded(case):
            family, spec = OF_WEIGHTS[case]
            card = describe(str(place / family))
            model = AutoModelForCausalLM.from_pretrained(
                place / family, dtype=torch.float32, **sharing(card, 2, None)
            ).eval()
            with catalog.load("methods", spec).applied_to(model, LENGTH):
                ways = {"block": BLOCK, "ranks": Shards()}
                lies = [p.to_local().numel() for p in model.parameters() if hasattr(p, "to_local")]
                return (*(evaluate(model, some, **ways) for some in (tree(), free())), sum(lies))

        return {case: sharded(case) for case in OF_WEIGHTS}

    return together(2, place, work)


@pytest.mark.parametrize("case", OF_WEIGHTS)
def test_ranks_that_share_weights_answer_as_one_process_does(of_weights, case):
    family, spec = OF_WEIGHTS[case]
    model = small(family)
    with catalog.load("methods", spec).applied_to(model, LENGTH):
        scored, written = (evaluate(model, some, block=BLOCK) for some in (tree(), free()))
    for of_rank in of_weights:
        found, said, lies = of_rank[case]
        same(found, scored)
        assert said == written
        assert lies < 0.75 * sum(p.numel() for p in model.parameters())


def test_weights_that_cannot_be_shared_say_why(tmp_path):
    for name in ("falcon", "llama"):
        small(name).save_pretrained(tmp_path / name)
    for name, count, device_map, why in (
        ("falcon", 2, None, "no plan for a falcon"),
        ("llama", 3, None, "4 heads with keys of 2 do not divide by that"),
        ("llama", 4, None, "4 heads with keys of 2 do not divide by that"),
        ("llama", 2, "auto", "leave it out"),
    ):
        with pytest.raises(LookupError, match=f"cannot share the weights of .*{why}"):
            sharing(describe(str(tmp_path / name)), count, device_map)


def test_a_rank_that_shares_weights_is_expected_to_take_less(tmp_path):
    small("llama").save_pretrained(tmp_path)
    card = describe(str(tmp_path))
    whole, half = (shape_of(card).shared(count) for count in (1, 2))
    assert whole == shape_of(card) and half.outside == whole.outside
    assert (half.heads, half.key_heads) == (2, 1) and half.layer == -(-whole.layer // 2)


@pytest.mark.parametrize(("position", "length", "ranks", "row_cost"), [
    (0, 4096, 2, 0), (0, 4096, 4, 500), (10**6, 4096, 4, 500), (300, 256, 4, 0), (0, 130, 2, 1e9),
])  # fmt: skip
def test_every_rank_has_as_much_to_do(position, length, ranks, row_cost):
    ends = even(position, length, ranks, row_cost)
    assert ends[0] == 0 and ends[-1] == length and ends == sorted(ends)
    costs = np.cumsum(np.arange(position, position + length) + row_cost + 0.5)
    done = [costs[stop - 1] for stop in ends[1:]]
    np.testing.assert_allclose(np.diff([0, *done]), costs[-1] / ranks, rtol=0.05)


def test_a_stretch_is_read_once_and_each_rank_holds_its_own_rows(tmp_path):
    asked = tree_of(tree())
    wanted = torch.arange(20)
    cuts = together(3, tmp_path, lambda ranks: ranks.cut(asked, wanted, BLOCK, 10.0))
    told = torch.cat([cut.rows[cut.told] for cut in cuts])
    assert torch.equal(told.sort().values, torch.arange(len(asked.tokens)))
    assert all(sum(block.read for block in cut.inner) == len(asked.tokens) for cut in cuts)
    assert all(len(cut.rows) < 0.45 * len(asked.tokens) for cut in cuts)
    assert all([b.shares for b in cut.last] == [b.shares for b in cuts[0].last] for cut in cuts)


def test_alone_nothing_is_shared():
    assert ALONE.cut(*one_stretch()).inner == [Block(0, 0, 4), Block(4, 4, 4), Block(8, 8, 2)]


def one_stretch():
    return Tree.of([np.arange(10)]), torch.tensor([9]), 4, 0.0


@pytest.mark.parametrize("where", ["a layer", "the head"])
def test_what_goes_wrong_on_one_rank_goes_wrong_on_all_and_they_can_go_on(where, tmp_path):
    """As out of memory does, which is then tried again in smaller blocks by all of them."""

    def work(ranks):
        model = small("llama")
        spoilt = model.model.layers[1] if where == "a layer" else model.model.norm
        seen = []

        def spill(*_):
            seen.append(1)
            if ranks.rank == 1 and len(seen) == (3 if where == "a layer" else 1):
                raise MemoryError("out of memory")

        hook = spoilt.register_forward_pre_hook(spill)
        try:
            evaluate(model, tree(), block=BLOCK, ranks=ranks)
        except (MemoryError, Elsewhere) as error:
            said = error
        hook.remove()
        return said, evaluate(model, tree()[:1], block=BLOCK, ranks=ranks)

    (first, one), (second, two) = together(2, tmp_path, work)
    assert isinstance(first, Elsewhere) and "another rank is out of memory" in str(first)
    assert isinstance(second, MemoryError)
    expected = evaluate(small("llama"), tree()[:1], block=BLOCK)
    same(one, expected), same(two, expected)


def test_a_rank_without_room_for_what_comes_says_so_before_anything_is_sent(tmp_path):
    """Else the others would wait for its message, and what it says next be taken for that."""

    def work(ranks):
        model, tries = small("llama"), []
        real = torch.Tensor.new_zeros

        def tight(x, *shape, **more):
            tries.append(1)
            if ranks.rank == 1 and len(tries) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return real(x, *shape, **more)

        torch.Tensor.new_zeros = tight
        try:
            evaluate(model, tree(), block=BLOCK, ranks=ranks)
        except (RuntimeError, Elsewhere) as error:
            said = error
        finally:
            torch.Tensor.new_zeros = real
        return said, evaluate(model, tree()[:1], block=BLOCK, ranks=ranks)

    (first, one), (second, two) = together(2, tmp_path, work)
    assert isinstance(first, Elsewhere) and "another rank is out of memory" in str(first)
    assert out_of_memory(second) and not isinstance(second, Elsewhere)
    expected = evaluate(small("llama"), tree()[:1], block=BLOCK)
    same(one, expected), same(two, expected)


def test_a_message_for_which_there_is_no_room_is_not_taken_for_a_death():
    with pytest.raises(torch.OutOfMemoryError), parallel._message():
        raise torch.OutOfMemoryError("CUDA out of memory.")
    with (
        pytest.raises(Elsewhere, match="another rank has died: Connection closed"),
        parallel._message(),
    ):
        raise RuntimeError("Connection closed by peer\nmore")


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 20.00 MiB.",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory",
    ],
)
def test_libraries_say_in_many_ways_that_there_is_no_memory(said):
    assert out_of_memory(RuntimeError(said))
    assert not out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


def test_no_network_hears_where_ranks_meet():
    store = ranks._store(2)
    port = f"{store.port:04X}"
    lines = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path("/proc/net", name).read_text().splitlines()[1:]
    ]
    heard = {at for _, at, _, state, *_ in lines if state == "0A" and at.endswith(f":{port}")}
    assert heard == {f"0100007F:{port}"}


def test_the_first_rank_is_heard_by_all(tmp_path):
    said = "what is to be read: ä"
    found = together(2, tmp_path, lambda ranks: ranks.say("" if ranks.rank else said))
    assert found == [said, said]


# From the command line


def asked(folder, place):
    words = ["run", "--model", str(folder), "-m", "pi,none", "-t", "passkey,perplexity", "--json"]
    words += ["-l", "300,600", "--samples", "1", "--corpus", "stdlib", "--device", "cpu"]
    return [*words, "--dtype", "float32", "--results", str(place)]


def cells(folder, place, *more, command=("-P", "-m", "harness")):
    """What a run by several processes prints."""
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    ran = subprocess.run(
        [sys.executable, *command, *asked(folder, place), *more],
        capture_output=True,
        text=True,
        timeout=200,
        env=environment | {"OMP_NUM_THREADS": "1"},
    )
    assert ran.returncode == 0, ran.stderr
    return lines(ran.stdout)


def alone(folder, place, capsys):
    with pytest.raises(SystemExit) as left:
        main(asked(folder, place))
    assert not left.value.code
    return lines(capsys.readouterr().out)


def lines(said):
    """Cells without what differs from one run to the next."""
    found = json.loads(said)
    assert [cell["status"] for cell in found] == ["scored"] * 8
    return [(cell["method"], cell["task"], cell["length"], cell["value"]) for cell in found]


def matches(found, expected):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours[:3] == theirs[:3] and ours[3] == pytest.approx(theirs[3], rel=1e-4)


@pytest.mark.slow
def test_a_command_starts_its_ranks_or_is_torchruns(folder, tmp_path, capsys):
    expected = alone(folder, tmp_path / "alone", capsys)
    matches(cells(folder, tmp_path / "started", "--ranks", "2"), expected)
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "harness")
    matches(cells(folder, tmp_path / "torchrun", command=torchrun), expected)
    kept = [*Store(tmp_path / "torchrun").results()]
    assert {result.provenance["ranks"] for result in kept} == {2}
    alone(folder, tmp_path / "torchrun", capsys)
    assert [*Store(tmp_path / "torchrun").results()] == kept  # nothing was left to measure


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (["--ranks", "2", "--write-cells", "x"], "--write-cells is for one process a cell"),
        (["--device-map", "auto", "--offload", "on"], "--offload on needs one device"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(flags, why, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["run", "-m", "none", "-t", "passkey", "-l", "300", *flags])
    assert left.value.code == 2 and why in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_what_one_rank_cannot_begin_none_waits_for(folder, tmp_path, monkeypatch):
    """Before the engine, too: what is asked, and the proof."""
    cell = Cell(model="m", method="pi,factor=2", task="perplexity.whole,samples=1", length=600)

    def work(ranks):
        live = load(str(folder), device="cpu", dtype="float32")
        reader = TokenReader(live.tokenizer, tmp_path / str(ranks.rank))
        said = []
        for spoilt in ("_fitting", "prove"):
            with pytest.MonkeyPatch.context() as patch:
                if ranks.rank == 1:
                    patch.setattr(run_module, spoilt, no_memory)
                try:
                    run_module.run(live, reader, [cell], corpus="stdlib", ranks=ranks)
                except (MemoryError, Elsewhere) as error:
                    said.append(error)
        return said

    first, second = together(2, tmp_path, work)
    assert [str(error) for error in first] == ["another rank is out of memory"] * 2
    assert [type(error) for error in second] == [MemoryError] * 2


def no_memory(*_):
    raise MemoryError("out of memory")


@pytest.mark.slow
def test_a_command_starts_ranks_that_share_weights(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "even")
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(folder, num_key_value_heads=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "even")
    shared = ("--ranks", "2", "--parallel", "tensor")
    found = cells(tmp_path / "even", tmp_path / "shared", *shared)
    matches(found, alone(tmp_path / "even", tmp_path / "alone", capsys))
    words = f"run --model {folder} -m none -t passkey -l 300 --results {tmp_path}/no"
    with pytest.raises(SystemExit) as left:
        main([*words.split(), *shared])
    assert left.value.code == 2 and "do not divide by that" in capsys.readouterr().err
    assert not [*(tmp_path / "no").rglob("*.json")]


@pytest.mark.slow
def test_a_rank_that_dies_fails_its_cells_with_the_reason(folder, tmp_path, monkeypatch):
    wish = Options(models=(str(folder),), methods=("none", "pi"), tasks=("passkey",),
                   lengths=(300,), samples=1, device="cpu", dtype="float32")  # fmt: skip
    others, real = [], subprocess.Popen

    def started(command, **more):
        process = real(command, **more)
        if "harness.executors.ranks" in command:
            others.append(process)
        return process

    monkeypatch.setattr(subprocess, "Popen", started)
    found, watch = [], ranks.Nobody()
    watch.cell_finished = lambda result: others[0].kill()
    for result in ranks.RankedExecutor(2).execute(plan(wish), Store(tmp_path), wish, watch):
        found.append(result)
    assert [result.status for result in found] == ["scored", "failed"]
    assert "another rank has died" in found[1].reason
    assert len(others) == 1 and others[0].returncode and not dist.is_initialized()


def test_ranks_are_asked_for_in_words_that_fit(monkeypatch, tmp_path):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ValueError, match="--ranks is for --engine local, not for ray"):
        chosen("ray", ranks=2)
    with pytest.raises(ValueError, match="--ranks must be at least 1"):
        chosen("local", ranks=0)
    assert chosen("local", ranks=2) == ranks.RankedExecutor(2)
    with pytest.raises(SystemExit) as left:
        main(["run", "-m", "none", "-t", "passkey", "-l", "1k", "--parallel", "tensor",
              "--results", str(tmp_path)])  # fmt: skip
    assert left.value.code == 2
    monkeypatch.setenv("WORLD_SIZE", "4")  # which an earlier shell may have left
    assert chosen("local").__name__ == "harness.executors.local"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert chosen("local") == ranks.RankedExecutor(None)
