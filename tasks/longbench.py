"""LongBench: 21 datasets in English, Chinese and code, each prompt cut in its middle to the length.

Bai et al. 2024, https://arxiv.org/abs/2308.14508; https://github.com/THUDM/LongBench

Prompts, room for the answer and scores are the published ones, and few-shot examples and code never
become a conversation. NAME_e is the dataset of LongBench-E, told by length; `all` and `all_e` ask
every dataset and average as the leaderboard does. Two things differ: the length holds prompt and
answer together, with the start token once, and samsum stops where a model goes on with the next
dialogue instead of at the first new line, behind which the score sees nothing. There the published
code also forbids the end token and a new line as the first token; here a model that begins with one
has answered nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from statistics import fmean
from typing import Any, ClassVar

from harness.metrics.longbench import (
    BINS,
    DATASETS,
    EXTENDED,
    averages,
    averages_extended,
    bin_of,
)
from harness.stats import stratified_interval
from harness.task import Outcome, Reader, Request, Sample, Score

from ._by_text import texts
from ._longbench import LongBench, of


@dataclass(frozen=True, kw_only=True)
class Every(LongBench):
    """All 21 datasets; the value is the mean over the six groups, of both languages."""

    metric = "average of six groups"
    dataset = "all"
    datasets: ClassVar[tuple[str, ...]] = tuple(DATASETS)
    size = "4,750 questions"

    @property
    def max_new_tokens(self) -> int:  # type: ignore[override]
        """Of the dataset that has most."""
        return max(member.max_new_tokens for member in self.members().values())

    @property
    def packages(self) -> Mapping[str, str]:  # type: ignore[override]
        """Of all datasets."""
        return {k: v for m in self.members().values() for k, v in m.packages.items()}

    def members(self) -> dict[str, LongBench]:
        """Each dataset as a task of its own, asked as this is."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: type(of(name, self.extended))(**given) for name in self.datasets}

    def asked_as(self, reader: Reader) -> str | None:
        """Of a model that chats both: it depends on the dataset."""
        ways = {member.asked_as(reader) for member in self.members().values()}
        return " and ".join(sorted(filter(None, ways)))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Those of all datasets."""
        for member in self.members().values():
            yield from member.rows()

    def requests(self, reader: Reader, length: int) -> Iterator[Request]:
        for member in self.members().values():
            yield from member.requests(reader, length)

    def grade(self, request: Request, outcome: Outcome, reader: Reader) -> Sample:
        return self.members()[request.about["dataset"]].grade(request, outcome, reader)

    def judge(self, prediction: str, gold: Any, row: Mapping[str, Any]) -> tuple[float, str | None]:
        """Of a row that says which `dataset` it is of."""
        if row.get("dataset") not in self.datasets:
            raise ValueError("a row must say with 'dataset' which of LongBench's it is of")
        return self.members()[row["dataset"]].judge(prediction, gold, row)

    def answers(self) -> dict[str, tuple[list[str], dict[str, Any]]]:
        return {key: one for m in self.members().values() for key, one in m.answers().items()}

    def average(self, judged: Sequence[tuple[float, Mapping[str, Any]]]) -> float:
        if not all(row for _, row in judged):
            raise ValueError(
                "A line cannot be read, so that nobody knows which dataset it is of: without it "
                f"there is no {self.metric}. Mend it, or score each dataset by its name."
            )
        samples = _samples(judged)
        if without := {*self.datasets} - {sample.about.get("dataset") for sample in samples}:
            raise ValueError(
                f"An {self.metric} needs all {len(self.datasets)} datasets, and there is no row of "
                f"{', '.join(sorted(without))}: score each by its name."
            )
        return self.score(samples).value

    def parts(self, judged: Sequence[tuple[float, Mapping[str, Any]]]) -> dict[str, float]:
        """What its average is made of."""
        return self.score(_samples(judged)).parts

    def score(self, samples: Sequence[Sample]) -> Score:
        groups = grouped(samples, lambda sample: sample.about["dataset"])
        scores = means_of(groups)
        parts = averages(scores)
        return Score(
            value=parts["average"],
            **interval(groups, lambda means: averages(means)["average"]),
            n=len(samples),
            parts=parts | scores,
        )


class EveryExtended(Every):
    """The 13 of LongBench-E; the value is the mean over the length bins' six-group means."""

    metric = "average of six groups and three lengths"
    datasets = EXTENDED
    extended = True
    size = "3,668 questions"

    def requests(self, reader: Reader, length: int) -> Iterator[Request]:
        """Those of all datasets, if they will make an average: seen before anything is asked."""
        members = self.members().values()
        self.see_whole(
            (one.dataset, bin_of(row["length"]))
            for one in members
            for row in islice(one.rows(), self.samples)
        )
        yield from super().requests(reader, length)

    def see_whole(self, there: Iterable[tuple[str, str]]) -> None:
        """Raises ValueError: a dataset has no question of a length; says which."""
        found = {*there}
        lost = [f"{d} ({bin})" for d in self.datasets for bin in BINS if (d, bin) not in found]
        if lost:
            raise ValueError(
                f"An {self.metric} needs questions of each length in each dataset, and there are "
                f"none of {', '.join(lost)}: take more samples, or score each dataset by its name."
            )

    def judge(self, prediction: str, gold: Any, row: Mapping[str, Any]) -> tuple[float, str | None]:
        if not isinstance(row.get("length"), int):
            raise ValueError("a row must say with 'length' how long its context is")
        return super().judge(prediction, gold, row)

    def score(self, samples: Sequence[Sample]) -> Score:
        groups = grouped(samples, lambda s: (s.about["dataset"], bin_of(s.about["length"])))
        self.see_whole(groups)
        parts = by_bins(means_of(groups))
        return Score(
            value=over_bins(parts),
            **interval(groups, lambda means: over_bins(by_bins(means))),
            n=len(samples),
            parts=parts,
        )


