"""Results as others read them: Every Eval Ever, Hugging Face's `.eval_results`, flat Parquet.

What is written is held to `harness.shapes` first.
"""

import hashlib
import json
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import quote

from harness import archive, catalog, shapes
from harness.again import again
from harness.cell import Cell, Result, as_folder
from harness.disk import whole, write_whole
from harness.lengths import label
from harness.metric import higher_is_better, is_share
from harness.network import pinned
from harness.store import Broken, Store

OURS = "context-harness/"


@dataclass(frozen=True)
class Meant:
    """The results to write: of a folder, by conditions; what is broken is named."""

    folder: Path
    where: str | None
    broken: list[Broken]

    def scored(self) -> Iterator[Result]:
        """Those with a value, whole; only they can be told to others."""
        columns = archive.columns(
            self.folder, self.where, only=["cell", "status"], broken=self.broken
        )
        store = Store(self.folder)
        for row in columns.to_pylist():
            if row["status"] == "scored" and (result := store.get(Cell.at(row["cell"]))):
                yield result


def every_eval_ever(meant: Meant, folder: Path, *, by: str, at: float | None = None) -> str:
    """Write `data/{task}/{developer}/{model}/{uuid}.json`, one file a row; what was written.

    Args:
        meant: the results.
        folder: where to write.
        by: who measured.
        at: seconds since 1970, when the record is made; None: now.

    Raises:
        ValueError: a result cannot be said in their shape.
    """
    count = files = 0
    stamp = str(time.time() if at is None else at)
    for (model, task, method), row in groupby(
        meant.scored(), lambda r: (r.cell.model, r.cell.task, r.cell.method)
    ):
        results = list(row)
        log = _log(results, by, stamp)
        inside = (_task_name(task), *log.model_info.id.split("/"))
        place = Path(folder, "data", *map(as_folder, inside))
        _write(place / f"{_identity(model, task, method)}.json", _json(log.said()))
        count, files = count + len(results), files + 1
    return f"{count:,} results in {files:,} files below {folder}"


def eval_results(meant: Meant, folder: Path, *, dataset: str | None = None) -> str:
    """Write `{developer}/{model}/.eval_results/{method}.yaml`; what was written, what could not be.

    Args:
        meant: the results.
        folder: where to write.
        dataset: the hub's benchmark of those whose task reads no dataset of the hub.

    Raises:
        ValueError: the dataset's name is none.
    """
    import yaml

    if dataset is not None and not re.fullmatch(shapes.OWNED, dataset):
        raise ValueError(f"{dataset!r} is no dataset of the hub: write owner/name.")
    files: dict[Path, list[dict[str, Any]]] = {}
    homeless = 0
    for result in meant.scored():
        source = _source(result)
        there = isinstance(source, shapes.OnHub)
        found = source.hf_repo if there else dataset
        if found is None:
            homeless += 1
            continue
        inside = (*_model_id(result).split("/"), ".eval_results", f"{result.cell.method}.yaml")
        place = Path(folder, *map(as_folder, inside))
        files.setdefault(place, []).append(_entry(result, found, own=not there).said())
    for place, entries in files.items():
        _write(place, yaml.safe_dump(entries, sort_keys=False, allow_unicode=True))
    said = f"{sum(map(len, files.values())):,} results in {len(files):,} files below {folder}"
    if homeless:
        said += f"; {homeless:,} are of no dataset of the hub: name one with --dataset"
    return said


def parquet(meant: Meant, path: Path) -> str:
    """Write one flat Parquet file: the columns of `harness.archive`, and nothing nested.

    Raises:
        ValueError: the place is a folder.
    """
    import pyarrow.parquet as pq

    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file, such as {path / 'results.parquet'}.")
    if path.is_file() and not _is_parquet(path):
        raise ValueError(f"{path} is there already, and no Parquet file: name another.")
    table = archive.columns(meant.folder, meant.where, broken=meant.broken)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as file:
        pq.write_table(table, file, compression="zstd")
    return f"{table.num_rows:,} results in {path}"


