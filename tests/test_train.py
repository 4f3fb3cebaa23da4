"""Training: what is learned, what is saved, and what an interrupted one goes on from."""

import errno
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    MixtralConfig,
    Trainer,
    TrainingArguments,
)

from harness import adapters, catalog, machine, trained
from harness.cli import main
from harness.learned import as_trained
from harness.method import Recipe
from harness.model import describe, load
from harness.plan import Options, plan
from harness.train import checkpoint, parallel, trainer
from harness.train.checkpoint import newest
from harness.train.course import memory, recipe, settle
from harness.train.loss import in_pieces
from harness.train.moving import by_live_names, see_whole
from harness.train.parallel import Sharing
from harness.train.quiz import Quiz
from harness.train.rows import rows
from harness.train.trainer import train

SHORT = {"sequence_length": 128, "batch_tokens": 256, "steps": 4, "learning_rate": 1e-3}


class Silent:
    def begun(self, course, done):
        self.done = done

    def updated(self, entry): ...

    def saved(self, step): ...


class Stopping(Silent):
    """A person who interrupts after so many updates."""

    def __init__(self, after):
        self.after = after

    def updated(self, entry):
        if entry["step"] >= self.after:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CONTEXT_HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def novel(tmp_path_factory):
    """A few thousand words, other ones in every sentence."""
    file = tmp_path_factory.mktemp("text") / "novel.txt"
    words = ["sea", "calm", "lamp", "burned", "house", "town", "night", "the", "was", "and", "of"]
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(words), (6000,), generator=generator)
    file.write_text(" ".join(words[int(i)] for i in drawn))
    return f"text:{file}"


def course(novel, spec="yarn,factor=2", **changes):
    return settle(describe("toy"), spec, "quick", corpus=novel, changes=SHORT | changes)


def losses(folder):
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def weights(folder):
    return load(str(folder), device="cpu", dtype="float32").model.state_dict()


def follow(it, output, watch=None, **how):
    return train(it, rows(it), output, watch=watch or Silent(), save_every=2, **how)


@pytest.mark.slow
def test_it_learns_what_it_reads(novel, tmp_path):
    follow(course(novel, steps=8), tmp_path / "a")
    curve = losses(tmp_path / "a")
    assert len(curve) == 8 and curve[-1] < curve[0] - 0.5


