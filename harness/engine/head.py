"""The language-model head, in blocks and in float32: no (tokens, vocabulary) tensor ever exists."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.engine.offload import ON_DEVICE, OnDevice

SCORES = 2**22  # most logits alive at a time: 16 MB


class Head:
    """Final norm and output embedding, as the model has them."""

    def __init__(self, model: nn.Module, norm: nn.Module) -> None:
        self.norm, self.output = norm, model.get_output_embeddings()
        self.weight = _whole(self.output.weight).float()
        self.bias = None if self.output.bias is None else _whole(self.output.bias).float()
        config = model.config.get_text_config()
        self.softcap = getattr(config, "final_logit_softcapping", None)

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, hidden) of the last layer's output -> (n, vocabulary), float32."""
        with _exact_products(hidden.dtype):
            normed = self.norm(hidden).float().to(self.weight.device)
            logits = nn.functional.linear(normed, self.weight, self.bias).to(hidden.device)
        if self.softcap:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits

    def read(
        self,
        hidden: Tensor,
        rows: Tensor,
        targets: Tensor,
        memory: OnDevice = ON_DEVICE,
        most: int = SCORES,
        told: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """For each asked row, the loss of its target and the most likely token.

        Args:
            hidden: the last layer's output, (rows of the tree, hidden).
            rows: which of them are asked, (m,).
            targets: the token that followed, (m,).
            memory: where hidden states lie.
            most: rows that are read together.
            told: whether the most likely tokens are asked for.

        Returns:
            Losses in nats, (m,) float64, and argmax tokens, (m,) int64, or -1 each.
        """
        losses = torch.empty(len(rows), dtype=torch.float64)
        best = torch.full((len(rows),), -1)
        size = max(1, min(most, SCORES // self.weight.shape[0]))
        for start in range(0, len(rows), size):
            piece = slice(start, start + size)
            logits = self.logits(memory.rows(hidden, rows[piece]))
            if told:
                best[piece] = logits.argmax(1).cpu()
            logits -= logits.amax(1, keepdim=True)
            picked = logits.gather(1, targets[piece, None])[:, 0]
            losses[piece] = (logits.exp_().sum(1).log() - picked).double().cpu()
        return losses, best


def _whole(weight: Tensor) -> Tensor:
    """Gathered, where processes have shared it out."""
    return weight.full_tensor() if hasattr(weight, "full_tensor") else weight


@contextmanager
def _exact_products(dtype: torch.dtype) -> Iterator[None]:
    """Let float32 products of bfloat16 values run on bfloat16 hardware.

    Every product of two bfloat16 values is exact in float32, and sums stay in float32: the same
    numbers, several times faster where the processor has such units.
    """
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    if dtype is torch.bfloat16:
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
