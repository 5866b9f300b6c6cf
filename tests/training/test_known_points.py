"""Known points: which are drawn, what a network makes of them, how a run learns to be told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from checkpoint import CheckpointError, load_model, load_training_checkpoint
from data_loading import Batch, PackedDataset
from diffusion.parametrisation import EDM, LearnedVariance
from models import ARCHITECTURES, Conditions, DiT, DiT_models, DiTConfig, bind
from tests.conftest import run_train
from training.known_points import KnownDraw, known_weight
from training.objective import Noise, Objective
from training.state import FIRST_LAYER, TABLE, TrainingState, read_training_state

CPU = torch.device("cpu")
NOTHING, SCATTERED, OUTSIDE, BEFORE = -1, 0, 1, 2

# --- which points ---------------------------------------------------------------------------------


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def windows(n: int, length: int, seed: int = 0) -> tuple[Tensor, list[list[int]]]:
    """Types (n, length) of made-up objects, cut anywhere; which object each point is of."""
    rng = np.random.default_rng(seed)
    types, owners = [], []
    for _ in range(n):
        mine: list[int] = []
        numbers: list[int] = []
        number = 0
        while len(mine) < length + 8:
            kinds = ([0], [1], [2, 3], [4, 6, 11], [5, 6, 9, 10, 14], [4, 7, 10, 12])
            made = kinds[rng.integers(len(kinds))]
            mine += made
            numbers += [number] * len(made)
            number += 1
        cut = int(rng.integers(0, 8))
        types.append(mine[cut : cut + length])
        owners.append(numbers[cut : cut + length])
    return torch.tensor(types, dtype=torch.uint8), owners


def objects_known(mask: Tensor, owners: list[int]) -> list[bool]:
    """For each object of a window whether it is known: all of it or nothing."""
    known = []
    for number in sorted(set(owners)):
        points = [bool(mask[i]) for i, owner in enumerate(owners) if owner == number]
        assert len(set(points)) == 1
        known.append(points[0])
    return known


def known_by_kind(n: int = 3000, length: int = 60) -> dict[int, list[list[bool]]]:
    """Which objects are known, window by window, for each kind of draw."""
    types, owners = windows(n, length)
    draw = KnownDraw.draw((n, length), 0.8, seeded(1))
    mask = draw.mask(types, torch.ones_like(types, dtype=torch.bool))
    found: dict[int, list[list[bool]]] = {kind: [] for kind in (-1, 0, 1, 2)}
    for kind, row, mine in zip(draw.kinds.tolist(), mask, owners, strict=True):
        found[kind].append(objects_known(row, mine))
    return found


def test_whole_objects_are_known_and_the_kinds_are_as_frequent_as_they_should_be() -> None:
    found = known_by_kind()
    shares = np.array([len(found[kind]) for kind in (NOTHING, SCATTERED, OUTSIDE, BEFORE)]) / 3000
    np.testing.assert_allclose(shares, [0.2, 0.8 / 3, 0.8 / 3, 0.8 / 3], atol=0.03)
    assert not any(any(objects) for objects in found[NOTHING])


def test_single_objects_are_known_with_a_probability_that_is_uniform() -> None:
    """Means over a window's objects: uniform on [0, 1], but for what chance adds."""
    found = known_by_kind()[SCATTERED]
    means = np.array([np.mean(objects) for objects in found])
    assert means.mean() == pytest.approx(0.5, abs=0.04)
    # The variance is that of the probability, 1/12, and about 1/6 over the number of objects.
    chance = np.mean([1 / 6 / len(objects) for objects in found])
    assert means.var() == pytest.approx(1 / 12 + chance, rel=0.12)
    # Scattered: one known object says nothing of the next, given how many are known.
    middle = [o for o, mean in zip(found, means, strict=True) if 0.3 < mean < 0.7]
    changes = np.mean([np.mean(np.diff(np.array(o, dtype=int)) != 0) for o in middle])
    assert changes == pytest.approx(0.5, abs=0.07)


