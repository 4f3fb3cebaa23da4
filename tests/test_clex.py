"""CLEX: what it promises while it learns, what its checkpoints say, and the published numbers.

`golden/clex.json` holds what the published layer computed, in float32 with torchdiffeq. Log
frequencies agree with it to 2e-5; a solution in float64 does to 8e-6.
"""

import json
import shutil
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from math import log, sqrt
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.nn.functional import silu
from torchdiffeq import odeint

from harness import catalog
from harness.model import describe, load
from harness.probe import check_identity, prove
from harness.rope import Rope
from harness.train.course import settle

GOLDEN = json.loads((Path(__file__).parent / "golden" / "clex.json").read_text())
WEIGHTED = ("dim8_silu", "dim64_silu_pf1")
CLEX = catalog.load("methods", "clex")
MODULE = import_module(type(CLEX).__module__)
Equation, positions = MODULE.Equation, MODULE.positions
TRAINED = 64


def published(name):
    """A golden case: its rotary embedding, its equation, and the method as it is set there."""
    case = GOLDEN[name]
    rope = Rope(theta=case["base"], dim=case["dim"], original_length=case["original_length"])
    equation = Equation(*(torch.tensor(case[f"ode_{end}_proj"]) for end in ("up", "down")))
    return case, rope, equation, replace(CLEX, activation=case["rope_scaling"]["act"])


