"""What is written after a shared beginning is what is written alone; it stops where it is told."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from harness import catalog
from harness.engine import generate
from harness.engine.evaluate import evaluate, tree_of
from harness.families import FAMILIES
from harness.task import Choice, Losses, Request, Text, Verdict

SHAPE = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.15,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
LAYOUTS = {
    "mistral": {"sliding_window": 24},
    "mixtral": {"num_local_experts": 4, "sliding_window": None},
    "qwen2": {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    "qwen3": {"head_dim": 16},
    "smollm3": {"no_rope_layers": [1, 0]},
    "phi": {"partial_rotary_factor": 0.5},
    "phi3": {"sliding_window": 20},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16, "sliding_window": 24},
    "gemma3_text": {"head_dim": 16, "sliding_window": 24, "sliding_window_pattern": 2},
    "falcon": {"multi_query": True, "alibi": False},
    "mpt": {"max_seq_len": 256},
}
LENGTH = 200


def small(name, **more):
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **(SHAPE | LAYOUTS.get(name, {}) | more))
    return AutoModelForCausalLM.from_config(config).eval()


def questions(limit=6):
    """On one document, one the beginning of another, one asked twice, and one on something else."""
    draw = np.random.default_rng(0).integers(3, 256, 400)
    document, first, second = draw[:90], draw[90:115], draw[115:120]
    prompts = [
        document,
        np.concatenate([document, first]),
        np.concatenate([document, first]),
        np.concatenate([document, first, second]),
        np.concatenate([document, second]),
        draw[200:240],
    ]
    ask = Text(max_new_tokens=limit)
    return [Request(id=f"{i}", tokens=p, ask=ask) for i, p in enumerate(prompts)]


@pytest.fixture
def logits(monkeypatch):
    """All that were decoded from so far, in order."""
    seen, own = [], generate.Head.logits
    monkeypatch.setattr(generate.Head, "logits", lambda *a: seen.append(out := own(*a)) or out)
    return seen


def together_as_alone(model, asked, logits, block):
    together = evaluate(model, asked, block=block)
    shared = torch.cat(logits)
    logits.clear()
    alone = [outcome for r in asked for outcome in evaluate(model, [r], block=1000)]
    assert together == alone and {len(outcome) for outcome in alone} <= {*range(1, 7)}
    apart = torch.cat(logits)
    assert shared.shape == apart.shape
    assert (shared[:, None] - apart).abs().amax(-1).amin(1).max() < 1e-4  # in another order


# laws


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("block", [1000, 16])
def test_every_family_writes_after_a_shared_beginning_as_alone(name, block, logits):
    together_as_alone(small(name), questions(), logits, block)


@pytest.mark.parametrize("name", catalog.names("methods"))
def test_under_every_method_too(name, logits):
    model, method = small("llama"), catalog.load("methods", name)
    if reason := method.unfit(model, LENGTH):
        pytest.skip(reason)
    with method.applied_to(model, LENGTH):
        together_as_alone(model, questions(), logits, 16)


def test_what_prompts_share_is_read_once_and_its_keys_are_kept_once(monkeypatch):
    made, read, asked = [], [], questions()

    class Counted(generate.Keys):
        def __init__(self, capacity, *more):
            super().__init__(capacity, *more)
            made.append(self)

    monkeypatch.setattr(generate, "Keys", Counted)
    evaluate(small("llama"), asked, step=read.append)
    assert sum(read) == len(tree_of(asked).tokens) == 90 + 25 + 5 + 5 + 40
    assert [keys.capacity for keys in made] == [90 + 25 + 5 + 6] * SHAPE["num_hidden_layers"]


def test_answers_on_one_document_are_written_side_by_side(logits, monkeypatch):
    """One pass of the layers gives each of them a token; by themselves where a method bends."""
    monkeypatch.setattr(generate, "end_tokens", lambda model: set())
    model, asked = small("llama"), questions()[1:5]
    evaluate(model, asked)
    assert [len(rows) for rows in logits] == [4] * 6
    logits.clear()
    evaluate(model, asked, block=40)  # room for one and no more
    assert [len(rows) for rows in logits] == [1] * 24
    with catalog.load("methods", "log-n").applied_to(model, LENGTH):
        logits.clear()
        evaluate(model, asked)
    assert [len(rows) for rows in logits] == [1] * 24


def test_answers_come_in_the_order_of_the_questions():
    model, (short, *_, other) = small("llama"), questions()
    verdict = Request(id="v", tokens=short.tokens, ask=Verdict(answer=(5, 6)))
    choice = Request(id="c", tokens=other.tokens, ask=Choice(options=((5,), (6, 7))))
    losses = Request(id="l", tokens=other.tokens, ask=Losses(start=3, stop=9))
    asked = [verdict, short, choice, other, losses]
    for request, outcome in zip(asked, evaluate(model, asked), strict=True):
        np.testing.assert_allclose(outcome, evaluate(model, [request])[0], atol=1e-5)


def test_a_text_that_goes_on_with_an_option_says_it_is_the_likeliest():
    """A choice, a verdict and free text agree on one token."""
    model, (request, *_) = small("llama"), questions()
    every = Choice(options=tuple((t,) for t in range(256)))
    (said,) = evaluate(model, [request])
    (likely,) = evaluate(model, [Request(id="", tokens=request.tokens, ask=every)])
    assert int(np.argmax(likely)) == said[0]
    assert np.exp(likely).sum() == pytest.approx(1, abs=1e-5)


# choices


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2"])
def test_an_option_is_as_likely_as_the_plain_forward_says(name):
    model, prompt = small(name), questions()[0].tokens
    options = ((7,), (7, 8, 9), (7, 8, 10, 11), (200, 3), ())
    read = []
    request = Request(id="", tokens=prompt, ask=Choice(options=options))
    (found,) = evaluate(model, [request], block=16, step=read.append)
    assert sum(read) == pytest.approx(len(prompt) + 1 + 1 + 1 + 1)  # 7, then 8, then 10; 200
    for option, said in zip(options, found, strict=True):
        ids = torch.as_tensor([*prompt, *option])[None]
        with torch.inference_mode():
            likely = model(ids, attention_mask=torch.ones_like(ids)).logits[0].log_softmax(-1)
        rows = range(len(prompt) - 1, len(prompt) - 1 + len(option))
        expected = sum(float(likely[r, t]) for r, t in zip(rows, option, strict=True))
        assert isinstance(said, float) and said == pytest.approx(expected, abs=1e-4)


# where it stops


PIECES = {
    10: " caf",
    11: b"\xc3",
    12: b"\xa9.",
    13: "\n",
    14: "\nQues",
    15: "tion",
    16: ": Wh",
    17: "y",
}


def spelled(tokens):
    pieces = (PIECES.get(int(t), " one") for t in tokens)
    return b"".join(p if isinstance(p, bytes) else p.encode() for p in pieces).decode(
        errors="replace"
    )


@pytest.fixture(scope="module")
def counting():
    """A model that says after each token the next higher one, by its weights alone."""
    model = small("llama", tie_word_embeddings=False)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embedding = model.model.embed_tokens.weight
        embedding /= embedding.norm(dim=1, keepdim=True).clamp(min=1e-6)
        model.lm_head.weight.copy_(embedding.roll(1, 0))
    return model


def said(model, last=9, **ask):
    prompt = np.array([1, 5, 14, 15, last])
    request = Request(id="prompt", tokens=prompt, ask=Text(**{"max_new_tokens": 12} | ask))
    (outcome,) = evaluate(model, [request], text=spelled)
    return list(outcome)


@pytest.mark.parametrize(
    ("stop", "last"),
    [
        (("caf",), 10),
        (("é",), 12),  # two tokens make one letter
        ((".\n",), 13),
        (("\n\nQuestion:",), 16),
        (("Question", "é"), 12),
        (("é.\n\nQ", "nowhere"), 14),
        (("y one",), 18),
    ],
)
def test_it_stops_with_the_token_that_completes_a_stop_string(counting, stop, last):
    assert said(counting, stop=stop) == list(range(10, last + 1))


def test_a_stop_string_in_the_prompt_or_half_in_it_stops_nothing(counting):
    assert said(counting, stop=("Question one",)) == list(range(10, 22))
    assert said(counting, stop=("one caf",)) == list(range(10, 22))


@pytest.mark.parametrize("ends", [13, [50, 13]])
def test_it_stops_before_an_end_token(counting, ends, monkeypatch):
    monkeypatch.setattr(counting.generation_config, "eos_token_id", ends)
    assert said(counting) == [10, 11, 12]
    assert said(counting, stop=("é",)) == [10, 11, 12]
    assert said(counting, stop=("caf",)) == [10]


def test_it_stops_before_the_tokenizers_end_token_too_and_leaves_out_what_is_no_text(counting):
    asked = [Request(id="", tokens=np.array([1, 5, 9]), ask=Text(max_new_tokens=12))]
    assert evaluate(counting, asked, ends={14}) == [(10, 11, 12, 13)]
    assert evaluate(counting, asked, ends={14}, marks={11, 13}) == [(10, 12)]


def test_what_is_written_already_is_told_and_not_written_again(counting):
    prompts = [[1, 5, 9], [1, 5, 9, 20], [1, 7, 30]]
    asked = [
        Request(id=f"{i}", tokens=np.array(prompt), ask=Text(max_new_tokens=4))
        for i, prompt in enumerate(prompts)
    ]
    told, read = {}, []
    whole = evaluate(counting, asked, tell=told.__setitem__)
    assert told == dict(enumerate(whole))
    del told[1]
    again = evaluate(counting, asked, written=told, tell=told.__setitem__, step=read.append)
    assert again == whole and told[1] == whole[1]
    assert sum(read) == len(tree_of(asked).tokens)


def test_a_model_without_an_end_token_writes_all_it_may(counting, monkeypatch):
    monkeypatch.setattr(counting.generation_config, "eos_token_id", None)
    assert said(counting, max_new_tokens=1) == [10]
    assert len(said(counting, max_new_tokens=30)) == 30


def test_requests_on_one_prompt_stop_each_in_its_own_way(counting):
    prompt = np.array([1, 5, 9])
    ways = [{"stop": ("é",)}, {}, {"stop": ("\n\n",)}, {"max_new_tokens": 2}]
    asked = [
        Request(id=f"{i}", tokens=prompt, ask=Text(**{"max_new_tokens": 8} | way))
        for i, way in enumerate(ways)
    ]
    assert [len(outcome) for outcome in evaluate(counting, asked, text=spelled)] == [3, 8, 5, 2]


def test_stopping_at_words_takes_somebody_who_spells(counting):
    request = Request(id="", tokens=np.array([1, 5]), ask=Text(max_new_tokens=3, stop=("a",)))
    with pytest.raises(TypeError, match="how tokens read"):
        evaluate(counting, [request])


def test_decoding_from_what_is_no_number_is_named():
    model = small("llama")
    with torch.no_grad():
        model.lm_head.weight[7, 0] = float("inf")
    with pytest.raises(FloatingPointError, match="'0' at position 89 are not finite"):
        evaluate(model, questions())
