import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import parse_eval_result_entries

from harness import archive, exchange, shapes
from harness.cell import Cell, Result
from harness.cli import main
from harness.store import Store

RESULTS = Path(__file__).parent.parent / "results"


def cell(task="passkey.standard,samples=4", method="yarn,factor=8", length=4096, model="toy"):
    return Cell(model=model, method=method, task=task, length=length)


PERPLEXITY = cell("perplexity.whole,corpus=stdlib:tests@77e98ceb,reach=8192", "none", 8192)
PRIVATE = cell("longbench.qasper,data=LongBench@0123abcd", "none", 8192, "me+mine@0123abcd")
HUB = cell("longbench.qasper", "none", 8192, "org/model,dtype=float32")


@pytest.fixture
def kept(tmp_path):
    store = Store(tmp_path / "results")
    common = {"status": "scored", "n": 20, "protocol": "p", "low": 0.4, "high": 0.6}
    for one in (
        Result(cell=cell(), value=0.5, metric="accuracy", parts={"depth 0.00": 0.75}, **common),
        Result(cell=cell(length=8192), value=1 / 3, metric="accuracy", **common),
        Result(cell=cell(method="pi,factor=8"), value=0.25, metric="accuracy", **common),
        Result(cell=cell(length=16384), status="unfit", reason="too long"),
        Result(cell=PERPLEXITY, value=30.5, metric="perplexity", corpus="stdlib:tests@1", **common),
        Result(cell=PRIVATE, value=0.5, metric="F1", corpus="LongBench@0123abcd", **common),
        Result(cell=HUB, value=0.5, metric="F1", provenance={"data_commit": "abc123"}, **common),
    ):
        store.write(one)
    return store.root


def meant(folder, where=None):
    return exchange.Meant(folder, where, [])


def logs(folder):
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("*.json"))]


def test_every_row_is_a_log_in_the_published_shape(kept, tmp_path):
    said = exchange.every_eval_ever(meant(kept), tmp_path / "out", by="A Laboratory", at=1.5)
    assert said.startswith("6 results in 5 files")
    found = logs(tmp_path / "out")
    for log in found:
        assert shapes.Log.model_validate(log).said() == log
        assert set(log["model_info"]) >= {"name", "id"}
    scores = [e["score_details"]["score"] for log in found for e in log["evaluation_results"]]
    assert sorted(scores) == sorted([0.5, 1 / 3, 0.25, 30.5, 0.5, 0.5])
    ids = [log["evaluation_id"] for log in found]
    assert len(set(ids)) == len(ids) and all(one.count("/") == 3 for one in ids)
    places = {
        path.relative_to(tmp_path / "out").parts[:4] for path in tmp_path.rglob("out/*/*/*/*")
    }
    assert ("data", "passkey.standard", "context-harness", "toy") in places


PUBLISHED = json.loads((Path(__file__).parent / "golden" / "every_eval_ever.json").read_text())
TYPES = {"string": str, "boolean": bool, "number": int | float, "integer": int}


def hold(value, shape, at="log"):
    """To their schema, as it was copied from there: no class of this project is asked."""
    if isinstance(shape, list):
        assert value in shape, at
    elif shape == "words":
        assert all(type(v) is str for v in value.values()), at
    elif shape == "evaluations":
        for one in value:
            hold(one, PUBLISHED["evaluation"], f"{at}[]")
            config = one["metric_config"]
            if config.get("score_type") == "continuous":  # their one condition that is met here
                assert {"min_score", "max_score"} <= config.keys()
    elif shape == "source":
        hold(value, PUBLISHED["source"][value["source_type"]], at)
    elif isinstance(shape, str):
        assert isinstance(value, TYPES[shape]), at
    else:
        names = {name.rstrip("*"): inside for name, inside in shape.items()}
        needed = {name.rstrip("*") for name in shape if name.endswith("*")}
        assert needed <= value.keys() <= names.keys(), at
        for name in value:
            hold(value[name], names[name], f"{at}.{name}")


