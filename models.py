"""The sequence diffusion transformer (needs only torch and numpy).

A DiT (Peebles & Xie 2023, https://arxiv.org/abs/2212.09748) over data points instead of image
patches. Our models encode time, and the position in the sequence, as rotary phases of queries and
keys, so that shifting a map in time changes nothing; models of the public osu-diffusion have a
sinusoidal input for time. Attention is limited to a band of neighbours and computed in blocks, so
that time and memory are linear in the length.

Shapes: N batch, T data points, D width, H heads, W half window.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

NUM_TYPES = 16
"""Number of point types, `conventions.point_types.PointType`."""

PX_PER_UNIT = 131.0
"""Px per network unit: the deviation of points uniform on the playfield (real maps: 114)."""

LARGEST = {
    **{"width": 16_384, "depth": 512, "heads": 512, "num_classes": 10_000_000},
    **{"half_window": 1_000_000, "coordinate_dim": 4096, "distance_dim": 4096, "time_dim": 4096},
}
"""Upper limits of whole numbers in a configuration, whose file may be damaged or hostile."""

PAIRS = ("coordinate_scale", "rotary_periods", "index_periods")
"""Fields that hold two numbers each, or None."""

MOST_GROUPS = 64


@dataclass(frozen=True)
class DiTConfig:
    """Everything that is needed to build a model; saved with the weights.

    `half_window` is W of the attention band in sampling. `rotary_periods` are the shortest and the
    longest period in ms. With `index_periods`, in data points, half of the phases encode the
    position in the sequence instead: times alone do not tell which point is the previous one. With
    `neighbours` the first layer also gets the features of the data points before and after. With
    `known_points` the network can be given known coordinates, and a flag that marks them. With
    `class_groups` a vector of zeros and ones describes a map, instead of one class: the field says
    how many entries each group has; the last entry of a group means "unknown".
    """

    width: int = 192
    depth: int = 8
    heads: int = 6
    num_classes: int = 0
    mlp_ratio: float = 4.0
    half_window: int = 64
    coordinate_dim: int = 64
    distance_dim: int = 64
    time_dim: int = 0
    raw_coordinates: bool = True
    coordinate_scale: tuple[float, float] = (PX_PER_UNIT, PX_PER_UNIT)
    rotary_periods: tuple[float, float] | None = (20.0, 60_000.0)
    index_periods: tuple[float, float] | None = None
    neighbours: bool = False
    known_points: bool = False
    qk_norm: bool = True
    learn_sigma: bool = False
    class_groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, largest in LARGEST.items():
            value, least = getattr(self, name), int(name in ("width", "depth", "heads"))
            if type(value) is not int or not least <= value <= largest:
                raise ValueError(f"{name} {value!r}: expected a whole number, {least} to {largest}")
        pairs = {name: getattr(self, name) for name in PAIRS}
        numbers = [self.mlp_ratio, *(n for pair in pairs.values() for n in pair or (1.0, 1.0))]
        if len(numbers) != 1 + 2 * len(pairs) or not all(0 < number < 1e9 for number in numbers):
            raise ValueError(
                f"mlp_ratio must be a number above 0, {', '.join(PAIRS)} two: "
                f"they are {self.mlp_ratio}, {', '.join(map(str, pairs.values()))}"
            )
        if self.index_periods and not self.rotary_periods:
            raise ValueError("index_periods share the phases of rotary_periods, which are missing")
        self._check_groups()
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"width {self.width} must be an even multiple of heads {self.heads}: "
                "choose another width or number of heads"
            )

    def _check_groups(self) -> None:
        """ValueError unless `class_groups` is a short tuple of counts within the limits."""
        counts = self.class_groups
        numbers = isinstance(counts, tuple) and all(type(n) is int and n >= 0 for n in counts)
        if not numbers or len(counts) > MOST_GROUPS or sum(counts) > LARGEST["num_classes"]:
            raise ValueError(f"class_groups {str(counts)[:80]!r}: expected a few whole numbers")

    @property
    def in_features(self) -> int:
        """Inputs of the first linear layer: the features of a data point, or of three."""
        coordinates = 2 * self.coordinate_dim + (2 if self.raw_coordinates else 0)
        features = coordinates + self.time_dim + self.distance_dim + NUM_TYPES
        features += int(self.known_points)
        return 3 * features if self.neighbours else features

    @property
    def out_channels(self) -> int:
        """2, or 4 when the model also predicts the variance of the ancestral step."""
        return 4 if self.learn_sigma else 2

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON or a `weights_only` checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DiTConfig":
        """Inverse of `to_dict`; a ValueError names keys that this version does not know."""
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ValueError(
                f"unknown model options {unknown}: the checkpoint is of a newer version"
            )
        pairs: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**pairs)


class Conditions(NamedTuple):
    """Network inputs for N sequences of T data points, besides noisy coordinates and noise level.

    times: (N, T) ms, float64 or integers; may be on the CPU, as not every device has float64
    distances: (N, T) px to the previous point, negative where it is unknown
    types: (N, T) in 0..15
    classes: (N,) int64 class indices (num_classes is the null class), (N, G) bool, where the
        configuration has groups, or (N, D) embeddings
    valid: (N, T) bool, False for padding, or None where nothing is padded
    known: (N, T, 2) coordinates that are given, in network units and NaN elsewhere, or None
    """

    times: Tensor
    distances: Tensor
    types: Tensor
    classes: Tensor
    valid: Tensor | None = None
    known: Tensor | None = None

    @classmethod
    def of_arrays(
        cls, times: np.ndarray, distances: np.ndarray, types: np.ndarray, classes: Tensor
    ) -> "Conditions":
        """Of one sequence, from arrays (T,); on the device of `classes` (1, ...), times on CPU."""
        device = classes.device
        return cls(
            torch.from_numpy(times)[None],
            torch.from_numpy(distances)[None].float().to(device),
            torch.from_numpy(types)[None].to(device),
            classes,
        )

    @classmethod
    def cat(cls, parts: "Sequence[Conditions]") -> "Conditions":
        """Joins batches that have the same T and the same fields set."""
        return cls(*(None if v[0] is None else torch.cat(v) for v in zip(*parts, strict=True)))  # type: ignore[arg-type]

    def window(self, start: int, length: int) -> "Conditions":
        """`length` data points from `start` on, times from the first one; padded past the end."""
        valid = torch.ones_like(self.types, dtype=torch.bool) if self.valid is None else self.valid
        count = min(length, self.types.shape[1] - start)
        found = {}
        for name in PER_POINT:
            given = valid if name == "valid" else getattr(self, name)
            if given is not None:
                part = given[:, start : start + count]
                found[name] = F.pad(part, (*(0, 0) * (part.ndim - 2), 0, length - count))
        times = found["times"]
        times[:, count:] = times[:, count - 1 : count]
        return self._replace(**{**found, "times": times - times[:, :1]})

    def map(self, change: Callable[[Tensor], Tensor]) -> "Conditions":
        """The same with `change` applied to every tensor that is not None."""
        return Conditions(*(None if value is None else change(value) for value in self))  # type: ignore[arg-type]

    def repeat(self, n: int) -> "Conditions":
        """The batch n times over: (n N, ...)."""
        return self.map(lambda x: x.repeat(n, *([1] * (x.ndim - 1))))


PER_POINT = ("times", "distances", "types", "valid", "known")
"""The conditions of each data point; the others are of the whole map."""


class Context(NamedTuple):
    """Embedded conditions of a batch. No parameters are involved: built once for all steps.

    features: (N, T, F) time and distance embeddings, one-hot types, and which points are known
    rotary: cos and sin, each (N, 1, T, head_dim / 2) float32, or None
    classes: as in `Conditions`
    valid: (N, T) bool, False for padding, or None where nothing is padded
    known: (N, T, 2) network units of the points that are known, NaN elsewhere, or None
    """

    features: Tensor
    rotary: tuple[Tensor, Tensor] | None
    classes: Tensor
    valid: Tensor | None
    known: Tensor | None = None


def null_classes(config: DiTConfig) -> Tensor:
    """What stands for no style, as `Conditions.classes` of one sequence: (1,) int64 or (1, G)."""
    if not config.class_groups:
        return torch.tensor([config.num_classes])
    # A group without places has no place for "unknown" either.
    ends = torch.tensor([n for n in config.class_groups if n]).cumsum(0) - 1
    null = torch.zeros(1, sum(config.class_groups), dtype=torch.bool)
    null[0, ends] = True
    return null


def has_float64(device: torch.device) -> bool:
    """Whether a device has float64, which Apple's GPUs lack."""
    return device.type != "mps"


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, for sums of few terms under autocast; float64 stays float64."""
    return x if x.dtype == torch.float64 else x.float()


def sinusoidal_embedding(values: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Embeds (...) as (..., dim): cosines, then sines of geometrically spaced frequencies.

    Source: Vaswani et al. 2017, section 3.5.
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=values.device) / half
    phases = values.float()[..., None] * torch.exp(-math.log(max_period) * exponents)
    return torch.cat([phases.cos(), phases.sin()], dim=-1)


def rotary_table(
    times: Tensor,
    head_dim: int,
    periods: tuple[float, float],
    index_periods: tuple[float, float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Cos and sin of the rotary phases of times (N, T) in ms, each (N, 1, T, head_dim / 2) float32.

    With `index_periods` the second half of the phases encodes the positions 0..T-1. Phases are
    computed in float64 relative to the first time, so they are as exact hours into a map as at its
    start; on the CPU if the device has no float64. Source: Su et al. 2021, RoFormer.
    """
    exact = times.device if has_float64(times.device) else torch.device("cpu")
    relative = times.detach().to(exact, torch.float64)
    relative = relative - relative[:, :1]
    count = head_dim // 2
    places = count // 2 if index_periods else 0
    phases = relative[..., None] * _frequencies(periods, count - places, exact)
    if index_periods:
        index = torch.arange(times.shape[1], dtype=torch.float64, device=exact)
        by_place = index[:, None] * _frequencies(index_periods, places, exact)
        phases = torch.cat([phases, by_place.expand(len(times), -1, -1)], dim=-1)
    cos, sin = phases.cos().float(), phases.sin().float()
    return cos[:, None].to(times.device), sin[:, None].to(times.device)


