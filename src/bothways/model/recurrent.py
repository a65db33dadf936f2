"""What every recurrent mixer needs: tokens laid out in lanes, a linear recurrence, and a state that a cache keeps."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from bothways.errors import BothwaysError
from bothways.model.stores import Exact, Store
from bothways.visibility import Causal, Fields, SameDocument, Visibility


class Lanes(NamedTuple):
    """The rows of a call, one lane a document.

    rows: (B, L) the row in each slot; spare slots, behind a shorter document, hold row 0.
    real: (B, L) bool, which slots hold a token.
    back: (N,) the slot (of B L) of each row.
    counts: (B,) tokens of each document.
    """

    rows: Tensor
    real: Tensor
    back: Tensor
    counts: Tensor

    def laid_out(self, rows: Tensor) -> Tensor:
        """(N, D) to (B, L, D)."""
        return rows.index_select(0, self.rows.flatten()).unflatten(0, tuple(self.rows.shape))

    def flat(self, slots: Tensor) -> Tensor:
        """(B, L, D) to (N, D)."""
        return slots.flatten(0, 1).index_select(0, self.back)


def make_lanes(fields: Fields, visibility: Visibility, device: torch.device, documents: int | None = None) -> Lanes:
    """Lay the rows of a call out by document.

    Args:
        fields: `document` and `index` of each row, (N,) on the CPU.
        documents: how many there are, where a cache numbers them; found by looking when none.
    Raises:
        BothwaysError: the visibility is not causal within documents, or rows of a document do not rise.
    """
    document, index = fields["document"], fields["index"]
    numbers = document
    if documents is None:
        found, numbers = torch.unique(document, return_inverse=True)
        documents = len(found)
    # 1. a state runs from left to right and knows nothing else
    parts = visibility.conjuncts()
    if not {Causal()} <= parts <= {Causal(), SameDocument()} or (documents > 1 and SameDocument() not in parts):
        seen = " and ".join(sorted(map(repr, parts - {SameDocument()}))) or "bidirectional"
        raise BothwaysError(f"a recurrent mixer reads causally inside each document, not by '{seen}': choose an "
                            "objective that reads left to right, or mixer.kind attention")
    # 2. lanes
    counts = torch.bincount(numbers, minlength=documents)
    order = torch.argsort(numbers, stable=True)
    place = torch.arange(len(numbers)) - (counts.cumsum(0) - counts)[numbers[order]]
    same = numbers[order][1:] == numbers[order][:-1]
    if bool((same & (index[order][1:] <= index[order][:-1])).any()):
        raise BothwaysError("a recurrent mixer reads the tokens of a document in their order, but their indexes do not "
                            "rise")
    longest = int(counts.max()) if len(counts) else 0
    rows = torch.zeros(documents, longest, dtype=torch.long)
    rows[numbers[order], place] = order
    back = torch.empty_like(order)
    back[order] = numbers[order] * longest + place
    return Lanes(rows.to(device), (torch.arange(longest) < counts[:, None]).to(device), back.to(device),
                 counts.to(device))


class State(Store):
    """What a recurrent layer keeps of each document: the last inputs of its convolution, and its state.

    Args:
        tail: numbers kept of the last inputs.
        state: numbers of the state.
    """

    takes_back = False

    def __init__(self, documents: int, tail: int, state: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(documents, 1, 1, 1, dtype, device)
        self.kept = tuple(Exact(documents, 1, 1, width, dtype, device) for width in (tail, state))

    def get(self, documents: int) -> tuple[Tensor, Tensor]:
        """The kept inputs (B, tail) and states (B, state)."""
        tail, state = (buffer.tensors[0][:documents, 0, 0] for buffer in self.kept)
        return tail, state

    def put(self, tail: Tensor, state: Tensor) -> None:
        """Keep what the next call begins with."""
        for buffer, new in zip(self.kept, (tail, state), strict=True):
            buffer.tensors[0][:len(new), 0, 0] = new.detach()

    def resize(self, documents: int, capacity: int) -> None:
        """Room for so many documents; a state does not grow with the text."""
        super().resize(documents, 1)


def convolved(inputs: Tensor, weight: Tensor, bias: Tensor | None, lanes: Lanes, before: Tensor | None
              ) -> tuple[Tensor, Tensor]:
    """A causal convolution of each channel by itself, and the inputs that the next call needs.

    Args:
        inputs: (B, L, C). weight: (C, 1, K). bias: (C,) or none.
        before: (B, K - 1, C) the inputs before these; zeros when none.
    Returns:
        (B, L, C) and (B, K - 1, C).
    """
    reach = weight.shape[-1] - 1
    if before is None:
        before = inputs.new_zeros(len(inputs), reach, inputs.shape[-1])
    longer = torch.cat((before, inputs), dim=1)
    found = F.conv1d(longer.transpose(1, 2), weight, bias, groups=len(weight)).transpose(1, 2)
    last = lanes.counts[:, None] + torch.arange(reach, device=inputs.device)
    return found, longer.gather(1, last.unsqueeze(-1).expand(-1, -1, inputs.shape[-1]))


def recur(decay: Tensor, added: Tensor, first: Tensor) -> Tensor:
    """h_t = decay_t h_{t-1} + added_t, beginning with h_0 = `first` before the first step.

    Args:
        decay: (L, B, ...), or with ones where it broadcasts. added: (L, B, ...). first: (B, ...).
    Returns:
        (L, B, ...) every h_t.
    """
    states: Tensor = _Recur.apply(decay, added, first)
    return states


SPAN = 1 << 17
"""Numbers of states that `scanned` has in memory at a time: so many stay in the processor's cache."""


