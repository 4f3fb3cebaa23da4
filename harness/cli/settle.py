"""Pages that a verb makes, in part or whole: written anew, or only asked if they are behind."""

import sys
from collections.abc import Mapping
from pathlib import Path


def settle(pages: Mapping[Path, str], check: bool) -> int:
    """Have each page say this, whole or as it was; the exit code, 1 where a check finds one behind.

    Raises:
        OSError: one cannot be written.
    """
    from harness.disk import text_of, write_whole

    behind = [page for page, text in pages.items() if text_of(page) != text]
    if check and behind:
        names, them = ", ".join(map(str, behind)), "it" if len(behind) == 1 else "them"
        said = f"behind. The same command without --check makes {them} anew."
        print(f"{names}: {said}", file=sys.stderr)
        return 1
    for page in behind:
        write_whole(page.resolve(), pages[page])  # which may be a link
    for page in pages:
        print(f"{page}{'' if page in behind else ' is up to date'}")
    return 0
