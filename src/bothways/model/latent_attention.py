"""Multi-head latent attention: keys and values are made of one small vector a token, and only that one is cached.

DeepSeek-V2 (arXiv 2405.04434, section 2.1): c = norm(W_c h) is the latent, k_r = turn(W_r h) a rotary key that all
heads share; a head's key is (W_k c, k_r) and its value W_v c. A cache keeps c and k_r.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bothways.model.attention import Kept, attend
from bothways.model.config import LatentHeads, ModelConfig
from bothways.model.explicit import Turn
from bothways.model.mixer import Places, scoring
from bothways.model.norm import RMSNorm
from bothways.model.position import rotate
from bothways.model.product import Linear
from bothways.model.render import Plan
from bothways.model.stores import Store

EPSILON = 1e-6
"""Of the norms of latents, whatever the other norms have (as published)."""


class LatentAttention(nn.Module):
    """Tokens look at tokens of their own row by way of latents.

    `kv_latent` makes the latent, then the rotary key; `kv` makes of a latent each head's key, then its value; `q` makes
    each head's query, its turned part last, of the states or of their own latent.
    """

    absorbs = True
    """Whether a few new tokens look at kept latents as they lie there, instead of making keys and values of them."""

    def __init__(self, config: ModelConfig, latent: LatentHeads) -> None:
        super().__init__()
        self.config, self.heads, self.rank, self.turned = config, config.shape.heads, latent.keys, latent.rotary
        self.plain, self.value = config.head_size - latent.rotary, latent.values or config.head_size
        width, biased = config.shape.width, config.biased("queries")
        self.q_latent = None if latent.queries is None else Linear(width, latent.queries, bias=biased)
        self.q_norm = None if latent.queries is None else RMSNorm(latent.queries, EPSILON)
        self.q = Linear(latent.queries or width, self.heads * config.head_size, bias=False)
        self.kv_latent = Linear(width, self.rank + self.turned, bias=biased)
        self.kv_norm = RMSNorm(self.rank, EPSILON)
        self.kv_open = Linear(self.rank, self.heads * (self.plain + self.value), bias=False)
        self.out = Linear(self.heads * self.value, width, bias=config.biased("attention"))

    def forward(self, states: Tensor, plan: Plan, places: Places, store: Store | None = None,
                rows: Tensor | None = None, asking: Tensor | None = None) -> Tensor:
        """(N, D) to (N, D); with a store, tokens also look at those of earlier calls; with `rows`, only they look.

        `asking` are other states that the same tokens' queries are made of.
        """
        assert places.turn is not None
        cosine, sine = places.turn
        latents = self._latents(states, places.turn)
        fewer = rows is not None or asking is not None
        chosen = asking if asking is not None else states if rows is None else states.index_select(0, rows)
        turn = (cosine, sine) if rows is None else (cosine.index_select(0, rows), sine.index_select(0, rows))
        queries = self._queries(chosen, turn)
        kept = None if store is None else store.extend(latents, latents)
        if store is None or store.first or kept is None:
            read = self._among(queries, latents, plan, fewer)
        elif self._pays(plan):
            read = self._absorbed(queries, kept.keys, plan)
        else:
            read = self._opened(queries, kept.keys, plan)
        return self.out(read.flatten(-2))

    def _queries(self, states: Tensor, turn: Turn) -> Tensor:
        """(N, H, head size), turned."""
        if self.q_latent is not None and self.q_norm is not None:
            states = self.q_norm(self.q_latent(states))
        plain, turned = self.q(states).unflatten(-1, (self.heads, -1)).split([self.plain, self.turned], dim=-1)
        return torch.cat((plain, rotate(turned, turn)), dim=-1)

    def _latents(self, states: Tensor, turn: Turn) -> Tensor:
        """(N, 1, rank + turned): the normed latent and the turned key, which is all that a cache needs."""
        latent, key = self.kv_latent(states).unsqueeze(1).split([self.rank, self.turned], dim=-1)
        return torch.cat((self.kv_norm(latent), rotate(key, turn)), dim=-1)

    def _keys_and_values(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """(..., rank + turned) to keys and values (..., H, size), filled up with zeros to one size."""
        opened = self.kv_open(latents[..., :self.rank]).unflatten(-1, (self.heads, -1))
        plain, values = opened.split([self.plain, self.value], dim=-1)
        turned = latents[..., self.rank:].unsqueeze(-2).expand(*plain.shape[:-1], -1)
        return self._filled(torch.cat((plain, turned), dim=-1)), self._filled(values)

    def _filled(self, heads: Tensor) -> Tensor:
        return F.pad(heads, (0, max(self.config.head_size, self.value) - heads.shape[-1]))

    def _among(self, queries: Tensor, latents: Tensor, plan: Plan, fewer: bool) -> Tensor:
        """What queries read of the tokens of this call: (N, H, value size)."""
        keys, values = self._keys_and_values(latents.squeeze(1))
        kind, queries = scoring(self.config, (), self.training), self._filled(queries)
        if fewer:
            return attend(queries, torch.cat((keys, values), dim=1), plan, kind)[..., :self.value]
        return attend(torch.cat((queries, keys, values), dim=1), None, plan, kind)[..., :self.value]

    def _pays(self, plan: Plan) -> bool:
        """Whether looking at latents costs no more products than making keys and values of all of them first."""
        if not self.absorbs:
            return False
        new = max((call.queries for call in plan.calls), default=1)
        return new * (2 * self.rank + self.turned - self.plain - self.value) <= self.rank * (self.plain + self.value)

    def _absorbed(self, queries: Tensor, latents: Tensor, plan: Plan) -> Tensor:
        """q' W_k c = (W_k' q)' c, and the mean of W_v c is W_v times the mean: nothing is made for a kept token.

        Args:
            latents: (B, 1, capacity, rank + turned), one head of keys that are the values too.
        """
        opening = self.kv_open.weight.unflatten(0, (self.heads, -1))
        to_keys, to_values = opening.split([self.plain, self.value], dim=1)
        plain, turned = queries.split([self.plain, self.turned], dim=-1)
        asking = torch.cat((torch.einsum("nhp,hpr->nhr", plain, to_keys), turned), dim=-1)
        read = attend(asking, Kept(latents, latents), plan, scoring(self.config, (), self.training))
        return torch.einsum("nhr,hvr->nhv", read[..., :self.rank], to_values)

    def _opened(self, queries: Tensor, latents: Tensor, plan: Plan) -> Tensor:
        """The plain form: keys and values of every kept token are made anew."""
        end = max((call.first_key + call.keys for call in plan.calls), default=0)
        keys, values = self._keys_and_values(latents[:, 0, :end])
        kept = Kept(keys.transpose(1, 2), values.transpose(1, 2))
        return attend(self._filled(queries), kept, plan, scoring(self.config, (), self.training))[..., :self.value]
