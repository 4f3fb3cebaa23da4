import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from harness.cell import Cell, Result, grid

names = st.text(
    st.characters(codec="utf-8") | st.sampled_from("./%~, =\\"), min_size=1, max_size=12
)
cells = st.builds(Cell, model=names, method=names, task=names, length=st.integers(1, 1 << 40))


@given(cells, cells)
def test_two_cells_share_a_path_only_if_they_are_one(one, other):
    assert (one.path == other.path) == (one == other)


@given(cells)
def test_a_path_has_four_plain_parts_and_leads_nowhere_else(cell):
    assert len(cell.path.parts) == 4
    assert not cell.path.is_absolute() and not {".", "..", ""} & set(cell.path.parts)
    assert all(character.isprintable() for character in str(cell.path))


@pytest.mark.parametrize("name", [".", "..", "%2E", ".%2E", "a/b", "a%2Fb", "../../etc"])
def test_awkward_names_stay_apart_and_below(name):
    cell = Cell(model=name, method="yarn,factor=8", task="passkey", length=4096)
    assert cell.path == PurePosixPath(cell.path.parts[0], "passkey", "yarn,factor=8", "4096.json")
    assert name == "a%2Fb" or cell.path != cell.model_copy(update={"model": "a%2Fb"}).path


def test_a_nameless_cell_is_none():
    with pytest.raises(ValidationError):
        Cell(model="", method="m", task="t", length=1)


def test_a_grid_has_every_cell_once_rows_together_short_first():
    got = grid(["m", "m"], ["a", "b"], ["t"], [8, 4, 8])
    assert [(c.method, c.length) for c in got] == [("a", 4), ("a", 8), ("b", 4), ("b", 8)]


@pytest.mark.parametrize(
    ("model", "base", "training"),
    [
        ("toy", "toy", ""),
        ("toy,dtype=float32", "toy,dtype=float32", ""),
        ("toy+mine@0123abcd", "toy", "mine"),
        ("toy+mine@0123abcd,dtype=float32", "toy,dtype=float32", "mine"),
    ],
)
def test_a_trained_model_stands_beside_its_base_in_the_same_dtype(model, base, training):
    found = Cell(model=model, method="m", task="t", length=1)
    assert (found.base, found.training) == (base, training)
    assert found.of_model("toy") and found.of_model(base)


cell = Cell(model="toy", method="yarn,factor=8", task="passkey", length=8192)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_no_number_is_nan(value):
    with pytest.raises(ValidationError):
        Result(cell=cell, status="scored", value=value)


def test_a_value_stands_if_and_only_if_scored():
    with pytest.raises(ValidationError, match="if and only if"):
        Result(cell=cell, status="scored")
    with pytest.raises(ValidationError, match="if and only if"):
        Result(cell=cell, status="failed", value=1.0, reason="it fell")


def test_what_was_not_scored_says_why():
    with pytest.raises(ValidationError, match="says why"):
        Result(cell=cell, status="unfit")


def test_a_row_has_every_key_people_rely_on():
    row = Result(cell=cell, status="scored", value=0.5, factor=8.0).row()
    promised = "model method factor task protocol corpus length status value low high n seconds"
    assert {*promised.split(), "peak_memory", "reason"} <= set(row)
    assert (row["method"], row["method_parameters"]) == ("yarn", {"factor": "8"})
    assert json.loads(json.dumps(row, allow_nan=False)) == row