def test_every_log_holds_to_the_published_schema_itself(kept, tmp_path):
    exchange.every_eval_ever(meant(kept), tmp_path / "out" / "mine", by="A Laboratory")
    exchange.every_eval_ever(
        meant(RESULTS, "length=4k"), tmp_path / "out" / "real", by="A Laboratory"
    )
    found = logs(tmp_path / "out")
    assert len(found) > 20
    for log in found:
        hold(log, PUBLISHED["log"])
    with pytest.raises(AssertionError, match=r"log\.model_info"):
        hold(found[0] | {"model_info": {"name": "toy"}}, PUBLISHED["log"])


def test_exported_again_nothing_is_there_twice(kept, tmp_path):
    for at in (1.0, 2.0):
        exchange.every_eval_ever(meant(kept), tmp_path / "out", by="us", at=at)
    assert len(logs(tmp_path / "out")) == 5


def test_a_row_that_lies_in_several_packs_is_one_log_with_all_its_lengths(kept, tmp_path):
    archive.pack(kept)
    Store(kept).write(Result(cell=cell(), status="scored", value=0.75, metric="accuracy", n=20))
    archive.pack(kept, remove=True)
    Store(kept).write(
        Result(cell=cell(length=2048), status="scored", value=1.0, metric="accuracy", n=20)
    )
    said = exchange.every_eval_ever(meant(kept), tmp_path / "out", by="us")
    assert said.startswith("7 results in 5 files")
    scores = {
        one["evaluation_result_id"].rpartition("yarn,factor=8/")[2]: one["score_details"]["score"]
        for log in logs(tmp_path / "out")
        for one in log["evaluation_results"]
        if "yarn" in one["evaluation_result_id"]
    }
    assert scores == {"2048.json": 1.0, "4096.json": 0.75, "8192.json": 1 / 3}


def test_a_log_says_which_way_is_better_how_sure_and_how_to_make_it_again(kept, tmp_path):
    exchange.every_eval_ever(meant(kept, "task=perplexity"), tmp_path / "out", by="us")
    [log] = logs(tmp_path / "out")
    [found] = log["evaluation_results"]
    assert found["metric_config"] == {"metric_id": "perplexity", "lower_is_better": True}
    assert found["score_details"]["uncertainty"] == {
        "confidence_interval": {"lower": 0.4, "upper": 0.6, "confidence_level": 0.95},
        "num_samples": 20,
    }
    command = found["generation_config"]["generation_args"]["execution_command"]
    assert command.startswith("harness run --model toy --method none --task perplexity.whole,")
    assert log["source_metadata"]["evaluator_relationship"] == "first_party"


def test_a_score_between_0_and_1_says_so(kept, tmp_path):
    exchange.every_eval_ever(meant(kept, "task=passkey method=pi"), tmp_path / "out", by="us")
    metric = logs(tmp_path / "out")[0]["evaluation_results"][0]["metric_config"]
    assert metric["score_type"] == "continuous"
    assert (metric["min_score"], metric["max_score"]) == (0.0, 1.0)


def test_the_source_of_the_questions_is_named(kept, tmp_path):
    exchange.every_eval_ever(meant(kept, "task=longbench"), tmp_path / "out", by="us")
    sources = {
        log["model_info"]["id"]: log["evaluation_results"][0]["source_data"]
        for log in logs(tmp_path / "out")
    }
    assert sources["org/model"]["hf_repo"] == "THUDM/LongBench"
    assert sources["org/model"]["hf_revision"] == "abc123"
    assert sources["unknown/me+mine@0123abcd"]["source_type"] == "other"


def test_the_hubs_own_parser_reads_the_entries(kept, tmp_path):
    out = tmp_path / "out"
    said = exchange.eval_results(meant(kept), out, dataset="me/long-context")
    assert said.startswith("6 results in 5 files")
    found = {
        path.relative_to(out).as_posix(): yaml.safe_load(path.read_text())
        for path in out.rglob(".eval_results/*.yaml")
    }
    name = "context-harness/toy/.eval_results/yarn,factor=8.yaml"
    entries = parse_eval_result_entries(found[name])
    assert [(e.dataset_id, e.task_id, e.value) for e in entries] == [
        ("me/long-context", "passkey.standard-samples-4_4k", 0.5),
        ("me/long-context", "passkey.standard-samples-4_8k", 1 / 3),
    ]
    [hub] = parse_eval_result_entries(found["org/model/.eval_results/none.yaml"])
    assert (hub.dataset_id, hub.task_id) == ("THUDM/LongBench", "qasper")
    assert "8192 tokens" in hub.notes


