"""From a wish to a stored result, on a random model: what a pass fills, and what can go wrong."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from harness import catalog, machine, parts
from harness import run as run_module
from harness.cell import Cell
from harness.cli import main
from harness.engine import evaluate, generate
from harness.executors import local
from harness.model import Live, load
from harness.plan import Options, missing, plan
from harness.probe import reads_alike
from harness.reader import TokenReader
from harness.run import _fitting, run
from harness.store import Store
from harness.task import Losses, Request
from harness.tasks._infinitebench import InfiniteBench
from harness.tasks.perplexity import Perplexity

pytestmark = pytest.mark.filterwarnings("default")


class Notes:
    """A watch that remembers."""

    def __init__(self):
        self.passes, self.said, self.read = [], [], 0.0

    def cell_started(self, cells, tokens):
        self.passes.append([cell.length for cell in cells])
        self.tokens = tokens

    def progressed(self, tokens):
        self.read += tokens

    def cell_finished(self, result): ...

    def note(self, message):
        self.said.append(message)


@pytest.fixture
def wish(folder):
    return Options(
        models=(str(folder),),
        methods=("none", "pi"),
        tasks=("perplexity",),
        lengths=(600, 1200),
        corpus="stdlib",
        samples=2,
        dtype="float32",
        device="cpu",
    )


def done(options, root, watch=None):
    return [*local.execute(plan(options), Store(root), options, watch or Notes())]


def command(*words):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code or 0


def test_a_row_is_filled_from_one_pass_with_the_numbers_of_separate_ones(wish, tmp_path):
    together = Notes()
    row = done(replace(wish, methods=("yarn",)), tmp_path / "row", together)
    assert together.passes == [[600, 1200]] and together.read == pytest.approx(together.tokens)
    alone = [
        *local.execute(
            [p for p in plan(replace(wish, methods=("yarn",))) if p.cell.length == 600],
            Store(tmp_path / "alone"),
            wish,
            Notes(),
        )
    ]
    assert row[0].cell == alone[0].cell
    assert row[0].value == pytest.approx(alone[0].value, rel=1e-5)


class Stopped(Notes):
    """A person who interrupts in the middle of the second document."""

    def progressed(self, tokens):
        super().progressed(tokens)
        if self.read > 1.5 * 1200:
            raise KeyboardInterrupt


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """How many texts were read together, pass by pass; each is a group by itself."""
    seen = []

    def counted(model, requests, **ways):
        seen.append(len({request.id for request in requests}))
        return evaluate.evaluate(model, requests, **ways)

    monkeypatch.setattr("harness.run.evaluate", counted)
    monkeypatch.setenv("CONTEXT_HARNESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(evaluate, "ROWS", 1)
    return seen


def test_a_pass_that_was_interrupted_goes_on_from_its_last_document(wish, tmp_path, groups):
    one = replace(wish, methods=("yarn",), samples=3)
    with pytest.raises(KeyboardInterrupt):
        done(one, tmp_path / "stopped", Stopped())
    assert not [*(tmp_path / "stopped").rglob("*.json")]
    calm = done(one, tmp_path / "calm")  # of the same cells, so it goes on from there
    assert groups == [1, 1, 1, 1]  # one, half of one; then the two that were missing
    watch = Notes()
    again = done(one, tmp_path / "again", watch)
    assert groups[4:] == [1, 1, 1] and watch.read == pytest.approx(watch.tokens)
    assert [r.items for r in calm] == [r.items for r in again]
    losses = [Store(tmp_path / f).losses(again[0].cell) for f in ("calm", "again")]
    assert all(np.array_equal(losses[0][name], losses[1][name]) for name in losses[1])
    assert not [*(machine.cache_folder() / "parts").iterdir()]


@pytest.mark.parametrize("change", [{"dtype": "bfloat16"}, {"methods": ("pi",)}, {"samples": 2}])
def test_what_another_pass_has_read_is_not_taken(wish, tmp_path, groups, change):
    one = replace(wish, methods=("yarn",), samples=3)
    with pytest.raises(KeyboardInterrupt):
        done(one, tmp_path / "stopped", Stopped())
    other = replace(one, **change)
    done(other, tmp_path / "other")
    assert groups[2:] == [1] * other.samples


def test_what_other_code_has_read_is_not_taken(wish, tmp_path, groups, monkeypatch):
    one = replace(wish, methods=("yarn",), samples=3)
    with pytest.raises(KeyboardInterrupt):
        done(one, tmp_path / "stopped", Stopped())
    monkeypatch.setattr(parts, "CODE", "other")
    done(one, tmp_path / "other")
    assert groups[2:] == [1] * 3


def test_another_configuration_beside_the_same_weights_is_another_model(wish, tmp_path, groups):
    """Its epsilon changes every number, and no hash of weights."""
    mine = tmp_path / "tiny"
    shutil.copytree(wish.models[0], mine)
    one = replace(wish, models=(str(mine),), methods=("yarn",), samples=3)
    with pytest.raises(KeyboardInterrupt):
        done(one, tmp_path / "stopped", Stopped())
    before = done(one, tmp_path / "before")
    config = json.loads((mine / "config.json").read_text())
    (mine / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.01}))
    groups.clear()
    with pytest.raises(ValueError, match="with another config than there is now"):
        missing(plan(one), Store(tmp_path / "before"))
    after = done(one, tmp_path / "after")
    assert groups == [1] * 3 and after[0].value != before[0].value


def test_what_was_read_is_kept_until_its_results_are(wish, tmp_path, groups, monkeypatch):
    one = replace(wish, methods=("yarn",), samples=3)

    def full(*_, **__):
        raise OSError("No space left on device")

    with monkeypatch.context() as disk, pytest.raises(OSError, match="No space left"):
        disk.setattr(Store, "write", full)
        done(one, tmp_path / "full")
    done(one, tmp_path / "again")
    assert groups == [1] * 3
    assert not [*(machine.cache_folder() / "parts").iterdir()]


def test_answers_that_were_written_are_not_written_again(wish, tmp_path, monkeypatch):
    """Neither of a pass that was killed nor of one whose grading failed."""
    monkeypatch.setenv("CONTEXT_HARNESS_CACHE", str(tmp_path / "cache"))
    asked, answer, most = [], generate._Writer.answer, [5]

    def counted(self, place, request, *more):
        if len(asked) == most[0]:
            raise KeyboardInterrupt
        asked.append(request.id)
        return answer(self, place, request, *more)

    monkeypatch.setattr(generate._Writer, "answer", counted)
    one = replace(wish, methods=("yarn",), lengths=(900,), corpus=None, samples=None)
    one = replace(one, tasks=("infinitebench.passkey,samples=6",))
    with pytest.raises(KeyboardInterrupt):
        done(one, tmp_path / "stopped")
    kept, most[0] = len([*tmp_path.rglob("*.npz")]), 99
    with monkeypatch.context() as patch:
        patch.setattr(InfiniteBench, "grade", Mock(side_effect=ModuleNotFoundError("no scorer")))
        (ungraded,) = done(one, tmp_path / "ungraded")
    assert ungraded.status == "failed" and "no scorer" in ungraded.reason
    assert 0 < kept < 5 and len(asked) == 5 + 6 - kept
    asked.clear()
    watch = Notes()
    (again,) = done(one, tmp_path / "again", watch)
    assert asked == [] and watch.read == pytest.approx(watch.tokens)
    assert not [*(machine.cache_folder() / "parts").iterdir()]
    (fresh,) = done(one, tmp_path / "fresh")
    assert len(asked) == 6 and fresh.items == again.items
    answers = [Store(tmp_path / f).samples(again.cell) for f in ("again", "fresh")]
    assert answers[0] == answers[1]


CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}{{ enable_thinking }}"


@pytest.mark.parametrize(
    ("template", "told"),
    [(None, {"asked_as": "base"}), (CHAT, {"asked_as": "chat", "thinking": "off"})],
)
def test_a_result_says_how_it_was_asked_and_what_ended_answers(template, told, folder, monkeypatch):
    live = load(str(folder), device="cpu", dtype="float32")
    monkeypatch.setattr(live.tokenizer, "chat_template", template)
    monkeypatch.setattr(live.model.generation_config, "eos_token_id", 7)
    said = {}
    for task in ("infinitebench.passkey,samples=1", "perplexity,samples=1"):
        cell = Cell(model="m", method="none", task=task, length=600)
        (finished,) = run(live, TokenReader(live.tokenizer), [cell], keep=False)
        made = finished.result.provenance
        said[task] = {k: made[k] for k in ("asked_as", "thinking", "end_tokens") if k in made}
    assert [*said.values()] == [told | {"end_tokens": [1, 7]}, {}]


def test_a_length_that_is_too_long_leaves_the_shorter_ones_of_its_row(wish, tmp_path):
    cells = plan(replace(wish, methods=("yarn",), samples=1))
    cells[1] = replace(cells[1], bytes=2**60, alone=2**60, fits=False)
    found = [*local.execute(cells, Store(tmp_path), wish, Notes())]
    assert [result.status for result in found] == ["scored", "out_of_memory"]
    assert f"needs {2**30:.1f} GiB, and there are" in found[1].reason


def test_what_a_row_takes_on_the_machine_it_was_planned_on_is_not_what_each_cell_takes(
    wish, tmp_path
):
    """There the row fits, as a whole; here each length does."""
    cells = plan(replace(wish, methods=("yarn",), samples=1))
    elsewhere = [replace(cell, bytes=2**60) for cell in cells]
    found = [*local.execute(elsewhere, Store(tmp_path), wish, Notes())]
    assert [result.status for result in found] == ["scored", "scored"]


def test_what_a_method_tells_of_itself_that_is_no_json_fails_its_cell_alone(
    wish, tmp_path, monkeypatch
):
    asked = replace(wish, methods=("none", "yarn"), tasks=("passkey,samples=1",), lengths=(900,))
    yarn = type(catalog.load("methods", "yarn"))
    told = yarn.provenance
    monkeypatch.setattr(yarn, "provenance", lambda *a: told(*a) | {"x": np.float32(1)})
    found = [*local.execute(plan(asked), Store(tmp_path), asked, Notes())]
    assert [result.status for result in found] == ["scored", "failed"]
    assert "what it is made of cannot be kept" in found[1].reason


def test_inputs_that_do_not_fit_together_are_read_one_by_one(wish, tmp_path):
    asked = replace(wish, methods=("none",), tasks=("passkey,samples=2",), lengths=(900,))
    (planned,) = plan(asked)
    (whole,) = local.execute([planned], Store(tmp_path / "a"), asked, Notes())
    large = replace(planned, bytes=10**15, alone=10**15)
    (found,) = local.execute([large], Store(tmp_path / "b"), asked, Notes())
    assert found.provenance["apart"] and "apart" not in whole.provenance
    assert (found.status, found.value) == ("scored", whole.value)


@pytest.mark.parametrize("error", [ValueError("no key tokens"), FloatingPointError("not finite")])
def test_a_length_that_has_no_score_leaves_the_others_of_its_pass(
    error, wish, tmp_path, monkeypatch
):
    scored, read = Perplexity.score, run_module.evaluate

    def picky(self, samples):
        if isinstance(error, ValueError) and len(samples[0].losses) < 700:
            raise error
        return scored(self, samples)

    def shaky(model, requests, **how):
        if isinstance(error, FloatingPointError) and max(len(r.tokens) for r in requests) > 700:
            raise error
        return read(model, requests, **how)

    monkeypatch.setattr(Perplexity, "score", picky)
    monkeypatch.setattr(run_module, "evaluate", shaky)
    found = done(replace(wish, methods=("yarn",)), tmp_path)
    bad = 0 if isinstance(error, ValueError) else 1
    assert found[bad].status == "failed" and str(error) in found[bad].reason
    assert found[1 - bad].status == "scored"


class Asking:
    """As much of a task as is asked for its requests."""

    def __init__(self, *requests):
        self.requests = lambda reader, length: requests


def asked(name, tokens):
    return Request(id=name, tokens=np.ones(tokens, np.int64), ask=Losses(start=1, stop=tokens))


@pytest.mark.parametrize(
    ("requests", "why"),
    [
        ([asked("a", 8), asked("b", 9)], "its request 'b' has 9 tokens, which is more than 8"),
        ([asked("a", 8), asked("a", 7)], "two of its requests are called 'a'"),
        ([], "it asks nothing at 8 tokens"),
    ],
)
def test_a_task_asks_what_fits_and_each_by_a_name_of_its_own(requests, why):
    with pytest.raises(ValueError, match=why):
        list(_fitting(Asking(*requests), None, 8))
    assert len(list(_fitting(Asking(asked("a", 8), asked("b", 3)), None, 8))) == 2


def test_a_pass_that_is_to_keep_nothing_keeps_nothing(folder, tmp_path, groups):
    live = load(str(folder), device="cpu", dtype="float32")
    reader = TokenReader(live.tokenizer, tmp_path / "tokens")
    cell = Cell(model="m", method="none", task="perplexity.whole,samples=3", length=600)
    for keep, read in ((True, 3), (True, 3), (False, 6)):
        run(live, reader, [cell], corpus="stdlib", keep=keep)
        assert len(groups) == read and (machine.cache_folder() / "parts").exists()


@pytest.mark.parametrize("told", [np.int64(3), float("nan"), {1, 2}])
def test_what_a_task_tells_that_is_no_json_fails_its_cell_alone(wish, tmp_path, monkeypatch, told):
    grade = Perplexity.grade

    def telling(self, request, outcome, reader):
        sample = grade(self, request, outcome, reader)
        about = {"hits": told} if len(outcome) > 700 else {}
        return replace(sample, about=sample.about | about)

    monkeypatch.setattr(Perplexity, "grade", telling)
    found = done(replace(wish, methods=("yarn",)), tmp_path)
    assert [r.status for r in found] == ["scored", "failed"]
    assert "what its task tells of answers cannot be kept" in found[1].reason


def test_a_part_that_is_torn_is_read_anew(wish, tmp_path, groups):
    one = replace(wish, methods=("yarn",), samples=3)
    with pytest.raises(KeyboardInterrupt):
        done(one, tmp_path / "stopped", Stopped())
    (part,) = (machine.cache_folder() / "parts").rglob("*.npz")
    part.write_bytes(part.read_bytes()[:-300])
    assert all(result.status == "scored" for result in done(one, tmp_path / "again"))
    assert groups[2:] == [1, 1, 1]


def test_a_method_that_depends_on_the_length_has_a_pass_for_each(wish, tmp_path):
    watch = Notes()
    done(replace(wish, methods=("dynamic-ntk",)), tmp_path, watch)
    assert watch.passes == [[600], [1200]]


def test_what_depends_on_the_length_is_what_the_probe_sees(folder):
    live = load(str(folder), device="cpu", dtype="float32")
    for name in catalog.names("methods"):
        method = catalog.load("methods", name)
        if hasattr(method, "factor") and not method.depends_on_length:
            method = replace(method, factor=4.0)
        assert reads_alike(live.model, method, [600, 1200]) != method.depends_on_length


@pytest.mark.parametrize("spec", [
    "dynamic-ntk+rerope", "dynamic-yarn+dca", "dynamic-ntk+streaming-llm+log-n", "clex+lm-infinite",
    "yarn+dca,factor=4", "pi+self-extend,factor=4", "nope,every=2",
])  # fmt: skip
def test_the_probe_sees_it_behind_a_method_in_parts_too(spec, folder):
    """There the model's own table turns nothing, and each part turns by the encoding."""
    live = load(str(folder), device="cpu", dtype="float32")
    method = catalog.load("methods", spec)
    assert reads_alike(live.model, method, [600, 1200]) != method.depends_on_length


