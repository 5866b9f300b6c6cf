"""Options of training: what makes a run the same one, also for runs of earlier versions."""

import argparse
import json
from dataclasses import fields
from pathlib import Path

import pytest

from conventions.command_line import flag_names
from conventions.errors import FieldError, naming
from training.flags import training_options, training_parser
from training.options import TrainingOptions
from training.run_folder import open_run

BEGUN_BEFORE = """
{"data_start": null, "data_end": null, "seq_len": 32, "stride": 16, "validation_fraction": 0.2,
"fine_tune_ids": null, "model": "DiT-XXS", "num_classes": null, "architecture": "local",
"parametrisation": "edm", "noise_schedule": null, "l1_loss": null, "half_window": null,
"train_half_window": null, "class_dropout": 0.1, "distance_dropout": 0.0, "known_points": 0.5,
"augment_rotation": 0.0, "augment_scale": 0.0, "epochs": 1400, "max_steps": 20,
"max_minutes": null, "global_batch_size": 8, "accumulate": 1, "global_seed": 0, "lr": 0.0005,
"warmup_steps": 100, "lr_decay": true, "clip": 1.0, "ema_decay": 0.9999, "ckpt": "a/b.pt",
"heads": null, "relearn_embeds": false, "embed_only_epochs": 0, "use_amp": false,
"dtype": "float32", "compile": false}
"""
"""The options in the run.json that a version without `TrainingOptions` wrote."""

FLAGS = (
    "--data-path maps --model DiT-XXS --seq-len 32 --global-batch-size 8 --max-steps 20 "
    "--validation-fraction 0.2 --use-amp False --ckpt a/b.pt"
)


def options(flags: str) -> TrainingOptions:
    return training_options(training_parser().parse_args(flags.split()))


def test_a_run_that_was_begun_before_is_found_by_resume_auto(tmp_path: Path) -> None:
    before = tmp_path / "003-DiT-XXS"
    (before / "checkpoints").mkdir(parents=True)
    text = json.dumps({"options": json.loads(BEGUN_BEFORE), "finished": False})
    (before / "run.json").write_text(text, encoding="utf-8")
    given = options(f"{FLAGS} --log-every 7 --keep-last 2 --device cpu --results-dir elsewhere")
    found = open_run(tmp_path, given.model, given.identity(), "auto")
    found.close()
    assert found.path == before
    for number, more in (
        (4, "--lr 1e-3"),
        (5, "--augment-double-time 0.5"),
        (6, "--max-noise-px 80"),
    ):
        other = options(f"{FLAGS} {more}")
        new = open_run(tmp_path, other.model, other.identity(), "auto")
        new.close()
        assert new.path == tmp_path / f"00{number}-DiT-XXS"


def test_what_came_later_counts_as_its_default_in_runs_of_before(tmp_path: Path) -> None:
    before = json.loads(BEGUN_BEFORE)
    folder = open_run(tmp_path, "DiT-XXS", before, "auto")
    folder.close()
    for flags in ("", "--compile", "--grad-checkpointing --wandb osu --profile 3"):
        again = options(f"{FLAGS} {flags}").identity()
        assert folder.differences(again) == {}
        found = open_run(tmp_path, "DiT-XXS", again, "auto")
        found.close()
        assert found.path == folder.path
    other = options(f"{FLAGS} --amp-dtype float16").identity()
    assert folder.differences(other) == {"amp_dtype": ("auto", "float16")}
    new = open_run(tmp_path, "DiT-XXS", other, "auto")
    new.close()
    assert new.path != folder.path


def test_flags_and_python_make_the_same_options() -> None:
    assert options("--data-path maps") == TrainingOptions(Path("maps"))
    dests = [action.dest for action in training_parser()._actions if action.dest != "help"]
    assert dests == [field.name for field in fields(TrainingOptions)]


def test_options_that_make_no_sense_are_refused_by_their_flags() -> None:
    for flags, message in (
        ("--epochs 0", "--epochs 0: give a number above 0"),
        ("--relearn-embeds", "--relearn-embeds renews the class table of a --ckpt: give one"),
        ("--sample-every 5", "held-out maps: add --validation-fraction 0.05"),
    ):
        with pytest.raises(FieldError, match=message), naming(flag_names()):
            options(f"--data-path maps {flags}")


def test_no_namespace_is_needed() -> None:
    assert not isinstance(options("--data-path maps"), argparse.Namespace)
    assert TrainingOptions(Path("a"), results_dir=Path("b")).plain()["results_dir"] == "b"
