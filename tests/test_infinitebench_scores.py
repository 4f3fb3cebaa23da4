"""InfiniteBench's scores are the official ones, row by row, over what four models have said."""

import json
from pathlib import Path

import pytest

from harness.metrics.infinitebench import FIXED, MEASURES, OFFICIAL, judge

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared"
ROWS = sorted((SHARED / "golden" / "infinitebench_rows").glob("*.json"))
SAID = SHARED / "data" / "infinitebench_results"
PROBES = json.loads((HERE / "golden" / "infinitebench_probes.json").read_text("utf-8"))["rows"]
DEFECTS = {"about 12.5": "int() of a number with a point ends the official script"}
"""Probes where a row is no score of the official script's; no row of the real models is here."""


def official(row, model, task):
    said = row.get("prediction", row.get("pred"))
    right = row.get("ground_truth", row.get("label"))
    return judge(task, "official", said, right, drops_first=model == "gpt4")


def slowly(path):
    """Long summaries take seconds to compare."""
    slow = pytest.mark.slow if path.stem == "gpt4__longbook_sum_eng" else ()
    return pytest.param(path, marks=slow, id=path.stem)


@pytest.mark.skipif(not ROWS, reason="the published predictions are not here")
@pytest.mark.parametrize("golden", [slowly(path) for path in ROWS])
def test_every_row_of_a_real_model_has_its_official_score(golden):
    model, _, file = golden.stem.partition("__")
    task = file.removesuffix("_step_by_step")
    with (SAID / model / f"preds_{file}.jsonl").open(encoding="utf-8") as lines:
        scores = [official(json.loads(line), model, task)[0] for line in lines]
    assert scores == pytest.approx(json.loads(golden.read_text()), abs=1e-9)


@pytest.mark.parametrize("row", [r for r in PROBES if r["prediction"] not in DEFECTS])
def test_what_is_hard_to_read_has_its_official_score(row):
    drops = row["model_name"] == "gpt4"
    found = judge(row["task"], "official", row["prediction"], row["label"], drops_first=drops)
    assert found[0] == pytest.approx(row["score"], abs=1e-12)


def test_where_the_official_script_ends_with_an_error_a_row_is_a_miss():
    broken = [row for row in PROBES if row["prediction"] in DEFECTS]
    assert len(broken) == len(DEFECTS) and all("ValueError" in row["score"] for row in broken)
    for row in broken:
        assert judge(row["task"], "official", row["prediction"], row["label"]) == (0, "12.5")


@pytest.mark.parametrize(
    ("task", "said", "right", "official", "fixed"),
    [
        ("passkey", "The 5-digit key is 12345", "12345", 0, 1),
        ("number_string", "the 10 digits: 3000077442", "3000077442", 0, 1),
        ("passkey", "12345", "12345", 1, 1),
        ("passkey", "12346 or 12345", "12345", 0, 0),
        ("kv_retrieval", "value=abc-1", "abc-1", 0, 1),
        ("kv_retrieval", "abc-12", "abc-1", 0, 0),
        ("longdialogue_qa_eng", "Mr. Pink.", ["MR. PINK"], 0, 1),
        ("longdialogue_qa_eng", "Broussard", ["BILL", "BROUSSARD"], 0, 1),
        ("longdialogue_qa_eng", "Pinkie", ["PINK"], 0, 0),
        ("longbook_choice_eng", "Answer: C", ["x", "C"], 0, 1),
        ("longbook_choice_eng", "Answer: C", ["x", "A"], 1, 0),
        ("longbook_choice_eng", "Based on the text, D", ["x", "B"], 1, 0),
        ("longbook_choice_eng", "it is (C)", ["x", "C"], 0, 1),
        ("longbook_choice_eng", "A man of B", ["x", "B"], 0, 1),
        ("code_debug", "B", ["foo", "B"], 0, 1),
        ("code_debug", "The answer is B because the file is closed", ["foo", "B"], 0, 1),
        ("code_debug", "C is the correct one", ["foo", "C"], 0, 1),
        ("code_debug", "The answer is A because of B", ["foo", "A"], 0, 1),
        ("code_debug", "A function as B has it", ["foo", "B"], 0, 1),
        ("code_debug", "The answer is: Definitely A", ["foo", "D"], 1, 0),
        ("code_debug", "answer is: parse_options", ["parse_options", "A"], 0, 1),
        ("code_run", "**5**", 5, 0, 1),
        ("code_run", "x = -3, so 7-2 = 5 (five)", 5, 0, 1),
        ("code_run", "It is 6.", 5, 0, 0),
        ("math_find", "88.0", 88, 0, 1),
        ("math_find", "-3", 3, 1, 0),
        ("math_calc", "[1, 4, -8]", [4, -8], 0, 1),
        ("math_calc", "4, -8", [4, -8], 0.5, 1),
        ("longbook_qa_eng", "\na red fox\nQuestion: what else?", ["red fox"], 4 / 7, 1),
    ],
)
def test_the_two_scorers_differ_where_the_official_one_is_wrong(task, said, right, official, fixed):
    assert judge(task, "official", said, right)[0] == pytest.approx(official)
    assert judge(task, "fixed", said, right)[0] == pytest.approx(fixed)


