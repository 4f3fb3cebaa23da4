"""InfiniteBench's scores of an answer: the official ones bit by bit, and those that mend them.

Zhang et al. 2024, https://arxiv.org/abs/2402.13718; the official rules are those of
src/compute_scores.py of https://github.com/OpenBMB/InfiniteBench (MIT), with their quirks, which
the comments name: published numbers were made by them.

A rule takes what was said and what is right, and gives a score from 0 to 1 and what of the answer
decided it. Nothing is cut off an answer at a line's end, unless a rule says so.
"""

import re
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, Literal

from harness.metrics.infinitebench_answers import normal
from harness.metrics.text import best, character_f1, characters, english_words, rouge_lsum, token_f1

Scorer = Literal["official", "fixed"]
Judged = tuple[float, str | None]
"""Score, 0 to 1, and what of the answer decided it; None: nothing that could."""
Rule = Callable[[str, Any], Judged]
NUMBER = r"\d+\.\d+|\d+"


def judge(task: str, scorer: Scorer, said: str, right: Any, *, drops_first: bool = False) -> Judged:
    """The score of one answer.

    Args:
        task: the official name: `kv_retrieval`.
        scorer: one of two that are never mixed.
        said: by the model, whole.
        right: as the published files have it; lists of one are unwrapped.
        drops_first: official Math.Calc only: pass over the first number said, as for GPT-4.

    Raises:
        ValueError: `right` is no answer to a question of this task.
    """
    right = normal(task, right)
    if task == "math_calc" and scorer == "official":
        return math_calc(said, right, drops_first=drops_first)
    return (OFFICIAL if scorer == "official" else FIXED)[task](said, right)


# official


def first_number(said: str, right: str) -> Judged:
    """The first run of digits must be the key: leading zeros count, "The 5-digit key ..." is 5."""
    number = re.search("[0-9]+", said)
    return _hit(number is not None and number[0] == right), number and number[0]


def word(said: str, right: str) -> Judged:
    """The value is one of the words, wherever; `value=UUID` is another word."""
    words = _spaced(said, MARKS).split()
    return (1.0, right) if right in words else (0.0, " ".join(words) or None)


def name(said: str, right: list[str]) -> Judged:
    """The first name alone, in capitals, as one word: "OIL MAN" can never be found."""
    return word(said.upper(), right[0])


def words_f1(said: str, right: list[str]) -> Judged:
    return best(token_f1, said, right), " ".join(english_words(said)) or None


def characters_f1(said: str, right: list[str]) -> Judged:
    return best(character_f1, said, right), "".join(characters(said)) or None


def summary(said: str, right: list[str]) -> Judged:
    return best(rouge_lsum, said, right), said.strip() or None


def choice(said: str, right: list[str]) -> Judged:
    """The first character, if it is A to D: "Answer: C" is A and "Based on" is B.

    Or all that was said; or what follows "answer is"; or the first word that is A to D.
    """
    said = said.strip()
    if not said:
        return 0.0, None
    if said[0] in "ABCD":
        return _hit(said[0] in right), said[0]
    if said in right:
        return 1.0, said
    plain = re.sub(" +", " ", _spaced(said, MARKS.replace(":", "")))
    rest = _after(plain, ("answer is:", "answer:", "answer is", "option is"))
    if rest is not None:
        return _hit(rest.startswith(tuple(right))), rest.partition(" ")[0] or None
    letter = next((w for w in plain.split() if w in "ABCD"), None)  # "AB" is in it, too
    return _hit(letter in right), letter


def faulty(said: str, right: list[str]) -> Judged:
    """The right letter with a full stop or a colon; or what follows "is:". A bare "B" is a miss.

    What is right may begin it: "Definitely" is D. A function called `parse_options` is lost.
    """
    function, letter = right
    said = said.strip()
    if said[:2] in (f"{letter}.", f"{letter}:"):
        return 1.0, said[:2]
    for mark in ("\n", "`", "'", '"', "-", "*", "Option", "option"):
        said = said.replace(mark, " ")
    plain = re.sub(" +", " ", said)
    rest = _after(plain, ("answer is:", "is:", "answer:", "correct option is:"))
    if rest is None:
        return 0.0, None
    return _hit(rest.startswith((letter, function))), rest.partition(" ")[0] or None


def returned(said: str, right: int) -> Judged:
    """The last word, if Python reads it as a whole number: "5.0" is 0, "**5**" none."""
    words = _spaced(said, "\n.`'\":").split()
    if not words:
        return 0.0, None
    try:
        return _hit(int(words[-1]) == right), words[-1]
    except ValueError:
        return 0.0, words[-1]


def found(said: str, right: int | float) -> Judged:
    """The first number, its sign ignored.

    Where a whole number is right, the published script ends with an error at an answer of 12.5;
    here that is a miss.
    """
    number = re.search(NUMBER, said)
    if number is None:
        return 0.0, None
    whole = isinstance(right, int)
    return _hit(not (whole and "." in number[0]) and float(number[0]) == right), number[0]


def math_calc(said: str, right: list[int], *, drops_first: bool = False) -> Judged:
    """How much of the list is right before the first slip; minus signs are not read.

    The prompts' examples begin with the first operand, and what is right after the first
    operation. The script passes over the first number for GPT-4 alone; all others are off by one.
    """
    return _beginning(re.findall("[0-9]+", said)[drops_first:], right)


