"""A published checkpoint is found by its printed name, with the method on that it learned with."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from test_clex import checkpoint

from harness import catalog, model, network
from harness.cell import Cell, Result, base_of
from harness.checkpoints import Checkpoint, every, find, place
from harness.cli import main
from harness.gridfile import options
from harness.learned import noticed
from harness.pairing import comparable
from harness.plan import settled
from harness.reader import TokenReader
from harness.report.reach import budget, claimed, unextended
from harness.rope import Rope
from harness.run import run

PUBLISHED = Path(__file__).parents[1] / "results" / "published"


def call(*argv):
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in argv])
    return stop.value.code or 0


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """The hub's cache, with a small model laid out as CLEX publishes its own; and no network."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(network, "reachable", lambda: False)
    kept = tmp_path / "models--DAMO-NLP-SG--CLEX-7B-16K"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    (kept / "snapshots").mkdir()
    checkpoint(folder, kept / "snapshots" / ("0" * 40), act="tanh")
    return tmp_path


# laws


@pytest.mark.parametrize("published", every(), ids=lambda c: c.key)
def test_each_has_a_method_of_this_project_and_a_page(published):
    assert catalog.canonical("methods", published.method) == published.method
    assert published.source.startswith("https://") and published.base != published.name
    assert published.trained is None or published.trained <= published.tested
    assert find(published.key) is find(published.name.upper()) is published
    assert published.hub is None or find(published.hub) is published


def test_no_name_is_listed_twice():
    assert len({c.key for c in every()}) == len(every())
    hubs = [c.hub for c in every() if c.hub]
    assert len(set(hubs)) == len(hubs)


@pytest.mark.parametrize("published", every(), ids=lambda c: c.key)
def test_a_scale_reaches_what_was_tested(published):
    """With the window of the base, as its own page prints it."""
    factor = getattr(catalog.load("methods", published.method), "factor", None)
    window = {"Mistral-7B-v0.1": 8192, "Phi-3-small-8k-instruct": 8192}.get(published.base, 4096)
    if published.name.startswith("LongRoPE"):
        window = 4096  # s counts from there, also Mistral's
    assert factor is None or factor * window == published.tested


# parity with the tables that are beside the results


def test_the_lengths_are_those_of_the_published_tables():
    printed = yaml.safe_load((PUBLISHED / "clex-models.yaml").read_text())["rows"]
    ours = [c for c in every() if c.page == "CLEX README"]
    assert [row["name"] for row in printed] == [c.name for c in ours]
    for row, mine in zip(printed, ours, strict=True):
        said = row["train"].lower(), row["printed"].strip(">").lower()
        assert said == (f"{mine.trained // 1024}k", f"{mine.tested // 1024}k")
    rows = yaml.safe_load((PUBLISHED / "longrope-proof-pile.yaml").read_text())["rows"]
    assert {row["name"] for row in rows} <= {c.name for c in every()}


# names


def test_a_name_is_a_place_on_the_hub():
    assert place("clex-llama-2-7b-16k") == "DAMO-NLP-SG/CLEX-7B-16K"
    assert place("Yarn-Mistral-7b-128k") == "NousResearch/Yarn-Mistral-7b-128k"
    assert place("toy") is None and place("org/model") is None


def test_what_was_never_published_is_said_so():
    with pytest.raises(LookupError, match="never published, only its numbers"):
        model.describe("longrope-llama2-2048k")


def test_a_slip_in_a_name_has_a_nearest():
    with pytest.raises(LookupError, match="Did you mean 'clex-phi-2-32k'"):
        model.describe("clex-phi2-32k")


def test_a_checkpoint_is_what_its_page_says_and_nothing_else():
    with pytest.raises(ValueError, match="tested"):
        Checkpoint(name="A", page="p", source="s", base="b", method="none")


# its results


def test_its_results_stand_beside_those_of_its_base():
    mine = Cell(model="DAMO-NLP-SG/CLEX-7B-16K", method="clex", task="passkey", length=9)
    other = mine.model_copy(update={"model": "NousResearch/Yarn-Llama-2-7b-64k"})
    assert mine.base == other.base == "meta-llama/Llama-2-7b-hf" == base_of(mine.base)
    assert (mine.training, other.training) == ("CLEX-7B-16K", "Yarn-Llama-2-7b-64k")
    assert base_of(f"{mine.model},dtype=float32") == f"{mine.base},dtype=float32"
    assert mine.of_model("meta-llama/Llama-2-7b-hf") and not unextended(mine.model, "none")
    scored = [Result(cell=cell, status="scored", value=1.0) for cell in (mine, other)]
    assert "base models" not in (comparable(*scored) or "")


def test_what_it_was_trained_on_and_claims_is_what_its_page_says():
    cell = Cell(model="NousResearch/Yarn-Llama-2-7b-128k", method="none", task="t", length=9)
    assert budget(find("yarn-llama-2-7b-128k").phrase) == (None, 65536)
    assert budget(find("yarn-solar-10b-32k").phrase) == (None, None)
    assert claimed(cell, None, 4096) == 131072


