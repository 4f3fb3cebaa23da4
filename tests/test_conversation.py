"""A turn of a conversation is what the model would have said to all of it at once."""

import fcntl
import gc
import io
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from importlib.util import find_spec
from itertools import islice
from unittest.mock import Mock
from weakref import ref

import pytest
import torch
from browser import Browser, chromium

from harness import catalog
from harness import chat as chat_module
from harness.chat import Chat, Sampling, check_named, trouble
from harness.cli import main
from harness.cli.chat import COMMANDS, Pipe, Screen, Talk, whole
from harness.engine.evaluate import evaluate
from harness.engine.held import Held
from harness.engine.layers import Keys
from harness.model import load
from harness.probe import NotOn
from harness.reader import TokenReader
from harness.task import Request, Text

TRAINED, FACTOR, LIMIT = 512, 4, 12
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SHORT = Sampling(max_new_tokens=LIMIT)
SAYS = ["a" * 150, "What is it? " * 40, "And then it went on. " * 30]
"""Beyond the trained window with the second, and beyond twice as much with the third."""


@pytest.fixture(scope="module")
def live(folder):
    return load(str(folder), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def reader(live):
    return TokenReader(live.tokenizer)


@pytest.fixture
def talking(live, reader, monkeypatch):
    """A model that was trained on conversations."""
    monkeypatch.setattr(live.tokenizer, "chat_template", TEMPLATE)
    return live, reader


def answered(chat, text):
    return "".join(chat.reply(chat.say(text)))


def at_once(chat, turn, length):
    """What the engine writes behind the same tokens, from nothing."""
    method = catalog.load("methods", chat.spec)
    ask = Text(max_new_tokens=chat.sampling.max_new_tokens)
    with method.applied_to(chat.live.model, length):
        request = Request(id="", tokens=torch.tensor(turn.tokens).numpy(), ask=ask)
        ways = {"ends": chat.reader.ends, "marks": chat.reader.marks, "text": chat.reader.text}
        (tokens,) = evaluate(chat.live.model, [request], **ways)
    return chat.reader.text(tokens)


def call(*argv):
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in argv])
    return stop.value.code or 0


# laws


@pytest.mark.parametrize("name", catalog.names("methods"))
def test_every_turn_is_answered_as_if_asked_at_once(name, live, reader):
    if reason := catalog.load("methods", name).unfit(live.model, FACTOR * TRAINED):
        pytest.skip(reason)
    turns, said = [], []
    factor = None if name == "none" else FACTOR
    with Chat(live, reader, name, factor=factor, sampling=SHORT) as chat:
        for text in SAYS:
            turns.append(chat.say(text))
            said.append("".join(chat.reply(turns[-1])))
            assert chat.messages[-1] == {"role": "assistant", "content": said[-1]}
    fixed = None if chat.method.depends_on_length else chat.reach
    assert said == [at_once(chat, turn, fixed or turn.length) for turn in turns]
    assert len(turns[0].tokens) < TRAINED < len(turns[1].tokens) < 2 * TRAINED < turns[2].length


def test_what_was_read_is_not_read_again(live, reader):
    with Chat(live, reader, "yarn", factor=FACTOR, sampling=SHORT) as chat:
        read = []
        for text in SAYS:
            turn = chat.say(text)
            list(chat.reply(turn, read.append))
    bytes_ = [len(text) for text in SAYS]
    assert read[0] == bytes_[0] + 1  # the start token
    again = 3 * LIMIT + 2  # an answer of bytes that are no text is spelled otherwise
    assert all(n <= own + again for n, own in zip(read[1:], bytes_[1:], strict=True))


def test_what_follows_the_length_is_read_again_only_when_its_encoding_changes(live, reader):
    read = []
    with Chat(live, reader, "clex", sampling=SHORT) as chat:
        for text in ("a" * 150, "b" * 150, "c" * 250, "d" * 150):
            turn = chat.say(text)
            list(chat.reply(turn))
            read.append((chat.stats.read, len(turn.tokens)))
    assert read[0][0] == read[0][1] and read[1][0] < 150 + 40
    assert read[2][0] == read[2][1] > TRAINED  # t is 2 from here on
    assert read[3][0] < 150 + 40