def test_what_belongs_to_no_dataset_is_counted_and_a_wrong_name_refused(kept, tmp_path):
    said = exchange.eval_results(meant(kept), tmp_path / "out")
    assert "5 are of no dataset of the hub" in said
    with pytest.raises(ValueError, match=r"^'no owner' is no dataset of the hub: write owner/name"):
        exchange.eval_results(meant(kept), tmp_path / "out", dataset="no owner")


def test_tasks_of_one_protocol_stay_apart_in_a_dataset_of_ones_own(kept, tmp_path):
    more = cell("kv.standard")
    Store(kept).write(Result(cell=more, status="scored", value=0.5, metric="accuracy", n=20))
    exchange.eval_results(meant(kept), tmp_path / "out", dataset="me/long-context")
    path = tmp_path / "out/context-harness/toy/.eval_results/yarn,factor=8.yaml"
    ids = [entry["dataset"]["task_id"] for entry in yaml.safe_load(path.read_text())]
    assert len(set(ids)) == len(ids) == 3


def test_parameters_of_a_task_keep_its_numbers_apart(kept, tmp_path):
    for task, value in (("kv.standard", 1.0), ("kv.standard,samples=4", 0.8)):
        Store(kept).write(
            Result(cell=cell(task), status="scored", value=value, metric="accuracy", n=20)
        )
    exchange.eval_results(meant(kept), tmp_path / "out", dataset="me/long-context")
    path = tmp_path / "out/context-harness/toy/.eval_results/yarn,factor=8.yaml"
    found = {e["dataset"]["task_id"]: e for e in yaml.safe_load(path.read_text())}
    assert len(found) == 4
    four = found["kv.standard-samples-4_4k"]
    assert four["value"] == 0.8 and "kv.standard,samples=4" in four["notes"]


@pytest.mark.parametrize("model", ["../..", "../x", ".."])
def test_nothing_is_written_outside_the_folder_whatever_a_model_is_called(model, tmp_path):
    store = Store(tmp_path / "results")
    named = cell("longbench.qasper", "none", 8192, model)
    store.write(Result(cell=named, value=0.5, n=2, metric="F1", status="scored", protocol="p"))
    before = {*tmp_path.rglob("*")}
    out = tmp_path / "deep" / "out"
    exchange.eval_results(meant(store.root), out, dataset="me/own")
    exchange.every_eval_ever(meant(store.root), out, by="me")
    written = {*tmp_path.rglob("*")} - before - {out, out.parent}
    assert written and all(path.is_relative_to(out) for path in written)


def test_flat_parquet_has_the_columns_and_nothing_nested(kept, tmp_path):
    exchange.parquet(meant(kept), tmp_path / "flat.parquet")
    assert pq.read_table(tmp_path / "flat.parquet").equals(archive.columns(kept))
    assert not any(pa.types.is_nested(f.type) for f in pq.read_schema(tmp_path / "flat.parquet"))
    exchange.parquet(meant(kept), tmp_path / "new" / "flat.parquet")
    assert (tmp_path / "new" / "flat.parquet").exists()
    with pytest.raises(ValueError, match="is a folder: name a file"):
        exchange.parquet(meant(kept), tmp_path)
    exchange.parquet(meant(kept), tmp_path / "flat.parquet")  # its own is made anew
    (tmp_path / "mine.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="is there already, and no Parquet file"):
        exchange.parquet(meant(kept), tmp_path / "mine.jsonl")
    assert (tmp_path / "mine.jsonl").read_text() == "{}\n"


@pytest.mark.parametrize("form", ["every_eval_ever", "eval_results", "parquet"])
def test_the_command_line_exports_every_form(kept, tmp_path, capsys, form):
    argv = ["results", "--results", str(kept), "export", str(tmp_path / form), "--as", form]
    with pytest.raises(SystemExit) as stop:
        main([*argv, "--dataset", "me/long-context", "--where", "task=passkey"])
    assert not stop.value.code
    assert (tmp_path / form).exists()
    assert "results" in capsys.readouterr().out