def scanned(step: Tensor, rates: Tensor, inputs: Tensor, write: Tensor, read: Tensor, first: Tensor
            ) -> tuple[Tensor, Tensor]:
    """What is read of h_t = exp(step_t rates) h_{t-1} + inputs_t write_t' at each step: y_t = h_t read_t.

    The states are never all in memory, so nothing can learn from them: for calls without gradients.

    Args:
        step, inputs: (L, B, E). rates: (E, S). write, read: (L, B, S). first: (B, E, S) before the first step.
    Returns:
        y (L, B, E) and the last state (B, E, S).
    """
    length, documents, channels = step.shape
    size = max(1, min(length, SPAN // max(first.numel(), 1)))
    # channels last: every product runs along them
    rates, state = rates.t().contiguous(), first.transpose(1, 2).contiguous()
    decay, added = step.new_empty(2, size, *state.shape).unbind(0)
    found = step.new_empty(length, documents, 1, channels)
    for begin in range(0, length, size):
        part = slice(begin, min(begin + size, length))
        kept, reached = decay[:part.stop - begin], added[:part.stop - begin]
        torch.mul(step[part].unsqueeze(-2), rates, out=kept).exp_()
        torch.mul(inputs[part].unsqueeze(-2), write[part].unsqueeze(-1), out=reached)
        for t in range(len(reached)):
            state = reached[t].addcmul_(kept[t], state)
        torch.bmm(read[part].flatten(0, 1).unsqueeze(1), reached.flatten(0, 1), out=found[part].flatten(0, 1))
        state = state.clone()
    return found.squeeze(2), state.transpose(1, 2)


class _Recur(torch.autograd.Function):
    """Forward step by step, backward by the same recurrence from the end: g_t = grad_t + decay_{t+1} g_{t+1}."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, added: Tensor, first: Tensor) -> Tensor:
        """Every state, written where it is kept."""
        states, state = torch.empty_like(added), first
        for t in range(len(added)):
            state = torch.addcmul(added[t], decay[t], state, out=states[t])
        ctx.save_for_backward(decay, states, first)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of decay, what is added, and the first state."""
        decay, states, first = ctx.saved_tensors
        grad = grad.clone(memory_format=torch.contiguous_format)
        for t in range(len(grad) - 2, -1, -1):
            grad[t].addcmul_(decay[t + 1], grad[t + 1])
        earlier = torch.cat((first.unsqueeze(0), states[:-1]))
        return (grad * earlier).sum_to_size(decay.shape), grad, decay[0] * grad[0]
