"""name -> object. The folder is the registry: methods/dynamic_ntk.py is `dynamic-ntk`.

A spec is a name with the parameters that differ from the default: `yarn,factor=8`. A task file may
hold variants, named after a dot: `perplexity.sliding,window=4096`; the bare name is the first, or
in a grid all of them where the file says `bare_name_means_all = True`, as a benchmark's does, or
those that it lists there. Behind a colon a file may know names of its own: `lm-eval:arc_easy`. A
method may go over another: `yarn+log-n,factor=8` is both, and a parameter is for all that take it.
Packages bring more by entry points, and a person by naming a file, known as `mine@1a2b3c4d`:
see `harness.plugins`.
"""

import typing
from dataclasses import fields, replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint
from itertools import pairwise
from pkgutil import iter_modules
from types import ModuleType, NoneType
from typing import Any, Literal

from harness import nearest, plugins

Kind = Literal["methods", "tasks"]
KINDS_OF_VALUES = {float: "a number", int: "a whole number", bool: "true or false"}
"""What a parameter takes, in words."""


def names(kind: Kind) -> list[str]:
    """Every file's name, as it is on the command line, and what packages bring; imports none."""
    return sorted({*_own(kind), *plugins.packaged(kind)})


def package(kind: Kind, name: str) -> EntryPoint | None:
    """What brings a name that is not this project's; a name that it has is never another's."""
    return None if name in _own(kind) else plugins.packaged(kind).get(name)


def brought(**specs: str) -> dict[str, Any]:
    """What results must say of code that is not this project's; nothing of its own.

    Args:
        specs: by kind, `methods` and `tasks`.
    """
    found: dict[str, Any] = {}
    for kind, spec in specs.items():
        for layer in split(spec)[0].split("+"):
            name = layer.partition(":")[0].partition(".")[0]
            found |= plugins.facts(name, package(kind, name))  # type: ignore[arg-type]
    return {"brought": found} if found else {}


def split(spec: str) -> tuple[str, dict[str, str]]:
    """`yarn,factor=8` -> ('yarn', {'factor': '8'}).

    Raises:
        ValueError: a parameter is not written key=value, or is written twice.
    """
    name, *rest = spec.split(",")
    parameters: dict[str, str] = {}
    for key, equals, value in (part.partition("=") for part in rest):
        if not (key and equals and value):
            raise ValueError(
                f"In {spec!r}, write parameters as name,key=value,key=value; no value has a comma."
            )
        if key in parameters:
            raise ValueError(f"{spec!r} says {key} twice: leave one out.")
        parameters[key] = value
    return name, parameters


def join(name: str, parameters: dict[str, str]) -> str:
    """The one way to write a spec: parameters in alphabetical order.

    Raises:
        ValueError: a value has a comma, which would end it.
    """
    for key, value in parameters.items():
        if "," in value:
            raise ValueError(
                f"Commas are not allowed in a value: rename or link what {key}={value} means."
            )
    return ",".join([name, *(f"{key}={parameters[key]}" for key in sorted(parameters))])


def extended(spec: str, parameters: dict[str, Any]) -> str:
    """The spec with these parameters set."""
    name, given = split(spec)
    return join(name, given | {key: written(value) for key, value in parameters.items()})


def load(kind: Kind, spec: str) -> Any:
    """The method or task of this spec.

    Raises:
        LookupError: nothing has that name; the message has the nearest.
        ValueError: it has no such parameter, or the value is not of its type.
    """
    name, parameters = split(spec)
    return configure(_default(kind, name), parameters, spec)


def canonical(kind: Kind, spec: str) -> str:
    """The spec's one name: variant written out, defaults left out, values at their shortest."""
    name, parameters = split(spec)
    default, full = _default(kind, name), _full_name(kind, name)
    both = zip(_layers(configure(default, parameters, spec)), _layers(default), strict=True)
    changed = {
        f.name: written(value)
        for given, own in both
        for f in fields(given)
        if (value := getattr(given, f.name)) != getattr(own, f.name)
    }
    return join(full, changed)


def settings(thing: Any) -> dict[str, Any]:
    """The parameters of a method or task, and their values; of one over another, those of both."""
    return {f.name: getattr(layer, f.name) for layer in _layers(thing) for f in fields(layer)}


def configure(default: Any, parameters: dict[str, str], spec: str) -> Any:
    """A copy of a dataclass with parameters set from text.

    Raises:
        ValueError: there is no such parameter, it takes no such value, or one method takes it for
            one thing and the method over it for another.
    """
    known = settings(default)
    for key in parameters:
        if key not in known:
            raise ValueError(
                f"{spec.split(',')[0]} has no parameter {key!r}.{nearest.hint(key, known)} "
                f"It has: {', '.join(known) or 'none'}."
            )
    layers = _layers(default)
    given: list[dict[str, Any]] = [{} for _ in layers]
    for key, text in parameters.items():
        for i, value in _values(layers, key, text, spec).items():
            given[i][key] = value
    layers = tuple(replace(layer, **own) for layer, own in zip(layers, given, strict=True))
    return layers[0] if len(layers) == 1 else replace(default, layers=layers)


