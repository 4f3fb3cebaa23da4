"""Two methods side by side: laws, what is refused and why, known answers, and the command line."""

import csv
import json
from math import exp, log

import numpy as np
import pytest

from harness import catalog
from harness.cell import Cell, Result
from harness.cli import main
from harness.compare import (
    between,
    comparable,
    compare,
    floor,
    matrix,
)
from harness.metric import higher_is_better
from harness.pairing import kept, meant, name
from harness.store import Store
from harness.task import Sample

PASSKEY = "passkey.standard"
PERPLEXITY = "perplexity.whole,corpus=books,reach=8192"


def measured(method, items, *, task=PASSKEY, length=4096, model="toy", provenance=None, **more):
    """A result as a run makes it of these items."""
    if not isinstance(items, dict):
        items = {f"trial-{i}": float(x) for i, x in enumerate(items)}
    mean, loss = float(np.mean(list(items.values()))), task.startswith("perplexity")
    said = {
        "metric": "perplexity" if loss else "accuracy",
        "protocol": catalog.split(task)[0],
        "corpus": catalog.split(task)[1].get("corpus"),
        "value": exp(mean) if loss else mean,
        "n": len(items),
        "items": items,
    }
    about = {"task": {"samples": len(items), "seed": 0}, "task_version": 1, **(provenance or {})}
    cell = Cell(model=model, method=method, task=task, length=length)
    return Result(cell=cell, status="scored", provenance=about, **(said | more))


def books(method, by=0.0, n=12, **more):
    """Losses of documents that differ far more from one another than two methods do."""
    draw = np.random.default_rng(len(method))
    losses = np.linspace(2, 4, n) + by + draw.normal(0, 0.01, size=n)
    items = {f"book {i}": x for i, x in enumerate(losses.tolist())}
    return measured(method, items, task=PERPLEXITY, **more)


def failed(method, **more):
    cell = Cell(model="toy", method=method, task=PASSKEY, length=4096)
    return Result(cell=cell, status="out_of_memory", reason="it needs 9 GB", **more)


PAIRS = [
    (books("yarn"), books("pi", 0.1)),
    (measured("yarn", [1, 1, 0, 1, 1, 1, 1, 1]), measured("pi", [0, 1, 0, 0, 0, 0, 0, 0])),
    (measured("yarn", [0.5, 0.2, 0.9]), measured("pi", [0.4, 0.3, 0.1])),
]


def test_a_ratio_that_is_not_that_of_the_values_is_said():
    """As where one long document weighs more than seven short ones."""
    a, b = books("yarn"), books("pi", 0.1)
    (found,) = compare([(a, b)])
    assert found.caveat is None
    (found,) = compare([(a.model_copy(update={"value": a.value * 1.05}), b)])
    assert "document by document, all alike" in found.caveat


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_swapping_two_methods_flips_the_sign_and_keeps_who_is_better(a, b):
    one, other = compare([(a, b)])[0], compare([(b, a)])[0]
    flipped = (-other.difference, -other.high, -other.low)
    assert (one.difference, one.low, one.high) == pytest.approx(flipped, abs=1e-12)
    same = ("p", "corrected", "detectable", "n", "unit", "better", "metric")
    assert all(getattr(one, key) == getattr(other, key) for key in same)
    assert (one.a, one.a_value) == (other.b, other.b_value)


@pytest.mark.parametrize("row", [row for pair in PAIRS for row in pair])
def test_a_method_compared_with_itself_is_no_better(row):
    found = compare([(row, row)])[0]
    assert (found.difference, found.p, found.corrected, found.better) == (0, 1, 1, None)


def test_perplexities_differ_in_nats_and_by_a_ratio():
    a, b = books("yarn"), books("pi", 0.1)
    found = compare([(a, b)])[0]
    assert found.unit == "nats" and found.better == "yarn" and found.n == 12
    assert found.difference == pytest.approx(log(a.value / b.value))
    assert found.ratio == pytest.approx(a.value / b.value)
    assert found.low < found.difference < found.high < 0
    assert found.p == 2 / 2**12