def test_the_factor_is_settled_once_for_the_grid(wish):
    cells = [
        p.cell for p in plan(replace(wish, methods=("none", "pi", "dynamic-ntk", "pi,factor=3")))
    ]
    assert {c.method for c in cells} == {"none", "pi,factor=2.34375", "dynamic-ntk", "pi,factor=3"}


def test_a_given_factor_leaves_methods_that_follow_the_length_as_they_are(wish):
    grid = plan(replace(wish, methods=("pi", "dynamic-ntk", "dynamic-yarn,factor=2"), factor=4.0))
    assert {p.cell.method for p in grid} == {"pi,factor=4", "dynamic-ntk", "dynamic-yarn,factor=2"}


def test_a_result_says_what_made_it(wish, tmp_path):
    first = done(replace(wish, methods=("yarn",)), tmp_path)[0]
    made = first.provenance
    assert made["dtype"] == "float32" and made["kernel"] == "torch-flash-cpu"
    assert len(made["weights"]) == len(made["encoding"]) == 64
    assert made["method"]["factor"] == 1200 / 512 and made["task"]["samples"] == 2
    assert first.n == 2 and first.low < first.value < first.high
    assert first.corpus.startswith("stdlib@") and first.protocol == "perplexity.whole"
    losses = Store(tmp_path).losses(first.cell)
    assert sorted(len(x) for x in losses.values()) == [599, 599]
    assert first.value == pytest.approx(
        np.exp(np.mean([x.mean() for x in losses.values()])), rel=1e-5
    )