def test_factors_for_short_inputs_serve_a_conversation_while_it_is_short(folder, reader, tmp_path):
    place = shutil.copytree(folder, tmp_path / "longrope")
    config = json.loads((place / "config.json").read_text())
    config["rope_parameters"] |= {
        "rope_type": "longrope", "original_max_position_embeddings": TRAINED, "factor": 4.0,
        "short_factor": [1.0] * 8, "long_factor": [3.0] * 8,
    }  # fmt: skip
    (place / "config.json").write_text(json.dumps(config))
    live = load(str(place), device="cpu", dtype="float32")
    with Chat(live, reader, "longrope", sampling=SHORT) as chat:
        assert chat.reach == 4 * TRAINED
        fastest, said, turns = [], [], []
        for text in SAYS:
            turns.append(chat.say(text))
            said.append("".join(chat.reply(turns[-1])))
            fastest.append(float(live.model.model.rotary_emb.encoding.frequencies[0]))
    assert said == [at_once(chat, turn, turn.length) for turn in turns]
    assert fastest == pytest.approx([1, 1 / 3, 1 / 3])


@pytest.mark.parametrize("block", [7, 64, 4096])
def test_in_blocks_and_in_pieces_it_reads_as_at_once(block, live):
    tokens = torch.randint(2, 250, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    whole_ = Held(live.model).read(tokens)
    held = Held(live.model, block=block)
    for text in (tokens[:90] + tokens[:50], tokens[:200], tokens[:120]):
        held.read(text)
    assert held.tokens == tokens[:120] and held.shared(tokens) == 120
    torch.testing.assert_close(held.read(tokens), whole_, atol=1e-4, rtol=0)
    torch.testing.assert_close(held.read(tokens), whole_, atol=1e-4, rtol=0)
    held.read(tokens[:-3])
    torch.testing.assert_close(held.more(tokens[-3:]), whole_, atol=1e-4, rtol=0)


def test_an_interrupt_leaves_what_is_held_complete(live):
    tokens = torch.randint(2, 250, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    held, left = Held(live.model, block=64), [2]

    def step(_):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        held.read(tokens, step)
    assert held.tokens == tokens[:128]
    torch.testing.assert_close(held.read(tokens), Held(live.model).read(tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["yarn", "clex", "self-extend", "none"])
def test_the_model_comes_back_as_it_was(name, live, reader):
    rotary = live.model.get_decoder().rotary_emb
    before = Held(live.model).read([5, 6, 7])
    with Chat(live, reader, name, sampling=SHORT) as chat:
        answered(chat, "a" * 600)
        chat.use("pi")
        answered(chat, "b")
    assert live.model.get_decoder().rotary_emb is rotary
    assert torch.equal(Held(live.model).read([5, 6, 7]), before)


# methods


def test_a_switch_reads_the_conversation_again(live, reader):
    with Chat(live, reader, "yarn", factor=FACTOR, sampling=SHORT) as chat:
        first = answered(chat, SAYS[1])
        chat.use("pi")
        turn = chat.say("And?")
        second = "".join(chat.reply(turn))
        assert chat.spec == "pi,factor=4" and chat.stats.read == len(turn.tokens)
    with Chat(live, reader, "pi", factor=FACTOR, sampling=SHORT) as other:
        other.messages = [
            {"role": "user", "content": SAYS[1]},
            {"role": "assistant", "content": first},
        ]
        assert answered(other, "And?") == second


@pytest.mark.parametrize(
    ("method", "factor", "why"),
    [
        ("auto", 4, "none is on: say which with --method"),
        ("yarn,factor=8", 4, "both say how far"),
        ("random-pos,max_factor=16", 4, "both say how far"),
        ("yarn", float("inf"), "a number from 1 up"),
        ("yarn", float("nan"), "a number from 1 up"),
    ],
)
def test_a_factor_that_would_change_nothing_is_refused(method, factor, why, live, reader):
    with pytest.raises(ValueError, match=why):
        Chat(live, reader, method, factor=factor)


@pytest.mark.parametrize("wrong", ["yarm", "yarn,factor=0.5", "yarn,beta=3", "pi+yarn"])
def test_a_refused_switch_changes_nothing(wrong, live, reader):
    with Chat(live, reader, "yarn", factor=FACTOR, sampling=SHORT) as chat:
        answered(chat, "a" * 20)
        with pytest.raises((ValueError, LookupError)):
            chat.use(wrong)
        turn = chat.say("b")
        assert chat.shared(turn) > 20
        assert "".join(chat.reply(turn)) == at_once(chat, turn, chat.reach)


def test_a_switch_that_fails_on_its_way_changes_nothing_either(live, reader, monkeypatch):
    """The proof, or somebody's Ctrl-C, comes when the old method is off already."""
    for error in (NotOn("it is not on"), KeyboardInterrupt()):
        with Chat(live, reader, "yarn", factor=FACTOR, sampling=SHORT) as chat:
            answered(chat, "a" * 20)
            with monkeypatch.context() as patch:
                patch.setattr("harness.chat.prove", Mock(side_effect=error))
                with pytest.raises(type(error)):
                    chat.use("pi")
            assert (chat.spec, chat.reach) == ("yarn,factor=4", 2048)
            turn = chat.say("b")
            assert "".join(chat.reply(turn)) == at_once(chat, turn, chat.reach)
    assert trouble(NotOn("it is not on")) == "it is not on" and trouble(KeyError("x")) is None


@pytest.mark.parametrize("error", [
    MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory"),
])  # fmt: skip
def test_where_memory_runs_out_what_is_shorter_is_answered(error, live, reader, monkeypatch):
    with Chat(live, reader, "yarn", factor=FACTOR, sampling=SHORT) as chat:
        answered(chat, "a" * 20)
        with monkeypatch.context() as patch:
            patch.setattr("harness.engine.held.Held.read", Mock(side_effect=error))
            patch.setattr("harness.engine.held.Head", Mock(side_effect=error))  # nor for a copy
            with pytest.raises(MemoryError) as ran_out:
                answered(chat, "b" * 900)
            assert chat.about()["keys"] == 0
        assert "(/clear), or ask for less" in trouble(ran_out.value)
        chat.clear()
        turn = chat.say("c")
        assert "".join(chat.reply(turn)) == at_once(chat, turn, chat.reach)


def test_keys_are_gone_before_another_method_has_its_own(live, reader, monkeypatch):
    with Chat(live, reader, "yarn", factor=FACTOR, sampling=SHORT) as chat:
        answered(chat, "a" * 20)
        before, real = ref(chat._held), chat_module.Held

        def held(*words):
            gc.collect()
            assert before() is None
            return real(*words)

        monkeypatch.setattr(chat_module, "Held", held)
        chat.use("pi")
        turn = chat.say("b")
        assert "".join(chat.reply(turn)) == at_once(chat, turn, chat.reach)


def test_keys_that_found_no_room_find_it_when_there_is_some(monkeypatch):
    keys, new = Keys(8), torch.ones(1, 2, 3, 4)
    with monkeypatch.context() as patch:
        patch.setattr(
            "harness.engine.offload.OnDevice.room_for_keys", Mock(side_effect=MemoryError)
        )
        with pytest.raises(MemoryError):
            keys.update(new, new)
    assert [x.shape for x in keys.update(new, new)] == [new.shape] * 2


@pytest.mark.parametrize(
    ("method", "factor", "spec", "reach"),
    [
        ("auto", None, "none", 512),
        ("none", None, "none", 512),
        ("yarn", None, "yarn,factor=4", 2048),
        ("yarn", 8, "yarn,factor=8", 4096),
        ("yarn,factor=2", None, "yarn,factor=2", 1024),
        ("lm-infinite", 3, "lm-infinite", 1536),
        ("lm-infinite", None, "lm-infinite", None),
        ("lm-infinite,window=900", None, "lm-infinite,window=900", 512),
        ("yarn+dca", None, "yarn+dca,factor=4", None),
        ("log-n", None, "log-n", 512),
        ("self-extend,group=2", None, "self-extend,group=2", 896),
        ("clex", None, "clex", 16 * 512),
        ("dynamic-ntk", None, "dynamic-ntk", None),
    ],
)
def test_its_range_is_what_was_asked_for_or_what_the_method_says(
    method, factor, spec, reach, live, reader
):
    with Chat(live, reader, method, factor=factor) as chat:
        assert (chat.spec, chat.reach) == (spec, reach)


def test_beyond_its_range_it_says_so_before_it_answers(live, reader):
    with Chat(live, reader, "pi", factor=2, sampling=SHORT) as chat:
        assert chat.say("a" * 1000).notice is None
        assert "1,101 tokens, and pi,factor=2 is set to read 1,024" in chat.say("a" * 1100).notice
    with Chat(live, reader, "clex,max_factor=2", sampling=SHORT) as chat:
        with pytest.raises(ValueError, match=r"reads up to 1,024 tokens.*is 1,113: start anew"):
            chat.say("a" * 1100)
        assert answered(chat, "a")


# what is said


def test_a_document_stands_before_the_first_question_and_stays(live, reader):
    with Chat(live, reader, document="It was so.", sampling=SHORT) as chat:
        assert reader.text(chat.say("Why?").tokens[1:]) == "It was so.\n\nWhy?"
        first = answered(chat, "Why?")
        said = reader.text(chat.say("And?").tokens[1:])
        assert said == f"It was so.\n\nWhy?{first}\nAnd?"
        chat.clear()
        assert chat.about()["tokens"] == 0
        assert chat.shared(chat.say("Who?")) == len("<It was so.\n\nWh")


def test_a_template_is_used_where_there_is_one(talking):
    live, reader = talking
    with Chat(live, reader, sampling=SHORT, document="It.") as chat:
        assert chat.chats
        said = answered(chat, "Why?")
        expected = f"<user>It.\n\nWhy?\n<assistant>{said}\n<user>And?\n<assistant>"
        assert reader.text(chat.say("And?").tokens[1:]) == expected
    with Chat(live, reader, prompt="base") as chat:
        assert not chat.chats and reader.text(chat.say("Why?").tokens[1:]) == "Why?"


def test_a_conversation_that_no_template_can_spell_is_refused(live, reader):
    with (
        Chat(live, reader, prompt="chat") as chat,
        pytest.raises(LookupError, match="--prompt base"),
    ):
        chat.say("a")


def test_an_answer_that_was_stopped_is_what_was_said_until_then(live, reader):
    with Chat(live, reader, sampling=Sampling(max_new_tokens=40)) as chat:
        turn = chat.say("ab" * 20)
        whole_ = "".join(chat.reply(turn))
        chat.clear()
        pieces = chat.reply(chat.say("ab" * 20))
        some = "".join(islice(pieces, 5))
        pieces.close()
        assert chat.messages[-1]["content"] == some and whole_.startswith(some) != (some == "")
        turn = chat.say("c")
        assert "".join(chat.reply(turn)) == at_once(chat, turn, chat.reach)


def test_an_answer_ends_where_another_begins(live, reader):
    """In a browser a stopped answer may be asked for once more."""
    with Chat(live, reader, sampling=Sampling(max_new_tokens=40)) as chat:
        first, turn = chat.reply(chat.say("a")), chat.say("b")
        next(first)
        pieces = chat.reply(turn)
        said = next(pieces)
        assert list(first) == []
        said += "".join(pieces)
    assert said == at_once(chat, turn, chat.reach)
    assert [m["content"] for m in chat.messages] == ["b", said]


def test_half_a_letter_is_not_said(live, reader, monkeypatch):
    """Of two bytes, each a token by itself."""
    é = reader.tokens("é")
    ends = torch.full((4, 258), -1.0)
    for row, token in zip(ends, [*é, *é], strict=True):
        row[token] = 1.0
    rows = iter(ends)
    monkeypatch.setattr(Held, "read", lambda *_: next(rows))
    monkeypatch.setattr(Held, "more", lambda *_: next(rows))
    with Chat(live, reader, sampling=Sampling(max_new_tokens=4)) as chat:
        assert list(chat.reply(chat.say("a"))) == ["é", "é"]


# sampling


def test_a_seed_repeats_an_answer_and_another_changes_it(live, reader):
    said = []
    for seed in (1, 1, 2):
        sampling = Sampling(temperature=1.5, seed=seed, max_new_tokens=30)
        with Chat(live, reader, sampling=sampling) as chat:
            said.append(answered(chat, "abc"))
    assert said[0] == said[1] != said[2]


def test_tokens_come_as_often_as_they_are_likely():
    logits, generator = torch.tensor([0.2, 0.5, 0.3]).log(), torch.Generator().manual_seed(0)

    def share(**how):
        sampling = Sampling(**how)
        drawn = torch.tensor([sampling.chosen(logits, generator) for _ in range(2000)])
        return [float((drawn == i).float().mean()) for i in range(3)]

    assert share() == [0, 1, 0]
    assert share(temperature=1) == pytest.approx([0.2, 0.5, 0.3], abs=0.04)
    assert share(temperature=1, top_p=0.5) == [0, 1, 0]
    assert share(temperature=1, top_p=0.6) == pytest.approx([0, 0.625, 0.375], abs=0.04)
    flat = torch.tensor([0.2, 0.5, 0.3]) ** 0.5
    assert share(temperature=2) == pytest.approx((flat / flat.sum()).tolist(), abs=0.04)


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"top_p": 0}, {"max_new_tokens": 0}])
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).replace("_", "-")):
        Sampling(**wrong)