def _samples(judged: Sequence[tuple[float, Mapping[str, Any]]]) -> list[Sample]:
    told = ("dataset", "length")
    return [
        Sample(id=str(i), score=score, about={name: row.get(name) for name in told})
        for i, (score, row) in enumerate(judged)
    ]


def grouped(samples: Sequence[Sample], key: Callable[[Sample], Any]) -> dict[Any, list[Sample]]:
    """By what they belong to."""
    groups: dict[Any, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(key(sample), []).append(sample)
    return groups


def means_of(groups: Mapping[Any, Sequence[Sample]]) -> dict[Any, float]:
    return {key: fmean(sample.score for sample in group) for key, group in groups.items()}


def interval(
    groups: Mapping[Any, Sequence[Sample]], value: Callable[[dict[Any, float]], float]
) -> dict[str, float | None]:
    """Of a value made of the groups' means; without ends where nothing is seen of how they vary.

    That is, where a group's questions are on one text, or the answers of each are all alike.
    """
    on = [texts(group) for group in groups.values()]
    if any(len(set(names)) < 2 for names in on):
        return {"low": None, "high": None}
    ends = stratified_interval(
        [[sample.score for sample in group] for group in groups.values()],
        lambda means: value(dict(zip(groups, means, strict=True))),
        on,
    )
    if not ends[0] < ends[1]:
        return {"low": None, "high": None}
    return {"low": max(ends[0], 0.0), "high": min(ends[1], 1.0)}


def by_bins(means: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """LongBench-E's columns, from the means of each dataset in each bin."""
    bins: dict[str, dict[str, float]] = {}
    for (name, bin), mean in means.items():
        bins.setdefault(name, {})[bin] = mean
    return averages_extended(bins)


def over_bins(parts: Mapping[str, float]) -> float:
    return fmean(parts[f"{bin} average"] for bin in BINS)


bare_name_means_all = tuple(DATASETS)
variants = {
    "narrativeqa": of("narrativeqa"),
    "qasper": of("qasper"),
    "multifieldqa_en": of("multifieldqa_en"),
    "multifieldqa_zh": of("multifieldqa_zh"),
    "hotpotqa": of("hotpotqa"),
    "2wikimqa": of("2wikimqa"),
    "musique": of("musique"),
    "dureader": of("dureader"),
    "gov_report": of("gov_report"),
    "qmsum": of("qmsum"),
    "multi_news": of("multi_news"),
    "vcsum": of("vcsum"),
    "trec": of("trec"),
    "triviaqa": of("triviaqa"),
    "samsum": of("samsum"),
    "lsht": of("lsht"),
    "passage_count": of("passage_count"),
    "passage_retrieval_en": of("passage_retrieval_en"),
    "passage_retrieval_zh": of("passage_retrieval_zh"),
    "lcc": of("lcc"),
    "repobench-p": of("repobench-p"),
    "all": Every(),
    "qasper_e": of("qasper", extended=True),
    "multifieldqa_en_e": of("multifieldqa_en", extended=True),
    "hotpotqa_e": of("hotpotqa", extended=True),
    "2wikimqa_e": of("2wikimqa", extended=True),
    "gov_report_e": of("gov_report", extended=True),
    "multi_news_e": of("multi_news", extended=True),
    "trec_e": of("trec", extended=True),
    "triviaqa_e": of("triviaqa", extended=True),
    "samsum_e": of("samsum", extended=True),
    "passage_count_e": of("passage_count", extended=True),
    "passage_retrieval_en_e": of("passage_retrieval_en", extended=True),
    "lcc_e": of("lcc", extended=True),
    "repobench-p_e": of("repobench-p", extended=True),
    "all_e": EveryExtended(),
}