def test_all_but_a_run_is_known_and_runs_are_even_in_their_logarithm() -> None:
    lengths, starts = [], []
    for objects in known_by_kind()[OUTSIDE]:
        unknown = np.flatnonzero(~np.array(objects))
        if not len(unknown):
            continue  # the run was that of an object that the window does not have
        assert (np.diff(unknown) == 1).all()
        lengths.append(np.log(len(unknown)) / np.log(len(objects)))
        if len(unknown) <= len(objects) // 2:
            starts.append(unknown[0] / (len(objects) - len(unknown)))
    # Lengths are rounded down, which is felt where they are short.
    assert len(lengths) > 700
    assert np.mean(lengths) == pytest.approx(0.45, abs=0.06)
    assert {np.histogram(lengths, 3, (0, 1))[0].min() > 100} == {True}
    assert np.mean(starts) == pytest.approx(0.5, abs=0.06)
    assert min(starts) == 0 and max(starts) == 1


def test_all_before_an_object_is_known() -> None:
    found = known_by_kind()[BEFORE]
    unknown = []
    for objects in found:
        assert objects == sorted(objects, reverse=True)
        assert not objects[-1]  # something is left to find out
        unknown.append(len(objects) - sum(objects))
    assert min(unknown) == 1 and np.median(unknown) < 10
    assert sum(not any(objects) for objects in found) < 0.1 * len(found)


def test_a_share_of_zero_and_nothing_tell_nothing() -> None:
    types, _ = windows(50, 40)
    assert (
        not KnownDraw.draw((50, 40), 0.0, seeded())
        .mask(types, torch.ones_like(types, dtype=torch.bool))
        .any()
    )
    assert (
        not KnownDraw.nothing((50, 40)).mask(types, torch.ones_like(types, dtype=torch.bool)).any()
    )
    assert (KnownDraw.draw((50, 40), 1.0, seeded()).kinds >= 0).all()


def test_a_part_of_a_draw_is_that_of_its_windows() -> None:
    types, _ = windows(20, 40)
    draw = KnownDraw.draw((20, 40), 0.8, seeded(2))
    whole = draw.mask(types, torch.ones_like(types, dtype=torch.bool))
    parts = [
        draw.part(slice(first, first + 7)).mask(
            types[first : first + 7], torch.ones_like(types[first : first + 7], dtype=torch.bool)
        )
        for first in (0, 7)
    ]
    assert torch.equal(torch.cat(parts), whole[:14]) and whole.any()


def test_a_window_weighs_by_the_root_of_what_is_unknown() -> None:
    """Its loss is a sum over unknown points: all of 16, 4 of 16 and 1 of 9 are known not to be."""
    real = torch.ones(4, 16, dtype=torch.bool)
    real[2, 9:] = False
    counted = real.clone()
    counted[1, 4:] = False
    counted[2, 1:] = False
    counted[3] = False
    assert known_weight(real, counted).tolist() == [1, 2, 3, 4]


# --- what the network makes of them ---------------------------------------------------------------


def tiny_config(**options: object) -> DiTConfig:
    values = {"width": 32, "depth": 2, "heads": 2, "num_classes": 3, "half_window": 16}
    return DiTConfig.from_dict({**values, **ARCHITECTURES["local"], **options})


def randomised(config: DiTConfig) -> DiT:
    """A model whose every parameter is random: freshly initialised ones put out zero."""
    model, generator = DiT(config), seeded(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2, generator=generator)
    return model.eval()


def conditions(n: int = 2, length: int = 20) -> Conditions:
    """A made-up batch without known points."""
    generator = seeded(2)
    return Conditions(
        torch.randint(1, 400, (n, length), generator=generator).cumsum(1).double(),
        torch.rand(n, length, generator=generator) * 300,
        torch.randint(0, 16, (n, length), generator=generator),
        torch.arange(n) % 3,
    )


@pytest.mark.parametrize("architecture", ["local", "rotary"])
def test_the_network_sees_known_coordinates_and_not_their_noise(architecture: str) -> None:
    options = {"neighbours": False, "index_periods": None} if architecture == "rotary" else {}
    model, given = randomised(tiny_config(known_points=True, **options)), conditions()
    x, labels = torch.randn(2, 20, 2, generator=seeded(3)), torch.tensor([30.0, -90.0])
    known = torch.full((2, 20, 2), torch.nan)
    known[:, 5:9] = torch.rand(2, 4, 2, generator=seeded(4))
    network = bind(model, given._replace(known=known))
    other, moved = x.clone(), known.clone()
    other[:, 5:9] += 7
    moved[:, 6] += 0.1
    with torch.no_grad():
        out = network(x, labels)
        assert torch.equal(network(other, labels), out)
        changed = bind(model, given._replace(known=moved))(x, labels)
        untold = bind(model, given)(x, labels)
        other[:, 4] += 7
        assert not torch.allclose(network(other, labels), out, atol=1e-3)
    assert bool(((changed - out).abs().amax(-1) > 1e-5).all())  # of every point
    assert not torch.allclose(untold, out, atol=1e-3)


