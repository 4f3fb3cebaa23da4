"""An exported checkpoint is the model that was measured: plain transformers finds its logits."""

import errno
import json
import re
import shutil
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.utils import logging

from harness import catalog, trained
from harness.cli import main
from harness.cost import one_layer
from harness.export import _reach, export
from harness.export import parity as parities
from harness.export.carry import carried
from harness.export.parity import affordable, by_engine, by_transformers, parity
from harness.model import describe, load
from harness.probe import check_identity
from harness.rope import original_length
from harness.rotary import Reencoding

TRAINED, LENGTH = 64, 200
ROPE_INIT = {"default", *ROPE_INIT_FUNCTIONS}
"""Before any modelling file has added to them."""
SHAPE = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": TRAINED,
    "initializer_range": 0.12,  # large enough that a wrong rotation shows in the logits
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
FAMILIES = {
    "llama": {"num_key_value_heads": 1},
    "mistral": {"num_key_value_heads": 1, "sliding_window": None},
    "qwen2": {"num_key_value_heads": 1},
    "mixtral": {"num_key_value_heads": 1, "num_local_experts": 2, "sliding_window": None},
    "phi": {"partial_rotary_factor": 0.5},
    "phi3": {},
    "gpt_neox": {},
    "gemma3_text": {
        "head_dim": 32,
        "num_key_value_heads": 1,
        "sliding_window": 32,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}
NATIVE = {
    "cl-scaling": "default",
    "clex": "clex-by-length",
    "clex,factor=3": "clex-fixed",
    "dynamic-ntk": "dynamic",
    "dynamic-ntk,factor=2": "dynamic",
    "dynamic-yarn": "yarn",
    "llama3": "llama3",
    "llama3,factor=2,low_freq_factor=2": "llama3",
    "longlora": "linear",
    "longrope": "longrope",
    "longrope,attention=yarn,start=official": "longrope",
    "naive-ft": "default",
    "none": "default",
    "p-rope": "p-rope-fixed",
    "ntk": "default",
    "ntk-by-parts": "yarn",
    "pi": "linear",
    "pose,interpolation=ntk": "default",
    "pose,interpolation=yarn": "yarn",
    "pose": "linear",
    "random-pos": "default",
    "yarn": "yarn",
    "yarn,beta_fast=8,beta_slow=2,attention=0.9": "yarn",
}
"""What transformers calls each method."""
LLAMA31 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": TRAINED,
}


def built(family, **more):
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(SHAPE | FAMILIES[family] | more))
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def tokens(length):
    return torch.arange(length) * 7 % 128


