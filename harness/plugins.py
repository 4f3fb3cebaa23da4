"""What others bring: packages by their entry points, and single files that a person names.

A package's entry points `harness.methods` and `harness.tasks` name modules such as the files of
methods/ and tasks/, or the method or task itself. A file is code that runs because somebody named
it, on the command line or in Python, and never because a result or a cell file does: those know it
by its content, `mine@1a2b3c4d`.
"""

import hashlib
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from inspect import get_annotations
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

CODE = "CONTEXT_HARNESS_CODE"
"""The environment variable with the files that were named, for processes that work for this one."""
STAMPED = re.compile(r"([A-Za-z][\w-]*)@[0-9a-f]{8}")
WRITTEN = re.compile(r"(.*\.py)(\.[\w-]+)?")
SAID = (ValueError, LookupError, OSError)
"""Errors whose message may be a sentence for a person."""


@dataclass(frozen=True)
class File:
    """A file somebody named, as it was then."""

    path: Path
    source: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.source).hexdigest()

    @property
    def name(self) -> str:
        """By what it is called and what is in it, and not by where it lies."""
        return f"{self.path.stem.replace('_', '-')}@{self.sha256[:8]}"


_files: dict[str, File] = {}


def written_as_file(spec: str) -> bool:
    """`./mine.py`, or `yarn+./mine.py,factor=8`."""
    return any(map(WRITTEN.fullmatch, spec.partition(",")[0].split("+")))


def named(spec: str) -> str:
    """`./mine.py,factor=8` -> `mine@1a2b3c4d,factor=8`, which is known from here on.

    Any other spec is what it was. Nothing of the file is run yet.

    Raises:
        LookupError: there is no such file.
        ValueError: its name cannot be that of a method or a task.
    """
    name, comma, parameters = spec.partition(",")
    if "+" in name and Path(name).expanduser().is_file():
        raise ValueError(
            f"A plus joins methods, so that no file below a folder with one can be named: move or "
            f"link {name}."
        )
    return "+".join(map(_named, name.split("+"))) + comma + parameters


def _named(name: str) -> str:
    written = WRITTEN.fullmatch(name)
    if not written:
        return name
    path, variant = Path(written[1]).expanduser(), written[2] or ""
    if not path.is_file():
        raise LookupError(
            f"There is no file {written[1]}. To write one: harness new method NAME, or harness new "
            "task NAME."
        )
    if not re.fullmatch(r"[A-Za-z][\w-]*", path.stem):
        raise ValueError(
            f"The file {path.name} gives its name to what is in it: begin it with a letter, and "
            "go on with letters, digits and underscores."
        )
    file = File(path.resolve(), path.read_bytes())
    _files[file.name] = file
    others = filter(None, os.environ.get(CODE, "").split(os.pathsep))
    os.environ[CODE] = os.pathsep.join(dict.fromkeys([*others, str(file.path)]))
    return file.name + variant


def place(name: str) -> Path | None:
    """Where a file lies that was named; None: the name is of no such file."""
    return _files[name].path if name in _files else None


def opened(name: str) -> ModuleType:
    """The module of a file that was named; its code is run once.

    Raises:
        LookupError: no file of this content was named.
        ValueError: it cannot be run; says where.
    """
    file = _found(name)
    inside = f"harness_file_{re.sub(r'[^0-9A-Za-z]', '_', name)}"
    if inside in sys.modules:
        return sys.modules[inside]
    module = ModuleType(inside)
    module.__file__ = str(file.path)
    sys.modules[inside] = module  # where dataclasses and pickle look for it
    try:
        exec(compile(file.source, str(file.path), "exec"), vars(module))
    except (Exception, SystemExit) as error:  # which would end the command, and in silence
        del sys.modules[inside]
        raise ValueError(_told(error, file) or f"{file.path.name}: {error}") from error
    return module


def _found(name: str) -> File:
    for path in filter(None, os.environ.get(CODE, "").split(os.pathsep)):
        if name not in _files and Path(path).is_file():
            _named(path)
    if name not in _files:
        kin = name.partition("@")[0]
        now = [file for file in _files.values() if file.name.partition("@")[0] == kin]
        is_now = f"{now[-1].path.name} is {now[-1].name} now" if now else "no such file was named"
        raise LookupError(
            f"{name} is the content of a file, and {is_now}. Say where it is with "
            "harness --code FILE before the verb."
        )
    return _files[name]