# through a pipe


@pytest.fixture
def piped(monkeypatch, folder, capsys):
    def run(*lines, flags=()):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        code = call("chat", "--model", folder, "--max-new-tokens", 5, "--dtype", "float32", *flags)
        return code, *capsys.readouterr()

    return run


def test_a_pipe_gets_answers_and_nothing_else(piped, live, reader):
    code, out, err = piped("abc", "", "de", flags=("-m", "yarn", "--factor", 2))
    with Chat(live, reader, "yarn", factor=2, sampling=Sampling(max_new_tokens=5)) as chat:
        assert out == "".join(f"{answered(chat, text)}\n" for text in ("abc", "de"))
    assert code == 0 and err == (
        "note: This model goes on with what you write: it holds no conversations.\n"
    )


def test_commands_do_what_they_say(piped):
    code, out, _ = piped("abc", "/clear", "/stats", "/method pi", "/method", "/help", "/quit", "x")
    assert code == 0 and "0 of 512 tokens in context, read by none" in out
    assert "pi,factor=4, set to read 2,048 tokens, 4 times as many as trained." in out
    assert all(about in out for about in COMMANDS.values())


def test_stats_count_what_was_read_and_written(piped):
    _, out, _ = piped("a" * 40, "/stats")
    assert "read 41 new tokens" in out and "wrote 5 tokens" in out
    assert "45 of 512 tokens in context" in out and "MiB of keys" in out


