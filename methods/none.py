"""No extension: the checkpoint as it was trained. Every table starts from this row."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from harness.method import Method


@dataclass(frozen=True, kw_only=True)
class Unextended(Method):
    formula = "theta_i = b^(-2i/d)"
    paper = "Su et al. 2021, https://arxiv.org/abs/2104.09864"

    @contextmanager
    def applied_to(self, model: object, length: int) -> Iterator[None]:
        yield


method = Unextended()