def _is_parquet(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def _task_name(task: str) -> str:
    """Of a spec: `passkey.standard`."""
    return task.partition(",")[0]


def _log(results: list[Result], by: str, stamp: str) -> shapes.Log:
    first = results[0]
    versions = first.provenance.get("versions", {})
    name, about = _model_id(first), f"{first.cell.task} {first.cell.method}"
    own = name.startswith(OURS) or first.trained
    return shapes.Log(
        evaluation_id=f"{quote(about, safe=' ,=+@-_.:')}/{name}/{stamp}",
        retrieved_timestamp=stamp,
        source_metadata=shapes.Source(
            source_name="context-harness",
            source_type="evaluation_run",
            source_organization_name=by,
            evaluator_relationship="first_party" if own else "third_party",
        ),
        eval_library=shapes.Library(
            name="context-harness",
            version=versions.get("context-harness", "unknown"),
            additional_details=_words({"commit": first.provenance.get("commit")}),
        ),
        model_info=shapes.ModelInfo(
            name=f"{first.cell.model}, {first.cell.method}",
            id=name,
            developer=name.partition("/")[0],
            inference_engine=shapes.Engine(
                name="transformers", version=versions.get("transformers", "unknown")
            ),
            additional_details=_words(
                {
                    "context extension method": first.cell.method,
                    "trained": first.trained,
                    "weights sha256": first.provenance.get("weights"),
                }
            ),
        ),
        evaluation_results=[_evaluation(result) for result in results],
    )


def _evaluation(result: Result) -> shapes.Evaluation:
    higher = higher_is_better(result.cell.task, result.metric)
    share = is_share(result.metric)
    interval = None
    if result.low is not None and result.high is not None:
        interval = shapes.Interval(lower=result.low, upper=result.high)
    return shapes.Evaluation(
        evaluation_result_id=str(result.cell.path),
        evaluation_name=f"{_task_name(result.cell.task)} at {result.cell.length} tokens",
        source_data=_source(result),
        metric_config=shapes.Metric(
            metric_id=result.metric or "value",
            lower_is_better=not higher,
            score_type="continuous" if share else None,
            min_score=0.0 if share else None,
            max_score=1.0 if share else None,
        ),
        score_details=shapes.Score(
            score=result.value,
            details=_words(result.parts),
            uncertainty=shapes.Uncertainty(
                confidence_interval=interval, num_samples=len(result.items) or result.n
            ),
        ),
        generation_config=shapes.Generation(
            generation_args=shapes.Arguments(execution_command=_command(result)),
            additional_details=_words(
                {
                    "method": result.cell.method,
                    "task": result.cell.task,
                    "length": result.cell.length,
                    "factor": result.factor,
                    "truncated": result.truncated,
                    "notice": result.notice,
                    **{k: result.provenance.get(k) for k in ("kernel", "device", "dtype")},
                    "encoding sha256": result.provenance.get("encoding"),
                }
            ),
        ),
    )


def _entry(result: Result, dataset: str, *, own: bool) -> shapes.Entry:
    """Of a benchmark of one's own, each length is a task; of another's, the notes say it."""
    cell = result.cell
    mine = f"{re.sub(r'[^A-Za-z0-9._]+', '-', cell.task)}_{label(cell.length)}"
    said = [cell.task, cell.method, f"{cell.length} tokens", result.metric]
    return shapes.Entry(
        dataset=shapes.Dataset(
            id=dataset, task_id=mine if own else _task_name(cell.task).rpartition(".")[2]
        ),
        value=result.value,
        notes=", ".join([*said, *filter(None, [result.provenance.get("dtype")])]),
    )


def _source(result: Result) -> shapes.OnHub | shapes.Private:
    """Where the questions or the text come from."""
    name, corpus = _task_name(result.cell.task), result.corpus or _own(result.cell.task)
    kind, _, rest = (corpus or "").partition(":")
    if kind != "hf":
        return shapes.Private(dataset_name=name, source_id=corpus)
    repo, config, split, *_ = [*rest.partition("+join:")[0].split(":"), "", "", ""]
    repo, revision = pinned(repo)
    return shapes.OnHub(
        dataset_name=name,
        hf_repo=repo,
        hf_config=config or None,
        hf_split=split or None,
        hf_revision=result.provenance.get("data_commit") or revision,
    )


def _own(task: str) -> str | None:
    """What a task reads where its spec does not say."""
    try:
        found = catalog.load("tasks", _task_name(task))
    except (LookupError, ValueError, ImportError):
        return None
    return getattr(found, "corpus", getattr(found, "data", None))


def _model_id(result: Result) -> str:
    """As the hub would name it: developer/model."""
    from harness.model import KNOWN, SMOLLM2_HUB

    spec = result.cell.model.partition(",")[0]
    if spec == "smollm2-135m":
        return SMOLLM2_HUB
    if spec.count("/") == 1 and "+" not in spec:  # what was trained further is nobody's there
        return spec
    owner = OURS if spec in KNOWN else "unknown/"
    return f"{owner}{spec.replace('/', '-')}"


def _command(result: Result) -> str | None:
    """For whoever has the files it names: of those, no folder of this machine."""
    try:
        found = again(result.cell, trusting=bool(result.provenance.get("remote_code")))
        return replace(found, code=tuple(Path(file).name for file in found.code)).command
    except (LookupError, ValueError):
        return None


def _identity(*words: str) -> uuid.UUID:
    """The same for the same row, so that it is written over and never twice."""
    digest = hashlib.sha256("\0".join(words).encode()).digest()
    return uuid.UUID(bytes=digest[:16], version=4)


def _words(said: dict[str, Any]) -> shapes.Words:
    return {key: str(value) for key, value in said.items() if value is not None}


def _json(said: dict[str, Any]) -> str:
    return json.dumps(said, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
