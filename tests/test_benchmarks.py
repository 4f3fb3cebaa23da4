"""The benchmark scripts run, at sizes where their bars mean nothing: only that the sides agree."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import harness

ROOT = Path(__file__).parents[1]
TOY = Path(harness.__file__).parent / "toy"
pytestmark = pytest.mark.slow


@pytest.fixture
def figures(tmp_path):
    def run(script, *arguments):
        kept = tmp_path / f"{script}.json"
        command = [sys.executable, f"benchmarks/{script}.py", *arguments, "--json", str(kept)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return json.loads(kept.read_text())

    return run


def test_the_loop_reads_the_same_perplexities(figures):
    kept = figures("perplexity_curve", "--model", "toy", "--lengths", "256,512")
    ours, loop = (kept["sides"][side]["perplexity"] for side in ("ours", "loop"))
    assert list(ours) == ["256", "512"]
    assert loop == pytest.approx(ours, rel=0.01)


def test_generation_gives_the_same_verdicts(figures):
    kept = figures("passkey_trials", "--model", "toy", "--lengths", "512", "--trials", "1")
    assert [row["reached"] for row in kept["rows"] if "verdicts" in row["what"]] == [True, True]


def test_every_product_and_kernel_of_a_cell_is_timed(figures):
    kept = figures("overhead", "--model", "toy", "--lengths", "512", "--repeats", "1")
    cell = kept["sides"]["cell"]
    assert cell["products"] > 0
    assert cell["attention"] > 0


def test_clex_is_solved_no_worse_than_published(figures):
    kept = figures("clex_ode", "--factor", "2", "--repeats", "1")
    assert [row["reached"] for row in kept["rows"] if "error" in row["what"]] == [True] * 4


def test_a_leaderboard_is_made_of_packed_and_of_single_results(figures):
    kept = figures("leaderboard_scale", "--results-count", "4000", "--single", "50")
    assert len(kept["rows"]) == 7 and kept["sides"]["make"]["bytes"] > 0
    assert all(kept["sides"][side]["page"] > 0 for side in ("leaderboard", "beside"))


def test_every_method_in_parts_is_timed_beside_plain_attention(figures):
    kept = figures("bent_attention", "--lengths", "512,1k", "--trained", "256", "--repeats", "1")
    seconds = kept["sides"]["layer"]["seconds"]
    assert len(kept["rows"]) == len(seconds) - 1 == 6
    assert all(set(row) == {"512", "1024"} and min(row.values()) > 0 for row in seconds.values())


def test_two_ranks_read_what_one_reads(figures):
    kept = figures("parallel", "--model", "toy", "--lengths", "2k")
    one, two = (kept["sides"][side]["losses"] for side in ("one", "two"))
    assert one == pytest.approx(two, abs=0.2)  # in bfloat16, cut into other blocks


def test_half_the_memory_suffices_with_the_hosts(figures):
    kept = figures("offload", "--lengths", "16k", "--method", "yarn")
    assert kept["sides"]["half"]["offload"] and not kept["sides"]["whole"]["offload"]
    assert [row["reached"] for row in kept["rows"][1:]] == [True, True]


def test_figures_name_no_place_of_this_machine(figures):
    kept = figures("memory_growth", "--model", str(TOY), "--lengths", "256,512")
    assert str(ROOT) not in json.dumps(kept)
