"""An encoding in place: the rotary module that stands in for the model's own for a while."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

from harness.rope import Encoding, Rope


def rotated(model: nn.Module, encoding: Encoding) -> AbstractContextManager[None]:
    """Rotate by this encoding for a while; sliding-window layers keep the checkpoint's own."""
    before = model.get_decoder().rotary_emb
    return placed(model, Rotation(encoding, untouched(model), before=before))


def read_at_once(model: nn.Module, length: int) -> AbstractContextManager[None]:
    """The encoding that is on; where that is transformers' own, as for so many tokens at once.

    Asked in pieces, that one follows each piece's length where the checkpoint has it scale.
    """
    own = getattr(model.get_decoder(), "rotary_emb", None)
    if own is None or isinstance(own, Rotation):
        return nullcontext()
    return rotated(model, Encoding.of(model, length))


def unturned(
    model: nn.Module, others: Mapping[str, Encoding] | None = None
) -> AbstractContextManager[None]:
    """Rotate nothing for a while, in no layer but those of `others`: a table of cos 1 and sin 0."""
    before, pairs = model.get_decoder().rotary_emb, Rope.of(model).dim // 2
    still = Encoding(frequencies=torch.zeros(pairs, dtype=torch.float64))
    return placed(model, Rotation(still, others, before=before))


def standing(model: nn.Module, length: int) -> tuple[Encoding, Mapping[str, Encoding]]:
    """What the layers turn by now, and by layer type what others do: a method may be on already.

    Raises:
        LookupError: there is no such encoding, or it changes from one forward pass to the next.
    """
    rotary = model.get_decoder().rotary_emb
    if not isinstance(rotary, Rotation):
        return Encoding.of(model, length), untouched(model)
    if type(rotary) is not Rotation:
        raise LookupError("Positions or scales are drawn anew in training here: none can be bent.")
    return rotary.encoding, rotary.others


def drawing(
    model: nn.Module, encoding: Encoding, draw: Callable[[int], Tensor]
) -> AbstractContextManager[None]:
    """As `rotated`, but in training mode n tokens stand at the positions of `draw(n)`."""
    before = model.get_decoder().rotary_emb
    return placed(model, Drawn(draw, encoding, untouched(model), before=before))


@contextmanager
def placed(model: nn.Module, rotary: nn.Module) -> Iterator[None]:
    """Put a rotary module in the place of the decoder's own for a while."""
    decoder = model.get_decoder()
    before = decoder.rotary_emb
    decoder.rotary_emb = rotary.train(decoder.training)
    try:
        yield
    finally:
        decoder.rotary_emb = before


def untouched(model: nn.Module) -> dict[str, Encoding]:
    """The checkpoint's own encodings of the layer types that no method bends: sliding windows."""
    config = model.config.get_text_config()
    nested = (getattr(config, "rope_parameters", None) or {}).keys()
    others = set(getattr(config, "layer_types", None) or ()) & nested - {"full_attention"}
    return {t: Encoding.of(model, None, t) for t in others}


def turned(x: Tensor, encoding: Encoding, positions: Tensor) -> Tensor:
    """Queries or keys, (batch, heads, n, dim), as if they stood at these positions, (n,).

    In halves, as the families that attention can be bent of have it; rounded as they round.
    """
    cos, sin = (torch.cat([part, part], -1).to(x.dtype) for part in encoding.table(positions))
    turning, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    left, right = turning.chunk(2, -1)
    turning = turning * cos + torch.cat([-right, left], -1) * sin
    return torch.cat([turning, rest], -1) if rest.shape[-1] else turning


class Rotation(nn.Module):
    """A rotary module that reads its table from an `Encoding`.

    Not transformers' own: its forward is under no_grad, and nothing could learn through it. It
    keeps no buffers, which transformers 5 refills with garbage at load.
    """

    def __init__(
        self,
        encoding: Encoding,
        others: Mapping[str, Encoding] | None = None,
        *,
        before: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoding = encoding
        self.others = dict(others or {})
        """By layer type, of the layers that another encoding turns."""
        self._before = [before]  # in a list, so that it is no submodule: its buffers stay its own

    @property
    def before(self) -> nn.Module | None:
        """The module that this one stands in for."""
        return self._before[0]

    def forward(
        self, x: Tensor, position_ids: Tensor, layer_type: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cos and sin for these positions, (batch, n, dim), in the dtype of x."""
        encoding = self.others.get(layer_type or "", self.encoding)
        cos, sin = encoding.table(position_ids)
        return torch.cat([cos, cos], -1).to(x.dtype), torch.cat([sin, sin], -1).to(x.dtype)


class Drawn(Rotation):
    """A rotation that in training mode puts its tokens at positions drawn for each forward pass.

    Drawn in here, for the model's position_ids must stay contiguous: transformers takes gaps in
    them for the seams of packed sequences, and attends across none.
    """

    def __init__(
        self,
        draw: Callable[[int], Tensor],
        encoding: Encoding,
        others: Mapping[str, Encoding] | None = None,
        *,
        before: nn.Module | None = None,
    ) -> None:
        super().__init__(encoding, others, before=before)
        self.draw = draw
        """The number of tokens -> their positions, (n,), from torch's global generator."""

    def forward(
        self, x: Tensor, position_ids: Tensor, layer_type: str | None = None
    ) -> tuple[Tensor, Tensor]:
        if self.training and layer_type not in self.others:
            drawn = self.draw(position_ids.shape[-1])
            position_ids = drawn.to(position_ids.device).expand_as(position_ids)
        return super().forward(x, position_ids, layer_type)