def test_what_was_cut_is_told_for_each_sample_and_in_the_result(wish, tmp_path, monkeypatch):
    passkey = type(catalog.load("tasks", "passkey"))
    whole = passkey.requests

    def shortened(self, reader, length):
        for i, request in enumerate(whole(self, reader, length)):
            yield replace(request, cut=7 * (i == 1))

    monkeypatch.setattr(passkey, "requests", shortened)
    asked = {"tasks": ("passkey",), "methods": ("none",), "lengths": (600,), "corpus": None}
    (result,) = done(replace(wish, samples=1, **asked), tmp_path)
    assert [s["cut"] for s in Store(tmp_path).samples(result.cell)] == [0, 7, 0, 0, 0]
    assert result.truncated == 0.2 == result.row()["truncated"]


def test_each_method_makes_another_encoding(wish, tmp_path):
    options = replace(wish, methods=("none", "pi", "ntk", "yarn"), tasks=("passkey",))
    found = done(replace(options, lengths=(1200,)), tmp_path)
    assert len({r.provenance["encoding"] for r in found}) == 4


def test_a_method_that_changes_nothing_in_the_live_model_is_refused(wish, folder, monkeypatch):
    live = load(str(folder), device="cpu", dtype="float32")
    cells = [p.cell for p in plan(replace(wish, methods=("pi",)))][:1]
    from contextlib import nullcontext

    method = type(catalog.load("methods", "pi"))
    monkeypatch.setattr(method, "applied_to", lambda *_: nullcontext())
    (finished,) = run(live, TokenReader(live.tokenizer), cells, corpus="stdlib")
    assert (
        finished.result.status == "failed" and "left the model's encoding" in finished.result.reason
    )


