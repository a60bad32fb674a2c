"""The mask encoder (Sec. 4.1, App. A.1, Algorithm 1): mask tiles in, mask tokens out."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

MASK_SIZE = 448  # App. A: "the input to the mask encoder is resized to 448x448"
NUM_TOKENS = 8  # App. A; Table 5 goes up to 16
PROJECTORS = ("mlp", "linear")
CPU_PIXELS = 128 * 128  # convolved at a time on a CPU: what fits its cache is 3 times faster
MAX_PLACES = 12  # rows or columns of a tile embedding; the published maximum


class MaskEncoder(nn.Module):
    """Two 3x3 stride-2 convolutions whose channels, flattened and projected, are the tokens.

    Algorithm 1 with C = N channels: channel n of the last feature map, flattened, is what the
    projector turns into token n. The paper names a two-layer MLP and gives neither its width nor
    its activation: here the width is D and the activation GELU, as in InternVL's own two-layer
    projector. The released weights have one linear layer.

    Args:
        num_tokens: N, mask tokens per tile.
        hidden_size: D, the language model's hidden size.
        mask_size: S, side of a mask tile in pixels.
        projector: "mlp" (paper) or "linear" (released weights).
        tile_embedding: ours, not the paper's: add a trainable embedding of a tile's row and column
            to its tokens. It starts at zero, so that an untrained encoder is the paper's.

    Raises:
        ValueError: a projector that does not exist.
    """

    def __init__(
        self,
        num_tokens: int = NUM_TOKENS,
        hidden_size: int = 4096,
        mask_size: int = MASK_SIZE,
        projector: str = "mlp",
        tile_embedding: bool = False,
    ):
        super().__init__()
        if projector not in PROJECTORS:
            raise ValueError(f"projector must be one of {', '.join(PROJECTORS)}, got {projector!r}")
        self.num_tokens, self.hidden_size, self.mask_size = num_tokens, hidden_size, mask_size
        halve = {"kernel_size": 3, "stride": 2, "padding": 1}
        self.conv1 = nn.Conv2d(1, num_tokens, **halve)
        self.conv2 = nn.Conv2d(num_tokens, num_tokens, **halve)
        features = (-(-mask_size // 4)) ** 2  # each convolution halves the side, rounding up
        if projector == "linear":
            self.projector = nn.Linear(features, hidden_size)
        else:
            self.projector = nn.Sequential(
                nn.Linear(features, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size)
            )
        self.rows = _place_embedding(hidden_size) if tile_embedding else None
        self.columns = _place_embedding(hidden_size) if tile_embedding else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights anew."""
        for layer in self.modules():
            init_layer(layer)

    def encode(self, tiles: torch.Tensor) -> torch.Tensor:
        """Algorithm 1 on every tile: (M, 1, S, S) -> (M, N, D)."""
        tiles = tiles.to(self.conv1.weight.dtype)
        parts = [tiles]
        if tiles.device.type == "cpu" and not torch.compiler.is_compiling():
            parts = tiles.split(max(1, CPU_PIXELS // self.mask_size**2))
        # (M, 1, S, S) -> (M, N, S/2, S/2) -> (M, N, S/4, S/4)
        maps = [functional.relu(self.conv2(functional.relu(self.conv1(part)))) for part in parts]
        return self.projector(torch.cat(maps).flatten(2))  # -> (M, N, S/4 * S/4) -> (M, N, D)

    def forward(
        self,
        tiles: torch.Tensor,
        places: torch.Tensor | None = None,
        index: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Encode mask tiles (Eq. 1).

        Blank tiles, most tiles of a small region, are encoded once: outputs and gradients are the
        same up to rounding.

        Args:
            tiles: (M, 1, S, S), any real dtype; the values are used as they are. With `index`,
                (K, 1, S, S): each distinct tile once (`ureca_lib.tiling.MaskTiles`).
            places: (M, 2) int64, the row and column of each tile as `tile_places` has them;
                required by an encoder with a tile embedding.
            index: (M,) int64 into `tiles`.

        Returns:
            (M, N, D), of the parameters' dtype, or autocast's where it is on.

        Raises:
            ValueError: another shape, or no places where they are needed.
        """
        if tiles.shape[1:] != (1, self.mask_size, self.mask_size):
            raise ValueError(
                f"mask tiles must be (M, 1, {self.mask_size}, {self.mask_size}), got "
                f"{tuple(tiles.shape)}"
            )
        # a compiled model has fixed shapes, and tiles that share a code would share its gradient
        alone = torch.compiler.is_compiling() or tiles.is_meta or tiles.requires_grad
        if index is None and not alone:
            kept, index = distinct_tiles(tiles)
            tiles = tiles[kept]
        tokens = self.encode(tiles)
        if index is not None:
            tokens = tokens.index_select(0, index)  # (K, N, D) -> (M, N, D)
        if self.rows is None:
            return tokens
        if places is None or places.shape != (len(tokens), 2):
            raise ValueError(
                f"an encoder with a tile embedding needs the places of its {len(tokens)} tiles, "
                f"({len(tokens)}, 2), got {None if places is None else tuple(places.shape)}"
            )
        place = self.rows(places[:, 0]) + self.columns(places[:, 1])  # (M, 2) -> (M, D)
        return tokens + place[:, None].to(tokens.dtype)


def init_layer(layer: nn.Module) -> None:
    """Draw a layer's weights: Xavier normal (App. A.1); biases and embeddings are zero."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.Embedding):
        nn.init.zeros_(layer.weight)


def _place_embedding(hidden_size: int) -> nn.Embedding:
    """An embedding of rows or columns, made without a random draw, so that a seed gives the same
    encoder with and without it."""
    return nn.Embedding.from_pretrained(torch.zeros(MAX_PLACES + 1, hidden_size), freeze=False)


def distinct_tiles(tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the distinct tiles to encode: blank tiles share one code.

    Args:
        tiles: (M, ...) of any real dtype.

    Returns:
        kept, (K,) int64 indices of the tiles to encode, and index, (M,) int64 into `kept`.
    """
    blank = (tiles == 0).flatten(1).all(1)  # (M, 1, S, S) -> (M,)
    keep, first = ~blank, blank.nonzero()[:1, 0]
    keep[first] = True  # the first blank tile stands for the others
    index = keep.cumsum(0) - 1
    return keep.nonzero()[:, 0], torch.where(blank, index[first].sum(), index)
