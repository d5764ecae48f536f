"""A small transformer, written to be read: causal on tokens, and on patches of images a vision transformer.

Pre-norm as in GPT-2 (Radford et al. 2019) and ViT (Dosovitskiy et al. 2021). An idle ``nn.Dropout`` marks each place
where people put dropout: the embedding, the attention weights (N, heads, T, T), the end of both residual branches, and
inside the MLP; ``dropout_lab.dropout.install`` puts the strategy there.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dropout_lab.models.small import require_image, require_size


class Transformer(nn.Module):
    """Blocks of attention and MLP on a residual stream, then LayerNorm and a linear head.

    Args:
        input_shape: (T,) of tokens, int64 of a vocabulary as large as ``num_classes``; or (channels, height, width) of
            an image, which is cut into patches.
        num_classes: number of outputs: for each token of the next one, or for an image.
        width: of the residual stream.
        depth: number of blocks.
        heads: of each attention.
        patch: pixels of the side of a patch.

    Raises:
        ValueError: a size that is no integer >= 1, a width that the heads don't divide, or an image that the patches
            don't.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_classes: int,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        patch: int = 2,
    ) -> None:
        super().__init__()
        for key, size in {"width": width, "depth": depth, "heads": heads, "patch": patch}.items():
            require_size(key, size)
        if width % heads:
            raise ValueError(f"model.width={width}: must be divisible by model.heads={heads}")
        self.embed: nn.Module
        if len(input_shape) == 1:
            self.embed, length, causal = nn.Embedding(num_classes, width), input_shape[0], True
        else:
            channels, *sides = require_image(input_shape)
            if sides[0] % patch or sides[1] % patch:
                raise ValueError(f"model.patch={patch}: must divide the {sides[0]}x{sides[1]} pixels of an image")
            self.embed = nn.Sequential(nn.Conv2d(channels, width, patch, patch), nn.Flatten(2), Transpose())
            length, causal = (sides[0] // patch) * (sides[1] // patch), False
        self.position = nn.Parameter(torch.zeros(length, width))
        self.dropout = nn.Dropout(0.0)
        self.blocks = nn.Sequential(*[Block(width, heads, length, causal) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.pool = nn.Identity() if causal else Mean()
        self.classifier = nn.Linear(width, num_classes)
        self.apply(_init)
        for name, parameter in self.named_parameters():
            if name.endswith(("out.weight", "down.weight")):  # what is added to the stream: Radford et al. 2019
                nn.init.normal_(parameter, std=0.02 / (2 * depth) ** 0.5)
        nn.init.normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, T) to logits (N, T, num_classes), or images (N, *input_shape) to logits (N, num_classes)."""
        x = self.dropout(self.embed(x) + self.position)
        return self.classifier(self.pool(self.norm(self.blocks(x))))  # type: ignore[no-any-return]


class Block(nn.Module):
    """A block: attention and MLP, each after LayerNorm and added to what came in."""

    def __init__(self, width: int, heads: int, length: int, causal: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.mlp = Attention(width, heads, length, causal), MLP(width)
        self.dropout1, self.dropout2 = nn.Dropout(0.0), nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """A stream (N, T, width) to one of that shape."""
        x = x + self.dropout1(self.attention(self.norm1(x)))
        return x + self.dropout2(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Attention of several heads (Vaswani et al. 2017, section 3.2), its weights (N, heads, T, T) to be dropped.

    Written out, as torch's kernels for it draw masks of their own.
    """

    def __init__(self, width: int, heads: int, length: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.dropout = nn.Dropout(0.0)
        mask = torch.full((length, length), -torch.inf).triu(1) if causal else torch.zeros(1, 1)
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """A stream (N, T, width) to what is added to it."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        weights = self.dropout(((q * self.scale) @ k.transpose(2, 3) + self.mask).softmax(3))
        return self.out((weights @ v).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Two linear layers with GELU between them, four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.gelu, self.dropout = nn.GELU(), nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """A stream (N, T, width) to what is added to it."""
        return self.down(self.dropout(self.gelu(self.up(x))))  # type: ignore[no-any-return]


class Transpose(nn.Module):
    """Channels (N, C, T) to the last place."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T) to (N, T, C)."""
        return x.transpose(1, 2)


class Mean(nn.Module):
    """The mean over tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, T, C) to (N, C)."""
        return x.mean(1)


def _init(module: nn.Module) -> None:
    """Start small, as GPT-2 does, whose embeddings and weights have a standard deviation of 0.02."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
