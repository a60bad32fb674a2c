"""The mask encoder against Algorithm 1 step by step, the published weights, and itself unshared."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from ureca_lib.mask_encoder import MaskEncoder, distinct_tiles

PUBLISHED_NAMES = {
    "mask_encoder.0": "conv1",
    "mask_encoder.2": "conv2",
    "mask_linear": "projector",
}


def encoder(
    size: int = 20,
    projector: str = "mlp",
    dtype: torch.dtype = torch.float32,
    tokens: int = 8,
    **more,
) -> MaskEncoder:
    """An encoder whose biases are not zero, so that a test can see them."""
    torch.manual_seed(0)
    made = MaskEncoder(tokens, 24, size, projector, **more)
    for name, parameter in made.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    return made.to(dtype)


def region_tiles(count: int, size: int, seed: int = 0, high: float = 1.0) -> torch.Tensor:
    """Tiles as small regions give them: most are empty, some full, a few hold an outline."""
    generator = torch.Generator().manual_seed(seed)
    tiles = torch.zeros(count, 1, size, size)
    for tile in tiles:
        kind = int(torch.randint(5, (1,), generator=generator))
        if kind == 3:
            tile.fill_(high)
        elif kind == 4:
            at = int(torch.randint(1, size, (1,), generator=generator))
            tile[..., :at, : size - at // 2] = high
    return tiles


# Algorithm 1


def convolve_by_hand(image: list, weight: torch.Tensor, bias: torch.Tensor) -> list:
    """3x3, stride 2, padding 1, then ReLU, one output pixel at a time; image[channel][y][x]."""
    side = len(image[0])
    out_side = (side + 2 - 3) // 2 + 1
    maps = []
    for kernel, offset in zip(weight.tolist(), bias.tolist(), strict=True):
        rows = []
        for y in range(out_side):
            row = []
            for x in range(out_side):
                total = offset
                for channel, plane in zip(kernel, image, strict=True):
                    for dy in range(3):
                        for dx in range(3):
                            v, u = 2 * y + dy - 1, 2 * x + dx - 1
                            if 0 <= v < side and 0 <= u < side:
                                total += channel[dy][dx] * plane[v][u]
                row.append(max(total, 0.0))
            rows.append(row)
        maps.append(rows)
    return maps


def project_by_hand(values: list[float], layer: nn.Linear) -> list[float]:
    return [
        offset + sum(w * v for w, v in zip(row, values, strict=True))
        for row, offset in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


@pytest.mark.parametrize("projector", ["mlp", "linear"])
@pytest.mark.parametrize("size", [1, 4, 5, 6, 7, 11])
def test_it_is_algorithm_1(size, projector):
    made = encoder(size, projector, torch.float64, tokens=3)
    mask = torch.rand(1, 1, size, size, dtype=torch.float64)
    maps = convolve_by_hand(mask[0].tolist(), made.conv1.weight, made.conv1.bias)
    maps = convolve_by_hand(maps, made.conv2.weight, made.conv2.bias)
    tokens = []
    for plane in maps:
        values = [value for row in plane for value in row]
        if projector == "linear":
            tokens.append(project_by_hand(values, made.projector))
            continue
        hidden = project_by_hand(values, made.projector[0])
        hidden = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in hidden]
        tokens.append(project_by_hand(hidden, made.projector[2]))
    expected = torch.tensor([tokens], dtype=torch.float64)
    assert torch.allclose(made(mask), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [56, 57, 112])
def test_it_is_algorithm_1_at_larger_sizes(size):
    made = encoder(size)
    tiles = torch.rand(4, 1, size, size)
    x = functional.conv2d(tiles, made.conv1.weight, made.conv1.bias, stride=2, padding=1).relu()
    x = functional.conv2d(x, made.conv2.weight, made.conv2.bias, stride=2, padding=1).relu()
    x = x.reshape(4, 8, -1)
    x = functional.gelu(x @ made.projector[0].weight.T + made.projector[0].bias)
    x = x @ made.projector[2].weight.T + made.projector[2].bias
    assert torch.allclose(made(tiles), x, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["internlm2", "qwen2"])
def test_published_weights_give_the_published_tokens(peer, name):
    folder = peer / "official_checkpoints" / name
    weights = {
        f"{ours}.{kind}": value
        for full, value in load_file(folder / "model.safetensors").items()
        for theirs, ours in PUBLISHED_NAMES.items()
        for kind in ("weight", "bias")
        if full == f"{theirs}.{kind}"
    }
    vectors = load_file(folder / "io.safetensors")
    tokens, hidden = vectors["mask_features"].shape[1:]
    made = MaskEncoder(tokens, hidden, vectors["mask_values"].shape[-1], "linear")
    made.load_state_dict(weights)
    found = made(vectors["mask_values"])
    assert (found - vectors["mask_features"]).abs().max() < 1e-4


def test_each_token_is_one_channel():
    made = encoder()
    tiles = torch.rand(2, 1, 20, 20)
    before = made(tiles)
    with torch.no_grad():
        made.conv2.weight[3] *= 2
    changed = (made(tiles) != before).flatten(2).any(-1)
    assert changed.tolist() == [[token == 3 for token in range(8)]] * 2


# initialisation


def test_weights_are_xavier_normal_and_biases_zero():
    torch.manual_seed(0)
    made = MaskEncoder(16, 96, 64)
    for module in (made.conv1, made.conv2, made.projector[0], made.projector[2]):
        fan_out, fan_in = module.weight.shape[0], module.weight[0].numel()
        fan_out *= module.weight[0, 0].numel() if module.weight.ndim == 4 else 1
        expected = math.sqrt(2 / (fan_in + fan_out))
        tolerance = 4 / math.sqrt(2 * module.weight.numel())  # four standard errors
        assert module.weight.std().item() == pytest.approx(expected, rel=tolerance)
        # normal, not uniform: a uniform's fourth moment is 1.8 times its variance squared
        kurtosis = (module.weight**4).mean() / (module.weight**2).mean() ** 2
        assert kurtosis > 2.2 or module.weight.numel() < 500
        assert not module.bias.any()


def test_a_reset_draws_again_from_the_seed():
    made = encoder()
    torch.manual_seed(7)
    made.reset_parameters()
    first = copy.deepcopy(made.state_dict())
    torch.manual_seed(7)
    made.reset_parameters()
    assert all(torch.equal(value, first[name]) for name, value in made.state_dict().items())
    assert not any(value.any() for name, value in first.items() if name.endswith("bias"))


def test_it_is_built_and_run_on_the_meta_device():
    with torch.device("meta"):
        made = MaskEncoder(8, 4096)
        tokens = made(torch.zeros(7, 1, 448, 448))
    assert tokens.shape == (7, 8, 4096)
    assert all(parameter.is_meta for parameter in made.parameters())
    assert sum(p.numel() for p in made.projector.parameters()) == 4096 * (112**2 + 1 + 4096 + 1)


def test_the_default_is_the_papers():
    with torch.device("meta"):
        made = MaskEncoder()
    assert (made.num_tokens, made.mask_size, len(made.projector)) == (8, 448, 3)
    assert list(dict(made.named_children())) == ["conv1", "conv2", "projector"]


# sharing


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=12), st.sampled_from([1, 255]))
def test_distinct_tiles_are_one_blank_and_every_other_tile(kinds, scale):
    patterns = torch.stack([torch.full((1, 4, 4), value) for value in (0.0, 1.0, 0.25)])
    mixed = torch.zeros(2, 1, 4, 4)
    mixed[0, 0, 0, 0] = mixed[1, 0, 3, 3] = 1
    patterns = torch.cat([patterns, mixed]) * scale
    tiles = patterns[torch.tensor(kinds, dtype=torch.long)]
    kept, index = distinct_tiles(tiles)
    assert torch.equal(tiles[kept][index], tiles)
    assert len(kept) == (0 in kinds) + sum(kind > 0 for kind in kinds)


@pytest.mark.parametrize("projector", ["mlp", "linear"])
@pytest.mark.parametrize("high", [1.0, 255.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_sharing_changes_neither_values_nor_gradients(dtype, tolerance, projector, high):
    shared = encoder(56, projector, dtype)
    alone = copy.deepcopy(shared)
    tiles = region_tiles(60, 56, high=high).to(dtype)
    assert 5 < len(distinct_tiles(tiles)[0]) < 30
    weights = torch.randn(60, 8, 24, dtype=dtype, generator=torch.Generator().manual_seed(1))
    outputs = [shared(tiles), alone.encode(tiles)]
    assert relative(*outputs) < tolerance
    for output in outputs:
        (output * weights).sum().backward()
    for (name, one), other in zip(shared.named_parameters(), alone.parameters(), strict=True):
        assert other.grad.any()
        assert relative(one.grad, other.grad) < tolerance, name


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).detach().norm() / other.detach().norm())


def test_blank_tiles_are_encoded_once():
    made, seen = encoder(), []
    made.conv1.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    tiles = torch.zeros(10, 1, 20, 20)
    tiles[1::2] = 1
    tiles[4, 0, :7] = 1
    made(tiles)
    made(torch.rand(5, 1, 20, 20))
    made.encode(tiles)
    assert seen == [7, 5, 10]


def test_tiles_with_an_index_are_those_that_it_lists():
    made = encoder()
    tiles = region_tiles(12, 20)
    index = torch.tensor([3, 0, 0, 11, 5])
    assert relative(made(tiles, index=index), made(tiles[index])) < 1e-5


def test_tiles_that_need_a_gradient_each_get_their_own():
    made = encoder(dtype=torch.float64)
    tiles = region_tiles(12, 20).double().requires_grad_()
    made(tiles)[3].sum().backward()
    assert tiles.grad[3].any()
    assert not tiles.grad[torch.arange(12) != 3].any()


@pytest.mark.parametrize("projector", ["mlp", "linear"])
def test_gradients_are_the_derivatives(projector):
    made = encoder(6, projector, torch.float64, tokens=2)
    tiles = torch.rand(3, 1, 6, 6, dtype=torch.float64)
    tiles[1:] = 1

    def run(*parameters):
        named = dict(zip(dict(made.named_parameters()), parameters, strict=True))
        return torch.func.functional_call(made, named, (tiles,))

    assert torch.autograd.gradcheck(run, tuple(made.parameters()))
    assert torch.autograd.gradcheck(made, (tiles.requires_grad_(),))


# types, devices, compilation


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float16, torch.float64])
def test_tiles_of_any_type_are_used_as_they_are(dtype):
    made = encoder()
    tiles = region_tiles(9, 20)
    assert torch.equal(made(tiles.to(dtype)), made(tiles))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
def test_half_precision_is_close(dtype, tolerance):
    made = encoder(56)
    tiles = region_tiles(9, 56)
    expected = made(tiles)
    half = copy.deepcopy(made).to(dtype)(tiles)
    assert half.dtype == dtype
    assert relative(half.float(), expected) < tolerance


def test_autocast_is_close_and_trains():
    made = encoder(56)
    tiles = region_tiles(9, 56)
    with torch.autocast("cpu", torch.bfloat16):
        output = made(tiles)
    assert output.dtype == torch.bfloat16
    assert relative(output.float(), made(tiles)) < 0.03
    output.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())


no_vectors = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="torch's inductor needs a processor with vector instructions: its C++ does not compile",
)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=no_vectors)])
def test_it_compiles_without_a_break(backend, tmp_path, monkeypatch):
    # torch reuses kernels of its cache even if ATEN_CPU_CAPABILITY now asks for other vectors
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    made = encoder()
    tiles = region_tiles(9, 20)
    compiled = torch.compile(made, backend=backend, fullgraph=True)
    assert torch.allclose(compiled(tiles), made(tiles), atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.bfloat16, 0.03), (torch.float16, 0.004)],
)
def test_a_gpu_gives_the_same(dtype, tolerance):
    made = encoder(56, dtype=torch.float64)
    tiles = region_tiles(30, 56).double()
    expected = made(tiles)
    there = copy.deepcopy(made).to("cuda", dtype)(tiles.cuda())
    assert relative(there.cpu().double(), expected) < tolerance


# bad input


def test_no_tiles_give_no_tokens():
    assert encoder()(torch.zeros(0, 1, 20, 20)).shape == (0, 8, 24)


@pytest.mark.parametrize(
    "shape", [(20, 20), (1, 20, 20), (2, 20, 20, 1), (2, 3, 20, 20), (2, 1, 20, 21)]
)
def test_tiles_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(M, 1, 20, 20\)"):
        encoder()(torch.zeros(shape))


def test_a_projector_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="mlp, linear"):
        MaskEncoder(hidden_size=8, mask_size=8, projector="mlp3")
