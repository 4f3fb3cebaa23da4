"""What every method that is trained promises while it is, and what makes each of them itself."""

import json
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AutoConfig, AutoModelForCausalLM

from harness import catalog
from harness.cli import main
from harness.families import attention_layers
from harness.method import Recipe
from harness.probe import NotOn, _logits, prove
from harness.rope import Rope
from harness.rotation import Drawn, Rotation, unturned
from harness.show import recipe
from harness.train.course import recipe as found

LENGTH = 512
NAMES = [*catalog.names("methods")]
every_method = pytest.mark.parametrize("name", NAMES)


def built(family="llama", **more):
    torch.manual_seed(0)
    shape = {
        "vocab_size": 128,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
        "pad_token_id": 0,
    }
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(shape | more)))


@pytest.fixture
def llama():
    return built().eval()


TOKENS = (torch.arange(48) * 7 % 128)[None]


def logits(model, tokens=TOKENS):
    with torch.no_grad():
        return model(tokens, use_cache=False).logits


def learnt(model):
    """A loss, and the gradients it gives, for one seed."""
    torch.manual_seed(3)
    model.zero_grad()
    loss = model(TOKENS, labels=TOKENS, use_cache=False).loss
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}


def call(*words):
    """The exit code of a command."""
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    return stopped.value.code


@contextmanager
def training(method, model, length=LENGTH):
    with method.in_training(model, length):
        model.train()
        try:
            yield
        finally:
            model.eval()


# Of every method


@every_method
def test_the_model_comes_back_as_it_was(llama, name):
    method = catalog.load("methods", name)
    before, state, keys = logits(llama), repr(llama), list(llama.state_dict())
    attention = llama.config._attn_implementation
    with training(method, llama):
        learnt(llama)
    llama.zero_grad(set_to_none=True)
    with pytest.raises(KeyError), method.in_training(llama, LENGTH):
        raise KeyError
    assert repr(llama) == state and list(llama.state_dict()) == keys
    assert llama.config._attn_implementation == attention
    assert torch.equal(logits(llama), before)


@every_method
def test_the_gradient_reaches_all_that_learns(llama, name):
    base = {parameter for parameter, _ in llama.named_parameters()}
    with training(catalog.load("methods", name), llama):
        for parameter, gradient in learnt(llama)[1].items():
            assert gradient.isfinite().all(), parameter
            assert (gradient != 0).any() or parameter not in base, parameter


@every_method
def test_layers_run_again_on_the_way_back_learn_the_same(llama, name):
    with training(catalog.load("methods", name), llama):
        loss, gradients = learnt(llama)
        llama.activation_checkpointing_enable()
        again, found = learnt(llama)
    assert torch.equal(again, loss)
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-5, atol=1e-7)


@every_method
def test_what_is_read_while_training_is_read_as_it_will_be(llama, name):
    method = catalog.load("methods", name)
    with training(method, llama):
        llama.eval()
        found = logits(llama)
    with method.applied_to(llama, LENGTH):
        assert torch.equal(found, logits(llama))


@every_method
def test_what_is_drawn_follows_from_the_seed(llama, name):
    with training(catalog.load("methods", name), llama):
        (loss, gradients), (again, found) = learnt(llama), learnt(llama)
    assert torch.equal(loss, again)
    assert all(torch.equal(found[n], gradient) for n, gradient in gradients.items())


# Of recipes


RECIPES = [
    (name, key) for name in NAMES for key in (*catalog.load("methods", name).recipes, "quick")
]
PUBLISHED = [pair for pair in RECIPES if catalog.load("methods", pair[0]).recipes]
every_recipe = pytest.mark.parametrize(("name", "key"), PUBLISHED)


@every_recipe
def test_every_number_of_a_recipe_has_its_source(name, key):
    shown = recipe("recipe", f"{name}/{key}")
    json.dumps(shown, allow_nan=False)
    for number, said in shown["numbers"].items():
        assert said["source"] or (number == "factor" and said["value"] is None), number


@every_recipe
def test_a_recipe_makes_sense(name, key):
    numbers = found(catalog.load("methods", name), key)
    assert numbers.batch_tokens % numbers.sequence_length == 0
    assert 0 <= numbers.warmup < numbers.steps
    assert numbers.sources.keys() <= {f.name for f in fields(Recipe)}
    assert bool(numbers.also) <= (numbers.trains == "lora")