def test_a_point_told_to_be_where_its_noise_puts_it_is_still_told() -> None:
    """The network can tell a known point from one whose noisy value is the same."""
    model, given = randomised(tiny_config(known_points=True)), conditions()
    x, labels = torch.randn(2, 20, 2, generator=seeded(3)), torch.zeros(2)
    with torch.no_grad():
        told = bind(model, given._replace(known=x))(x, labels)
        assert not torch.allclose(told, bind(model, given)(x, labels), atol=1e-3)


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("parametrisation", [EDM(), LearnedVariance()])
def test_the_loss_counts_no_known_points(parametrisation: EDM | LearnedVariance) -> None:
    """Of a network of single points; padding neither. By hand, from the losses of all points."""
    config = tiny_config(known_points=True)
    objective = Objective(parametrisation, config, CPU, torch.float32, 16, amp=False)
    n, length = 6, 20
    types, _ = windows(n, length)
    valid = torch.ones(n, length, dtype=torch.bool)
    valid[4, 15:] = False
    given = conditions(n, length)._replace(types=types, valid=valid)
    xy = torch.rand(n, length, 2, generator=seeded(5)) * 300
    noise = Noise.draw(
        parametrisation,
        (n, length),
        (0, 4),
        class_dropout=0.0,
        distance_dropout=0.0,
        known_points=1.0,
    )
    known = noise.known.mask(types, valid)
    assert known.any() and not known.all()

    def network(x: Tensor, *_: object) -> Tensor:
        return torch.cat([x / 3, x.clamp(-1, 1)], dim=-1)

    losses = objective.losses(network, Batch(xy, given), noise)
    elsewhere = torch.where(known[..., None], xy + 90, xy)
    assert torch.equal(objective.losses(network, Batch(elsewhere, given), noise), losses)
    counted = valid & ~known
    plain = parametrisation.loss(
        network, parametrisation.from_pixels(xy), noise.levels, noise.eps, counted
    )
    weight = [(v.sum() / max(int(c.sum()), 1)) ** 0.5 for v, c in zip(valid, counted, strict=True)]
    torch.testing.assert_close(losses, plain * torch.stack(weight))
    assert not torch.allclose(
        objective.losses(network, Batch(xy + 90 * ~known[..., None], given), noise), losses
    )


