"""The transformer: against dense attention, closed formulas and the public osu-diffusion."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from checkpoint import load_model
from conventions.point_types import PointType
from diffusion.guidance import guided_network
from models import (
    ARCHITECTURES,
    NUM_TYPES,
    SIZES,
    Conditions,
    Context,
    DiT,
    DiT_models,
    DiTConfig,
    banded_attention,
    make_context,
    rotary_table,
    rotate,
    sinusoidal_embedding,
    size_name,
)

FOLDER = os.environ.get("OSU_DIFFUSION_REFERENCE")
needs_reference = pytest.mark.skipif(
    not FOLDER, reason="OSU_DIFFUSION_REFERENCE names no folder with osu_diffusion_tiny.pt"
)

HOURS = 10 * 3_600_000
LENGTHS = [
    *((1, length) for length in (1, 2, 5, 64, 65, 130)),
    *((3, length) for length in (2, 3, 4, 7, 61, 67, 128)),
    *((16, length) for length in (15, 16, 17, 31, 33, 80)),
    *((64, length) for length in (1, 63, 64, 65, 127, 128, 129, 200)),
    *((70, length) for length in (69, 71, 139, 140, 141, 211)),
    *((500, length) for length in (1, 3, 130)),
]


def test_every_type_of_data_point_has_its_input() -> None:
    assert len(PointType) == NUM_TYPES


def test_windows_are_cut_from_conditions_and_padded() -> None:
    known = torch.full((1, 5, 2), torch.nan)
    known[0, 3] = 1.0
    given = Conditions(
        torch.tensor([[0.0, 10.0, 30.0, 60.0, 100.0]], dtype=torch.float64),
        torch.arange(5.0)[None],
        torch.arange(5, dtype=torch.uint8)[None] + 4,
        torch.tensor([2]),
        known=known,
    )
    inside, beyond = given.window(1, 3), given.window(3, 3)
    assert inside.times.tolist() == [[0, 20, 50]] and beyond.times.tolist() == [[0, 40, 40]]
    assert inside.types.tolist() == [[5, 6, 7]] and beyond.types.tolist() == [[7, 8, 0]]
    batch = Conditions.cat([inside, beyond])
    assert batch.distances.tolist() == [[1, 2, 3], [3, 4, 0]]
    assert batch.classes.tolist() == [2, 2]
    assert batch.valid is not None and batch.known is not None
    assert batch.valid.tolist() == [[True] * 3, [True, True, False]]
    assert batch.known[:, :, 0].isnan().tolist() == [[True, True, False], [False, True, False]]
    assert given.times.tolist() == [[0, 10, 30, 60, 100]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny_config(**options: object) -> DiTConfig:
    """A model of 32 channels that has every part a large one has."""
    values = {"width": 32, "depth": 2, "heads": 2, "num_classes": 3, "half_window": 4}
    return DiTConfig.from_dict({**values, **ARCHITECTURES["local"], **options})


def randomised(config: DiTConfig) -> DiT:
    """A model whose every parameter is random: freshly initialised ones put out zero."""
    model = DiT(config)
    generator = seeded(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2, generator=generator)
    return model.eval()


def inputs(n: int = 2, length: int = 30) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x, noise labels, integer times in ms, distances and types of a made-up batch."""
    generator = seeded(2)
    x = torch.randn(n, length, 2, generator=generator)
    noise = torch.randn(n, generator=generator) * 100
    times = torch.randint(1, 400, (n, length), generator=generator).cumsum(1)
    distances = torch.rand(n, length, generator=generator) * 300
    types = torch.randint(0, NUM_TYPES, (n, length), generator=generator)
    return x, noise, times, distances, types


def random_qkv(length: int) -> list[Tensor]:
    """q, k, v (2, 3, T, 8) in float64, with gradients."""
    generator = seeded(length)
    shape = (2, 3, length, 8)
    draws = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    return [draw.requires_grad_() for draw in draws]


