"""A task of lm-eval as one of ours: its own prompts, its own metrics, our engine."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import isfinite
from statistics import fmean
from typing import Any, ClassVar

import numpy as np

from harness import lmeval
from harness.asking import Asking, answered
from harness.stats import mean_interval, wilson
from harness.task import Outcome, Reader, Request, Sample, Score, Task

ROUNDS = 200
"""Of the bootstrap, where a metric is no mean."""


@dataclass(frozen=True, kw_only=True)
class LmEval(Task):
    """One task, or a group that has a number of its own, as mmlu."""

    name: ClassVar[str] = ""
    """As lm-eval has it."""
    measure: ClassVar[str] = ""
    """METRIC, or METRIC:FILTER; empty: the main one."""
    source: ClassVar[str] = "https://github.com/EleutherAI/lm-evaluation-harness"
    licence: ClassVar[str] = "of each dataset its own"
    size: ClassVar[str] = "14,000 tasks"
    offline: ClassVar[bool] = False
    truncation = "left"
    counts = "what the task's own file says, as its prompt, its room and its stop words"

    data: str = ""
    """A folder of task files in YAML that are looked at before lm-eval's own."""
    samples: int = 0
    """At most so many documents of each dataset, the first; 0: all."""
    shots: int | None = None
    """Examples before the question; None: as many as the task's file says."""
    seed: int = 1234
    """Examples are drawn with it; this is lm-eval's own."""
    start_token: bool = True
    """The start token stands before every input; false: as lm-eval with a tokenizer that adds
    none."""

    def __post_init__(self) -> None:
        if self.samples < 0 or (self.shots or 0) < 0:
            raise ValueError("An lm-eval task takes samples and shots of 0 or more.")

    @cached_property
    def key(self) -> tuple[str, str]:
        """Metric and filter."""
        measure = self.measure or lmeval.main_metric(self.name, self.data)
        metric, _, sieve = measure.partition(":")
        return metric, sieve or "none"

    @property
    def metric(self) -> str:  # type: ignore[override]
        return self.key[0] if self.name else "the task's own"

    @property
    def loaded(self) -> dict[str, Any]:
        return lmeval.loaded(self.name, self.data, self.shots)

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """As its file says; a perplexity's does."""
        if not self.name:
            return True
        config = lmeval.find(self.name, self.data)
        named = config.config(config.leaves()[0]).get("metric_list") or ()
        said = {str(it["metric"]): it.get("higher_is_better") for it in named}
        known = said.get(self.metric)
        return known if known is not None else "perplexity" not in self.metric

    def fetch(self) -> None:
        """Load its data, so that it is in the cache.

        Raises:
            LookupError: it cannot be reached.
        """
        _ = self.loaded

    def needs(self) -> list[str]:
        """The datasets it reads, as they are named on the hub."""
        found = lmeval.find(self.name, self.data)
        parts: dict[str, list[str]] = {}
        for config in map(found.config, found.leaves()):
            held = parts.setdefault(str(config.get("dataset_path")), [])
            held += [config["dataset_name"]] if config.get("dataset_name") else []
        return [f"{path} {'+'.join(dict.fromkeys(names))}".strip() for path, names in parts.items()]

    def requests(self, reader: Reader, length: int) -> Iterator[Request]:
        asking = Asking(reader, length, self.start_token)
        for name, task in self.loaded["tasks"].items():
            for i, group in lmeval.instances(task, self.samples, self.seed).items():
                question = asking.question(group)
                yield Request(
                    id=f"{name}-{i}",
                    tokens=question.tokens,
                    ask=question.ask,
                    cut=question.cut,
                    about={"task": name, "document": i, "of": group, "counts": question.counts},
                )

    def grade(self, request: Request, outcome: Outcome, reader: Reader) -> Sample:
        """By lm-eval's filters and `process_results`; the score is the metric, where it is one."""
        about, task = request.about, self.loaded["tasks"][request.about["task"]]
        said = answered(about["of"], request.ask, about["counts"], outcome, reader)
        found = {
            f"{metric},{sieve}": plain(value)
            for sieve, answers in filtered(task, about["of"], said)
            for metric, value in task.process_results(about["of"][0].doc, answers).items()
        }
        main = found.get(",".join(self.key))
        return Sample(
            id=request.id,
            score=float(main) if isinstance(main, int | float) else 0.0,
            about={"task": about["task"], "document": about["document"], "metrics": found},
            expected=str(task.doc_to_target(about["of"][0].doc)),
            answer=said[0] if isinstance(said[0], str) else str(plain(said)),
            cut=request.cut,
        )

    def items(self, samples: Sequence[Sample]) -> dict[str, float]:
        """None where the metric is no mean of numbers, as a corpus's BLEU; mean losses in nats."""
        main = ",".join(self.key)
        found = {s.id: s.about["metrics"].get(main) for s in samples}
        numbers = {key: float(x) for key, x in found.items() if isinstance(x, int | float)}
        task = next(iter(self.loaded["tasks"].values()))
        if aggregation(task, self.key[0]).__name__ == "perplexity":  # of log-likelihoods
            return {key: -x for key, x in numbers.items()}
        return numbers

    def score(self, samples: Sequence[Sample]) -> Score:
        """By lm-eval's aggregation, of a group by its weights; the other metrics are parts."""
        main, tasks = ",".join(self.key), self.loaded["tasks"]
        scores = {name: totals(task, of(samples, name)) for name, task in tasks.items()}
        group = self.loaded.get("groups", {}).get(self.name)
        values = dict(group.aggregate(scores)) if group else scores[next(iter(tasks))]
        if main not in values:
            known = ", ".join(key.replace(",none", "") for key in metrics_in(values))
            raise ValueError(f"{self.name} has no metric {main.replace(',none', '')!r}: {known}.")
        low, high = self._interval(samples, group, values)
        others = (key for key in metrics_in(values) if key != main)
        parts = {key.removesuffix(",none"): values[key] for key in others}
        if group:
            parts |= {n: totals[main] for n, totals in scores.items() if main in totals}
        return Score(
            value=float(values[main]),
            low=low,
            high=high,
            n=len(samples),
            parts={key: float(value) for key, value in parts.items()},
        )

    def _interval(
        self, samples: Sequence[Sample], group: Any, values: dict[str, Any]
    ) -> tuple[float | None, float | None]:
        """Wilson's of shares, of a group from its pooled error, else by drawing documents."""
        main = ",".join(self.key)
        if group:
            error = values.get(f"{self.key[0]}_stderr,{self.key[1]}")
            if not isinstance(error, float):
                return None, None
            return _around(float(values[main]), error, [s.about["metrics"] for s in samples], main)
        task = self.loaded["tasks"][samples[0].about["task"]]
        items = [s.about["metrics"][main] for s in samples if main in s.about["metrics"]]
        if len(items) < 2:
            return None, None
        if is_mean(aggregation(task, self.key[0])):
            shares = {*items} <= {0, 1}
            return wilson(sum(items), len(items)) if shares else mean_interval(items)
        return bootstrap(aggregation(task, self.key[0]), items)


