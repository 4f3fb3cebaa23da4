import json
import math
import shlex
import shutil
from pathlib import Path

import pytest

from harness import adapters, catalog, explain, query, rerun
from harness import run as run_module
from harness.again import Places, again
from harness.cell import SHIPPED, Cell, Result
from harness.cli import main
from harness.corpora import label_of_questions
from harness.gridfile import options
from harness.model import TRAINED, describe
from harness.plan import _task, settled
from harness.store import Store

METHODS = [
    "none",
    "yarn,factor=8",
    "pi,factor=2.5",
    "dynamic-ntk",
    "cl-scaling",
    "longrope,factor=8",
]
TASKS = [
    "passkey.standard,samples=2",
    "passkey.standard,depths=0+0.5,seed=3",
    "ruler.niah_single_1",
]


def result(method="yarn,factor=8", length=4096, *, model="toy", task=TASKS[0], **more):
    cell = Cell(model=model, method=method, task=task, length=length)
    return Result(cell=cell, status="scored", **{"value": 0.5, "metric": "accuracy", **more})


def made_of(*frequencies, **more):
    return {"method": {"frequencies": [*frequencies], "factor": 8.0}, "kernel": "k", **more}


@pytest.fixture
def kept(tmp_path):
    store = Store(tmp_path)
    for one in (
        result(n=2, items={"a": 1.0, "b": 0.0}, provenance=made_of(1.0, 0.25, weights="f00")),
        result("pi,factor=8", items={"a": 0.0, "c": 0.0}, provenance=made_of(0.5, 0.25)),
        result("pi,factor=8", 8192),
        result("none", model="org/model"),
    ):
        store.write(one)
    return tmp_path


def test_a_name_may_have_a_slash_of_its_own(kept):
    for method, task in (("a/b", TASKS[0]), ("none", "perplexity.whole,corpus=hf:me/books")):
        one = result(method, task=task)
        Store(kept).write(one)
        for words in ([method, task], [f"toy/{method}", task], [f"toy/{task}/{method}/4k"]):
            if words[0] != f"toy/{task}/{method}/4k":
                words = [*words, "toy", "4k"]
            assert explain.find(kept, words).cell == one.cell


STEERING = "\x1b[2Jnone\x07\r\u202e"


@pytest.mark.parametrize(
    "words",
    [
        ["table"],
        ["results"],
        ["compare"],
        ["compare", "--a", STEERING, "--b", "none"],
        ["query", "select method, notice from results"],
        ["explain", STEERING],
        ["diff", f"toy/{STEERING}/4k", "toy/none/4k"],
    ],
    ids=lambda words: words[0],
)
def test_a_result_does_not_steer_the_terminal(words, tmp_path, capsys):
    for method in ("none", STEERING):
        about = {"notice": STEERING, "corpus": STEERING, "items": {"a": 1.0, "b": 0.0}}
        Store(tmp_path).write(result(method, **about))
    assert call(*words, "--results", tmp_path) == 0
    said = capsys.readouterr().out
    assert "none" in said and not set(said) & set("\x1b\x07\r\u202e")


def call(*argv):
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in argv])
    return stop.value.code or 0


@pytest.mark.parametrize(
    "words",
    [
        ["toy", "passkey", "yarn", "4k"],
        ["toy/passkey/yarn/4k"],
        ["yarn"],
        ["yarn,factor=8", "4096"],
        ["toy/passkey.standard,samples=2/yarn,factor=8/4096.json"],
    ],
)
def test_a_cell_is_found_by_any_words_that_mean_it_alone(kept, words):
    assert explain.find(kept, words).cell == result().cell


def test_a_cell_is_found_by_its_file_by_conditions_and_by_a_name_with_a_slash(kept, monkeypatch):
    assert explain.find(kept, [str(Store(kept).path(result().cell))]).cell == result().cell
    monkeypatch.chdir(kept / "runs/toy")
    inside = "passkey.standard,samples=2/yarn,factor=8/4096.json"
    assert explain.find(kept, [inside]).cell == result().cell
    assert explain.find(kept, [], "method=yarn").cell == result().cell
    assert explain.find(kept, ["org/model/passkey"]).cell.model == "org/model"


