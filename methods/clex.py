"""CLEX: let a differential equation, learned, carry the frequencies from one length to the next.

Chen et al. 2023, https://arxiv.org/abs/2310.16450. The time t of the equation is how many times
longer than trained the input is. Its published checkpoints are read as they are; where there are
no weights of the equation, what remains is NTK-aware scaling with alpha = 2t - 1.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from math import ceil, log, sqrt
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from harness.method import Recipe
from harness.rope import Encoding, Rope, parameters
from harness.rotary import RotaryMethod
from harness.rotation import Rotation, placed, rotated, untouched

LAYER, UP, DOWN = "clex_layer", "proj_func.ode_up_proj", "proj_func.ode_down_proj"
"""Where a decoder holds the equation's weights, in published checkpoints and in ours."""
ACTIVATIONS = {"tanh": torch.tanh, "silu": nn.functional.silu}
BASE = 1e4
"""Of the frequencies that the equation is told of, whatever base the model has: a slip of the
published code, without which its checkpoints would be read wrongly."""

PAPER = Recipe(
    sequence_length=4096,
    steps=944,
    batch_tokens=512 * 4096,
    learning_rate=2e-5,
    schedule="cosine",
    warmup=0.03,
    factor=16,
    data="2B tokens of RedPajama-Book",
    sources={
        "sequence_length": "scripts/train_lm.sh: model_max_length 4096, of LLaMA-2",
        "steps": "99 % of 2B tokens, as in the README, read once: the script leaves max_steps open",
        "batch_tokens": "scripts/train_lm.sh: 8 devices x 16 sequences x 4 accumulated",
        "learning_rate": "scripts/train_lm.sh",
        "schedule": "scripts/train_lm.sh: lr_scheduler_type",
        "warmup": "scripts/train_lm.sh: warmup_ratio",
        "weight_decay": "scripts/train_lm.sh",
        "betas": "the default of transformers' Trainer, which the script leaves",
        "clip": "the default of transformers' Trainer, which the script leaves",
        "factor": "train/argument.py: max_factor 16",
        "trains": "train/train_lm.py: all weights, the equation's among them",
        "data": "the repository's README, of the base models; 99 % of it, the rest is for testing",
        "seed": "the default of transformers' Trainer, which the script leaves",
    },
    disagreements=(
        "The script asks for a cosine, but its DeepSpeed files hold a WarmupLR, which Trainer then "
        "follows: the rate warms up and stays.",
        "The equation's activation is tanh by the default of the scripts, and was SiLU, with no "
        "choice, in the first release.",
        "t is continuous in the paper's equation, and a whole number in its code: 2 to max_factor "
        "in the first release, 1 to max_factor since.",
        "log_scale is False in the training script, and True by default in the configuration "
        "that a checkpoint is read with.",
        "The last position drawn is (n t) // r - 1 in the published code, with r = n // L0, and "
        "may lie before the one it follows; here it is (n t - 1) / r.",
    ),
)


