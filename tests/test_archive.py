import json
import os
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import archive, packs
from harness.cell import Cell, Result
from harness.cli import main
from harness.store import Store
from harness.where import matching

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
CELLS = st.builds(Cell, model=TEXT, method=TEXT, task=TEXT, length=st.integers(1, 2**31 - 1))


def result(method="pi", length=4096, *, status="scored", model="toy", **more):
    cell = Cell(model=model, method=method, task="passkey.standard,samples=2", length=length)
    said = {"value": 0.5, "low": 0.25} if status == "scored" else {"reason": "it did not"}
    return Result(cell=cell, status=status, **{**said, **more})


def various():
    return [
        result("none", 4096, items={"a|b": 1.0, "é": 0.0}, parts={"depth 0.00": 0.1 + 0.2}),
        result("none", 131072, status="out_of_memory", seconds=1e-9),
        result("pi,factor=8", 16384, value=1 / 3, factor=8.0, provenance={"x": [1.0, None, {}]}),
        result("yarn,factor=8", 4096, value=5e-324, factor=8.0, n=10, tokens=2**40, corpus="c,d"),
        result("yarn,factor=8", 4096, model="toy+mine@0123abcd", trained="for long", notice="<b>"),
    ]


@pytest.fixture
def filled(tmp_path):
    store = Store(tmp_path)
    for one in various():
        store.write(one)
    return store


def packed(store):
    archive.pack(store.root, remove=True)
    return store


@given(CELLS)
def test_a_path_leads_back_to_its_cell(cell):
    assert Cell.at(cell.path) == cell


@pytest.mark.parametrize("path", ["a/b/c.json", "a/b/c/d.json", "a/b/c/04.json", "a:/b/c/4.json"])
def test_no_other_path_leads_to_a_cell(path):
    with pytest.raises(ValueError, match=r"is no model/task|is written"):
        Cell.at(path)


def test_what_a_run_writes_while_the_packed_is_removed_stays(filled, monkeypatch):
    first = next(filled.single())
    better, real = first.model_copy(update={"value": 0.75}), archive.held

    @contextmanager
    def late(folder, *, wait):
        if folder == filled.path(first.cell).parent:
            filled.write(better)
        with real(folder, wait=wait) as alone:
            yield alone

    monkeypatch.setattr(archive, "held", late)
    assert archive.pack(filled.root, remove=True).removed == 4
    assert Store(filled.root).get(first.cell) == better


def test_packing_loses_nothing_and_keeps_the_order(filled):
    before = list(filled.results())
    done = archive.pack(filled.root, remove=True)
    assert (done.cells, done.removed, done.broken) == (5, 5, [])
    assert not list(filled.runs.rglob("*.json"))
    assert list(filled.results()) == before
    assert all(filled.get(one.cell) == one and filled.has(one.cell) for one in before)
    assert filled.get(result("elsewhere").cell) is None


def test_single_files_stay_unless_one_says_so_and_nothing_is_packed_twice(filled):
    assert archive.pack(filled.root).cells == 5
    assert len(list(filled.runs.rglob("*.json"))) == len(list(filled.results())) == 5
    again = archive.pack(filled.root)
    assert (again.path, again.cells) == (None, 0)


def test_a_single_file_outweighs_a_pack_and_a_later_pack_an_earlier(filled):
    packed(filled)
    for value in (0.7, 0.9):
        newer = result("none", 4096, value=value)
        filled.write(newer)
        assert filled.get(newer.cell) == newer
        assert [r for r in filled.results() if r.cell == newer.cell] == [newer]
        table = archive.columns(filled.root, "method=none length=4k")
        assert table["value"].to_pylist() == [value]
        assert len(list(filled.results())) == archive.columns(filled.root).num_rows == 5
        packed(filled)
    assert archive.columns(filled.root, "method=none length=4k")["value"].to_pylist() == [0.9]


def test_a_torn_single_file_leaves_its_packed_result(filled):
    archive.pack(filled.root)
    one = various()[0]
    filled.path(one.cell).write_text("{")
    assert filled.get(one.cell) == one
    assert [broken.path for broken in filled.broken] == [filled.path(one.cell)]


