"""The mask encoder (Sec. 4.1, App. A.1, Algorithm 1): mask tiles in, mask tokens out."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

MASK_SIZE = 448  # App. A: "the input to the mask encoder is resized to 448x448"
NUM_TOKENS = 8  # App. A; Table 6 goes up to 16
CPU_PIXELS = 128 * 128  # convolved at a time on a CPU: what fits its cache is 3 times faster
PROJECTORS = ("mlp", "linear")
MOST_PLACES = 12  # rows or columns of a grid that a tile embedding knows; the published most


class HalvingConv(nn.Conv2d):
    """Algorithm 1's convolution: 3x3, stride 2, padding 1.

    On a CPU, where float32 weights learn, it computes in float64: a weight's gradient is a sum over
    every pixel of every tile, of which float32 gets five digits, and which five would depend on
    the tiles that are shared.

    Args:
        in_channels, out_channels: of the maps.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=3, stride=2, padding=1)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """(M, in, H, W) -> (M, out, H / 2, W / 2), sides rounded up."""
        if not self._in_double(maps):
            return super().forward(maps)
        weight, bias = self.weight.double(), self.bias.double()
        return functional.conv2d(maps.double(), weight, bias, self.stride, self.padding).float()

    def _in_double(self, maps: torch.Tensor) -> bool:
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        single = maps.dtype == self.weight.dtype == torch.float32
        plain = not (torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling())
        return learns and single and plain and maps.device.type == "cpu"