def random_equation(dim, param_factor=1):
    torch.manual_seed(1)
    up = Equation.new(dim, param_factor).ode_up_proj.detach()
    return Equation(up, 0.03 * torch.randn(param_factor * dim, dim // 2))


def published_formula(equation, rope, t, act, step):
    """Log frequencies as the published code has them: dz/dt whole, from z(1) = ln theta."""
    up, down = (w.detach().double() for w in equation.parameters())
    j = torch.arange(0, rope.dim, 2, dtype=torch.float64)

    def slope(time, z):
        alpha = 2 * time - 1
        known = -(j / rope.dim) * log(1e4) - j / (rope.dim - 2) * alpha.log()
        return act((z + known) @ up) @ down - 2 * j / ((rope.dim - 2) * alpha)

    times = torch.tensor([1, t], dtype=torch.float64)
    start = rope.frequencies.log()
    return odeint(slope, start, times, method="rk4", options={"step_size": step})[1]


def log_frequencies(method, rope, equation, t):
    found = replace(method, factor=float(t)).encoding(rope, 1, equation).frequencies
    return found.detach().log()


@pytest.fixture
def llama():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=TRAINED,
    )
    return transformers.LlamaForCausalLM(config)


@pytest.fixture
def learned(llama):
    """A model that comes with an equation, as `harness.model.load` leaves it."""
    equation = random_equation(16)
    llama.unexpected = {
        f"model.clex_layer.proj_func.{name}": weight.detach()
        for name, weight in equation.named_parameters()
    }
    return llama


def tokens(n=96):
    return (torch.arange(n) * 7 % 256)[None]


def logits(model):
    with torch.inference_mode():
        return model(tokens(), use_cache=False).logits


def gradients(model, passes=4):
    """What the equation's weights are told by some passes in training, from one seed."""
    torch.manual_seed(3)
    model.train()
    with CLEX.in_training(model, 8 * TRAINED):
        weights = dict(model.model.clex_layer.named_parameters())
        for _ in range(passes):
            model(tokens(), labels=tokens()).loss.backward()
        return {name.rpartition(".")[2]: weight.grad for name, weight in weights.items()}


# What it promises of a fixed length


def test_within_the_trained_window_what_was_learned_changes_nothing():
    rope = Rope(theta=1e4, dim=64, original_length=4096)
    found = CLEX.encoding(rope, 4096, random_equation(64))
    assert torch.equal(found.frequencies, rope.frequencies)


def test_t_is_the_length_in_windows_rounded_up():
    rope = Rope(theta=1e4, dim=64, original_length=4096)
    for length, t in ((1, 1), (4096, 1), (4097, 2), (8192, 2), (65536, 16)):
        assert CLEX.scale(rope, length) == t
        assert replace(CLEX, factor=2.5).scale(rope, length) == 2.5


def test_beyond_what_was_trained_it_refuses_in_words(llama):
    assert CLEX.unfit(llama, 16 * TRAINED) is None
    with pytest.raises(ValueError, match=r"reads up to 1,024 tokens here, max_factor = 16 times"):
        CLEX.applied_to(llama, 16 * TRAINED + 1)
    with pytest.raises(ValueError, match="and this would be 17 times"):
        CLEX.in_training(llama, 17 * TRAINED).__enter__()
    assert replace(CLEX, max_factor=32).unfit(llama, 17 * TRAINED) is None


def test_without_weights_it_says_that_it_is_ntk(llama, learned):
    del llama.unexpected
    assert "NTK-aware scaling with alpha = 2t - 1" in CLEX.notice(llama, 512)
    assert not CLEX.provenance(llama, 512)["learned"]
    learned.unexpected = {}
    assert "NTK-aware" in CLEX.notice(learned, 512)


def test_a_learned_model_comes_back_as_it_was(learned):
    learned.eval()
    before, state = logits(learned), repr(learned)
    with CLEX.applied_to(learned, 512):
        extended = logits(learned)
    with replace(CLEX, factor=15.0).applied_to(learned, 512):
        assert not torch.allclose(logits(learned), extended, atol=1e-3)
    assert not torch.allclose(extended, before, atol=1e-3)
    assert torch.equal(logits(learned), before) and repr(learned) == state
    assert CLEX.notice(learned, 512) is None


def test_it_solves_with_the_weights_of_now(learned):
    old = CLEX.provenance(learned, 512)["frequencies"]
    for weight in learned.unexpected.values():
        weight *= 1.5
    with CLEX.applied_to(learned, 512):
        new = learned.model.rotary_emb.encoding.frequencies
    assert not torch.allclose(new, torch.tensor(old, dtype=torch.float64), rtol=1e-3)


def test_weights_of_another_shape_are_refused(learned):
    learned.unexpected = {name: w[:4, :4] for name, w in learned.unexpected.items()}
    assert "for heads of 8 channels that rotate, and this model's have 16" in CLEX.unfit(
        learned, 512
    )


@pytest.mark.parametrize(
    "spec", ["max_factor=0", "param_factor=0", "time_step=0", "time_step=nan", "activation=relu"]
)
def test_what_makes_no_sense_is_refused(spec):
    with pytest.raises(ValueError, match=r"^(?!.*has no parameter)"):
        catalog.load("methods", f"clex,{spec}")


# What it promises while it learns


@pytest.mark.parametrize(("n", "t", "original"), [(64, 1, 64), (64, 5, 64), (96, 3, 64)])
@pytest.mark.parametrize("times", [1, 3, 4])
def test_positions_rise_from_the_first_to_the_last(n, t, original, times):
    """The published ones fall back at the end where a sequence is three windows long or more."""
    n *= times
    for _ in range(20):
        drawn = positions(n, t, original)
        ratio = n // original
        assert drawn.shape == (n,) and drawn.dtype == torch.float64
        assert drawn[0] == 0 and drawn[-1] == (n * t - 1) / ratio
        steps = drawn * ratio
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-9)
        assert (steps.round().diff() >= 1).all()


def test_short_sequences_have_positions_too():
    assert positions(1, 4, 64).tolist() == [0]
    assert positions(2, 4, 64).tolist() == [0, 7]
    assert positions(64, 1, 64).tolist() == list(range(64))


