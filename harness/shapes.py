"""Shapes that others publish for results: what they take, as far as this project writes it.

Every Eval Ever: https://github.com/evaleval/every_eval_ever, its eval.schema.json, version 0.2.2.
Hugging Face's `.eval_results/*.yaml`: https://huggingface.co/docs/hub/eval-results, and its parser
in huggingface_hub 2.4. Both as they were in November 2026.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Words = dict[str, str]
"""Their additional details: every value is a string."""
Name = Annotated[str, StringConstraints(min_length=1)]


class Shape(BaseModel):
    """Takes no field that is not published, and leaves out what is not said."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def said(self) -> dict[str, Any]:
        """As it is written to a file."""
        return self.model_dump(exclude_none=True, by_alias=True)


class Engine(Shape):
    name: Name
    version: Name


class ModelInfo(Shape):
    name: Name
    id: Annotated[str, StringConstraints(pattern=r"^[^/]+/[^/]+$")]
    """As the hub names models: developer/model."""
    developer: Name
    inference_engine: Engine
    additional_details: Words = {}


class Library(Shape):
    name: Name
    version: Name
    additional_details: Words = {}


class Source(Shape):
    source_name: Name
    source_type: Literal["documentation", "evaluation_run"]
    source_organization_name: Name
    evaluator_relationship: Literal["first_party", "third_party", "collaborative", "other"]


class Private(Shape):
    dataset_name: Name
    source_type: Literal["other"] = "other"
    source_id: str | None = None


class OnHub(Shape):
    dataset_name: Name
    source_type: Literal["hf_dataset"] = "hf_dataset"
    hf_repo: Name
    hf_config: str | None = None
    hf_split: str | None = None
    hf_revision: str | None = None


class Metric(Shape):
    metric_id: Name
    lower_is_better: bool
    score_type: Literal["binary", "continuous", "levels"] | None = None
    min_score: float | None = None
    max_score: float | None = None


class Interval(Shape):
    lower: float
    upper: float
    confidence_level: Annotated[float, Field(ge=0, le=1)] = 0.95


class Uncertainty(Shape):
    confidence_interval: Interval | None = None
    num_samples: int


class Score(Shape):
    score: float
    details: Words = {}
    uncertainty: Uncertainty


class Arguments(Shape):
    execution_command: str | None = None


class Generation(Shape):
    generation_args: Arguments
    additional_details: Words = {}


class Evaluation(Shape):
    evaluation_result_id: Name
    evaluation_name: Name
    source_data: OnHub | Private
    metric_config: Metric
    score_details: Score
    generation_config: Generation


class Log(Shape):
    """A file of Every Eval Ever: one model as one method extends it, on one task."""

    schema_version: Literal["0.2.2"] = "0.2.2"
    evaluation_id: Name
    retrieved_timestamp: Name
    source_metadata: Source
    eval_library: Library
    model_info: ModelInfo
    evaluation_results: Annotated[list[Evaluation], Field(min_length=1)]


OWNED = r"^[\w.-]+/[\w.-]+$"
"""As the hub names datasets: owner/name."""


class Dataset(Shape):
    id: Annotated[str, StringConstraints(pattern=OWNED)]
    task_id: Name
    revision: str | None = None


class Entry(Shape):
    """An entry of `.eval_results/*.yaml`."""

    dataset: Dataset
    value: float
    date: str | None = None
    notes: str | None = None