RIGHT = {
    "passkey": "01234",
    "number_string": "0011223344",
    "kv_retrieval": "c14cb8ba-002b-43be-bdc7-8a83f0fe1ac8",
    "longbook_sum_eng": ["She marries.\nHe dies."],
    "longbook_choice_eng": ["Walking home", "B"],
    "longbook_qa_eng": ["fighting in a war", "in a war"],
    "longbook_qa_chn": ["北京"],
    "longdialogue_qa_eng": ["ACE", "ACE ROTHSTEIN"],
    "math_find": 42.5,
    "math_calc": [3, 10, 0],
    "code_run": -4,
    "code_debug": ["cmd_gen", "C"],
}
"""What is right, one for each task."""


def gold(task):
    match task, RIGHT[task]:
        case "code_debug", [function, letter]:
            return f"{letter}. {function}"
        case "longbook_choice_eng", [_, letter]:
            return letter
        case _, [str(first), *_]:
            return first
        case _, right:
            return str(right)


@pytest.mark.parametrize("scorer", ["official", "fixed"])
@pytest.mark.parametrize("task", OFFICIAL)
def test_what_is_right_scores_full_and_silence_nothing(task, scorer):
    score, extracted = judge(task, scorer, gold(task), RIGHT[task])
    assert score == 1 and extracted
    for silence in ("", " \n"):
        assert judge(task, scorer, silence, RIGHT[task]) == (0, None)


@pytest.mark.parametrize("scorer", ["official", "fixed"])
@pytest.mark.parametrize("task", [t for t in OFFICIAL if not t.startswith("longbook_sum")])
def test_no_answer_breaks_a_scorer(task, scorer):
    for said in ("9" * 5000, "1_000.", "٣", "answer is", "is:", "-", "A", "12.5 or 3", "\0", "ß"):
        score, _ = judge(task, scorer, said, RIGHT[task])
        assert 0 <= score <= 1


@pytest.mark.parametrize("task", OFFICIAL)
def test_what_is_right_may_stand_in_a_list_of_one(task):
    wrapped = RIGHT[task] if task.startswith("long") else [RIGHT[task]]
    assert judge(task, "official", gold(task), wrapped)[0] == 1


@pytest.mark.parametrize(
    ("task", "right"),
    [
        ("passkey", "c14cb8ba-002b"),
        ("kv_retrieval", 5),
        ("longbook_choice_eng", ["Walking home"]),
        ("longbook_choice_eng", "B"),
        ("code_debug", ["cmd_gen", "E"]),
        ("math_find", "many"),
        ("math_calc", []),
        ("math_calc", [1, "x"]),
        ("code_run", True),
        ("longbook_qa_eng", []),
    ],
)
def test_what_is_right_in_another_task_is_refused(task, right):
    with pytest.raises(ValueError, match=f"is no answer of {task}, which has"):
        judge(task, "official", "5", right)


def test_what_decided_is_told():
    told = {
        ("passkey", "It is 12, no 345."): "12",
        ("longbook_choice_eng", "Answer: C"): "A",
        ("math_calc", "3, 10, 5, 6"): "3, 10, 5",
        ("code_run", "The value is: 7."): "7",
        ("code_debug", "The answer is: cmd_gen, as ..."): "cmd_gen,",
        ("kv_retrieval", "It is here"): "It is here",
        ("longbook_qa_eng", "The War!"): "war",
    }
    for (task, said), extracted in told.items():
        assert judge(task, "official", said, RIGHT[task])[1] == extracted


def test_every_task_has_both_scorers():
    assert list(OFFICIAL) == list(FIXED) == list(MEASURES) and len(OFFICIAL) == 12
