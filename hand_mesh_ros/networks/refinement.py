"""Blocks of the transformer: attention along the hand's skeleton, and the synthesis from image features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from hand_mesh_ros.networks.deformable_attention import DeformableAttention, PyramidShapes
from hand_mesh_ros.networks.skeleton_graph import joint_distances

#: Hidden units of a feed-forward layer to one of its input; channels to one of a squeeze-and-excite gate.
_EXPANSION, _SQUEEZE = 4, 4


class Attention(nn.Module):
    """Multi-head attention of queries over a context."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.queries = nn.Linear(width, width)
        self.keys_values = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, context: Tensor, bias: Tensor | None = None) -> Tensor:
        """(B,Q,C) of queries (B,Q,C) over context (B,S,C); bias (heads,Q,S) is added to the scores."""
        q = self._split(self.queries(queries))
        k, v = (self._split(part) for part in self.keys_values(context).chunk(2, dim=-1))
        on_cpu = q.device.type == 'cpu'
        if on_cpu:  # in half precision several times slower there than in float32
            q, k, v = q.float(), k.float(), v.float()
        mask = None if bias is None else bias[None].to(q.dtype)
        with torch.autocast(q.device.type, enabled=torch.is_autocast_enabled(q.device.type) and not on_cpu):
            attended = scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(attended.transpose(1, 2).flatten(2))

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class FeedForward(nn.Sequential):
    """Two layers on each token by itself."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Linear(width, _EXPANSION * width), nn.GELU(), nn.Linear(_EXPANSION * width, width)
        )


class RefinementBlock(nn.Module):
    """Anatomical refinement: attention that knows the skeleton, then convolution along the tokens.

    How far apart two tokens' joints are on the skeleton moves their attention score by a learned amount
    (C. Ying et al., "Do transformers really perform badly for graph representation?", 2021). The
    convolution's channels are gated by squeeze and excitation.
    """

    distances: Tensor

    def __init__(self, width: int, heads: int, token_joints: Sequence[int]) -> None:
        """:param token_joints: the hand model's joint that each token belongs to."""
        super().__init__()
        with torch.device('cpu'):  # also where the rest is built without memory: they are looked at
            joints = torch.tensor(token_joints)
            distances = joint_distances()
        self.register_buffer('distances', distances[joints[:, None], joints], persistent=False)
        self.nearness = nn.Parameter(torch.zeros(heads, int(distances.max()) + 1))
        self.attention_norm, self.convolution_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.along_tokens = nn.Conv1d(width, width, kernel_size=3, padding=1, groups=width)
        self.squeeze, self.excite = nn.Linear(width, width // _SQUEEZE), nn.Linear(width // _SQUEEZE, width)
        self.mix = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B,S,C) of tokens (B,S,C)."""
        normal = self.attention_norm(tokens)
        # Not [:, distances], which exporters make an operator of that engines are slow at
        bias = self.nearness.index_select(1, self.distances.flatten()).unflatten(1, self.distances.shape)
        tokens = tokens + self.attention(normal, normal, bias=bias)
        normal = self.convolution_norm(tokens)
        spread = gelu(self.along_tokens(normal.transpose(1, 2)).transpose(1, 2))
        gate = self.excite(gelu(self.squeeze(spread.mean(dim=1, keepdim=True)))).sigmoid()
        return tokens + self.mix(spread * gate)


class SynthesizerBlock(nn.Module):
    """Self-attention, deformable attention to the image's maps, feed-forward layer."""

    def __init__(self, width: int, heads: int, shapes: PyramidShapes, points: int) -> None:
        super().__init__()
        self.self_norm, self.cross_norm, self.out_norm = (nn.LayerNorm(width) for _ in range(3))
        self.self_attention = Attention(width, heads)
        self.cross_attention = DeformableAttention(width, heads, shapes, points)
        self.feed_forward = FeedForward(width)

    def forward(self, tokens: Tensor, references: Tensor, values: Tensor) -> Tensor:
        """(B,S,C) of tokens (B,S,C); references (B,S,2) and values as ``DeformableAttention`` has them."""
        normal = self.self_norm(tokens)
        tokens = tokens + self.self_attention(normal, normal)
        tokens = tokens + self.cross_attention(self.cross_norm(tokens), references, values)
        return tokens + self.feed_forward(self.out_norm(tokens))
