"""What every method promises; no method needs a test file to be held to it."""

import json
import math
import pickle
from dataclasses import replace

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from harness import catalog
from harness.rope import Encoding, Rope, original_length
from harness.rotary import Reencoding, RotaryMethod, Unchanged
from harness.rotation import Rotation
from harness.show import show

TRAINED = 64
SMALL = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": TRAINED,
}
GROUPED = {"num_key_value_heads": 2}
FAMILIES = {
    "llama": GROUPED,
    "mistral": GROUPED,
    "mixtral": GROUPED | {"num_local_experts": 2},
    "qwen2": GROUPED,
    "qwen3": GROUPED | {"head_dim": 32},
    "smollm3": GROUPED | {"pad_token_id": 0},
    "phi": {},
    "phi3": {"pad_token_id": 0},
    "falcon": {"alibi": False},
    "gpt_neox": {},
    "gemma": {"head_dim": 16, "num_key_value_heads": 1},
    "gemma2": {"head_dim": 32},
    "gemma3_text": {
        "head_dim": 16,
        "sliding_window": 32,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}
NAMES = catalog.names("methods")
ROTARY = [n for n in NAMES if isinstance(catalog.load("methods", n), Reencoding)]
SCALED = [n for n in ROTARY if isinstance(catalog.load("methods", n), RotaryMethod)]
UNCHANGED = [n for n in ROTARY if isinstance(catalog.load("methods", n), Unchanged)]
every_method = pytest.mark.parametrize("name", NAMES)
every_rotary = pytest.mark.parametrize("name", ROTARY)
every_scaled = pytest.mark.parametrize("name", SCALED)


def built(family, **more):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **(SMALL | FAMILIES[family] | more))
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module", params=FAMILIES)
def member(request):
    return built(request.param)


@pytest.fixture(scope="module")
def llama():
    return built("llama")


@pytest.fixture
def llama31():
    """A checkpoint that comes with a scaling: trained on 64 tokens, extended to 512."""
    return built("llama", max_position_embeddings=512, rope_parameters=LLAMA31)


LLAMA31 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": TRAINED,
}


def logits(model, length):
    with torch.inference_mode():
        return model((torch.arange(length) * 7 % 256)[None], use_cache=False).logits


def tables(model, length, layer_type="full_attention"):
    """Cos and sin as the model will use them, in float64."""
    decoder = model.get_decoder()
    like, positions = torch.empty(0, dtype=torch.float64), torch.arange(length)[None]
    nested = layer_type in (getattr(decoder.config, "rope_parameters", None) or {})
    return torch.stack(decoder.rotary_emb(like, positions, *([layer_type] if nested else [])))


def encoding(name, length, **rope):
    own = Rope(**({"theta": 1e4, "dim": 64, "original_length": 2048} | rope))
    return catalog.load("methods", name).encoding(own, length)


# Of every method


@every_method
def test_the_model_comes_back_as_it_was(llama, name):
    before, rotary, state = logits(llama, 128), llama.model.rotary_emb, repr(llama)
    said = json.dumps(llama.config.to_dict(), default=str)
    with catalog.load("methods", name).applied_to(llama, 512):
        logits(llama, 128)
    with pytest.raises(KeyError), catalog.load("methods", name).applied_to(llama, 512):
        raise KeyError
    assert llama.model.rotary_emb is rotary
    assert repr(llama) == state
    assert json.dumps(llama.config.to_dict(), default=str) == said
    assert torch.equal(logits(llama, 128), before)


@every_method
def test_it_travels_to_another_process(name):
    method = catalog.load("methods", name)
    assert pickle.loads(pickle.dumps(method)) == method


@every_method
def test_it_says_what_it_is(name):
    method = catalog.load("methods", name)
    assert method.formula
    assert "http" in method.paper
    shown = show(name)
    assert all(parameter["doc"] for parameter in shown["parameters"].values())
    json.dumps(shown)


