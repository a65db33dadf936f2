"""A block, and a tower of them. A tower's direction is the visibility it is called with."""

from __future__ import annotations

import functools
from typing import cast

import torch
from torch import Tensor, nn

from bothways.model.attention import Kept
from bothways.model.cache import Cache
from bothways.model.config import ModelConfig, Scaling
from bothways.model.dropout import dropout
from bothways.model.experts import MixedFeedForward, Router, Routing
from bothways.model.feed_forward import make_feed_forward
from bothways.model.latent_attention import LatentAttention
from bothways.model.mamba import MIXERS
from bothways.model.mixer import CrossAttention, Places, SelfAttention
from bothways.model.neighbours import Neighbours
from bothways.model.norm import make_norm
from bothways.model.position import (
    LearnedPositions,
    RelativeBias,
    SinusoidalPositions,
    query_growth,
    rotary_table,
)
from bothways.model.product import Linear
from bothways.model.recurrent import Lanes, State, make_lanes
from bothways.model.render import Plan, Planner
from bothways.model.stores import Store
from bothways.model.terms import DistanceTable, DistanceWaves
from bothways.visibility import Fields, Visibility


class Block(nn.Module):
    """Self-attention, cross-attention if the tower reads another one, feed-forward, with a norm before or after each.

    With norms on both sides the one behind a change has the name of its part with `_out`. A parallel block has one
    norm, and both changes are made from what it gives. The block of layer 0 may lack its first norm.
    """

    def __init__(self, config: ModelConfig, crosses: bool, layer: int = 0) -> None:
        super().__init__()
        width, experts = config.shape.width, config.experts_of(layer)
        self.place, self.dropout, self.parallel = config.norm.place, config.dropout, config.parallel
        self.attention_norm = None if layer == 0 and not config.norm.first else make_norm(config, width)
        self.attention = (SelfAttention(config, layer) if config.latent is None
                          else LatentAttention(config, config.latent))
        if crosses:
            self.cross_norm, self.cross = make_norm(config, width), CrossAttention(config)
        if not self.parallel:
            self.feed_forward_norm = make_norm(config, width)
        self.feed_forward = make_feed_forward(config) if experts is None else MixedFeedForward(config, experts)
        if self.place == "both":
            for part in ("attention", "cross", "feed_forward") if crosses else ("attention", "feed_forward"):
                self.add_module(f"{part}_norm_out", make_norm(config, width))

    def forward(self, states: Tensor, plan: Plan, places: Places, store: Store | None = None,
                across: tuple[Tensor | Kept, Plan] | None = None, rows: Tensor | None = None,
                heard: list[Routing] | None = None, asking: Tensor | None = None) -> Tensor:
        """(N, D) to (N, D).

        Args:
            across: what the other tower told, and the plan of looking there.
            heard: gets the routing of this block, if it has experts.
            rows: (R,) answer for these rows only, (R, D), everybody being looked at; the plans are then theirs.
            asking: (N, D), or (R, D) of these rows: they look, and are changed, in the stead of `states`.
        """
        kept = asking if asking is not None else states if rows is None else states.index_select(0, rows)
        ready = self._ready(states, "attention")
        asked = None if asking is None else self._ready(asking, "attention")
        change = self.attention(ready, plan, places, store, rows, asked)
        if self.parallel:
            own = asked if asked is not None else ready if rows is None else ready.index_select(0, rows)
            return kept + self._dropped(change + self._fed(own, heard))
        states = self._join(kept, change, "attention")
        if across is not None:
            states = self._join(states, self.cross(self._ready(states, "cross"), *across), "cross")
        return self._join(states, self._fed(self._ready(states, "feed_forward"), heard), "feed_forward")

    def _fed(self, ready: Tensor, heard: list[Routing] | None) -> Tensor:
        if isinstance(self.feed_forward, MixedFeedForward):
            return cast(Tensor, self.feed_forward(ready, heard))
        return cast(Tensor, self.feed_forward(ready))

    def _norm(self, name: str) -> nn.Module:
        return cast(nn.Module, getattr(self, name))

    def _ready(self, states: Tensor, part: str) -> Tensor:
        norm = None if self.place == "after" else self._norm(f"{part}_norm")
        return states if norm is None else cast(Tensor, norm(states))

    def _dropped(self, change: Tensor) -> Tensor:
        return dropout(change, self.dropout, self.training)

    def _join(self, states: Tensor, change: Tensor, part: str) -> Tensor:
        if self.place == "both":
            return states + self._dropped(self._norm(f"{part}_norm_out")(change))
        joined = states + self._dropped(change)
        return joined if self.place == "before" else cast(Tensor, self._norm(f"{part}_norm")(joined))


