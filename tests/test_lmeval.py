"""lm-eval's tasks through our engine: the same numbers as its own model for transformers gives."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from harness import catalog, lmeval, network
from harness.asking import Asking, answered
from harness.cell import Cell
from harness.cli import main
from harness.engine.evaluate import evaluate, tree_of
from harness.model import load
from harness.reader import TokenReader
from harness.rope import Rope
from harness.run import run
from harness.stats import mean_interval, wilson
from harness.task import Likelihoods, Losses, Request, Sample, Text, Verdict
from harness.tasks._lm_eval import LmEval, _around

ROOT = Path(__file__).parents[1]
SETS = "tests/golden/lm_eval"
TINY = ("tiny_days", "tiny_boxes", "tiny_boxes_last", "tiny_pages")
SHORT = 64
"""Tokens: some of the sets' inputs are longer, and must be cut or read in windows."""


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch, tmp_path_factory):
    """The sets' files name their data from there; nothing is fetched."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("HF_HOME", str(tmp_path_factory.getbasetemp() / "hub"))


@pytest.fixture(scope="module")
def live():
    return load("toy", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def reader(live):
    return TokenReader(live.tokenizer)


def spec(name, **parameters):
    [full] = catalog.members("tasks", f"lm-eval:{name},data={SETS}")
    return catalog.extended(full, parameters)


def result(live, reader, task, length=512, method="none"):
    cell = Cell(model="toy", method=method, task=task, length=length)
    [finished] = run(live, reader, [cell], corpus=SETS)
    assert finished.result.status == "scored", finished.result.reason
    return finished


def published(live, *, length=512, shots):
    """What lm-eval says of the same model, by its own class for transformers."""
    key = (id(live.tokenizer), length, shots)
    if key not in PUBLISHED:
        PUBLISHED[key] = _published(live, length, shots)
    return PUBLISHED[key]


PUBLISHED = {}


def _published(live, length, shots):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=live.model, tokenizer=live.tokenizer, max_length=length)
    return simple_evaluate(
        model,
        tasks=list(TINY),
        num_fewshot=shots,
        task_manager=lmeval.find(TINY[0], SETS).manager,
        bootstrap_iters=0,
        batch_size=1,
    )


# parity


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("length", "shots"), [(512, 1), (SHORT, 0)])
def test_every_number_is_that_of_lm_evals_own_model(live, reader, length, shots):
    theirs = published(live, length=length, shots=shots)
    for name in TINY:
        task = spec(name, shots=shots, start_token=False)
        ours = result(live, reader, task, length).result
        said = {k.partition(",")[0]: v for k, v in theirs["results"][name].items() if "," in k}
        said = {k: v for k, v in said.items() if "stderr" not in k}
        assert ours.parts | {ours.metric: ours.value} == pytest.approx(said, rel=1e-4), name


@pytest.mark.filterwarnings("ignore")
def test_every_answer_is_that_of_lm_evals_own_model(live, reader):
    theirs = published(live, shots=1)["samples"]
    for name in TINY:
        task = catalog.load("tasks", spec(name, shots=1, start_token=False))
        requests = list(task.requests(reader, 512))
        outcomes = evaluate(live.model, requests, text=reader.text)
        for request, outcome, sample in zip(requests, outcomes, theirs[name], strict=True):
            about = request.about
            said = answered(about["of"], request.ask, about["counts"], outcome, reader)
            for mine, [their] in zip(said, sample["resps"], strict=True):
                if isinstance(mine, str):
                    assert mine == their
                else:
                    assert np.allclose(np.ravel(mine), np.ravel(their), rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_with_a_tokenizer_that_adds_the_start_token_the_default_is_what_lm_eval_does(live):
    from copy import deepcopy
    from dataclasses import replace

    from tokenizers.processors import TemplateProcessing

    tokenizer = deepcopy(live.tokenizer)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    starting = replace(live, tokenizer=tokenizer)
    theirs = published(starting, shots=1)["results"]
    for name in ("tiny_days", "tiny_boxes_last"):
        ours = result(starting, TokenReader(tokenizer), spec(name, shots=1)).result
        assert ours.value == pytest.approx(theirs[name][f"{ours.metric},none"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_as_a_model_of_lm_eval_it_gives_the_numbers_of_the_cell(live, reader, monkeypatch):
    """However few inputs are read together."""
    from lm_eval import simple_evaluate

    monkeypatch.setattr("harness.lmeval_model.MOST", 600)

    from harness.lmeval_model import HarnessLM

    model = HarnessLM(live, length=256, method="yarn,factor=2")
    try:
        theirs = simple_evaluate(
            model, tasks=list(TINY), task_manager=lmeval.find(TINY[0], SETS).manager,
            bootstrap_iters=0,
        )["results"]  # fmt: skip
    finally:
        model.close()
    for name in TINY:
        ours = result(live, reader, spec(name), 256, "yarn,factor=2").result
        sieve = "stripped" if name == "tiny_boxes" else "none"
        assert ours.value == pytest.approx(theirs[name][f"{ours.metric},{sieve}"], rel=1e-5)


# laws of the question


def test_likelihoods_say_what_losses_and_verdicts_say(live, reader):
    text = reader.tokens("import os\nimport sys\nimport os\nimport sys\nimport ")
    inputs = [np.array([reader.bos, *text[:n]]) for n in (5, 9, len(text))]
    pairs = tuple((before, tuple(text[k : k + 3])) for k, before in enumerate(inputs))
    weigh = Request(id="all", tokens=inputs[-1], ask=Likelihoods(pairs=pairs))
    [weighed] = evaluate(live.model, [weigh])
    for (before, asked), (likelihood, greedy) in zip(pairs, weighed, strict=True):
        whole = np.concatenate([before, asked])
        losses = Losses(start=len(before), stop=len(whole))
        one, two = evaluate(
            live.model,
            [
                Request(id="losses", tokens=whole, ask=losses),
                Request(id="verdict", tokens=before, ask=Verdict(answer=asked)),
            ],
        )
        assert likelihood == pytest.approx(-one.sum()) and greedy == (two == asked)
    [best] = evaluate(live.model, [Request(id="it", tokens=inputs[-1], ask=Text(max_new_tokens=2))])
    said = Likelihoods(pairs=((inputs[-1], best),))
    [[(_, greedy)]] = evaluate(live.model, [Request(id="it", tokens=inputs[-1], ask=said)])
    assert greedy is True


def test_examples_that_questions_share_are_read_once(live, reader):
    task = catalog.load("tasks", spec("tiny_days", shots=0))
    for request in task.requests(reader, 512):
        longest = max(len(before) + len(asked) for before, asked in request.ask.pairs)
        assert len(tree_of([request]).tokens) < longest + 40
        assert len({before.tobytes() for before, _ in request.ask.pairs}) == 1


@pytest.mark.parametrize("start_token", [True, False])
@pytest.mark.parametrize("length", [24, 40, 512])
def test_no_input_is_longer_than_the_length_and_each_starts_once(reader, length, start_token):
    for name in TINY:
        task = catalog.load("tasks", spec(name, shots=1, start_token=start_token))
        requests = list(task.requests(reader, length))
        for request in requests:
            assert 1 <= len(request.tokens) <= length
            if isinstance(request.ask, Likelihoods):
                assert all(len(b) + len(a) <= length + 1 for b, a in request.ask.pairs)
            if start_token:
                assert request.tokens[0] == reader.bos or name == "tiny_pages"
                assert Counter(request.tokens.tolist())[reader.bos] <= 1
        assert any(r.cut for r in requests) == (length < 60 and name != "tiny_pages")


def test_what_is_cut_is_the_left_and_the_start_token_stays(reader):
    whole, cut = (Asking(reader, n).pair("one two three four five six", " seven") for n in (99, 6))
    (before, asked), lost = cut
    assert lost > 0 == whole[1] and asked == whole[0][1]
    assert before.tolist() == [reader.bos, *whole[0][0][1 + lost :].tolist()]
    assert len(before) + len(asked) == 7


def test_windows_predict_each_token_once(reader):
    text = " ".join(f"word{i}" for i in range(60))
    for length in (8, 31, 4096):
        pairs = Asking(reader, length).windows(text)
        assert [t for _, asked in pairs for t in asked] == reader.tokens(text)
        assert all(len(before) + len(asked) - 1 <= length for before, asked in pairs)


def test_it_asks_the_same_every_time(reader):
    task = catalog.load("tasks", spec("tiny_days", shots=3, samples=5))
    first, again = (list(task.requests(reader, 512)) for _ in range(2))
    assert len(first) == 5
    assert [r.tokens.tolist() for r in first] == [r.tokens.tolist() for r in again]


# numbers


def test_a_group_weighs_its_tasks_as_lm_eval_does(live, reader):
    found = result(live, reader, spec("tiny_both")).result
    days = result(live, reader, spec("tiny_days")).result.parts["acc"]
    boxes = result(live, reader, spec("tiny_boxes_last")).result.parts["acc"]
    assert found.value == pytest.approx((24 * days + 16 * boxes) / 40) and found.n == 40
    assert found.parts["tiny_days"] == days and found.low < found.value < found.high


def test_what_was_cut_is_counted_and_the_answers_are_kept(live, reader):
    finished = result(live, reader, spec("tiny_days", shots=4), SHORT)
    assert finished.result.truncated == 1 and finished.result.n == 24
    row = json.loads(json.dumps(finished.samples[0], allow_nan=False))
    assert row["metrics"].keys() == {"acc,none", "acc_norm,none"} and row["cut"] > 0


def test_shares_have_wilsons_interval_and_perplexities_one_that_holds_them(live, reader):
    days = result(live, reader, spec("tiny_days")).result
    assert (days.low, days.high) == wilson(days.value * 24, 24)
    pages = result(live, reader, spec("tiny_pages")).result
    assert pages.metric == "word_perplexity" and pages.low < pages.value < pages.high
    assert not catalog.load("tasks", spec("tiny_pages")).higher_is_better


def asked_of(metric, values, aggregation):
    """A task of one metric, and what its samples would be with these values."""

    class Loaded:
        def aggregation(self):
            return {metric: aggregation}

    class Asked(LmEval):
        key = (metric, "none")
        loaded: ClassVar = {"tasks": {"it": Loaded()}}

    about = ({"task": "it", "metrics": {f"{metric},none": x}} for x in values)
    return Asked(), [Sample(id=str(i), score=0.0, about=one) for i, one in enumerate(about)]


def test_the_items_of_a_perplexity_are_losses_as_everywhere():
    from lm_eval.api.metrics import mean, perplexity

    it, samples = asked_of("perplexity", [-2.0, -3.0], perplexity)
    assert it.items(samples) == {"0": 2.0, "1": 3.0}
    it, samples = asked_of("acc", [1.0, 0.0], mean)
    assert it.items(samples) == {"0": 1.0, "1": 0.0}


def test_only_shares_have_wilsons_interval():
    from lm_eval.api.metrics import mean

    values = [0.4 + i / 500 for i in range(100)]
    it, samples = asked_of("f1", values, mean)
    assert it._interval(samples, None, {}) == mean_interval(values) != wilson(sum(values), 100)


def test_a_groups_interval_is_no_point_and_stays_between_0_and_1():
    found = [{"acc": 1.0}] * 20
    assert _around(1.0, 0.0, found, "acc") == wilson(20, 20)
    assert _around(0.95, 0.05, [*found[1:], {"acc": 0.0}], "acc")[1] == 1.0


# names


def test_the_metric_is_part_of_the_name():
    assert spec("tiny_days") == f"lm-eval:tiny_days.acc_norm,data={SETS}"
    assert spec("tiny_days.acc") == f"lm-eval:tiny_days.acc,data={SETS}"
    assert catalog.load("tasks", "lm-eval:gsm8k.exact_match:flexible-extract").key == (
        "exact_match",
        "flexible-extract",
    )


def test_a_tag_means_its_tasks():
    assert catalog.members("tasks", f"lm-eval:tiny,data={SETS},samples=2") == [
        f"lm-eval:tiny_boxes.exact_match:stripped,data={SETS},samples=2",
        f"lm-eval:tiny_days.acc_norm,data={SETS},samples=2",
    ]


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("arc_challenge", "arc_challenge.acc_norm"),
        ("wikitext", "wikitext.word_perplexity"),
        ("gsm8k", "gsm8k.exact_match:strict-match"),
    ],
)
def test_lm_evals_own_are_found_without_reading_all_of_them(name, full):
    before = lmeval._manager.cache_info()
    assert lmeval.full_names(name) == [full]
    assert None not in lmeval._families(name) and len(lmeval._families(name)) < 10
    places = [lmeval.find(name).manager.include_path]
    assert places[0].name in full or places[0].name == "arc"
    assert lmeval._manager.cache_info().currsize <= before.currsize + len(lmeval._families(name))


def test_the_short_context_tests_are_lm_evals_with_the_leaderboards_examples():
    every = catalog.members("tasks", "short-context,samples=3")
    assert every == [
        "short-context.arc_challenge,samples=3",
        "short-context.hellaswag,samples=3",
        "short-context.mmlu,samples=3",
        "short-context.truthfulqa_mc2,samples=3",
    ]
    tasks = [catalog.load("tasks", one) for one in every]
    assert [(t.metric, t.shots) for t in tasks] == [
        ("acc_norm", 25),
        ("acc_norm", 10),
        ("acc", 5),
        ("acc", None),
    ]
    assert [t.name for t in tasks if t.name not in lmeval.find(t.name).manager.all_tasks] == []
    assert tasks[0].needs() == ["allenai/ai2_arc ARC-Challenge"]


# mistakes


def said_with_code_2(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        main(list(argv))
    assert stop.value.code == 2
    return capsys.readouterr().err


def main_code(*argv):
    with pytest.raises(SystemExit) as stop:
        main(list(argv))
    return stop.value.code


def grid(task, length="512"):
    return ["run", "-m", "none", "-t", task, "-l", length, "--dry-run"]


@pytest.mark.parametrize("name", ["tiny_lengths", "tiny_lengths.4096"])
def test_metrics_that_are_named_by_length_are_refused_with_what_to_take(capsys, name, tmp_path):
    """As those of lm-eval's RULER, which asks 4,096 tokens at any length."""
    told = "task: tiny_lengths\noutput_type: generate_until\nmetric_list: [{metric: '4096'}]\n"
    (tmp_path / "lengths.yaml").write_text(told)
    said = said_with_code_2(capsys, *grid(f"lm-eval:{name},data={tmp_path}"))
    assert "names its metrics by length" in said and "as -t ruler.vt" in said