def test_what_lies_with_the_results_is_found_for_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(TRAINED["toy-longrope"], "results/training/mine/adapter")
    model = adapters.spec_of(Path("results/training/mine/adapter"))
    assert model.startswith("toy+mine@")
    asked = Path("data/own/questions")
    asked.mkdir(parents=True)
    (asked / "a.jsonl").write_text("{}")
    data = label_of_questions(str(asked))
    cell = Cell(model=model, method="none", task=f"manyshot.file,data={data}", length=4096)
    about = explain.explained(Path("results"), Result(cell=cell, status="failed", reason="no"))
    assert "--model results/training/mine/adapter " in about["command"]
    assert "data=data/own/questions " in about["command"] and about["missing"] == []
    (asked / "a.jsonl").write_text("{} ")  # others than were asked
    about = explain.explained(Path("results"), Result(cell=cell, status="failed", reason="no"))
    assert data in about["missing"][0]


def test_a_model_of_ones_own_is_found_by_its_name(kept, tmp_path):
    for content in ("0123abcd", "0123abcd,dtype=float32"):
        Store(kept).write(result(model=f"my-toy@{content}"))
    Store(kept).write(result(model="toy+mine@4567abcd"))
    cell = explain.find(kept, ["my-toy", "passkey", "yarn", "4k"]).cell
    assert cell.model == "my-toy@0123abcd" and cell.of_model("my-toy")
    assert explain.find(kept, ["mine", "yarn"]).cell.model == "toy+mine@4567abcd"
    Store(kept).write(result(model="my-toy@4567abcd"))
    with pytest.raises(ValueError, match=r"say which: .*my-toy@0123abcd/.*; my-toy@4567abcd/"):
        explain.find(kept, ["my-toy", "yarn"])


def test_several_are_named_and_none_comes_with_the_nearest(kept):
    with pytest.raises(ValueError, match=r"names 2 cells, say which: .*4096; .*8192\.$"):
        explain.find(kept, ["pi"])
    with pytest.raises(LookupError, match=r"called 'yarm'\. Did you mean 'yarn'"):
        explain.find(kept, ["yarm"])
    with pytest.raises(LookupError, match=r"No cell in .* is meant by all"):
        explain.find(kept, ["org/model", "yarn"])
    with pytest.raises(ValueError, match="Name a cell"):
        explain.find(kept, [])


def test_what_was_asked_for_and_said_is_shown_of_a_few(kept, capsys):
    told = [{"id": f"q{i}", "score": 0.0, "expected": "7", "answer": "x" * 99} for i in range(7)]
    Store(kept).write(result(), samples=[*told[:1], {"id": "none", "score": 1.0}, *told[1:]])
    assert call("explain", "yarn", "--results", kept) == 0
    said = capsys.readouterr().out
    assert f"q0  expected '7', said '{'x' * 80} ...'" in said
    assert "q4  exp" in said and "q5  exp" not in said and "and 2 more: --json has them" in said
    assert call("explain", "yarn", "--results", kept, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["answers"]) == 8


def test_everything_behind_a_number_is_said(kept, capsys):
    assert call("explain", "yarn", "--results", kept) == 0
    said = capsys.readouterr().out
    for part in ("accuracy = 0.5", "a  1", "weights", "f00", "[1, 0.25]", "made again by"):
        assert part in said
    assert call("explain", "yarn", "--results", kept, "--json") == 0
    about = json.loads(capsys.readouterr().out)
    assert Result.model_validate({k: about[k] for k in Result.model_fields}) == explain.find(
        kept, ["yarn"]
    )
    assert about["command"] in said


def resolved(words):
    """The cell that `harness run` makes of these words, but for what it costs."""
    chosen = options(words)
    [model], [method], [task], [length] = (
        *(chosen.models, chosen.methods, chosen.tasks),
        chosen.lengths,
    )
    card = describe(catalog.split(model)[0])
    named = catalog.join(card.spec, {} if chosen.dtype == "bfloat16" else {"dtype": chosen.dtype})
    spec = catalog.members("tasks", task)
    assert spec == [task]
    return Cell(
        model=named,
        method=settled(method, chosen, card),
        task=_task(task, chosen, stand_in=False),
        length=length,
    )