class RecurrentBlock(nn.Module):
    """A recurrent mixer, and a feed-forward if the config has one; a norm before each."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.mixer_norm, self.mixer = make_norm(config, config.shape.width), MIXERS[config.mixer.kind](config)
        self.feed_forward: nn.Module | None = None
        if config.feed_forward.kind != "none":
            self.feed_forward_norm = make_norm(config, config.shape.width)
            self.feed_forward = make_feed_forward(config)

    def forward(self, states: Tensor, lanes: Lanes, store: State | None = None, rows: Tensor | None = None) -> Tensor:
        """(N, D) to (N, D), or to (R, D) for these rows only."""
        change = self.mixer(self.mixer_norm(states), lanes, store)
        states = states + dropout(change, self.dropout, self.training)
        states = states if rows is None else states.index_select(0, rows)
        if self.feed_forward is None:
            return states
        return states + dropout(self.feed_forward(self.feed_forward_norm(states)), self.dropout, self.training)


class Tower(nn.Module):
    """Positions, blocks, a norm behind the embedding where it is wanted, and one behind the blocks unless theirs are.

    Where the embedding is narrower than the blocks, `entry` widens it. Layers beyond `distinct` use the weights of
    others: layer i has block i * distinct // layers, and so for runs of layers. A convolution hears neighbours beside
    the first block; a decoder asks the last one with states that know their absolute place (`decoder_position`).
    """

    def __init__(self, config: ModelConfig, layers: int, crosses: bool = False, looks_back: bool = True) -> None:
        super().__init__()
        self.config, self.layers, position, width = config, layers, config.position, config.embedding_width
        self.position: nn.Module | None = None
        if position.kind == "learned" or (position.kind == "disentangled" and position.absolute):
            self.position = LearnedPositions(position.length, width, position.offset)
        elif position.kind == "sinusoidal":
            self.position = SinusoidalPositions(width, position.base)
        elif position.kind == "relative":
            self.relative = RelativeBias(config, both_sides=not looks_back)
        self.distances = DistanceTable(config) if position.kind == "disentangled" else None
        self.waves = DistanceWaves(config) if position.kind == "transformer-xl" else None
        self.widened = width != config.shape.width and config.norm.widened
        normed = config.shape.width if self.widened else width
        self.embedding_norm = make_norm(config, normed) if config.norms_embedding else None
        self.entry = None
        if width != config.shape.width:
            self.entry = Linear(width, config.shape.width, bias=not self.widened)
        self.convolution = Neighbours(config) if config.convolution.kernel else None
        self.decoder_position = LearnedPositions(position.length, config.shape.width) if config.head.decoder else None
        self.recurrent = config.mixer.kind != "attention"
        self.blocks = nn.ModuleList(RecurrentBlock(config) if self.recurrent else Block(config, crosses, i)
                                    for i in range(min(config.distinct, layers)))
        self.norm = None if config.norm.place == "after" else make_norm(config, config.shape.width)

    def block(self, layer: int) -> Block:
        """The block whose weights layer `layer` uses."""
        return cast(Block, self.blocks[self._number(layer)])

    def _number(self, layer: int) -> int:
        """The number of the block of a layer: its run's, then its place in the run."""
        run, place = divmod(layer, self.config.shape.run)
        return run * len(self.blocks) // self.layers * self.config.shape.run + place

    def routers(self) -> list[Router]:
        """Those that are heard in one call, in their order; of a block that serves twice, twice."""
        served = [self.block(i).feed_forward for i in range(0 if self.recurrent else self.layers)]
        served += served[-1:] * max(self.config.head.decoder - 1, 0)
        return [part.router for part in served if isinstance(part, MixedFeedForward)]

    def forward(self, embedded: Tensor, fields: Fields, visibility: Visibility, planner: Planner | None,
                cache: Cache | None = None, across: list[tuple[Tensor | Kept, Plan]] | None = None,
                rows: Tensor | None = None, heard: list[Routing] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Embedded tokens (N, E) to the last states (N, D) and those before each block and behind the last.

        Args:
            fields: the tokens' own facts, on the CPU.
            visibility: who may see whom; layer i looks with `visibility & reach_i`.
            planner: renders it over the tokens; none where a cache does, over those it keeps as well.
            across: for each layer, what the other tower told and the plan of looking there.
            rows: (R,) the last block answers for these alone; last states are then (R, D).
            heard: gets the routing of each layer that has experts.
        """
        # 1. places
        if self.position is not None:
            embedded = embedded + self.position(fields["position"]).to(embedded.device, embedded.dtype)
        states = self._entered(embedded)
        hidden = [states]
        if self.recurrent:
            states = self._recur(hidden, fields, visibility, cache, rows)
            return states if self.norm is None else self.norm(states), hidden
        known: dict[tuple[float, Scaling | None] | None, Places] = {}
        # 2. blocks
        for i in range(self.layers):
            turning = self.config.turning_of(i)
            if turning not in known:
                known[turning] = self._places(states, fields["position"], turning)
            chosen = rows if i == self.layers - 1 else None
            sees = _reaching(visibility, self.config, i)
            if cache is not None:
                plan = cache.plan(i, sees)
            else:
                assert planner is not None
                plan = (planner if chosen is None else planner.only(chosen)).plan(sees)
            before = states
            if self.decoder_position is not None and i == self.layers - 1:
                states = self._decoded(states, fields["position"], plan, known[turning], chosen, heard)
            else:
                states = self.block(i)(states, plan, known[turning], None if cache is None else cache.stores[i],
                                       None if across is None else across[i], chosen, heard)
            if self.convolution is not None and i == 0:
                states = self.convolution(before, states, fields, visibility, chosen)
            hidden.append(states)
        return states if self.norm is None else self.norm(states), hidden

    def _recur(self, hidden: list[Tensor], fields: Fields, visibility: Visibility, cache: Cache | None,
               rows: Tensor | None) -> Tensor:
        """Recurrent blocks, lane by lane; each one's states are added to `hidden`."""
        states = hidden[0]
        lanes = make_lanes(fields, visibility, states.device, None if cache is None else cache.sequences)
        for i in range(self.layers):
            block = cast(RecurrentBlock, self.blocks[self._number(i)])
            store = None if cache is None else cast(State, cache.stores[i])
            states = block(states, lanes, store, rows if i == self.layers - 1 else None)
            hidden.append(states)
        return states

    def _entered(self, embedded: Tensor) -> Tensor:
        """Embedded tokens (N, E) as the first block reads them (N, D): normed and widened, in the config's order."""
        if self.widened and self.entry is not None:
            embedded = self.entry(embedded)
        states: Tensor = embedded if self.embedding_norm is None else self.embedding_norm(embedded)
        states = dropout(states, self.config.dropout, self.training)
        return states if self.entry is None or self.widened else self.entry(states)

    def _decoded(self, states: Tensor, positions: Tensor, plan: Plan, places: Places, rows: Tensor | None,
                 heard: list[Routing] | None) -> Tensor:
        """The enhanced mask decoder: places (and what they learn) ask the last block for contents (N or R, D).

        With states H before the last block and absolute places P: I_0 = H + P, I_{t+1} = block(queries I_t, keys and
        values H), `head.decoder` times (arXiv 2006.03654, section 3.2). P = 0, once, is the plain last block.
        """
        assert self.decoder_position is not None
        asking = states + self.decoder_position(positions).to(states.dtype)
        asking = asking if rows is None else asking.index_select(0, rows)
        for _ in range(self.config.head.decoder):
            asking = self.block(self.layers - 1)(states, plan, places, rows=rows, heard=heard, asking=asking)
        return asking

    def _places(self, states: Tensor, positions: Tensor, turning: tuple[float, Scaling | None] | None) -> Places:
        """What layers that turn like this know of places."""
        config = self.config
        if turning is None:
            return Places(growth=query_growth(positions, config.position.temperature, states))
        if self.distances is not None or self.waves is not None:
            # no distance is larger than the largest place; an exported graph has to be ready for all
            if torch.compiler.is_exporting():
                farthest = config.position.length
            else:
                farthest = int(positions.max()) if len(positions) else 0
            return Places(distances=self.distances(farthest) if self.distances is not None
                          else cast(DistanceWaves, self.waves)(farthest, states))
        if config.position.kind == "rotary":
            size, share = config.turned_size, config.position.share
            return Places(turn=rotary_table(positions, size, turning[0], states, share, turning[1]))
        return Places(bias=self.relative) if config.position.kind == "relative" else Places()


@functools.lru_cache(maxsize=256)
def _reaching(visibility: Visibility, config: ModelConfig, layer: int) -> Visibility:
    """Who may see whom in a layer; asked for at every step, so remembered."""
    return visibility & config.reach_of(layer)