@pytest.mark.slow
def test_an_interrupted_training_draws_the_curve_it_would_have_drawn(novel, tmp_path):
    it = course(novel, spec="random-pos")  # draws positions anew at each pass
    follow(it, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        follow(it, tmp_path / "cut", Stopping(3))
    watch = Silent()
    follow(it, tmp_path / "cut", watch)
    assert watch.done == 2
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    one, other = weights(tmp_path / "cut"), weights(tmp_path / "whole")
    assert all(torch.equal(one[name], other[name]) for name in other)


@pytest.mark.slow
def test_an_interrupted_training_of_adapters_keeps_the_methods_own_weights(novel, tmp_path):
    """CLEX's equation is no adapter: peft does not save it."""
    it = course(novel, spec="clex", trains="lora", steps=5)
    follow(it, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        follow(it, tmp_path / "cut", Stopping(3))
    save = newest(tmp_path / "cut")
    kept = adapters.own(save)
    assert len(kept) == 2 and all(w.abs().max() > 0 for w in kept.values())
    (save / "method.safetensors").rename(tmp_path / "aside")
    with pytest.raises(ValueError, match="was saved without"):
        follow(it, tmp_path / "cut")
    (tmp_path / "aside").rename(save / "method.safetensors")
    follow(it, tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    one, other = (adapters.own(tmp_path / name / "adapter") for name in ("cut", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in other)


def experts(place):
    """A random Mixtral that reads as the toy does, saved as people save models."""
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=2048, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, num_local_experts=4,
        max_position_embeddings=64, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(place)
    AutoTokenizer.from_pretrained(describe("toy").place).save_pretrained(place)
    return model


def test_a_save_has_every_weight_by_the_name_that_training_knows(tmp_path):
    model = experts(tmp_path / "named otherwise")
    with pytest.raises(ValueError, match=r"saved without model\.layers\.0\.mlp.*: delete it"):
        see_whole(model, tmp_path / "named otherwise")
    with by_live_names(model):
        model.save_pretrained(tmp_path / "save")
    see_whole(model, tmp_path / "save")
    held = load_file(tmp_path / "save" / "model.safetensors")
    assert held.keys() == model.state_dict().keys()
    model.save_pretrained(tmp_path / "again")
    assert load_file(tmp_path / "again" / "model.safetensors").keys() != held.keys()


def test_a_head_that_is_the_embedding_is_saved_once_and_missed_nowhere(tmp_path):
    model = load("toy", device="cpu", dtype="float32").model
    model.config.tie_word_embeddings = True
    model.tie_weights()
    with by_live_names(model):
        model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    see_whole(model, tmp_path)


def test_what_is_published_is_of_the_dtype_it_names_has_tied_weights_once_and_is_for_all(tmp_path):
    live = load("toy", device="cpu", dtype="float32")
    live.model.config.tie_word_embeddings = True
    live.model.tie_weights()
    mask = os.umask(0o027)
    try:
        checkpoint.publish(live.model, live.model.state_dict(), live, (), tmp_path,
                           describe("toy-longrope").trained)  # fmt: skip
    finally:
        os.umask(mask)
    held = load_file(tmp_path / "model.safetensors")
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert {weight.dtype for weight in held.values()} == {torch.bfloat16}
    assert "lm_head.weight" not in held and "model.embed_tokens.weight" in held
    assert (tmp_path / "model.safetensors").stat().st_mode & 0o777 == 0o640


@pytest.mark.slow
def test_an_interrupted_training_of_experts_goes_on_with_what_they_learned(novel, tmp_path):
    experts(tmp_path / "base")
    it = settle(describe(str(tmp_path / "base")), "pi,factor=2", "quick", corpus=novel,
                changes=SHORT)  # fmt: skip
    follow(it, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        follow(it, tmp_path / "cut", Stopping(3))
    follow(it, tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    one, other = weights(tmp_path / "cut"), weights(tmp_path / "whole")
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_save_is_whole_when_all_processes_have_written_theirs(tmp_path, monkeypatch):
    told, mine = [], object.__new__(trainer._Trainer)
    monkeypatch.setattr(Trainer, "_save_rng_state", lambda self, folder: told.append(folder))
    mine.accelerator = SimpleNamespace(wait_for_everyone=lambda: told.append("all are there"))
    mine._save_rng_state(tmp_path)
    assert told == [tmp_path, "all are there"]


@pytest.mark.slow
def test_a_log_whose_last_line_is_torn_is_gone_on_with(novel, tmp_path):
    it = course(novel)
    follow(it, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        follow(it, tmp_path / "cut", Stopping(3))
    with (tmp_path / "cut" / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "lo')
    follow(it, tmp_path / "cut")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


@pytest.mark.parametrize("text", ["[]", "[1,2", ""])
def test_a_plan_that_is_spoilt_is_named(novel, tmp_path, text):
    it = course(novel)
    with pytest.raises(KeyboardInterrupt):
        follow(it, tmp_path / "a", Stopping(1))
    (tmp_path / "a" / "course.json").write_text(text)
    with pytest.raises(ValueError, match=r"course\.json does not parse.* delete .*/a to train"):
        follow(it, tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        follow(it, tmp_path / "a", Stopping(1))


@pytest.mark.parametrize(("spec", "length", "factor"), [
    ("pi", 32768, 8), ("pi", 4096, 4), ("pi,factor=2", 32768, 2), ("yarn", 131072, 32),
])  # fmt: skip
def test_sequences_longer_than_the_recipe_reads_raise_its_factor(spec, length, factor):
    it = settle(
        describe("toy"), spec, "quick", corpus="stdlib", changes={"sequence_length": length}
    )
    assert it.numbers.factor == factor


@pytest.mark.parametrize(("spec", "asked", "method", "target"), [
    ("dynamic-ntk", None, "dynamic-ntk", 65536), ("dynamic-yarn", None, "dynamic-yarn", 65536),
    ("dynamic-ntk,factor=2", 8.0, "dynamic-ntk,factor=2", 32768),
    ("random-pos", None, "random-pos,max_factor=16", 65536),
    ("random-pos", 64.0, "random-pos,max_factor=64", 262144),
    ("random-pos", 4.0, "random-pos,max_factor=4", 16384),
    ("random-pos,max_factor=8", None, "random-pos,max_factor=8", 32768),
])  # fmt: skip
def test_how_far_it_is_trained_to_read_is_what_was_said(spec, asked, method, target):
    it = settle(describe("toy"), spec, "paper", corpus="stdlib", factor=asked)
    assert (it.method, it.target) == (method, target)


def test_what_auto_means_is_settled_with_the_course(novel, tmp_path, capsys, monkeypatch):
    told = []
    monkeypatch.setattr(
        "harness.cli.train._follow", lambda course, *rest, **how: told.append(course)
    )
    with pytest.raises(SystemExit):
        main(f"train --method pi --model toy --corpus {novel} -o {tmp_path}/a --device cpu".split())
    exact = machine.dtype("auto", "cpu")
    assert told[0].identity()["dtype"] == str(exact).removeprefix("torch.")


def test_of_a_chat_too_only_what_the_course_reads_is_kept(tmp_path):
    talk = [{"role": r, "content": "It is a lamp." * 9} for r in ("user", "assistant")]
    file = tmp_path / "talk.jsonl"
    file.write_text("".join(json.dumps({"messages": talk}) + "\n" for _ in range(200)))
    it = settle(describe("toy"), "naive-ft", "quick", corpus=f"jsonl:{file}", stage="chat",
                changes=SHORT | {"steps": 3})  # fmt: skip
    assert len(rows(it)) == it.updates * it.rows


@pytest.mark.parametrize(("words", "said"), [
    ("--sequence-length 32k --batch-tokens 64k", "2 x 32,768 tokens"),
    ("--sequence-length 4k-8k", "takes one length"),
    ("--sequence-length 8", "sequence length must be at least 16, not 8"),
    ("--batch-tokens many", "many"),
])  # fmt: skip
def test_lengths_are_written_as_everywhere(capsys, words, said):
    with pytest.raises(SystemExit) as left:
        main(f"train --method pi --model toy --plan {words}".split())
    told = capsys.readouterr()
    assert said in told.out + told.err and bool(left.value.code) == (told.out == "")


def test_one_update_has_a_rate():
    few, many = (replace(recipe(catalog.load("methods", "pi"), "quick"), steps=n) for n in (1, 60))
    assert trainer._warmup(few) == 0 and trainer._warmup(many) == many.warmup == 0.1


FULL = [
    (OSError(errno.ENOSPC, "No space left on device"), "No space left"),
    (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos"), "may be full"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("error", "said"), FULL)
def test_a_disk_that_fills_up_costs_no_earlier_save(error, said, novel, tmp_path, monkeypatch):
    it, kept = course(novel, steps=6), torch.save

    def full(what, to, *rest, **more):
        if "checkpoint-4" in str(to):
            raise error
        return kept(what, to, *rest, **more)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=f"{said}.*saved before is there still"):
        follow(it, tmp_path / "a")
    assert newest(tmp_path / "a").name == "checkpoint-2"
    monkeypatch.setattr(torch, "save", kept)
    follow(it, tmp_path / "a")
    follow(it, tmp_path / "b")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


@pytest.mark.slow
def test_another_seed_reads_in_another_order(novel, tmp_path):
    follow(course(novel), tmp_path / "a", seed=1)
    follow(course(novel), tmp_path / "b", seed=1)
    follow(course(novel), tmp_path / "c", seed=2)
    assert losses(tmp_path / "a") == losses(tmp_path / "b") != losses(tmp_path / "c")


def test_a_half_written_save_is_passed_over(tmp_path):
    for step in (2, 4):
        (tmp_path / "saves" / f"checkpoint-{step}").mkdir(parents=True)
    state = tmp_path / "saves" / "checkpoint-2" / "trainer_state.json"
    state.write_text('{"global_step": 2}')
    (tmp_path / "saves" / "checkpoint-4" / "trainer_state.json").write_text('{"global')
    assert newest(tmp_path) == state.parent


@pytest.mark.slow
def test_a_folder_keeps_the_training_it_has(novel, tmp_path):
    follow(course(novel), tmp_path / "a")
    with pytest.raises(ValueError, match="another recipe"):
        follow(course(novel, learning_rate=1e-4), tmp_path / "a")


def test_a_training_of_before_its_dtype_was_settled_is_gone_on_with(novel, tmp_path):
    it = course(novel)
    facts = checkpoint.facts(it, rows(it), describe("toy"), 42)
    (tmp_path / "course.json").write_text(json.dumps(facts | {"dtype": "auto"}))
    checkpoint.own(tmp_path, facts | {"dtype": "float32"})
    (tmp_path / "course.json").write_text(json.dumps(facts | {"dtype": "bfloat16"}))
    with pytest.raises(ValueError, match="another dtype"):
        checkpoint.own(tmp_path, facts | {"dtype": "float32"})


def test_a_folder_of_other_things_is_left_alone(novel, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="is there already"):
        follow(course(novel), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]


def test_a_training_that_is_done_is_not_taken_for_another(novel, tmp_path, capsys):
    words = ["train", "-m", "pi", "--corpus", novel, "--output", str(tmp_path / "a"), "--steps",
             "1", "--sequence-length", "64", "--batch-tokens", "64"]  # fmt: skip
    for more, code in (([], 0), ([], 0), (["--seed", "7"], 2), (["-m", "ntk"], 2)):
        with pytest.raises(SystemExit) as left:
            main([*words, *more])
        assert left.value.code == code
    said = capsys.readouterr()
    assert "is trained" in said.out and "was trained before" in said.out
    model = shlex.quote(str(tmp_path / "a"))
    command = f"harness run --model {model} --method pi --task passkey,perplexity --lengths 4k,"
    assert said.out.splitlines()[-1].startswith(command)
    assert "another seed" in said.err and "another method" in said.err


def test_factors_go_with_the_checkpoint_that_was_trained_with_them(novel, tmp_path):
    file, rows_ = tmp_path / "f.json", rows(course(novel))
    file.write_text(json.dumps({"factors": [1 + i / 15 for i in range(16)], "factor": 2}))
    it = course(novel, spec=f"longrope,factors={file}", steps=1)
    assert it.method.startswith("longrope,factor=2,")  # as the file says, not as the recipe
    train(it, rows_, tmp_path / "mine", watch=Silent())
    factors = catalog.load("methods", it.method).provenance(describe("toy"), 8192)["factors"]
    file.unlink()
    (tmp_path / "mine").rename(tmp_path / "moved")
    said = trained.read(tmp_path / "moved")
    method = catalog.load("methods", said.method)
    assert method.provenance(describe("toy"), 8192)["factors"] == factors
    assert method.factor == 2


def test_an_interrupted_training_goes_on_with_the_same_factors_only(novel, tmp_path):
    file, spec = tmp_path / "f.json", f"longrope,factor=2,factors={tmp_path}/f.json"
    for last in (2.0, 1.5):
        file.write_text(json.dumps([1.0] * 15 + [last]))
        if last == 2:
            with pytest.raises(KeyboardInterrupt):
                follow(course(novel, spec=spec), tmp_path / "a", Stopping(1))
    with pytest.raises(ValueError, match="another files"):
        follow(course(novel, spec=spec), tmp_path / "a")


@pytest.mark.parametrize(("cap", "several"), [(None, False), (5.0, False), (None, True)])
def test_the_loss_in_pieces_is_the_loss(cap, several, monkeypatch):
    """Also by the way that `several` processes go."""
    model = load("toy", device="cpu", dtype="float32").model.requires_grad_(True)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: several)
    model.config.final_logit_softcapping = cap
    tokens = torch.randint(2048, (2, 50), generator=torch.Generator().manual_seed(0))
    labels = tokens.clone()
    labels[0, :20] = -100
    logits = model(tokens).logits.float()
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    plain = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    plain.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    with in_pieces(model, piece=7):
        ours = model(input_ids=tokens, labels=labels)["loss"]
        ours.backward()
    torch.testing.assert_close(ours, plain)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)
    assert model(tokens).logits.shape == (2, 50, 2048)  # and its forward is back


def test_a_part_of_a_sequence_keeps_its_places_and_its_next_token():
    """What accelerate hands to each of the processes that share a sequence."""
    model = load("toy", device="cpu", dtype="float32").model
    tokens = torch.randint(2048, (1, 50), generator=torch.Generator().manual_seed(0))
    part, at = tokens[:, 20:], torch.arange(20, 50)[None] * 3
    next_ = functional.pad(part[:, 1:], (0, 1), value=7)
    logits = model(part, position_ids=at, use_cache=False).logits
    plain = functional.cross_entropy(logits.flatten(0, 1), next_.flatten())
    with in_pieces(model, piece=7):
        ours = model(input_ids=part, labels=part, position_ids=at, shift_labels=next_)["loss"]
    torch.testing.assert_close(ours, plain)


SHARED = {"yarn,factor=2": True, "pose,factor=2": False, "clex": False, "longlora": False}


@pytest.mark.parametrize(("spec", "shared"), SHARED.items())
def test_a_sequence_is_shared_only_by_what_encodes_its_parts_alike(spec, shared):
    model = load("toy", device="cpu", dtype="float32").model
    refused = nullcontext() if shared else pytest.raises(ValueError, match="leave it out")
    method = catalog.load("methods", spec)
    with trainer._attending(model, "sdpa"), method.in_training(model, 8192), refused:
        trainer._check_shared(model, spec)


@pytest.mark.slow
def test_adapters_leave_the_rest_of_the_model_alone(novel, tmp_path):
    pytest.importorskip("peft", reason="adapters are an extra: context-harness[train]")
    follow(course(novel, trains="lora"), tmp_path / "a")
    before, after = weights("toy"), weights(tmp_path / "a")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("self_attn" in name for name in moved)


def test_a_checkpoint_says_how_it_was_trained_and_is_evaluated_so(novel, tmp_path, capsys):
    follow(course(novel, spec="pi,factor=3"), tmp_path / "mine")
    said = trained.read(tmp_path / "mine")
    assert (said.method, said.base, said.tokens) == ("pi,factor=3", "toy", 1024)
    words = f"run --model {tmp_path}/mine -m pi -t passkey -l 1k --depths 0.5 --samples 1 --json"
    with pytest.raises(SystemExit):
        main([*words.split(), "--results", str(tmp_path / "results")])
    (row,) = json.loads(capsys.readouterr().out)
    assert row["model"].startswith("toy+mine@") and row["base"] in ("toy", "toy,dtype=float32")
    assert row["factor"] == 3 and "1,024 tokens" in row["trained"]


@pytest.mark.slow
def test_a_chat_is_learned_with_the_template_that_is_saved(tmp_path):
    talk = [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "It is a lamp." * 9},
    ]
    file = tmp_path / "talk.jsonl"
    file.write_text("".join(json.dumps({"messages": talk}) + "\n" for _ in range(40)))
    it = settle(describe("toy"), "naive-ft", "quick", corpus=f"jsonl:{file}", stage="chat",
                changes=SHORT | {"steps": 8})  # fmt: skip
    follow(it, tmp_path / "mine")
    curve = losses(tmp_path / "mine")
    assert curve[-1] < curve[0]
    mine = load(str(tmp_path / "mine"), device="cpu", dtype="float32").tokenizer
    assert "<|assistant|>" in mine.apply_chat_template(talk, tokenize=False)


def test_a_family_without_rope_is_refused_before_its_weights_are_read(
    folder, novel, tmp_path, capsys
):
    shutil.copytree(folder, tmp_path / "m")
    BloomConfig(hidden_size=32, n_layer=1, n_head=2, max_position_embeddings=64).save_pretrained(
        tmp_path / "m"
    )
    words = "train --method yarn --sequence-length 64 --steps 1 --batch-tokens 64 --device cpu"
    more = ["--model", str(tmp_path / "m"), "--corpus", novel, "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as left:
        main([*words.split(), *more])
    said = capsys.readouterr().err
    assert left.value.code == 2 and "rotary" in said and said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_another_method_than_it_learned_is_refused(novel, tmp_path, capsys):
    follow(course(novel, spec="pi,factor=3"), tmp_path / "mine")
    with pytest.raises(SystemExit) as left:
        main(f"run --model {tmp_path}/mine -m yarn -t passkey -l 1k --results {tmp_path}".split())
    assert left.value.code == 2
    assert "was trained with pi,factor=3" in capsys.readouterr().err


def test_a_training_goes_on_with_the_same_method_or_from_one_that_left_the_model_as_it_was(
    folder, tmp_path
):
    """Weights that learned one encoding do not silently learn another."""

    def trained_with(method):
        place = shutil.copytree(folder, tmp_path / method.replace(",", "-"))
        told = trained.Trained(
            method=method, recipe="quick", numbers={"factor": 2.0}, base="tiny", steps=1,
            base_weights="", original_length=512, corpus="", sequence_length=1024, tokens=1024,
            seed=0,
        )  # fmt: skip
        trained.write(place, told)
        return describe(str(place))

    for learned, spec in (("pi,factor=2", "pi,factor=4"), ("pi,factor=2", "pi"),
                          ("naive-ft", "yarn"), ("none", "yarn,factor=4")):  # fmt: skip
        settle(trained_with(learned), spec, "quick", corpus="stdlib")
        shutil.rmtree(tmp_path / learned.replace(",", "-"))
    with pytest.raises(ValueError, match=r"with pi,factor=2, and yarn would .* Give --method pi,"):
        settle(trained_with("pi,factor=2"), "yarn", "quick", corpus="stdlib")
    for learned in ("rerope", "log-n", "alibi", "nope,every=2", "naive-ft+log-n"):
        card = trained_with(learned)
        assert as_trained("auto", card) == learned
        with pytest.raises(ValueError, match="and none would read it otherwise"):
            as_trained("none", card)


def test_a_window_that_is_shorter_than_the_target_is_said(folder, tmp_path, capsys):
    place = shutil.copytree(folder, tmp_path / "mistral")
    config = json.loads((place / "config.json").read_text())
    config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    (place / "config.json").write_text(json.dumps(config | {"sliding_window": 256}))
    train = ["train", "-m", "pi", "--recipe", "quick", "--plan"]
    for words in (train, ["search", "--target", "1k", "--plan"]):
        with pytest.raises(SystemExit):
            main([*words, "--model", str(place), "--corpus", "stdlib"])
        assert "note: This model's layers look back no further than 256" in capsys.readouterr().err


def test_a_loss_that_is_no_number_stops_it_and_keeps_what_was_good(novel, tmp_path):
    with pytest.raises(FloatingPointError, match=r"at update \d+\. Last save: update \d"):
        follow(course(novel, steps=40, learning_rate=1e30, clip=None), tmp_path / "a")
    assert newest(tmp_path / "a") and not (tmp_path / "a" / "training.json").exists()


def test_a_gradient_that_is_no_number_moves_no_weight(novel, tmp_path, monkeypatch):
    from harness.train import loss

    plain, passes = loss.summed, []

    def broken(model, hidden, *rest):
        total, count = plain(model, hidden, *rest)
        passes.append(count)
        return (total + (0 * hidden).sqrt().sum() if len(passes) > 4 else total), count

    monkeypatch.setattr(loss, "summed", broken)
    with pytest.raises(FloatingPointError, match=r"gradient is nan at update 3\. .*update 2\."):
        follow(course(novel), tmp_path / "a")
    assert len(losses(tmp_path / "a")) == 2


def test_what_would_not_fit_is_said_before_it_starts(novel, tmp_path):
    it = course(novel, sequence_length=2**27, batch_tokens=2**27)
    corpus = rows(course(novel))
    with pytest.raises(ValueError, match=r"GiB, and .* are free"):
        train(it, corpus, tmp_path / "a", watch=Silent())
    assert not (tmp_path / "a").exists()


def test_longer_sequences_and_more_weights_need_more_memory(novel):
    card = describe("toy")
    less, more = course(novel), course(novel, sequence_length=4096, batch_tokens=4096)
    assert memory(less, card) < memory(more, card)
    assert memory(course(novel, trains="lora"), card) < memory(less, card)
    assert memory(more, card) < memory(replace(more, checkpointing=False), card)
    assert memory(less, card, Sharing(weights=8)) < memory(less, card)


def test_processes_that_share_a_sequence_need_less_of_it(novel):
    card, long = describe("toy"), course(novel, sequence_length=2**20, batch_tokens=2**20)
    apart, shared = (memory(long, card, Sharing(8, n)) for n in (1, 8))
    assert shared < apart / 5


def test_scores_that_are_written_out_grow_with_the_square(tmp_path):
    BloomConfig(hidden_size=32, n_layer=2, n_head=2, seq_length=64).save_pretrained(tmp_path)
    card = describe(str(tmp_path))
    some = (settle(card, "alibi", "quick", corpus="stdlib", changes={"sequence_length": n})
            for n in (2**14, 2**15))  # fmt: skip
    less, more = (memory(it, card) for it in some)
    assert more - less > 3 * 16 * 2 * 2**28


def test_on_cpus_the_processes_of_a_machine_share_its_memory(novel, monkeypatch):
    it, card = course(novel), describe("toy")
    monkeypatch.setattr(machine, "free_memory", lambda on: 2 * memory(it, card))
    for device, count, fits in (("cpu", 2, True), ("cpu", 3, False), ("cuda", 3, True)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(count))
        sharing = Sharing.of({}, count)
        refused = pytest.raises(ValueError, match=f"are free for each of {count} processes")
        with nullcontext() if fits else refused:
            checkpoint.afford(it, card, device, sharing)


def test_products_are_kept_where_memory_is_ample(novel, monkeypatch):
    it, card = course(novel), describe("toy")
    least, most = (memory(it, card, products=kept) for kept in (False, True))
    assert least < most < memory(replace(it, checkpointing=False), card)
    for free, ample in ((least, False), (most, False), (2 * most, True)):
        monkeypatch.setattr(machine, "free_memory", lambda on, free=free: free)
        assert checkpoint.afford(it, card, "cpu") is ample


def test_a_plan_is_of_the_processes_that_are_asked_for(monkeypatch, capsys):
    words = "train --method pi --model toy --plan --sequence-length 128k"
    said = []
    for more, world in (("", 1), (" --distributed fsdp2 --context-parallel 8", 1),
                        (" --distributed fsdp2", 4)):  # fmt: skip
        monkeypatch.setenv("WORLD_SIZE", str(world))
        with pytest.raises(SystemExit):
            main((words + more).split())
        said.append(capsys.readouterr().out)
    assert "for each of" not in said[0] and "for each of 8 processes" in said[1]
    assert "for each of 4 processes" in said[2] and len({*said}) == 3
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit):
        main(words.split())
    assert not capsys.readouterr().out


def test_a_budget_is_spent_and_not_passed(novel):
    it = settle(describe("toy"), "pi", "quick", corpus=novel, budget=1000, changes=SHORT)
    assert it.numbers.steps == 3 and it.tokens == 768


@pytest.mark.parametrize(
    ("spec", "name", "wishes", "said"),
    [
        ("yarn", "papper", {}, "Did you mean 'paper'"),
        ("yarn", "quick", {"budget": 10}, "less than one update"),
        ("yarm", "quick", {}, "No method named"),
        ("yarn", "quick", {"changes": {"learning_rate": -1.0}}, "learning rate"),
        ("naive-ft", "quick", {"factor": 0.0}, "factor must be at least 1"),
        ("yarn,factor=2", "quick", {"factor": 4.0}, "leave one out"),
        ("random-pos,max_factor=2", "quick", {"factor": 4.0}, "leave one out"),
        ("clex,factor=8", "quick", {"factor": 16.0}, "leave one out"),
        ("dynamic-yarn,factor=4", "quick", {"factor": 8.0}, "leave one out"),
        ("clex", "quick", {"factor": float("inf")}, "factor must be at least 1, not inf"),
        ("clex", "quick", {"factor": float("nan")}, "factor must be at least 1, not nan"),
    ],
)
def test_what_cannot_be_trained_is_said_in_a_sentence(spec, name, wishes, said):
    with pytest.raises((ValueError, LookupError), match=said):
        settle(describe("toy"), spec, name, corpus="stdlib:train", **wishes)


def test_the_quick_recipe_is_the_same_for_every_method():
    """One budget, one optimiser: only what is trained, and how far it is to read, are its own."""
    own = {"factor", "trains", "also", "sources", "disagreements"}
    told = [recipe(catalog.load("methods", name), "quick") for name in catalog.names("methods")]
    shared = [{k: v for k, v in vars(it).items() if k not in own} for it in told]
    assert all(one == shared[0] for one in shared)
    assert (told[0].sequence_length, told[0].steps, told[0].learning_rate) == (8192, 60, 1e-4)


def test_every_number_of_a_recipe_has_a_source():
    for name in catalog.names("methods"):
        for title, it in catalog.load("methods", name).recipes.items():
            default = Recipe(sequence_length=0, steps=0, batch_tokens=0, learning_rate=0)
            for key in ("sequence_length", "steps", "batch_tokens", "learning_rate"):
                assert it.sources.get(key), (name, title, key)
            changed = {k for k in ("schedule", "warmup", "weight_decay", "betas", "factor")
                       if getattr(it, k) != getattr(default, k)}  # fmt: skip
            assert changed <= set(it.sources), (name, title)


def test_a_recipe_whose_data_had_end_tokens_says_that_none_are_written_here():
    for name in catalog.names("methods"):
        for title, it in catalog.load("methods", name).recipes.items():
            said = any("no end token" in sentence for sentence in it.disagreements)
            assert said or "end tokens" not in it.data, (name, title)


@pytest.mark.parametrize("name", ["fsdp2", "zero2", "zero3"])
def test_shipped_settings_are_read_by_those_who_take_them(name, tmp_path):
    from transformers import TrainingArguments

    if name == "fsdp2":
        given = parallel.arguments(name, 1, "cpu")
        made = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, **given)
        assert made.fsdp_plugin_args["fsdp_version"] == 2
    else:
        from accelerate.utils.deepspeed import HfDeepSpeedConfig

        made = HfDeepSpeedConfig(parallel.settings(name))
        assert made.is_zero3() == (name == "zero3") and not made.is_offload()


def test_a_sequence_is_shared_on_gpus_only():
    with pytest.raises(ValueError, match="fsdp2 only"):
        parallel.arguments("none", 2, "cpu")
    with pytest.raises(ValueError, match="needs GPUs"):
        parallel.arguments("fsdp2", 2, "cpu")


RECIPES = [
    (name, title)
    for name in catalog.names("methods")
    for title in [*catalog.load("methods", name).recipes, "quick"]
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "title"), RECIPES)
def test_every_recipe_makes_three_updates(name, title, novel, tmp_path):
    changes = {"sequence_length": 256, "batch_tokens": 256, "steps": 3}
    it = settle(describe("toy"), name, title, corpus=novel, changes=changes)
    follow(it, tmp_path / "a")
    curve = losses(tmp_path / "a")
    assert len(curve) == 3 and all(0 < loss < 20 for loss in curve)
    assert trained.read(tmp_path / "a").recipe == title


@pytest.mark.slow
def test_a_killed_training_goes_on(novel, tmp_path):
    words = ["-P", "-m", "harness", "train", "-m", "pose", "--corpus", novel, "--steps", "12",
             "--sequence-length", "256", "--batch-tokens", "512", "--save-every", "2"]  # fmt: skip
    for folder, kill in (("whole", False), ("cut", True), ("cut", False)):
        command = [sys.executable, *words, "--output", str(tmp_path / folder)]
        running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        if kill:
            log = tmp_path / folder / "log.jsonl"
            while running.poll() is None and not (log.exists() and len(losses(log.parent)) > 4):
                time.sleep(0.02)
            running.kill()
        said = running.communicate()[1]
        assert running.returncode == (-signal.SIGKILL if kill else 0), said[-2000:]
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


WATCHED = """
import sys
from harness.cli import main
from harness.train import checkpoint

publish = checkpoint.publish

def told(learner, *rest):
    print("kept as", {type(weight.data).__name__ for weight in learner.parameters()})
    publish(learner, *rest)

checkpoint.publish = told
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_two_processes_share_the_weights(novel, tmp_path):
    """Sharded they learn what one process learns; bfloat16 rounds otherwise."""
    script = tmp_path / "watched.py"
    script.write_text(WATCHED)
    words = ["train", "-m", "yarn,factor=2", "--corpus", novel, "--steps", "3", "--device", "cpu",
             "--sequence-length", "256", "--batch-tokens", "512", "--dtype", "float32"]  # fmt: skip
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    for folder, how in (("one", []), ("two", launch)):
        shared = ["--distributed", "fsdp2"] if how else []
        command = [sys.executable, *how, script, *words, *shared, "--output", tmp_path / folder]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        assert ("DTensor" in done.stdout) == bool(how)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert set(one) == set(two)
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 2e-3


def test_adapters_are_not_shared(novel):
    with pytest.raises(ValueError, match="--distributed none"):
        parallel.arguments("fsdp2", 1, "cpu", trains="lora")


@pytest.fixture
def wordy(tmp_path):
    """Enough words to name keys after."""
    first, second = (
        ("sea", "sand", "lamp", "town", "night"),
        ("bird", "song", "way", "light", "man"),
    )
    words = [a + b for a in first for b in second]
    drawn = np.random.default_rng(0).choice(words, 6000)
    (tmp_path / "novel.txt").write_text(" ".join(drawn))
    return f"text:{tmp_path / 'novel.txt'}"


def questions(novel, length=512, seed=42, **changes):
    it = replace(course(novel, sequence_length=length, batch_tokens=2 * length, **changes),
                 stage="retrieval")  # fmt: skip
    return rows(it, seed=seed)


def test_of_a_retrieval_row_the_answers_are_learned_and_as_many_other_tokens(wordy):
    tokenizer, made = load("toy", device="cpu", dtype="float32").tokenizer, questions(wordy)
    assert len(made) == 8 and made.label.startswith("retrieval in text:novel.txt")
    for i, row in enumerate(made):
        tokens, labels = row["input_ids"], row["labels"]
        assert tokens.shape == labels.shape == (512,) and tokens[0] == tokenizer.bos_token_id
        learned = labels != -100
        assert torch.equal(tokens[learned], labels[learned]) and not learned[0]
        weights = made.quiz.row(np.random.default_rng((42, i)), 512)[1]
        answers = torch.from_numpy(weights == 1)
        assert answers.any() and learned[answers].all() and learned.sum() == 2 * answers.sum()


def test_a_retrieval_row_asks_for_a_key_though_chance_would_not(wordy, monkeypatch):
    """With nothing to learn, the loss of an update is 0 / 0."""
    row, calls = Quiz.row, []

    def silent(self, rng, length):
        calls.append(length)
        tokens, weights = row(self, rng, length)
        return tokens, weights * (len(calls) > 2)

    monkeypatch.setattr(Quiz, "row", silent)
    assert (questions(wordy)[0]["labels"] != -100).any() and len(calls) == 3


def test_every_update_reads_as_much_though_the_text_is_short():
    read = [trainer._Labelled([{"input_ids": torch.tensor(i)} for i in range(5)], 12)[i]
            for i in range(12)]  # fmt: skip
    assert [int(row["input_ids"]) for row in read] == [*range(5), *range(5), 0, 1]
    long = trainer._Labelled([{"input_ids": torch.tensor(i)} for i in range(5)], 3)
    assert len(long) == 5 and int(long[-1]["input_ids"]) == 4


def test_a_save_is_gone_on_with_by_as_many_processes_as_made_it(tmp_path):
    for rank in (0, 1):
        (tmp_path / f"rng_state_{rank}.pth").touch()
    trainer._check_processes(tmp_path, 2)
    trainer._check_processes(None, 1)
    with pytest.raises(ValueError, match="saved by 2 processes, and 1 would"):
        trainer._check_processes(tmp_path, 1)


def test_one_process_trains_on_one_gpu_of_several(novel, tmp_path, monkeypatch):
    """Spread over all it sees, an update would read so many times what is recorded."""
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: 2))
    made = trainer._arguments(course(novel), tmp_path, "cpu", 0, 1, False, {})
    assert made._n_gpu == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-m yarn --loss-on all -o x", "--loss-on belongs to --stage chat"),
        ("-m naive-ft --factor 8 -o x", "alike for any factor"),
        ("--seed 1 toy -o x", "--seed before toy changes nothing"),
    ],
)
def test_a_flag_that_changes_nothing_is_refused(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["train", *words.split()])
    assert left.value.code == 2 and said in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_a_file_of_factors_is_the_same_by_any_path(novel, tmp_path, monkeypatch):
    (tmp_path / "mine.json").write_text(json.dumps({"factors": [1.0] * 16, "factor": 2}))
    monkeypatch.chdir(tmp_path)
    one, other = (course(novel, spec=f"longrope,factors={place}") for place in
                  ("mine.json", f"{tmp_path}/mine.json"))  # fmt: skip
    assert one.method != other.method and one.identity() == other.identity()


def test_a_group_of_processes_that_share_a_sequence_reads_one():
    from accelerate.utils import ParallelismConfig

    assert trainer.shared(8, 2, {}) == (4, {})
    turns, how = trainer.shared(1, 2, {"parallelism_config": ParallelismConfig(cp_size=2)})
    assert turns == 1 and how["parallelism_config"].total_size == 2
    turns, how = trainer.shared(8, 4, {"parallelism_config": ParallelismConfig(cp_size=2)})
    assert turns == 4 and how["parallelism_config"].total_size == 4
    for rows_, world, said in ((8, 3, "does not divide 3"), (3, 4, "by 2 groups of processes")):
        with pytest.raises(ValueError, match=said):
            trainer.shared(rows_, world, {"parallelism_config": ParallelismConfig(cp_size=2)})


def test_a_warm_up_shrinks_with_its_course_and_a_seed_is_the_recipes(novel):
    def numbers(**how):
        return settle(describe("toy"), "yarn,factor=16", "paper", corpus=novel, **how).numbers

    whole = numbers()
    half = numbers(changes={"steps": whole.steps // 2})
    assert whole.warmup >= 2 and half.warmup == round(whole.warmup / 2)
    assert numbers(budget=2 * whole.batch_tokens).warmup == 0
    assert numbers(changes={"steps": 2 * whole.steps}).warmup == whole.warmup
    seeds = {name: recipe(catalog.load("methods", "yarn"), name).seed for name in ("128k", "quick")}
    assert seeds == {"128k": 31337, "quick": 42}


def test_a_retrieval_row_follows_from_the_seed_and_its_place(novel, wordy):
    one, same, other = questions(wordy), questions(wordy), questions(wordy, seed=1)
    assert torch.equal(one[5]["input_ids"], same[5]["input_ids"])
    assert not torch.equal(one[5]["input_ids"], other[5]["input_ids"])
    assert not torch.equal(one[5]["input_ids"], one[4]["input_ids"])
    with pytest.raises(ValueError, match="one row takes 65,536"):
        questions(wordy, length=65536)
    with pytest.raises(ValueError, match=r"at least 24, and rows .* here are 10 words"):
        questions(novel)


@pytest.mark.slow
def test_the_equation_of_clex_is_kept_beside_its_adapters(novel, tmp_path):
    """Its weights are no adapters: they lie in a file of their own, and are read with them."""
    follow(course(novel, spec="clex", trains="lora", steps=2), tmp_path / "mine")
    whole, alone = (load(str(folder), device="cpu", dtype="float32").model
                    for folder in (tmp_path / "mine", tmp_path / "mine" / "adapter"))  # fmt: skip
    assert whole.unexpected.keys() == alone.unexpected.keys() and len(alone.unexpected) == 2
    assert all(torch.equal(w, alone.unexpected[name]) for name, w in whole.unexpected.items())
    assert all(w.abs().max() > 0 for w in alone.unexpected.values())
    assert whole.config.use_cache
    tokens = torch.arange(1, 1500)[None]
    method = catalog.load("methods", "clex")
    with torch.no_grad(), method.applied_to(whole, 16384), method.applied_to(alone, 16384):
        assert torch.equal(whole(tokens).logits, alone(tokens).logits)
    (tmp_path / "mine" / "adapter" / "method.safetensors").unlink()
    with pytest.raises(LookupError, match=r"clex_layer.* is missing"):
        load(str(tmp_path / "mine" / "adapter"), device="cpu", dtype="float32")
    with pytest.raises(ValueError, match="yarn would read it otherwise than it learned"):
        plan(Options(models=(str(tmp_path / "mine"),), methods=("yarn",), tasks=("passkey",),
                     lengths=(1024,), device="cpu"))  # fmt: skip


@pytest.mark.slow
def test_embeddings_trained_beside_adapters_stay_the_head_where_they_were(novel, tmp_path):
    follow(course(novel, spec="longlora", steps=3, learning_rate=1e-2), tmp_path / "mine")
    merged, put = weights(tmp_path / "mine"), weights(tmp_path / "mine" / "adapter")
    assert merged.keys() == put.keys()
    assert all(torch.equal(merged[name], put[name]) for name in put)
    before, name = weights("toy"), "model.embed_tokens.weight"
    assert not torch.equal(put[name], before[name])
    assert torch.equal(put[name], put["lm_head.weight"])
    file = tmp_path / "mine" / "adapter" / "adapter_model.safetensors"
    held = load_file(file)
    save_file({key: w for key, w in held.items() if "lm_head" not in key}, file)
    apart = weights(tmp_path / "mine" / "adapter")  # as peft reads it: the head stays as it was
    assert torch.equal(apart[name], put[name])
    assert torch.equal(apart["lm_head.weight"], before["lm_head.weight"])


@pytest.mark.slow
def test_adapters_by_themselves_are_the_model_that_they_were_merged_into(novel, tmp_path):
    follow(course(novel, trains="lora", steps=2), tmp_path / "mine")
    whole, alone = tmp_path / "mine", tmp_path / "mine" / "adapter"
    assert sum(file.stat().st_size for file in alone.iterdir()) < 200_000
    assert not any("/" in line for line in (alone / "adapter_config.json").read_text().split("\n"))
    merged, put = weights(whole), weights(alone)
    assert all(torch.equal(merged[name], put[name]) for name in put)
    card = describe(str(alone))
    assert card.trained == describe(str(whole)).trained and card.spec.startswith("toy+mine@")
    assert card.spec != describe(str(whole)).spec and card.own_method == "yarn,factor=2"
    on_top = settle(
        card, "yarn,factor=3", "quick", corpus=novel, changes=SHORT | {"steps": 1, "trains": "lora"}
    )
    follow(on_top, tmp_path / "next")  # of adapters upon adapters there is the merged model alone
    assert describe(str(tmp_path / "next")).trained and not (tmp_path / "next/adapter").exists()
    held = alone / "adapter_model.safetensors"
    whole_file = held.read_bytes()
    held.write_bytes(whole_file[:99])
    with pytest.raises(LookupError, match="could not be read"):
        load(str(alone), device="cpu", dtype="float32")
    held.write_bytes(whole_file)
    said = json.loads((alone / "training.json").read_text())
    (alone / "training.json").write_text(json.dumps(said | {"base_weights": "0" * 64}))
    with pytest.raises(LookupError, match="with the weights 00000000, and here they are"):
        describe(str(alone))
    (alone / "training.json").write_text(json.dumps(said))
    config = json.loads((alone / "adapter_config.json").read_text())
    for key, value in {"use_dora": True, "lora_bias": True, "init_lora_weights": "pissa"}.items():
        (alone / "adapter_config.json").write_text(json.dumps(config | {key: value}))
        with pytest.raises(LookupError, match=f"{key}={value!r}, and only plain LoRA"):
            describe(str(alone))
    for text in ("[]", "[" * 100_000):
        (alone / "adapter_config.json").write_text(text)
        with pytest.raises(LookupError, match="cannot be read"):
            describe(str(alone))