def test_out_of_memory_is_tried_in_smaller_blocks_then_cell_by_cell_then_said(
    wish, tmp_path, monkeypatch
):
    blocks, real = [], local.run

    def hungry(live, reader, cells, *, block, **more):
        blocks.append((len(cells), block))
        if cells[-1].length > 600 or len(cells) > 1:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried")
        return real(live, reader, cells, block=block, **more)

    monkeypatch.setattr(local, "run", hungry)
    watch = Notes()
    short, long = done(replace(wish, methods=("none",)), tmp_path, watch)
    assert short.status == "scored" and long.status == "out_of_memory"
    assert blocks[:3] == [(2, 2048), (2, 512), (2, 128)] and "blocks of 512" in watch.said[0]
    assert "128 tokens" in long.reason


def test_a_gpu_that_answers_nothing_more_fails_one_pass_and_no_other(wish, tmp_path, monkeypatch):
    """A fault in one of its programs spoils the process's context: all that is left would fail."""

    def faulty(*_, **__):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    monkeypatch.setattr(Live, "device", "cuda")
    monkeypatch.setattr(local, "memory", lambda *_, **__: None)
    monkeypatch.setattr(local.machine, "whole_memory", lambda device: 10**12)
    monkeypatch.setattr(local, "run", faulty)
    monkeypatch.setattr(torch.cuda, "synchronize", faulty)
    store, planned = Store(tmp_path), plan(wish)
    found = local.execute(planned, store, wish, Notes())
    failed = [next(found)]
    with pytest.raises(ChildProcessError, match="GPU has stopped: CUDA error: an illegal"):
        failed += found
    assert {r.status for r in failed} == {"failed"} and "illegal memory" in failed[0].reason
    assert sum(store.get(p.cell) is not None for p in planned) == len(failed) < len(planned)


