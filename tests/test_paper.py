import json
import re
import shutil
import subprocess
from itertools import combinations, product
from math import exp, pi

import numpy as np
import pytest

from harness import catalog
from harness.cell import Cell, Result
from harness.cli import main
from harness.report.bibliography import TITLES, source
from harness.report.figures import (
    bars,
    cost,
    depth,
    frequencies,
    front,
    length,
    position,
    saved,
    search,
    style,
    training,
)
from harness.report.paper import Inputs, _benchmarks, paper
from harness.report.tex import escaped
from harness.store import Store

WINDOWS = {"toy": 4096}


def result(method="none", at=4096, task="perplexity.whole", value=9.0, **more):
    said = {"metric": "perplexity", "low": value * 0.9, "high": value * 1.1, "n": 3, **more}
    cell = Cell(model="toy", method=method, task=task, length=at)
    return Result(cell=cell, status="scored", value=value, **said)


def passkey(method="none", at=4096, found=0.5):
    parts = {f"depth {d:.2f}": found for d in (0.0, 0.5, 1.0)}
    more = {"metric": "accuracy", "low": None, "high": None, "n": 6, "parts": parts}
    return result(method, at, "passkey.standard", found, **more)


LENGTHS = (4096, 8192, 16384)
METHODS = ("none", "pi,factor=4", "yarn,factor=4")
CURVES = [result(m, n, value=8 + i) for i, m in enumerate(METHODS) for n in LENGTHS]
FAR = [result("pi,factor=8", n, value=200.0) for n in LENGTHS]
MAPS = [passkey(m, n, 1 / (1 + i)) for i, m in enumerate(METHODS) for n in LENGTHS]
LOSSES = {"document-0": np.ones(16383, np.float32)}


def rotating(method, slower, at=16384):
    turns = [10000 ** (-i / 8) / slower for i in range(8)]
    return result(method, at, provenance={"method": {"frequencies": turns}, "device": "a CPU"})


# Looks


CONE = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
"""Machado et al. 2009, table 1, severity 1: how the colour-blind see linear RGB."""
OKLAB = (
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]],
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]],
)  # fmt: skip
"""Ottosson 2020, https://bottosson.github.io/posts/oklab/."""


def seen(colour, eye):
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    cones = OKLAB[0] @ np.clip(np.array(CONE[eye]) @ linear, 0, 1)
    return 100 * (np.array(OKLAB[1]) @ np.cbrt(cones))


def apart(one, other):
    return min(np.linalg.norm(seen(one, eye) - seen(other, eye)) for eye in CONE)


def test_the_colour_blind_tell_the_added_colours_apart_as_well_as_okabe_and_itos():
    own = [*style.COLOURS[:6], style.GREY]
    least = min(apart(a, b) for a, b in combinations(own, 2))
    every = [*style.COLOURS, style.GREY]
    assert least > 7 and min(apart(a, b) for a, b in combinations(every, 2)) >= least


def test_no_two_methods_look_alike_nor_do_two_of_one_colour_share_mark_or_line():
    names = [*style.ORDER, *(f"new-{i}" for i in range(9))]
    every = {name: style.look(name, strangers=names) for name in names}
    assert len(names) > 25
    for a, b in combinations(every.values(), 2):
        assert a != b
        if a.colour == b.colour:
            assert a.marker != b.marker and a.line != b.line
    grey = style.look("none")
    assert grey.colour == style.GREY and all(look.colour != style.GREY for look in every.values())


def test_a_new_method_changes_how_no_other_looks(monkeypatch):
    before = {name: style.look(name) for name in style.ORDER}
    names = [*catalog.names("methods"), "aardvark"]
    monkeypatch.setattr(style.catalog, "names", lambda kind: sorted(names))
    style._places.cache_clear()
    try:
        assert {name: style.look(name) for name in style.ORDER} == before
        assert style.look("aardvark") not in before.values()
    finally:
        style._places.cache_clear()


def test_rows_of_one_method_share_colour_and_mark_and_yet_differ():
    cells = [result(f"yarn,factor={f}").cell for f in (16, 2, 4, 8)]
    rows = style.looks([*cells, result().cell])
    assert [*rows] == ["none", *(f"yarn ×{f}" for f in (2, 4, 8, 16))]  # noqa: RUF001
    mine = [*rows.values()][1:]
    assert len({*mine}) == 4 and len({(look.colour, look.marker) for look in mine}) == 1


# Every figure