def dense_attention(
    q: Tensor, k: Tensor, v: Tensor, half_window: int, valid: Tensor | None
) -> Tensor:
    """Softmax attention over all pairs, with the band's rule written out pair by pair."""
    length = q.shape[2]
    rows = [[i - half_window < j <= i + half_window for j in range(length)] for i in range(length)]
    seen = torch.tensor(rows)[None, None]
    if valid is not None:
        seen = seen & valid[:, None, None, :] | torch.eye(length, dtype=torch.bool)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return scores.masked_fill(~seen, -math.inf).softmax(-1) @ v


def padding(length: int) -> Tensor:
    """valid (2, T): the first sequence is whole, of the second a third is padding."""
    valid = torch.ones(2, length, dtype=torch.bool)
    valid[1, length - length // 3 :] = False
    return valid


# --- attention ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("half_window", "length"), LENGTHS)
@pytest.mark.parametrize("padded", [False, True])
def test_banded_attention_and_its_gradients_equal_dense_attention(
    half_window: int, length: int, padded: bool
) -> None:
    qkv = random_qkv(length)
    valid = padding(length) if padded else None
    banded = banded_attention(qkv[0], qkv[1], qkv[2], half_window, valid)
    dense = dense_attention(qkv[0], qkv[1], qkv[2], half_window, valid)
    torch.testing.assert_close(banded, dense, rtol=0, atol=1e-12)

    upstream = torch.randn(banded.shape, generator=seeded(9), dtype=torch.float64)
    grads = torch.autograd.grad(banded, qkv, upstream)
    expected = torch.autograd.grad(dense, qkv, upstream)
    for ours, theirs in zip(grads, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("half_window", "length"), [(200, 90), (16, 90), (64, 150)])
def test_padded_keys_do_not_influence_other_points(half_window: int, length: int) -> None:
    q, k, v = (x.detach() for x in random_qkv(length))
    valid = padding(length)
    before = banded_attention(q, k, v, half_window, valid)
    padded = ~valid[:, None, :, None]
    after = banded_attention(q, k + 1e3 * padded, v - 1e6 * padded, half_window, valid)
    kept = valid[:, None, :, None].expand_as(before)
    assert torch.equal(before[kept], after[kept])


@pytest.mark.parametrize("half_window", [3, 64, 500])
def test_attention_of_padding_alone_is_finite_forward_and_backward(half_window: int) -> None:
    qkv = random_qkv(100)
    out = banded_attention(
        qkv[0], qkv[1], qkv[2], half_window, torch.zeros(2, 100, dtype=torch.bool)
    )
    torch.testing.assert_close(out, qkv[2], rtol=0, atol=1e-12)  # each sees itself alone
    assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(out.sum(), qkv))


@pytest.mark.parametrize("neighbours", [False, True])
def test_a_point_reaches_the_queries_whose_band_holds_it_and_no_others(neighbours: bool) -> None:
    """The band's reach, and with `neighbours` one point more on either side."""
    config = tiny_config(depth=1, neighbours=neighbours)
    model = randomised(config)
    x, noise, times, distances, types = inputs(1, 150)
    context = make_context(
        config, Conditions(times, distances, types, torch.zeros(1, dtype=torch.long))
    )
    moved = x.clone()
    moved[:, 70] += 1
    with torch.no_grad():
        changed = (model(moved, noise, context, 5) != model(x, noise, context, 5)).any(-1)[0]
    # q - 5 < 70 <= q + 5
    assert changed.nonzero().flatten().tolist() == list(range(65 - neighbours, 75 + neighbours))


def test_a_padded_sequence_gives_what_it_gives_unpadded() -> None:
    config = tiny_config()
    model = randomised(config)
    x, noise, times, distances, types = inputs(1, 40)
    classes = torch.tensor([1])
    valid = torch.arange(40)[None] < 25
    padded = make_context(config, Conditions(times, distances, types, classes, valid))
    cut = make_context(config, Conditions(times[:, :25], distances[:, :25], types[:, :25], classes))
    with torch.no_grad():
        torch.testing.assert_close(
            model(x, noise, padded)[:, :25], model(x[:, :25], noise, cut), rtol=0, atol=1e-5
        )


# --- rotary and sinusoidal embeddings -------------------------------------------------------------


