"""A mixture of experts as a feed-forward: each token goes through a few of many, which a router chooses for it.

Tokens are grouped by expert, so that each expert makes one product of exactly those that chose it: nothing is padded
and no token is dropped (arXiv 2211.15841 says why; Mixtral, arXiv 2401.04088, section 2.1 the function).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bothways.model.config import Experts, ModelConfig
from bothways.model.feed_forward import GatedFeedForward, gated
from bothways.model.product import product


class Routing(NamedTuple):
    """Where one layer sends its tokens.

    scores: (N, E) float32, the router's for every expert: a softmax, or a sigmoid each.
    chosen: (N, A) int64, the experts of each token.
    weights: (N, A) float32, with what each of them counts.
    """

    scores: Tensor
    chosen: Tensor
    weights: Tensor


class Router(nn.Module):
    """Scores of experts, and the choice among them. `correction` (E,) sways the choice, never a weight.

    It moves by small steps, so it stays in float32 whatever the weights are in.
    """

    correction: Tensor

    def __init__(self, config: ModelConfig, experts: Experts) -> None:
        super().__init__()
        self.experts = experts
        self.weight = nn.Parameter(torch.empty(experts.count, config.shape.width))
        if experts.correction:
            self.register_buffer("correction", torch.zeros(experts.count))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """What moves the network to a device or into a number format."""
        before = self._buffers.get("correction")
        super()._apply(fn, recurse)
        if before is not None:
            self.correction = (self.correction.float() if before.is_meta
                               else before.to(self.correction.device, torch.float32))
        return self

    def forward(self, states: Tensor) -> Routing:
        """(N, D) to the routing of N tokens; in float32, whatever the states are."""
        experts = self.experts
        logits = product(states.float(), self.weight.float())
        scores = logits.softmax(dim=-1) if experts.score == "softmax" else logits.sigmoid()
        # 1. the choice, which only sees the groups that are best for a token
        worth = scores.detach() + self.correction.float() if experts.correction else scores.detach()
        if experts.groups > 1:
            worth = self._in_best_groups(worth)
        chosen = worth.topk(experts.active, dim=-1).indices
        # 2. what the chosen count
        weights = scores.gather(1, chosen)
        if experts.normalised:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        return Routing(scores, chosen, weights * experts.scale)

    def _in_best_groups(self, worth: Tensor) -> Tensor:
        """The same, with -inf outside the best groups of each token (DeepSeek-V2, arXiv 2405.04434, section 2.2.2).

        A group is worth its best expert (V2), or its best two together (V3, arXiv 2412.19437).
        """
        experts = self.experts
        grouped = worth.unflatten(-1, (experts.groups, -1))
        best = grouped.topk(experts.group_by, dim=-1).values.sum(dim=-1).topk(experts.open_groups, dim=-1).indices
        closed = torch.ones(grouped.shape[:2], dtype=torch.bool, device=worth.device).scatter(1, best, False)
        return grouped.masked_fill(closed.unsqueeze(-1), float("-inf")).flatten(1)


class MixedFeedForward(nn.Module):
    """The chosen experts' gated feed-forwards, weighted, beside one that every token goes through (`shared`).

    Weights of all experts lie one under the other: `expert_up_gate` (E * 2 * inner, D), for each expert up before
    gate, and `expert_down` (E * D, inner).
    """

    def __init__(self, config: ModelConfig, experts: Experts) -> None:
        super().__init__()
        inner, width = experts.inner or config.inner, config.shape.width
        self.experts, self.activation = experts, config.feed_forward.activation
        self.router = Router(config, experts)
        self.expert_up_gate = nn.Parameter(torch.empty(experts.count * 2 * inner, width))
        self.expert_down = nn.Parameter(torch.empty(experts.count * width, inner))
        self.shared = GatedFeedForward(config, experts.shared * inner) if experts.shared else None

    def forward(self, states: Tensor, heard: list[Routing] | None = None) -> Tensor:
        """(N, D) to (N, D); the routing is added to what was `heard`."""
        routing = self.router(states)
        if heard is not None:
            heard.append(routing)
        mixed = self._sent(states, routing)
        return mixed if self.shared is None else mixed + self.shared(states)

    def _sent(self, states: Tensor, routing: Routing) -> Tensor:
        """Each token through its own experts: (N, D) to (N, D)."""
        count, active = self.experts.count, self.experts.active
        # 1. group the (token, choice) pairs by expert
        flat = routing.chosen.flatten()
        order = flat.argsort(stable=True)
        loads = torch.bincount(flat, minlength=count).tolist()
        tokens = order // active
        weights = routing.weights.flatten().index_select(0, order).to(states.dtype).unsqueeze(-1)
        entering = states.index_select(0, tokens)
        if self.experts.weighs == "inputs":
            entering = entering * weights
        # 2. one product for each expert that somebody chose
        ups, downs = (table.unflatten(0, (count, -1)).unbind() for table in (self.expert_up_gate, self.expert_down))
        left = [self._expert(part, ups[i], downs[i]) for i, part in enumerate(entering.split(loads)) if len(part)]
        gone = torch.cat(left) if left else entering
        # 3. back to the tokens, in the order of their choices
        gone = gone if self.experts.weighs == "inputs" else gone * weights
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return gone.index_select(0, back).unflatten(0, (-1, active)).sum(dim=1)

    def everywhere(self, states: Tensor) -> Tensor:
        """The reference: every token goes through every expert, those not chosen counting nothing. (N, D) to (N, D)."""
        routing, count = self.router(states), self.experts.count
        weights = torch.zeros_like(routing.scores).scatter(1, routing.chosen, routing.weights).to(states.dtype)
        ups, downs = (table.unflatten(0, (count, -1)) for table in (self.expert_up_gate, self.expert_down))
        mixed = torch.zeros_like(states)
        for i in range(count):
            share = weights[:, i:i + 1]
            mixed = mixed + (self._expert(states * share, ups[i], downs[i]) if self.experts.weighs == "inputs"
                             else self._expert(states, ups[i], downs[i]) * share)
        return mixed if self.shared is None else mixed + self.shared(states)

    def _expert(self, states: Tensor, up_gate: Tensor, down: Tensor) -> Tensor:
        return product(gated(product(states, up_gate), self.activation), down)


def loads(heard: list[Routing], balance: float = 0.0) -> dict[str, Tensor]:
    """What the routers of one call did, as sums that may be added over calls; nothing without experts.

    Args:
        balance: coefficient of the loss that keeps experts equally busy.
    Returns:
        "router_choices": (layers, E) how often each expert was chosen.
        "router_scores": (layers, E) the sum of its scores as shares of a token's (with a gradient).
        "router_tokens": (layers,) how many tokens were sent.
        "balance": () that loss times its coefficient, where this is above 0.
    """
    if not heard:
        return {}
    count = heard[0].scores.shape[-1]
    choices = torch.stack([torch.bincount(one.chosen.flatten(), minlength=count) for one in heard])
    shares = torch.stack([(one.scores / (one.scores.sum(dim=-1, keepdim=True) + 1e-20)).sum(dim=0) for one in heard])
    tokens = torch.tensor([len(one.scores) for one in heard], device=shares.device)
    said = {"router_choices": choices, "router_scores": shares, "router_tokens": tokens}
    return {**said, "balance": balance * imbalance(said)} if balance > 0 else said


def imbalance(said: Mapping[str, Tensor]) -> Tensor:
    """E sum_i f_i P_i, the mean over layers: f_i the share of choices and P_i the mean score of expert i.

    1 when all are equally busy, E at most (Switch, arXiv 2101.03961, eq. 4, with shares over all choices of a token).

    Args:
        said: what `loads` gave.
    """
    choices, scores = said["router_choices"].float(), said["router_scores"]
    shares = choices / choices.sum(dim=1, keepdim=True).clamp(min=1)
    means = scores / said["router_tokens"].clamp(min=1).unsqueeze(1)
    return choices.shape[1] * (shares * means).sum(dim=1).mean()


@torch.no_grad()
def rebalance(routers: Sequence[Router], choices: Tensor) -> None:
    """Make experts that were chosen too often less welcome, and the others more (DeepSeek-V3, section 2.1.2).

    The corrections move by the config's `speed` against the sign of each expert's excess; no loss takes part.

    Args:
        routers: of each row of `choices`; one that stands there twice moves once, by both.
        choices: (layers, E) how often each expert was chosen, as in `Output.extras["router_choices"]`.
    """
    loads: dict[Router, Tensor] = {}
    for router, load in zip(routers, choices.float(), strict=True):
        loads[router] = loads[router] + load if router in loads else load
    for router, load in loads.items():
        if router.experts.correction:
            router.correction -= router.experts.speed * (load - load.mean()).sign()
