"""Cross-entropy in pieces: the logits of a long sequence never exist at once.

8k tokens times 49k words are 1.6 GB of float32 logits, and as much again for their gradient. Here a
piece's logits are made, reduced to a loss and, while they are there, to its gradient: on the way
back nothing need be made again (Hsu et al. 2024, section 3.2, https://arxiv.org/abs/2410.10989).
Where several processes train they are, piece by piece (Chen et al. 2016, section 4,
https://arxiv.org/abs/1604.06174).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

PIECE = 1024
IGNORED = -100
"""The label of a token that is not learned."""


@contextmanager
def in_pieces(model: nn.Module, piece: int = PIECE) -> Iterator[None]:
    """For a while `model(input_ids, labels)` is its loss alone, from `piece` tokens at a time.

    The model's own forward is put in place of, not a wrapper put around it: FSDP and DDP see the
    module they know.
    """

    def forward(
        self: nn.Module,
        input_ids: Tensor,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None = None,
        position_ids: Tensor | None = None,
        shift_labels: Tensor | None = None,
        **_: Any,
    ) -> dict[str, Tensor]:
        decoder = self.get_decoder()
        ways = {"position_ids": position_ids, "use_cache": False}
        hidden = decoder(input_ids=input_ids, **ways).last_hidden_state
        if shift_labels is None:  # else it is a part of a sequence: the next token may be elsewhere
            hidden, shift_labels = hidden[:, :-1], labels[:, 1:]
        total, count = summed(self, hidden, shift_labels, piece)
        return {"loss": total / (count if num_items_in_batch is None else num_items_in_batch)}

    model.forward = MethodType(forward, model)
    try:
        yield
    finally:
        del model.forward


def summed(
    model: nn.Module, hidden: Tensor, labels: Tensor, piece: int = PIECE
) -> tuple[Tensor, Tensor]:
    """The sum of the losses of all labelled tokens, float32, and how many they are.

    Args:
        model: a causal language model; its head and soft-capping are used.
        hidden: the decoder's output, (batch, n, hidden).
        labels: (batch, n): what is predicted from each output.
        piece: most tokens whose logits are alive.
    """
    head = model.get_output_embeddings()
    cap = getattr(model.get_decoder().config, "final_logit_softcapping", None)
    flat, wanted = hidden.flatten(0, 1), labels.flatten()

    def loss(part: Tensor, target: Tensor) -> Tensor:
        logits = head(part).float()
        logits = logits if cap is None else cap * torch.tanh(logits / cap)
        return functional.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum")

    if dist.is_available() and dist.is_initialized():
        # Processes that share a head have its weights while it is called, and gradients when all
        # are on the way back.
        total = flat.new_zeros((), dtype=torch.float32)
        for part, target in zip(flat.split(piece), wanted.split(piece), strict=True):
            total = total + checkpoint(loss, part, target, use_reentrant=False)
        return total, (wanted != IGNORED).sum()
    learning = torch.is_grad_enabled()
    weights = [w for w in head.parameters() if w.requires_grad and learning]
    total = _Summed.apply(loss, piece, learning, flat, wanted, *weights)
    return total, (wanted != IGNORED).sum()


class _Summed(torch.autograd.Function):
    """A sum of losses, whose gradient is made with it."""

    @staticmethod
    def forward(
        ctx: Any,
        loss: Callable[[Tensor, Tensor], Tensor],
        piece: int,
        learning: bool,
        flat: Tensor,
        wanted: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        total = flat.new_zeros((), dtype=torch.float32)
        ctx.made = [torch.zeros_like(x) for x in (flat, *weights)] if learning else []
        for start in range(0, len(flat), piece):
            rows = slice(start, start + piece)
            with torch.set_grad_enabled(learning):
                part = flat[rows].detach().requires_grad_(learning)
                one = loss(part, wanted[rows])
            total += one.detach()
            if learning:
                own, *others = torch.autograd.grad(one, [part, *weights])
                ctx.made[0][rows] = own
                for whole, more in zip(ctx.made[1:], others, strict=True):
                    whole += more
        return total

    @staticmethod
    def backward(ctx: Any, share: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, None, ctx.made[0] * share, None, *(x * share for x in ctx.made[1:])