def test_training_gives_the_model_back(learned):
    learned.eval()
    before, rotary, state = logits(learned), learned.model.rotary_emb, repr(learned)
    came = {name: weight.clone() for name, weight in learned.unexpected.items()}
    with pytest.raises(KeyError), CLEX.in_training(learned, 512):
        names = [n for n in learned.state_dict() if "clex" in n]
        with torch.no_grad():
            learned.model.clex_layer.proj_func.ode_up_proj *= 2
        raise KeyError
    assert all(torch.equal(came[name], weight) for name, weight in learned.unexpected.items())
    assert names == [
        "model.clex_layer.proj_func.ode_up_proj",
        "model.clex_layer.proj_func.ode_down_proj",
    ]
    assert learned.model.rotary_emb is rotary and repr(learned) == state
    assert torch.equal(logits(learned), before)


def test_each_pass_in_training_mode_draws_anew_and_a_seed_repeats_it(learned):
    with CLEX.in_training(learned.train(), 512):
        torch.manual_seed(5)
        first, second = logits(learned), logits(learned)
        torch.manual_seed(5)
        assert torch.equal(logits(learned), first)
    assert not torch.allclose(first, second, atol=1e-3)


def test_out_of_training_mode_it_is_as_it_will_be_applied(learned):
    learned.eval()
    with CLEX.in_training(learned, 512):
        assert torch.equal(logits(learned), logits(learned))
        inside = logits(learned)
    with CLEX.applied_to(learned, 512):
        assert torch.equal(logits(learned), inside)


def test_what_was_just_learned_is_evaluated(learned):
    """The published layer keeps the frequencies that it solved for first."""
    learned.eval()
    with CLEX.in_training(learned, 512):
        before = logits(learned)
        with torch.no_grad():
            learned.model.clex_layer.proj_func.ode_down_proj *= 2
        after = logits(learned)
        with CLEX.applied_to(learned, 512):
            assert torch.equal(logits(learned), after)
    assert not torch.allclose(before, after, atol=1e-3)


def test_all_times_up_to_that_of_the_length_are_drawn(llama, monkeypatch):
    seen = set()

    def noted(n, t, original):
        seen.add(t)
        return positions(n, t, original)

    monkeypatch.setattr(MODULE, "positions", noted)
    with CLEX.in_training(llama.train(), 4 * TRAINED):
        for _ in range(40):
            llama.model.rotary_emb(torch.empty(0), torch.arange(8)[None])
    assert seen == {1, 2, 3, 4}
    with pytest.raises(ValueError, match="a length above the 64 tokens"):
        CLEX.in_training(llama, TRAINED).__enter__()


def test_gradients_reach_the_equation_through_checkpointed_layers(learned):
    plain = gradients(learned)
    learned.activation_checkpointing_enable()
    found = gradients(learned)
    for name, gradient in found.items():
        assert gradient.isfinite().all() and (gradient != 0).any()
        torch.testing.assert_close(gradient, plain[name], rtol=1e-4, atol=1e-7)


def test_a_new_equation_begins_to_learn(llama):
    found = gradients(llama)
    assert (found["ode_down_proj"] != 0).any()


def test_at_t_1_every_weight_has_a_gradient_of_zero(learned):
    """Who waits for all gradients, as DDP does, would otherwise wait for ever."""
    with replace(CLEX, factor=2.0).in_training(learned.eval(), 512):
        rotary = learned.model.rotary_emb
        rotary.method = replace(CLEX, factor=1.0)
        cos, sin = rotary(torch.empty(0), torch.arange(8)[None])
        (cos.sum() + sin.sum()).backward()
        found = [weight.grad for weight in learned.model.clex_layer.parameters()]
    assert len(found) == 2 and all((gradient == 0).all() for gradient in found)


def test_packed_documents_keep_their_own_positions(learned):
    twice = torch.cat([torch.arange(8), torch.arange(8)])[None]
    with CLEX.in_training(learned.train(), 512):
        cos, sin = learned.model.rotary_emb(torch.empty(0), twice)
    assert torch.equal(cos[:, :8], cos[:, 8:]) and torch.equal(sin[:, :8], sin[:, 8:])