def test_what_goes_wrong_is_said_and_the_rest_goes_on(piped):
    code, out, err = piped("/method yarm", "/foo", "ab")
    assert code == 1 and out and "Did you mean 'yarn'?" in err and "There is no /foo, only" in err


def test_a_slip_in_ones_own_file_does_not_end_the_conversation(piped, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom harness.rotary import RotaryMethod\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Mine(RotaryMethod):\n"
        "    formula = paper = 'mine'\n"
        "    def frequencies(self, rope, scale):\n        return undefined\n"
        "method = Mine()\n"
    )
    code, out, err = piped(f"/method {file}", "ab")
    assert code == 1 and out and "mine.py, line 7" in err and "Traceback" not in err


def test_beyond_its_range_a_pipe_is_told_too(piped, tmp_path):
    book = tmp_path / "book.txt"
    book.write_text("It was so. " * 60)
    code, out, err = piped("Why?", flags=("--file", book))
    assert code == 0 and out and "tokens, and none is set to read 512" in err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--factor", "0.5"), "--factor is a number from 1 up"),
        (("--file", "nowhere.txt"), "nowhere.txt: No such file"),
        (("-m", "yarm"), "Did you mean 'yarn'?"),
        (("--temperature", "-1"), "A temperature is"),
    ],
)
def test_a_mistake_is_said_in_a_sentence(flags, said, piped):
    code, out, err = piped("a", flags=flags)
    assert code == 2 and not out and said in err and err.count("\n") == 1