@every_method
def test_its_spec_has_one_name(name):
    assert catalog.canonical("methods", name) == name
    method = catalog.load("methods", name)
    if hasattr(method, "factor"):
        spec = catalog.canonical("methods", f"{name},factor=8.0")
        assert spec == f"{name},factor=8"
        assert catalog.load("methods", spec) == replace(method, factor=8.0)


@every_rotary
@pytest.mark.parametrize("length", [16, 2048, 5000, 2**21])
@pytest.mark.parametrize("dim", [4, 16, 64, 128])
def test_frequencies_fall_from_one(name, length, dim):
    """Some stand still: those of p-RoPE's slow channels."""
    found = encoding(name, length, dim=dim)
    frequencies = found.frequencies
    assert frequencies.dtype == torch.float64
    assert frequencies.shape == (dim // 2,)
    assert (frequencies >= 0).all() and frequencies.isfinite().all()
    assert (frequencies > 0).all() or name == "p-rope"
    assert (frequencies.diff() <= 0).all()
    assert 1 <= found.attention_factor < 2


@pytest.mark.parametrize("rope", [{"dim": 63}, {"dim": 2}, {"original_length": 1}, {"theta": 1}])
@pytest.mark.parametrize("name", ["yarn", "longrope"])
def test_a_rotary_embedding_that_cannot_be_is_refused(name, rope):
    with pytest.raises(ValueError, match="an even number of at least 4 channels and a trained"):
        encoding(name, 4096, **rope)


@every_rotary
def test_no_pair_turns_faster_than_it_was_trained_to(name):
    own = Rope(theta=1e4, dim=64, original_length=2048).frequencies
    assert (encoding(name, 2**17).frequencies <= own * (1 + 1e-15)).all()


@every_scaled
def test_inside_the_trained_window_nothing_is_stretched(name):
    for length in (1, 100, 2048):
        found, own = encoding(name, length), encoding("none", length)
        torch.testing.assert_close(found.frequencies, own.frequencies, rtol=1e-14, atol=0)
        assert found.attention_factor == 1.0


@every_rotary
def test_a_table_in_pieces_is_the_table(name):
    found = encoding(name, 65536)
    whole = found.table(torch.arange(60000, 60064)[None])
    pieces = [found.table(p) for p in torch.arange(60000, 60064)[None].split(7, -1)]
    for one, parts in zip(whole, zip(*pieces, strict=True), strict=True):
        assert torch.equal(one, torch.cat(parts, 1))


@every_method
def test_read_in_pieces_the_logits_are_the_same(llama, name):
    """Stock `dynamic` and `longrope` fail this: they look at the piece, not at the input."""
    tokens = (torch.arange(256) * 7 % 256)[None]
    with catalog.load("methods", name).applied_to(llama, 256), torch.inference_mode():
        whole, cache, pieces = llama(tokens, use_cache=False).logits, None, []
        for piece in tokens.split(48, -1):
            out = llama(piece, past_key_values=cache, use_cache=True)
            pieces, cache = [*pieces, out.logits], out.past_key_values
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=1e-5)


@every_rotary
def test_it_depends_on_the_input_only_if_it_says_so(name):
    """A row of lengths is read in one pass where it says no: with the scale then given."""
    method = catalog.load("methods", name)
    if hasattr(method, "factor") and not method.depends_on_length:
        method = replace(method, factor=8.0)
    own = Rope(theta=1e4, dim=64, original_length=2048)
    short, long = (method.encoding(own, n).frequencies for n in (4096, 16384))
    assert torch.equal(short, long) != method.depends_on_length


@every_rotary
def test_it_resolves_to_plain_data(llama, name):
    method = catalog.load("methods", name)
    found = method.provenance(llama, 512)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    with method.applied_to(llama, 512):
        live = llama.model.rotary_emb.encoding
        assert found["frequencies"] == live.frequencies.tolist()
        assert found["attention_factor"] == live.attention_factor


@pytest.mark.parametrize("factor", [0.5, 0.0, -1.0, float("nan"), float("inf"), 1e300])
@every_scaled
def test_a_factor_below_one_or_beyond_all_reason_is_refused(name, factor):
    with pytest.raises(ValueError, match="from 1 up"):
        catalog.load("methods", f"{name},factor={factor}")