def test_what_could_be_seen_is_of_all_comparisons_together():
    pair = books("yarn"), books("pi", 0.1)
    one, *_ = compare([pair])
    many = compare([pair] * 8)
    assert all(found.detectable > one.detectable for found in many)
    few = measured("yarn", [1] * 6), measured("pi", [0] * 6)
    assert compare([few])[0].detectable and compare([few] * 2)[0].detectable is None


def test_accuracies_differ_in_points():
    better, worse = measured("yarn", [1] * 9 + [0]), measured("pi", [0] * 9 + [1])
    found = compare([(better, worse)])[0]
    assert (found.unit, found.difference, found.ratio) == ("points", pytest.approx(80), None)
    assert found.better == "yarn" and found.p == pytest.approx(22 / 1024)


def test_scores_beyond_one_keep_their_unit():
    a, b = measured("yarn", [3, 50], metric="mse"), measured("pi", [2, 40], metric="mse")
    assert (compare([(a, b)])[0].unit, compare([(a, b)])[0].difference) == ("mse", 5.5)


def test_items_are_paired_by_id_whatever_their_order():
    a = measured("yarn", {"x": 1.0, "y": 0.0, "z": 0.5})
    b = measured("pi", {"z": 0.5, "y": 0.0, "x": 1.0})
    assert compare([(a, b)])[0].p == 1


def test_every_p_is_corrected_for_all_that_were_made():
    pairs = [(books("yarn"), books("pi", by)) for by in (0.1, 0.001, 0.0)]
    together, alone = compare(pairs), [compare([pair])[0] for pair in pairs]
    assert all(
        t.p == a.p and t.corrected >= a.corrected for t, a in zip(together, alone, strict=True)
    )
    assert together[0].corrected == pytest.approx(3 * alone[0].p)


def test_the_task_says_which_way_is_better_in_every_verdict():
    """A metric of no known name, and one that is better where lower by its name alone."""
    task = "of-somebody-else"
    for metric, lower in {"validation loss": True, "skill": False}.items():
        a, b = (
            measured(method, {f"{i}": x + i / 100 for i in range(12)}, task=task, metric=metric)
            for method, x in (("yarn", 1.0), ("pi", 2.0))
        )
        assert compare([(a, b)])[0].better == ("yarn" if lower else "pi")
        ahead = matrix([a, b]).wins["yarn", "pi"].ahead
        assert ahead == lower


def test_rows_of_two_commits_of_a_dataset_are_not_compared():
    a, b = (measured(m, [1, 0], provenance={"data_commit": m * 9}) for m in ("yarn", "pi"))
    assert comparable(a, b) == "their dataset commits differ: yarnyarn and pipipipi"
    assert comparable(a, measured("pi", [1, 0])) is None


def test_where_values_weigh_documents_the_other_way_it_is_said():
    a, b = books("yarn"), books("pi", 0.1)
    it = compare([(a, b.model_copy(update={"value": a.value - 1}))])[0]
    assert it.better == "yarn" and "where their values weigh them" in it.caveat


def test_every_task_says_of_its_metric_whether_less_is_better():
    for task in catalog.names("tasks"):
        for variant in catalog.variants("tasks", task) if task != "lm-eval" else ():
            it = catalog.load("tasks", variant)
            assert higher_is_better(variant, it.metric) == it.higher_is_better, variant


OTHERWISE = [
    ("protocols", {"task": "passkey.yarn", "protocol": "passkey.yarn"}),
    ("tasks", {"task": PERPLEXITY}),
    ("corpora", {"corpus": "stdlib"}),
    ("shares of truncated inputs", {"truncated": 0.5}),
    ("task versions", {"provenance": {"task_version": 2}}),
    ("seeds", {"provenance": {"task": {"samples": 4, "seed": 1}}}),
    (
        "task parameters differ, depths",
        {"provenance": {"task": {"depths": [1], "samples": 4, "seed": 0}}},
    ),
    ("base models", {"model": "smollm2-135m"}),
    ("weights", {"provenance": {"weights": "12345678"}}),
    ("metrics", {"metric": "recall"}),
    ("lengths", {"length": 8192}),
]