def outputs_at(config: DiTConfig, shift: float) -> Tensor:
    """What a random model gives for one batch whose times are shifted by `shift` ms."""
    x, noise, times, distances, types = inputs()
    classes = torch.tensor([0, 3])
    with torch.no_grad():
        context = make_context(
            config, Conditions(times.double() + shift, distances, types, classes)
        )
        return randomised(config)(x, noise, context)


def test_a_shift_of_time_by_hours_changes_no_bit() -> None:
    assert torch.equal(outputs_at(tiny_config(), 0), outputs_at(tiny_config(), HOURS))


def test_the_reference_architecture_does_feel_a_shift_of_time() -> None:
    config = tiny_config(rotary_periods=None, index_periods=None, time_dim=128)
    assert not torch.allclose(outputs_at(config, 0), outputs_at(config, HOURS), atol=1e-3)


def test_stretching_time_changes_the_output() -> None:
    config = tiny_config()
    x, noise, times, distances, types = inputs()
    model, classes = randomised(config), torch.tensor([0, 3])
    with torch.no_grad():
        once = model(x, noise, make_context(config, Conditions(times, distances, types, classes)))
        twice = model(
            x, noise, make_context(config, Conditions(2 * times, distances, types, classes))
        )
    assert not torch.allclose(once, twice, atol=1e-3)


def test_rotated_scores_depend_on_time_differences_alone() -> None:
    """RoFormer, equation 12: q_m . k_n = Re sum_i q_i conj(k_i) exp(i w_i (m - n))."""
    generator = seeded()
    times = torch.tensor([[0.0, 37.0, 1250.5, 86_400.0]], dtype=torch.float64) + HOURS
    q, k = torch.randn(2, 1, 1, 4, 16, generator=generator)
    cos, sin = rotary_table(times, 16, (20.0, 60_000.0))
    scores = rotate(q, cos, sin) @ rotate(k, cos, sin).transpose(-1, -2)  # (1, 1, 4, 4)

    periods = [20.0 * (60_000.0 / 20.0) ** (i / 7) for i in range(8)]
    frequencies = torch.tensor([2 * math.pi / period for period in periods], dtype=torch.float64)
    q_pairs = torch.complex(*q[0, 0].double().chunk(2, dim=-1))  # (4, 8)
    k_pairs = torch.complex(*k[0, 0].double().chunk(2, dim=-1))
    for m in range(4):
        for n in range(4):
            turn = torch.exp(1j * frequencies * (times[0, m] - times[0, n]))
            expected = (q_pairs[m] * k_pairs[n].conj() * turn).sum().real
            torch.testing.assert_close(scores[0, 0, m, n].double(), expected, rtol=0, atol=1e-5)


def test_rotary_periods_run_from_the_shortest_to_the_longest() -> None:
    cos, sin = rotary_table(torch.tensor([[7, 17, 27, 30_007]]), 8, (20.0, 60_000.0))
    assert cos.shape == sin.shape == (1, 1, 4, 4)
    torch.testing.assert_close(cos[0, 0, :3, 0], torch.tensor([1.0, -1.0, 1.0]))
    torch.testing.assert_close(cos[0, 0, 3, 3], torch.tensor(-1.0))


def test_half_of_the_phases_tell_places_where_index_periods_are_given() -> None:
    times = torch.tensor([[7.0, 17.0, 17.0, 30_007.0], [0.0, 1.0, 2.0, 3.0]])
    cos, sin = rotary_table(times, 8, (20.0, 60_000.0), (4.0, 12.0))
    by_time = rotary_table(times, 4, (20.0, 60_000.0))
    torch.testing.assert_close((cos[..., :2], sin[..., :2]), by_time)
    places = torch.arange(4.0) * 2 * math.pi
    phases = torch.stack([places / 4, places / 12], dim=-1).expand(2, 1, 4, 2)
    torch.testing.assert_close((cos[..., 2:], sin[..., 2:]), (phases.cos(), phases.sin()))


def test_index_periods_without_rotary_time_are_refused() -> None:
    with pytest.raises(ValueError, match="index_periods share the phases"):
        tiny_config(rotary_periods=None)


