"""LongRoPE's search: what it may propose, what it keeps, and what racing must not change."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise, permutations
from pathlib import Path
from random import Random
from types import SimpleNamespace
from weakref import ref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig

from harness import catalog
from harness.cli import main
from harness.rope import Rope
from harness.search import objective
from harness.search.evolution import Race, Settings, evolve
from harness.search.search import prepare
from harness.search.space import SCHEMES, START_TOKENS, Individual, Space
from harness.search.state import State
from harness.search.wish import Wish

pytestmark = pytest.mark.filterwarnings("default")
SMALL = Settings(population=6, parents=3, mutations=2, crossovers=2, iterations=2)
LOSSES = json.loads((Path(__file__).parent / "golden/search_losses.json").read_text())
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)


class Quiet:
    def stands(self, it): ...

    def generation(self, it): ...


def space_of(scheme, pairs=16, scale=4.0, **more):
    return Space(pairs, scale, beyond=SCHEMES[scheme].beyond, **more)


def starts_in(space):
    pairs, s = space.pairs, space.scale
    flat, rise = [s] * pairs, [s ** (i / (pairs - 1)) for i in range(pairs)]
    return [space.nearest(flat), space.nearest(rise)]


def distance_to(optimum):
    """A loss with one lowest point, and documents that differ in how hard they are."""

    def read(it, document):
        far = sum(abs(a - b) for a, b in zip(it.hundredths, optimum.hundredths, strict=True))
        far += 10 * abs(
            START_TOKENS.index(it.start_tokens) - START_TOKENS.index(optimum.start_tokens)
        )
        return 1.0 + document + far / 1000

    return read


def searched(space, how, read, documents=3, table=None):
    return [*evolve(starts_in(space), space, how, read, documents, {} if table is None else table)]


# What it may propose


@every_scheme
@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    pairs=st.integers(2, 64),
    scale=st.floats(1, 64),
    fixed=st.sampled_from([None, 0, 7]),
)
def test_every_proposal_is_new_rises_and_stays_within_bounds(scheme, seed, pairs, scale, fixed):
    n_hat = START_TOKENS if fixed is None else (fixed,)
    space = space_of(scheme, pairs, scale, start_tokens=n_hat)
    chance = Random(seed)
    proposals = SCHEMES[scheme](space, chance)
    known = dict.fromkeys(starts_in(space))
    for _ in range(15):
        parents = sorted(chance.choices(list(known), k=2))
        for made in _proposed(proposals, parents, known):
            assert made not in known
            assert all(low <= high for low, high in pairwise(made.hundredths))
            assert made.factors[0] >= 1
            assert made.factors[-1] <= SCHEMES[scheme].beyond * scale + 0.005
            assert len(made.factors) == pairs
            assert made.start_tokens in n_hat
            known[made] = None


def _proposed(proposals, parents, known):
    """One after the other, so that the second knows of the first."""
    if (made := proposals.mutant(parents[0], known)) is not None:
        yield made
    if (made := proposals.child(*parents, known)) is not None:
        yield made


def test_a_child_has_every_divisor_from_one_of_its_parents():
    space = space_of("dim-mono")
    proposals = SCHEMES["dim-mono"](space, Random(1))
    better, other = starts_in(space)
    children = [proposals.child(better, other, {other: None}) for _ in range(50)]
    children = [child for child in children if child]
    assert children and better not in children
    for child in children:
        sides = zip(child.hundredths, better.hundredths, other.hundredths, strict=True)
        assert all(gene in (one, two) for gene, one, two in sides)
        assert child.start_tokens in (better.start_tokens, other.start_tokens)


@every_scheme
def test_every_pair_can_change_the_last_ones_too(scheme):
    space = space_of(scheme)
    proposals, parent = SCHEMES[scheme](space, Random(0)), starts_in(space)[1]
    changed = {
        i
        for _ in range(300)
        for i, gene in enumerate(proposals.mutant(parent, {}).hundredths)
        if gene != parent.hundredths[i]
    }
    assert changed >= set(range(1, space.pairs))


def test_three_pieces_are_as_they_are_rising_and_divided_by_s():
    space = space_of("dim-piece-mono")
    proposals = SCHEMES["dim-piece-mono"](space, Random(0))
    parent = space.nearest([1] * 5 + [1.5, 2, 2.5, 3] + [4] * 7)
    assert proposals.borders(parent.hundredths) == (5, 9)
    for _ in range(100):
        made = proposals.mutant(parent, {})
        first, last = proposals.borders(made.hundredths)
        assert made.hundredths[:first] == (100,) * first
        assert made.hundredths[last:] == (400,) * (16 - last)


def test_the_grid_is_whole_hundredths_so_that_equal_is_equal():
    space = space_of("dim-mono", 3)
    assert space.nearest([1.006, 2.0049, 1.5]).factors == [1.01, 2.0, 2.0]
    assert space.nearest([0.2, 4.999, 700]).factors == [1.0, 5.0, 5.0]
    assert space.nearest([1, 2, 3], 5).start_tokens == 0


def test_a_space_of_one_point_ends_the_search_and_does_not_hang():
    space = Space(2, 1.0, (0,), beyond=1.0)
    (last,) = evolve([space.nearest([1, 1])], space, replace(SMALL, iterations=0),
                     lambda it, n: 1.0, 1, {})  # fmt: skip
    assert last.evaluations == 1


# What it keeps


@every_scheme
def test_the_same_seed_makes_the_same_search_and_another_another(scheme):
    space, how = space_of(scheme), replace(SMALL, scheme=scheme)
    read = distance_to(space.nearest([1 + i / 8 for i in range(16)], 16))
    assert searched(space, how, read) == searched(space, how, read)
    assert searched(space, how, read) != searched(space, replace(how, seed=7), read)


def test_parents_never_get_worse_and_are_never_read_again():
    space = space_of("dim-mono")
    read, seen = distance_to(space.nearest([1 + i / 8 for i in range(16)], 16)), []

    def counted(it, document):
        seen.append((it, document))
        return read(it, document)

    found = searched(space, replace(SMALL, iterations=10), counted)
    assert len(seen) == len(set(seen))
    assert all(later.best <= before.best for before, later in pairwise(found))
    assert all(later.worst <= before.worst for before, later in pairwise(found))
    assert all(len(set(it.parents)) == 3 for it in found)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_it_nears_a_known_optimum(scheme):
    space = space_of(scheme, pairs=8)
    optimum = space.nearest([1, 1, 1.2, 1.7, 2.5, 3.5, 4, 4], 4)
    how = Settings(population=32, parents=8, iterations=30, scheme=scheme)
    found = searched(space, how, distance_to(optimum), documents=1)
    begin = min(distance_to(optimum)(it, 0) for it in starts_in(space)) - 1
    assert found[-1].best - 1 < 0.15 * begin


def test_the_published_numbers_make_1344_evaluations():
    assert Settings().evaluations == 64 + 40 * 32 == 1344


@pytest.mark.parametrize("cut", [0, 1, 5, 11, 20, 29])
def test_cut_short_anywhere_and_begun_again_it_is_the_search_that_was_not(cut, tmp_path):
    space = space_of("dim-mono")
    read = distance_to(space.nearest([1 + i / 8 for i in range(16)], 16))
    reads = []

    def counted(it, document):
        if len(reads) == cut:
            reads.append(None)
            raise KeyboardInterrupt
        reads.append((it, document))
        return read(it, document)

    state = State(tmp_path / "state.json", {})
    with pytest.raises(KeyboardInterrupt):
        [*evolve(starts_in(space), space, SMALL, counted, 3, state.table, state.write)]
    again = State.opened(tmp_path / "state.json", {})
    table = {}
    whole = searched(space, SMALL, read, table=table)
    assert searched(space, SMALL, counted, table=again.table) == whole
    assert again.table == table
    reads.remove(None)
    assert len(reads) == len(set(reads)) == sum(map(len, table.values()))


def test_a_loss_that_is_not_finite_is_kept_and_loses(tmp_path):
    state = State(tmp_path / "s.json", {"seed": 1})
    state.table[Individual((100, 110), 4)] = [1 / 3, float("inf")]
    state.write()
    assert State.opened(state.place, {"seed": 1}).table == state.table
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{"])
def test_a_file_that_holds_no_search_is_named(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ValueError, match=r"s\.json does not hold a search"):
        State.opened(tmp_path / "s.json", {})


# What racing must not change


def raced(losses, order, population, keep, racing):
    """The parents of every generation, and the race, over losses that were read before."""
    individuals = [Individual((100 + i,), 0) for i in range(len(losses))]
    how = Settings(population=population, parents=keep, racing=racing)
    race = Race(lambda it, n: losses[it.hundredths[0] - 100][order[n]], len(losses[0]), {}, how)
    found, parents = [], []
    cuts = [0, *range(population, len(losses) + 1, 16)]
    for begin, end in pairwise(cuts):
        parents = race.parents(parents, individuals[begin:end])
        found.append(parents)
    return found, race


@pytest.mark.parametrize(("population", "keep"), [(48, 24), (48, 12), (16, 8), (16, 4)])
@pytest.mark.parametrize("length", ["8k", "16k"])
def test_on_real_losses_racing_keeps_the_parents_of_the_full_search(length, population, keep):
    losses = LOSSES[length]
    saved = 0
    for order in list(permutations(range(len(losses[0]))))[::5]:
        whole, full = raced(losses, order, population, keep, racing=False)
        short, race = raced(losses, order, population, keep, racing=True)
        assert short == whole
        for it in short[-1]:
            assert race.table[it] == full.table[it]
        assert race.saved == sum(map(len, full.table.values())) - sum(map(len, race.table.values()))
        saved += race.saved
    assert saved > 0


def test_without_racing_everything_is_read():
    table = {}
    space = space_of("dim-mono")
    read = distance_to(starts_in(space)[0])
    *_, last = searched(space, replace(SMALL, racing=False), read, table=table)
    assert last.saved == 0
    assert {len(row) for row in table.values()} == {3}


def test_racing_finds_what_reading_everything_finds():
    space = space_of("dim-mono")
    read = distance_to(space.nearest([1 + i / 8 for i in range(16)], 16))
    *_, raced = searched(space, replace(SMALL, iterations=8), read)
    *_, whole = searched(space, replace(SMALL, iterations=8, racing=False), read)
    assert raced.parents == whole.parents and raced.best == whole.best
    assert raced.saved > 0 == whole.saved


# The search of a model


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """Three short documents of real text, one token a byte."""
    text = Path(pytest.__file__).with_name("__init__.py").read_text()
    text = (Path(json.__file__).read_text() + text) * 2
    place = tmp_path_factory.mktemp("corpus") / "short.jsonl"
    rows = [json.dumps({"text": text[i * 2500 : i * 2500 + 2500]}) for i in range(3)]
    place.write_text("\n".join(rows))
    return f"jsonl:{place}"


@pytest.fixture
def wish(folder, corpus, tmp_path):
    return Wish(
        target=1024, model=str(folder), corpus=corpus, samples=2, settings=SMALL,
        output=tmp_path / "f.json", device="cpu", dtype="float32",
    )  # fmt: skip


def command(*words):
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return left.value.code or 0


@pytest.fixture
def flags(folder, corpus):
    return lambda *more, target=1024: [
        "search", "--model", folder, "--target", target, "--corpus", corpus, "--samples", 2,
        "--population", 6, "--parents", 3, "--mutations", 2, "--crossovers", 2,
        "--iterations", 2, "--device", "cpu", "--dtype", "float32", *more,
    ]  # fmt: skip


def test_it_starts_where_the_method_says(wish):
    plain, official = (
        prepare(replace(wish, method=method)).starts
        for method in ("longrope", "longrope,start=official")
    )
    assert plain[:2] == official[:2] and plain[2] != official[2]


def test_first_tokens_are_not_the_methods_to_say(wish):
    with pytest.raises(ValueError, match="--start-tokens"):
        prepare(replace(wish, method="longrope,start_tokens=16"))


def test_it_starts_from_pi_ntk_and_yarn_as_they_are(wish):
    search = prepare(wish)
    assert [it.factors for it in search.starts] == [
        search.space.nearest((search.rope.frequencies / other).tolist()).factors
        for other in (
            catalog.load("methods", f"{name},factor=2").frequencies(search.rope, 2.0)
            for name in ("pi", "ntk", "yarn")
        )
    ]


def test_the_start_is_yarn_and_not_the_published_codes_blend_of_divisors():
    rope = Rope(theta=1e4, dim=128, original_length=4096)
    divisor = float((rope.frequencies / rope.by_parts(16))[33])
    assert Space(64, 16.0).nearest([divisor]).factors == [1.88]


def test_known_factors_join_the_start_stretched_to_the_target(wish, tmp_path):
    known = {"factors": [1, 1, 1.2, 1.5, 2, 2, 2, 2], "factor": 2, "start_tokens": 8}
    file = tmp_path / "known.json"
    file.write_text(json.dumps(known))
    longer = prepare(replace(wish, method=f"longrope,factors={file}", target=2048))
    assert len(longer.starts) == 6
    assert longer.starts[0].factors == [2 * f for f in known["factors"]]
    assert longer.starts[0].start_tokens == 8 and longer.starts[3].start_tokens == 0


def test_what_it_writes_is_what_a_run_measures(flags, folder, corpus, tmp_path, capsys):
    file = tmp_path / "factors.json"
    assert command(*flags("--output", file)) == 0
    said = capsys.readouterr()
    assert "the best of 14 individuals" in said.out and "generation 2/2" in said.err
    found = json.loads(file.read_text())
    assert found["factor"] == 2 and found["target"] == 1024 and found["seed"] == 42
    assert found["corpus"].startswith("jsonl:short.jsonl:text@") and found["evaluations"] == 14
    code = command(
        "run", "--model", folder, "--method", f"longrope,factors={file}", "--task", "perplexity",
        "--lengths", 1024, "--corpus", corpus, "--samples", 2, "--device", "cpu",
        "--dtype", "float32", "--results", tmp_path / "results", "--json",
    )  # fmt: skip
    (row,) = json.loads(capsys.readouterr().out)
    assert code == 0 and row["notice"] is None
    assert row["value"] == pytest.approx(found["perplexity"], rel=1e-6)


def test_given_again_the_command_ends_alike_and_reads_nothing(wish, monkeypatch):
    first = prepare(wish).run(Quiet())
    kept = json.loads(wish.output.with_suffix(".search.json").read_text())
    assert [line["generation"] for line in kept["history"]] == [0, 1, 2]
    assert len(kept["individuals"]) == first["evaluations"]
    again = prepare(wish)
    assert again.run(Quiet()) == first and again.objective.read == 0
    assert again.forecast().done == first["documents_read"]


@pytest.mark.slow
def test_more_iterations_go_on_from_there(wish, tmp_path):
    prepare(wish).run(Quiet())
    more = replace(wish, settings=replace(SMALL, iterations=3))
    longer = prepare(more)
    found = longer.run(Quiet())
    fresh = prepare(replace(more, output=tmp_path / "fresh.json")).run(Quiet())
    assert found == fresh and longer.objective.read < found["documents_read"]


def test_interrupted_it_says_so_and_the_same_command_goes_on(flags, tmp_path, monkeypatch, capsys):
    from harness.search.objective import Objective

    whole, cut = tmp_path / "whole.json", tmp_path / "cut.json"
    assert command(*flags("--output", whole)) == 0
    plain = Objective.loss

    def interrupted(self, it, document):
        if self.read == 7:
            raise KeyboardInterrupt
        return plain(self, it, document)

    monkeypatch.setattr(Objective, "loss", interrupted)
    assert command(*flags("--output", cut)) == 130
    assert "The same command goes on" in capsys.readouterr().err
    monkeypatch.undo()
    assert command(*flags("--output", cut)) == 0
    assert cut.read_text() == whole.read_text()


def test_a_plan_counts_and_writes_nothing(flags, tmp_path, capsys):
    assert command(*flags("--output", tmp_path / "f.json", "--plan")) == 0
    assert "14 individuals, at most 28 documents, 28,644 tokens" in capsys.readouterr().out
    assert not [*tmp_path.iterdir()]


# Shorter inputs


@pytest.fixture
def switched(flags, tmp_path):
    file = tmp_path / "factors.json"
    assert command(*flags("--output", file, target=2048)) == 0
    assert command(*flags("--append", file)) == 0
    return file


@pytest.mark.slow
def test_a_part_for_short_inputs_is_appended_and_chosen_by_the_cells_length(
    switched, folder, corpus, tmp_path, capsys
):
    held = json.loads(switched.read_text())
    (part,) = held["short"]
    assert part["up_to"] == part["target"] == 1024 and part["factor"] == 2
    assert part["factors"][-1] <= 2.5
    method = catalog.load("methods", f"longrope,factors={switched}")
    assert method.depends_on_length
    rope = Rope(theta=1e4, dim=16, original_length=512)
    for length, factors in ((600, part), (1024, part), (1025, held), (2048, held)):
        assert method.resolved(rope, length)["factors"] == factors["factors"]
        assert method.scale(rope, length) == held["factor"] == 4
        assert method.remark(rope, length) is None
    assert "2,048 tokens, and reads 4,096" in method.remark(rope, 4096)
    command(
        "run", "--model", folder, "--method", f"longrope,factors={switched}", "--task",
        "perplexity.whole,reach=2048", "--lengths", "1024,2048", "--corpus", corpus,
        "--samples", 2, "--device", "cpu", "--dtype", "float32", "--results", tmp_path / "r",
        "--json",
    )  # fmt: skip
    said = capsys.readouterr().out
    short, long = json.loads(said[said.index("[\n") :])
    assert long["value"] == pytest.approx(held["perplexity"], rel=1e-6)
    assert (short["length"], short["factor"], long["factor"]) == (1024, 4, 4)


@pytest.mark.slow
def test_appended_again_a_part_takes_the_place_of_the_one_before(switched, flags):
    kept = switched.with_name("factors.short-1k.search.json")
    kept.unlink()
    assert command(*flags("--append", switched, "--seed", 7)) == 0
    (part,) = json.loads(switched.read_text())["short"]
    assert part["seed"] == 7
    assert command(*flags("--output", switched, target=2048)) == 0  # the first search, given again
    assert json.loads(switched.read_text())["short"] == [part]


def test_a_file_without_parts_encodes_every_length_alike(tmp_path):
    file = tmp_path / "f.json"
    file.write_text(json.dumps({"factors": [2.0] * 8, "factor": 4}))
    assert not catalog.load("methods", f"longrope,factors={file}").depends_on_length
    plain = SimpleNamespace(config=LlamaConfig(max_position_embeddings=512))
    own = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "factor": 2.0}
    rope = own | {"rope_type": "longrope", "rope_theta": 1e4}
    scaled = SimpleNamespace(config=LlamaConfig(max_position_embeddings=512, rope_parameters=rope))
    method = catalog.load("methods", "longrope")
    assert not method.depends_on_length and not method.follows(plain) and method.follows(scaled)
    assert catalog.load("methods", "longrope+log-n").follows(scaled)


@pytest.mark.parametrize("part", [7, {"factors": [2.0]}, {"up_to": "far", "factors": [2.0]}])
def test_a_part_that_is_none_is_refused(part, tmp_path):
    file = tmp_path / "f.json"
    file.write_text(json.dumps({"factors": [2.0], "short": [part]}))
    with pytest.raises(ValueError, match="holds no factors"):
        catalog.load("methods", f"longrope,factors={file}")


# What a person can do wrong


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--target", "256"], "was trained on 512 tokens.*take a longer --target"),
        (["--target", "1k-4k"], "--target takes one length"),
        (["--method", "pi"], "pi has no divisor for each pair to search"),
        (["--model", "gpt2x"], "No model named"),
        (["--target", "512k"], "are needed; its longest has 2,500"),
        (["--output", "nowhere/f.json"], "There is no folder .*nowhere: make it"),
        (["--output", "."], "is a folder"),
        (["--parents", "9"], "9 parents cannot be chosen from a population of 6"),
        (["--population", "0"], "--population is 1 or more"),
        (["--samples", "0"], "--samples is 1 or more"),
        (["--scheme", "dim"], "--scheme is one of dim-mono, dim-piece-mono"),
        (["--start-tokens", "some"], "--start-tokens is search, or a number"),
        (["--append", "none.json"], "No factors can be read from"),
    ],
)
def test_a_slip_is_said_in_a_sentence(flags, changes, said, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert command(*flags(*changes)) == 2
    error = capsys.readouterr().err
    assert error.startswith("harness: ") and error.count("\n") == 1
    assert re.search(said, error), error
    assert not [*tmp_path.iterdir()]


def test_a_model_without_rope_is_refused(folder, tmp_path, capsys):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("bloom", hidden_size=32, n_head=2, n_layer=1, vocab_size=258)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "m")
    for file in folder.glob("tokenizer*"):
        shutil.copy(file, tmp_path / "m")
    assert command("search", "--model", tmp_path / "m", "--target", "8k") == 2
    assert "rotary" in capsys.readouterr().err


@pytest.mark.slow
def test_the_state_of_another_search_is_left_alone(wish, flags, capsys):
    prepare(wish).run(Quiet())
    kept = wish.output.with_suffix(".search.json")
    before = kept.read_text()
    for name, other in (
        ("--seed", 7), ("--samples", 3), ("--target", 1500), ("--corpus", "stdlib:train"),
        ("--start-tokens", 4), ("--scheme", "dim-piece-mono"), ("--dtype", "bfloat16"),
    ):  # fmt: skip
        assert command(*flags("--output", wish.output, name, other)) == 2
        said = capsys.readouterr().err
        assert "f.search.json is of a search with" in said and "give another --output" in said
    assert kept.read_text() == before
    kept.write_text("{")
    assert command(*flags("--output", wish.output)) == 2
    assert "does not hold a search" in capsys.readouterr().err


def test_a_file_that_is_there_already_is_not_written_over(flags, tmp_path, capsys):
    (tmp_path / "mine.json").write_text("[1]")
    assert command(*flags("--output", tmp_path / "mine.json")) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that takes no files")
def test_a_folder_that_takes_no_files_is_said_before_anything_is_read(flags, capsys):
    assert command(*flags("--output", "/proc/f.json")) == 2
    assert "/proc takes no files" in capsys.readouterr().err


def test_a_part_must_be_shorter_than_what_it_is_appended_to(flags, tmp_path, capsys):
    file = tmp_path / "f.json"
    file.write_text(json.dumps({"factors": [2.0] * 8, "factor": 2}))
    assert command(*flags("--append", file)) == 2
    assert "holds factors for 1,024 tokens" in capsys.readouterr().err
    file.write_text(json.dumps([2.0] * 8))
    assert command(*flags("--append", file)) == 2
    assert "does not say how far" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_it_loses_nothing_that_was_read(flags, tmp_path):
    whole, cut = tmp_path / "whole.json", tmp_path / "cut.json"
    assert command(*flags("--output", whole)) == 0
    words = [sys.executable, "-P", "-m", "harness", *map(str, flags("--output", cut))]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    kept, read = cut.with_suffix(".search.json"), 0
    while process.poll() is None and read < 5:
        time.sleep(0.01)
        if kept.exists():
            rows = [row["losses"] for row in json.loads(kept.read_text())["individuals"]]
            read = sum(map(len, rows))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert read >= 5 and not cut.exists()
    assert command(*flags("--output", cut)) == 0
    assert cut.read_text() == whole.read_text()


@pytest.mark.slow
def test_the_toy_is_searched_for_a_quarter_more_than_its_length(tmp_path):
    found = {}
    for racing in (True, False):
        how = replace(SMALL, racing=racing)
        wish = Wish(target=5120, samples=2, settings=how, output=tmp_path / f"{racing}.json",
                    device="cpu")  # fmt: skip
        search = prepare(wish)
        found[racing] = search.run(Quiet())
        first = search.state.table[search.starts[2]]
        assert found[racing]["perplexity"] < 2.72 ** (sum(first) / 2)
    assert found[True]["factors"] == found[False]["factors"]
    assert found[True]["perplexity"] == found[False]["perplexity"]
    assert found[True]["documents_saved"] > 0


# All stages of LongRoPE


@pytest.fixture
def staged(wish, tmp_path):
    """The stages of a model, and what was asked of each; `train` only copies the model."""
    from harness.train.progressive import extend
    from harness.trained import FILE, Trained

    asked = []

    def train(model, method, length, into):
        if (into / FILE).exists():  # as harness train says then
            return
        asked.append((Path(model).name, method, length))
        if len(asked) == 1:
            raise KeyboardInterrupt
        shutil.copytree(model, into)
        numbers = {"numbers": {}, "recipe": "none", "corpus": "", "made_with": {}}
        told = Trained(
            method=method, base="tiny", base_weights="", original_length=512, steps=1,
            sequence_length=length, tokens=length, seed=0, **numbers,
        )  # fmt: skip
        (into / FILE).write_text(told.model_dump_json())

    def stages(**how):
        how = {"through": [1024], "short": [600]} | how
        wanted = replace(wish, target=how.pop("target", 2048), output=None)
        return extend(
            wanted, tmp_path / "all", train=train,
            watching=lambda: nullcontext(Quiet()), **how,
        )  # fmt: skip

    return stages, asked


@pytest.mark.slow
def test_stages_follow_one_another_and_none_is_made_twice(staged, folder, tmp_path, monkeypatch):
    stages, asked = staged
    read, real = [], objective.load

    def load(*words, **more):
        live = real(*words, **more)
        read.append(ref(live.model))
        return live

    monkeypatch.setattr(objective, "load", load)
    with pytest.raises(KeyboardInterrupt):  # of the training, which has all the room
        stages()
    assert [it() for it in read] == [None]
    place = tmp_path / "all"
    middle = (place / "1k.json").read_text()
    model, factors = stages()
    assert (place / "1k.json").read_text() == middle
    spec = f"longrope,factor=2,factors={place / '1k.json'}"
    assert asked == [(folder.name, spec, 1024)] * 2
    assert model == str(place / "trained-1k") and factors == place / "factors.json"
    held = json.loads(factors.read_text())
    assert held["factor"] == 4 and held["model"].startswith("tiny+trained-1k@")
    assert [part["up_to"] for part in held["short"]] == [600]
    before = factors.read_text()
    assert stages() == (model, factors)
    assert len(asked) == 2 and factors.read_text() == before
    with pytest.raises(ValueError, match="with target 2048, not 1536"):
        stages(target=1536)
    assert factors.read_text() == before


@pytest.mark.parametrize("through", [[], [2048], [1024, 600]])
def test_stages_that_do_not_rise_are_refused(staged, through):
    with pytest.raises(ValueError, match="rise, and end below the target of 2,048"):
        staged[0](through=through)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("--progressive 600", "takes an --output folder"),
        ("--short 600", "--short belongs to --progressive"),
        ("--progressive 600 --output x --plan", "no --plan"),
        ("--progressive 2k --output x", "below the target of 1,024: 2048 do not"),
        ("--progressive 600 --output nowhere/x", "There is no folder nowhere"),
        ("--progressive 600 --output a,b", "Commas are not allowed"),
        ("--progressive 600 --output x --short 300", "a search for 300 would not extend it"),
        ("--train yarn", "--train belongs to --progressive"),
        ("--output a,b.json", "Commas are not allowed"),
    ],
)
def test_stages_that_cannot_be_are_said(flags, more, why, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert command(*flags(*more.split())) == 2
    said = capsys.readouterr().err
    assert said.startswith("harness: ") and why in said
    assert not [*tmp_path.iterdir()]


def test_trainings_are_made_as_was_wished(wish, monkeypatch, tmp_path):
    from harness.train.progressive import by_command

    told = []
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: told.append(command) or done)
    for more in (["--corpus", "c"], ["--recipe", "quick"], ["--recipe=quick"]):
        by_command(replace(wish, dtype="float32"), more)("m", "longrope", 1024, tmp_path)
    words = [" ".join(command) for command in told]
    assert all("--dtype float32" in line for line in words)
    assert ["--recipe paper" in line for line in words] == [True, False, False]


def test_each_stage_is_trained_as_was_published_for_its_length(wish, monkeypatch, tmp_path):
    """LongRoPE's: 400 updates at 128k, then 600 at 256k, of 32 sequences each."""
    from harness.train.progressive import by_command

    told = []
    done = subprocess.CompletedProcess([], 0)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: told.append(command) or done)

    def asked(length, *more):
        by_command(wish, more)("m", "longrope,factor=2", length, tmp_path)
        words = iter(told[-1])
        return {word: next(words) for word in words if word in ("--recipe", "--batch-tokens")}

    for length, name in ((2**17, "paper"), (2**18, "256k"), (2**14, "paper")):
        recipe = {"--recipe": name, "--batch-tokens": str(32 * length)}
        assert asked(length) == recipe
        recipes = catalog.load("methods", "longrope").recipes
        assert recipes["paper"].steps == 400 and recipes["256k"].steps == 600
    assert asked(2**18, "--batch-tokens", "64k") == {"--recipe": "256k", "--batch-tokens": "64k"}
    assert asked(2**18, "--recipe", "quick") == {"--recipe": "quick"}