def _frequencies(periods: tuple[float, float], count: int, device: torch.device) -> Tensor:
    """Angular frequencies (count,) float64 of geometrically spaced periods, the shortest first."""
    shortest, longest = periods
    logs = torch.linspace(math.log(shortest), math.log(longest), count, dtype=torch.float64)
    return 2 * math.pi / logs.to(device).exp()


def make_context(config: DiTConfig, conditions: Conditions) -> Context:
    """Embeds what does not change while sampling.

    An unknown distance is embedded as zeros, unlike the distance 0. Known points need
    `known_points` in the configuration.
    """
    times, distances = conditions.times, conditions.distances
    device = distances.device
    parts = []
    if config.time_dim:
        # The reference divides ms by 10, so that its lowest frequency covers about ten minutes.
        parts.append(sinusoidal_embedding((times / 10).float().to(device), config.time_dim))
    told = (distances >= 0)[..., None]
    parts.append(sinusoidal_embedding(distances, config.distance_dim) * told)
    parts.append(F.one_hot(conditions.types.long(), NUM_TYPES).float())
    known = conditions.known
    assert known is None or config.known_points
    if config.known_points:
        shown = torch.zeros_like(told) if known is None else ~known[..., :1].isnan()
        parts.append(shown.float())
    rotary = None
    if config.rotary_periods is not None:
        head_dim = config.width // config.heads
        cos, sin = rotary_table(times, head_dim, config.rotary_periods, config.index_periods)
        rotary = cos.to(device), sin.to(device)
    features = torch.cat(parts, dim=-1)
    return Context(features, rotary, conditions.classes, conditions.valid, known)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates pairs (i, i + head_dim / 2) of x (N, H, T, head_dim); float32 also under autocast."""
    first, second = at_least_float32(x).chunk(2, dim=-1)
    rotated = torch.cat([first * cos - second * sin, first * sin + second * cos], dim=-1)
    return rotated.to(x.dtype)


def banded_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    half_window: int,
    valid: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Attention in which query i sees the keys j with i - W < j <= i + W.

    q, k, v and the result are (N, H, T, head_dim); valid (N, T) is False for padding. Queries are
    taken in blocks of W (at least 64) against the keys of that block and W on either side, which
    makes time and memory linear in T. A padded query sees itself, so that its softmax stays
    finite. Layers of one model share `mask`, the result of `attention_mask`.
    """
    n, heads, length, head_dim = q.shape
    w = half_window
    if mask is None:
        mask = attention_mask(n, length, w, valid, q.device)
    if length <= w:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    block, blocks = _blocks(length, w)
    tail = blocks * block - length
    keys = block + 2 * w

    def blocked(x: Tensor, before: int, size: int) -> Tensor:
        padded = F.pad(x, (0, 0, before, before + tail))
        windows = padded.unfold(2, size, block).transpose(-1, -2)  # (N, H, blocks, size, head_dim)
        return windows.transpose(1, 2).reshape(n * blocks, heads, size, head_dim)

    out = F.scaled_dot_product_attention(
        blocked(q, 0, block), blocked(k, w, keys), blocked(v, w, keys), attn_mask=mask
    )  # (N * blocks, H, block, head_dim)
    out = out.reshape(n, blocks, heads, block, head_dim).transpose(1, 2)
    return out.reshape(n, heads, blocks * block, head_dim)[:, :, :length]


