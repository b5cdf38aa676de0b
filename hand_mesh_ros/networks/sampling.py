"""Masking of pose tokens in training, and their confidence-guided sampling.

Sources: arXiv 2412.13393; the schedule and the iterations are those of H. Chang et al., "MaskGIT", 2022.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from hand_mesh_ros.networks.context import HandContext
from hand_mesh_ros.networks.maskhand import Decoded
from hand_mesh_ros.networks.skeleton_graph import HandCues


class SampledTokens(NamedTuple):
    """Poses sampled for each of B hands: M hypotheses of N tokens."""

    tokens: Tensor  #: (B,M,N) int64
    probabilities: Tensor  #: (B,M,N) of each token in the iteration that chose it
    logits: Tensor  #: (B,M,N,codes) of that iteration
    features: Tensor  #: (B,M,N,C) of that iteration
    landmarks: Tensor  #: (B,M,21,3) of the last iteration


def random_masks(hands: int, tokens: int, generator: torch.Generator) -> Tensor:
    """Masks (B,N) bool for training, on the generator's device: ceil(cos(pi u / 2) N) tokens, u ~ U(0,1)."""
    device = generator.device
    ratios = torch.rand(hands, generator=generator, device=device)
    counts = (torch.cos(ratios * (math.pi / 2)) * tokens).ceil()
    ranks = torch.rand(hands, tokens, generator=generator, device=device).argsort(dim=1).argsort(dim=1)
    return ranks < counts[:, None]


def masked_counts(tokens: int, steps: int) -> list[int]:
    """How many tokens are still masked after each iteration, by the cosine schedule; 0 after the last.

    :raises ValueError: no steps.
    """
    if steps < 1:
        raise ValueError(f'{steps} iterations of sampling: must be at least 1')
    counts = [math.floor(math.cos(math.pi / 2 * step / steps) * tokens) for step in range(1, steps)]
    return [*counts, 0]


@torch.no_grad()
def sample_tokens(
    decoder: Callable[[HandContext, Tensor, Tensor], Decoded],
    context: HandContext,
    steps: int = 5,
    hypotheses: int = 1,
    temperature: float = 0.0,
    generator: torch.Generator | None = None,
) -> SampledTokens:
    """Tokens from a fully masked start: each iteration keeps the most confident and masks the rest again.

    :param decoder: a ``TokenDecoder``, or what runs it.
    :param steps: iterations T, at least 1.
    :param hypotheses: M; they differ only at a temperature above zero.
    :param temperature: 0 takes the likeliest code, else codes are drawn from softmax(logits / temperature);
        a pose of drawn codes is that of ``tokens``, not of the logits' mixtures.
    :param generator: of the draws, on the context's device.
    """
    context = repeated_context(context, hypotheses)
    hands, device = context.betas.shape[0], context.betas.device
    count = context.references.shape[1] - context.cue_tokens.shape[1]
    tokens = torch.zeros(hands, count, dtype=torch.int64, device=device)
    masked = torch.ones(hands, count, dtype=torch.bool, device=device)
    chosen = None
    for remaining in masked_counts(count, steps):
        logits, features, landmarks = decoder(context, tokens, masked)
        codes = _draw(logits, temperature, generator)
        probabilities = logits.float().softmax(dim=-1).gather(-1, codes[..., None]).squeeze(-1)
        new = SampledTokens(codes, probabilities, logits, features, landmarks)
        chosen = new if chosen is None else _updated(chosen, new, masked)
        tokens = chosen.tokens
        if remaining:
            masked = masked & (probabilities <= _lowest(probabilities.masked_fill(~masked, 2.0), remaining))
    assert chosen is not None  # the schedule has at least one step
    return SampledTokens(*(t.unflatten(0, (-1, hypotheses)) for t in chosen))


def repeated_context(context: HandContext, times: int) -> HandContext:
    """Each hand of the context, that many times in a row."""
    if times == 1:
        return context

    def repeated(tensor: Tensor) -> Tensor:
        return tensor.repeat_interleave(times, dim=0)

    c = context
    return HandContext(
        cues=HandCues(*map(repeated, c.cues)),
        disagreement=repeated(c.disagreement),
        cue_tokens=repeated(c.cue_tokens),
        proposal=repeated(c.proposal),
        prior=repeated(c.prior),
        codes=c.codes,
        references=repeated(c.references),
        values=tuple(map(repeated, c.values)),
        finest_map=repeated(c.finest_map),
        heatmaps=repeated(c.heatmaps),
        betas=repeated(c.betas),
        camera=repeated(c.camera),
    )


def _draw(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """Codes (B,N) by the Gumbel-max trick: TensorRT has no Multinomial."""
    if temperature == 0.0:
        return logits.argmax(dim=-1)
    noise = torch.empty_like(logits, dtype=torch.float32).exponential_(generator=generator).log()
    return (logits / temperature - noise).argmax(dim=-1)


def _updated(old: SampledTokens, new: SampledTokens, masked: Tensor) -> SampledTokens:
    """The new tokens where they were masked, the old ones elsewhere."""
    wide = masked[..., None]
    return SampledTokens(
        tokens=torch.where(masked, new.tokens, old.tokens),
        probabilities=torch.where(masked, new.probabilities, old.probabilities),
        logits=torch.where(wide, new.logits, old.logits),
        features=torch.where(wide, new.features, old.features),
        landmarks=new.landmarks,
    )


def _lowest(probabilities: Tensor, count: int) -> Tensor:
    """(B,1) the greatest of that many lowest probabilities (B,N)."""
    return probabilities.topk(count, dim=-1, largest=False).values[:, -1:]