@pytest.mark.parametrize("task", [*TASKS, "perplexity.whole,corpus=stdlib:tests,reach=8192"])
@pytest.mark.parametrize("method", METHODS)
def test_a_cells_command_means_the_same_cell(method, task):
    wish = {"method": method, "task": task, "lengths": "4k,8k", "dtype": "float32"}
    chosen = options(wish)
    card = describe("toy")
    for length in chosen.lengths:
        cell = Cell(
            model="toy,dtype=float32",
            method=settled(method, chosen, card),
            task=_task(task, chosen, stand_in=False),
            length=length,
        )
        words = again(cell)
        assert words.missing == ()
        assert resolved(words.words) == cell


def test_a_command_survives_the_shell(tmp_path):
    (tmp_path / "my books").mkdir()
    (tmp_path / "my books/a.txt").write_text("some words")
    place = f"text:{tmp_path / 'my books'}"
    chosen = options({"method": "none", "task": "perplexity", "lengths": "4k", "corpus": place})
    cell = Cell(
        model="toy", method="none", task=_task("perplexity", chosen, stand_in=False), length=4096
    )
    lost = again(cell)
    assert "the corpus text:my books@" in lost.missing[0]
    words = again(cell, Places(corpora=(place,)))
    assert words.missing == () and resolved(words.words) == cell
    _, _, *flags = shlex.split(words.command)
    assert dict(zip(flags[::2], flags[1::2], strict=True))["--task"] == words.words["task"]


def test_what_ships_trained_is_called_by_its_name():
    assert {describe(name).spec: name for name in TRAINED} == SHIPPED
    (file, *_) = (Path(__file__).parents[1] / "results/runs").glob("toy+longrope@*/*/*/4096.json")
    result = Store(Path(__file__).parents[1] / "results").read(file)
    made = again(result.cell)
    assert made.words["model"] == "toy-longrope"
    assert all(
        "the corpus stdlib" in what for what in made.missing
    )  # which each Python has its own of


def test_a_model_by_content_is_found_where_one_says_it_is(folder):
    cell = Cell(model=describe(str(folder)).spec, method="none", task=TASKS[0], length=256)
    assert again(cell).missing[0].startswith(f"the model {cell.model}")
    words = again(cell, Places(models=(str(folder),)))
    assert words.missing == () and resolved(words.words) == cell


def test_the_whole_command_line_makes_the_cell_again(kept, capsys, tmp_path):
    stored = result(length=1024)
    words = again(stored.cell)
    _, *argv = shlex.split(words.command)
    assert call(*argv[:-1], tmp_path / "again", "--dry-run", "--json") == 0
    [planned] = json.loads(capsys.readouterr().out)
    assert {key: planned[key] for key in ("model", "method", "task", "length")} == {
        **stored.cell.model_dump()
    }


def test_code_that_came_with_a_model_is_asked_for_where_its_cell_is_made_again(kept):
    plain = result(length=1024)
    trusted = plain.model_copy(update={"provenance": {"remote_code": True}})
    said = [explain.explained(kept, one)["command"] for one in (plain, trusted)]
    assert ["--trust-remote-code" in shlex.split(command) for command in said] == [False, True]
    assert "remote_code" in "\n".join(explain.readable(explain.explained(kept, trusted)))
    assert again(trusted.cell, trusting=True).words == again(plain.cell).words  # what rerun runs


def test_what_differs_is_said_down_to_each_dimension(kept):
    a, b = explain.find(kept, ["yarn"]), explain.find(kept, ["pi", "4k"])
    about = explain.differences(a, b)
    assert about["settings"] == {
        "cell.method": ["yarn,factor=8", "pi,factor=8"],
        "n": [2, 0],
        "provenance.weights": ["f00", None],
    }
    first, second = about["dimensions"]
    assert (first["a"], first["b"], first["ratio"]) == (1.0, 0.5, 2.0)
    assert first["wavelength_b"] == pytest.approx(2 * math.pi / 0.5)
    assert second["ratio"] == 1.0
    assert about["items"] == {"shared": 1, "mean difference": -1.0, "differing": {"a": [1.0, 0.0]}}
    said = "\n".join(explain.readable_differences(about))
    assert "1 of 2 frequencies differ" in said and "yarn,factor=8 -> pi,factor=8" in said