def test_weights_are_float32_whatever_the_model_is(llama):
    with CLEX.in_training(llama.to(torch.bfloat16), 512):
        assert {w.dtype for w in llama.model.clex_layer.parameters()} == {torch.float32}
        assert llama(tokens()).logits.dtype == torch.bfloat16


# Log-scaled attention


def test_logits_grow_with_the_logarithm_of_the_length():
    golden = GOLDEN["log_scale"]
    rope = Rope(theta=1e4, dim=64, original_length=golden["original_length"])
    for length, ratio in golden["ratio"].items():
        for form, expected in (("published", ratio), ("clamped", max(1, ratio)), ("none", 1)):
            found = replace(CLEX, log_scale=form).encoding(rope, int(length)).attention_factor
            assert found**2 == pytest.approx(expected, rel=1e-6)


def test_of_part_of_a_head_logits_cannot_be_scaled():
    config = transformers.PhiConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=TRAINED,
    )
    phi = transformers.PhiForCausalLM(config)
    assert CLEX.unfit(phi, 512) is None
    assert "Only part of a head" in replace(CLEX, log_scale="clamped").unfit(phi, 512)


# Published checkpoints


def checkpoint(folder, place, *, log_scale=False, **rope_scaling):
    """A model with the published names, and with the rounded buffer that comes along there."""
    shutil.copytree(folder, place)
    config = json.loads((place / "config.json").read_text())
    del config["rope_parameters"]
    given = {"type": "clex", "max_factor": 8, "param_factor": 2, "time_dt": 0.01} | rope_scaling
    remote = {"AutoConfig": "configuration_clex.C", "AutoModelForCausalLM": "modeling_clex.M"}
    more = {"rope_scaling": given, "auto_map": remote, "log_scale": log_scale}
    (place / "config.json").write_text(json.dumps(config | more))
    equation = random_equation(16, 2)
    weights = load_file(place / "model.safetensors") | {
        f"model.clex_layer.proj_func.{name}": weight.detach()
        for name, weight in equation.named_parameters()
    }
    weights["model.clex_layer.inv_freq"] = torch.full((8,), 0.5, dtype=torch.bfloat16)
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    return equation


@pytest.mark.parametrize(
    ("said", "act"),
    [({"act": "tanh"}, torch.tanh), ({"act": "silu"}, silu), ({}, silu)],
    ids=["tanh", "silu", "first release"],
)
def test_a_published_checkpoint_is_read_as_it_is(folder, tmp_path, said, act):
    equation = checkpoint(folder, tmp_path / "clex", **said)
    live = load(str(tmp_path / "clex"), device="cpu", dtype="float32")
    rope = Rope.of(live.model)
    assert rope.original_length == live.card.original_length == 512
    assert CLEX.unfit(live.model, 8 * 512) is None and CLEX.notice(live.model, 4096) is None
    assert "max_factor = 8 times" in CLEX.unfit(live.model, 8 * 512 + 1)
    found = CLEX.provenance(live.model, 3 * 512)
    assert (found["max_factor"], found["factor"], found["learned"]) == (8, 3, True)
    exact = published_formula(equation, rope, 3, act, 0.01)
    mine = torch.tensor(found["frequencies"], dtype=torch.float64).log()
    torch.testing.assert_close(mine, exact, rtol=0, atol=1e-6)
    with CLEX.applied_to(live.model, 3 * 512):
        prove(live.model, CLEX, 3 * 512)
    with CLEX.in_training(live.model, 3 * 512):
        own = live.model.model.clex_layer.proj_func.ode_up_proj
        assert torch.equal(own, equation.ode_up_proj)


def test_within_its_window_a_published_checkpoint_is_plain(folder, tmp_path):
    checkpoint(folder, tmp_path / "clex")
    live = load(str(tmp_path / "clex"), device="cpu", dtype="float32")
    check_identity(live.model)
    none = catalog.load("methods", "none")
    plain = load(str(folder), device="cpu", dtype="float32").model
    assert none.provenance(live.model, 512) == none.provenance(plain, 512)
    assert plain.unexpected == {}
    assert describe(str(tmp_path / "clex")).config.rope_parameters["type"] == "clex"