def test_the_first_layer_sees_the_points_before_and_after() -> None:
    """Features of three points side by side; of nothing where a sequence ends or is padding."""
    config = tiny_config(coordinate_dim=2, distance_dim=2)
    embedder, (x, _, times, distances, types) = DiT(config).xoc_embedder, inputs(1, 6)
    valid = torch.tensor([[True, True, True, True, False, False]])
    context = make_context(config, Conditions(times, distances, types, torch.tensor([0]), valid))
    points = torch.cat([x, sinusoidal_embedding(x * 131, 2).flatten(-2), context.features], dim=-1)
    nothing = torch.zeros_like(points[:, :1])
    before = torch.cat([nothing, points[:, :3]], dim=1)
    after = torch.cat([points[:, 1:4], nothing], dim=1)
    expected = embedder.mlp(torch.cat([points[:, :4], before, after], dim=-1))
    torch.testing.assert_close(embedder(x, context)[:, :4], expected)


def test_rotation_is_float32_for_half_precision_queries() -> None:
    x = torch.randn(1, 1, 5, 8, generator=seeded()).bfloat16()
    cos, sin = rotary_table(torch.arange(5)[None] * 333, 8, (20.0, 60_000.0))
    assert torch.equal(rotate(x, cos, sin), rotate(x.float(), cos, sin).bfloat16())


def test_sinusoidal_embedding_is_cosines_then_sines_of_geometric_frequencies() -> None:
    """Vaswani et al. 2017, section 3.5, with cosines first, written out in Python floats."""
    values = [0.0, 1.0, -3.25, 47.5]
    embedded = sinusoidal_embedding(torch.tensor([values]), 12, max_period=500.0)
    frequencies = [500.0 ** (-i / 6) for i in range(6)]
    expected = [
        [math.cos(v * f) for f in frequencies] + [math.sin(v * f) for f in frequencies]
        for v in values
    ]
    torch.testing.assert_close(embedded, torch.tensor([expected]), rtol=0, atol=1e-5)


def test_context_features_are_time_distance_and_one_hot_type() -> None:
    config = tiny_config(time_dim=8, distance_dim=6, neighbours=False)
    _, _, times, distances, types = inputs(1, 9)
    features = make_context(config, Conditions(times, distances, types, torch.tensor([0]))).features
    torch.testing.assert_close(features[..., :8], sinusoidal_embedding(times / 10, 8))
    torch.testing.assert_close(features[..., 8:14], sinusoidal_embedding(distances, 6))
    assert torch.equal(features[..., 14:].argmax(-1), types)
    assert torch.equal(features[..., 14:].sum(-1), torch.ones(1, 9))
    assert config.in_features == 2 * 64 + 2 + features.shape[-1]
    assert replace(config, neighbours=True).in_features == 3 * config.in_features


# --- the model ------------------------------------------------------------------------------------


def test_an_unknown_distance_is_embedded_as_zero() -> None:
    """Which no known distance is, not even zero."""
    _, _, times, distances, types = inputs()
    config = tiny_config()
    distances[:, 3:] = -1.0
    context = make_context(
        config, Conditions(times, distances, types, torch.zeros(2, dtype=torch.int64))
    )
    embedded = context.features[..., : config.distance_dim]
    assert (embedded[:, 3:] == 0).all()
    assert (embedded[:, :3].norm(dim=-1) > 1).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_fresh_model_puts_out_zero(architecture: str) -> None:
    """adaLN-zero: the read-out starts at zero (DiT, section 3.2)."""
    model = DiT_models["DiT-nano"](architecture=architecture, num_classes=2)
    x, noise, times, distances, types = inputs()
    context = make_context(model.config, Conditions(times, distances, types, torch.tensor([0, 2])))
    out = model(x, noise, context)
    assert out.shape == (2, 30, 4 if architecture == "reference" else 2)
    assert not out.any()