@pytest.mark.parametrize(
    "spec",
    [
        "yarn,beta_fast=1,beta_slow=2",
        "ntk-by-parts,beta_slow=0",
        "dynamic-yarn,beta_fast=nan",
        "yarn,attention=0",
        "llama3,low_freq_factor=4",
        "cl-scaling,base=1",
        "longrope,start_tokens=-1",
    ],
)
def test_what_makes_no_sense_is_refused(spec):
    with pytest.raises(ValueError, match=r"^(?!.*has no parameter)"):
        catalog.load("methods", spec)


# Of every method on every family


def test_the_configuration_says_what_the_live_model_does(member):
    """The table of `none`, in float64, is the model's own, in float32."""
    own = tables(member, TRAINED)
    with catalog.load("methods", "none").applied_to(member, TRAINED):
        torch.testing.assert_close(tables(member, TRAINED), own, rtol=0, atol=1e-5)
        assert tables(member, TRAINED).shape == own.shape
    assert Rope.of(member).original_length == original_length(member.config) == TRAINED


@every_rotary
def test_every_family_can_be_extended(member, name):
    method, own = catalog.load("methods", name), tables(member, 512)
    assert method.unfit(member, 512) is None
    method.notice(member, 512)
    with method.applied_to(member, 512):
        changed = (tables(member, 512) - own).abs().max()
        assert (changed > 1e-3) == (name not in UNCHANGED)
    assert torch.equal(tables(member, 512), own)


@pytest.mark.parametrize("name", [*NAMES, "yarn+log-n", "clex,max_factor=4"])
def test_what_reads_a_length_reads_the_shorter_ones(member, name):
    """A plan asks at the longest first."""
    method = catalog.load("methods", name)
    unfit = [method.unfit(member, length) is not None for length in (32, 64, 96, 512, 2**14, 2**20)]
    assert unfit == sorted(unfit)


def test_every_family_reads_with_it(member):
    before = logits(member, 96)
    for name, same in (("none", True), ("yarn", False), ("longrope,start_tokens=4", False)):
        with catalog.load("methods", name).applied_to(member, 512):
            inside = logits(member, 96)
        assert inside.isfinite().all()
        assert torch.allclose(inside, before, atol=1e-4) == same
    assert torch.equal(logits(member, 96), before)


@every_rotary
def test_sliding_window_layers_keep_their_own(name):
    gemma = built("gemma3_text")
    own = tables(gemma, 512, "sliding_attention")
    with catalog.load("methods", name).applied_to(gemma, 512):
        found = tables(gemma, 512, "sliding_attention")
        torch.testing.assert_close(found, own, rtol=0, atol=1e-4)


def test_a_model_of_pictures_and_text_is_extended_in_its_text():
    text = SMALL | FAMILIES["gemma3_text"]
    see = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1} | {
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = transformers.Gemma3Config(text_config=text, vision_config=see, mm_tokens_per_image=4)
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    own = tables(model, 512)
    with catalog.load("methods", "yarn").applied_to(model, 512):
        assert not torch.allclose(tables(model, 512), own, atol=0.1)
    assert torch.equal(tables(model, 512), own)


@every_rotary
def test_a_model_without_rotary_embedding_is_refused(name):
    method = catalog.load("methods", name)
    gpt2 = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=64, n_positions=64)
    )
    for model in (gpt2, built("falcon", alibi=True)):
        assert "no rotary embedding" in (method.unfit(model, 512) or "")
        with pytest.raises(LookupError, match="no rotary embedding"):
            method.applied_to(model, 512).__enter__()


# Of checkpoints that carry a scaling already


def test_none_leaves_a_checkpoint_its_own_scaling(llama31):
    own = tables(llama31, 512)
    with catalog.load("methods", "none").applied_to(llama31, 512):
        torch.testing.assert_close(tables(llama31, 512), own, rtol=0, atol=1e-4)
    theirs = catalog.load("methods", "llama3,factor=8")
    with theirs.applied_to(llama31, 512):
        torch.testing.assert_close(tables(llama31, 512), own, rtol=0, atol=1e-4)