def test_the_published_numbers_are_those():
    shown = {spec: recipe("recipe", spec)["numbers"] for spec in ("yarn/paper", "yarn/128k")}
    told = [[n[f]["value"] for f in ("steps", "factor", "seed")] for n in shown.values()]
    assert told == [[400, 16, 42], [200, 32, 31337]]
    ntk = found(catalog.load("methods", "ntk"), "paper")
    own = Rope(theta=1e4, dim=128, original_length=4096)
    assert own.ntk_base(29) == pytest.approx(305922, rel=1e-4)  # what LCEG's checkpoint froze
    assert ntk.factor * 4096 == ntk.sequence_length  # how far it is trained to read


def test_a_recipe_is_printed_with_sources_and_disagreements(capsys):
    assert call("show", "recipe", "yarn/128k") == 0
    out = capsys.readouterr().out
    assert "batch tokens: 4,194,304\n    section 4.1: 64 sequences" in out
    assert "where sources disagree:\n  - The paper has AdamW" in out
    assert call("show", "recipe", "pi/quick", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["numbers"]["steps"]["value"] == 60
    assert "two cores" in shown["numbers"]["steps"]["source"]
    assert call("list", "recipes", "--json") == 0
    listed = {item["name"]: item["description"] for item in json.loads(capsys.readouterr().out)}
    assert {f"{name}/quick" for name in catalog.names("methods")} < set(listed)
    assert "yarn/128k" in listed and "as clex" not in listed["yarn/quick"]
    assert listed["dynamic-ntk/paper"].endswith(", as clex: it was published with none")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("recipe", "yarn/120k"), "Did you mean '128k'"),
        (("recipe", "yarm/paper"), "Did you mean 'yarn'"),
        (("recipe",), "harness list recipes"),
        (("yarn", "pi"), "harness list recipes"),
    ],
)
def test_a_recipe_that_is_not_there_is_said(capsys, words, said):
    assert call("show", *words) == 2
    assert said in capsys.readouterr().err


# Of positions


DRAWN = ["random-pos", "pose", "pose,interpolation=ntk,chunks=4", "pose,interpolation=yarn"]
every_drawn = pytest.mark.parametrize("spec", DRAWN)


def drawn(spec, model, n, length=LENGTH):
    """The positions at which n tokens would be trained next."""
    with catalog.load("methods", spec).in_training(model, length):
        rotary = model.get_decoder().rotary_emb
        assert isinstance(rotary, Drawn)
        return rotary.draw(n)


@every_drawn
def test_positions_are_sorted_distinct_and_in_range(llama, spec):
    reach = 16 * 64 if spec == "random-pos" else LENGTH
    last = 0
    for seed in range(50):
        torch.manual_seed(seed)
        positions = drawn(spec, llama, 48)
        assert positions.shape == (48,) and positions.dtype == torch.int64
        assert (positions.diff() > 0).all()
        assert positions[0] >= 0 and positions[-1] < reach
        last = max(last, int(positions[-1]))
    assert last > 0.8 * reach


@pytest.mark.parametrize("chunks", [1, 2, 4])
def test_chunks_are_contiguous_and_start_at_zero(llama, chunks):
    for seed in range(50):
        torch.manual_seed(seed)
        positions = drawn(f"pose,chunks={chunks}", llama, 48)
        assert positions[0] == 0
        assert (positions.diff() > 1).sum() <= chunks - 1


@every_drawn
def test_they_are_drawn_once_for_each_forward_pass_in_training(llama, spec, monkeypatch):
    seen = []
    with training(catalog.load("methods", spec), llama):
        rotary = llama.model.rotary_emb
        draw = rotary.draw
        monkeypatch.setattr(rotary, "draw", lambda n: seen.append(draw(n)) or seen[-1])
        llama.activation_checkpointing_enable()
        for _ in range(2):
            llama(TOKENS, labels=TOKENS, use_cache=False).loss.backward()
        llama.eval()
        logits(llama)
    assert len(seen) == 2 and not torch.equal(*seen)


@every_drawn
def test_the_table_is_that_of_the_positions_drawn(llama, spec):
    with training(catalog.load("methods", spec), llama):
        rotary, given = llama.model.rotary_emb, torch.arange(48)[None]
        torch.manual_seed(5)
        cos, sin = rotary(torch.empty(0, dtype=torch.float64), given)
        torch.manual_seed(5)
        for found, exact in zip((cos, sin), rotary.encoding.table(rotary.draw(48)), strict=True):
            assert torch.equal(found[0, :, :8], exact)


def test_sliding_windows_keep_contiguous_positions():
    gemma = built(
        "gemma3_text",
        head_dim=16,
        sliding_window=32,
        layer_types=["sliding_attention", "full_attention"],
    )
    like, given = torch.empty(0), torch.arange(48)[None]
    own = gemma.model.rotary_emb(like, given, "sliding_attention")
    with training(catalog.load("methods", "random-pos"), gemma):
        found = gemma.model.rotary_emb(like, given, "sliding_attention")
        torch.testing.assert_close(found, own, rtol=0, atol=1e-5)
        full = gemma.model.rotary_emb(like, given, "full_attention")
        assert not torch.allclose(full[1], own[1], atol=0.1)