def test_a_checkpoint_may_ask_for_log_scaled_attention(folder, tmp_path):
    checkpoint(folder, tmp_path / "clex", log_scale=True)
    live = load(str(tmp_path / "clex"), device="cpu", dtype="float32")
    assert "log-scaled attention, not clamped" in CLEX.notice(live.model, 1024)
    found = CLEX.provenance(live.model, 1024)
    assert found["attention_factor"] == pytest.approx(sqrt(log(1024) / log(512)))
    assert found["log_scale"] == "published"
    clamped = replace(CLEX, log_scale="clamped")
    assert clamped.notice(live.model, 1024) is None
    assert clamped.provenance(live.model, 64)["attention_factor"] == 1


def test_only_a_llama_has_the_scale_that_its_configuration_asks_for():
    said = {"rope_type": "default", "type": "clex", "rope_theta": 1e4}
    for family, factor in (("llama", sqrt(log(1024) / log(512))), ("mixtral", 1.0)):
        config = transformers.AutoConfig.for_model(
            family, max_position_embeddings=512, rope_parameters=dict(said), log_scale=True
        )
        found = CLEX.provenance(SimpleNamespace(config=config), 1024)
        assert found["attention_factor"] == pytest.approx(factor)
        assert found["log_scale"] == ("none" if factor == 1 else "published")


def test_what_was_trained_and_saved_here_is_read_again(folder, tmp_path):
    live = load(str(folder), device="cpu", dtype="float32")
    with CLEX.in_training(live.model, 2048):
        with torch.no_grad():
            live.model.model.clex_layer.proj_func.ode_down_proj += 0.02
        live.model.save_pretrained(tmp_path)
        inside = CLEX.provenance(live.model, 2048)
    live.tokenizer.save_pretrained(tmp_path)
    again = load(str(tmp_path), device="cpu", dtype="float32").model
    assert CLEX.provenance(again, 2048) == inside
    assert inside["learned"] and not CLEX.provenance(live.model, 2048)["learned"]


def test_a_training_holds_no_time_for_all_lengths():
    """A factor in its checkpoint's spec would be the t of short inputs too."""
    course = settle(describe("toy"), "clex", "quick", corpus="stdlib:train")
    assert course.method == "clex" and course.target == 16 * 4096


def test_it_reads_no_further_than_it_was_trained():
    course = settle(describe("toy"), "clex", "quick", corpus="stdlib:train", factor=4.0)
    assert course.method == "clex,max_factor=4" and course.target == 4 * 4096


# The published numbers


@pytest.mark.parametrize("name", WEIGHTED)
@pytest.mark.parametrize("step", [0.01, 0.1, 0.2])
def test_frequencies_are_the_published_ones(name, step):
    case, rope, equation, method = published(name)
    for t, expected in case["log_frequencies"].items():
        if step < 0.1 and float(t) > 4:
            continue
        mine = log_frequencies(replace(method, time_step=step), rope, equation, float(t))
        golden = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(mine, golden, rtol=0, atol=2e-5)


def test_tables_are_the_published_ones():
    case, rope, equation, method = published("dim8_silu")
    for golden in case["tables"]:
        found = method.encoding(rope, golden["rows"], equation)
        assert method.scale(rope, golden["rows"]) == golden["t"]
        table = found.table(torch.tensor(golden["positions"]))
        for mine, name in zip(table, ("cos", "sin"), strict=True):
            theirs = torch.tensor(golden[name], dtype=torch.float64)
            torch.testing.assert_close(mine.detach(), theirs, rtol=0, atol=1e-3)