def test_how_far_a_checkpoints_own_scaling_reaches_is_in_the_result(llama, llama31):
    none = catalog.load("methods", "none")
    assert none.provenance(llama31, 128)["factor"] == 8.0
    assert none.provenance(llama, 512)["factor"] is None


OWN = {
    "linear": {"factor": 3.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 8.0, "beta_fast": 16.0, "original_max_position_embeddings": TRAINED},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": TRAINED,
    },
    "longrope": {
        "short_factor": [1.1] * 8,
        "long_factor": [1.0 + i for i in range(8)],
        "original_max_position_embeddings": TRAINED,
    },
}
"""Scalings that checkpoints carry, by transformers' names."""


@pytest.mark.parametrize("length", [TRAINED // 2, 512, 700])
@pytest.mark.parametrize("kind", OWN)
def test_a_scaling_of_its_own_is_transformers_but_in_float64(kind, length):
    said = {"rope_type": kind, "rope_theta": 1e4} | OWN[kind]
    model = built("llama", max_position_embeddings=512, rope_parameters=said)
    own = Encoding.of(model, length)
    found, factor = ROPE_INIT_FUNCTIONS[kind](model.config, torch.device("cpu"), seq_len=length)
    torch.testing.assert_close(own.frequencies, found.double(), rtol=5e-7, atol=0)
    assert own.attention_factor == factor
    assert not torch.equal(own.frequencies, own.frequencies.float().double())


def test_what_llama31_comes_with_is_exactly_its_method(llama31):
    own = catalog.load("methods", "none").provenance(llama31, 512)
    theirs = catalog.load("methods", "llama3,factor=8").provenance(llama31, 512)
    assert own["frequencies"] == theirs["frequencies"]


@every_scaled
def test_a_window_that_is_shorter_than_the_input_is_said(name):
    method, model = catalog.load("methods", name), built("mistral", sliding_window=32)
    assert "look back no further than 32 tokens" in method.notice(model, 512)
    assert "look back" not in (method.notice(model, 32) or "")
    half = built("gemma2", sliding_window=32)
    assert "look back" not in (method.notice(half, 512) or "")


def test_an_extension_replaces_it_and_says_so(llama, llama31):
    yarn = catalog.load("methods", "yarn")
    assert "llama3 scaling is replaced" in yarn.notice(llama31, 512)
    assert yarn.notice(llama, 512) is None
    assert yarn.provenance(llama31, 512) == yarn.provenance(llama, 512)
    assert yarn.provenance(llama, 512)["factor"] == 8.0


def longrope_checkpoint():
    pairs = {"short_factor": [1.0] * 8, "long_factor": [1.0 + i for i in range(8)]}
    given = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "original_max_position_embeddings": TRAINED,
    }
    return built("llama", max_position_embeddings=512, rope_parameters=given | pairs)


def test_none_holds_a_checkpoint_that_switches_to_one_of_its_encodings():
    model, none = longrope_checkpoint(), catalog.load("methods", "none")
    assert "held" in none.notice(model, 512)
    short, long = (none.provenance(model, n)["frequencies"] for n in (TRAINED, 512))
    assert long[7] == pytest.approx(short[7] / 8)
    own = tables(model, 512)
    with none.applied_to(model, 512):
        torch.testing.assert_close(tables(model, 512), own, rtol=0, atol=1e-4)
        torch.testing.assert_close(tables(model, 32), own[:, :, :32], rtol=0, atol=1e-4)


def test_longrope_uses_the_factors_that_a_checkpoint_comes_with():
    model, method = longrope_checkpoint(), catalog.load("methods", "longrope")
    assert method.provenance(model, 512)["factors"] == [1.0 + i for i in range(8)]
    assert "the checkpoint's own" in method.notice(model, 512)


@pytest.mark.parametrize("length", [TRAINED // 2, TRAINED + 1, 512])
@pytest.mark.parametrize("spec", ["longrope", "longrope,factor=2"])
def test_longrope_on_such_a_checkpoint_is_the_checkpoint(spec, length):
    model, none = longrope_checkpoint(), catalog.load("methods", "none")
    own, ours = none.provenance(model, length), catalog.load("methods", spec)
    found = ours.provenance(model, length)
    assert found["frequencies"] == pytest.approx(own["frequencies"])
    assert found["attention_factor"] == pytest.approx(own["attention_factor"])
    assert found["factor"] == ours.made_for(model) == 512 / TRAINED


def test_a_factor_of_1_is_said_to_change_nothing_where_it_does_not(llama, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"factors": [2.0] * 8}))
    said = {spec: catalog.load("methods", spec).notice(llama, 32) for spec in (
        "yarn,factor=1", "pi,factor=1", "pi,factor=2", "dynamic-ntk",
        f"longrope,factor=1,factors={tmp_path}/mine.json",
    )}  # fmt: skip
    noted = ["model as it is" in (text or "") for text in said.values()]
    assert noted == [True, True, False, False, False]
    longer = built("llama", max_position_embeddings=4096, head_dim=64)  # where rounding shows
    for factor, alike in ((1, True), (1.1, False)):
        said = catalog.load("methods", f"yarn,factor={factor}").notice(longer, 32) or ""
        assert ("model as it is" in said) == alike


def test_a_checkpoint_that_interpolates_by_itself_must_say_from_where():
    given = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
    model = built("llama", max_position_embeddings=512, rope_parameters=given)
    for spec in SCALED:
        reason = catalog.load("methods", spec).unfit(model, 512)
        assert "original_max_position_embeddings" in reason
    assert catalog.load("methods", "none").unfit(model, 512) is None
    given |= {"original_max_position_embeddings": 128}
    said = built("llama", max_position_embeddings=512, rope_parameters=given)
    assert catalog.load("methods", "pi").unfit(said, 512) is None


def test_none_does_not_depend_on_the_precision_of_the_model():
    """`.to(bfloat16)` rounds transformers' own frequencies to 8 bits."""
    model = built("llama").to(torch.bfloat16)
    none = catalog.load("methods", "none")
    assert none.provenance(model, 64) == none.provenance(built("llama"), 64)


# Of LongRoPE's factors


def test_unknown_factors_are_said(llama):
    notice = catalog.load("methods", "longrope").notice(llama, 512)
    assert "No searched factors are known" in notice
    assert "factors=FILE" in notice


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ("[1, 2, 3]", "holds 3 factors, and this model takes 8"),
        ("1,1,1,1,1,1,1,0.5", "Factor 7 of .* is 0.5"),
        ("[1, 1, 1, 1, 1, 1, 1, NaN]", "Factor 7 of .* is nan"),
        ('{"lambda": []}', "holds no factors"),
        ("[1, ", "holds no factors"),
        ("one two", "holds no factors"),
        ('{"factors": [1], "factor": "far"}', "holds no factors"),
        ('{"factors": [1], "factor": NaN}', "holds no factors"),
        ('{"factors": [1], "start_tokens": -1}', "holds no factors"),
        (None, "No factors can be read"),
    ],
)
def test_factors_that_do_not_fit_are_refused(llama, tmp_path, held, message):
    file = tmp_path / "factors.json"
    if held is not None:
        file.write_text(held)
    with pytest.raises(ValueError, match=message):
        catalog.load("methods", f"longrope,factors={file}").unfit(llama, 512)