def differences(model, spec, folder, lengths=(TRAINED // 2, LENGTH)):
    """The largest difference of logits at any of these lengths, and what the checkpoint carries."""
    method = catalog.load("methods", spec)
    carry = carried(model, method, spec.split(",")[0], LENGTH)
    carry.save(model, folder)
    largest = 0.0
    for n in lengths:
        ours = by_engine(model, method, carry.encodes(n), tokens(n))
        theirs = by_transformers(folder, tokens(n), code=carry.code is not None)
        largest = max(largest, float((ours - theirs).abs().max()))
    return largest, carry


@pytest.fixture(scope="module")
def llama():
    return built("llama")


def test_every_method_that_says_what_transformers_calls_it_is_tried():
    said = {
        name
        for name in catalog.names("methods")
        if isinstance(method := catalog.load("methods", name), Reencoding)
        and type(method).native is not Reencoding.native
    }
    assert said <= {spec.split(",")[0] for spec in NATIVE}


@pytest.mark.parametrize("spec", NATIVE)
def test_the_reloaded_checkpoint_has_the_engines_logits(llama, spec, tmp_path):
    difference, carry = differences(llama, spec, tmp_path)
    assert difference <= 1e-4
    assert carry.rope["rope_type"] == NATIVE[spec]


OTHERS = [family for family in FAMILIES if family != "llama"]
SOME = ["clex", "dynamic-ntk", "p-rope", "yarn"]
MOST = [pytest.param(s, marks=() if s in SOME else pytest.mark.slow) for s in NATIVE]


@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.parametrize("spec", MOST)
def test_so_it_has_in_every_family(family, spec, tmp_path):
    difference, carry = differences(built(family), spec, tmp_path)
    assert difference <= 1e-4
    knows = family != "phi3" or NATIVE[spec] == "default"
    assert "Infinity" not in (tmp_path / "config.json").read_text()
    assert not any("were searched" in note for note in carry.notes)
    assert carry.rope["rope_type"] == (NATIVE[spec] if knows else "longrope")


# Of the encoding


def test_a_scaling_that_the_checkpoint_came_with_is_replaced(tmp_path):
    model = built("llama", max_position_embeddings=256, rope_parameters=LLAMA31)
    difference, carry = differences(model, "pi", tmp_path)
    assert difference <= 1e-4
    assert carry.rope == {"rope_theta": 1e4, "rope_type": "linear", "factor": LENGTH / TRAINED}


def test_or_kept_by_a_method_that_changes_nothing(tmp_path):
    model = built("llama", max_position_embeddings=256, rope_parameters=LLAMA31)
    difference, carry = differences(model, "naive-ft", tmp_path)
    assert difference <= 1e-4
    assert carry.config.rope_parameters == LLAMA31
    assert carry.config.max_position_embeddings == 256


def test_only_layers_with_full_attention_are_changed():
    model = built("gemma3_text")
    carry = carried(model, catalog.load("methods", "yarn"), "yarn", LENGTH)
    own, now = model.config.rope_parameters, carry.config.rope_parameters
    assert now["sliding_attention"] == own["sliding_attention"]
    assert now["full_attention"]["rope_type"] == "yarn"
    assert "factor" not in own["full_attention"]  # the model's own configuration is as it was


@pytest.mark.parametrize("spec", NATIVE)
def test_the_original_length_is_told_from_the_extended_one(llama, spec):
    config = carried(llama, catalog.load("methods", spec), spec.split(",")[0], LENGTH).config
    longest = TRAINED if NATIVE[spec] == "dynamic" else LENGTH
    assert config.max_position_embeddings == longest
    assert original_length(config) == config.original_max_position_embeddings == TRAINED


def test_what_is_linear_by_its_export_may_be_scaled_anew(llama):
    config = carried(llama, catalog.load("methods", "pi"), "pi", LENGTH).config
    pi = catalog.load("methods", "pi")
    anew = pi.provenance(SimpleNamespace(config=config), LENGTH)
    assert anew["frequencies"] == pi.provenance(llama, LENGTH)["frequencies"]
    assert pi.unfit(SimpleNamespace(config=config), LENGTH) is None


@pytest.mark.parametrize("spec", ["clex", "clex,factor=3", "p-rope", "pi", "ntk", "llama3"])
def test_what_is_exported_is_read_here_as_it_was_measured(llama, spec, tmp_path):
    method, none = catalog.load("methods", spec), catalog.load("methods", "none")
    carried(llama, method, spec.split(",")[0], LENGTH).save(llama, tmp_path)
    planned = SimpleNamespace(config=AutoConfig.from_pretrained(tmp_path))
    code = {"trust_remote_code": True, "dtype": torch.float32}
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, **code).eval()
    check_identity(theirs)
    assert one_layer(planned.config).rope_parameters["rope_type"] in ROPE_INIT  # what a plan builds
    for n in (TRAINED, TRAINED + 1, LENGTH) if spec == "clex" else (LENGTH,):
        own = method.provenance(llama, n)["frequencies"]
        assert none.provenance(planned, n)["frequencies"] == pytest.approx(own, rel=1e-9)
        read = by_engine(theirs, none, n, tokens(n))
        torch.testing.assert_close(read, by_engine(llama, method, n, tokens(n)), atol=1e-4, rtol=0)
    held = none.notice(planned, LENGTH)
    assert ("held at what it is for" in held) if spec == "clex" else held is None


def test_dynamic_scaling_starts_from_the_original_length(llama):
    carry = carried(llama, catalog.load("methods", "dynamic-ntk"), "dynamic-ntk", LENGTH)
    assert carry.config.max_position_embeddings == TRAINED
    assert "scales anew at each forward pass" in carry.notes[0]


def test_a_start_that_is_not_scaled_cannot_be_carried(llama):
    with pytest.raises(LookupError, match="cannot leave the first 4 tokens unscaled"):
        carried(llama, catalog.load("methods", "longrope,start_tokens=4"), "longrope", LENGTH)


def test_factors_for_short_inputs_serve_those(llama, tmp_path):
    long, short = [1 + i / 4 for i in range(16)], [1 + i / 32 for i in range(16)]
    held = {"factors": long, "factor": 4, "short": [{"up_to": TRAINED, "factors": short}]}
    (tmp_path / "factors.json").write_text(json.dumps(held))
    difference, carry = differences(llama, f"longrope,factors={tmp_path}/factors.json", tmp_path)
    assert difference <= 1e-4
    assert (carry.rope["short_factor"], carry.rope["long_factor"]) == (short, long)
    assert "keep the short rotation" in carry.notes[0] and len(carry.notes) == 1
    held["short"][0]["up_to"] = TRAINED + 20
    (tmp_path / "further.json").write_text(json.dumps(held))
    method = catalog.load("methods", f"longrope,factors={tmp_path}/further.json")
    carry = carried(llama, method, "longrope", LENGTH)
    assert f"beyond {TRAINED:,} tokens" in carry.notes[1] and "two sets alone" in carry.notes[1]


def test_which_factors_the_check_has_not_seen_is_said(model, text, tmp_path):
    held = {"factors": [2.0] * 8, "factor": 2, "short": [{"up_to": 512, "factors": [1.1] * 8}]}
    (tmp_path / "f.json").write_text(json.dumps(held))
    how = {"method": f"longrope,factors={tmp_path}/f.json", "length": 1024, "corpus": text}
    export(str(model), tmp_path / "short", check_length=64, **how)
    export(str(model), tmp_path / "long", check_length=600, **how)
    pages = [(tmp_path / name / "PARITY.md").read_text() for name in ("short", "long")]
    assert ["`long_factor` was not compared" in page for page in pages] == [True, False]


def test_what_clex_learned_is_carried(tmp_path):
    model = built("llama")
    generator = torch.Generator().manual_seed(0)
    model.unexpected = {
        "model.clex_layer.proj_func.ode_up_proj": torch.rand(16, 32, generator=generator),
        "model.clex_layer.proj_func.ode_down_proj": torch.rand(32, 16, generator=generator) / 10,
    }
    untrained = carried(built("llama"), catalog.load("methods", "clex"), "clex", LENGTH)
    difference, carry = differences(model, "clex", tmp_path)
    assert difference <= 1e-4
    assert carry.rope["frequencies"] != untrained.rope["frequencies"]
    assert "one of 4 encodings by the length of a text as it begins" in carry.notes[0]


def test_what_is_encoded_by_its_length_is_so_in_any_order_and_while_it_is_written(llama, tmp_path):
    """One model reads a long text, a short one and a long one again, and goes on with one."""
    method = catalog.load("methods", "clex")
    carried(llama, method, "clex", LENGTH).save(llama, tmp_path)
    code = {"trust_remote_code": True, "dtype": torch.float32}
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, **code).eval()
    with torch.no_grad():
        for n in (LENGTH, TRAINED // 2, TRAINED + 1, TRAINED, LENGTH):
            found = theirs(tokens(n)[None]).logits[0]
            torch.testing.assert_close(found, by_engine(llama, method, n, tokens(n)), atol=1e-4,
                                       rtol=0)  # fmt: skip
        how = {"max_new_tokens": 20, "min_new_tokens": 20, "do_sample": False}
        begun = tokens(TRAINED + 10)[None]
        kept, anew = (theirs.generate(begun, use_cache=cached, **how) for cached in (True, False))
    assert torch.equal(kept, anew)


def test_a_method_of_ones_own_is_called_by_its_name_alone(llama):
    carry = carried(llama, catalog.load("methods", "p-rope"), "my-rope@816f52b7", LENGTH)
    assert carry.rope["rope_type"] == "my-rope-fixed" and "@" not in (carry.code or "@")
    assert carry.file == "modeling_my_rope_fixed.py"


def test_what_a_check_of_a_short_text_has_not_seen_is_said(llama):
    carry = carried(llama, catalog.load("methods", "clex"), "clex", LENGTH)
    assert carry.rope["lengths"] == [64, 128, 192, 200]
    assert "those of longer texts were not compared. --check-length 193" in carry.unseen(64)
    assert carry.unseen(193) is None


def test_a_scale_of_logits_that_is_of_each_length_is_that_of_the_longest(llama, tmp_path):
    difference, carry = differences(llama, "clex,log_scale=clamped", tmp_path)
    assert difference <= 1e-4 and carry.rope["rope_type"] == "clex-fixed"


def test_without_its_code_it_is_not_read_wrongly_but_not_at_all(llama, tmp_path):
    carried(llama, catalog.load("methods", "clex"), "clex", LENGTH).save(llama, tmp_path)
    rope = json.loads((tmp_path / "config.json").read_text())["rope_parameters"]
    rope["rope_type"] = "clex-unheard-of"  # as in a process that has not loaded the code
    config = AutoConfig.from_pretrained(tmp_path, rope_parameters=rope)
    with pytest.raises(KeyError, match="clex-unheard-of"):
        AutoModelForCausalLM.from_pretrained(tmp_path, config=config)


@pytest.mark.parametrize("spec", ["none", "pi", "ntk", "yarn", "longrope", "llama3", "dynamic-ntk"])
def test_transformers_has_nothing_to_say_when_it_loads(llama, spec, tmp_path, capfd):
    carried(llama, catalog.load("methods", spec), spec, LENGTH).save(llama, tmp_path)
    capfd.readouterr()
    logging.disable_progress_bar()
    AutoModelForCausalLM.from_pretrained(tmp_path)
    logging.enable_progress_bar()
    assert capfd.readouterr().err == ""


# Of the comparison


def test_equal_logits_pass_and_others_fail_where_they_differ():
    ours = torch.randn(300, 50, generator=torch.Generator().manual_seed(0))
    assert parity(ours, ours).passed
    theirs = ours.clone()
    theirs[200] *= 1.5
    found = parity(ours, theirs)
    assert not found.passed
    assert [(s.start, s.stop) for s in found.stretches if not s.passed] == [(128, 256)]
    assert found.whole.largest == pytest.approx(float(ours[200].abs().max() / 2))


def test_no_number_is_no_match():
    ours = torch.ones(10, 3)
    failed = parity(ours, ours * torch.nan)
    assert not failed.passed and failed.json()["whole"]["rms"] is None
    assert '"largest": null' in json.dumps(failed.json(), allow_nan=False)


def test_another_encoding_fails(llama, tmp_path):
    """A sharper test than any method needs: YaRN without its factor of attention."""
    method = catalog.load("methods", "yarn")
    carried(llama, catalog.load("methods", "ntk-by-parts"), "ntk-by-parts", LENGTH).save(
        llama, tmp_path
    )
    ours = by_engine(llama, method, LENGTH, tokens(LENGTH))
    assert not parity(ours, by_transformers(tmp_path, tokens(LENGTH), code=False)).passed


def test_what_is_compared_takes_seconds():
    toy = {"layers": 2, "hidden": 256, "intermediate": 1280, "heads": 1, "head_dim": 32}
    assert affordable(toy | {"vocabulary": 2048, "experts": 1}, 16384) == 16384
    big = {"layers": 32, "hidden": 4096, "intermediate": 11008, "heads": 32, "head_dim": 128}
    assert 64 <= affordable(big | {"vocabulary": 32000, "experts": 1}, 2**21) <= 256


# Of the command


def call(*argv):
    with pytest.raises(SystemExit) as stop:
        main(["export", *map(str, argv)])
    return stop.value.code or 0


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    place = tmp_path_factory.mktemp("text") / "text.txt"
    place.write_text("It was the best of times, it was the worst of times. " * 60)
    return f"text:{place}"


@pytest.fixture
def model(folder, tmp_path):
    """Of 512 tokens; a copy, which a test may change."""
    return shutil.copytree(folder, tmp_path / "model")


def test_a_folder_is_written_with_its_card(capsys, model, text, tmp_path):
    to = tmp_path / "deep" / "out"
    argv = (model, "--to", to, "-m", "yarn,factor=4", "--corpus", text, "--check-length", 600)
    assert call(*argv) == 0
    said = capsys.readouterr().out
    assert "reads 2,048 tokens by yarn,factor=4, rope type yarn" in said
    assert "the same logits as the engine over 600 tokens" in said
    facts = json.loads((to / "parity.json").read_text())
    assert facts["parity"]["passed"]
    assert facts["parity"]["whole"]["rms"] < 1e-5
    assert facts["rope_parameters"]["factor"] == 4
    assert (facts["original_length"], facts["length"]) == (512, 2048)
    page = (to / "PARITY.md").read_text()
    for part in ("**Passed.**", "vllm serve DIR --max-model-len 2048", "--yarn-orig-ctx 512"):
        assert part in page
    assert str(tmp_path) not in page + (to / "parity.json").read_text()
    assert str(tmp_path) not in (to / "config.json").read_text()
    assert [path.name for path in to.parent.iterdir()] == ["out"]
    rights = {path.stat().st_mode for path in to.iterdir()}
    assert len(rights) == 1  # of the weights too: who serves them may be another
    own, copy = (AutoTokenizer.from_pretrained(place) for place in (model, to))
    assert copy("A text.") == own("A text.")


def test_weights_stay_as_they_are_unless_asked(model, text, tmp_path):
    kept = export(str(model), tmp_path / "kept", method="pi", length=1024, corpus=text,
                  check_length=64)  # fmt: skip
    other = export(str(model), tmp_path / "other", method="pi", length=1024, corpus=text,
                   check_length=64, dtype="bfloat16")  # fmt: skip
    assert kept.parity.passed and other.parity.passed
    own = AutoModelForCausalLM.from_pretrained(model).state_dict()
    same = AutoModelForCausalLM.from_pretrained(tmp_path / "kept").state_dict()
    assert all(torch.equal(same[name], weight) for name, weight in own.items())
    rounded = AutoModelForCausalLM.from_pretrained(tmp_path / "other")
    assert rounded.dtype is torch.bfloat16
    weights = rounded.state_dict().items()
    assert all(torch.equal(own[name].bfloat16(), weight) for name, weight in weights)


def test_a_trained_checkpoint_brings_its_method(capsys, model, text, tmp_path):
    trained.write(model, TRAINING)
    argv = (model, "--corpus", text, "--check-length", 64)
    assert call(*argv, "--to", tmp_path / "out") == 0
    facts = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert (facts["method"], facts["length"]) == ("pi,factor=2", 1024)
    assert facts["trained"]["tokens"] == 8192
    assert "8,192 tokens in 8 updates" in (tmp_path / "out" / "PARITY.md").read_text()
    assert not (tmp_path / "out" / trained.FILE).exists()  # its encoding is in its configuration
    capsys.readouterr()
    assert call(*argv, "--to", tmp_path / "again", "--method", "yarn") == 2
    assert "trained with pi,factor=2, and yarn would read it otherwise" in capsys.readouterr().err


def test_parameters_that_are_given_go_over_those_it_was_trained_with(model, text, tmp_path):
    trained.write(model, TRAINING.model_copy(update={"method": "yarn,beta_fast=8,factor=2"}))
    how = {"corpus": text, "check_length": 64}
    done = export(str(model), tmp_path / "out", method="yarn,factor=4", **how)
    assert done.facts["method"] == "yarn,beta_fast=8,factor=4" and done.facts["length"] == 2048
    trained.write(model, TRAINING.model_copy(update={"method": "naive-ft"}))
    done = export(str(model), tmp_path / "other", method="yarn,factor=4", **how)
    assert done.facts["method"] == "yarn,factor=4"


def test_what_was_trained_with_start_tokens_is_exported_without(capsys, model, text, tmp_path):
    """As the refusal says; and with factors that were searched after the training."""
    for name, s in (("learned", 2), ("further", 4)):
        held = {"factors": [float(s)] * 8, "factor": s, "start_tokens": 4}
        (tmp_path / f"{name}.json").write_text(json.dumps(held))
    (model / "factors.json").write_text((tmp_path / "learned.json").read_text())
    told = {"method": "longrope,factor=2,factors=factors.json", "files": ("factors",)}
    trained.write(model, TRAINING.model_copy(update=told))
    argv = (model, "--corpus", text, "--check-length", 600)
    assert call(*argv, "--to", tmp_path / "no") == 2
    said = capsys.readouterr().err
    (remedy,) = re.findall(r"--method (\S+),", said)
    assert call(*argv, "--to", tmp_path / "out", "--method", remedy) == 0
    facts = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert facts["length"] == 1024 and facts["rope_parameters"]["long_factor"] == [2.0] * 8
    spec = f"{remedy},factor=4,factors={tmp_path}/further.json"
    assert call(*argv, "--to", tmp_path / "far", "--method", spec) == 0
    facts = json.loads((tmp_path / "far" / "parity.json").read_text())
    assert facts["length"] == 2048 and facts["rope_parameters"]["long_factor"] == [4.0] * 8


def test_the_model_is_gone_before_its_export_is_read(model, text, tmp_path, monkeypatch):
    """Both in float32 would take twice the memory."""
    alive, read = [], parities.by_transformers

    def loaded(*args, **how):
        live = load(*args, **how)
        alive.append(weakref.ref(live.model))
        return live

    def checked(*args, **how):
        assert [it() for it in alive] == [None]
        return read(*args, **how)

    monkeypatch.setattr("harness.model.load", loaded)
    monkeypatch.setattr(parities, "by_transformers", checked)
    done = export(str(model), tmp_path / "out", method="pi,factor=2", corpus=text, check_length=64)
    assert done.parity.passed


TRAINING = trained.Trained(
    method="pi,factor=2", recipe="quick", numbers={}, base="tiny", base_weights="0" * 64,
    original_length=512, corpus="stdlib", steps=8, sequence_length=1024, tokens=8192, seed=0,
)  # fmt: skip


def test_a_checkpoint_that_differs_is_kept_and_says_so(capsys, model, text, tmp_path, monkeypatch):
    monkeypatch.setattr("harness.export.parity.SUMS", -1.0)  # nothing is equal enough
    assert call(model, "--to", tmp_path / "out", "-m", "pi,factor=2", "--corpus", text,
                "--check-length", 64) == 1  # fmt: skip
    said = capsys.readouterr()
    assert "NOT the logits" in said.out and "is not the model that was measured" in said.err
    assert "**FAILED.**" in (tmp_path / "out" / "PARITY.md").read_text()
    assert not json.loads((tmp_path / "out" / "parity.json").read_text())["parity"]["passed"]


def test_it_reads_as_far_as_it_was_taught_to(model, text, tmp_path):
    numbers = {"numbers": {"factor": 4.0}, "method": "clex"}
    trained.write(model, TRAINING.model_copy(update=numbers))
    done = export(str(model), tmp_path / "out", corpus=text, check_length=64)
    assert done.facts["length"] == 2048 and done.parity.passed


@pytest.mark.parametrize(
    "argv, why",
    [
        ([], "say with --method what extends it"),
        (["-m", "yarm"], "Did you mean 'yarn'?"),
        (["-m", "yarn"], "Nothing says how far yarn is to read"),
        (["-m", "yarn", "-l", "256"], "fewer than the 512"),
        (["-m", "yarn", "-l", "1k,2k"], "--length takes one length"),
        (["-m", "yarn", "-l", "1k", "--check-length", "2k"], "beyond the 1,024 tokens"),
        (["-m", "yarn", "-l", "1k", "--dtype", "int4"], "--dtype is one of"),
        (["-m", "clex", "-l", "16k"], "cannot extend"),
        (["-m", "longrope,start_tokens=4", "-l", "1k"], "cannot leave the first 4 tokens"),
        (["-m", "yarn", "-l", "1k", "--corpus", "none"], "No corpus named"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(capsys, model, tmp_path, argv, why):
    assert call(model, "--to", tmp_path / "out", *argv) == 2
    said = capsys.readouterr().err
    assert said.startswith("harness: ") and said.count("\n") == 1 and why in said
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_folder_one_is_in_is_not_replaced(capsys, model, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert call(model, "--to", ".", "-m", "pi,factor=2") == 2
    assert "The folder you are in cannot be replaced" in capsys.readouterr().err


def test_a_folder_that_is_taken_or_cannot_be_is_refused(capsys, model, tmp_path):
    assert call(model, "--to", model, "-m", "pi,factor=2") == 2
    assert "is there already" in capsys.readouterr().err
    assert call(model, "--to", model / "config.json" / "out", "-m", "pi,factor=2") == 2
    assert "config.json" in capsys.readouterr().err
    assert call(model, "--to", tmp_path / "out", "-m", "no-such-method") == 2


def test_what_memory_does_not_hold_is_refused_before_it_is_read(
    capsys, model, tmp_path, monkeypatch
):
    monkeypatch.setattr("harness.machine.free_memory", lambda on: 2**28)
    assert call(model, "--to", tmp_path / "out", "-m", "pi,factor=2") == 2
    assert "GiB, and 0.2 are free" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_leaves_nothing(capsys, model, text, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "out")

    monkeypatch.setattr(Path, "write_text", full)
    assert call(model, "--to", tmp_path / "out", "-m", "pi,factor=2", "--corpus", text,
                "--check-length", 64) == 2  # fmt: skip
    assert "No space left on device" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("spec", ["longrope,factor=2", "clex,factor=2"])
def test_the_toy_is_exported(capsys, spec, tmp_path):
    argv = ("toy", "--to", tmp_path / "toy", "-m", spec, "--check-length", 512, "--json")
    assert call(*argv) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts == json.loads((tmp_path / "toy" / "parity.json").read_text())
    assert facts["dtype"] == "bfloat16" and facts["length"] == 8192


@pytest.mark.slow
def test_the_toy_is_the_same_beyond_its_original_length(tmp_path):
    done = export("toy", tmp_path / "toy", method="yarn,factor=4")
    assert done.parity.passed and done.parity.whole.stop == 16384


def test_a_factors_file_says_how_far_it_reads(tmp_path):
    file = tmp_path / "f.json"
    file.write_text(json.dumps({"factors": [1.0] * 15 + [2.0], "factor": 2}))
    card, spec = describe("toy"), f"longrope,factors={file}"
    assert _reach(card, catalog.load("methods", spec), spec, None) == 2 * card.original_length
