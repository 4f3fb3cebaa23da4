"""The factors that come with the package are the published ones, and say what they are for."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from harness import catalog
from harness.methods.longrope import PACKAGED, _packaged
from harness.model import load
from harness.rope import Rope
from harness.show import show

FILES = {
    name: json.loads((PACKAGED / f"{name}.json").read_text())
    for name in _packaged()
    if not name.startswith("toy")
}
BASES = ("llama-2-7b", "mistral-7b")
FURTHER = {"128k": ("256k", "512k", "1024k", "2048k"), "256k": ("512k", "1024k", "2048k")}


def rope(model="", dim=128):
    return Rope(theta=1e4, dim=dim, original_length=4096, model=model)


def parts(name):
    return [FILES[name], *FILES[name].get("short", [])]


every_file = pytest.mark.parametrize("name", FILES)


def test_both_models_have_those_of_each_training_and_of_each_search_after_it():
    trained = {f"{base}-{length}" for base in BASES for length in FURTHER}
    searched = {
        f"{base}-{length}-{far}" for base in BASES for length in FURTHER for far in FURTHER[length]
    }
    assert set(FILES) == trained | searched


@every_file
def test_a_packaged_file_loads_and_divides_by_what_it_holds(name):
    held = FILES[name]
    method = catalog.load("methods", f"longrope,factors={name}")
    for reach, part in [(held["target"], held)] + [(p["up_to"], p) for p in held.get("short", [])]:
        said = method.resolved(rope(), reach)
        assert (said["factors"], said["start_tokens"]) == (part["factors"], 0)
        assert (said["factor"], said["factors_from"]) == (held["factor"], name)
    assert method.remark(rope(), held["target"]) is None
    assert held["factor"] * 4096 == held["target"]


@every_file
def test_there_are_64_factors_of_1_or_more_with_a_source(name):
    for part in parts(name):
        assert len(part["factors"]) == 64
        assert min(part["factors"]) >= 1
        assert part["factors"] == [float(f"{factor:.7g}") for factor in part["factors"]]
        assert "microsoft/LongRoPE, script/longrope_scale/" in part["source"]
        assert len(part["source"].partition(" at commit ")[2].partition(":")[0]) == 40


@every_file
def test_factors_rise_or_the_file_says_where_they_fall(name):
    whole, *short = (
        [index for index, (a, b) in enumerate(pairwise(part["factors"]), 1) if b < a]
        for part in parts(name)
    )
    assert not any(short)
    told = f"They fall at {', '.join(map(str, whole))}, counted from 0"
    assert (told in FILES[name]["about"]) == bool(whole)
    assert bool(whole) == name.startswith("mistral")


@every_file
def test_a_second_search_multiplies_what_the_model_was_trained_with(name):
    """In steps of a thousandth or of 1/128; the smallest of them is 1."""
    trained = "-".join(name.split("-")[: 4 if name.startswith("llama") else 3])
    for far, near in zip(FILES[name]["factors"], FILES[trained]["factors"], strict=True):
        ratio = far / near
        off = min(abs(ratio * steps - round(ratio * steps)) / steps for steps in (1000, 128))
        assert off < 1e-6 * ratio
        assert ratio > 1 - 1e-6


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("llama-2-7b-256k-2048k", {0: 1.1118, 14: 3.8068, 31: 79.054, 62: 566.2222, 63: 575.8053}),
        ("mistral-7b-128k", {0: 1.03, 8: 1.08, 14: 1.26, 31: 9.58, 32: 10, 63: 32.99}),
        ("llama-2-7b-128k", {0: 1, 18: 1, 19: 1.01, 43: 29.16, 44: 32, 63: 32}),
    ],
)
def test_known_values_are_the_published_ones(name, known):
    assert {index: FILES[name]["factors"][index] for index in known} == known


def test_the_search_for_two_million_tokens_can_be_shown():
    said = show(
        "longrope",
        head_dim=128,
        theta=1e4,
        original_length=4096,
        length=2**21,
        factors="llama-2-7b-256k-2048k",
    )
    assert said["scale"] == 512
    assert said["factors"] == FILES["llama-2-7b-256k-2048k"]["factors"]


@pytest.mark.parametrize("base", BASES)
def test_the_method_names_them(base):
    about = show("longrope")["about"]
    assert all(f"{base}-{trained}" in about for trained in FURTHER)


@pytest.mark.parametrize("model", ["llama-2-7b-hf", "mistral-7b-v0.1"])
def test_a_base_model_does_not_get_them_unasked(model):
    source, found = catalog.load("methods", "longrope").found(rope(model))
    assert (source, found) == ("yarn", None)
    told = catalog.load("methods", "longrope").remark(rope(model), 131072)
    assert "No searched factors are known for this model as it is" in told
    assert "are for one fine-tuned with them" in told


def test_factors_that_count_from_another_window_say_so():
    far = replace(rope(), original_length=32768)
    method = catalog.load("methods", "longrope,factor=32,factors=mistral-7b-128k")
    said = method.remark(far, 131072)
    assert "counts s from 4,096 tokens, and this model's configuration from 32,768" in said
    assert "counts s from" not in (method.remark(rope(), 131072) or "")


def test_the_published_start_of_a_mistral_is_in_its_window_and_by_its_limits():
    method = catalog.load("methods", "longrope,start=official")
    mistral = replace(rope(), original_length=32768, family="mistral", window=4096)
    kept = rope().kept(128, 2)
    torch.testing.assert_close(method.started(mistral, 8), kept + (1 - kept) * 8)
    kept = rope().kept(32, 1)
    torch.testing.assert_close(method.started(rope(), 8), kept + (1 - kept) * 8)


def test_a_model_that_gets_them_by_its_name_alone_is_told_so():
    method = catalog.load("methods", "longrope")
    assert method.found(rope("llama-2-7b-128k"))[1]["factor"] == 32
    assert "right if fine-tuned with them" in method.remark(rope("llama-2-7b-128k"), 131072)


def test_of_another_model_no_kin_is_named():
    told = catalog.load("methods", "longrope").remark(rope("smollm2-135m"), 131072)
    assert "known for this model, so" in told


@pytest.mark.parametrize("text", ["[1, 2]", '{"factors": [1, 2]}', "1, 2"])
def test_a_file_of_factors_may_begin_with_the_mark_of_some_editors(text, tmp_path):
    file = tmp_path / "f.json"
    file.write_text(text, "utf-8-sig")
    method = catalog.load("methods", f"longrope,factors={file}")
    assert method.found(rope(dim=4))[1]["factors"] == [1, 2]
    by_content = catalog.extended("longrope", method.by_content())
    assert catalog.load("methods", by_content).found(rope(dim=4))[1]["factors"] == [1, 2]


@pytest.mark.parametrize("text", ["[" * 100_000, "{", '{"factors": 1}'])
def test_a_file_that_holds_no_factors_is_named(text, tmp_path):
    (tmp_path / "f.json").write_text(text)
    with pytest.raises(ValueError, match=r"f\.json holds no factors: it must be"):
        catalog.load("methods", f"longrope,factors={tmp_path / 'f.json'}").found(rope(dim=4))


def test_the_toys_are_those_of_a_search_and_beyond_it_stretched_as_yarn_does():
    held = json.loads((PACKAGED / "toy-longrope.json").read_text("utf-8"))
    (short,) = held["short"]
    model = load("toy-longrope", device="cpu", dtype="float32").model
    method = catalog.load("methods", "longrope,factor=512")
    for length, part in ((4096, short), (16384, short), (16385, held), (2**21, held)):
        assert method.provenance(model, length)["factors"] == part["factors"]
    searched = replace(Rope.of(model), original_length=65536)
    stretched = (searched.frequencies / searched.by_parts(32)).numpy()
    assert np.allclose(np.array(held["factors"]) / short["factors"], stretched, rtol=0.01)