def test_a_model_that_learned_another_encoding_is_not_searched(wish, folder, tmp_path):
    from harness import trained

    place = shutil.copytree(folder, tmp_path / "mine")
    told = {"recipe": "quick", "numbers": {}, "base": "tiny", "base_weights": "", "corpus": ""}
    told |= {"original_length": 512, "sequence_length": 1024, "steps": 1, "tokens": 1, "seed": 0}
    trained.write(place, trained.Trained(method="yarn,factor=2", **told))
    with pytest.raises(ValueError, match="was trained with yarn,factor=2, and longrope would read"):
        prepare(replace(wish, model=str(place)))
    trained.write(place, trained.Trained(method="longrope,factor=2", **told))
    prepare(replace(wish, model=str(place)))


def test_the_losses_of_other_weights_are_not_gone_on_with(wish):
    """Of a model on the hub, whose weights are known once they are read."""
    search = prepare(wish)
    search.identity["weights"] = None
    search.state.of_weights("a" * 64)
    search.state.write()
    again = State.opened(search.state.place, search.identity | {"weights": None})
    again.of_weights("a" * 64)
    with pytest.raises(ValueError, match=f"of a search with weights {'a' * 64}, not {'b' * 64}"):
        again.of_weights("b" * 64)


def test_what_is_searched_with_another_attention_factor_is_run_with_it(tmp_path, capsys):
    from harness.cli.search import _tell_how_to_run

    (tmp_path / "f.json").write_text(json.dumps({"factor": 4, "target": 8192}))
    _tell_how_to_run("m", "longrope,attention=yarn", tmp_path / "f.json")
    spec = f"longrope,attention=yarn,factor=4,factors={tmp_path}/f.json"
    command = f"harness run --model m --method {spec} -t passkey,perplexity -l 2k,8k"
    assert capsys.readouterr().out.strip() == command