def test_a_fresh_block_is_the_identity() -> None:
    model = DiT_models["DiT-nano"](num_classes=2)
    h, condition = torch.randn(2, 2, 30, 64, generator=seeded()).unbind(0)
    _, _, times, distances, types = inputs()
    context = make_context(model.config, Conditions(times, distances, types, torch.tensor([0, 2])))
    assert torch.equal(model.blocks[0](h, condition[:, 0], context, 8), h)


def count(model: DiT) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def expected_count(config: DiTConfig) -> int:
    """Parameters by the formula of the architecture's linear layers."""
    d, head = config.width, config.width // config.heads
    attention = 4 * d * d + 4 * d + (2 * head if config.qk_norm else 0)
    block = attention + (8 * d * d + 5 * d) + (6 * d * d + 6 * d)
    embedders = (config.in_features + 1) * d + (256 + 1) * d + (d + 1) * d
    classes = (config.num_classes + 1) * d
    final = 2 * d * d + 2 * d + (d + 1) * config.out_channels
    return config.depth * block + embedders + classes + final


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", SIZES)
def test_each_size_has_the_parameters_of_the_formula(size: str, architecture: str) -> None:
    with torch.device("meta"):
        model = DiT_models[size](architecture=architecture, num_classes=10)
    sizes = SIZES[size]
    config = model.config
    assert (config.width, config.depth, config.heads) == tuple(sizes.values())
    assert count(model) == expected_count(config)


@pytest.mark.parametrize(
    ("size", "width", "depth", "heads", "millions"),
    [
        ("DiT-S", 384, 12, 6, 33),
        ("DiT-B", 768, 12, 12, 130),
        ("DiT-L", 1024, 24, 16, 458),
        ("DiT-XL", 1152, 28, 16, 675),
    ],
)
def test_the_sizes_are_those_of_the_dit_paper(
    size: str, width: int, depth: int, heads: int, millions: int
) -> None:
    """DiT (Peebles & Xie 2023), tables 1 and 4; inputs and outputs differ by less than 2 %."""
    with torch.device("meta"):
        model = DiT_models[size](architecture="reference", num_classes=1000)
    assert (model.config.width, model.config.depth, model.config.heads) == (width, depth, heads)
    assert count(model) == pytest.approx(millions * 1e6, rel=0.02)


@pytest.mark.parametrize("size", SIZES)
def test_a_size_is_called_by_its_name_and_by_blocks_if_it_has_more(size: str) -> None:
    config = tiny_config(**SIZES[size])
    assert size_name(config) == size
    assert size_name(replace(config, depth=13)) == f"{size}, 13 blocks"
    assert size_name(replace(config, width=48, depth=3, heads=3)) == (
        "DiT of width 48, 3 blocks, 3 heads"
    )


def test_a_builder_lets_options_override_its_size() -> None:
    config = DiT_models["DiT-nano"](architecture="reference", depth=1, half_window=7).config
    assert (config.width, config.depth, config.half_window, config.time_dim) == (64, 1, 7, 128)


@pytest.mark.parametrize("config", [tiny_config(), DiTConfig(rotary_periods=None, time_dim=4)])
def test_a_config_survives_json(config: DiTConfig) -> None:
    assert DiTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_option_is_named_in_the_error() -> None:
    with pytest.raises(ValueError, match=r"\['wings'\].*newer version"):
        DiTConfig.from_dict({"width": 32, "heads": 2, "wings": 2})


@pytest.mark.parametrize(("width", "heads"), [(30, 4), (18, 6)])
def test_a_width_that_its_heads_cannot_share_in_pairs_is_refused(width: int, heads: int) -> None:
    with pytest.raises(ValueError, match=f"width {width} .* heads {heads}"):
        DiTConfig(width=width, heads=heads)


def tiny_batch() -> tuple[DiT, Tensor, Tensor, Context]:
    """A random model and a batch of two with padding and classes 1 and null."""
    config = tiny_config()
    x, noise, times, distances, types = inputs()
    classes = torch.tensor([1, 3])
    return (
        randomised(config),
        x,
        noise,
        make_context(config, Conditions(times, distances, types, classes, padding(30))),
    )