def test_factors_carry_what_they_were_searched_for(llama, tmp_path):
    file = tmp_path / "factors.json"
    file.write_text(json.dumps({"factors": [2.0] * 8, "start_tokens": 4, "factor": 8}))
    method = catalog.load("methods", f"longrope,factors={file}")
    found = method.provenance(llama, 512)
    assert (found["factors"], found["start_tokens"]) == ([2.0] * 8, 4)
    assert method.notice(llama, 512) is None
    assert "searched for s = 8, and is used at 16" in method.notice(llama, 1024)
    assert replace(method, start_tokens=0).provenance(llama, 512)["start_tokens"] == 0
    file.write_text(json.dumps({"factors": ["2"] * 8, "start_tokens": "4", "factor": "8"}))
    assert catalog.load("methods", f"longrope,factors={file}").provenance(llama, 512) == found


def test_packaged_factors_are_found_by_the_models_name(llama, tmp_path, monkeypatch):
    (tmp_path / "tiny.json").write_text(json.dumps({"factors": [3.0] * 8}))
    module = __import__("harness.methods.longrope", fromlist=["PACKAGED"])
    monkeypatch.setattr(module, "PACKAGED", tmp_path)
    monkeypatch.setattr(llama.config, "_name_or_path", "someone/Tiny")
    assert catalog.load("methods", "longrope").provenance(llama, 512)["factors"] == [3.0] * 8
    assert catalog.load("methods", "longrope").notice(llama, 512) is None
    assert catalog.load("methods", "longrope,factors=tiny").notice(llama, 512) is None