def test_an_unknown_task_has_the_nearest_name(capsys, monkeypatch):
    monkeypatch.setattr(lmeval, "_manager", lambda place, real=lmeval._manager: real(Path(SETS)))
    lmeval.find.cache_clear()
    said = said_with_code_2(capsys, *grid(f"lm-eval:tiny_dais,data={SETS}"))
    assert "'tiny_dais'" in said and "Did you mean 'tiny_days'?" in said
    lmeval.find.cache_clear()


@pytest.mark.parametrize(
    ("task", "length", "words"),
    [
        (f"lm-eval:tiny_boxes,data={SETS}", "8", "at least 10 tokens"),
        ("lm-eval:tiny_days,data=nowhere", "512", "no folder nowhere"),
        ("lm-eval", "512", "Say which of lm-eval's tasks"),
        (f"lm-eval:tiny_days,data={SETS},shots=-1", "512", "0 or more"),
        ("passkey:standard", "512", "no names of its own"),
    ],
)
def test_a_mistake_is_said_in_a_sentence(capsys, task, length, words):
    assert words in said_with_code_2(capsys, *grid(task, length))


def test_a_metric_that_the_task_does_not_have_fails_the_cell_and_names_those_it_has(live, reader):
    cell = Cell(model="toy", method="none", task=spec("tiny_days.f2"), length=512)
    [finished] = run(live, reader, [cell], corpus=SETS)
    assert finished.result.status == "failed"
    assert "no metric 'f2': acc, acc_norm" in finished.result.reason


