"""What a person may have meant by a name that nothing has."""

import difflib
from collections.abc import Iterable


def hint(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'yarn'?`, or nothing where no known name is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