def test_a_browser_needs_its_extra(piped, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, _, err = piped(flags=("--web",))
    assert code == 2 and "pip install 'context-harness[web]'" in err


# at a terminal


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["one line"], "one line"),
        (["goes on \\", "here\\", ""], "goes on \nhere\n"),
        (['"""', "all \\", "", "of it", '"""'], "all \\\n\nof it"),
    ],
)
def test_a_question_may_have_several_lines(lines, said):
    left = iter(lines)
    assert whole(lambda _: next(left)) == said and next(left, None) is None


class Keyboard(Screen):
    """Somebody who says these things; None is Ctrl-C. He stops answers after so many pieces."""

    def __init__(self, *says, stops=None):
        super().__init__()
        self.says, self.stops, self.seen = iter(says), stops, []

    def ask(self):
        text = next(self.says)
        if text is None:
            signal.raise_signal(signal.SIGINT)
        return text

    def say(self, piece):
        self.seen.append(piece)
        if self.stops is not None and len(self.seen) == self.stops:
            signal.raise_signal(signal.SIGINT)

    def note(self, text):
        self.seen.append(text.strip())


def talk(live, reader, keyboard, **how):
    with Chat(live, reader, **how, sampling=Sampling(max_new_tokens=30)) as chat:
        return Talk(chat, keyboard).run(), chat


