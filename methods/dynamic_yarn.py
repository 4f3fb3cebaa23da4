"""Dynamic YaRN: YaRN by as much as the input is long, so that short inputs stay as they were.

Peng et al. 2023, section 3.3, https://arxiv.org/abs/2309.00071. The repository has it three times
with different scales; this is the paper's, n / L0.
"""

from dataclasses import dataclass

from harness.rope import Rope, yarn_attention_factor
from harness.rotary import ByParts


@dataclass(frozen=True, kw_only=True)
class DynamicYaRN(ByParts):
    formula = "YaRN at s = max(1, n/L0), n the input's length"
    paper = "Peng et al. 2023, section 3.3, https://arxiv.org/abs/2309.00071"
    depends_on_length = True

    factor: float | None = None
    """The least s, that a checkpoint was fine-tuned with; None: 1, it was not."""

    def scale(self, rope: Rope, length: int) -> float:
        return max(self.factor or 1.0, length / rope.original_length)

    def attention_factor(self, rope: Rope, scale: float) -> float:
        return yarn_attention_factor(scale)


method = DynamicYaRN()
