"""lm-eval's tasks: found by name without reading all 14,000 files, and loaded with their data.

Gao et al., https://github.com/EleutherAI/lm-evaluation-harness, of which 0.4.13 was read.
"""

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness import nearest, network


class Found(NamedTuple):
    """Where a name is known, and what its file says."""

    manager: Any
    entry: Any

    def config(self, name: str | None = None) -> dict[str, Any]:
        """As the YAML file has it, functions unread."""
        return (self.manager.task_index[name] if name else self.entry).cfg or {}

    def leaves(self) -> list[str]:
        """The tasks that are asked: itself, or all below a group or a tag."""

        def below(child: Any) -> Iterator[str]:
            if isinstance(child, dict):
                child = child.get("task") or child.get("group")
            entry = self.manager.task_index[child]
            held = entry.cfg["task"] if entry.kind.name == "GROUP" else sorted(entry.tags)
            if entry.kind.name in ("GROUP", "TAG"):
                for one in held if isinstance(held, list) else [held]:
                    yield from below(one)
            else:
                yield child

        return list(below(self.entry.name))


@cache
def find(name: str, data: str = "") -> Found:
    """The task, group or tag of this name, in the folder `data` or among lm-eval's own.

    Raises:
        LookupError: there is none; the message has the nearest.
        ModuleNotFoundError: lm-eval is not installed.
    """
    if not name:
        raise LookupError("Say which of lm-eval's tasks, such as lm-eval:arc_easy.")
    places = [Path(data).expanduser()] if data else []
    if data and not places[0].is_dir():
        raise LookupError(f"There is no folder {data} with lm-eval's task files.")
    known: list[str] = []
    for place in [*places, *_families(name), None]:
        manager = _manager(place)
        found = Found(manager, manager.task_index.get(name))
        known += manager.task_index
        if found.entry and (place in (*places, None) or _is_whole(found)):
            return found
    where = f" in {data} or" if data else ""
    raise LookupError(
        f"No task named {name!r}{where} among lm-eval's own.{nearest.hint(name, known)} "
        "All are listed by: harness lm-eval ls tasks."
    )


@cache
def _manager(place: Path | None) -> Any:
    """One that knows the files below a folder, or all of lm-eval's, which takes seconds."""
    _root()
    from lm_eval.tasks import TaskManager

    with _quiet():
        return TaskManager(include_path=place, include_defaults=place is None)


def _root() -> Path:
    spec = find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "lm-eval is not installed. Run: pip install 'context-harness[lm-eval]'"
        )
    return Path(spec.origin).parent / "tasks"


def _families(name: str) -> list[Path]:
    """Folders of lm-eval's own in which a line of a file ends in the name: a second, not seven."""
    root, raw = _root(), name.encode()
    line = re.compile(rb"(?m)^[^#\n]*\b" + re.escape(raw) + rb"[\"']?\s*$")
    named = (file for file, text in _texts() if raw in text and line.search(text))
    return list(dict.fromkeys(root / file.relative_to(root).parts[0] for file in named))


@cache
def _texts() -> list[tuple[Path, bytes]]:
    """Of all of lm-eval's task files, unread; 14 MB."""
    return [(file, file.read_bytes()) for file in sorted(_root().rglob("*.yaml"))]


def _is_whole(found: Found) -> bool:
    """All that it is made of is in the same folder; of a tag that cannot be seen."""
    try:
        return found.entry.kind.name != "TAG" and bool(found.leaves())
    except KeyError:
        return False


def full_names(name: str, data: str = "") -> list[str]:
    """NAME.METRIC, or of what has no number of its own one for each task below it."""
    found = find(name, data)
    kind, config = found.entry.kind.name, found.config()
    if kind == "TAG" or (kind == "GROUP" and not config.get("aggregate_metric_list")):
        return [full for leaf in found.leaves() for full in full_names(leaf, data)]
    return [f"{name}.{main_metric(name, data)}"]


def main_metric(name: str, data: str = "") -> str:
    """The metric to name a task's number by, and behind a colon its filter if it has one.

    It is `acc_norm` where there is one, and else what the file names first.

    Raises:
        ValueError: only its code knows.
    """
    found = find(name, data)
    config = found.config()
    if found.entry.kind.name == "GROUP":
        return str(_items(config["aggregate_metric_list"])[0]["metric"])
    metrics = [str(it["metric"]).rpartition(".")[2] for it in config.get("metric_list") or ()]
    if not metrics and (asks := config.get("output_type")):
        from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY

        metrics = list(DEFAULT_METRIC_REGISTRY[asks])
    if not metrics:
        raise ValueError(f"Say which metric of {name} to report, as lm-eval:{name}.METRIC.")
    metric = "acc_norm" if "acc_norm" in metrics else metrics[0]
    filters = [it["name"] for it in config.get("filter_list") or ()]
    return f"{metric}:{filters[0]}" if filters and filters[0] != "none" else metric


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@cache
def loaded(name: str, data: str, shots: int | None) -> dict[str, Any]:
    """Its task objects with their data: `tasks` by name, and perhaps `groups`.

    Raises:
        LookupError: its data cannot be reached; says how to get it.
        ValueError: it cannot be asked here, or has its own number of examples.
    """
    found = find(name, data)
    if not network.reachable():
        network.offline()
    with _quiet(), _seeded():
        try:
            objects: dict[str, Any] = found.manager.load(name)
        except ImportError as error:
            raise LookupError(
                f"lm-eval's {name} needs what is not installed ({_first_line(error).rstrip('.')}): "
                "install it."
            ) from error
        except Exception as error:  # what datasets and a task's own code raise differs by cause
            why = _first_line(error).rstrip(".")
            raise LookupError(
                f"The data of lm-eval's {name} cannot be loaded ({why}). Where there is a network, "
                f"run harness data fetch lm-eval:{name}, and copy its cache, HF_HOME, here."
            ) from error
    for task in objects["tasks"].values():
        _check(task)
        _set_shots(task, shots)
    return objects


def _check(task: Any) -> None:
    if getattr(task, "MULTIMODAL", False):
        raise ValueError(f"{task.task_name} asks about pictures or sound, and here is only text.")
    if getattr(task, "UNSAFE_CODE", False):
        raise ValueError(
            f"{task.task_name} runs code that a model wrote: ask it in a sandbox, with "
            "harness lm-eval run --confirm_run_unsafe_code."
        )


def _set_shots(task: Any, shots: int | None) -> None:
    """As lm-eval does, which never overrides a 0 in the file; but it says so."""
    own = task.get_config("num_fewshot")
    if shots and own == 0:
        raise ValueError(f"{task.task_name} fixes its examples itself: leave shots={shots} out.")
    if shots is not None or own is None:
        task.set_config(key="num_fewshot", value=shots or 0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Progress bars and advice that nobody asked for are not printed."""
    with redirect_stderr(StringIO()):
        yield


@contextmanager
def _seeded() -> Iterator[None]:
    """Some tasks draw without a seed of their own; lm-eval seeds with these before it loads."""
    state, arrays = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(1234)
    try:
        yield
    finally:
        random.setstate(state)
        np.random.set_state(arrays)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def instances(task: Any, limit: int, seed: int) -> dict[int, list[Any]]:
    """Of each document what is asked, as lm-eval builds it; the same every time."""
    task.set_fewshot_seed(seed)
    with _quiet(), _seeded():
        task.build_all_requests(limit=limit or None)
    by_document: dict[int, list[Any]] = {}
    for instance in task.instances:
        by_document.setdefault(instance.doc_id, []).append(instance)
    return {i: sorted(group, key=lambda one: one.idx) for i, group in by_document.items()}
