"""ROUGE-L as the package `rouge` 1.0.1 counts it, which is not as its papers do.

https://github.com/pltrdy/rouge; LongBench scores summaries by it. A text is cut into sentences at
every full stop and into words at white space; case and other punctuation count. For each sentence
of the reference, the words of its longest common subsequence with any sentence of the prediction
are put into one set, so that saying a word again costs nothing. The package finds a subsequence by
recursion: where that goes too deep for Python the official scorer gives nothing, even to a perfect
answer, and so does this, but by a number and not by how deep its caller stands.
"""

from collections.abc import Sequence

DEEPEST = 990
"""Steps back through the table at which the package, called as LongBench's eval.py calls it under
Python's limit of 1000 frames, still answers."""


class TooDeep(RecursionError):
    """The package would not come back from here."""


def rouge_l(prediction: str, truth: str, *, deepest: int = DEEPEST) -> float:
    """F of summary-level union ROUGE-L, 0 to 1; 0 where the package raises."""
    said, true = sentences(prediction), sentences(truth)
    if not said or not true:
        return 0.0
    shared: set[str] = set()
    try:
        for reference in true:
            for sentence in said:
                shared |= common(reference, sentence, deepest)
    except TooDeep:
        return 0.0
    recall, precision = (len(shared) / len(set().union(*text)) for text in (true, said))
    return 2.0 * (precision * recall / (precision + recall + 1e-8))


def sentences(text: str) -> list[list[str]]:
    """Words of what stands between full stops; of white space alone, one empty word."""
    return [part.split() or [""] for part in text.split(".") if part]


def common(reference: Sequence[str], sentence: Sequence[str], deepest: int) -> set[str]:
    """The words of the longest common subsequence that is found walking back from both ends.

    Raises:
        TooDeep: the walk has more steps than that.
    """
    table = subsequences(reference, sentence)
    found: set[str] = set()
    i, j, steps = len(reference), len(sentence), 0
    while i and j:
        if reference[i - 1] == sentence[j - 1]:
            found.add(reference[i - 1])
            i, j = i - 1, j - 1
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
        steps += 1
        if steps > deepest:
            raise TooDeep
    return found


def subsequences(a: Sequence[object], b: Sequence[object]) -> list[list[int]]:
    """table[i][j]: the length of the longest common subsequence of the first i and the first j."""
    table = [[0] * (len(b) + 1)]
    for x in a:
        above, row = table[-1], [0]
        for j, y in enumerate(b):
            row.append(above[j] + 1 if x == y else max(above[j + 1], row[j]))
        table.append(row)
    return table
