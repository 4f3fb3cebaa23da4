"""`harness plan`: the flags of a grid, its tables, and the page that is made of them."""

import json
from dataclasses import replace
from inspect import signature
from pathlib import Path

import pytest

from harness.cli import main
from harness.cli.plan import MARK, SHARED, plan, refreshed
from harness.cli.run import run
from harness.gridfile import Grid
from harness.plan import ENCODING, Options, missing
from harness.plan import plan as planned
from harness.store import Store

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
LLAMA = ("--stand-in", "--model", "meta-llama/Llama-2-7b-hf")
TOO_LONG = ("-m", "clex", "-t", "passkey", "-l", "128k")
GRID = ("-m", "none,dynamic-ntk", "-t", "perplexity,passkey", "-l", "4k,8k")


def call(*words):
    with pytest.raises(SystemExit) as left:
        main(["plan", *map(str, words)])
    return left.value.code or 0


def test_it_knows_every_flag_of_a_grid_as_a_run_does():
    theirs, ours = signature(run).parameters, signature(plan).parameters
    assert all(ours[name].annotation == theirs[name].annotation for name in SHARED)
    assert set(Grid.model_fields) <= set(ours)
    assert not set(ours) & {"dry_run", "retry", "given"}


def test_a_grid_is_costed_here(capsys, folder, tmp_path):
    results = tmp_path / "results"
    words = ("--model", folder, "--dtype", "float32", "--device", "cpu", "--results", results)
    words = ("-m", "none,pi", "-t", "passkey", "-l", "600,1200", *words)
    assert call(*words, "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 4 and all(r["seconds"] > 0 and r["fits"] for r in rows)
    assert {r["state"] for r in rows} == {"missing"}
    assert call(*words) == 0
    assert "4 cells: 0 done, 4 to run" in capsys.readouterr().out


def test_a_gpu_has_its_hours_by_length_and_by_number(capsys):
    assert call(*GRID, *LLAMA, "--gpu", "h100", "--gpus", 8, "--format", "json") == 0
    by_length, by_number = json.loads(capsys.readouterr().out)
    assert [row["length"] for row in by_length] == [4096, 8192]
    assert [row["gpus"] for row in by_number] == [1, 2, 4, 8]
    assert sum(row["cheapest"] for row in by_number) == 1
    hours = sum(row["gpu_hours"] for row in by_length)
    assert by_number[0]["hours"] == pytest.approx(hours)
    assert call(*GRID, *LLAMA, "--gpu", "all") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("A100", "H100", "H200", "B200", "4090"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*GRID, *LLAMA, "--gpu", "h1000"), "No GPU named 'h1000'"),
        ((*GRID, *LLAMA), "which with --gpu"),
        ((*TOO_LONG, *LLAMA, "--gpu", "h100"), "clex cannot run on meta-llama/Llama-2-7b-hf"),
        ((*TOO_LONG, *LLAMA, "--gpu", "all", "--format", "markdown"), "clex cannot run on"),
        ((*GRID, "--gpu", "h100", "--gpus", "0"), "--gpus"),
        (("--page", "README.md"), "A page holds plans between"),
    ],
)
def test_a_mistake_is_said_in_a_sentence(capsys, words, said, monkeypatch):
    monkeypatch.chdir(PAGE.parents[1])
    assert call(*words) == 2
    assert said in capsys.readouterr().err


def test_the_page_of_large_grids_is_what_the_plan_says_today():
    """The first of each kind; all of them in the slow test."""
    text = PAGE.read_text("utf-8")
    blocks = [m[0] for m in MARK.finditer(text)]
    assert len(blocks) == 7
    for block in (blocks[0], blocks[3]):
        assert refreshed(block) == block, "run: harness plan --page docs/scale.md"


@pytest.mark.slow
def test_the_whole_page_is_what_the_plan_says_today():
    text = PAGE.read_text("utf-8")
    assert refreshed(text) == text, "run: harness plan --page docs/scale.md"


def test_a_page_that_is_behind_is_said_and_left(capsys, tmp_path):
    page = tmp_path / "page.md"
    mark = f"<!-- plan {' '.join(GRID)} {' '.join(LLAMA)} --gpu h100 -->"
    page.write_text(f"# Costs\n\n{mark}\nold\n<!-- /plan -->\n")
    assert call("--page", page, "--check") == 1
    assert "old" in page.read_text()
    assert call("--page", page) == 0
    assert "| length | cells |" in page.read_text() and "old" not in page.read_text()
    assert call("--page", page, "--check") == 0


def test_the_folder_is_listed_once_and_says_what_is_left(folder, tmp_path, monkeypatch):
    from harness.cell import Result

    options = Options(
        models=(str(folder),), methods=("none", "pi"), tasks=("passkey",), lengths=(600, 1200),
        device="cpu", dtype="float32",
    )  # fmt: skip
    cells, store = planned(options), Store(tmp_path)
    for one in cells[:2]:
        store.write(Result(cell=one.cell, status="failed", reason="it was late"))
    monkeypatch.setattr(Store, "path", None)  # nobody asks for cells one by one
    assert [p.cell for p in missing(cells, store)] == [p.cell for p in cells[2:]]
    monkeypatch.undo()
    assert len(missing(cells, Store(tmp_path, retry=True))) == 4


@pytest.mark.parametrize("what", ["start_token", "thinking"])
def test_what_was_read_otherwise_is_not_taken_for_what_is_asked_now(folder, tmp_path, what):
    from harness.cell import Result

    (one,) = planned(
        Options(
            models=(str(folder),), methods=("none",), tasks=("passkey",), lengths=(600,),
            device="cpu", dtype="float32",
        )
    )  # fmt: skip
    one = replace(one, made_of=one.made_of | {"thinking": "off"})  # as of a model that thinks
    made = one.made_of | {"method": dict(zip(ENCODING, one.made_of["encoding"], strict=True))}
    store = Store(tmp_path)
    store.write(Result(cell=one.cell, status="scored", value=1.0, provenance=made))
    assert missing([one], store) == []
    store.write(Result(cell=one.cell, status="scored", value=1.0, provenance=made | {what: None}))
    with pytest.raises(ValueError, match=f"another {what.replace('_', ' ')} than there is now"):
        missing([one], Store(tmp_path))


def test_what_is_packed_and_no_longer_holds_is_said_with_what_can_be_done(folder, tmp_path):
    """Nobody could delete it there."""
    from harness.archive import pack
    from harness.cell import Result

    options = Options(
        models=(str(folder),), methods=("none",), tasks=("passkey",), lengths=(600, 1200),
        device="cpu", dtype="float32",
    )  # fmt: skip
    cells, store = planned(options), Store(tmp_path)
    for one, weights in zip(cells, (one.made_of["weights"] for one in cells), strict=True):
        made = {**one.made_of, "weights": weights if one.cell.length == 600 else "other"}
        made["method"] = dict(zip(ENCODING, made.pop("encoding") or (), strict=False))
        store.write(Result(cell=one.cell, status="scored", value=1.0, provenance=made))
    with pytest.raises(ValueError, match="another weights than there is now"):
        missing(cells, Store(tmp_path))
    pack(tmp_path, remove=True)
    with pytest.raises(ValueError, match=r"there is now\. Give another folder with --results"):
        missing(cells, Store(tmp_path))
