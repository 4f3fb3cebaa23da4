"""A conversation as the tokenizer's chat template writes it: what it says, and where a turn ends.

Two things are not left to the template: the day is always the same, and an answer is asked for at
once, without a thought that is written out first.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

TODAY = {"%A": "Friday", "%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024"}
"""The day on which every conversation is held: that of Llama 3's templates, and never the real one,
or a prompt would be another one tomorrow."""
BETWEEN = "<|endoftext|>"
"""What stands between documents in training, by the name that GPT-2 gave it."""
THINKING = "enable_thinking"
"""What templates call the wish that an answer is thought over in words first."""
CLOSED = "<think>\n\n</think>\n\n"
"""A thought that is over, as Qwen's own template writes it."""
SAID = "What was said."


def dated(tokenizer: Any) -> str:
    """The tokenizer's chat template, on the day on which every conversation is held."""
    template: str = tokenizer.get_chat_template()
    if "strftime_now" not in template:
        return template
    said = "".join(f".replace({code!r}, {word!r})" for code, word in TODAY.items())
    return f"{{% macro strftime_now(form) %}}{{{{ form{said} }}}}{{% endmacro %}}{template}"


def rendered(
    tokenizer: Any, messages: Sequence[Mapping[str, str]], *, answered: bool = False
) -> str:
    """A conversation by the tokenizer's template, up to where the assistant speaks.

    Thinking is turned off where the template knows the wish, and a thought that the template
    begins is closed: an answer of a benchmark has no room for it.

    Args:
        tokenizer: one with a template.
        messages: each a `role` and a `content`.
        answered: the last message is the assistant's, and is gone on with.

    Raises:
        jinja2.TemplateError, TypeError: the template refuses these messages.
    """
    template = dated(tokenizer)
    said: str = tokenizer.apply_chat_template(
        messages,
        chat_template=template,
        tokenize=False,
        add_generation_prompt=not answered,
        continue_final_message=answered,
        **({THINKING: False} if THINKING in template else {}),
    )
    return said if answered else re.sub(r"<think>\s*\Z", lambda _: CLOSED, said)


def thinking(tokenizer: Any) -> str | None:
    """What `rendered` did about a template that would have answers thought over; None: nothing."""
    if THINKING in tokenizer.get_chat_template():
        return "off"
    said = _tried(tokenizer, [{"role": "user", "content": "?"}], add_generation_prompt=True)
    return "closed" if re.search(r"<think>\s*\Z", said) else None


def turn_end(tokenizer: Any) -> int | None:
    """The special token that the template writes behind what an assistant says; None: none."""
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": SAID}]
    _, said, rest = _tried(tokenizer, turns).rpartition(SAID)
    behind = special(tokenizer).match(rest.lstrip()) if said else None
    return behind and int(tokenizer.convert_tokens_to_ids(behind[0]))


def special(tokenizer: Any) -> re.Pattern[str]:
    """Finds special tokens in text, the longest first; of one group, that `split` keeps."""
    added = tokenizer.added_tokens_decoder.values()
    spellings = sorted((t.content for t in added if t.special), key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, spellings)) or '(?!)'})")


def _tried(tokenizer: Any, messages: Sequence[Mapping[str, str]], **how: bool) -> str:
    """As the template has it; empty where it refuses."""
    template = dated(tokenizer)
    try:
        return str(
            tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **how)
        )
    except Exception:  # it is other people's code, and nobody has asked for this conversation
        return ""