class MaskEncoder(nn.Module):
    """Two 3x3 stride-2 convolutions whose channels, flattened and projected, are the tokens.

    Algorithm 1 with C = N channels: channel n of the last feature map, flattened, is what the
    projector turns into token n. The paper names a two-layer MLP and gives neither its width nor
    its activation: here the width is D and the activation GELU, as in InternVL's own two-layer
    projector. The released weights have one linear layer.

    Args:
        num_tokens: N, mask tokens a tile.
        hidden_size: D, the language model's hidden size.
        mask_size: S, side of a mask tile in pixels.
        projector: "mlp" (paper) or "linear" (released weights).
        share_uniform_tiles: encode tiles of one constant value (most tiles of a small region)
            once for each value. Outputs and the parameters' gradients are the same up to the order
            in which sums are rounded. It reads the number of distinct tiles back from the device,
            one synchronisation a call on CUDA, and steps aside where that is not possible or
            would lose something: while compiling or exporting, on the meta device, and where the
            tiles themselves need a gradient.
        tile_embedding: ours, not the paper's: add to a tile's tokens what is learnt of its row and
            of its column. They begin as zeros, so that an untrained encoder is the paper's.

    Raises:
        ValueError: a size below 1, or a projector that does not exist.
    """

    def __init__(
        self,
        num_tokens: int = NUM_TOKENS,
        hidden_size: int = 4096,
        mask_size: int = MASK_SIZE,
        projector: str = "mlp",
        share_uniform_tiles: bool = True,
        tile_embedding: bool = False,
    ):
        super().__init__()
        if min(num_tokens, hidden_size, mask_size) < 1:
            raise ValueError(
                f"num_tokens, hidden_size and mask_size must be at least 1, got {num_tokens}, "
                f"{hidden_size} and {mask_size}"
            )
        if projector not in PROJECTORS:
            raise ValueError(f"projector must be one of {', '.join(PROJECTORS)}, got {projector!r}")
        self.num_tokens, self.hidden_size, self.mask_size = num_tokens, hidden_size, mask_size
        self.share_uniform_tiles = share_uniform_tiles
        self.conv1 = HalvingConv(1, num_tokens)
        self.conv2 = HalvingConv(num_tokens, num_tokens)
        features = self.map_size**2
        if projector == "linear":
            self.projector = nn.Linear(features, hidden_size)
        else:
            self.projector = nn.Sequential(
                nn.Linear(features, hidden_size), nn.GELU(), nn.Linear(hidden_size, hidden_size)
            )
        self.rows = self.columns = None
        if tile_embedding:
            self.rows, self.columns = _zeros(hidden_size), _zeros(hidden_size)
        self.reset_parameters()

    @property
    def map_size(self) -> int:
        """Side of the last feature map: each convolution halves, rounding up."""
        return -(-self.mask_size // 4)

    def reset_parameters(self) -> None:
        """Xavier normal for every convolution and linear layer (App. A.1); all else is zero."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.zeros_(module.weight)

    def forward(self, tiles: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
        """Encode mask tiles (Eq. 1).

        Args:
            tiles: (M, 1, S, S), any real dtype; the values are used as they are given.
            places: (M, 2) int64, the row and column of each tile as `tile_places` has them; used
                by an encoder with a tile embedding, which needs them.

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
        tokens = self._encode_shared(tiles)
        if self.rows is None:
            return tokens
        if places is None or places.shape != (len(tiles), 2):
            raise ValueError(
                f"an encoder with a tile embedding needs the places of its {len(tiles)} tiles, "
                f"({len(tiles)}, 2), got {None if places is None else tuple(places.shape)}"
            )
        place = self.rows(places[:, 0]) + self.columns(places[:, 1])  # (M, 2) -> (M, D)
        return tokens + place[:, None].to(tokens.dtype)

    def _encode_shared(self, tiles: torch.Tensor) -> torch.Tensor:
        if not self._can_share(tiles):
            return self.encode(tiles)
        kept, index = distinct_tiles(tiles)
        if len(kept) == len(tiles):
            return self.encode(tiles)
        return self.encode(tiles[kept]).index_select(0, index)

    def encode(self, tiles: torch.Tensor) -> torch.Tensor:
        """Algorithm 1 on every tile: (M, 1, S, S) -> (M, N, D)."""
        tiles = tiles.to(self.conv1.weight.dtype)
        if tiles.device.type == "cpu" and not torch.compiler.is_compiling():
            parts = tiles.split(max(1, CPU_PIXELS // self.mask_size**2))
            x = torch.cat([self._feature_maps(part) for part in parts])
        else:
            x = self._feature_maps(tiles)
        return self.projector(x.flatten(2))  # (M, N, S/4, S/4) -> (M, N, S/4 * S/4) -> (M, N, D)

    def _feature_maps(self, tiles: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.conv1(tiles))  # (M, 1, S, S) -> (M, N, S/2, S/2)
        return functional.relu(self.conv2(x))  # -> (M, N, S/4, S/4)

    def _can_share(self, tiles: torch.Tensor) -> bool:
        if not self.share_uniform_tiles or len(tiles) < 2 or torch.compiler.is_compiling():
            return False
        # a tile that was encoded for another would keep the other's share of the gradient
        return not (tiles.is_meta or (tiles.requires_grad and torch.is_grad_enabled()))


def _zeros(hidden_size: int) -> nn.Embedding:
    """An embedding of every row or column, made without a draw: a seed gives the same encoder."""
    return nn.Embedding.from_pretrained(torch.zeros(MOST_PLACES + 1, hidden_size), freeze=False)


def distinct_tiles(tiles: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which tiles to encode, and where each tile finds its code.

    Constant tiles of one value are one; all others stand for themselves, even where two are alike.

    Args:
        tiles: (M, ...) of any real dtype.

    Returns:
        kept, (K,) int64 indices of the tiles to encode, and index, (M,) int64 into `kept`.
    """
    flat = tiles.flatten(1)  # (M, 1, S, S) -> (M, S * S)
    low, high = flat.amin(1), flat.amax(1)
    own = torch.arange(len(tiles), device=tiles.device)
    # sorted by (constant or not, value), equal constants are neighbours; stable: the first leads
    order = torch.argsort(low, stable=True)
    order = order[torch.argsort((low != high)[order].to(torch.uint8), stable=True)]
    same = torch.zeros_like(own, dtype=torch.bool)
    same[1:] = ((low == high)[order] & (low[order] == low[order].roll(1)))[1:]
    group = torch.cumsum(~same, 0) - 1
    index = torch.empty_like(group)
    index[order] = group
    return order[~same], index