def test_gradients_are_the_published_ones():
    case, rope, equation, method = published("dim8_silu")
    found = replace(method, factor=3.0).encoding(rope, 1, equation).frequencies
    loss = (found * torch.arange(1, 5)).sum()
    loss.backward()
    assert loss.item() == pytest.approx(case["gradients"]["value"], rel=2e-5)
    for end, weight in (("up", equation.ode_up_proj), ("down", equation.ode_down_proj)):
        golden = torch.tensor(case["gradients"][end])
        torch.testing.assert_close(weight.grad, golden, rtol=1e-4, atol=1e-5)


def test_positions_are_the_published_ones_but_the_last(monkeypatch):
    for golden in GOLDEN["dim8_silu"]["draws"]:
        sampled = torch.tensor(golden["sampled_ids"])
        monkeypatch.setattr(torch, "randperm", lambda n, ids=sampled: ids)
        mine = positions(golden["seq_len"], golden["t"], 16)
        assert mine[:-1].tolist() == golden["positions"][:-1]
        last = (golden["seq_len"] * golden["t"] - 1) / golden["scale_factor"]
        assert mine[-1] == last >= golden["positions"][-1]


@pytest.mark.parametrize("dim", [64, 128])
def test_without_weights_it_is_the_published_ntk(dim):
    rope = Rope(theta=1e4, dim=dim, original_length=4096)
    for t, expected in GOLDEN["no_weights"][str(dim)].items():
        for equation in (None, Equation.new(dim, 1)):
            mine = log_frequencies(CLEX, rope, equation, float(t))
            golden = torch.tensor(expected, dtype=torch.float64).log()
            torch.testing.assert_close(mine, golden, rtol=0, atol=2e-5)
            ntk = catalog.load("methods", f"ntk,factor={2 * float(t) - 1}").encoding(rope, 1)
            torch.testing.assert_close(mine.exp(), ntk.frequencies, rtol=1e-12, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("theta", "param_factor", "activation"), [(1e4, 2, "tanh"), (1e6, 1, "tanh"), (1e6, 1, "silu")]
)
@pytest.mark.parametrize("t", [1.3, 2, 16])
def test_the_published_form_solved_finely_agrees(theta, param_factor, activation, t):
    """Whatever the model's base, the equation is told of frequencies of base 10000."""
    rope = Rope(theta=theta, dim=16, original_length=4096)
    equation, act = random_equation(16, param_factor), MODULE.ACTIVATIONS[activation]
    mine = log_frequencies(replace(CLEX, activation=activation), rope, equation, t)
    exact = published_formula(equation, rope, t, act, 0.01)
    torch.testing.assert_close(mine, exact, rtol=0, atol=1e-6)


def test_the_coarse_step_of_this_form_is_more_exact_than_the_fine_one_of_the_published():
    _, rope, equation, method = published("dim64_silu_pf1")
    exact = log_frequencies(replace(method, time_step=0.005), rope, equation, 4.0)
    errors = [
        (log_frequencies(replace(method, time_step=step), rope, equation, 4.0) - exact).abs().max()
        for step in (0.05, 0.1, 0.2)
    ]
    assert all(12 < coarse / fine < 20 for fine, coarse in pairwise(errors))  # of fourth order
    golden = torch.tensor(GOLDEN["dim64_silu_pf1"]["log_frequencies"]["4.0"], dtype=torch.float64)
    assert CLEX.time_step == 0.2 and errors[-1] < (golden - exact).abs().max() / 10


# Its recipe


def test_every_number_of_the_recipe_has_a_source():
    recipe = CLEX.recipes["paper"]
    assert recipe.factor == CLEX.max_factor == 16
    assert recipe.batch_tokens * recipe.steps == pytest.approx(0.99 * 2e9, rel=1e-3)
    given = {"sequence_length", "steps", "batch_tokens", "learning_rate", "schedule", "warmup"}
    given |= {"weight_decay", "betas", "clip", "factor", "trains", "data", "seed"}
    assert given <= recipe.sources.keys()
    assert any("WarmupLR" in said for said in recipe.disagreements)
