"""How much of what was said is right: F1 of bags of words, or of characters.

Words as the evaluation script of SQuAD has them: Rajpurkar et al. 2016,
https://arxiv.org/abs/1606.05250
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

SUMMARIES = {"rouge_score": "context-harness[infinitebench]"}
"""What scores summaries, and what to install for it."""
CHINESE_MARKS = "！？｡。＂＃＄％＆＇（）＊＋，－／：；＜＝＞＠［＼］＾＿｀｛｜｝～｟｠｢｣､、〃》「」『』【】〔〕〖〗〘〙〚〛〜〝〞〟〰〾〿–—‘’‛“”„‟…‧﹏."  # noqa: E501, RUF001


def bag_f1(said: Sequence[str], right: Sequence[str]) -> float:
    """Each counted as often as it stands in both; 0 where they share nothing, or are empty."""
    shared = (Counter(said) & Counter(right)).total()
    if not shared:
        return 0.0
    precision, recall = shared / len(said), shared / len(right)
    return 2 * precision * recall / (precision + recall)


def english_words(text: str) -> list[str]:
    """Lower case, punctuation deleted, then articles."""
    plain = _without(string.punctuation, text.lower())
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def characters(text: str) -> list[str]:
    """Lower case, without punctuation, English or Chinese, and without white space."""
    return list("".join(_without(string.punctuation + CHINESE_MARKS, text.lower()).split()))


def token_f1(said: str, right: str) -> float:
    """F1 of words."""
    return bag_f1(english_words(said), english_words(right))


def character_f1(said: str, right: str) -> float:
    """F1 of characters: for Chinese, without a dictionary that splits it into words."""
    return bag_f1(characters(said), characters(right))


def best(metric: Callable[[str, str], float], said: str, right: Iterable[str]) -> float:
    """Over all that is right."""
    return max((metric(said, each) for each in right), default=0.0)


def rouge_lsum(said: str, right: str) -> float:
    """ROUGE-L of summaries, a line being a sentence; no stemming. By rouge_score.

    Raises:
        ModuleNotFoundError: it is not installed; says how to.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"Summaries are scored by rouge_score. Run: pip install '{SUMMARIES['rouge_score']}'"
        ) from None
    scorer = RougeScorer(["rougeLsum"], use_stemmer=False)
    return float(scorer.score(right, said)["rougeLsum"].fmeasure)


def _without(marks: str, text: str) -> str:
    return text.translate(dict.fromkeys(map(ord, marks)))
