"""This project's engine as a model of lm-eval's command line: `harness lm-eval --model harness`.

Gao et al., https://github.com/EleutherAI/lm-evaluation-harness. Its own model for transformers
makes all logits of a prompt, 6 GB for 32k tokens; here only those that are asked for are made, and
what prompts have in common is read once.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM

from harness import catalog
from harness.asking import Asking, Question, answered
from harness.cell import OWN, UNEXTENDED
from harness.conversation import rendered
from harness.engine.evaluate import evaluate
from harness.learned import as_trained
from harness.model import Card, Live, load
from harness.plugins import named
from harness.probe import checked, prove
from harness.reader import TokenReader
from harness.task import Outcome, Request

MOST = 2**19
"""Tokens of inputs that are read together, however much of them is the same."""


def _own(card: Card) -> str:
    """What a checkpoint is read by where nothing is said."""
    return OWN if card.own_method else UNEXTENDED


def _device(asked: Any, flag: Any) -> str:
    """`cuda:3` of the arguments or of lm-eval's flag is made the one that is used.

    Raises:
        ValueError: there is no such GPU.
    """
    kind, _, number = str(asked or flag or "auto").partition(":")
    if torch.cuda.is_available() and number.isdecimal():
        there = torch.cuda.device_count()
        if int(number) >= there:
            raise ValueError(f"There is no {kind}:{number} here, of {there} GPUs.")
        torch.cuda.set_device(int(number))
    # The flag says cuda:0 if nobody says anything.
    return kind if asked or kind == "cpu" else "auto"


class Parsing(TokenReader):
    """Reads special tokens in a text as such: a chat template writes them."""

    def tokens(self, text: str) -> list[int]:
        return self._tokens(text)


class HarnessLM(TemplateLM):
    """A model with a method on, for all of lm-eval's tasks."""

    def __init__(
        self,
        live: Live,
        *,
        length: int,
        method: str | None = None,
        start_token: bool = True,
    ) -> None:
        """Put the method on, until `close`.

        Args:
            live: the model, in memory.
            length: what lm-eval calls max_length.
            method: a spec, such as `yarn,factor=4`; None: what it was trained with, if anything.
            start_token: it stands before every input; false: as lm-eval with a tokenizer that adds
                none.

        Raises:
            ValueError: the method does not fit the model, or it learned another; says why.
        """
        super().__init__()
        spec = as_trained(named(method or _own(live.card)), live.card)
        chosen = catalog.load("methods", spec)
        if reason := chosen.unfit(live.model, length):
            raise ValueError(f"{spec} cannot be put on {live.card.name}: {reason.rstrip('.')}.")
        self.live, self.tokenizer = live, live.tokenizer
        self.reader = Parsing(live.tokenizer)
        self.asking = Asking(self.reader, length, start_token)
        self.applied = ExitStack()
        self.applied.enter_context(chosen.applied_to(live.model, length))
        prove(live.model, chosen, length)

    @classmethod
    def create_from_arg_obj(
        cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None
    ) -> "HarnessLM":
        """From `--model_args model=toy,method=yarn,factor=4,length=32768`.

        What is none of model, length, dtype, device or start_token is a parameter of the method.

        Raises:
            LookupError: there is no such model or method.
            ValueError: something is missing, or the method has no such parameter.
        """
        from harness.lengths import lengths

        given = {key: value for key, value in arg_dict.items() if value is not None}
        if "length" not in given:
            raise ValueError("Say how long inputs may be: --model_args model=toy,length=32k.")
        length = lengths(str(given.pop("length")))[-1]
        live = load(
            str(given.pop("model", "toy")),
            device=_device(given.pop("device", None), (additional_config or {}).get("device")),
            dtype=str(given.pop("dtype", "auto")),
        )
        start = str(given.pop("start_token", "true")).lower() != "false"
        method = catalog.extended(str(given.pop("method", _own(live.card))), given)
        return cls(checked(live), length=length, method=method, start_token=start)

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> "HarnessLM":
        """As `create_from_arg_obj`."""
        return cls.create_from_arg_obj(catalog.split(f"it,{arg_string}")[1], additional_config)

    def close(self) -> None:
        """Give the model back as it was."""
        self.applied.close()

    @property
    def eot_token_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        return self.asking.reader.bos

    @property
    def max_length(self) -> int:
        return self.asking.length

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """As the tokenizer's own template has it; a start token that it writes is left to us."""
        said = rendered(self.tokenizer, chat_history, answered=not add_generation_prompt)
        return said.removeprefix(self.tokenizer.bos_token or "")

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **kwargs: Any
    ) -> list[int]:
        return self.asking.reader.tokens(string)

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        return self._answers(requests)

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        return self._answers(requests)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        return self._answers(requests)

    def _loglikelihood_tokens(self, requests: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        raise NotImplementedError("Instances are answered whole.")

    def _answers(self, instances: Sequence[Instance]) -> list[Any]:
        """Some at a time: those that begin alike share what they share, and all have room."""
        questions = [self._asking(one).question([one]) for one in instances]
        ends = np.cumsum([len(question.tokens) for question in questions]) // MOST
        found: list[Any] = []
        for _, some in groupby(range(len(instances)), key=ends.__getitem__):
            places = [*some]
            part = slice(places[0], places[-1] + 1)
            found += self._together(instances[part], questions[part])
        return found

    def _asking(self, one: Instance) -> Asking:
        """A conversation begins without a start token where the tokenizer has none of its own.

        As in `TokenReader.chat`. It is told by how it begins: text never does with such a token.
        """
        specials = tuple(filter(None, self.tokenizer.all_special_tokens))
        if self.tokenizer.bos_token_id is None and str(one.args[0]).startswith(specials):
            return replace(self.asking, start_token=False)
        return self.asking

    def _together(self, instances: Sequence[Instance], questions: Sequence[Question]) -> list[Any]:
        asked = [
            Request(id=f"{one.task_name}-{one.doc_id}-{one.idx}-{i}", tokens=q.tokens, ask=q.ask)
            for i, (one, q) in enumerate(zip(instances, questions, strict=True))
        ]
        reader = self.reader
        outcomes: list[Outcome] = evaluate(
            self.live.model, asked, text=reader.text, ends=reader.ends, marks=reader.marks
        )
        found = [
            answered([one], q.ask, q.counts, outcome, reader)[0]
            for one, q, outcome in zip(instances, questions, outcomes, strict=True)
        ]
        for one, answer in zip(instances, found, strict=True):
            self.cache_hook.add_partial(one.request_type, one.args, answer)
        return found