def test_what_failed_is_retried_from_a_pack_too(filled):
    packed(filled)
    retrying = Store(filled.root, retry=True)
    assert [retrying.has(one.cell) for one in various()] == [True, False, True, True, True]


def foreign(path):
    pq.write_table(pa.table({"cell": ["a"]}), path)


def other_schema(path):
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({packs.MARK: b"99"}), path)


def torn(path):
    path.write_bytes(path.read_bytes()[:-40])


def rotten(path):
    """One bit of a page, which only its checksum tells."""
    column = pq.read_metadata(path).row_group(0).column(0)
    raw = bytearray(path.read_bytes())
    raw[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (torn, "no whole Parquet file"),
        (foreign, "no pack of results"),
        (other_schema, "of schema 99"),
        (lambda path: path.write_bytes(b""), "no whole Parquet file"),
        (lambda path: path.write_text("hello, I am a text"), "no whole Parquet file"),
        (rotten, ""),
    ],
)
def test_a_spoilt_pack_is_named_and_skipped(filled, spoil, why):
    packed(filled)
    extra = result("extra")
    filled.write(extra)
    path = filled.root / "packed/00001.parquet"
    spoil(path)
    for look in (
        lambda: list(filled.results()),
        lambda: archive.found(filled.root).results,
        lambda: archive.columns(filled.root).to_pylist(),
        lambda: [filled.get(extra.cell)],
    ):
        assert len(look()) == 1
    assert filled.get(various()[0].cell) is None
    broken = []
    archive.columns(filled.root, broken=broken)
    assert [b.path for b in broken] == [path] == [b.path for b in filled.broken]
    assert why in broken[0].reason and "\n" not in str(broken[0])


def test_a_row_that_is_no_result_is_named_and_the_others_are_read(filled):
    packed(filled)
    path = filled.root / "packed/00001.parquet"
    table = pq.read_table(path)
    spoilt = pa.array(["unheard of", *table["status"].to_pylist()[1:]])
    at = table.schema.get_field_index("status")
    pq.write_table(table.set_column(at, "status", spoilt), path)
    assert list(filled.results()) == list(filled.results()) != []
    assert len(list(filled.results())) == len(archive.found(filled.root).results) == 4
    first = "toy+mine@0123abcd/passkey.standard,samples=2/yarn,factor=8/4096.json: status"
    assert filled.broken[0].reason.startswith(first)