def learnt_error(told: bool, steps: int = 100) -> float:
    """Root mean square error of a point that mirrors the first one, seen through coarse noise.

    A `DiT-nano` learns windows of five circles; `told` says whether the first four are given.
    """
    torch.manual_seed(0)
    model = DiT_models["DiT-nano"](architecture="local", num_classes=1, known_points=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator, n, sigma = seeded(6), 32, torch.tensor(3.0)
    times = torch.arange(5.0)[None].expand(n, -1) * 200
    given = Conditions(
        times, torch.full((n, 5), -1.0), torch.zeros(n, 5), torch.zeros(n, dtype=torch.long)
    )
    errors = []
    for _ in range(steps):
        x0 = torch.randn(n, 5, 2, generator=generator)
        x0[:, 4] = -x0[:, 0]
        known = torch.where(torch.arange(5)[:, None] < 4, x0, torch.nan) if told else None
        noisy = x0 + sigma * torch.randn(n, 5, 2, generator=generator)
        found = EDM().denoise(bind(model, given._replace(known=known)), noisy, sigma)
        error = ((found - x0)[:, 4] ** 2).mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    return float(np.mean(errors[-20:])) ** 0.5


def test_what_follows_from_known_points_is_learnt_from_them() -> None:
    """Through noise of three deviations nothing else says where the point is."""
    torch.set_num_threads(1)
    told, untold = learnt_error(True), learnt_error(False)
    assert untold > 0.8 and told < 0.5 * untold


# --- starting from models without -----------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["local", "rotary"])
def test_a_model_made_able_gives_the_same_without_known_points(architecture: str) -> None:
    options = {"neighbours": False, "index_periods": None} if architecture == "rotary" else {}
    config = tiny_config(**options)
    model, given = randomised(config), conditions()
    weights = model.state_dict()
    ema = {name: value * 0.5 for name, value in weights.items()}
    moments = {name: {"exp_avg": torch.ones(1)} for name in weights}
    state = TrainingState(Path("a.pt"), "run", config, EDM(), weights, ema, moments)
    able = state.with_known_points()
    assert able.config == replace(config, known_points=True)
    assert weights.keys() - able.moments.keys() == {FIRST_LAYER}
    x = torch.randn(2, 20, 2, generator=seeded(3), dtype=torch.float64)
    labels = torch.tensor([30.0, -90.0])
    nothing = given._replace(known=torch.full((2, 20, 2), torch.nan))
    for before, after in ((weights, able.model), (ema, able.ema)):
        plain, wide = DiT(config).double(), DiT(able.config).double()
        plain.load_state_dict(before)
        wide.load_state_dict(after)
        with torch.no_grad():
            expected = bind(plain, given)(x, labels)
            for told in (given, nothing):
                # Sums of another length may be added in another order: the last digits differ.
                found = bind(wide, told)(x, labels)
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_run_with_known_points_starts_from_an_export_without(
    packed: PackedDataset, tmp_path: Path
) -> None:
    """At a learning rate of 0 the weights are the export's with zeros between them."""
    plain = run_train(packed.folder, tmp_path / "a", "--known-points", 0, "--max-steps", 2)
    export = plain / "model.safetensors"
    assert not load_model(export).model.config.known_points
    flags = ("--ckpt", export, "--max-steps", 2)
    folder = run_train(packed.folder, tmp_path / "b", *flags, "--lr", 0)
    state = load_training_checkpoint(folder / "checkpoints" / "0000002.pt")
    expected = read_training_state(export).with_known_points()
    for name, value in expected.model.items():
        assert torch.equal(state["model"][name], value), name
    assert load_model(folder / "model.safetensors").model.config.known_points
    learnt = run_train(packed.folder, tmp_path / "c", *flags, "--max-steps", 6)
    weights = load_model(learnt / "model.safetensors").model.state_dict()[FIRST_LAYER]
    shown = weights.unflatten(1, (3, -1))[..., -1]
    assert bool((shown.abs().sum(0) > 0).all())  # of the point and of both its neighbours


def test_a_run_goes_on_able_to_be_told(
    packed: PackedDataset, trained: Path, tmp_path: Path
) -> None:
    """A model that can be told is trained on as one; the flag says how often it is told."""
    newest = max((trained / "checkpoints").glob("*.pt"))
    assert load_training_checkpoint(newest)["config"]["known_points"]
    flags = ("--ckpt", newest, "--known-points", 0, "--max-steps", 12)
    with pytest.raises(CheckpointError, match="--known-points"):
        run_train(packed.folder, tmp_path, *flags)
    more = ("--ckpt", newest, "--known-points", 0.1, "--max-steps", 12)
    folder = run_train(packed.folder, tmp_path, *more)
    state = load_training_checkpoint(folder / "checkpoints" / "0000012.pt")
    assert state["config"]["known_points"] and state["model"][TABLE].isfinite().all()


def test_the_public_architecture_is_told_nothing(packed: PackedDataset, tmp_path: Path) -> None:
    """Its first layer has no place for it."""
    flags = ("--architecture", "reference", "--max-steps", 1)
    folder = run_train(packed.folder, tmp_path, *flags)
    assert not load_model(folder / "model.safetensors").model.config.known_points


def test_padding_is_no_object_and_never_known() -> None:
    """A short map ends in a circle, whose type fills the window up."""
    types = torch.zeros(200, 40, dtype=torch.uint8)
    valid = torch.arange(40) < 5
    mask = KnownDraw.draw((200, 40), 1.0, seeded()).mask(types, valid.expand(200, -1))
    assert not mask[:, 5:].any()
    # All but a run of objects, of one to five: were padding objects, runs would lie in it.
    assert int(mask.sum(1).min()) + 1 > 0 and int(mask.sum(1).max()) <= 5
    assert {int(n) for n in mask.sum(1)} == set(range(6))