def _around(
    value: float, error: float, found: Sequence[Mapping[str, Any]], main: str
) -> tuple[float, float]:
    """A group's interval from its pooled error; of shares never past 0 and 1, nor a point.

    Where all answers are alike no error is seen, and Wilson's for all of them stands in.
    """
    items = [metrics[main] for metrics in found if main in metrics]
    if not {*items} <= {0, 1}:
        return value - 1.96 * error, value + 1.96 * error
    if not error:
        return wilson(sum(items), len(items))
    return max(0.0, value - 1.96 * error), min(1.0, value + 1.96 * error)


def of_name(module: str, name: str, measure: str = "", **about: str) -> type[LmEval]:
    """The task of lm-eval of this name, as a module speaks of it."""
    return type(
        "Named", (LmEval,), about | {"name": name, "measure": measure, "__module__": module}
    )


def filtered(task: Any, group: list[Any], said: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """The answers as each of the task's filters leaves them; greedy, so all repeats are alike."""
    fresh = [
        replace(one, resps=[answer] * (one.repeats or 1), filtered_resps={})
        for one, answer in zip(group, said, strict=True)
    ]
    for sieve in task._filters:
        sieve.apply(fresh)
    for name in fresh[0].filtered_resps:
        yield name, [one.filtered_resps[name] for one in fresh]


def plain(value: Any) -> Any:
    """Without numpy's kinds of numbers, which JSON does not know."""
    if isinstance(value, tuple | list):
        return type(value)(plain(item) for item in value)
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value


def of(samples: Sequence[Sample], name: str) -> list[dict[str, Any]]:
    return [sample.about["metrics"] for sample in samples if sample.about["task"] == name]


def metrics_in(values: dict[str, Any]) -> list[str]:
    return [k for k, v in values.items() if "," in k and "_stderr," not in k and is_number(v)]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and isfinite(value)


def aggregation(task: Any, metric: str) -> Callable[[list[Any]], Any]:
    return task.aggregation().get(metric, fmean)


def is_mean(aggregate: Callable[[list[Any]], Any]) -> bool:
    return aggregate is fmean or getattr(aggregate, "__name__", "") == "mean"


def totals(task: Any, documents: list[dict[str, Any]]) -> dict[str, Any]:
    """Each metric over a task's documents, with the error of means, as groups want it."""
    found: dict[str, Any] = {"sample_len": len(documents)}
    for key in dict.fromkeys(key for document in documents for key in document):
        metric, _, sieve = key.partition(",")
        items = [document[key] for document in documents if key in document]
        found[key] = aggregation(task, metric)(items)
        if is_mean(aggregation(task, metric)) and len(items) > 1:
            found[f"{metric}_stderr,{sieve}"] = float(np.std(items, ddof=1) / len(items) ** 0.5)
    return found


def bootstrap(aggregate: Callable[[list[Any]], Any], items: list[Any]) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    draws = rng.integers(len(items), size=(ROUNDS, len(items)))
    values = [float(aggregate([items[i] for i in draw])) for draw in draws]
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