# fixed


def first_of_length(said: str, right: str) -> Judged:
    """The first run of as many digits as the key has."""
    number = next((n for n in re.findall("[0-9]+", said) if len(n) == len(right)), None)
    return _hit(number == right), number


def value(said: str, right: str) -> Judged:
    """The value with nothing grown onto it: `value=UUID` counts."""
    grown = rf"(?<![\w-]){re.escape(right)}(?![\w-])"
    return (1.0, right) if re.search(grown, said) else (0.0, _line(said))


def any_name(said: str, right: list[str]) -> Judged:
    """Any of the names, of however many words."""
    plain = f" {_words(said)} "
    named = next((n for n in right if f" {_words(n)} " in plain), None)
    return _hit(named is not None), named or plain.strip() or None


def first_line(rule: Rule) -> Rule:
    """The first line that says something: after it a base model goes on to the next question."""
    return lambda said, right: rule(_line(said) or "", right)


def letter_or_text(said: str, right: list[str]) -> Judged:
    """The first letter from A to D that stands as a word, or else the option's own words.

    If it says "answer is" or "option is", what follows decides. "A man" is no A; "A because" is.
    """
    text, letter = right
    stated = re.search(r"\b(?:answer|option)(?: is|:| is:)\s*(.*)", said, re.I | re.S)
    for part in (stated[1] if stated else "", said):
        if chosen := re.search(LETTER, part):
            return _hit(chosen[0] == letter), chosen[0]
    return (1.0, text) if f" {_words(text)} " in f" {_words(said)} " else (0.0, _line(said))


def last_number(said: str, right: int) -> Judged:
    """The last number, whatever stands around it."""
    numbers = _signed(said)
    return _hit(bool(numbers) and float(numbers[-1]) == right), numbers[-1] if numbers else None


def first_signed(said: str, right: int | float) -> Judged:
    """The first number with its sign; 88.0 is 88."""
    numbers = _signed(said)
    return _hit(bool(numbers) and float(numbers[0]) == right), numbers[0] if numbers else None


def aligned(said: str, right: list[int]) -> Judged:
    """As the official one with signs, whether the list begins with the first operand or not."""
    numbers = [n for n in _signed(said) if "." not in n]
    return max((_beginning(numbers[skip:], right) for skip in (0, 1)), key=lambda judged: judged[0])


OFFICIAL: dict[str, Rule] = {
    "passkey": first_number,
    "number_string": first_number,
    "kv_retrieval": word,
    "longbook_sum_eng": summary,
    "longbook_choice_eng": choice,
    "longbook_qa_eng": words_f1,
    "longbook_qa_chn": characters_f1,
    "longdialogue_qa_eng": name,
    "math_find": found,
    "math_calc": math_calc,
    "code_run": returned,
    "code_debug": faulty,
}
FIXED: dict[str, Rule] = OFFICIAL | {
    "passkey": first_of_length,
    "number_string": first_of_length,
    "kv_retrieval": value,
    "longbook_choice_eng": letter_or_text,
    "longbook_qa_eng": first_line(words_f1),
    "longbook_qa_chn": first_line(characters_f1),
    "longdialogue_qa_eng": any_name,
    "math_find": first_signed,
    "math_calc": aligned,
    "code_run": last_number,
    "code_debug": letter_or_text,
}
"""Of summaries there is nothing to mend."""
MEASURES = dict.fromkeys(OFFICIAL, "accuracy") | {
    "longbook_sum_eng": "ROUGE-Lsum",
    "longbook_qa_eng": "F1",
    "longbook_qa_chn": "F1",
    "math_calc": "right-prefix",
}
"""What is measured; the name of a metric is this and the scorer's."""

LETTER = r"(?<![\w'])(?:[B-D]|A(?! (?!because|since|as |is )[a-z]))(?![\w'])"
"""One that stands as a word and is no article."""
MARKS = "\n:\"'.,?!{}"


def _hit(right: bool) -> float:
    return float(right)


def _spaced(text: str, marks: str) -> str:
    return text.translate(dict.fromkeys(map(ord, marks), " "))


def _after(text: str, beginnings: Sequence[str]) -> str | None:
    """From one character after the first of these that is there; None: none is."""
    for beginning in beginnings:
        if beginning in text:
            return text.partition(beginning)[2][1:]
    return None


def _beginning(numbers: Sequence[str], right: Sequence[int]) -> Judged:
    """The share that is right before the first slip, and the numbers up to it."""
    pairs = zip(numbers, right, strict=False)
    n = sum(1 for _ in takewhile(lambda pair: float(pair[0]) == pair[1], pairs))
    return n / len(right), ", ".join(numbers[: n + 1]) or None


def _signed(text: str) -> list[str]:
    """Numbers with their signs; in 2-3 there is none."""
    return re.findall(rf"(?:(?<!\w)-)?(?:{NUMBER})", text.replace("−", "-"))  # noqa: RUF001


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.upper()))


def _line(text: str) -> str | None:
    return next((line.strip() for line in text.splitlines() if line.strip()), None)
