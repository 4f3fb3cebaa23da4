"""The shipped toy is what its recipe says, and a killed training goes on as if nothing happened."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import harness
from harness import catalog
from harness.cli import main
from harness.library import split_of
from harness.model import describe, load
from harness.train.toy import Plan, train

TOY = Path(harness.__file__).parent / "toy"
TINY = Plan(
    vocabulary=300,
    hidden=16,
    intermediate=32,
    head_dim=8,
    stages=((1024, 3),),
    text_tokens=1024,
    quiz_tokens=1024,
    checkpoint_every=1,
)
INTRO = (
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. "
    "I will quiz you about the important information there.\n"
)
HAY = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
QUESTION = "\nWhat is the pass key? The pass key is"


@pytest.fixture(scope="module")
def toy():
    model = AutoModelForCausalLM.from_pretrained(TOY, dtype=torch.bfloat16)
    return model, AutoTokenizer.from_pretrained(TOY)


@pytest.fixture
def library(tmp_path):
    """Twelve short files, of which each split has some."""
    root = tmp_path / "library"
    root.mkdir()
    words = "alpha beta gamma delta epsilon zeta theta kappa lambda sigma omega index value"
    for number in range(60):
        (root / f"file{number}.py").write_text(f"# {words} {number}\nx = {number}\n" * 20)
    return root


def test_it_is_small_enough_to_ship():
    assert sum(path.stat().st_size for path in TOY.iterdir()) <= 12_000_000


def test_its_recipe_is_the_default_one():
    assert json.loads((TOY / "recipe.json").read_text()) == json.loads(json.dumps(asdict(Plan())))


def test_its_log_reaches_the_last_step():
    assert f"step {Plan().steps}/{Plan().steps} " in (TOY / "training.log").read_text()


def test_a_number_is_spelled_in_one_way(toy):
    _, tokenizer = toy
    assert not [token for token in tokenizer.get_vocab() if re.search(r"\d", token[1:])]
    for text in (" 71432", "71432", "key=71432."):
        tokens = tokenizer.tokenize(text)
        assert [token for token in tokens if token.isdigit()] == list("71432")


def test_the_tokenizer_gives_back_what_it_read_and_adds_no_start(toy):
    _, tokenizer = toy
    text = "def f(x):\n    return x  # 10 à la carte\n"
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert tokenizer.bos_token_id not in tokens


@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_it_retrieves_at_1024_tokens(toy, depth):
    assert _found(toy, 1024, depth, "71432")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_it_retrieves_at_its_original_length_and_yarn_far_beyond(tmp_path, capsys):
    words = "run -m none,yarn,factor=8 -t passkey -l 4k,16k --samples 2 --json --results"
    with pytest.raises(SystemExit):
        main([*words.split(), str(tmp_path)])
    rows = json.loads(capsys.readouterr().out)
    found = {(row["method"], row["length"]): row["value"] for row in rows}
    assert found["none", 4096] >= 0.9 and found["yarn", 16384] >= 0.8
    assert found["none", 16384] <= 0.3


@pytest.mark.slow
def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path, library):
    def killed(line: str) -> None:
        if line.startswith("step 2/"):
            raise KeyboardInterrupt

    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    train(whole, plan=TINY, root=library, log=str)
    with pytest.raises(KeyboardInterrupt):
        train(resumed, plan=TINY, root=library, log=killed)
    train(resumed, plan=TINY, root=library, log=str)
    assert _losses(resumed) == _losses(whole)
    weights = [(folder / "model.safetensors").read_bytes() for folder in (whole, resumed)]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_finished_training_stays_and_another_model_too(tmp_path, library):
    train(tmp_path / "toy", plan=TINY, root=library, log=str)
    before = {path.name: path.read_bytes() for path in (tmp_path / "toy").iterdir()}
    said = []
    train(tmp_path / "toy", plan=TINY, root=library, log=said.append)
    assert said == ["It is trained already."]
    with pytest.raises(ValueError, match="holds another model: give another folder"):
        train(tmp_path / "toy", plan=replace(TINY, hidden=24), root=library, log=str)
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "toy").iterdir()}


def test_another_plans_checkpoint_is_refused(tmp_path, library):
    def killed(line: str) -> None:
        if line.startswith("step 2/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, plan=TINY, root=library, log=killed)
    with pytest.raises(ValueError, match="another plan"):
        train(tmp_path, plan=replace(TINY, hidden=24), root=library, log=str)


def test_a_file_stays_in_its_split():
    """The toy that is shipped was trained on the first, and is measured on the others."""
    files = ("__future__.py", "hmac.py", "fileinput.py")
    assert [split_of(file) for file in files] == ["train", "validation", "test"]
    assert split_of("test/test_abc.py") == split_of("idlelib/idle_test/test_text.py") == "tests"
    splits = [split_of(f"file{number}.py") for number in range(2000)]
    assert 0.87 < splits.count("train") / 2000 < 0.93
    assert set(splits) == {"train", "validation", "test"}


def _losses(folder: Path) -> list[str]:
    return re.findall(r"text \S+  quiz \S+", (folder / "training.log").read_text())


def _found(toy, length: int, depth: float, key: str) -> bool:
    """Does plain transformers, greedily, say the key after a prompt of exactly this length?"""
    model, tokenizer = toy
    spell = tokenizer.encode
    intro, question = spell(INTRO), spell(QUESTION)
    needle = spell(f"\nThe pass key is {key}. Remember it. {key} is the pass key.\n")
    room = length - 1 - len(intro) - len(needle) - len(question)
    before = round(room * depth)
    hay = spell(HAY) * (length // 20)
    prompt = [tokenizer.bos_token_id, *intro, *hay[:before], *needle]
    prompt += [*hay[: room - before], *question]
    answer = spell(f" {key}")
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *answer]])).logits[0, length - 1 : -1]
    return len(prompt) == length and logits.argmax(-1).tolist() == answer


def test_the_toy_that_longrope_trained_names_its_base_and_has_its_factors():
    card = describe("toy-longrope")
    assert card.spec.startswith("toy+longrope@") and card.trained.base == "toy"
    assert card.own_method == "longrope,factor=512" and card.trained.sequence_length == 131072
    model = load("toy-longrope", device="cpu", dtype="float32").model
    method = catalog.load("methods", card.own_method)
    assert method.notice(model, 2**21) is None
    assert len(method.provenance(model, 2**21)["factors"]) == 16


@pytest.mark.slow
def test_the_toy_that_longrope_trained_finds_keys_where_the_toy_does_not(tmp_path, capsys):
    words = "run --task passkey --lengths 16k --samples 2 --json --results"
    found = {}
    for name, more in {"trained": "-m longrope", "plain": "-m none --model toy"}.items():
        with pytest.raises(SystemExit):
            main([*words.split(), str(tmp_path), *more.split()])
        said = capsys.readouterr().out
        (row,) = json.loads(said[said.index("[") :])
        found[name] = row["value"]
    assert found["trained"] >= 0.8 and found["plain"] <= 0.4