@pytest.mark.parametrize(("what", "otherwise"), OTHERWISE)
def test_rows_that_were_not_asked_the_same_are_refused_and_said_why(what, otherwise):
    plain = measured("yarn", [1, 0, 1, 1], provenance={"weights": "87654321"})
    other = measured("pi", [1, 0, 0, 0], **otherwise)
    assert what in comparable(plain, other) and "differ" in comparable(plain, other)
    assert comparable(plain, plain) is None
    with pytest.raises(ValueError, match=rf"cannot be compared on .* at .*{what}"):
        compare([(plain, other)])


def test_a_parameter_that_came_later_parts_no_rows():
    """At its default, which is what the older row meant."""
    old = measured("yarn", [1, 0], provenance={"task": {"samples": 4}})
    new = measured("pi", [1, 0], provenance={"task": {"samples": 4, "pair_lengths": False}})
    assert comparable(old, new) is None is comparable(new, old)


def test_a_parameter_of_the_task_is_compared_where_a_row_says_no_more():
    a = measured("yarn", [1, 0], task=f"{PASSKEY},samples=1", provenance={"task": None})
    b = measured("pi", [1, 0], task=f"{PASSKEY},samples=2", provenance={"task": None})
    assert comparable(a, b) == "their task parameters differ, samples: 1 and 2"


def test_other_items_are_refused_and_named():
    a, b = measured("yarn", {"x": 1.0, "y": 1.0}), measured("pi", {"y": 1.0, "z": 0.0})
    assert comparable(a, b) == "their items differ, 1 only of yarn (x) and 1 only of pi (z)"


def test_what_was_not_scored_is_refused_with_its_reason():
    row = measured("yarn", [1, 0])
    assert comparable(row, failed("pi")) == "pi was not scored (it needs 9 GB)"


def test_a_trained_model_is_compared_with_its_base():
    plain, trained = measured("none", [0] * 8), measured("yarn", [1] * 8, model="toy+mine@0a1b2c3d")
    assert compare([(trained, plain)])[0].better == "yarn+mine"
    assert meant("mine", [plain, trained]) == meant("yarn", [plain, trained]) == "yarn+mine"


def test_other_numbers_are_compared_with_a_caveat():
    a, b = (
        measured(m, [1, 0], provenance={"dtype": d})
        for m, d in [("yarn", "float32"), ("pi", "bfloat16")]
    )
    assert compare([(a, b)])[0].caveat == "computed in float32 and bfloat16"
    grouped, other = measured("yarn", [1, 0, 0, 1], value=0.75), measured("pi", [1, 0, 0, 0])
    assert "where their values average groups" in compare([(grouped, other)])[0].caveat
    assert compare([(other, other)])[0].caveat is None


@pytest.mark.parametrize(
    ("spec", "row"),
    [
        ("none", "none"),
        ("pi", "pi,factor=4"),
        ("pi,factor=4.0", "pi,factor=4"),
        ("yarn,factor=8", "yarn,factor=8"),
        ("yarn+mine", "yarn,factor=4+mine"),
        ("somebodys,x=1", "somebodys,x=1,y=2"),
    ],
)
def test_a_row_is_meant_by_as_much_of_its_name_as_no_other_has(spec, row):
    methods = ["none", "pi,factor=4", "yarn,factor=4", "yarn,factor=8", "somebodys,x=1,y=2"]
    rows = [measured(method, [1, 0]) for method in methods]
    rows.append(measured("yarn,factor=4", [1, 0], model="toy+mine@0a1b2c3d"))
    assert meant(spec, rows) == row
    with pytest.raises(LookupError, match="any of yarn,factor=4, yarn,factor=8"):
        meant("yarn", rows)
    with pytest.raises(LookupError, match="Did you mean 'yarn'"):
        meant("yarm", rows)


def test_two_methods_meet_wherever_both_were_measured():
    rows = [books("yarn", length=n) for n in (4096, 8192)]
    rows += [books("pi", 0.1, length=n) for n in (8192, 16384)] + [measured("pi", [1, 0])]
    found, left_out = between(rows, "yarn", "pi")
    assert [(c.length, c.task) for c in found] == [(8192, PERPLEXITY)] and not left_out


