"""A benchmark's own rows, wherever its files lie: in a folder, in an archive, or on the hub."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

from harness.network import pinned

HUB = "hf:"


def records(data: str, name: str, published: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of one dataset, after the file and line it stands in.

    Args:
        data: a folder or a .zip with NAME.jsonl or NAME.json, perhaps in a folder `data`; such a
            file itself; or hf:REPOSITORY[@REVISION].
        name: of the dataset.
        published: the file of the hub's repository to take.

    Raises:
        LookupError: it is not there; says how to point to files.
        ValueError: a line is no JSON object, the file has none, or the .zip is torn; names file
            and line.
    """
    place = fetched(data, published) if data.startswith(HUB) else Path(data).expanduser()
    inside = [f"{folder}{name}{ending}" for folder in ("", "data/") for ending in ENDINGS]
    if place.suffix == ".zip" and place.is_file():
        return rows(*unpacked(place, inside))
    files = [place] if place.is_file() else [p for file in inside if (p := place / file).is_file()]
    if not files:
        raise LookupError(
            f"There is no {name}.jsonl in {place}: say with data=FOLDER where the unpacked files "
            "of the benchmark are."
        )
    return rows(files[0].read_bytes(), str(files[0]))


def unpacked(place: Path, inside: Sequence[str]) -> tuple[bytes, str]:
    """The first of these files that a .zip has, and how it is named.

    Raises:
        LookupError: it has none.
        ValueError: it is no whole .zip, or is encrypted.
    """
    try:
        with ZipFile(place) as archive:
            packed = next((file for file in inside if file in archive.namelist()), None)
            if packed is None:
                raise LookupError(f"{place} has no file {Path(inside[0]).name}.")
            return archive.read(packed), f"{place}/{packed}"
    except (BadZipFile, RuntimeError) as error:  # RuntimeError: it wants a password
        raise ValueError(f"{place} cannot be unpacked ({error}): download it anew.") from None


ENDINGS = (".jsonl", ".json")
WORDS = {str: "text", int: "whole number", list: "list"}


def rows(raw: bytes, file: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """One object a line, or where the name ends in .json one list of them."""
    text = raw.decode("utf-8-sig", errors="replace")
    if file.endswith(".json"):
        listed = parsed(text, file)
        if not isinstance(listed, list):
            raise ValueError(f"{file} is no list of objects.")
        numbered = ((f"{file}, row {n}", row) for n, row in enumerate(listed, 1))
    else:
        lines = ((f"{file}, line {n}", line) for n, line in enumerate(text.split("\n"), 1))
        numbered = ((where, parsed(line, where)) for where, line in lines if line.strip())
    empty = True
    for where, row in numbered:
        if not isinstance(row, dict):
            raise ValueError(f"{where}: this is no JSON object.")
        empty = False
        yield where, row
    if empty:
        raise ValueError(f"{file} has no rows: get it anew, or name another with data=PATH.")


def parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: this is no JSON: {error}.") from None


def fetched(data: str, published: str) -> Path:
    """A file of a dataset's repository, from the cache where it was fetched before.

    Raises:
        LookupError: it cannot be reached; says how to point to local files.
    """
    from huggingface_hub import hf_hub_download

    repository, revision = pinned(data.removeprefix(HUB))
    try:
        return Path(hf_hub_download(repository, published, repo_type="dataset", revision=revision))
    except Exception as error:  # what it raises is not documented, and differs by cause
        why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise LookupError(
            f"{published} of {repository} cannot be fetched from the hub ({why}): take "
            f"https://huggingface.co/datasets/{repository}/resolve/{revision or 'main'}/"
            f"{published} from where there is a network, and say with data=PATH where it is."
        ) from error


def field(row: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """A field of a row.

    Raises:
        ValueError: it is not there, or of another type; names file, line and field.
    """
    if name not in row:
        has = ", ".join(map(repr, row)) or "none"
        raise ValueError(f"{where}: there is no field {name!r}; it has {has}.")
    if not isinstance(row[name], kind):
        raise ValueError(f"{where}: {name!r} holds {row[name]!r:.40}, which is no {WORDS[kind]}.")
    return row[name]


def texts(row: Mapping[str, Any], name: str, where: str) -> Sequence[str]:
    """A field that lists texts.

    Raises:
        ValueError: it is not there, or lists something else; names file, line and field.
    """
    listed = field(row, name, list, where)
    if not listed or not all(isinstance(text, str) for text in listed):
        raise ValueError(f"{where}: {name!r} should list texts, at least one.")
    return listed
