"""What a notebook gets from `from harness import ...`."""

import copy
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import harness
from harness import api

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/python.md").read_text("utf-8")
HEAVY = {"torch", "transformers", "datasets", "matplotlib", "pandas", "scipy", "pyarrow"}


def modules_after(code):
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stdout.split())


def test_importing_it_imports_nothing():
    ours = {name for name in modules_after("import harness") if name.startswith("harness")}
    assert ours == {"harness"}


def test_its_names_bring_nothing_heavy():
    assert not HEAVY & modules_after(f"from harness import {', '.join(harness.__all__)}")


def test_no_name_is_a_module_too():
    modules = {path.stem for path in Path(harness.__file__).parent.iterdir()}
    assert not modules & set(harness.__all__)


def test_each_name_is_documented_with_an_example():
    assert set(harness.__all__) <= set(dir(harness))
    for name in set(harness.__all__) - {"Reading"}:
        thing = getattr(harness, name)
        assert thing is getattr(api, name) and f"{name}(" in thing.__doc__, name
        assert re.search(rf"\b{name}\b", PAGE), name


def test_a_name_that_is_not_there_is_said_as_python_does():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        harness.nothing  # noqa: B018


def test_a_text_is_read_as_the_model_itself_reads_it(folder):
    model, tokenizer = harness.load(str(folder), dtype="float32")
    reading = harness.read(model, tokenizer, "The grass is green.")
    tokens = torch.tensor(reading.tokens)[None]
    with torch.inference_mode():
        logits = model(tokens).logits[0, :-1].double()
    plain = torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="none")
    assert np.allclose(reading.losses, plain, atol=1e-5)
    assert reading.perplexity == pytest.approx(plain.mean().exp().item(), rel=1e-5)


def test_a_model_that_the_engine_would_not_read_exactly_is_refused(folder, monkeypatch):
    from harness import probe

    monkeypatch.setitem(probe.TOLERANCE, torch.float32, -1.0)
    with pytest.raises(LookupError, match="this model is refused"):
        harness.load(str(folder), dtype="float32")


@pytest.mark.parametrize("scaling", [
    {"rope_type": "dynamic", "factor": 4.0},
    {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [3.0] * 8, "factor": 4.0},
])  # fmt: skip
def test_a_checkpoint_that_scales_with_its_input_is_read_as_at_once(scaling, folder, monkeypatch):
    """In pieces, transformers' own module would take each piece for all there is."""
    monkeypatch.setattr("harness.engine.layers.TABLE_BLOCK", 64)
    model, tokenizer = harness.load(str(folder), dtype="float32")
    config = copy.deepcopy(model.config)
    config.rope_parameters = {
        "rope_theta": 10_000.0,
        "original_max_position_embeddings": 64,
        **scaling,
    }
    config.max_position_embeddings = 64 if scaling["rope_type"] == "dynamic" else 256
    scaled = type(model)(config).eval()
    scaled.load_state_dict(model.state_dict())
    losses = []
    for text in ("The grass is green. " * 8, "The grass is green. " * 2):
        reading = harness.read(scaled, tokenizer, text)
        tokens = torch.tensor(reading.tokens)[None]
        fresh = type(model)(config).eval()
        fresh.load_state_dict(model.state_dict())
        with torch.inference_mode():
            logits = fresh(tokens).logits[0, :-1].double()
        plain = torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="none")
        assert np.allclose(reading.losses, plain, atol=1e-4)
        losses.append(len(reading.losses))
    assert losses[0] > 128 > losses[1]


def test_no_more_is_read_than_is_asked_for(folder):
    model, tokenizer = harness.load(str(folder), dtype="float32")
    text = "The grass is green. " * 40
    whole, part = (harness.read(model, tokenizer, text, n) for n in (None, 100))
    assert len(part.tokens) == 100 and (part.tokens == whole.tokens[:100]).all()
    assert np.allclose(part.losses, whole.losses[:99], atol=1e-5)


def test_a_folder_without_results_is_said_and_a_broken_file_too(tmp_path):
    with pytest.raises(ValueError, match="There are no results in"):
        harness.results(tmp_path / "typo")
    bad = tmp_path / "runs" / "m" / "t" / "k" / "8.json"
    bad.parent.mkdir(parents=True)
    bad.write_text("{")
    with pytest.warns(UserWarning, match="8.json"):
        assert harness.results(tmp_path) == []


def test_a_method_is_on_inside_and_off_after(folder):
    model, tokenizer = harness.load(str(folder), dtype="float32")
    text = "The grass is green. " * 40
    before = harness.read(model, tokenizer, text).losses
    with harness.extended(model, "pi,factor=8", "4k") as same:
        assert same is model
        inside = harness.read(model, tokenizer, text).losses
    assert not np.allclose(inside, before)
    assert (harness.read(model, tokenizer, text).losses == before).all()


@pytest.mark.parametrize(
    ("ask", "error", "said"),
    [
        (lambda m, t: harness.read(m, t, ""), ValueError, "nothing to read"),
        (lambda m, t: harness.read(m, t, "a b", length=-1), ValueError, "at least 1 token"),
        (lambda m, t: harness.extended(m, "yarm", 99).__enter__(), LookupError, "mean 'yarn'"),
        (lambda m, t: harness.extended(m, "pi", "4k-8k").__enter__(), ValueError, "such as 32k"),
        (lambda m, t: harness.extended(m, "./no.py", 9).__enter__(), LookupError, "no file ./no"),
        (
            lambda m, t: harness.measure("pi", "passkey", "4k", box=1),
            ValueError,
            "The grid has the unk",
        ),
    ],
)
def test_a_slip_is_a_sentence(ask, error, said, folder):
    with pytest.raises(error, match=re.escape(said)):
        ask(*harness.load(str(folder)))


@pytest.mark.slow
def test_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 4
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert (tmp_path / "curve.png").stat().st_size > 10_000
    assert len(names["table"]) == 6 and "YaRN" in capsys.readouterr().out