# Of the rotation itself


def test_a_table_is_exact_at_two_million():
    found = Encoding(frequencies=Rope(theta=1e4, dim=64, original_length=64).frequencies)
    cos, sin = found.table(torch.tensor([2**21 - 1]))
    for pair in range(32):
        angle = (2**21 - 1) * 1e4 ** (-pair / 32)
        assert cos[0, pair].item() == pytest.approx(math.cos(angle), abs=1e-8)
        assert sin[0, pair].item() == pytest.approx(math.sin(angle), abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rotation_is_cast_once(dtype):
    found = encoding("yarn", 65536)
    positions = torch.arange(2**21 - 8, 2**21)[None]
    cos, sin = Rotation(found)(torch.empty(0, dtype=dtype), positions)
    for mine, exact in zip((cos, sin), found.table(positions), strict=True):
        assert mine.dtype == dtype
        assert torch.equal(mine, torch.cat([exact, exact], -1).to(dtype))


def test_what_shapes_the_rotation_can_learn():
    frequencies = encoding("none", 64).frequencies.requires_grad_()
    rotation = Rotation(Encoding(frequencies=frequencies))
    cos, sin = rotation(torch.empty(0), torch.arange(1, 9)[None])
    (cos.sum() + sin.sum()).backward()
    assert frequencies.grad is not None and (frequencies.grad != 0).any()
    assert list(rotation.buffers()) == []


# Of `harness show`


def test_show_resolves_a_rope_method():
    given = {"head_dim": 64, "theta": 1e5, "original_length": 8192}
    shown = show("yarn", **given, length=65536)
    assert shown["factor"] == 8.0
    assert len(shown["frequencies"]) == 32
    assert shown["attention_factor"] == pytest.approx(1.2079441541679836, rel=1e-12)
    assert show("yarn", **given, factor=8.0)["frequencies"] == shown["frequencies"]
    assert show("yarn", **given, length=65536, input_length=100)["factor"] == 8.0
    dynamic = show("dynamic-ntk", **given, length=65536, input_length=16384, factor=2.0)
    assert (dynamic["factor"], dynamic["scale"]) == (2.0, 2.0)
    factor = dynamic["parameters"]["factor"]
    assert (factor["value"], factor["default"], factor["type"]) == (2.0, 1.0, "float")


@every_rotary
def test_show_has_numbers_of_every_method(name):
    shown = show(name, head_dim=64, theta=1e4, original_length=2048, length=16384)
    assert {"frequencies", "attention_factor", "factor", "notice"} <= shown.keys()
    json.dumps(shown, allow_nan=False)


def test_show_says_what_is_missing():
    with pytest.raises(ValueError, match="give --theta and --original-length too"):
        show("yarn", head_dim=64)
    with pytest.raises(LookupError, match="Did you mean 'yarn'"):
        show("yarm")
    with pytest.raises(ValueError, match="has no parameter 'factors'"):
        show("yarn", factors="toy")


@pytest.mark.parametrize("name", catalog.names("tasks"))
def test_show_describes_tasks(name):
    shown = show(name)
    assert shown["metric"] and shown["version"] >= 1