@pytest.mark.slow
def test_a_model_is_extended_through_a_training_by_the_command(flags, corpus, tmp_path, capfd):
    place = tmp_path / "all"
    words = flags(
        "--progressive", 1024, "--short", 600, "--output", place, "--train",
        f"--recipe quick --steps 2 --batch-tokens 1024 --corpus {corpus} --device cpu",
        target=2048,
    )  # fmt: skip
    assert command(*words) == 0
    said = capfd.readouterr()
    run = f"harness run --model {place}/trained-1k --method longrope,factor=4,factors={place}/"
    assert f"{run}factors.json -t passkey,perplexity -l 512,2k" in said.out
    run = said.out[said.out.rindex("harness run") :].split()[1:]
    code = command(
        *run[:5], "-t", "perplexity.whole,reach=2048", "-l", "600,2048", "--corpus", corpus,
        "--samples", 2, "--device", "cpu", "--dtype", "float32", "--results", tmp_path / "r",
        "--json",
    )  # fmt: skip
    said = capfd.readouterr().out
    short, long = json.loads(said[said.index("[\n") :])
    held = json.loads((place / "factors.json").read_text())
    assert code == 0 and short["status"] == "scored"
    assert long["value"] == pytest.approx(held["perplexity"], rel=1e-6)


@pytest.mark.slow
def test_the_benchmark_finds_the_same_parents_on_all_sides(folder, tmp_path):
    kept = tmp_path / "figures.json"
    words = "--lengths 1k --candidates 5 --parents 2 --documents 2"
    command = [sys.executable, "benchmarks/longrope_search.py", "--model", str(folder)]
    command += [*words.split(), "--json", str(kept)]
    root = Path(__file__).parents[1]
    subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL)
    rows = {row["what"]: row for row in json.loads(kept.read_text())["rows"]}
    assert rows["parents of everything read"]["reached"]
    assert rows["parents of the loop"]["reached"]
    assert rows["largest difference of a perplexity from the loop"]["reached"]