def test_examples_that_a_task_fixes_itself_are_not_overridden(tmp_path):
    days = Path(SETS, "days.yaml").read_text("utf-8")
    (tmp_path / "own.yaml").write_text(days.replace("tiny_days", "tiny_own") + "num_fewshot: 0\n")
    with pytest.raises(ValueError, match="leave shots=5 out"):
        lmeval.loaded("tiny_own", str(tmp_path), 5)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (ImportError("Please install fuzzywuzzy.\nThen"), "not installed .*fuzzywuzzy.*: install"),
        (AttributeError("no builder"), r"cannot be loaded \(no builder\)"),
    ],
)
def test_whatever_a_tasks_own_code_raises_is_said(error, why, monkeypatch):
    found = lmeval.find(TINY[0], SETS)

    def fails(name):
        raise error

    monkeypatch.setattr(found.manager, "load", fails)
    lmeval.loaded.cache_clear()
    with pytest.raises(LookupError, match=why):
        lmeval.loaded(TINY[0], SETS, None)


def test_data_that_cannot_be_reached_is_said_with_the_command_that_gets_it(
    tmp_path, monkeypatch, capfd
):
    import datasets.config
    import huggingface_hub.constants

    for module in (datasets.config, huggingface_hub.constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", module.HF_HUB_OFFLINE)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(network, "reachable", lambda: False)
    with pytest.raises(LookupError, match="run harness data fetch lm-eval:arc_challenge"):
        lmeval.loaded("arc_challenge", "", None)
    assert capfd.readouterr() == ("", "")


def test_fetching_says_what_it_needs_and_what_works_without(capsys):
    assert main_code("data", "fetch", "short-context.mmlu,passkey", "longppl.by", "--dry-run") == 0
    mmlu, passkey, by = capsys.readouterr().out.splitlines()
    assert mmlu.startswith("short-context.mmlu: cais/mmlu abstract_algebra+anatomy+")
    assert passkey == "passkey: works offline, there is nothing to fetch"
    assert by == "longppl.by: an evaluator's losses, the .npz beside a result of longppl.self"
    assert main_code("data", "fetch", f"lm-eval:tiny_days,data={SETS}") == 0
    assert capsys.readouterr().out.endswith(": json is in the cache\n")


def test_what_is_fetched_for_an_average_is_what_its_datasets_are_in(capsys, monkeypatch):
    asked = []

    def fetched(data, name, published):
        asked.append((name, published))
        return iter(())

    monkeypatch.setattr("harness.tasks._longbench.records", fetched)
    assert main_code("data", "fetch", "longbench.all") == 0
    assert asked[0] == ("narrativeqa", "data.zip")
    assert capsys.readouterr().out.endswith("THUDM/LongBench is in the cache\n")


@pytest.mark.parametrize("name", ["manyshot.file", "nolima.own_onehop", "babilong.published_qa1"])
def test_what_reads_a_file_of_ones_own_says_that_it_is_to_be_given(capsys, name):
    assert main_code("data", "fetch", name) == 0
    assert capsys.readouterr().out.endswith("which is to be given as a file\n")


def test_offline_is_said_to_every_library_that_asks(monkeypatch):
    import datasets.config
    import huggingface_hub.constants

    for module in (datasets.config, huggingface_hub.constants):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "0")
    network.offline()
    assert datasets.config.HF_HUB_OFFLINE and huggingface_hub.constants.HF_HUB_OFFLINE
    assert huggingface_hub.constants.is_offline_mode()