def test_any_other_error_fails_the_cell_and_the_grid_goes_on(wish, tmp_path, monkeypatch):
    real = local.run

    def broken(live, reader, cells, **more):
        if cells[0].method == "none":
            raise RuntimeError("the kernel said no\nand more")
        return real(live, reader, cells, **more)

    monkeypatch.setattr(local, "run", broken)
    found = done(wish, tmp_path)
    assert [r.status for r in found] == ["failed"] * 2 + ["scored"] * 2
    assert found[0].reason == "RuntimeError: the kernel said no"


def test_logits_that_are_no_numbers_fail_the_cell(wish, tmp_path, monkeypatch, folder):
    real = local.load

    def poisoned(*words, **more):
        live = real(*words, **more)
        live.model.model.norm.weight.data.fill_(float("nan"))
        return live

    monkeypatch.setattr(local, "load", poisoned)
    monkeypatch.setattr(local, "checked", lambda live: live)
    found = done(replace(wish, methods=("none",)), tmp_path)
    assert {r.status for r in found} == {"failed"} and "not finite" in found[0].reason


def test_the_second_time_nothing_is_run(folder, tmp_path, capsys, monkeypatch):
    words = ["run", "--model", folder, "-m", "none,pi", "-t", "passkey", "-l", "512,1k"]
    words += ["--results", tmp_path, "--json"]
    assert command(*words) == 0
    first = json.loads(capsys.readouterr().out)
    assert [row["length"] for row in first] == [512, 1024, 512, 1024]
    monkeypatch.setattr(local, "execute", None)
    assert command(*words) == 0
    assert json.loads(capsys.readouterr().out) == first