ROTATING = [rotating(m, s) for m, s in zip(METHODS, (1, 4, 2), strict=True)]
SETS = [result("none", 8192, f"longbench.{d}", 0.4) for d in ("qasper", "trec", "lcc")]
PASSES = [result("none", n, seconds=2.0, peak_memory=10**9, tokens=n) for n in LENGTHS]
PHRASE = "yarn,factor=4: {:,} tokens of a corpus, 10 updates, sequences of 8,192"
TRAINED = [
    result("yarn,factor=4", 16384, value=9 - i).model_copy(
        update={
            "cell": Cell(model=f"toy+{name}@0123abcd", method="yarn,factor=4",
                         task="perplexity.whole", length=16384),
            "trained": PHRASE.format(tokens),
        }
    )
    for i, (name, tokens) in enumerate({"brief": 400_000, "long": 60_000_000}.items(), 1)
]  # fmt: skip
HISTORY = {"search": {"model": "toy"}, "history": [(64, 3.0, 3.1), (96, 2.9, 3.0)]}
FIGURES = {
    "length": lambda: length.draw(CURVES, WINDOWS, width=style.SINGLE, titles=False),
    "length cut": lambda: length.draw([*CURVES, *FAR], WINDOWS, width=style.SINGLE),
    "depth": lambda: depth.draw(MAPS),
    "position": lambda: position.draw([(r, LOSSES) for r in CURVES[2::3]], WINDOWS),
    "frequencies": lambda: frequencies.draw(ROTATING, 4096),
    "bars": lambda: bars.draw(SETS),
    "cost": lambda: cost.draw(cost.passes(PASSES)),
    "front": lambda: front.draw([r for r in CURVES + TRAINED if r.cell.length == 16384]),
    "training": lambda: training.draw({"mine": [(1000 * i, 3.0) for i in range(1, 5)]}),
    "search": lambda: search.draw({"toy": HISTORY}),
}
each_figure = pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)


