"""Training: runs of seconds on made-up maps, resumed, fine-tuned and on two processes."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import train
from checkpoint import load_model, load_training_checkpoint
from conventions.ranks import Ranks, process_group
from data_loading import PackedDataset
from datasets.class_tables import load_beatmap_idx
from diffusion.parametrisation import EDM, LearnedVariance
from models import SIZES
from tests.conftest import (
    TRAIN_STEPS,
    assert_equal,
    call_main,
    pack_maps,
    read_json,
    run_command,
    run_train,
    train_flags,
    write_maps,
)
from training.flags import training_options
from training.objective import Noise
from training.options import TrainingOptions
from training.setup import choose_rows
from training.state import TABLE


def checkpoint(folder: Path, step: int = TRAIN_STEPS) -> dict[str, Any]:
    return load_training_checkpoint(folder / "checkpoints" / f"{step:07d}.pt")


def losses(folder: Path) -> list[float]:
    text = (folder / "log.txt").read_text(encoding="utf-8")
    return [float(value) for value in re.findall(r"Train Loss: ([-\d.naif]+)", text)]


def parse(*flags: object) -> TrainingOptions:
    result: list[TrainingOptions] = []

    def main() -> int:
        result.append(training_options(train.make_parser().parse_args()))
        return 0

    call_main(main, *flags)
    return result[0]


# --- the loop -------------------------------------------------------------------------------------


def test_the_loss_falls_on_a_problem_that_can_be_learnt(tmp_path: Path) -> None:
    """One short map, learnt by heart."""
    write_maps(tmp_path / "songs", [0], count=24)
    data = pack_maps(tmp_path / "songs", tmp_path / "packed").folder
    flags = ("--max-steps", 600, "--lr", 5e-3, "--stride", 1, "--class-dropout", 0)
    values = losses(run_train(data, tmp_path, *flags, "--log-every", 60))
    assert len(values) == 10
    assert np.mean(values[-3:]) < 0.5 * values[0], values


def test_ten_steps_are_five_and_five_more_bit_by_bit(
    packed: PackedDataset, trained: Path, tmp_path: Path
) -> None:
    """Weights, EMA, optimiser and log."""
    half = trained / "checkpoints" / "0000005.pt"
    resumed = run_train(packed.folder, tmp_path, "--ckpt", half)
    whole, again = checkpoint(trained), checkpoint(resumed)
    for part in ("model", "ema", "opt", "config", "parametrisation", "step"):
        assert_equal(whole[part], again[part], part)
    assert losses(resumed) == losses(trained)[5:]
    assert not torch.equal(whole["model"][TABLE], checkpoint(trained, 5)["model"][TABLE])
    assert not torch.equal(whole["model"][TABLE], whole["ema"][TABLE])


def test_another_seed_is_another_run(packed: PackedDataset, trained: Path, tmp_path: Path) -> None:
    other = run_train(packed.folder, tmp_path, "--global-seed", 1, "--max-steps", 2)
    assert losses(other) != losses(trained)[:2]


def test_what_a_run_leaves_is_ready_to_sample(packed: PackedDataset, trained: Path) -> None:
    """The EMA in bfloat16, the class index and the table of classes."""
    assert len(losses(trained)) == TRAIN_STEPS
    loaded = load_model(trained / "model.safetensors")
    assert isinstance(loaded.parametrisation, EDM)
    config = loaded.model.config
    assert {"width": config.width, "depth": config.depth, "heads": config.heads} == SIZES[
        "DiT-nano"
    ]
    assert (config.num_classes, config.half_window) == (len(packed), 16)
    assert loaded.metadata["steps"] == TRAIN_STEPS and loaded.metadata["maps"] == len(packed)
    ema = checkpoint(trained)["ema"]
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, ema[name].bfloat16().float()), name
    assert load_beatmap_idx(trained / "beatmap_idx.pickle") == packed.beatmap_idx()
    table = (trained / "model.classes.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == len(packed) + 1 and packed.beatmaps["md5"][0] in table[1]


def test_the_learning_rate_warms_up_and_falls(packed: PackedDataset, trained: Path) -> None:
    text = (trained / "log.txt").read_text(encoding="utf-8")
    rates = [float(value) for value in re.findall(r"LR: (\S+)", text)]
    factors = [min(1, (s + 1) / 2) * (1 - 0.95 * s / TRAIN_STEPS) for s in range(TRAIN_STEPS)]
    np.testing.assert_allclose(rates, 5e-4 * np.array(factors), rtol=0.01)


@pytest.mark.parametrize("world_size", [2, 3])
def test_the_noise_of_all_ranks_is_that_of_the_global_batch(world_size: int) -> None:
    dropout: dict[str, Any] = {"class_dropout": 0.5, "distance_dropout": 0.5, "groups": 3}
    for parametrisation in (EDM(), LearnedVariance()):
        whole = Noise.draw(parametrisation, (8, 5), (3, 7), **dropout)
        parts = [whole.part(Ranks(r, r, world_size).share(8)) for r in range(world_size)]
        names = ("levels", "eps", "drop_class", "drop_distances", "time_shift", "drop_groups")
        for name in names:
            joined = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(joined, getattr(whole, name)), name
        repeated = Noise.draw(parametrisation, (8, 5), (3, 7), **dropout, repeats=0.5)
        assert torch.equal(repeated.eps, whole.eps) and repeated.repeats is not None
        again = Noise.draw(parametrisation, (8, 5), (3, 8), **dropout)
        assert not torch.equal(whole.eps, again.eps)


FAILURE = (
    r"the loss is (nan|inf) by step \d+ \(gradient norm \S+, epoch 0, batch \d+\) for 4 of 4 "
    r"windows, first beatmap 10\d \(MD5 [0-9a-f]{32}\) from point \d+ at sigma [\d.]+ px.*"
    r"lower --lr"
)


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_not_finite_ends_the_run(
    packed: PackedDataset, tmp_path: Path, log_every: int
) -> None:
    """Also between two lines of the log; nothing of it is kept."""
    flags = ("--lr", 1e30, "--warmup-steps", 1, "--log-every", log_every, "--ckpt-every", 4)
    with pytest.raises(ValueError, match=FAILURE):
        run_train(packed.folder, tmp_path, *flags)
    assert not list(tmp_path.rglob("*.safetensors"))
    for path in tmp_path.rglob("*.pt"):
        weights = load_training_checkpoint(path)["model"]
        assert all(value.isfinite().all() for value in weights.values())


def test_the_reference_parametrisation_and_architecture_train(
    packed: PackedDataset, tmp_path: Path
) -> None:
    flags: tuple[object, ...] = (
        "--architecture",
        "reference",
        "--parametrisation",
        "learned-variance",
    )
    flags += ("--max-steps", "2", "--l1-loss", "False", "--noise-schedule", "linear")
    folder = run_train(packed.folder, tmp_path, *flags)
    assert np.isfinite(losses(folder)).all()
    loaded = load_model(folder / "model.safetensors")
    assert isinstance(loaded.parametrisation, LearnedVariance)
    assert not loaded.parametrisation.l1
    assert loaded.parametrisation.schedule.betas[0].item() == pytest.approx(1e-4)
    assert loaded.model.config.learn_sigma and loaded.model.config.time_dim == 128


# --- flags ----------------------------------------------------------------------------------------


def test_the_command_of_the_references_readme_parses() -> None:
    command = (
        "--data-path PATH --model DiT-B --num-workers 4 --epochs 100 --global-batch-size 256 "
        "--ckpt-every 20000 --seq-len 128 --dist gloo"
    )
    args = parse(*command.split())
    assert (args.data_path, args.model, args.num_workers) == (Path("PATH"), "DiT-B", 4)
    assert (args.epochs, args.global_batch_size, args.ckpt_every) == (100, 256, 20000)
    assert (args.seq_len, args.dist) == (128, "gloo")


def test_all_flags_of_the_reference_parse() -> None:
    command = (
        "--data-path PATH --num-classes 9 --data-start 1 --data-end 2 --results-dir OUT "
        "--model DiT-XL --epochs 3 --global-batch-size 4 --global-seed 5 --num-workers 6 "
        "--log-every 7 --ckpt-every 8 --seq-len 9 --stride 10 --use-amp False --ckpt C.pt "
        "--dist nccl --fine-tune-ids 11,12 --noise-schedule squaredcos_cap_v2 --l1-loss False "
        "--lr 1e-4 --relearn-embeds True --embed-only-epochs 13"
    )
    args = parse(*command.split())
    numbers = [args.num_classes, args.data_start, args.data_end, args.epochs]
    numbers += [args.global_batch_size, args.global_seed, args.num_workers, args.log_every]
    numbers += [args.ckpt_every, args.seq_len, args.stride, args.embed_only_epochs]
    assert numbers == [9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 13]
    assert (args.use_amp, args.l1_loss, args.relearn_embeds) == (False, False, True)
    assert (args.ckpt, args.results_dir) == (Path("C.pt"), Path("OUT"))
    assert (args.fine_tune_ids, args.lr) == ("11,12", 1e-4)
    assert args.noise_schedule == "squaredcos_cap_v2"
    amp = parse("--data-path", "PATH", "--use-amp", "True")
    assert (amp.use_amp, amp.l1_loss, amp.relearn_embeds) == (True, None, False)


def test_too_few_classes_are_an_error(
    packed: PackedDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = train_flags(packed.folder, tmp_path, "--num-classes", len(packed) - 1)
    assert run_command(train.main, *flags) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "error: --num-classes 5 is too small: the dataset has 6 classes"


def test_nccl_without_cuda_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="use dist gloo"), process_group("nccl"):
        pass


def test_nccl_that_torch_lacks_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, with a GPU."""
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    with (
        pytest.raises(ValueError, match=r"not in this torch.* use dist gloo"),
        process_group("nccl"),
    ):
        pass