def test_a_cell_differs_in_nothing_from_itself_and_the_other_way_round_alike(kept):
    a, b = explain.find(kept, ["yarn"]), explain.find(kept, ["pi", "4k"])
    same = explain.differences(a, a)
    assert same["settings"] == {} and same["items"]["differing"] == {}
    assert same["value"]["difference"] == 0
    forth, back = explain.differences(a, b), explain.differences(b, a)
    assert {k: v[::-1] for k, v in back["settings"].items()} == forth["settings"]


def test_diff_is_a_verb(kept, capsys):
    assert call("diff", "toy/passkey/yarn/4k", "toy/passkey/pi/4k", "--results", kept) == 0
    assert "A/B" in capsys.readouterr().out


def test_sql_sees_the_results_and_nothing_else(kept, capsys):
    pytest.importorskip("duckdb")
    assert query.ask("select count(*), max(length) from results", kept).rows == [(4, 8192)]
    for sql, why in (
        ("select * from read_csv('/etc/passwd')", "disabled"),
        ("select * from '/etc/passwd'", "does not exist"),
        ("copy results to 'x.csv'", "one select"),
        ("select 1; select 2", "one select"),
        ("set threads = 1", "one select"),
        ("drop table results", "one select"),
        ("install httpfs", "one select"),
        ("select * from kept", "does not exist"),
        ("selekt", "syntax error"),
    ):
        with pytest.raises(ValueError, match=why):
            query.ask(sql, kept)
    assert (
        call("query", "select 1.5 as x, 'nan'::double as y", "--format", "json", "--results", kept)
        == 0
    )
    assert json.loads(capsys.readouterr().out) == [{"x": "1.5", "y": None}]
    assert (
        call("query", "select method from results order by 1", "--format", "csv", "--results", kept)
        == 0
    )
    assert capsys.readouterr().out.splitlines() == ["method", "none", "pi", "pi", "yarn"]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A real cell of the toy, through `harness run`."""
    place = tmp_path_factory.mktemp("results")
    (place / "words.txt").write_text(Path(catalog.__file__).read_text("utf-8"), "utf-8")
    flags = ["-m", "yarn,factor=8", "-l", "256,512", "--results", place, *corpus(place)]
    assert call("run", "-t", "perplexity.whole,samples=1", *flags) == 0
    return place


def corpus(place):
    return "--corpus", f"text:{place / 'words.txt'}"


def checked(folder):
    cells = rerun.chosen(folder, sample=1, seed=0)
    [verdict] = rerun.rerun(cells, Places())
    return verdict


def test_a_cell_that_holds_is_measured_the_same(measured, capsys):
    flags = ["--results", measured, "--sample", "9", "--json", *corpus(measured)]
    assert call("rerun", "--check", *flags) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["holds"] for one in found] == [True, True]
    assert all("to the last bit" in one["why"] for one in found)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda one: {"value": one.value * 1.0001}, "nothing may move it"),
        (lambda one: {"provenance": one.provenance | {"encoding": "f" * 64}}, "encoded otherwise"),
        (lambda one: {"provenance": one.provenance | {"weights": "f"}}, "another weights now"),
        (lambda one: {"provenance": one.provenance | {"task_version": 0}}, "another task version"),
    ],
)
def test_a_cell_that_does_not_hold_fails_and_says_why(measured, tmp_path, capsys, change, why):
    store = Store(tmp_path)
    [one] = [r for r in Store(measured).results() if r.cell.length == 256]
    store.write(one.model_copy(update=change(one)))
    before = store.path(one.cell).read_bytes()
    assert call("rerun", "--check", "--results", tmp_path, *corpus(measured)) == 1
    said = capsys.readouterr().out
    assert said.startswith("FAILS") and why in said
    assert store.path(one.cell).read_bytes() == before


def test_another_kernel_may_move_a_value_a_little(measured):
    [one] = [r for r in Store(measured).results() if r.cell.length == 256]
    little = rerun.TOLERANCE[one.provenance["dtype"]] / 2
    other = one.model_copy(
        update={
            "value": one.value * (1 + little),
            "provenance": one.provenance | {"kernel": "other"},
        }
    )
    verdict = rerun.judged(other, one, one.provenance["encoding"])
    assert verdict.holds and "allowed for another kernel" in verdict.why
    far = other.model_copy(update={"value": one.value * (1 + 10 * little)})
    assert not rerun.judged(far, one, one.provenance["encoding"]).holds
    unsaid = other.model_copy(update={"items": {}, "n": 3})  # no mean: nothing says it is of hits
    assert "trials" not in rerun.tolerance(unsaid, one)[1]
    books = {"metric": "accuracy-official", "value": 0.4, "n": 10, "items": {"a": 0.5, "b": 1 / 3}}
    assert "or one of 10 trials" in rerun.tolerance(other.model_copy(update=books), one)[1]


def test_what_was_read_in_another_way_may_differ_a_little(measured):
    [one] = [r for r in Store(measured).results() if r.cell.length == 256]
    for way, how in {"offload": True, "apart": True, "ranks": 2, "shards": 2}.items():
        other = one.model_copy(update={"provenance": one.provenance | {way: how}})
        assert rerun.tolerance(other, one)[0] > 0
    older = {k: v for k, v in one.provenance.items() if k not in ("offload", "ranks")}
    assert rerun.tolerance(one.model_copy(update={"provenance": older}), one)[0] == 0


def test_nothing_is_taken_from_the_cache_nor_left_in_it(measured, monkeypatch):
    kept = []
    plain = run_module.run
    monkeypatch.setattr(
        run_module, "run", lambda *a, **how: kept.append(how["keep"]) or plain(*a, **how)
    )
    assert call("rerun", "--check", "--results", measured, *corpus(measured)) == 0
    assert {*kept} == {False}


def test_of_trials_one_may_fall_otherwise():
    a = result(n=10, value=0.5, items={str(i): float(i < 5) for i in range(10)})
    b = result(n=10, value=0.6, provenance={"threads": 9})
    assert rerun.judged(a, b, "").holds
    assert not rerun.judged(a, b.model_copy(update={"value": 0.7}), "").holds


def test_a_cell_whose_scorer_is_not_installed_fails_and_the_next_is_measured(
    measured, monkeypatch, capsys
):
    real, asked = rerun._planned, []

    def planned(one, words):
        asked.append(one)
        if len(asked) == 1:
            raise ModuleNotFoundError("Answers are scored by rouge: pip install rouge-score")
        return real(one, words)

    monkeypatch.setattr(rerun, "_planned", planned)
    flags = ["--results", measured, "--sample", "9", *corpus(measured)]
    assert call("rerun", "--check", *flags) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("FAILS") and "pip install rouge-score" in said[0]
    assert said[1].startswith("holds")


def test_what_is_not_on_this_machine_fails_and_says_what(tmp_path):
    task = "perplexity.whole,corpus=text:gone@0123abcd,reach=256"
    Store(tmp_path).write(result(task=task, length=256))
    verdict = checked(tmp_path)
    assert not verdict.holds and "the corpus text:gone@0123abcd" in verdict.why


def test_the_sample_follows_from_the_seed_alone(tmp_path):
    for length in range(16, 48):
        Store(tmp_path).write(result(length=length))
    Store(tmp_path).write(
        Result(cell=result(length=99).cell, status="failed", reason="it is no number")
    )
    first, same, other = (
        [r.stored.cell.length for r in rerun.chosen(tmp_path, sample=5, seed=seed)]
        for seed in (0, 0, 1)
    )
    assert first == same != other and len(set(first)) == 5
    assert len(rerun.chosen(tmp_path, sample=99, seed=0)) == 32
    with pytest.raises(LookupError, match="No scored cell"):
        rerun.chosen(tmp_path, sample=5, seed=0, where="method=pi")


def test_rerun_says_what_it_is_for(capsys):
    assert call("rerun") == 2
    assert "harness rerun --check" in capsys.readouterr().err
