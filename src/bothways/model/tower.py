"""A block, and a tower of them. A tower's direction is the visibility it is called with."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from bothways.model.attention import Kept
from bothways.model.cache import Cache, CachedPlanner, Store
from bothways.model.config import ModelConfig
from bothways.model.feed_forward import make_feed_forward
from bothways.model.mixer import CrossAttention, Places, SelfAttention
from bothways.model.norm import make_norm
from bothways.model.position import LearnedPositions, RelativeBias, SinusoidalPositions, rotary_table
from bothways.model.render import Plan, Planner
from bothways.visibility import Fields, Visibility


class Block(nn.Module):
    """Self-attention, cross-attention if the tower reads another one, feed-forward; a norm before or after each."""

    def __init__(self, config: ModelConfig, crosses: bool) -> None:
        super().__init__()
        width = config.shape.width
        self.before, self.dropout = config.norm.place == "before", config.dropout
        self.attention_norm, self.attention = make_norm(config, width), SelfAttention(config)
        if crosses:
            self.cross_norm, self.cross = make_norm(config, width), CrossAttention(config)
        self.feed_forward_norm, self.feed_forward = make_norm(config, width), make_feed_forward(config)

    def forward(self, states: Tensor, plan: Plan, places: Places, store: Store | None = None,
                across: tuple[Tensor | Kept, Plan] | None = None, rows: Tensor | None = None) -> Tensor:
        """(N, D) to (N, D).

        Args:
            across: what the other tower told, and the plan of looking there.
            rows: (R,) answer for these rows only, (R, D), everybody being looked at; the plans are then theirs.
        """
        kept = states if rows is None else states.index_select(0, rows)
        change = self.attention(self._ready(states, self.attention_norm), plan, places, store, rows)
        states = self._join(kept, change, self.attention_norm)
        if across is not None:
            states = self._join(states, self.cross(self._ready(states, self.cross_norm), *across), self.cross_norm)
        change = self.feed_forward(self._ready(states, self.feed_forward_norm))
        return self._join(states, change, self.feed_forward_norm)

    def _ready(self, states: Tensor, norm: nn.Module) -> Tensor:
        return norm(states) if self.before else states

    def _join(self, states: Tensor, change: Tensor, norm: nn.Module) -> Tensor:
        change = F.dropout(change, self.dropout, self.training) if self.dropout else change
        return states + change if self.before else norm(states + change)


class Tower(nn.Module):
    """Positions, blocks, and one norm: behind the blocks if theirs come before, behind the embedding otherwise."""

    def __init__(self, config: ModelConfig, layers: int, crosses: bool = False, looks_back: bool = True) -> None:
        super().__init__()
        self.config, position = config, config.position
        self.position: nn.Module | None = None
        if position.kind == "learned":
            self.position = LearnedPositions(position.length, config.shape.width)
        elif position.kind == "sinusoidal":
            self.position = SinusoidalPositions(config.shape.width, position.base)
        elif position.kind == "relative":
            self.relative = RelativeBias(config, both_sides=not looks_back)
        self.blocks = nn.ModuleList(Block(config, crosses) for _ in range(layers))
        self.norm = make_norm(config, config.shape.width)

    def forward(self, embedded: Tensor, fields: Fields, visibility: Visibility, planner: Planner | CachedPlanner,
                cache: Cache | None = None, across: list[tuple[Tensor | Kept, Plan]] | None = None,
                rows: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Embedded tokens (N, D) to the last states (N, D) and those before each block and behind the last.

        Args:
            fields: the tokens' own facts, on the CPU.
            visibility: who may see whom; layer i looks with `visibility & reach_i`.
            planner: renders it over the tokens (and those a cache keeps).
            across: for each block, what the other tower told and the plan of looking there.
            rows: (R,) the last block answers for these alone; last states are then (R, D).
        """
        # 1. places
        states, places = self._place(embedded, fields["position"])
        before = self.config.norm.place == "before"
        states = states if before else self.norm(states)
        states = F.dropout(states, self.config.dropout, self.training)
        # 2. blocks
        hidden = [states]
        for i, block in enumerate(self.blocks):
            chosen = rows if i == len(self.blocks) - 1 else None
            plan = (planner if chosen is None else planner.only(chosen)).plan(visibility & self.config.reach_of(i))
            states = block(states, plan, places, None if cache is None else cache.stores[i],
                           None if across is None else across[i], chosen)
            hidden.append(states)
        return self.norm(states) if before else states, hidden

    def _place(self, states: Tensor, positions: Tensor) -> tuple[Tensor, Places]:
        config = self.config
        if config.position.kind == "rotary":
            return states, Places(turn=rotary_table(positions, config.head_size, config.position.base, states))
        if config.position.kind == "relative":
            return states, Places(bias=self.relative)
        if self.position is not None:
            return states + self.position(positions).to(states.device, states.dtype), Places()
        return states, Places()