def test_what_cannot_be_compared_is_left_out_and_said():
    rows = [books("yarn", length=n) for n in (4096, 8192)] + [books("pi", 0.1)]
    rows.append(books("pi", 0.1, length=8192, truncated=0.5))
    found, left_out = between(rows, "yarn", "pi")
    assert [c.length for c in found] == [4096]
    assert len(left_out) == 1 and "8k: their shares of truncated inputs differ" in left_out[0]


def test_nothing_to_compare_says_why():
    with pytest.raises(ValueError, match=r"protocols differ: passkey\.standard and passkey.yarn"):
        between([measured("yarn", [1]), measured("pi", [1], task="passkey.yarn")], "yarn", "pi")
    with pytest.raises(ValueError, match="not measured on one task at one length"):
        between([measured("yarn", [1]), measured("pi", [1], length=9)], "yarn", "pi")


def test_items_that_a_row_lacks_are_read_beside_it(tmp_path):
    store, a = Store(tmp_path), books("yarn", n=4)
    samples = [
        Sample(id=f"w-{key}", score=x, about={"document": key}) for key, x in a.items.items()
    ]
    rows = [{"id": s.id, "score": s.score, "document": s.about["document"]} for s in samples]
    bare = a.model_copy(update={"items": {}})
    losses = {s.id: np.array([s.score], dtype=np.float32) for s in samples}
    store.write(bare, samples=rows, losses=losses)
    assert kept(store)(bare) == pytest.approx(a.items)
    assert compare([(bare, books("pi", 0.1, n=4))], kept(store))[0].n == 4


def test_answers_beside_a_row_that_are_torn_are_named(capsys, folder):
    store = Store(folder)
    for row in [*store.results()]:
        bare = row.model_copy(update={"items": {}})
        store.write(bare, samples=[{"id": "a"}])
        file = store.path(row.cell).with_suffix(".samples.jsonl")
        file.write_bytes(file.read_bytes()[:-4])
    ask = ("compare", "--a", "yarn", "--b", "pi", "--results", folder, "--task", "perplexity")
    code, _, said = harness(capsys, *ask)
    assert code == 2 and "has no scores of its items" in said
    assert "4096.samples.jsonl is skipped: line 1 is no JSON" in said


def test_items_that_are_nowhere_are_asked_for(tmp_path):
    bare, b = (books(m).model_copy(update=u) for m, u in [("yarn", {"items": {}}), ("pi", {})])
    with pytest.raises(LookupError, match=r"no scores of its items: remove runs/toy.*again"):
        compare([(bare, b)], kept(Store(tmp_path)))


def test_a_matrix_is_the_comparisons_of_every_two():
    rows = [
        books(m, by, length=n) for m, by in [("pi", 0.2), ("yarn", 0), ("ntk", 0.1)] for n in (1, 2)
    ]
    rows += [measured("yarn", [0] * 8), measured("pi", [1] * 8), failed("ntk")]
    found = matrix(rows)
    assert found.names == ["yarn", "ntk", "pi"] and found.models == ["toy"]
    wins = {pair: (w.ahead, w.sure, w.of) for pair, w in found.wins.items()}
    assert wins["yarn", "pi"] == (2, 2, 3) and wins["pi", "yarn"] == (1, 1, 3)
    assert wins["yarn", "ntk"] == (2, 2, 2) and wins["ntk", "yarn"] == (0, 0, 2)
    assert len(found.least) == 7 and all("it needs 9 GB" in said for said in found.left_out)


def test_who_is_level_is_not_ahead():
    found = matrix([measured("yarn", [1, 0]), measured("pi", [0, 1])])
    assert {(w.ahead, w.of) for w in found.wins.values()} == {(0, 1)}


def test_too_few_items_are_said_to_show_nothing():
    assert "no p can be below 0.25: nothing" in floor([0.25])
    assert "below 0.25, and corrected for 9 none below 1:" in floor([0.25] * 9)
    assert floor([2.0**-9] * 9 + [0.5]) is None and floor([]) is None


@pytest.fixture
def folder(tmp_path):
    store = Store(tmp_path)
    for n in (4096, 8192):
        for row in (books("yarn,factor=4", length=n), books("pi,factor=4", 0.1, length=n)):
            store.write(row)
    store.write(measured("yarn,factor=4", [1] * 12 + [0] * 3))
    store.write(measured("pi,factor=4", [0] * 15, task="passkey.yarn"))
    return tmp_path