@dataclass(frozen=True, kw_only=True)
class CLEX(RotaryMethod):
    """Each length has a time of its own, so each is read in a pass of its own.

    The published inference solves for t = ceil(n / L0) anew as the input grows. Here t is that of
    the cell's length, from its first token on.
    """

    formula = (
        "dz/dt = act((z + l(t)) W_up) W_down + dl/dt, z(1) = ln theta, theta'_i = exp z_i(t), "
        "t = ceil(n / L0); l_i(t) the log of b^(-2i/d) (2t - 1)^(-2i/(d-2)), b = 10000"
    )
    paper = "Chen et al. 2023, https://arxiv.org/abs/2310.16450"
    depends_on_length = True
    recipes: ClassVar[Mapping[str, Recipe]] = {"paper": PAPER}

    factor: float | None = None
    """The time t, held for all lengths; None: how many times longer than trained, rounded up."""
    max_factor: int = 16
    """The largest t that is trained or read; a published checkpoint says its own."""
    param_factor: int = 1
    """How many times as wide as a head the equation's hidden layer is."""
    activation: Literal["tanh", "silu"] = "tanh"
    """The equation's; a published checkpoint says its own."""
    time_step: float = 0.2
    """Of the solver. The published 0.01 is of a stiffer form, and in float32 less exact."""
    log_scale: Literal["none", "published", "clamped"] = "none"
    """Logits times ln n / ln L0, n the length of the cell. published: below 1 where n < L0;
    clamped: at least 1. A published LLaMA may ask for the former where this says none; the code of
    other families has no such scale, whatever their configuration says."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_factor < 1 or self.param_factor < 1 or not 1e-3 <= self.time_step <= 1:
            raise ValueError(
                "max_factor and param_factor are 1 or more, and time_step is 0.001 to 1; they are "
                f"{self.max_factor}, {self.param_factor} and {self.time_step:g}."
            )
        if self.activation not in ACTIVATIONS:  # a checkpoint's, which nobody has read before
            raise ValueError(f"CLEX's activation is tanh or silu, not {self.activation!r}.")

    def trained_for(self, factor: float) -> dict[str, Any]:
        return {"max_factor": min(self.max_factor, max(1, ceil(factor)))}

    def scale(self, rope: Rope, length: int) -> float:
        return float(self.factor or max(1, ceil(length / rope.original_length)))

    def frequencies(self, rope: Rope, scale: float) -> Tensor:
        """Of NTK-aware scaling with alpha = 2t - 1: the solution where W_down is 0."""
        return rope.ntk_aware(2 * scale - 1)

    def encoding(self, rope: Rope, length: int, equation: "Equation | None" = None) -> Encoding:
        t = self.scale(rope, length)
        frequencies = self.frequencies(rope, t)
        if equation is not None:
            frequencies = frequencies * equation(rope, t, self).exp()
        factor = self._attention_factor(rope, length)
        return Encoding(frequencies=frequencies, attention_factor=factor)

    def _attention_factor(self, rope: Rope, length: int) -> float:
        """The square root of ln n / ln L0, on queries and keys alike."""
        if self.log_scale == "none":
            return 1.0
        ratio = log(length) / log(rope.original_length)
        return sqrt(max(1.0, ratio) if self.log_scale == "clamped" else ratio)

    def resolved(
        self, rope: Rope, length: int, equation: "Equation | None" = None
    ) -> dict[str, Any]:
        found, t = self.encoding(rope, length, equation), self.scale(rope, length)
        return {
            "factor": t,
            "scale": t,
            "attention_factor": found.attention_factor,
            "frequencies": found.frequencies.tolist(),
            "learned": equation is not None,
        }

    def remark(self, rope: Rope, length: int) -> str | None:
        said = (super().remark(rope, length), UNTRAINED, self._too_far(rope, length))
        return " ".join(filter(None, said))

    def _too_far(self, rope: Rope, length: int) -> str | None:
        t, reach = self.scale(rope, length), self.max_factor * rope.original_length
        if t <= self.max_factor:
            return None
        return (
            f"CLEX reads up to {reach:,} tokens here, max_factor = {self.max_factor} times the "
            f"original length, and this would be {t:g} times: a smaller --factor, or a larger "
            "max_factor, reads it."
        )

    def stages(self, model: nn.Module, length: int) -> tuple[int, ...]:
        """Up to each multiple of the original length; a scale of logits is of each length."""
        method, rope, _ = self._settled(model)
        if method.factor is not None or method.log_scale != "none":
            return (length,)
        return (*range(rope.original_length, length, rope.original_length), length)

    def unfit(self, model: nn.Module, length: int) -> str | None:
        try:
            method, rope, _ = self._settled(model)
        except LookupError as error:
            return str(error)
        said = parameters(model.config.get_text_config())
        partial = (said.get("partial_rotary_factor") or 1.0) < 1
        if partial and method.log_scale != "none":
            return "Only part of a head rotates here: log_scale would scale a part of its logits."
        return super().unfit(model, length) or method._too_far(rope, length)

    def notice(self, model: nn.Module, length: int) -> str | None:
        method, rope, equation = self._settled(model)
        own = None
        if equation is None:
            own = method.remark(rope, length)
        elif method.log_scale != self.log_scale:
            own = "The checkpoint asks for log-scaled attention, not clamped, and has it."
        return " ".join(filter(None, (own, self.unseen(model, length)))) or None

    def provenance(self, model: nn.Module, length: int) -> dict[str, Any]:
        method, rope, equation = self._settled(model)
        own = {f: getattr(method, f) for f in ("max_factor", "activation", "log_scale")}
        with torch.no_grad():
            return method.resolved(rope, length, equation) | own

    def applied_to(self, model: nn.Module, length: int) -> AbstractContextManager[None]:
        method, rope, equation = self._fitting(model, length)
        with torch.no_grad():
            return rotated(model, method.encoding(rope, length, equation))

    @contextmanager
    def in_training(self, model: nn.Module, length: int) -> Iterator[None]:
        """Draw a time and positions at each forward pass; the equation's weights join the decoder.

        Times go up to that of `length`. They are new weights, or the checkpoint's own.
        """
        method, rope, equation = self._fitting(model, length)
        if method.scale(rope, length) < 2:
            raise ValueError(
                f"CLEX learns from times above 1: give a length above the {rope.original_length:,} "
                "tokens of the original window."
            )
        decoder = model.get_decoder()
        there = hasattr(decoder, LAYER)
        equation = equation or Equation.new(rope.dim, self.param_factor)
        if not there:
            layer = nn.Module()
            layer.proj_func = equation.to(model.device)
            decoder.add_module(LAYER, layer)
        try:
            with placed(model, Timed(model, method, equation, length)):
                yield
        finally:
            if not there:
                delattr(decoder, LAYER)

    def _fitting(self, model: nn.Module, length: int) -> "tuple[CLEX, Rope, Equation | None]":
        settled = self._settled(model)
        if reason := self.unfit(model, length):
            raise ValueError(reason)
        return settled

    def _settled(self, model: nn.Module) -> "tuple[CLEX, Rope, Equation | None]":
        """This method as the checkpoint has it, and the weights: read anew, so never stale."""
        rope, config = Rope.of(model), model.config.get_text_config()
        said = parameters(config)
        if said.get("type") != "clex":
            return self, rope, _equation(model, rope)
        asked = said.get("log_scale", getattr(config, "log_scale", False))
        asks = asked and config.model_type == "llama"
        own = replace(
            self,
            max_factor=int(said.get("max_factor", self.max_factor)),
            param_factor=int(said.get("param_factor", self.param_factor)),
            activation=said.get("act", "silu"),  # the first release had no other, and no name
            log_scale="published" if asks and self.log_scale == "none" else self.log_scale,
        )
        return own, rope, _equation(model, rope)


UNTRAINED = (
    "No weights of CLEX's equation are here, so it is NTK-aware scaling with alpha = 2t - 1; "
    "train them, or give a checkpoint that has them."
)


class Equation(nn.Module):
    """The weights of dz/dt, named as in the published checkpoints; kept in float32."""

    def __init__(self, up: Tensor, down: Tensor) -> None:
        super().__init__()
        self.ode_up_proj = nn.Parameter(up.to(torch.float32, copy=True))
        """(dim/2, hidden)"""
        self.ode_down_proj = nn.Parameter(down.to(torch.float32, copy=True))
        """(hidden, dim/2)"""

    @classmethod
    def new(cls, dim: int, param_factor: int) -> "Equation":
        """As training starts: W_down is 0, so the solution is that of NTK-aware scaling."""
        up = torch.empty(dim // 2, param_factor * dim)
        nn.init.kaiming_uniform_(up, a=sqrt(5))
        return cls(up, torch.zeros(param_factor * dim, dim // 2))

    def forward(self, rope: Rope, t: float, method: CLEX) -> Tensor:
        """u(t), what z is above the log of the NTK-aware frequencies; (dim/2,), float64.

        du/dt = act((z + l(t)) W_up) W_down and u(1) = 0. The steep, known part dl/dt is taken out,
        and a twentieth of the published steps comes closer to the exact solution. By Kutta's 3/8
        rule, as torchdiffeq's rk4; on the CPU, where products as small as these are quickest.
        """
        up, down = (w.to("cpu", torch.float64) for w in (self.ode_up_proj, self.ode_down_proj))
        act, steps = ACTIVATIONS[method.activation], ceil((t - 1) / method.time_step - 1e-9)
        h = (t - 1) / max(1, steps)
        times = 1 + h / 3 * torch.arange(3 * steps + 1, dtype=torch.float64)
        known = _ntk(rope.theta, rope.dim, times).log() + _ntk(BASE, rope.dim, times).log()
        inputs, up_T = (known @ up).unbind(), up.T

        def slope(third: int, u: Tensor) -> Tensor:
            return act(torch.addmv(inputs[third], up_T, u)) @ down

        u = 0 * (up.sum(0) @ down)  # at t = 1 no step is taken: all weights still have a gradient
        for third in range(0, 3 * steps, 3):
            k1 = slope(third, u)
            k2 = slope(third + 1, u + h / 3 * k1)
            k3 = slope(third + 2, u + h * (k2 - k1 / 3))
            k4 = slope(third + 3, u + h * (k1 - k2 + k3))
            u = u + h / 8 * (k1 + 3 * (k2 + k3) + k4)
        return u


class Timed(Rotation):
    """A rotation that in training mode turns at a time, and by positions, drawn at random.

    Otherwise it turns at the time of `length`. It solves at each pass, with the weights of then.
    """

    def __init__(self, model: nn.Module, method: CLEX, equation: Equation, length: int) -> None:
        rope, before = Rope.of(model), model.get_decoder().rotary_emb
        super().__init__(Encoding(frequencies=rope.frequencies), untouched(model), before=before)
        self._equation = [equation]  # in a list, so that it is no submodule: the decoder has it
        self.method, self.rope, self.length = method, rope, length

    def forward(
        self, x: Tensor, position_ids: Tensor, layer_type: str | None = None
    ) -> tuple[Tensor, Tensor]:
        """Cos and sin, (batch, n, dim); in training position_ids count from 0 up."""
        if layer_type in self.others:
            return super().forward(x, position_ids, layer_type)
        method, length = self.method, self.length
        if self.training:
            t = int(torch.randint(1, ceil(method.scale(self.rope, length)) + 1, ()))
            length, method = position_ids.shape[-1], replace(method, factor=float(t))
            drawn = positions(length, t, self.rope.original_length)
            position_ids = drawn.to(position_ids.device)[position_ids]
        return Rotation(method.encoding(self.rope, length, self._equation[0]))(x, position_ids)


def positions(n: int, t: int, original_length: int) -> Tensor:
    """So many positions of 0 to (n t - 1) / r, drawn without replacement, in order; (n,), float64.

    The first and the last are always among them. r = n // L0, at least 1: sequences of L0 tokens,
    or a multiple, spread over all that t reads; shorter ones over as much less. Drawn from torch's
    global generator.
    """
    ratio = max(1, n // original_length)
    inner = torch.randperm(max(0, n * t - 2))[: n - 2].sort().values + 1
    ends = torch.tensor([0, n * t - 1])
    return torch.cat([ends[:1], inner, ends[1:]])[:n].double() / ratio


def _ntk(theta: float, dim: int, times: Tensor) -> Tensor:
    """b^(-2i/d) (2t - 1)^(-2i/(d-2)), the NTK-aware frequencies; (times, dim/2), float64."""
    j = torch.arange(0, dim, 2, dtype=torch.float64)
    return theta ** -(j / dim) * (2 * times[:, None] - 1) ** -(j / (dim - 2))


def _equation(model: nn.Module, rope: Rope) -> Equation | None:
    """The equation's weights: the decoder's while it is trained, else those of the checkpoint.

    Raises:
        LookupError: they are of another model's shape.
    """
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    if hasattr(decoder, LAYER):
        return getattr(decoder, LAYER).proj_func
    unknown: Mapping[str, Tensor] = getattr(model, "unexpected", {})
    up, down = (
        next((held for name, held in unknown.items() if name.endswith(f"{LAYER}.{end}")), None)
        for end in (UP, DOWN)
    )
    if up is None or down is None:
        return None
    if up.shape[0] != rope.dim // 2 or up.shape != down.T.shape:
        raise LookupError(
            f"The weights of CLEX's equation in this checkpoint are for heads of {2 * len(up)} "
            f"channels that rotate, and this model's have {rope.dim}."
        )
    return Equation(up, down)


method = CLEX()
