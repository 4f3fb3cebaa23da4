"""Tokenizers that are short and honest, for the tests of tasks that are made of text."""

import random
import re
from pathlib import Path

import numpy as np

import harness
from harness.task import Document

TOY = Path(harness.__file__).parent / "toy"
WORDS = ["sun", "moon", "cloud", "river", "stone", "bread", "paper", "candle", "window", "garden"]


class Bytes:
    """A byte is a token."""

    bos, spells_one_way, chats = 256, True, False

    def tokens(self, text):
        return list(text.encode())

    def text(self, tokens):
        return bytes(int(t) for t in tokens if t < 256).decode(errors="replace")

    def chat(self, messages, *, opening=""):
        raise LookupError("The tokenizer has no chat template.")

    def documents(self, corpus, *, reach, first):
        """Sentences of three to thirteen words."""
        return [self._document(random.Random(i), reach) for i in range(first)]

    def _document(self, rng, reach):
        text, tokens = "", []
        while len(tokens) < reach:
            lengths = (rng.randint(2, 12) for _ in range(reach // 8 + 1))
            text += "".join(f"The {' '.join(rng.choices(WORDS, k=k))}. " for k in lengths)
            tokens = self.tokens(text)
        return Document(name="sentences", tokens=np.array(tokens, dtype=np.int32))


class Talking(Bytes):
    """It was trained on conversations: a token, 257, stands between turns."""

    chats = True

    def chat(self, messages, *, opening=""):
        turns = ([257, *self.tokens(f"{m['role']}: {m['content']}")] for m in messages)
        return [self.bos, *(t for turn in turns for t in turn), 257, *self.tokens(opening)]


class Spaced(Bytes):
    """A token is up to three letters or digits with a space before them, as at the beginning."""

    spells_one_way = False

    def __init__(self):
        self.known = {}

    def tokens(self, text):
        pieces = re.findall(r" ?\w{1,3}|\s|.", f" {text}")
        return [self.known.setdefault(piece, 300 + len(self.known)) for piece in pieces]

    def text(self, tokens):
        spelled = list(self.known)
        return "".join(spelled[t - 300] for t in tokens if t >= 300)


def toy():
    """The tokenizer of the model that ships, but for its corpora."""
    from transformers import AutoTokenizer

    from harness.reader import TokenReader

    class Toy(TokenReader):
        documents, _document = Bytes.documents, Bytes._document

    return Toy(AutoTokenizer.from_pretrained(TOY))


def questions(asked, reader, length):
    """At this length, or where it says that it is too short, at the least that it says will do."""
    try:
        return list(asked.requests(reader, length)), length
    except ValueError as error:
        least = re.search(r"lengths of at least ([\d,]+) tokens", str(error))
        assert least, error
        return questions(asked, reader, int(least[1].replace(",", "")))


def prompt_of(request, reader):
    """Its text, without the start token."""
    return reader.text(request.tokens[1:])
