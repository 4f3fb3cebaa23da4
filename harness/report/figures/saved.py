"""A figure on disk carries a digest of what it shows, so that it is known when it is behind.

Bytes differ from one version of matplotlib or freetype to the next; what is drawn does not. Equal
figures of one version are equal bytes too: no dates, no random names.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.disk import whole
from harness.report.figures.style import styled

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARK = "harness-figure-"
"""What the digest stands behind, in a PNG's or PDF's metadata."""


@styled
def save(figure: "Figure", path: Path) -> bool:
    """Write it; a file that shows the same already stays as it is. Says whether it wrote.

    Raises:
        ValueError: the picture is of an unknown kind.
    """
    known = sorted(figure.canvas.get_supported_filetypes())
    kind = path.suffix.removeprefix(".")
    if kind not in known:
        raise ValueError(f"{path} is no picture: its name must end in one of {', '.join(known)}.")
    mark = MARK + digest(figure)
    if marked(path) == mark:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "png": {"Keywords": mark, "Software": None},
        "pdf": {"Keywords": mark, "CreationDate": None, "Creator": None, "Producer": None},
        "svg": {"Keywords": mark, "Date": None, "Creator": None},
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph|constrained_layout", UserWarning)  # odd names
        with whole(path) as file:  # a torn one would carry its mark all the same
            figure.savefig(file, format=kind, metadata=about.get(kind))
    return True


def behind(figure: "Figure", path: Path) -> str | None:
    """Why the file is not this figure, in words; None where it is."""
    if not path.exists():
        return "is missing"
    return None if marked(path) == MARK + digest(figure) else "shows something else"


def marked(path: Path) -> str | None:
    """The mark that the file carries; None where there is none."""
    if not path.is_file():
        return None
    found = re.search(MARK.encode() + b"[0-9a-f]{64}", path.read_bytes())
    return found[0].decode() if found else None


def digest(figure: "Figure") -> str:
    """Of all that it shows: numbers to six digits, words, colours; not of fonts and pixels."""
    shown = json.dumps([*_shown(figure)], sort_keys=True)
    return hashlib.sha256(shown.encode()).hexdigest()


def _shown(figure: "Figure") -> Iterator[Any]:
    yield _numbers(figure.get_size_inches())
    yield [text.get_text() for text in figure.texts]
    if figure._suptitle:
        yield figure._suptitle.get_text()
    for one in figure.legends:
        yield [text.get_text() for text in one.get_texts()]
    for axes in figure.axes:
        yield [axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), axes.get_xscale()]
        yield [axes.get_yscale(), _labels(axes)]
        yield [_artist(artist) for artist in axes.get_children()]


def _labels(axes: "Axes") -> list[str]:
    """Where somebody wrote them; those that matplotlib chooses are its own business."""
    from matplotlib.ticker import FixedLocator

    found = []
    for axis in (axes.xaxis, axes.yaxis):
        places, label = axis.get_major_locator(), axis.get_major_formatter()
        if isinstance(places, FixedLocator):
            found += [label(place, i) for i, place in enumerate(places.locs)]
    return found


def _artist(artist: "Artist") -> Any:
    from matplotlib.collections import Collection
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D
    from matplotlib.patches import Rectangle
    from matplotlib.text import Text

    if isinstance(artist, Line2D):
        look = (artist.get_color(), artist.get_marker(), artist.get_linestyle())
        return ["line", _numbers(artist.get_xydata()), *map(str, look), artist.get_fillstyle()]
    if isinstance(artist, AxesImage):
        return ["image", _numbers(artist.get_array())]
    if isinstance(artist, Collection):
        paths = [_numbers(path.vertices) for path in artist.get_paths()]
        mapped = artist.get_array() is not None  # its colours follow when it is drawn
        return ["area", paths, [] if mapped else _numbers(artist.get_facecolor())]
    if isinstance(artist, Rectangle):
        return ["bar", _numbers(artist.get_bbox().get_points()), str(artist.get_facecolor())]
    if isinstance(artist, Text):
        return ["text", artist.get_text()]
    return None


def _numbers(values: Any) -> list[str]:
    import numpy as np

    return [f"{x:.6g}" for x in np.ma.filled(np.ma.asarray(values, float), np.nan).ravel()]