@pytest.mark.parametrize(
    ("spec", "n"), [("random-pos", 1025), ("pose", 513), ("random-pos,max_factor=2", 129)]
)
def test_a_sequence_longer_than_the_range_is_refused(llama, spec, n):
    with pytest.raises(ValueError, match=r"Sequences of .* tokens"):
        drawn(spec, llama, n)


@pytest.mark.parametrize(
    "spec", ["random-pos,max_factor=0.5", "random-pos,max_factor=nan", "pose,chunks=0"]
)
def test_what_makes_no_sense_is_refused(spec):
    with pytest.raises(ValueError, match=r"^(?!.*has no parameter)"):
        catalog.load("methods", spec)


@pytest.mark.parametrize(
    ("spec", "base"),
    [("pose", "pi"), ("pose,interpolation=ntk", "ntk"), ("pose,interpolation=yarn", "yarn")],
)
def test_pose_is_read_with_as_its_interpolation_is(spec, base):
    own = Rope(theta=1e4, dim=64, original_length=2048)
    found, theirs = (catalog.load("methods", s).encoding(own, 32768) for s in (spec, base))
    assert torch.equal(found.frequencies, theirs.frequencies)
    assert found.attention_factor == theirs.attention_factor


def test_random_positions_say_how_far_they_were_drawn(llama):
    method = catalog.load("methods", "random-pos")
    assert method.notice(llama, 1024) is None
    assert "no position beyond 1,024" in method.notice(llama, 1025)


# Of ALiBi


GOLDEN = json.loads((Path(__file__).parent / "golden" / "alibi.json").read_text())["slopes"]
ALIBI = catalog.load("methods", "alibi")
BENT = {
    "llama": {},
    "gpt_neox": {},
    "phi": {"partial_rotary_factor": 0.5},
    "mistral": {"sliding_window": 20},
    "gemma3_text": {
        "head_dim": 16,
        "sliding_window": 20,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}
every_bent = pytest.mark.parametrize("family", BENT)


def slopes(model):
    return ALIBI.provenance(model, LENGTH)["slopes"]


def by_the_book(module, q, k, v, mask, *, scaling, sliding_window=None, **_):
    """ALiBi with an explicit matrix, in float32."""
    n, groups = q.shape[2], q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, 1) for x in (k, v))
    behind = torch.arange(n)[:, None] - torch.arange(n)
    scores = q @ k.mT * scaling - torch.tensor(module.slopes)[:, None, None] * behind
    unseen = (behind < 0) | (behind >= (sliding_window or n))
    return (scores.masked_fill(unseen, -torch.inf).softmax(-1) @ v).transpose(1, 2), None


@contextmanager
def alibi_by_the_book(model):
    AttentionInterface.register("by-the-book", by_the_book)
    for layer in attention_layers(model.get_decoder()):
        layer.slopes = slopes(model)
    with unturned(model):
        model.config._attn_implementation = "by-the-book"
        yield
        model.config._attn_implementation = "sdpa"


@pytest.mark.parametrize("heads", GOLDEN)
def test_slopes_are_those_of_the_released_code(heads):
    model = built(num_attention_heads=int(heads), hidden_size=4 * int(heads), head_dim=4)
    assert slopes(model) == pytest.approx(GOLDEN[heads], rel=1e-12)