def _blocks(length: int, w: int) -> tuple[int, int]:
    """Size and number of the blocks of queries."""
    block = max(w, 64)
    return block, -(-length // block)


def attention_mask(
    n: int, length: int, w: int, valid: Tensor | None, device: torch.device
) -> Tensor | None:
    """Which keys the queries of `banded_attention` see.

    (N * blocks, 1, block, block + 2 W) bool, True where a query of a block sees a key. For T <= W,
    where the band cuts nothing, it is (N, 1, T, T) with padding and None without.
    """
    if length <= w:
        if valid is None:
            return None
        itself = torch.eye(length, dtype=torch.bool, device=device)
        return (valid[:, None, :] | itself)[:, None]
    block, blocks = _blocks(length, w)
    starts = torch.arange(blocks, device=device)[:, None, None] * block
    query = starts + torch.arange(block, device=device)[None, :, None]
    key = starts - w + torch.arange(block + 2 * w, device=device)[None, None, :]
    inside = (key > query - w) & (key <= query + w) & (key >= 0) & (key < length)
    seen = inside.expand(n, -1, -1, -1)
    if valid is not None:
        key_valid = valid[:, key.clamp(0, length - 1)]  # (N, blocks, 1, keys)
        seen = seen & key_valid
    seen = seen | (key == query)
    return seen.reshape(n * blocks, 1, block, block + 2 * w)


class Attention(nn.Module):
    """Multi-head self-attention; parameter names are those of `nn.MultiheadAttention`."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.half_window = config.half_window
        width = config.width
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        head_dim = width // config.heads
        self.q_norm = nn.RMSNorm(head_dim, eps=1e-6) if config.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(head_dim, eps=1e-6) if config.qk_norm else nn.Identity()

    def forward(
        self, x: Tensor, context: Context, half_window: int, mask: Tensor | None = None
    ) -> Tensor:
        n, length, width = x.shape
        qkv = F.linear(x, self.in_proj_weight, self.in_proj_bias)  # (N, T, 3 D)
        q, k, v = qkv.view(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (N, H, T, D / H)
        # Norms over so few features, and rotations, run in float32 also under autocast: with one
        # cast to float32 and one back for both.
        q, k = self.q_norm(at_least_float32(q)), self.k_norm(at_least_float32(k))
        if context.rotary is not None:
            q, k = rotate(q, *context.rotary), rotate(k, *context.rotary)
        q, k = q.to(v.dtype), k.to(v.dtype)
        out = banded_attention(q, k, v, half_window, context.valid, mask)
        return self.out_proj(out.transpose(1, 2).reshape(n, length, width))


class Mlp(nn.Module):
    """Two linear layers with a tanh-approximated GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without its own parameters, then shift and scale (N, D) of x (N, T, D).

    Runs in the precision of x: norm kernels accumulate in float32 anyway, and on CUDA autocast
    would write their outputs in float32, which takes three times the memory traffic.
    """
    with torch.autocast(x.device.type, enabled=False):
        normed = F.layer_norm(x, x.shape[-1:], eps=1e-6)
        return torch.addcmul(shift[:, None], normed, 1 + scale[:, None])


class DiTBlock(nn.Module):
    """Pre-norm transformer block with adaLN-zero conditioning (DiT, section 3.2)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.width
        self.attn = Attention(config)
        self.mlp = Mlp(width, int(width * config.mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        context: Context,
        half_window: int,
        mask: Tensor | None = None,
    ) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(condition).chunk(
            6, dim=-1
        )
        attended = self.attn(modulate(x, shift_a, scale_a), context, half_window, mask)
        x = x + gate_a[:, None] * attended
        return x + gate_m[:, None] * self.mlp(modulate(x, shift_m, scale_m))


class DataPointEmbedder(nn.Module):
    """Noisy coordinates and the context features of every data point -> (N, T, D)."""

    scale: Tensor

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.coordinate_dim = config.coordinate_dim
        self.raw_coordinates = config.raw_coordinates
        self.neighbours = config.neighbours
        self.mlp = nn.Sequential(nn.Linear(config.in_features, config.width))
        self.register_buffer("scale", torch.tensor(config.coordinate_scale), persistent=False)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        if context.known is not None:
            # A known point is given as it is, without noise and preconditioning.
            x = torch.where(context.known.isnan(), x, context.known.to(x.dtype))
        embedded = sinusoidal_embedding(x * self.scale, self.coordinate_dim).flatten(-2)
        parts = [embedded, context.features]
        point = torch.cat([x, *parts] if self.raw_coordinates else parts, dim=-1)  # (N, T, F)
        if self.neighbours:
            # Neighbours beyond the ends of a sequence, or in padding, are zeros.
            shown = point if context.valid is None else point * context.valid[..., None]
            before, after = F.pad(shown, (0, 0, 1, 0))[:, :-1], F.pad(shown, (0, 0, 0, 1))[:, 1:]
            point = torch.cat([point, before, after], dim=-1)
        return self.mlp(point.to(x.dtype))


class NoiseEmbedder(nn.Module):
    """The noise level (N,), as the parametrisation labels it, -> (N, D)."""

    FREQUENCIES = 256

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(self.FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, noise: Tensor) -> Tensor:
        embedded = sinusoidal_embedding(noise, self.FREQUENCIES)
        return self.mlp(embedded.to(next(self.mlp.parameters()).dtype))


class ClassEmbedder(nn.Module):
    """One embedding for each training beatmap; the last row is the null class (no style)."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, classes: Tensor) -> Tensor:
        return classes if classes.is_floating_point() else self.embedding_table(classes)


class GroupEmbedder(nn.Module):
    """A vector of zeros and ones (N, G) about a map -> (N, D)."""

    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.class_embedding = nn.Sequential(
            nn.Linear(places, width), nn.SiLU(), nn.Linear(width, width)
        )

    def forward(self, classes: Tensor) -> Tensor:
        if classes.is_floating_point():
            return classes
        return self.class_embedding(classes.to(next(self.parameters()).dtype))


class FinalLayer(nn.Module):
    """Modulated norm and the linear read-out (N, T, C)."""

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=-1)
        return self.linear(modulate(x, shift, scale))


class DiT(nn.Module):
    """Diffusion transformer over a sequence of data points.

    Module names are those of the public osu-diffusion, so its checkpoints load by name.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.xoc_embedder = DataPointEmbedder(config)
        self.t_embedder = NoiseEmbedder(config.width)
        self.y_embedder: ClassEmbedder | GroupEmbedder
        if config.class_groups:
            self.y_embedder = GroupEmbedder(sum(config.class_groups), config.width)
        else:
            self.y_embedder = ClassEmbedder(config.num_classes, config.width)
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.depth))
        self.final_layer = FinalLayer(config.width, config.out_channels)
        # Saves memory in training: the activations of a block are recomputed for its gradients.
        self.grad_checkpointing = False
        self._initialise()

    def _initialise(self) -> None:
        """DiT's initialisation: every block starts as the identity, the output as zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        if isinstance(self.y_embedder, ClassEmbedder):
            nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for module in self.t_embedder.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
        for name, parameter in self.named_parameters():
            if "adaLN_modulation" in name or name.startswith("final_layer"):
                nn.init.zeros_(parameter)

    @property
    def null_class(self) -> int:
        """Index of the class that stands for 'no style', where classes have indices."""
        return self.config.num_classes

    def null_classes(self) -> Tensor:
        """What stands for 'no style', as `Conditions.classes` of one sequence, on its device."""
        return null_classes(self.config).to(next(self.parameters()).device)

    def class_table(self) -> Tensor:
        """Embeddings (classes + 1, D), the last one 'no style'; with groups only that, (1, D)."""
        if isinstance(self.y_embedder, ClassEmbedder):
            return self.y_embedder.embedding_table.weight
        return self.y_embedder(self.null_classes())

    def forward(
        self, x: Tensor, noise: Tensor, context: Context, half_window: int | None = None
    ) -> Tensor:
        """x (N, T, 2) and noise labels (N,) -> (N, T, out_channels).

        `half_window` overrides the attention band of the configuration.
        """
        w = self.config.half_window if half_window is None else half_window
        condition = self.t_embedder(noise) + self.y_embedder(context.classes)  # (N, D)
        h = self.xoc_embedder(x, context)  # (N, T, D)
        mask = attention_mask(len(x), x.shape[1], w, context.valid, x.device)
        recompute = self.grad_checkpointing and torch.is_grad_enabled()
        for block in self.blocks:
            arguments = (h, condition, context, w, mask)
            if recompute:
                h = checkpoint(block, *arguments, use_reentrant=False, preserve_rng_state=False)
            else:
                h = block(*arguments)
        return self.final_layer(h, condition)


def bind(
    model: DiT, conditions: Conditions, half_window: int | None = None, *, use_amp: bool = False
) -> Callable[[Tensor, Tensor], Tensor]:
    """The model as a function of only noisy coordinates (N, T, 2) and noise labels (N,).

    `half_window` overrides the attention band; with `use_amp` it computes in bf16. Outputs are
    float32, or float64 for a float64 model.
    """
    weight = next(model.parameters())
    context = make_context(model.config, conditions)
    context = context._replace(features=context.features.to(weight.dtype))

    def network(x: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, torch.bfloat16, enabled=use_amp):
            return at_least_float32(model(x, labels, context, half_window))

    return network


SIZES: dict[str, dict[str, int]] = {
    "DiT-XL": {"width": 1152, "depth": 28, "heads": 16},
    "DiT-L": {"width": 1024, "depth": 24, "heads": 16},
    "DiT-B": {"width": 768, "depth": 12, "heads": 12},
    "DiT-S": {"width": 384, "depth": 12, "heads": 6},
    "DiT-XS": {"width": 192, "depth": 8, "heads": 6},
    "DiT-XXS": {"width": 128, "depth": 6, "heads": 4},
    "DiT-nano": {"width": 64, "depth": 2, "heads": 2},
}
"""Width, depth and heads by name: the reference's four, and three that a CPU can train."""