def harness(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in argv])
    said = capsys.readouterr()
    return stop.value.code or 0, said.out, said.err


def test_the_command_line_prints_a_comparison_in_every_form(capsys, folder):
    ask = ("compare", "--a", "yarn", "--b", "pi", "--results", folder, "--task", "perplexity")
    code, table, _ = harness(capsys, *ask)
    assert code == 0 and "yarn,factor=4 less pi,factor=4" in table and "8k" in table
    assert "| 4k |" in harness(capsys, *ask, "--format", "markdown")[1]
    rows = json.loads(harness(capsys, *ask, "--format", "json", "--lengths", "8k")[1])
    assert [(r["length"], r["better"]) for r in rows] == [(8192, "yarn,factor=4")]
    lines = harness(capsys, *ask, "--format", "csv")[1].splitlines()
    assert [row["length"] for row in csv.DictReader(lines)] == ["4096", "8192"]


def test_the_command_line_prints_a_matrix_in_every_form(capsys, folder):
    ask = ("compare", "--results", folder, "--model", "toy")
    assert "2/2 (2)" in harness(capsys, *ask)[1]
    assert "| 1 | yarn,factor=4 |" in harness(capsys, *ask, "--matrix", "--format", "markdown")[1]
    wins = json.loads(harness(capsys, *ask, "--format", "json")[1])
    assert {"a": "yarn,factor=4", "b": "pi,factor=4", "ahead": 2, "sure": 2, "of": 2} in wins
    assert harness(capsys, *ask, "--format", "csv")[1].startswith("a,b,ahead,sure,of\n")


def test_two_checkpoints_of_one_name_are_two_rows(capsys, tmp_path):
    named = ["yarn+mine 00000001", "yarn+mine 00000002"]
    for row in (
        measured("none", [1, 0] * 10),
        measured("yarn", [1] * 20, model="toy+mine@00000001"),
        measured("yarn", [0] * 20, model="toy+mine@00000002"),
    ):
        Store(tmp_path).write(row)
    ask = ("compare", "--results", tmp_path, "--format", "json")
    wins = {(w["a"], w["b"]): w["ahead"] for w in json.loads(harness(capsys, *ask)[1])}
    assert wins[named[0], named[1]] == 1 and wins[named[1], named[0]] == 0 and len(wins) == 6
    code, _, said = harness(capsys, *ask, "--a", "none", "--b", "yarn+mine")
    assert code == 2 and "Did you mean 'yarn+mine 0000000" in said
    (row,) = json.loads(harness(capsys, *ask, "--a", "none", "--b", named[0])[1])
    assert row["better"] == named[0] and row["n"] == 20


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--a", "yarn", "--b", "pi", "--task", "passkey"], "protocols differ"),
        (["--a", "yarn", "--b", "pi", "--task", "passkey.standard"], "No result here is of 'pi'"),
        (["--a", "yarn"], "Name both methods"),
        (["--a", "yarn", "--b", "yarn,factor=4"], "both mean yarn,factor=4: name another"),
        (["--a", "yarn", "--b", "pi", "--model", "toyy"], "None of the 6 results"),
        (["--a", "yarn", "--b", "pi", "--lengths", "64k"], "None of the 6 results"),
        (["--task", "passkey"], "No two results here are of one model"),
    ],
)
def test_the_command_line_refuses_in_one_sentence(capsys, folder, argv, why):
    code, out, err = harness(capsys, "compare", "--results", folder, *argv)
    assert code == 2 and out == "" and why in err and err.count("\n") == 1


def test_what_was_left_out_is_noted_beside_pure_json(capsys, folder):
    Store(folder).write(books("pi,factor=4", 0.1, length=4096, truncated=0.25))
    code, out, err = harness(
        capsys, "compare", "--a", "yarn", "--b", "pi", "--results", folder, "--format", "json"
    )
    assert code == 0 and len(json.loads(out)) == 1 and "truncated inputs differ" in err


def test_rows_are_named_by_method_and_training():
    assert name(measured("yarn", [1], model="toy+mine@0a1b2c3d").cell) == "yarn+mine"
    assert name(measured("yarn", [1]).cell) == "yarn"