def test_class_embeddings_give_what_their_indices_give() -> None:
    model, x, noise, context = tiny_batch()
    embeddings = model.class_table()[context.classes]
    with torch.no_grad():
        by_index = model(x, noise, context)
        by_embedding = model(x, noise, context._replace(classes=embeddings))
        other = model(x, noise, context._replace(classes=embeddings.flip(0)))
    assert torch.equal(by_index, by_embedding)
    assert not torch.allclose(by_index, other, atol=1e-3)


def test_the_null_class_is_the_last_row_of_the_table() -> None:
    model, _, _, context = tiny_batch()
    assert len(model.class_table()) == model.null_class + 1
    assert model.null_class == int(context.classes[1]) == 3


def test_a_gradient_reaches_a_class_embedding_of_a_frozen_model() -> None:
    """What learning a style by textual inversion rests on."""
    model, x, noise, context = tiny_batch()
    model.requires_grad_(False)
    embedding = torch.zeros(2, 32, requires_grad=True)
    model(x, noise, context._replace(classes=embedding)).square().sum().backward()
    assert embedding.grad is not None
    assert bool((embedding.grad.abs().sum(1) > 0).all())


@pytest.mark.parametrize("rotary", [True, False])
def test_repeated_conditions_give_the_outputs_again(rotary: bool) -> None:
    config = tiny_config() if rotary else tiny_config(rotary_periods=None, index_periods=None)
    model = randomised(config)
    x, noise, times, distances, types = inputs()
    valid = padding(30) if rotary else None
    conditions = Conditions(times, distances, types, torch.tensor([1, 3]), valid)
    with torch.no_grad():
        once = model(x, noise, make_context(config, conditions))
        context = make_context(config, conditions.repeat(3))
        thrice = model(x.repeat(3, 1, 1), noise.repeat(3), context)
    torch.testing.assert_close(thrice, torch.cat([once] * 3), rtol=0, atol=1e-5)


# --- the public osu-diffusion ---------------------------------------------------------------------


def reference_arrays() -> dict[str, Tensor]:
    """What the reference computed with its tiny checkpoint; its sequences are (N, C, T)."""
    assert FOLDER is not None
    with np.load(Path(FOLDER) / "osu_diffusion_tiny_outputs.npz") as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


def reference_conditions(arrays: dict[str, Tensor]) -> Conditions:
    return Conditions(arrays["o"].double(), arrays["distance"], arrays["type"], arrays["y"])


def reference_model() -> DiT:
    assert FOLDER is not None
    return load_model(Path(FOLDER) / "osu_diffusion_tiny.pt", heads=3).model


@needs_reference
@pytest.mark.parametrize("entry", ["forward", "forward_banded"])
def test_the_reference_checkpoint_gives_the_reference_outputs(entry: str) -> None:
    arrays, model = reference_arrays(), reference_model()
    half_window = 128 if entry == "forward" else int(arrays["half_window"])
    context = make_context(model.config, reference_conditions(arrays))
    x = arrays["x"].transpose(1, 2)
    with torch.no_grad():
        out = model(x, arrays["t"].float(), context, half_window).transpose(1, 2)
    torch.testing.assert_close(out, arrays[entry], rtol=0, atol=1e-5)


@needs_reference
def test_the_reference_checkpoint_gives_the_reference_guidance() -> None:
    """The reference returns a doubled batch: its first half is the guided sample."""
    arrays, model = reference_arrays(), reference_model()
    first = {name: arrays[name][:1] for name in ("o", "distance", "type", "y")}
    doubled = reference_conditions(first).repeat(2)._replace(classes=arrays["cfg_y"])
    context = make_context(model.config, doubled)

    def network(x: Tensor, labels: Tensor) -> Tensor:
        return model(x, labels, context, int(arrays["half_window"]))

    guided = guided_network(network, float(arrays["cfg_scale"]))
    with torch.no_grad():
        out = guided(arrays["cfg_x"][:1].transpose(1, 2), arrays["cfg_t"][:1].float())
    expected = arrays["forward_with_cfg"][:1]
    torch.testing.assert_close(out.transpose(1, 2), expected, rtol=0, atol=1e-5)