def test_ctrl_c_stops_the_answer_and_not_the_program(live, reader):
    keyboard = Keyboard("abc", "/stats", "def", "/quit", stops=5)
    code, chat = talk(live, reader, keyboard)
    assert code == 0 and "Stopped." in keyboard.seen
    roles = [message["role"] for message in chat.messages]
    assert roles == ["user", "assistant"] * 2 and chat.messages[2]["content"] == "def"
    assert 0 < len(chat.messages[1]["content"]) < 30


def test_ctrl_c_once_more_leaves(live, reader):
    assert talk(live, reader, Keyboard(None, None))[0] == 130
    assert talk(live, reader, Keyboard(None, "a", None, "/quit"))[0] == 0
    assert talk(live, reader, Keyboard("abc", None, stops=5))[0] == 130


def test_ctrl_c_ends_what_comes_through_a_pipe(live, reader, monkeypatch):
    class Interrupted(Pipe):
        said = 0

        def say(self, piece):
            self.said += 1
            if self.said == 2:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sys, "stdin", io.StringIO("abc\ndef\n"))
    code, chat = talk(live, reader, Interrupted())
    assert code == 130 and len(chat.messages) == 2


def test_the_end_of_the_input_leaves(live, reader, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("abc"))
    assert talk(live, reader, Pipe())[0] == 0
    monkeypatch.setattr(sys, "stdin", None)  # closed before it began
    assert talk(live, reader, Pipe())[0] == 0


class Terminal:
    """`harness chat` on a terminal of its own, with somebody at the keys."""

    def __init__(self, *flags):
        self.ours, theirs = pty.openpty()
        command = [sys.executable, "-P", "-m", "harness", "chat", *map(str, flags)]
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(theirs)
        self.seen, self.read = "", 0

    def until(self, text, patience=60):
        """Wait for it behind what was waited for before."""
        end = time.monotonic() + patience
        while text not in self.seen[self.read :]:
            left = end - time.monotonic()
            assert left > 0 and select.select([self.ours], [], [], left)[0], self.seen
            self.seen += os.read(self.ours, 4096).decode(errors="replace")
        self.read = self.seen.index(text, self.read) + len(text)

    def press(self, keys):
        os.write(self.ours, keys.encode())


@pytest.fixture
def terminal():
    opened = []
    yield lambda *flags: opened.append(Terminal(*flags)) or opened[-1]
    for it in opened:
        it.process.kill()
        it.process.wait()
        os.close(it.ours)


@pytest.mark.slow
def test_at_a_real_terminal_ctrl_c_stops_and_once_more_leaves(terminal):
    it = terminal("--method", "yarn", "--max-new-tokens", 100_000)
    it.until("yarn,factor=4, set to read 16,384 tokens, 4 times as many as trained")
    it.until("> ")
    it.press("def main(argv):\\\n")
    it.until(". ")
    it.press('    """What\n')
    for _ in range(5):
        it.until("\n")
    it.press("\x03")
    it.until("Stopped.")
    it.until("> ")
    it.press("/stats\n")
    it.until("tokens in context")
    it.until("> ")
    time.sleep(1)  # until it listens again
    it.press("\x03")
    it.until("Once more")
    time.sleep(1)
    it.press("\x03")
    assert it.process.wait(30) == 130


# in a browser


@pytest.mark.parametrize("typed", [
    "yarn", "yarn,factor=8", "ntk+log-n,factor=2.5", "yarm", "longrope,start=official",
    "mine@1a2b3c4d,factor=4", "longrope,factors=found.json",
])  # fmt: skip
def test_in_a_browser_a_method_is_a_name_with_numbers_and_words(typed):
    check_named(typed, "mine@1a2b3c4d,factors=found.json")


@pytest.mark.parametrize("typed", [
    "./x.py", "x.py", "/tmp/gradio/1/x.py", "yarn+./x.py", "~/x.py.variant", "C:\\x.py",
    "longrope,factors=/etc/passwd", "longrope,factors=other.json", "x@00000000",
])  # fmt: skip
def test_in_a_browser_nobody_names_a_file(typed):
    with pytest.raises(ValueError, match="numbers and words behind it"):
        check_named(typed, "longrope,factors=found.json")