@each_figure
def test_a_figure_is_as_wide_as_a_column_and_no_text_of_it_is_too_small_cut_or_over_another(draw):
    figure = draw()
    assert figure.get_figwidth() in (style.SINGLE, style.DOUBLE)
    style.styled(figure.draw_without_rendering)()
    texts = [t for t in written(figure) if t.get_visible() and t.get_text().strip()]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts]
    assert boxes and all(t.get_fontsize() >= style.SMALL for t in texts)
    width, height = figure.bbox.size
    for text, box in boxes:
        assert box.x0 >= -1 and box.x1 <= width + 1, text
        assert box.y0 >= -1 and box.y1 <= height + 1, text
    for (one, a), (other, b) in combinations(boxes, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        down = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across < 1 or down < 1, (one, other)


def written(figure):
    """Every text that is drawn; of ticks only those within their axis."""
    yield from figure.texts
    yield from (text for one in figure.legends for text in one.get_texts())
    for axes in figure.axes:
        yield from (axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts)
        for axis in (axes.xaxis, axes.yaxis):
            yield from (t.label1 for t in axis._update_ticks() if t.label1.get_visible())
            yield from (t.label2 for t in axis._update_ticks() if t.label2.get_visible())


@pytest.mark.parametrize(
    ("low", "high", "least", "told"),
    [
        (6, 120, 0.2, [10, 20, 50, 100]),
        (180, 220, 0.02, [180, 190, 200, 210, 220]),
        (1, 1e7, 0.9, [10.0**i for i in range(8)]),
        (2, 1e7, 1.2, [1e2, 1e4, 1e6]),
        (1.1, 1.4, 0.2, [1.2]),
    ],
)
def test_an_axis_has_as_many_round_numbers_as_keep_apart(low, high, least, told):
    assert style.round_numbers(low, high, least) == pytest.approx(told)


@each_figure
def test_no_axes_are_empty(draw):
    for axes in draw().axes:
        assert axes.lines or axes.images or axes.patches or axes.collections
        assert axes.images or [t for t in axes.get_yticklabels() if t.get_text()]


# What is drawn


def test_the_trained_window_is_marked_where_it_lies():
    (axes,) = length.draw(CURVES, WINDOWS).axes
    at = {tuple(line.get_xdata()) for line in axes.lines}
    assert (4096, 4096) in at and "trained to 4k" in [t.get_text() for t in axes.texts]
    beyond = [r for r in CURVES if r.cell.length > 4096]
    (picture,) = length.pictures(beyond, WINDOWS)
    (axes,) = picture.figure.axes
    assert not axes.texts and "dashed" not in picture.caption


def test_the_front_is_drawn_at_the_longest_length_that_several_budgets_read():
    [picture] = front.pictures([*CURVES, *TRAINED])
    assert "Perplexity at 16k by the tokens trained on" in picture.caption
    (axes,) = picture.figure.axes
    joined, *rows = axes.lines
    assert [*joined.get_ydata()] == [8.0, 7.0]  # none, and the longer training: no other is on it
    assert [*joined.get_xdata()] == [40_000, 60_000_000] and len(rows) == 5
    assert [t.get_text() for t in axes.get_xticklabels()] == ["0", "1 M", "10 M", "100 M"]
    assert len(axes.collections) == len(rows)  # 95 % intervals
    with pytest.raises(ValueError, match="no task was read by a trained model"):
        [*front.pictures(CURVES)]


def test_values_far_above_all_others_have_a_part_of_the_axis_for_themselves():
    upper, lower = length.draw(CURVES + FAR).axes
    assert lower.get_ylim()[1] <= upper.get_ylim()[0] < 200 < upper.get_ylim()[1]
    assert lower.get_ylim()[0] < 8 and lower.get_ylim()[1] > 10
    assert len(length.draw(CURVES).axes) == 1


def test_a_map_holds_the_shares_and_grey_where_nothing_was_measured():
    few = [passkey("none", 4096, 1.0), passkey("none", 8192, 0.25), passkey("yarn", 4096, 0.5)]
    none, yarn = (axes.images[0].get_array() for axes in depth.draw(few).axes[:2])
    assert none.tolist() == [[1.0, 0.25]] * 3
    assert yarn[:, 0].tolist() == [0.5] * 3 and np.ma.getmaskarray(yarn)[:, 1].all()


def test_frequencies_are_told_as_times_slower_and_tokens_of_a_turn():
    rows = [rotating("none", 1), rotating("pi,factor=4", 4)]
    slower, waves = frequencies.draw(rows, 4096).axes
    lines = {line.get_label(): line.get_ydata() for line in slower.lines}
    assert lines["none"] == pytest.approx([1] * 8)
    assert lines["pi ×4"] == pytest.approx([4] * 8)  # noqa: RUF001
    assert waves.lines[0].get_ydata()[0] == pytest.approx(2 * pi)


def test_losses_by_position_are_means_of_all_tokens_of_a_bin():
    rng = np.random.default_rng(0)
    losses = [rng.random(500).astype(np.float32) for _ in range(3)]
    edges, mean, error = position.binned(losses)
    assert edges[0] == 16 and edges[-1] == 500 and (np.diff(edges) > 0).all()
    first = [one[:16].mean() for one in losses]
    assert mean[0] == pytest.approx(np.mean(first), rel=1e-6)
    t = 4.302653  # Student's, two degrees of freedom, 97.5 %
    assert error[0] == pytest.approx(t * np.std(first, ddof=1) / 3**0.5, rel=1e-5)
    widths = np.diff(edges, prepend=0)
    assert (mean * widths).sum() / 500 == pytest.approx(np.mean(losses), rel=1e-6)
    assert position.binned(losses[:1])[2].tolist() == [0] * len(edges)


def test_no_band_reaches_below_a_loss_of_0():
    rng = np.random.default_rng(0)
    losses = {name: np.full(63, level) for name, level in (("a", 0.1), ("b", 9.0))}
    assert (np.subtract(*position.binned([*losses.values()])[1:]) < 0).any()
    figure = position.draw([(result(at=64), {k: v + rng.random(63) for k, v in losses.items()})])
    (band,) = figure.axes[0].collections
    assert band.get_paths()[0].vertices[:, 1].min() == 0


def test_the_loss_by_position_is_drawn_of_whole_inputs_only():
    kept = {"document-0": np.ones(4095, np.float32), "document-0-from-64": np.ones(64, np.float32)}
    assert [len(one) for one in position.whole(kept, 4096)] == [4095]
    with pytest.raises(ValueError, match="No losses are kept"):
        position.draw([(result(), {})])


def test_lengths_that_one_pass_read_are_one_point_at_its_longest():
    together = {"provenance": {"pass_length": 8192, "threads": 2}}
    cells = [
        result(at=n, seconds=n / 1000, peak_memory=10**9 + n, tokens=3 * n, **together)
        for n in (4096, 8192)
    ]
    (point,) = cost.passes(cells)
    assert point.of == "perplexity.whole, 2 threads" and point.length == 8192
    assert point.memory == 10**9 + 8192
    assert point.each == pytest.approx((4.096 + 8.192) / (3 * 8192))


def test_what_was_read_by_other_means_is_a_line_of_its_own_and_says_so():
    took = {"seconds": 2.0, "peak_memory": 10**9}
    means = [
        {"device": "AMD EPYC", "kernel": "torch-flash-cpu", "threads": 2, "ranks": 1},
        {"device": "NVIDIA H200", "kernel": "torch-flash-cuda", "threads": 2, "ranks": 1},
        {"device": "NVIDIA H200", "kernel": "flash-attn", "threads": 2, "ranks": 2},
        {"device": "NVIDIA H200", "kernel": "flash-attn", "threads": 2, "offload": True},
    ]
    cells = [result("pi,factor=4", 4096, provenance=means[0], **took)]
    cells += [result(at=4096, provenance=each, **took) for each in means]
    assert [p.of for p in cost.passes(cells)] == [
        "perplexity.whole, AMD EPYC, torch-flash-cpu, 2 threads",
        "perplexity.whole, AMD EPYC, torch-flash-cpu, 2 threads",
        "perplexity.whole, NVIDIA H200, torch-flash-cuda, 2 threads",
        "perplexity.whole, NVIDIA H200, flash-attn, 2 threads, 2 ranks",
        "perplexity.whole, NVIDIA H200, flash-attn, 2 threads, offloaded",
    ]
    assert {p.of for p in cost.passes(cells[:2])} == {"perplexity.whole, 2 threads"}
    one_card = {p.of for p in cost.passes(cells[2:4])}
    assert "perplexity.whole, flash-attn, 2 threads, 2 ranks" in one_card


def test_a_benchmark_s_sides_of_one_length_are_a_line_each_and_of_several_lengths_one():
    took = {"seconds": 2.0, "peak_memory": 10**9}
    curve = {"script": "perplexity_curve", "settings": {"lengths": [1024, 3072]}}
    sides = cost.sides({**curve, "sides": {"ours": took, "loop": took, "lm": {"missing": "it"}}})
    assert [p.of for p in sides] == ["perplexity curve: ours", "perplexity curve: loop"]
    assert {(p.length, p.each) for p in sides} == {(3072, 2.0 / 4096)}
    grown = {"short": {**took, "tokens": 1024}, "long": {**took, "tokens": 4096}}
    line = cost.sides({"script": "memory_growth", "settings": {}, "sides": grown})
    assert [(p.of, p.length) for p in line] == [("memory growth", 1024), ("memory growth", 4096)]


def test_a_benchmark_with_averages_is_shown_by_group_else_by_dataset():
    parts = {"en single": 0.3, "zh single": 0.5, "single": 0.4, "average": 0.4, "qasper": 0.2}
    groups = bars._scores([result(task="longbench.all", value=0.4, parts=parts)])
    assert groups == {"none": {"single": (0.4, None, None)}}
    sets = bars._scores([result(task="longbench.qasper", value=0.2, low=0.1, high=0.3)])
    assert sets == {"none": {"qasper": (0.2, 0.1, 0.3)}}


def test_datasets_that_were_asked_otherwise_are_another_picture():
    few = [r.model_copy(update={"cell": few_of(r.cell)}) for r in SETS]
    parts = {f"{x} {y}": 0.4 for x in ("en", "zh") for y in ("single", "multi", "average")}
    parts |= {"single": 0.4, "multi": 0.4, "average": 0.4}
    whole = result("pi", 8192, "longbench.all", 0.4, parts=parts)
    made = {p.name: p.caption for p in bars.pictures([*SETS, *few, whole], "longbench")}
    assert [*made] == [
        "bars-toy-longbench-8k", "bars-toy-longbench-8k-samples-20",
        "bars-toy-longbench-groups-8k",
    ]  # fmt: skip
    assert made["bars-toy-longbench-8k-samples-20"].startswith("longbench, samples 20, toy at 8k")
    assert bars._scores([whole])["pi"]["average"] == (0.4, whole.low, whole.high)
    with pytest.raises(ValueError, match="fewer than 3 datasets of longbench were scored alike"):
        [*bars.pictures([SETS[0], *few[1:]], "longbench")]


def few_of(cell):
    return cell.model_copy(update={"task": f"{cell.task},samples=20"})


def test_a_running_mean_follows_what_it_is_given():
    assert training.smoothed([2.0] * 9) == pytest.approx([2.0] * 9)
    means = training.smoothed([1.0, 0.0])
    assert means[0] == 1 and means[1] == pytest.approx(0.9 / 1.9)


def test_a_search_is_drawn_as_perplexity(tmp_path):
    history = [
        {"generation": 0, "best": 3.0, "worst_parent": None, "evaluations": 64, "saved": 0},
        {"generation": 1, "best": 2.5, "worst_parent": 3.0, "evaluations": 96, "saved": 9},
    ]
    place = tmp_path / "factors.search.json"
    place.write_text(json.dumps({"search": {"model": "toy", "target": 16384}, "history": history}))
    (picture,) = search.pictures([place])
    (axes,) = picture.figure.axes
    best, worst = axes.lines
    assert best.get_label() == "toy to 16k" and best.get_ydata() == pytest.approx(
        [exp(3), exp(2.5)]
    )
    assert worst.get_xdata().tolist() == [96]
    place.write_text(json.dumps({"search": {"model": "toy"}, "history": history[1:]}))
    (picture,) = search.pictures([place])  # of one generation: two marks, and whole individuals
    (axes,) = picture.figure.axes
    assert all(line.get_marker() not in (None, "None", "") for line in axes.lines)
    assert axes.get_xlim()[0] == 0 and all(at == round(at) for at in axes.get_xticks())
    place.write_text("{}")
    with pytest.raises(ValueError, match="no search's state"):
        search.read(place)


def test_searches_of_unlike_models_targets_or_texts_are_pictures_of_their_own(tmp_path):
    history = [{"best": 3.0, "worst_parent": 3.1, "evaluations": 64}]
    kinds = {
        "a": {"model": "toy", "target": 16384, "corpus": "stdlib:validation", "samples": 3},
        "b": {"model": "toy", "target": 16384, "corpus": "stdlib:validation", "samples": 3},
        "c": {"model": "toy", "target": 16384, "corpus": "stdlib:tests", "samples": 3},
        "d": {"model": "toy", "target": 65536, "corpus": "stdlib:tests", "samples": 3},
        "e": {"model": "other", "target": 16384, "corpus": "stdlib:tests", "samples": 3},
    }
    for name, about in kinds.items():
        kept = json.dumps({"search": about, "history": history})
        (tmp_path / f"{name}.search.json").write_text(kept)
    made = {p.name: p for p in search.pictures(sorted(tmp_path.iterdir()))}
    assert [*made] == [
        "search-toy-to-16k-stdlib-validation-3-documents",
        "search-toy-to-16k-stdlib-tests-3-documents",
        "search-toy-to-64k", "search-other-to-16k",
    ]  # fmt: skip
    labels = [[line.get_label() for line in p.figure.axes[0].lines] for p in made.values()]
    assert labels[0] == ["a", "a, last parent", "b", "b, last parent"]
    assert labels[2] == ["toy to 64k", "toy to 64k, last parent"]
    assert "other to 16k, on stdlib:tests, 3 documents" in made["search-other-to-16k"].caption


def test_a_training_that_has_no_log_says_so(tmp_path):
    with pytest.raises(ValueError, match="no log of a training"):
        training.read(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"step": 1, "tokens": 8192, "loss": 3.5}\n')
    assert training.read(tmp_path) == [(8192, 3.5)]


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", '{"sides": 1}', "{"])
def test_what_is_no_search_training_or_benchmark_is_named_and_the_others_are_drawn(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    (tmp_path / "training.json").write_text(text)
    (tmp_path / "log.jsonl").write_text(text)
    took = {"seconds": 2.0, "peak_memory": 10**9, "length": 4096}
    good = {"script": "s", "settings": {"model": "Toy"}, "sides": {"ours": took}}
    (tmp_path / "b.json").write_text(json.dumps(good))
    with pytest.raises(ValueError, match=r"a\.json is no search's state"):
        search.read(tmp_path / "a.json")
    with pytest.raises(ValueError, match="no log of a training"):
        training.read(tmp_path)
    assert training.base_of(tmp_path) == ""
    with pytest.raises(ValueError, match=r"a\.json (is no JSON|holds no benchmark)"):
        cost.read(tmp_path / "a.json")
    given = Inputs(results=CURVES[:1], benchmarks=[tmp_path / "a.json", tmp_path / "b.json"])
    left_out = []
    ((model, (side,)),) = _benchmarks(given.benchmarks, left_out)
    assert model == "toy" and side.length == 4096 and "a.json" in left_out[0]
    assert any("a.json" in line for line in paper(given).left_out)


@pytest.mark.parametrize("draw", [length.draw, depth.draw])
def test_a_picture_is_drawn_of_whatever_there_is(tmp_path, draw):
    odd = [passkey("none", 131072), result("yarn", 100, "ruler.all", 0.2, metric="accuracy")]
    for name, few in {"one.png": MAPS[:1], "all.svg": MAPS + CURVES + odd}.items():
        saved.save(draw(few), tmp_path / name)
        assert (tmp_path / name).stat().st_size > 2000


@pytest.mark.parametrize("name", ["a.png", "a.pdf", "a.svg"])
def test_a_picture_stays_as_it_was_where_a_disk_takes_no_other(tmp_path, monkeypatch, name):
    """What is torn would carry the mark of what it was to be, and never be drawn again."""
    saved.save(length.draw(CURVES[:3]), tmp_path / name)
    before = (tmp_path / name).read_bytes()
    with monkeypatch.context() as full, pytest.raises(OSError, match=f"No space.*{name}"):
        full.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        saved.save(length.draw(CURVES), tmp_path / name)
    assert (tmp_path / name).read_bytes() == before
    assert [*tmp_path.iterdir()] == [tmp_path / name]


def test_a_picture_of_nothing_or_of_no_known_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing to draw"):
        length.draw([])
    with pytest.raises(ValueError, match="has depths"):
        depth.draw(CURVES)
    with pytest.raises(ValueError, match="end in one of"):
        saved.save(length.draw(CURVES), tmp_path / "a.docx")


# On disk


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_the_same_figure_is_the_same_bytes_and_known_by_what_it_shows(tmp_path, kind):
    one, again, other = (tmp_path / f"{name}.{kind}" for name in ("one", "again", "other"))
    few = MAPS[:2]
    assert saved.save(depth.draw(few), one) and saved.save(depth.draw(few), again)
    assert one.read_bytes() == again.read_bytes() and not re.search(
        rb"20\d\d-\d\d", one.read_bytes()
    )
    figure = depth.draw(few)
    assert saved.behind(figure, one) is None and not saved.save(figure, one)
    saved.save(depth.draw([few[1], passkey("none", 4096, 0.9)]), other)
    assert saved.behind(figure, other) == "shows something else"
    assert saved.behind(figure, tmp_path / f"none.{kind}") == "is missing"


@each_figure
def test_drawing_a_figure_does_not_change_what_it_is_known_by(draw):
    figure = draw()
    before = saved.digest(figure)
    style.styled(figure.draw_without_rendering)()
    assert saved.digest(figure) == before


def test_a_number_that_moves_moves_the_digest():
    moved = [result(value=8.001), *CURVES[1:]]
    assert saved.digest(length.draw(CURVES)) != saved.digest(length.draw(moved))
    assert saved.digest(length.draw(CURVES)) != saved.digest(length.draw(CURVES, WINDOWS))


def test_another_name_on_an_axis_moves_the_digest():
    others = [result("none", 8192, f"longbench.{d}", 0.4) for d in ("qasper", "trec", "gov_report")]
    assert saved.digest(bars.draw(SETS)) != saved.digest(bars.draw(others))


# The paper


@pytest.fixture
def measured(tmp_path):
    store = Store(tmp_path / "results")
    for one in CURVES[:6] + MAPS[:1]:
        store.write(one)
    return tmp_path


def report(measured, *words):
    with pytest.raises(SystemExit) as done:
        main(["report", "--results", str(measured / "results"), *map(str, words)])
    return done.value.code


def test_a_paper_is_written_whole_is_not_behind_and_says_what_it_lacks(measured, capsys):
    folder = measured / "paper"
    assert report(measured, "--paper", folder) == 0
    said = capsys.readouterr()
    assert "loss by position is not drawn: no losses lie beside the results" in said.err
    assert said.out.splitlines()[-1].endswith(" files written")  # there are no others
    assert all(line.startswith("note: ") for line in said.err.splitlines())
    for kind in ("pdf", "png"):
        assert len([*(folder / "figures").glob(f"*.{kind}")]) == 2
    assert len([*(folder / "tables").iterdir()]) == 2
    assert report(measured, "--paper", folder, "--check") == 0
    assert report(measured, "--paper", folder) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 files written")


@pytest.mark.filterwarnings("error")
def test_a_name_stays_text_in_a_picture_whatever_it_is(tmp_path):
    odd = [result(name, n) for name in (r"$\input{x}$", "日本", "x" * 120) for n in LENGTHS]
    figure = length.draw(odd)
    assert saved.save(figure, tmp_path / "odd.png") and (tmp_path / "odd.png").stat().st_size
    assert r"$\input{x}$" in [text.get_text() for text in figure.legends[0].get_texts()]
    steep = length.draw(
        [result(m, n, value=v) for m, v in {"a": 2.0, "b": 1e7}.items() for n in LENGTHS]
    )
    texts = [text.get_text() for text in written(steep)]
    assert "10⁷" in texts and not any("$" in text for text in texts)


def test_what_is_behind_is_named(measured, capsys):
    folder = measured / "paper"
    report(measured, "--paper", folder)
    Store(measured / "results").write(result("none", 4096, value=8.5))
    (folder / "references.bib").unlink()
    capsys.readouterr()
    assert report(measured, "--paper", folder, "--check") == 1
    said = capsys.readouterr().out
    assert "length-toy-perplexity-whole.pdf shows something else" in said
    assert "references.bib is missing" in said and "perplexity-whole.tex differs" in said
    assert "depth-" not in said
    assert report(measured, "--paper", folder, "--where", "task=perplexity", "--check") == 1
    assert "depth-toy-passkey-standard.png is made of nothing any more" in capsys.readouterr().out


def test_what_an_author_wrote_stays(measured):
    folder = measured / "paper"
    report(measured, "--paper", folder)
    (folder / "main.tex").write_text("mine")
    (folder / "figures" / "photo.png").write_bytes(b"mine")
    assert report(measured, "--paper", folder) == 0
    assert report(measured, "--paper", folder, "--check") == 0
    assert (folder / "main.tex").read_text() == "mine"


def test_what_was_trained_and_searched_lies_among_the_results_and_is_drawn(measured):
    mine = measured / "results" / "training" / "mine"
    mine.mkdir(parents=True)
    lines = (json.dumps({"tokens": 8192 * i, "loss": 4 - i / 9}) for i in range(1, 5))
    (mine / "log.jsonl").write_text("\n".join(lines))
    history = [{"best": 3.0 - i, "worst_parent": 3.0, "evaluations": 64 + i} for i in (0, 1)]
    kept = {"search": {"model": "toy", "target": 16384}, "history": history}
    (measured / "results" / "search").mkdir()
    (measured / "results" / "search" / "factors.search.json").write_text(json.dumps(kept))
    folder = measured / "figures"
    assert report(measured, "--figures", folder) == 0
    assert {p.stem for p in folder.glob("*.png")} == {"training", "search-toy-to-16k"}
    assert report(measured, "--figures", folder, "--check") == 0


def test_of_other_models_than_are_meant_no_training_or_search_is_drawn(measured):
    history = [{"best": 3.0, "worst_parent": 3.0, "evaluations": 64}] * 2
    for base in ("toy", "other"):
        place = measured / "results" / "training" / base
        place.mkdir(parents=True)
        (place / "log.jsonl").write_text(json.dumps({"tokens": 8192, "loss": 4.0}))
        (place / "training.json").write_text(json.dumps({"base": base}))
        kept = {"search": {"model": base, "target": 16384}, "history": history}
        (measured / "results" / "search").mkdir(exist_ok=True)
        (measured / "results" / "search" / f"{base}.search.json").write_text(json.dumps(kept))
    of = {name: {p.stem for p in (measured / name).rglob("*.png")} for name in ("all", "toy")
          if report(measured, "--figures", measured / name,
                    *(("--where", "model=toy") if name == "toy" else ())) == 0}  # fmt: skip
    assert of["all"] - of["toy"] == {"training-other", "search-other-to-16k"}


def test_a_page_has_a_picture_for_each_model_and_task(measured):
    folder = measured / "figures"
    assert report(measured, "--figures", folder) == 0
    there = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*"))
    assert there == ["toy/passkey.png", "toy/perplexity.png"]
    assert report(measured, "--figures", folder, "--check") == 0
    (folder / "toy" / "passkey.png").unlink()
    assert report(measured, "--figures", folder, "--check") == 1


def test_one_of_paper_and_figures_is_needed(measured, capsys):
    assert report(measured) == 2 and "--paper DIR, or --figures DIR" in capsys.readouterr().err


def test_of_nothing_no_paper_is_written(measured, capsys):
    assert report(measured, "--paper", measured / "paper", "--where", "method=pi,x task=none") == 2
    assert "nothing to write about" in capsys.readouterr().err
    assert not (measured / "paper").exists()


def test_plot_draws_each_kind(measured):
    for kind, name in {"curve": "a.png", "depth": "b.svg"}.items():
        words = ["plot", "--kind", kind, "--output", str(measured / name)]
        with pytest.raises(SystemExit) as done:
            main([*words, "--results", str(measured / "results")])
        assert done.value.code == 0 and (measured / name).stat().st_size > 2000


def test_losses_that_are_torn_are_named_and_not_drawn(measured, capsys):
    store = Store(measured / "results")
    results = [r for r in store.results() if r.cell.task.startswith("perplexity")]
    for one in results:
        store.write(one, losses={"a": np.ones(one.cell.length - 1)})
    longest = max(results, key=lambda one: one.cell.length)
    torn = store.path(longest.cell).with_suffix(".npz")
    torn.write_bytes(torn.read_bytes()[:100])
    with pytest.raises(SystemExit) as done:
        words = ["plot", "--kind", "position", "--output", str(measured / "a.png")]
        main([*words, "--results", str(measured / "results")])
    plotted = capsys.readouterr().err
    assert done.value.code == 0 and f"{torn} is skipped: it is no whole .npz file" in plotted
    assert report(measured, "--paper", measured / "paper") == 0
    assert f"{torn} is skipped: it is no whole .npz file" in capsys.readouterr().err


# LaTeX


def test_words_stay_what_they_are_in_latex():
    assert escaped("50 % of a_b & #1 {x} ~ ^ \\ <y>") == (
        r"50 \% of a\_b \& \#1 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} "
        r"\textless{}y\textgreater{}"
    )
    assert escaped("yarn ×4 · é 文") == r"yarn $\times$4 $\cdot$ é U+6587"  # noqa: RUF001


def test_whatever_has_a_source_has_its_title_too():
    found = {
        (kind, name): source(kind, name)
        for kind in ("methods", "tasks")
        for name in catalog.names(kind)
    }
    assert {name for (_, name), where in found.items() if where is None} == {"perplexity"}
    for where in filter(None, found.values()):
        assert where.year.startswith("20") and where.url.startswith("https://")
        assert where.entry.count("{") == where.entry.count("}")
        assert where.key in where.entry.splitlines()[0]
        assert f"title = {{{{{escaped(TITLES[where.number])}}}}}" in where.entry


def test_of_a_method_over_another_both_are_named_with_their_papers(measured):
    store = Store(measured / "results")
    store.write(result("leaky-rerope+log-n"))
    store.write(result("mine@0123abcd+yarn,factor=4"))
    report(measured, "--paper", measured / "paper")
    items = (measured / "paper" / "methods.tex").read_text().splitlines()
    (logs,) = (item for item in items if r"{log-n}" in item)
    assert r"\texttt{log-n}] Log-n: the more keys" in logs
    assert r"\citep{chiang2022-2202.12172}" in logs
    assert any(r"\citep{su2023-9708}" in item for item in items)
    assert r"\item[\texttt{mine@0123abcd}] Not of this project." in items
    assert not any("+" in item for item in items)
    page = (measured / "paper" / "references.bib").read_text()
    assert "Overcoming a Theoretical Limitation" in page and page.count("@misc{peng2023") == 1


def test_where_something_was_published_is_read_from_its_file():
    yarn, tuned = source("methods", "yarn"), source("methods", "dynamic-yarn")
    assert yarn == tuned and yarn.key == "peng2023-2309.00071"
    assert "Peng and others" in yarn.entry and "arXiv:2309.00071" in yarn.entry
    assert source("tasks", "passkey.standard").authors == "Mohtashami & Jaggi"
    assert "{{bloc97}}" in source("methods", "ntk").entry
    assert source("methods", "of-somebody-else") is None


@pytest.mark.slow
@pytest.mark.skipif(
    not ((shutil.which("pdflatex") and shutil.which("bibtex")) or shutil.which("tectonic")),
    reason="no LaTeX here: apt-get install texlive-latex-recommended",
)
def test_the_skeleton_compiles_and_nothing_runs_over_its_column(measured):
    folder = measured / "paper"
    cell = Cell(model="toy", method="ntk", task="passkey.standard", length=4096)
    awkward = '50 % of x_1 & {y} \\ #~^ <é> 文 "z"'
    store = Store(measured / "results")
    store.write(Result(cell=cell, status="failed", reason=awkward))
    wide = {"metric": "accuracy", "status": "scored", "low": 0.0, "high": 1.0, "n": 5}
    for method, power in product(("none", "ntk-by-parts,factor=512"), range(6, 22)):
        cell = Cell(model="toy", method=method, task="passkey.strict", length=2**power)
        store.write(Result(cell=cell, value=1 / power, **wide))
    report(measured, "--paper", folder)
    if shutil.which("tectonic"):
        steps = [["tectonic", "--keep-logs", "main.tex"]]
    else:
        tex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main"]
        steps = [tex, ["bibtex", "main"], tex, tex]
    for step in steps:
        done = subprocess.run(step, cwd=folder, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout[-2000:]
    log = (folder / "main.log").read_text(errors="replace")
    assert (folder / "main.pdf").stat().st_size > 20_000
    assert "Overfull" not in log and "undefined" not in log