def blamed(error: BaseException) -> str | None:
    """Where in a file that somebody named this went wrong, and how; None: not there.

    An error that the file raised on purpose, or that we did with a sentence, stays as it is.
    """
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if f.filename in {str(file.path) for file in _files.values()}]
    if not mine:
        return None
    sentence = bool(str(error)) and _is_said(error)
    if sentence and (frames[-1] is not mine[-1] or (frames[-1].line or "").startswith("raise")):
        return None
    return _at(Path(mine[-1].filename), mine[-1].lineno, error)


def _is_said(error: BaseException) -> bool:
    return isinstance(error, SAID) and not isinstance(error, KeyError | IndexError)


@contextmanager
def asked(spec: str) -> Iterator[None]:
    """Say of whose file it is where what it has was asked wrongly for it, as with too few words.

    Raises:
        ValueError: a file somebody named is behind the spec, and it failed without a sentence.
    """
    try:
        yield
    except Exception as error:
        file = next((file for name, file in _files.items() if name in spec), None)
        if not file or _is_said(error) or blamed(error):
            raise
        said = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"{file.path.name}: {type(error).__name__}: {said}.") from error


def _told(error: Exception, file: File) -> str | None:
    if isinstance(error, SyntaxError) and error.filename == str(file.path):
        return f"{file.path.name}, line {error.lineno}: {error.msg}."
    frames = traceback.extract_tb(error.__traceback__)
    line = next((f.lineno for f in reversed(frames) if f.filename == str(file.path)), None)
    return _at(file.path, line, error)


def _at(path: Path, line: int | None, error: BaseException) -> str:
    said = " ".join(str(error).split()).rstrip(".")
    return f"{path.name}, line {line}: {type(error).__name__}{said and f': {said}'}."


@cache
def packaged(kind: str) -> dict[str, EntryPoint]:
    """What installed packages bring, by name; the first of two that have one name."""
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=f"harness.{kind}"), key=owner):
        found.setdefault(entry.name.replace("_", "-"), entry)
    return found


def loaded(kind: str, entry: EntryPoint) -> Any:
    """The module behind an entry point, or one made around the method or task that it names.

    Raises:
        LookupError: it cannot be imported; says whose it is, and why.
    """
    try:
        thing = entry.load()
    except Exception as error:  # other people's code raises anything
        raise LookupError(
            f"{entry.name!r} comes with {owner(entry)}, and cannot be imported: "
            f"{type(error).__name__}: {' '.join(str(error).split())}"
        ) from error
    return thing if isinstance(thing, ModuleType) else SimpleNamespace(**{kind[:-1]: thing})


def source(entry: EntryPoint) -> Path | None:
    """The file behind an entry point, which is not imported, but for the packages around it."""
    try:
        spec = find_spec(entry.module)
    except Exception:  # of a package that is broken nothing can be read
        return None
    return Path(spec.origin) if spec and spec.origin else None


def checked(kind: str, module: Any, name: str) -> Any:
    """A module of somebody else's, once it has what it must.

    Raises:
        ValueError: it has no method or task, or one that is none; says what to write.
    """
    from harness.method import Method
    from harness.task import Task

    one, base = kind.removesuffix("s"), {"methods": Method, "tasks": Task}[kind]
    for thing in [*getattr(module, "variants", {}).values()] or [getattr(module, one, None)]:
        own = type(thing)
        if hasattr(module, "named"):
            break  # it knows names that it does not list
        if thing is None:
            raise ValueError(f"{name} has no {one}: end its file with {one} = YourClass().")
        if isinstance(thing, type) and issubclass(thing, base):
            raise ValueError(
                f"In {name}, {one} is the class {thing.__name__}: end the file with "
                f"{one} = {thing.__name__}()."
            )
        if not isinstance(thing, base):
            raise ValueError(
                f"In {name}, {one} is a {own.__name__}, and must be a harness.{one}.{base.__name__}"
            )
        hints = (k for k, v in get_annotations(own).items() if "ClassVar" not in str(v))
        if lost := set(hints) - {f.name for f in fields(thing)}:
            raise ValueError(
                f"In {name}, write @dataclass(frozen=True, kw_only=True) above class "
                f"{own.__name__}: without it, {min(lost)!r} is no parameter."
            )
    return module


def facts(name: str, entry: EntryPoint | None) -> dict[str, dict[str, str]]:
    """Whose code a name is, for a result; nothing where it is this project's."""
    if file := _files.get(name):
        return {name: {"file": file.path.name, "sha256": file.sha256}}
    return {name: {"package": owner(entry)}} if entry else {}


def owner(entry: EntryPoint) -> str:
    """`tiny 0.1`: the package that brings it."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