def _values(layers: tuple[Any, ...], key: str, text: str, spec: str) -> dict[int, Any]:
    """Of the layers that take this text for their parameter, by number: the value.

    Raises:
        ValueError: none does, or for some it is another thing than for others.
    """
    having = {i: one for i, one in enumerate(layers) if key in {f.name for f in fields(one)}}
    kinds = {i: _types(type(one))[key] for i, one in having.items()}
    found: dict[int, Any] = {}
    refused: ValueError | None = None
    for i, kind in kinds.items():
        try:
            found[i] = _read(key, text, kind)
        except ValueError as error:
            refused = error
    if refused and not found:
        raise refused
    if any(kinds[i] != kinds[j] for i, j in pairwise(found)):
        name = spec.split(",")[0]
        parts = [name.split("+")[i] for i in found]
        raise ValueError(
            f"{key} is one thing in {' and another in '.join(parts)}, and could mean either in "
            f"{name}: leave {key} out."
        )
    return found


def _layers(thing: Any) -> tuple[Any, ...]:
    return getattr(thing, "layers", (thing,))


@cache
def _types(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def variants(kind: Kind, name: str) -> list[str]:
    """The full names in one file: `perplexity.whole`, `perplexity.sliding` ...; or just its own."""
    module = _module(kind, name)
    return [f"{name}.{v}" for v in module.variants] if hasattr(module, "variants") else [name]


def members(kind: Kind, spec: str) -> list[str]:
    """The specs that a spec means: itself, or of a benchmark's bare name one for each variant.

    A parameter is set in those that have it, unless none has.

    Raises:
        LookupError: nothing has that name; the message has the nearest.
        ValueError: a parameter is not written key=value.
    """
    name, parameters = split(spec)
    file, colon, outside = name.partition(":")
    if colon:
        found = _open(kind, file).meant(outside, parameters.get("data", ""))
        return [join(f"{file}:{full}", parameters) for full in found]
    meant = () if "." in name else getattr(_module(kind, name), "bare_name_means_all", ())
    if not meant:
        return [spec]
    every = variants(kind, name) if meant is True else [f"{name}.{v}" for v in meant]
    has = {variant: {f.name for f in fields(_default(kind, variant))} for variant in every}
    unknown = parameters.keys() - set().union(*has.values())
    return [
        join(v, {key: parameters[key] for key in parameters if key in has[v] | unknown})
        for v in every
    ]


@cache
def _default(kind: Kind, name: str) -> Any:
    if kind == "methods" and "+" in name:
        from harness.method import Layered

        return Layered(layers=tuple(_default(kind, layer) for layer in name.split("+")))
    file, colon, outside = name.partition(":")
    if colon:
        return _open(kind, file).named(outside)
    file, dot, variant = name.partition(".")
    module = _module(kind, file)
    if not hasattr(module, "variants"):
        if dot:
            raise LookupError(f"{file!r} has no variants, so there is no {name!r}.")
        return getattr(module, kind.removesuffix("s"))
    known = module.variants
    variant = variant if dot else next(iter(known))
    if variant not in known:
        raise LookupError(
            f"{file!r} has no variant {variant!r}.{nearest.hint(variant, known)} "
            f"There are: {', '.join(known)}."
        )
    return known[variant]


def _full_name(kind: Kind, name: str) -> str:
    return name if set(".:+") & set(name) else variants(kind, name)[0]


def _open(kind: Kind, file: str) -> Any:
    """A file that knows more names than it lists."""
    module = _module(kind, file)
    if not hasattr(module, "named"):
        raise LookupError(f"{file!r} has no names of its own: write no colon behind it.")
    return module


def _module(kind: Kind, name: str) -> Any:
    if "@" in name:
        return plugins.checked(kind, plugins.opened(name), name)
    if brings := package(kind, name):
        return plugins.checked(kind, plugins.loaded(kind, brings), name)
    if name not in _own(kind):
        raise LookupError(
            f"No {kind.removesuffix('s')} named {name!r}.{nearest.hint(name, names(kind))} "
            f"There are: {', '.join(names(kind))}."
        )
    return import_module(f"harness.{kind}.{name.replace('-', '_')}")


def _read(key: str, text: str, kind: Any) -> Any:
    """Text to a value: tuples are written 0+0.5+1."""
    options = [k for k in typing.get_args(kind) if k is not NoneType]
    if typing.get_origin(kind) is tuple:
        return tuple(_read(key, part, options[0]) for part in text.split("+"))
    if typing.get_origin(kind) is Literal:
        if text not in options:
            raise ValueError(f"{key} is one of {', '.join(options)}, and {text!r} is none of them.")
        return text
    if options:
        return _read(key, text, options[0])
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        taken = KINDS_OF_VALUES.get(kind, kind.__name__)
        raise ValueError(f"{key} takes {taken}, and {text!r} is none.") from None


def written(value: Any) -> str:
    """A value as it stands in a spec."""
    if isinstance(value, tuple):
        return "+".join(written(v) for v in value)
    if isinstance(value, float):
        return f"{value:.12g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


@cache
def _own(kind: Kind) -> frozenset[str]:
    """The files of this project."""
    found = (m.name for m in iter_modules(_package(kind).__path__) if m.name[0] != "_")
    return frozenset(name.replace("_", "-") for name in found)


@cache
def _package(kind: Kind) -> ModuleType:
    try:
        return import_module(f"harness.{kind}")
    except ModuleNotFoundError as error:
        if error.name != f"harness.{kind}":
            raise
        raise ModuleNotFoundError(
            f"{kind}/ becomes harness.{kind} when the project is installed. Run: pip install -e ."
        ) from None