def test_a_wider_range_extends_the_grid_at_a_fixed_factor(folder, tmp_path, capsys):
    words = ["run", "--model", folder, "-m", "pi", "-t", "passkey", "--factor", "4", "--json"]
    command(*words, "--results", tmp_path, "-l", "512")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    command(*words, "--results", tmp_path, "-l", "512-2k")
    after = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.json")}
    assert len(before) == 1 and len(after) == 3 and before.items() <= after.items()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"methods": ("yarm",), "models": ("nowhere",)}, "No method named 'yarm'"),
        ({"lengths": (40,), "tasks": ("passkey",)}, "Passkey needs at least"),
        ({"corpus": "text:nowhere.txt"}, "no file or folder"),
        ({"lengths": (10**8,)}, "too few for 2 documents"),
        ({"methods": ("pi,factor=0.5",)}, "from 1 up"),
        ({"models": ("nowhere",)}, "No model named 'nowhere'"),
        ({"models": ("tiny/model,size=3",)}, "no parameter 'size'"),
        ({"device": "gpu"}, "auto, cpu or cuda"),
        ({"dtype": "int8"}, "auto, bfloat16 or float32"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(wish, more, said):
    with pytest.raises((ValueError, LookupError), match=said):
        plan(replace(wish, **more))


def test_factors_of_the_wrong_size_are_said_before_anything_runs(wish, tmp_path):
    (tmp_path / "three.json").write_text("[1, 2, 3]")
    options = replace(wish, methods=("none", "longrope"), factors=str(tmp_path / "three.json"))
    with pytest.raises(ValueError, match="holds 3 factors, and this model takes 8"):
        plan(options)


def test_a_file_of_factors_means_the_same_as_a_flag_and_as_a_parameter(wish, tmp_path):
    held = {"factors": [2.0] * 8, "factor": 8, "short": [{"up_to": 600, "factors": [1.1] * 8}]}
    file = tmp_path / "f.json"
    file.write_text(json.dumps(held))
    flag = plan(replace(wish, methods=("longrope",), factors=str(file)))
    parameter = plan(replace(wish, methods=(f"longrope,factors={file}",)))
    assert [one.cell for one in flag] == [one.cell for one in parameter]
    assert "factor=" not in flag[0].cell.method


def test_a_folder_without_a_model_is_said(tmp_path):
    with pytest.raises(LookupError, match="could not be read"):
        load(str(tmp_path), device="cpu", dtype="float32")


def test_weights_that_would_be_unpickled_are_refused(folder, tmp_path):
    import shutil

    place = Path(shutil.copytree(folder, tmp_path / "pickled"))
    (place / "model.safetensors").unlink()
    torch.save({}, place / "pytorch_model.bin")
    with pytest.raises(LookupError, match="could not be read"):
        load(str(place), device="cpu", dtype="float32")


def test_a_checkpoint_that_is_not_whole_is_refused(folder, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    place = Path(shutil.copytree(folder, tmp_path / "torn"))
    weights = load_file(place / "model.safetensors")
    del weights["model.layers.0.self_attn.q_proj.weight"]
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LookupError, match=r"not whole: 1 of its weights.*q_proj"):
        load(str(place), device="cpu", dtype="float32")


def test_weights_cut_short_are_said(folder, tmp_path):
    import shutil

    place = Path(shutil.copytree(folder, tmp_path / "short"))
    whole = (place / "model.safetensors").read_bytes()
    (place / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(LookupError, match="could not be read"):
        load(str(place), device="cpu", dtype="float32")


def scaled(folder, place, **rope):
    """The model with a rope scaling of its own."""
    import shutil

    shutil.copytree(folder, place)
    config = json.loads((place / "config.json").read_text())
    config["rope_parameters"] |= rope
    (place / "config.json").write_text(json.dumps(config))
    return place


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 2.0},
        {
            "rope_type": "longrope",
            "short_factor": [1.0] * 8,
            "long_factor": [1.0 + i / 2 for i in range(8)],
            "original_max_position_embeddings": 512,
            "factor": 4.0,
        },
    ],
    ids=["dynamic", "longrope"],
)
def test_a_checkpoint_with_a_scaling_of_its_own_is_measured_as_it_is(folder, tmp_path, wish, rope):
    place = scaled(folder, tmp_path / "scaled", **rope)
    methods = ("none", "longrope", "yarn") if rope["rope_type"] == "longrope" else ("none", "yarn")
    options = replace(wish, models=(str(place),), methods=methods, tasks=("passkey",))
    options = replace(options, lengths=(400, 1200))
    found = done(options, tmp_path / "results")
    assert {r.status for r in found} == {"scored"}, [r.reason for r in found]
    assert missing(plan(options), Store(tmp_path / "results")) == []