def size_name(config: DiTConfig) -> str:
    """What a model's size is called: its name in `SIZES`, and its blocks if it was given more."""
    for name, size in SIZES.items():
        if (config.width, config.heads) == (size["width"], size["heads"]):
            return name if config.depth == size["depth"] else f"{name}, {config.depth} blocks"
    return f"DiT of width {config.width}, {config.depth} blocks, {config.heads} heads"


REFERENCE_ARCHITECTURE: dict[str, Any] = {
    "coordinate_dim": 128,
    "distance_dim": 128,
    "time_dim": 128,
    "raw_coordinates": False,
    "coordinate_scale": (512.0, 384.0),
    "rotary_periods": None,
    "qk_norm": False,
    "learn_sigma": True,
    "half_window": 128,
}
"""The options that turn a DiT into the architecture of the public osu-diffusion."""

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "local": {"index_periods": (3.0, 256.0), "neighbours": True},
    "rotary": {},
    "reference": REFERENCE_ARCHITECTURE,
}
"""Ours with neighbours and positions; ours with times alone; that of the public osu-diffusion."""


def _builder(size: str) -> Callable[..., DiT]:
    def build(*, architecture: str = "rotary", **options: Any) -> DiT:
        """A freshly initialised model of this size and of one of the `ARCHITECTURES`."""
        return DiT(DiTConfig(**{**SIZES[size], **ARCHITECTURES[architecture], **options}))

    return build


DiT_models = {size: _builder(size) for size in SIZES}