@pytest.mark.filterwarnings("ignore")
def test_the_command_line_of_lm_eval_knows_our_models(capsys, monkeypatch):
    monkeypatch.setattr("lm_eval.__main__.setup_logging", lambda: None)
    arguments = "model=toy,method=yarn,factor=2,length=256,dtype=float32"
    words = ["run", "--model", "harness", "--model_args", arguments, "--include_path", SETS]
    manager = lmeval.find(TINY[0], SETS).manager
    monkeypatch.setattr("lm_eval.tasks.TaskManager", lambda **_: manager)
    assert main_code("lm-eval", *words, "--tasks", "tiny_days", "--limit", "6") == 0
    assert "|tiny_days|" in capsys.readouterr().out


def test_as_a_model_of_lm_eval_it_is_read_as_it_learned():
    from harness.lmeval_model import HarnessLM

    given = "model=toy-longrope,length=1k,dtype=float32"
    for more in ("", ",method=auto"):
        model = HarnessLM.create_from_arg_string(given + more)
        factors = model.live.model.get_decoder().rotary_emb.encoding.frequencies
        model.close()
        plain = Rope.of(model.live.model).frequencies
        assert (factors < plain / 2).any()
    with pytest.raises(ValueError, match=r"was trained with longrope.* Give --method longrope"):
        HarnessLM.create_from_arg_string(f"{given},method=none")
    assert HarnessLM(load("toy", device="cpu", dtype="float32"), length=256).max_length == 256


def test_the_gpu_that_is_named_is_the_one_that_reads(monkeypatch):
    from harness.lmeval_model import _device

    used = []
    assert (_device("cuda:3", None), _device(None, "cuda:0")) == ("cuda", "auto")
    assert (_device(None, "cpu"), _device("cpu", "cuda:0"), _device(None, None)) == (
        "cpu", "cpu", "auto",
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    assert (_device("cuda:3", "cuda:0"), _device(None, "cuda:1")) == ("cuda", "auto")
    assert used == [3, 1]
    with pytest.raises(ValueError, match="There is no cuda:4 here, of 4 GPUs"):
        _device("cuda:4", None)


def test_sampling_is_refused():
    with pytest.raises(ValueError, match="decoding is greedy"):
        Asking(None, 512).text("It", {"do_sample": True, "temperature": 0.7})
    with pytest.raises(ValueError, match="decoding is greedy"):
        Asking(None, 512).text("It", {"temperature": 0.7})  # which lm-eval takes for sampling


def test_nothing_of_lm_eval_is_imported_to_name_its_tasks():
    code = "import sys, harness.asking, harness.lmeval; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert "harness.lmeval" in done.stdout.split()
    assert not {"lm_eval", "torch"} & {*done.stdout.split()}