def test_a_result_of_other_weights_is_not_taken_for_this_models(wish, tmp_path):
    options = replace(wish, methods=("pi",), lengths=(600,))
    store = Store(tmp_path)
    (result,) = done(options, tmp_path)
    assert missing(plan(options), store) == []
    for change, said in (
        ({"weights": "0" * 64}, "another weights"),
        ({"task_version": 0}, "another task version"),
        ({"method": result.provenance["method"] | {"frequencies": [1.0]}}, "another encoding"),
    ):
        store.write(result.model_copy(update={"provenance": result.provenance | change}))
        with pytest.raises(ValueError, match=said):
            missing(plan(options), store)


def test_what_no_folder_can_be_named_is_said_before_anything_runs(wish):
    many = tuple(i / 1000 for i in range(51))
    with pytest.raises(ValueError, match="fewer depths"):
        missing(plan(replace(wish, tasks=("passkey",), depths=many)), Store("nowhere"))


def test_a_grid_of_which_nothing_can_run_is_a_mistake(folder, tmp_path, capsys):
    place = tmp_path / "bloom"
    config = AutoConfig.for_model(
        "bloom", hidden_size=32, n_head=2, n_layer=1, vocab_size=258, seq_length=512
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(place)
    for file in folder.glob("tokenizer*"):
        shutil.copy(file, place)
    with pytest.raises(SystemExit) as left:
        main(["run", "--model", str(place), "-m", "yarn,pi", "-t", "passkey", "-l", "1k",
              "--results", str(tmp_path / "results")])  # fmt: skip
    assert left.value.code == 2
    assert "yarn,factor=2 cannot run on" in (said := capsys.readouterr().err)
    assert "A bloom has no rotary embedding" in said


def test_a_folder_is_known_by_its_weights_not_by_where_it_lies(wish, folder):
    ways = (str(folder), f"{folder}/", f"{folder}/../{folder.name}")
    assert len({plan(replace(wish, models=(way,)))[0].cell.model for way in ways}) == 1


def test_a_method_that_keeps_keys_twice_is_planned_with_them(wish):
    specs = ("none", "rerope", "yarn+log-n,factor=2")
    asked = replace(wish, methods=specs, tasks=("passkey",), lengths=(900,))
    none, rerope, layered = (planned.bytes for planned in plan(asked))
    assert rerope > none == layered


def test_a_cell_larger_than_the_machine_is_not_begun(wish, tmp_path):
    options = replace(wish, methods=("none",), lengths=(600,), samples=1)
    (planned,) = plan(options)
    huge = replace(planned, bytes=10**15, alone=10**15)
    (result,) = local.execute([huge], Store(tmp_path), options, Notes())
    assert result.status == "out_of_memory" and "931322.6 GiB" in result.reason
    assert result.metric == "perplexity"


def test_a_row_reads_the_documents_that_reach_its_longest_length(folder, tmp_path):
    books = [{"text": f"{c} " * n, "title": c} for c, n in (("a", 350), ("b", 700), ("c", 700))]
    (tmp_path / "books.jsonl").write_text("\n".join(map(json.dumps, books)))
    wish = Options(
        models=(str(folder),), methods=("none",), tasks=("perplexity",), lengths=(600, 1200),
        corpus=f"jsonl:{tmp_path / 'books.jsonl'}", samples=2, device="cpu", dtype="float32",
    )  # fmt: skip
    found = [*local.execute(plan(wish), Store(tmp_path / "results"), wish, Mock())]
    assert [[*result.items] for result in found] == [["b", "c"]] * 2
