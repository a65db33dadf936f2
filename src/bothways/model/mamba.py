"""Selective state spaces as a mixer: Mamba (arXiv 2312.00752) and Mamba-2 (arXiv 2405.21060)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.model.config import ModelConfig
from bothways.model.norm import RMSNorm
from bothways.model.product import Linear
from bothways.model.recurrent import Lanes, State, convolved, recur, scanned

CHUNK = 64
"""Steps of Mamba-2 that are worked out as one product of matrices (arXiv 2405.21060, section 6)."""
STEPS = (0.001, 0.1)
"""The range of step sizes at first (arXiv 2312.00752, section 3.6)."""


class Mamba(nn.Module):
    """y = SSM(silu(conv(x))) silu(z): h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t, y_t = C_t h_t + D x_t.

    `entry` makes x and z, `select` makes a low-rank step, B and C of each token, `step` widens the step to a softplus
    for each channel; A = -exp(log_decay) (channels, states).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        mixer, width, inner = config.mixer, config.shape.width, config.mixed
        self.inner, self.rank, self.states = inner, mixer.rank or -(-width // 16), mixer.state
        self.entry = Linear(width, 2 * inner, bias=config.biased("queries"))
        self.convolution = nn.Conv1d(inner, inner, mixer.convolution, groups=inner, bias=mixer.convolution_bias)
        self.select = Linear(inner, self.rank + 2 * self.states, bias=False)
        self.step = Linear(self.rank, inner)
        self.log_decay = nn.Parameter(torch.empty(inner, self.states))
        self.skip = nn.Parameter(torch.empty(inner))
        self.out = Linear(inner, width, bias=config.biased("attention"))

    def forward(self, states: Tensor, lanes: Lanes, store: State | None = None) -> Tensor:
        """(N, D) to (N, D); with a store, documents go on where the last call ended."""
        inputs, gate = self.entry(states).chunk(2, dim=-1)
        tail, first = _begun(store, lanes, (self.convolution.weight.shape[-1] - 1, self.inner),
                             (self.inner, self.states))
        # 1. each channel by itself
        x, tail = convolved(lanes.laid_out(inputs), self.convolution.weight, self.convolution.bias, lanes, tail)
        x = F.silu(x)
        # 2. what each token lets in, keeps and lets out; spare slots change nothing
        step, write, read = self.select(x).split([self.rank, self.states, self.states], dim=-1)
        step = F.softplus(self.step(step)).masked_fill(~lanes.real.unsqueeze(-1), 0.0)
        # 3. the recurrence
        rates = -torch.exp(self.log_decay.float()).to(x.dtype)
        if first is None:
            first = x.new_zeros(len(x), self.inner, self.states)
        y, last = self._recurred(step, x, write, read, rates, first)
        y = y + self.skip * x
        if store is not None:
            store.put(tail.flatten(1), last.flatten(1))
        return self.out(lanes.flat(y) * F.silu(gate))  # type: ignore[no-any-return]

    def _recurred(self, step: Tensor, x: Tensor, write: Tensor, read: Tensor, rates: Tensor, first: Tensor
                  ) -> tuple[Tensor, Tensor]:
        """y (B, L, E) without the skip, and the last state (B, E, S); all states are kept for gradients only."""
        # steps in front
        step, inputs, write, read = (part.transpose(0, 1) for part in (step, step * x, write, read))
        if torch.is_grad_enabled():
            reached = recur(torch.exp(step.unsqueeze(-1) * rates), inputs.unsqueeze(-1) * write.unsqueeze(-2), first)
            y, last = (reached @ read.unsqueeze(-1)).squeeze(-1), reached[-1]
        else:
            y, last = scanned(step, rates, inputs, write, read, first)
        return y.transpose(0, 1), last

    @staticmethod
    def store(config: ModelConfig, documents: int, dtype: torch.dtype, device: torch.device) -> State:
        """What a cache keeps of this layer."""
        inner = config.mixed
        return State(documents, (config.mixer.convolution - 1) * inner, inner * config.mixer.state, dtype, device)

    @torch.no_grad()
    def initialise(self) -> None:
        """A = -(1, ..., S) for each channel, D = 1, steps between STEPS (arXiv 2312.00752, section 3.6)."""
        self.log_decay.copy_(torch.log(torch.arange(1, self.states + 1.0)).expand_as(self.log_decay))
        self.skip.fill_(1.0)
        nn.init.uniform_(self.step.weight, -self.rank**-0.5, self.rank**-0.5)
        self.step.bias.copy_(first_steps(self.step.bias))
        nn.init.kaiming_uniform_(self.convolution.weight, a=math.sqrt(5))


class Mamba2(nn.Module):
    """One decay for each head and token, so that a chunk of steps is a product of matrices (arXiv 2405.21060).

    `entry` makes z, then x with B and C (which the convolution reads), then a step for each head. Heads of one group
    share B and C.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        mixer, width, inner = config.mixer, config.shape.width, config.mixed
        self.inner, self.size, self.states, self.groups = inner, mixer.head_size, mixer.state, mixer.groups
        self.heads = inner // mixer.head_size
        channels = inner + 2 * self.groups * self.states
        self.entry = Linear(width, inner + channels + self.heads, bias=config.biased("queries"))
        self.convolution = nn.Conv1d(channels, channels, mixer.convolution, groups=channels,
                                     bias=mixer.convolution_bias)
        self.step_bias = nn.Parameter(torch.empty(self.heads))
        self.log_decay = nn.Parameter(torch.empty(self.heads))
        self.skip = nn.Parameter(torch.empty(self.heads))
        self.gate_norm = RMSNorm(inner, config.norm.epsilon)
        self.out = Linear(inner, width, bias=config.biased("attention"))

    def forward(self, states: Tensor, lanes: Lanes, store: State | None = None) -> Tensor:
        """(N, D) to (N, D); with a store, documents go on where the last call ended."""
        channels = len(self.convolution.weight)
        gate, mixed, step = self.entry(states).split([self.inner, channels, self.heads], dim=-1)
        tail, first = _begun(store, lanes, (self.convolution.weight.shape[-1] - 1, channels),
                             (self.heads, self.size, self.states))
        # 1. each channel by itself
        mixed, tail = convolved(lanes.laid_out(mixed), self.convolution.weight, self.convolution.bias, lanes, tail)
        x, write, read = F.silu(mixed).split([self.inner, *[self.groups * self.states] * 2], dim=-1)
        x = x.unflatten(-1, (self.heads, self.size))
        write, read = (part.unflatten(-1, (self.groups, self.states)).repeat_interleave(
            self.heads // self.groups, dim=2) for part in (write, read))
        # 2. steps; spare slots change nothing
        step = F.softplus(lanes.laid_out(step) + self.step_bias).masked_fill(~lanes.real.unsqueeze(-1), 0.0)
        log = step * -torch.exp(self.log_decay)
        y, last = chunked_scan(x * step.unsqueeze(-1), log, write, read, first)
        y = y + self.skip[:, None] * x
        if store is not None:
            store.put(tail.flatten(1), last.flatten(1))
        # 3. the gate, then a norm over the channels of each group
        gated = (lanes.flat(y.flatten(2)) * F.silu(gate)).unflatten(-1, (self.groups, -1))
        normed = F.rms_norm(gated, gated.shape[-1:], eps=self.gate_norm.epsilon).flatten(-2)
        weight = self.gate_norm.weight
        assert weight is not None
        return self.out(normed * weight)  # type: ignore[no-any-return]

    @staticmethod
    def store(config: ModelConfig, documents: int, dtype: torch.dtype, device: torch.device) -> State:
        """What a cache keeps of this layer."""
        inner, mixer = config.mixed, config.mixer
        channels = inner + 2 * mixer.groups * mixer.state
        return State(documents, (mixer.convolution - 1) * channels, inner * mixer.state, dtype, device)

    @torch.no_grad()
    def initialise(self) -> None:
        """A between -1 and -heads, D = 1, steps between STEPS."""
        self.log_decay.copy_(torch.log(torch.arange(1, self.heads + 1.0)))
        self.skip.fill_(1.0)
        self.step_bias.copy_(first_steps(self.step_bias))
        nn.init.kaiming_uniform_(self.convolution.weight, a=math.sqrt(5))


def chunked_scan(added: Tensor, log: Tensor, write: Tensor, read: Tensor, first: Tensor | None = None,
                 chunk: int = CHUNK) -> tuple[Tensor, Tensor]:
    """h_t = exp(log_t) h_{t-1} + added_t write_t', y_t = h_t read_t, by products of matrices inside chunks.

    Args:
        added: (B, L, H, P). log: (B, L, H) at most 0. write, read: (B, L, H, S).
        first: (B, H, P, S) before the first step; zeros when none.
    Returns:
        y (B, L, H, P) and the last state (B, H, P, S).
    """
    length = added.shape[1]
    # 1. chunks, the last one filled with steps that change nothing: (B, C, H, T, ...)
    fill = -length % chunk
    added, write, read = (F.pad(part, (0, 0, 0, 0, 0, fill)).unflatten(1, (-1, chunk)).transpose(2, 3)
                          for part in (added, write, read))
    total = F.pad(log, (0, 0, 0, fill)).unflatten(1, (-1, chunk)).transpose(2, 3).cumsum(-1)
    # 2. inside a chunk, each step reads the earlier ones through what decayed between
    between = total.unsqueeze(-1) - total.unsqueeze(-2)
    later = torch.ones(chunk, chunk, dtype=torch.bool, device=log.device).triu(1)
    seen = (read @ write.transpose(-1, -2)) * torch.exp(between.masked_fill(later, float("-inf")))
    y = seen @ added
    # 3. from chunk to chunk: (C, B, H, P, S)
    left = torch.exp(total[..., -1:] - total)
    own = ((added * left.unsqueeze(-1)).transpose(-1, -2) @ write).transpose(0, 1)
    decay = torch.exp(total[..., -1]).transpose(0, 1)[..., None, None]
    first = own.new_zeros(own.shape[1:]) if first is None else first
    states = recur(decay.expand_as(own) if own.requires_grad else decay, own, first)
    before = torch.cat((first.unsqueeze(0), states[:-1])).transpose(0, 1)
    y = y + torch.exp(total).unsqueeze(-1) * (read @ before.transpose(-1, -2))
    return y.transpose(2, 3).flatten(1, 2)[:, :length], states[-1]


def first_steps(like: Tensor) -> Tensor:
    """Biases whose softplus lies log-uniformly between STEPS."""
    low, high = (math.log(step) for step in STEPS)
    steps = torch.exp(torch.rand_like(like) * (high - low) + low)
    return steps + torch.log(-torch.expm1(-steps))


def _begun(store: State | None, lanes: Lanes, tail: tuple[int, ...], state: tuple[int, ...]
           ) -> tuple[Tensor | None, Tensor | None]:
    """What the last call left in these shapes; none where nothing was read yet."""
    if store is None or store.first:
        return None, None
    kept = store.get(len(lanes.rows))
    return kept[0].unflatten(1, tail), kept[1].unflatten(1, state)


MIXERS: dict[str, type[Mamba | Mamba2]] = {"mamba": Mamba, "mamba2": Mamba2}
"""The recurrent mixers by their names in a config."""