def test_mixed_precision_trains_on_a_cpu_too(packed: PackedDataset, tmp_path: Path) -> None:
    """The EMA follows that of float32, though not to the digit."""
    flags = ("--max-steps", TRAIN_STEPS, "--use-amp")
    half, full = (checkpoint(run_train(packed.folder, tmp_path, *flags, v)) for v in (True, False))
    name = "blocks.0.mlp.fc1.weight"
    assert not torch.equal(half["ema"][name], full["ema"][name])
    torch.testing.assert_close(half["ema"][name], full["ema"][name], rtol=0, atol=5e-3)


def test_without_a_compiler_training_goes_on_uncompiled(
    packed: PackedDataset, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt leaves no trace in the result."""

    def compiled(model: torch.nn.Module) -> torch.nn.Module:
        def forward(*args: Any) -> Tensor:
            raise RuntimeError("Compiler: cl is not found.\nmore")

        network = torch.nn.Module()
        network.forward = forward
        return network

    monkeypatch.setattr(torch, "compile", compiled)
    folder = run_train(packed.folder, tmp_path, "--compile")
    text = (folder / "log.txt").read_text(encoding="utf-8")
    assert "going on without it: Compiler: cl is not found. more" in text
    assert_equal(dict(checkpoint(folder)["model"]), dict(checkpoint(trained)["model"]))


# --- fine-tuning ----------------------------------------------------------------------------------


def choose(packed: PackedDataset, ids: str) -> list[int]:
    args = TrainingOptions(Path("unused"), fine_tune_ids=ids)
    rows, _ = choose_rows(args, packed)
    return [int(packed.beatmaps["beatmap_id"][row]) for row in rows]


def test_fine_tuning_takes_the_maps_that_are_named(packed: PackedDataset, tmp_path: Path) -> None:
    assert sorted(choose(packed, "102,104")) == [102, 104]
    (tmp_path / "ids.txt").write_text("101\n103, 106\n", encoding="utf-8")
    assert sorted(choose(packed, str(tmp_path / "ids.txt"))) == [101, 103, 106]
    many = ",".join(["101", "102"] * 500)  # longer than a file name may be
    assert sorted(choose(packed, many)) == [101, 102]


@pytest.mark.parametrize(("ids", "message"), [("101,7", r"no beatmap \[7\]"), ("a,b", "by commas")])
def test_fine_tuning_on_unknown_maps_is_an_error(
    packed: PackedDataset, ids: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        choose(packed, ids)


def test_held_out_sets_are_not_trained_on(packed: PackedDataset) -> None:
    args = TrainingOptions(Path("unused"), validation_fraction=0.5, global_seed=1)
    train_rows, held_out = packed.split_by_set(0.5, 1)
    chosen = choose_rows(args, packed)
    assert len(held_out)
    assert [rows.tolist() for rows in chosen] == [train_rows.tolist(), held_out.tolist()]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> PackedDataset:
    """Maps with other IDs, and fewer."""
    folder = tmp_path_factory.mktemp("other")
    write_maps(folder / "songs", range(20, 23))
    return pack_maps(folder / "songs", folder / "packed")


def test_another_number_of_classes_needs_relearn_embeds(
    trained: Path, other: PackedDataset, tmp_path: Path
) -> None:
    last = trained / "checkpoints" / f"{TRAIN_STEPS:07d}.pt"
    with pytest.raises(ValueError, match="6 classes, the dataset 3: add --relearn-embeds"):
        run_train(other.folder, tmp_path, "--ckpt", last)
    with pytest.raises(ValueError, match="another size or architecture"):
        run_train(other.folder, tmp_path, "--ckpt", last, "--model", "DiT-XXS")


def test_a_run_starts_from_the_weights_of_an_export(
    packed: PackedDataset, trained: Path, tmp_path: Path
) -> None:
    """At a learning rate of zero they are the export's still; the steps count from zero."""
    export = trained / "model.safetensors"
    folder = run_train(packed.folder, tmp_path, "--ckpt", export, "--lr", 0, "--max-steps", 2)
    state = checkpoint(folder, 2)
    assert state["step"] == 2
    assert_equal(dict(state["model"]), dict(load_model(export).model.state_dict()))


def test_an_export_of_another_size_is_an_error(
    packed: PackedDataset, trained: Path, tmp_path: Path
) -> None:
    export = trained / "model.safetensors"
    with pytest.raises(ValueError, match="another size or architecture"):
        run_train(packed.folder, tmp_path, "--ckpt", export, "--model", "DiT-XXS")


def test_distances_are_dropped_for_whole_windows(
    packed: PackedDataset, trained: Path, tmp_path: Path
) -> None:
    """A run without any distance is another one than a run with all of them."""
    without = run_train(packed.folder, tmp_path, "--distance-dropout", 1)
    assert not torch.equal(checkpoint(without)["model"][TABLE], checkpoint(trained)["model"][TABLE])


def test_relearn_embeds_keeps_the_trunk_and_renews_the_class_table(
    trained: Path, other: PackedDataset, tmp_path: Path
) -> None:
    last = trained / "checkpoints" / f"{TRAIN_STEPS:07d}.pt"
    flags = ("--ckpt", last, "--relearn-embeds", "--max-steps", 1, "--lr", 0)
    old, new = checkpoint(trained), checkpoint(run_train(other.folder, tmp_path, *flags), 1)
    assert new["step"] == 1 and new["config"]["num_classes"] == 3
    for name, value in old["model"].items():
        if name != TABLE:
            assert torch.equal(new["model"][name], value), name
    table = new["model"][TABLE]
    assert table.shape == (4, 64) and table.std().item() == pytest.approx(0.02, rel=0.3)
    assert not torch.equal(table[:3], old["model"][TABLE][:3])


def test_embed_only_epochs_change_only_the_class_table(
    trained: Path, other: PackedDataset, tmp_path: Path
) -> None:
    last = trained / "checkpoints" / f"{TRAIN_STEPS:07d}.pt"
    flags: tuple[object, ...] = ("--ckpt", last, "--relearn-embeds", "--max-steps", 4)
    flags += ("--ckpt-every", 1, "--keep-last", 4)
    flags += ("--warmup-steps", 1, "--embed-only-epochs", 100)
    old, folder = checkpoint(trained), run_train(other.folder, tmp_path, *flags)
    first, new = checkpoint(folder, 1), checkpoint(folder, 4)
    for name, value in old["model"].items():
        if name != TABLE:
            assert torch.equal(new["model"][name], value), name
    assert not torch.equal(new["model"][TABLE], first["model"][TABLE])


def test_after_the_embed_only_epochs_everything_is_trained(
    trained: Path, other: PackedDataset, tmp_path: Path
) -> None:
    last = trained / "checkpoints" / f"{TRAIN_STEPS:07d}.pt"
    flags: tuple[object, ...] = ("--ckpt", last, "--relearn-embeds", "--embed-only-epochs", 1)
    flags += ("--ckpt-every", 1, "--keep-every", 1)
    folder = run_train(other.folder, tmp_path, *flags)
    found = re.search(r"(\d+) in an epoch", (folder / "log.txt").read_text(encoding="utf-8"))
    assert found and 1 < int(found[1]) < TRAIN_STEPS
    old = checkpoint(trained)["model"]

    def trunk_moved(step: int) -> bool:
        new = checkpoint(folder, step)["model"]
        return any(not torch.equal(new[name], old[name]) for name in old if name != TABLE)

    assert not trunk_moved(int(found[1]))
    assert trunk_moved(int(found[1]) + 1)


def test_a_checkpoint_of_another_program_is_an_error(packed: PackedDataset, tmp_path: Path) -> None:
    torch.save({"state": 1}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="is no training checkpoint"):
        run_train(packed.folder, tmp_path / "results", "--ckpt", tmp_path / "other.pt")


def test_options_are_logged_and_stored(packed: PackedDataset, trained: Path) -> None:
    args = checkpoint(trained)["args"]
    assert args["data_path"] == str(packed.folder) and args["max_steps"] == TRAIN_STEPS
    assert read_json(packed.folder / "dataset.json")["num_beatmaps"] == len(packed)


@pytest.mark.parametrize(
    "flag", ["--epochs", "--max-steps", "--global-batch-size", "--log-every", "--ckpt-every"]
)
def test_numbers_that_make_no_sense_are_refused(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(train.main, "--data-path", tmp_path, flag, "0") == 2
    assert f"{flag} 0: give a number above 0" in capsys.readouterr().err
