"""What pydantic finds wrong in a file, in the words of whoever wrote the rule."""

from pydantic import ValidationError


def first(error: ValidationError) -> tuple[str, str]:
    """Where the first mistake is, as `cells.0.length`, or nowhere in particular; and what it is."""
    found = error.errors()[0]
    return ".".join(map(str, found["loc"])), found["msg"].removeprefix("Value error, ")