def test_a_pack_is_there_whole_or_not(filled, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        archive.pack(filled.root, remove=True)
    assert list((filled.root / "packed").iterdir()) == []
    assert len(list(filled.results())) == 5


CONDITIONS = [
    "method=pi,none",
    "method!=yarn",
    "length>=16k",
    "length=4096,131072",
    "length<4096.5",
    "length=4096.5",
    "factor=none",
    "factor!=none",
    "factor=none,8",
    "factor!=8",
    "value>=0.5",
    "value<1e300 status=scored",
    "corpus=c",
    "corpus!=c",
    "n>0 tokens>1e12",
    "n=1e30",
    "low>0.2",
    "reason!=none",
    "base=toy model!=toy",
    "model=toy,dtype=float32",
    "model!=toy,dtype=float32,org/model",
    "model=my-toy",
    "model=my-toy,dtype=float32",
    "model=mine,my-toy@0123abcd",
    "model!=toy+mine",
    "base=my-toy",
]


@pytest.mark.parametrize("where", CONDITIONS)
def test_conditions_mean_the_same_of_packs_and_single_files(filled, where):
    stamp = "@0123abcd"
    for model in ("toy,dtype=float32", f"my-toy{stamp}", f"my-toy{stamp},dtype=float32",
                  f"toy+mine{stamp}", f"my-toy{stamp}+mine@4567abcd", "a-my-toy"):  # fmt: skip
        filled.write(result("none", 4096, model=model))
    from_files = archive.columns(filled.root, where)
    meant = matching(filled.results(), where)
    assert from_files["cell"].to_pylist() == [str(r.cell.path) for r in meant]
    packed(filled)
    assert archive.columns(filled.root, where) == from_files
    assert [r.cell for r in archive.found(filled.root, where).results] == [r.cell for r in meant]


def test_a_condition_that_holds_of_no_result_is_named_with_what_may_be_meant(filled):
    filled.write(result("none", 4096, model="my-toy@0123abcd", protocol="passkey.standard"))
    for where, said in (
        ("model=my-toy method=yarm", "none has method=yarm. Did you mean 'yarn'?"),
        ("task=passkey.yarn", "none has task=passkey.yarn. Did you mean 'passkey'?"),
        (
            "task=passkey.standard",
            "none has task=passkey.standard: write protocol=passkey.standard.",
        ),
        ("model=my-toi", "none has model=my-toi. Did you mean 'my-toy'?"),
        ("method=pi,yarm length>=4k", ""),
    ):
        assert archive.unheld(filled.root, where) == said


def test_columns_are_what_a_row_says(filled):
    filled.write(result("more"))
    packed(filled)
    filled.write(result("another"))
    table = archive.columns(filled.root)
    for row, one in zip(table.to_pylist(), filled.results(), strict=True):
        assert row.pop("cell") == str(one.cell.path)
        nested = {key: json.loads(row[key]) for key in ("method_parameters", "task_parameters")}
        assert row | nested == one.row()
    assert archive.columns(filled.root, only=["value"]).column_names == ["value"]
    with pytest.raises(ValueError, match="no column 'worth'"):
        archive.columns(filled.root, only=["worth"])


def test_nothing_is_a_table_with_no_rows(tmp_path):
    assert archive.columns(tmp_path).num_rows == 0
    assert archive.pack(tmp_path) == archive.Packed(None, 0, 0, [])
    assert not (tmp_path / "packed").exists()


NOWHERE = [
    ["query", "select 1"],
    ["results", "pack"],
    ["results", "export", "there", "--as", "parquet"],
    ["explain", "toy"],
    ["diff", "a", "b"],
    ["rerun", "--check"],
    ["compare"],
    ["table"],
    ["leaderboard"],
]


@pytest.mark.parametrize("words", NOWHERE, ids=" ".join)
def test_a_folder_that_is_not_there_is_no_empty_one(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main([*words, "--results", "typo"])
    assert left.value.code == 2 and "There are no results in 'typo'." in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_number_too_large_for_a_column_is_named(filled):
    filled.write(result("large", n=2**63))
    broken = []
    assert archive.columns(filled.root, broken=broken).num_rows == 5
    assert "63 bits" in broken[0].reason
    assert archive.pack(filled.root).cells == 5
    assert len(list(filled.results())) == 6


def test_groups_of_a_pack_are_found_by_their_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr(packs, "ROWS", 3)
    store = Store(tmp_path)
    lengths = [2**k for k in range(4, 20)]
    for length in lengths:
        store.write(result("pi", length, value=float(length)))
    packed(store)
    assert [r.cell.length for r in store.results()] == lengths
    assert [store.get(result("pi", n).cell).value for n in lengths] == lengths


def test_every_field_of_a_result_is_kept():
    assert set(Result.model_fields) <= {*packs.KNOWN, *packs.NESTED, "cell"}
    types = {name: field.annotation for name, field in Result.model_fields.items()}
    flat = {name for name in packs.KNOWN if name in types}
    numbers = {name for name in flat if types[name] in (int, float, float | None)}
    assert numbers == set(packs.NUMBERS) - {"length"}


def test_the_command_line_packs_the_folder_that_is_named_before_or_behind(filled, capsys):
    for argv in (
        ["--results", filled.root, "pack"],
        ["pack", "--remove", "--results", filled.root],
    ):
        with pytest.raises(SystemExit) as stop:
            main(["results", *map(str, argv)])
        assert not stop.value.code
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(" into")[0] for line in said] == [
        "5 results packed",
        "0 results packed",
        "5 single files removed",
    ]
    with pytest.raises(SystemExit) as stop:
        main(["results", "--results", str(filled.root), "--format", "json"])
    assert json.loads(capsys.readouterr().out) == [r.row() for r in filled.results()]
    with pytest.raises(SystemExit) as stop:
        main(["results", "--where", "method=pi", "pack"])
    assert stop.value.code == 2
