"""Makes a folder of a model that can be uploaded to the Hugging Face Hub as it is.

    python testing/export_model.py results/000-DiT-XS/model.safetensors --output x --name me/mine

Weights, the weak model and the expert where they lie beside them, the configuration, a model card.
Others use it by `--ckpt hf:me/mine` then. Of a training checkpoint neither optimiser nor paths are
shared.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# As a script only this folder is on the path; the project is one level up.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from checkpoint import LoadedModel, export_weights, load_model
from conventions import command_line
from conventions.hub import CONFIG, EXPERT, NAME, PREFIX, WEAK, WEIGHTS
from conventions.whole_files import replacing
from models import size_name

SHARED = ("model", "steps", "step", "minutes", "maps", "data_points", "distance_dropout")
"""What is told of a model's training; all else in its file could be about somebody's computer."""
FIGURES = {
    "maps": ("maps", "{:.0f}"),
    "points": ("data points", "{:.0f}"),
    "object_spacing_error_median": ("spacing error of object starts, median", "{:.2f} px"),
    "object_spacing_error_p95": ("the same, 95th percentile", "{:.2f} px"),
    "objects_out_of_bounds": ("objects off the playfield", "{:.0f}"),
    "stacks_broken_share": ("stacked objects that left their pixel", "{:.1%}"),
    "paths_too_short_share": ("paths shorter than their slider", "{:.1%}"),
    "star_rating_change_median_absolute": ("star rating, median of absolute changes", "{:.1%}"),
    "realism_ratio": ("realism ratio (1: as near to real maps as they to each other)", "{:.2f}"),
}
"""Of an evaluation: what the card says, and how."""


@dataclass(frozen=True)
class Card:
    """What a model card says beside what the model's file knows."""

    name: str
    licence: str | None
    trained_on: str | None
    evaluation: dict[str, Any] | None

    def text(self, loaded: LoadedModel, facts: dict[str, Any]) -> str:
        """The README.md, with the head that the Hub reads."""
        head = ["library_name: osu-diffusion", "tags:", "- osu", "- beatmap", "- diffusion"]
        head += [f"license: {self.licence}"] if self.licence else []
        numbers = sum(weight.numel() for weight in loaded.model.parameters())
        config = loaded.model.config
        lines = ["---", *head, "---", "", f"# {self.name.rpartition('/')[2]}", ""]
        lines += [
            "A model for osu-diffusion, which gives the objects of osu!standard beatmaps new",
            f"places: a diffusion transformer of {numbers:,} parameters (width {config.width}, "
            f"depth {config.depth}, {config.heads} heads).",
        ]
        lines += ["", "## Use", "", "```sh", 'python -m pip install "huggingface_hub>=1.0"']
        lines += [f"python sample.py --ckpt hf:{self.name}", "```", "", "## Training", ""]
        lines += [self.trained_on, ""] if self.trained_on else []
        lines += [f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items()]
        lines += ["", "The results are machine-made. Leave what says so in their names and tags."]
        lines += ["", *self.figures()] if self.evaluation is not None else []
        return "\n".join(lines) + "\n"

    def figures(self) -> list[str]:
        """The table of what was measured."""
        assert self.evaluation is not None
        found = {**self.evaluation.get("summary", {}), **self.evaluation}
        rows = [
            f"| {label} | {form.format(found[name])} |"
            for name, (label, form) in FIGURES.items()
            if isinstance(found.get(name), int | float)
        ]
        if not rows:
            raise ValueError("the evaluation has no figures: give the JSON that evaluate.py wrote")
        steps = self.evaluation.get("options", {}).get("steps")
        by = f"Measured by `evaluate.py`, {steps} steps:" if steps else "Measured by `evaluate.py`:"
        return ["## Measured", "", by, "", "| | |", "|---|---|", *rows]


def write_folder(loaded: LoadedModel, card: Card, folder: Path) -> list[Path]:
    """Writes all files, each whole or not at all; returns them."""
    card_text = card.text(loaded, facts_of(loaded))
    folder.mkdir(parents=True, exist_ok=True)
    beside = {WEIGHTS: loaded, WEAK: loaded.weak, EXPERT: loaded.expert}
    models = {name: model for name, model in beside.items() if model is not None}
    for name, model in models.items():
        metadata = facts_of(model)
        if "vocabulary" in model.metadata:  # a model that is told of tags cannot be read without
            metadata["vocabulary"] = model.metadata["vocabulary"]
        state, config = model.model.state_dict(), model.model.config
        export_weights(folder / name, state, config, model.parametrisation, metadata)
    description = {
        "model_type": "osu-diffusion",
        "architecture": loaded.model.config.to_dict(),
        "parametrisation": loaded.parametrisation.to_dict(),
        "training": facts_of(loaded),
    }
    texts = {
        CONFIG: json.dumps(description, indent=1) + "\n",
        "README.md": card_text,
    }
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in (*models, *texts)]


def facts_of(loaded: LoadedModel) -> dict[str, Any]:
    """What may be told of how a model was trained."""
    facts = {name: loaded.metadata[name] for name in SHARED if name in loaded.metadata}
    # Exports of before call a model with more blocks by the name of the one without.
    return facts | ({"model": size_name(loaded.model.config)} if "model" in facts else {})


def read_evaluation(path: Path | None) -> dict[str, Any] | None:
    """The JSON of an evaluation; ValueError where it is none."""
    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: give the one that evaluate.py wrote") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} is no evaluation: give the JSON that evaluate.py wrote")
    return found


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "model",
        type=Path,
        help=".safetensors or .pt; NAME.weak.safetensors and NAME.expert.safetensors come along",
    )
    add("--output", type=Path, required=True, help="the folder to make")
    add("--name", required=True, help="what it will be on the Hub: OWNER/NAME")
    add("--license", help="of the weights, as the Hub names licences, such as mit")
    add("--trained-on", help="a sentence on the maps that it learnt from")
    add("--evaluation", type=Path, help="the JSON of evaluate.py, for the card's table")
    add("--overwrite", action="store_true", help="write into a folder that has files")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    if NAME.fullmatch(f"{PREFIX}{args.name}") is None:
        raise ValueError(f"--name {args.name}: give OWNER/NAME, as the Hub will call the model")
    command_line.check_folder(args.output)
    if args.output.is_dir() and any(args.output.iterdir()) and not args.overwrite:
        raise ValueError(f"{args.output} has files: add --overwrite or choose another folder")
    card = Card(args.name, args.license, args.trained_on, read_evaluation(args.evaluation))
    for path in write_folder(load_model(args.model), card, args.output):
        print(f"wrote {path}")
    print(f"upload it with: hf upload {args.name} {args.output}")
    return 0


if __name__ == "__main__":
    command_line.run(main)