# the method that is on


def test_its_name_finds_it_on_the_hub_with_its_method_on(hub):
    card = model.describe("clex-llama-2-7b-16k")
    assert (card.place, card.own_method) == ("DAMO-NLP-SG/CLEX-7B-16K", "clex")
    assert model.describe("DAMO-NLP-SG/CLEX-7B-16K").own_method == "clex"
    assert card.history == "LLaMA-2-7B trained further, by CLEX README: sequences of 16,384"
    live = model.load("clex-llama-2-7b-16k", device="cpu", dtype="float32")
    found = catalog.load("methods", "clex").provenance(live.model, 3 * 512)
    assert (found["learned"], found["factor"], found["max_factor"]) == (True, 3, 8)
    assert Rope.of(live.model).original_length == 512


def test_a_run_takes_its_method_unless_another_is_named(hub, capsys):
    words = ("-t", "perplexity", "-l", "1k", "--corpus", "stdlib:tests", "--dry-run", "--json")
    model_ = ("--model", "clex-llama-2-7b-16k")
    assert call("run", *model_, *words, "--results", hub) == 0
    assert {c["method"] for c in json.loads(capsys.readouterr().out)} == {"clex"}
    assert call("run", *model_, "-m", "none,auto", *words, "--results", hub) == 0
    assert {c["method"] for c in json.loads(capsys.readouterr().out)} == {"clex", "none"}


def test_what_is_read_otherwise_than_it_learned_says_so(hub):
    live = model.load("clex-llama-2-7b-16k", device="cpu", dtype="float32")
    assert "read otherwise here: --method auto" in noticed("none", live, 1024)
    assert "read otherwise here" in noticed("yarn,factor=4", live, 8 * 1024)
    assert noticed("none", live, 512) is None  # CLEX, too, leaves the window as it is
    assert noticed("clex", live, 1024) is None


def test_a_folder_that_is_laid_out_so_is_known_by_its_configuration(folder, tmp_path):
    checkpoint(folder, tmp_path / "clex")
    card = model.describe(str(tmp_path / "clex"))
    chosen = options({"method": "auto", "task": "passkey", "lengths": "1k"})
    assert card.own_method == "clex" and settled("auto", chosen, card) == "clex"
    shutil.copytree(folder, tmp_path / "plain")
    plain = model.describe(str(tmp_path / "plain"))
    assert plain.own_method is None and settled("none", chosen, plain) == "none"
    with pytest.raises(LookupError, match="was trained with no method: name one"):
        settled("auto", chosen, plain)


def test_a_factor_outweighs_the_published_one():
    chosen = options({"task": "passkey", "lengths": "1k", "model": "yarn-llama-2-7b-64k"})
    assert chosen.methods == ("auto",)
    card = model.Card("yarn-llama-2-7b-64k", "NousResearch/Yarn-Llama-2-7b-64k", None)
    assert settled("auto", chosen, card) == "yarn,factor=16"
    assert settled("auto,factor=32", chosen, card) == "yarn,factor=32"
    assert settled("yarn,beta_fast=16", chosen, card) == "yarn,beta_fast=16,factor=16"


def test_a_model_without_a_method_of_its_own_needs_one_named(capsys):
    assert call("run", "-t", "passkey", "-l", "1k", "--model", "yarn-llama-2-7b-8k,toy") == 2
    assert "--method is missing" in capsys.readouterr().err


# the list


def test_they_are_listed(capsys):
    assert call("models") == 0
    said = capsys.readouterr().out
    assert all(c.key in said and c.source in said for c in every())
    assert "not published" in said
    assert call("models", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["model"] == "clex-llama-2-7b-16k" and rows[0]["tested"] == 65536


@pytest.mark.parametrize("trusted", [False, True])
def test_code_that_comes_with_a_model_runs_only_where_allowed_and_is_told(
    folder, tmp_path, monkeypatch, trusted
):
    modules = str(tmp_path / "modules")
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", modules)
    theirs, ran = shutil.copytree(folder, tmp_path / "theirs"), tmp_path / "ran"
    (theirs / "theirs.py").write_text(
        f"open({str(ran)!r}, 'w').close()\nfrom transformers import LlamaConfig, LlamaForCausalLM\n"
        "class C(LlamaConfig): ...\nclass M(LlamaForCausalLM):\n    config_class = C\n"
    )
    config = json.loads((theirs / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "theirs.C", "AutoModelForCausalLM": "theirs.M"}
    (theirs / "config.json").write_text(json.dumps(config))
    live = model.load(str(theirs), device="cpu", dtype="float32", trust_remote_code=trusted)
    cell = Cell(model="m", method="none", task="passkey,samples=1,depths=0.5", length=400)
    (done,) = run(live, TokenReader(live.tokenizer), [cell], keep=False)
    assert ran.exists() == trusted
    assert done.result.provenance.get("remote_code", False) is trusted