@pytest.mark.parametrize("heads", [4, 6])
@every_bent
def test_alibi_is_the_explicit_bias(family, heads):
    more = BENT[family] | {"hidden_size": 16 * heads, "num_attention_heads": heads}
    model = built(family, **more).eval()
    with alibi_by_the_book(model):
        expected = logits(model)
        loss, gradients = learnt(model)
    with ALIBI.applied_to(model, LENGTH):
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=2e-5)
        found_loss, found_gradients = learnt(model)
        for block in (48, 13):
            ours = _logits(model, TOKENS[0], block)
            torch.testing.assert_close(ours, expected[0], rtol=0, atol=2e-5)
    torch.testing.assert_close(found_loss, loss)
    for parameter, gradient in gradients.items():
        torch.testing.assert_close(found_gradients[parameter], gradient, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(logits(model), expected, atol=0.1)


@pytest.mark.parametrize("distance", [0, 1, 255, 256, 65535, 65536, 2**21 - 1])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_bias_is_exact_at_any_distance_in_any_dtype(dtype, distance):
    """What the channels multiply to, a product of exact numbers, is -m times the distance."""
    module = import_module("harness.methods.alibi")
    bias, heads = module.Biased(module.slopes(12)), torch.tensor(module.slopes(12)).double()
    toward = bias._of_heads(80**-0.5).to(dtype).double() * 80**-0.5
    away = bias._of_keys(distance + 1, torch.empty(0, dtype=dtype))[0].double()
    torch.testing.assert_close(toward @ away, -heads * distance, rtol=2e-6, atol=0)


def test_alibi_in_bfloat16_is_alibi():
    model = built(num_attention_heads=6, hidden_size=96).to(torch.bfloat16).eval()
    with ALIBI.applied_to(model.float(), LENGTH):
        exact = logits(model)
    model.to(torch.bfloat16)
    with ALIBI.applied_to(model, LENGTH):
        for block in (48, 13):
            off = (_logits(model, TOKENS[0], block) - exact[0]).pow(2).mean().sqrt()
            assert off < 0.02 * exact.pow(2).mean().sqrt()


def test_the_proof_sees_the_bias_in_every_layer(llama):
    with ALIBI.applied_to(llama, LENGTH):
        prove(llama, ALIBI, LENGTH)
        last = attention_layers(llama.model)[-1]
        bend, last.bend = last.bend, None
        with pytest.raises(NotOn, match="bias"):
            prove(llama, ALIBI, LENGTH)
        last.bend = bend
    assert not any(hasattr(layer, "bend") for layer in attention_layers(llama.model))
    with unturned(llama), pytest.raises(NotOn, match="bias"):
        prove(llama, ALIBI, LENGTH)


@pytest.mark.parametrize(
    ("family", "why"),
    [("falcon", "calls torch's attention itself"), ("gemma2", "caps its scores")],
)
def test_alibi_is_refused_where_it_would_not_be_itself(family, why):
    model = built(family, **({"alibi": False} if family == "falcon" else {}))
    assert why in ALIBI.unfit(model, LENGTH)
    if family == "falcon":
        with pytest.raises(LookupError, match=why), ALIBI.applied_to(model, LENGTH):
            pass
    assert ALIBI.unfit(built(), LENGTH) is None


# Of LongLoRA


LONGLORA = catalog.load("methods", "longlora")


@pytest.mark.parametrize("n", [48, 50, 7, 3])
def test_shifted_attention_is_that_of_its_groups(n):
    """With the mask that it stands for, written out: half of the heads, half a group later."""
    shifted = import_module("harness.methods.longlora").Shifted(4)
    torch.manual_seed(0)
    q, (k, v) = torch.randn(2, 5, n, 8), torch.randn(2, 2, 1, n, 8)
    found = shifted(attention_of(), q, k, v, scale=0.3, training=True)
    size = -(-n // 4)
    at = torch.arange(n)
    for head in range(5):
        group = at // size if head < 2 else (at - size // 2).div(size, rounding_mode="floor")
        seen = (group[:, None] == group) & (at[:, None] >= at)
        scores = (q[:, head] @ k[:, 0].mT * 0.3).masked_fill(~seen, -torch.inf)
        torch.testing.assert_close(found[:, head], scores.softmax(-1) @ v[:, 0])


def test_one_head_alone_can_learn_in_groups():
    model = built(num_attention_heads=1, num_key_value_heads=1)
    with training(LONGLORA, model):
        assert learnt(model)[0].isfinite()


def attention_of():
    return lambda q, k, v, scale: scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)


@every_bent
def test_no_token_learns_from_a_later_one(family):
    model, other = built(family, **BENT[family]), TOKENS.clone()
    other[0, -5:] = 3
    with training(LONGLORA, model), torch.no_grad():
        one, two = (model(t, use_cache=False).logits[0] for t in (TOKENS, other))
    assert torch.equal(one[:-5], two[:-5]) and not torch.equal(one[-5:], two[-5:])


@every_bent
def test_groups_are_for_training_alone(family):
    model, pi = built(family, **BENT[family]).eval(), catalog.load("methods", "pi")
    with pi.applied_to(model, LENGTH):
        whole = logits(model)
    with LONGLORA.applied_to(model, LENGTH):
        assert torch.equal(logits(model), whole)
    with LONGLORA.in_training(model, LENGTH):
        torch.testing.assert_close(logits(model), whole, rtol=0, atol=1e-5)
        model.train()
        assert not torch.allclose(logits(model), whole, atol=1e-3)


def test_longlora_is_not_trained_where_attention_cannot_be_bent():
    falcon = built("falcon", alibi=False)
    with pytest.raises(LookupError, match="calls torch's"), LONGLORA.in_training(falcon, LENGTH):
        pass
    assert LONGLORA.unfit(falcon, LENGTH) is None
    assert not isinstance(falcon.transformer.rotary_emb, Rotation)