@pytest.fixture
def page(tmp_path):
    """The toy model's page in Chromium."""
    if find_spec("gradio") is None or chromium() is None:
        pytest.skip("needs gradio, which is no part of the test extra, and Chromium")
    command = [sys.executable, "-P", "-m", "harness", "chat", "--web", "--max-new-tokens", "30"]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path / "dropped")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as served:
        try:
            address = served.stdout.readline().split()[0]
            with Browser(tmp_path / "profile", patience=60) as browser:
                browser.look(1100, 800)
                browser.call("Page.navigate", url=address)
                sees(browser, "document.querySelector('textarea')")
                yield browser
                browser.picture(tmp_path / "page.png")
                assert address.startswith("http://127.0.0.1:")
                loopback = (address, "data:", "blob:")
                assert all(url.startswith(loopback) for url in browser.asked)
        finally:
            served.send_signal(signal.SIGINT)


def sees(browser, script, patience=60):
    """Wait until a script has a value that is true."""
    end = time.monotonic() + patience
    while not browser.run(f"Boolean({script})"):
        assert time.monotonic() < end, (script, browser.run("document.body.innerText"))
        time.sleep(0.2)


def reads(browser, text):
    sees(browser, f"document.body.innerText.includes({json.dumps(text)})")


def ask(browser, text, answers):
    """The words of the answer, which is the so-manieth; markup is gone."""
    sees(browser, "!document.querySelector('textarea').disabled")
    browser.run("document.querySelector('textarea').focus()")
    browser.call("Input.insertText", text=text)
    browser.press("Enter")
    sees(browser, f"document.querySelectorAll('[data-testid=bot]').length == {answers}")
    found = [None, ""]
    while found[-1] != found[-2] or not found[-1]:  # until it grows no more
        assert len(found) < 60, browser.run("document.body.innerText")
        time.sleep(1)
        last = "[...document.querySelectorAll('[data-testid=bot]')].at(-1).innerText"
        found.append(browser.run(last))
    return re.findall("[A-Za-z]+", found[-1])


@pytest.mark.slow
def test_in_a_browser_it_says_what_it_says_at_a_terminal(page):
    says = ("def main(argv):", "class Reader:")
    found = [ask(page, text, i) for i, text in enumerate(says, 1)]
    toy = load("toy", device="cpu", dtype="auto")
    with Chat(toy, TokenReader(toy.tokenizer), sampling=Sampling(max_new_tokens=30)) as chat:
        assert found == [re.findall("[A-Za-z]+", answered(chat, text)) for text in says]
        reads(page, f"{chat.about()['tokens']} of 4,096 tokens in context, read by none")


@pytest.mark.slow
def test_in_a_browser_files_are_dropped_and_methods_picked(page, tmp_path):
    book = tmp_path / "book.txt"
    book.write_text("import io\n\ndef read(file):\n    return file.read()\n" * 400)
    where = page.call("Runtime.evaluate", expression="document.querySelector('[type=file]')")
    page.call("DOM.setFileInputFiles", files=[str(book)], objectId=where["result"]["objectId"])
    sees(page, "document.querySelector('.thumbnail-item')")
    ask(page, "class Reader:", 1)
    reads(page, "is set to read 4,096")
    picker = "[...document.querySelectorAll('input')].find((it) => it.type != 'file')"
    page.run(f"({picker}.focus(), {picker}.select())")
    page.call("Input.insertText", text="yarn,factor=8")
    page.press("Enter")
    ask(page, "def close(self):", 2)
    reads(page, "of 32,768 tokens in context, read by yarn,factor=8")
    page.run(f"({picker}.focus(), {picker}.select())")
    page.call("Input.insertText", text="yarm")
    page.press("Enter")
    page.run("document.querySelector('textarea').focus()")
    page.call("Input.insertText", text="def open(self):")
    page.press("Enter")
    reads(page, "Did you mean 'yarn'?")
    sees(page, "!document.querySelector('textarea').disabled")
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    page.run(f"({picker}.focus(), {picker}.select())")
    page.call("Input.insertText", text=str(tmp_path / "mine.py"))
    page.press("Enter")
    page.run("document.querySelector('textarea').focus()")
    page.call("Input.insertText", text="def close(self):")
    page.press("Enter")
    reads(page, "numbers and words behind it")
    assert not (tmp_path / "ran").exists()
