"""The grids that committed rows are of: they can be run, and those of the toy are whole."""

from pathlib import Path

import pytest

from harness import catalog
from harness.cell import OWN
from harness.corpora import label
from harness.gridfile import options
from harness.plan import missing, plan
from harness.store import Store

RESULTS = Path(__file__).parents[1] / "results"
GRIDS = sorted((RESULTS / "grids").glob("*.yaml"))


@pytest.mark.parametrize("file", GRIDS, ids=lambda file: file.stem)
def test_it_names_what_there_is(file):
    asked = options({}, file)
    assert asked.models and asked.lengths
    for kind, specs in (("methods", asked.methods), ("tasks", asked.tasks)):
        for spec in specs:
            if spec != OWN:  # of what was trained, the method it was trained with
                catalog.load(kind, spec)
    assert file.read_text().startswith("# "), "says what it is for"


def test_every_row_of_the_toys_grid_is_there():
    stamp = label("stdlib:tests").rpartition("@")[2]
    if not [*(RESULTS / "runs" / "toy").glob(f"perplexity*@{stamp}*")]:
        pytest.skip("they are of another Python's library")
    asked = options({}, RESULTS / "grids" / "toy.yaml")
    cells = plan(asked)
    assert len(cells) == 80
    assert missing(cells, Store(RESULTS)) == []
