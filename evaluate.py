"""Remaps a folder of held-out beatmaps and measures the written files, read back.

Measured are what must not change, spacing, the playfield, shapes and stacks (`fidelity`), how
far the remaps' placement is from that of real maps (`realism`), whether two judges can tell them
apart, one by features of placement (`classifier`), one by bare geometry (`geometry_judge`), and
with --denoising the network alone. --remaps measures files that exist already.
"""

from conventions import requirements_check  # (first: says what is missing)

if __name__ == "__main__":
    requirements_check.announce()

# isort: split
import argparse
from pathlib import Path

from checkpoint import load_model
from constraints.spacing import CHOICES, Spacing
from conventions import command_line
from conventions.bundled import DEFAULT_MODEL
from conventions.errors import naming
from diffusion.samplers import SOLVERS
from sampling.evaluation import EvaluationRequest, evaluate
from sampling.options import DEFAULT_STEPS, SampleOptions

NAMES = command_line.flag_names(steps="--num-sampling-steps")


def make_parser() -> argparse.ArgumentParser:
    """The command line of evaluate.py."""
    parser = argparse.ArgumentParser(
        usage="python evaluate.py FOLDER [flags]",
        description=__doc__,
        formatter_class=command_line.HelpFormatter,
    )
    add, boolean = parser.add_argument, command_line.BooleanFlag
    add("folder", type=Path, help="folder of .osu files (recursive)")
    add(
        "--ckpt", type=Path, default=DEFAULT_MODEL, help="model: .safetensors, .pt or hf:OWNER/NAME"
    )
    add("--output", type=Path, default=Path("results/evaluation"), help="folder for the tables")
    add("--save-maps", action=boolean, default=False, help="also write the remapped files there")
    add("--overwrite", action=boolean, default=False, help="replace existing tables and maps")
    add(
        "--remaps",
        type=Path,
        help="measure the remaps in this folder, of the same names (--save-maps), and sample none",
    )
    add("--limit", type=int, help="only so many maps, evenly spread")
    add("--seed", type=int, default=0, help="of the remaps and of what is drawn at random")
    add("--num-sampling-steps", type=int, default=DEFAULT_STEPS, help="as for sample.py")
    add("--sampler", choices=["auto", *SOLVERS], default="auto", help="as for sample.py")
    add("--spacing", default="keep", help=f"as for sample.py: {CHOICES}")
    add("--structure", choices=["keep", "clean", "off"], default="keep", help="as for sample.py")
    add("--guidance", type=float, metavar="WEIGHT", help="as for sample.py")
    add(
        "--bounds",
        choices=["playfield", "screen", "off"],
        default="playfield",
        help="as for sample.py",
    )
    add("--half-window", type=int, help="attention half window; default: the model's")
    add("--denoising", action=boolean, default=False, help="also measure the network alone")
    add("--sampling", action=boolean, default=True, help="remap; off with --denoising alone")
    add("--device", default="auto", help="cuda, mps, cpu or auto")
    return parser


def request_from(args: argparse.Namespace) -> EvaluationRequest:
    """The request that parsed flags make."""
    options = SampleOptions(
        steps=args.num_sampling_steps,
        sampler=args.sampler,
        seed=args.seed,
        spacing=Spacing.parse(args.spacing),
        bounds=args.bounds,
        structure=args.structure,
        guidance=args.guidance,
        half_window=args.half_window,
    )
    return EvaluationRequest(
        args.folder,
        args.output,
        options,
        args.limit,
        args.remaps,
        args.save_maps,
        args.overwrite,
        args.denoising,
        args.sampling,
    )


@naming(NAMES)
def main() -> int:
    args = make_parser().parse_args()
    request = request_from(args)
    loaded = None if args.remaps else load_model(args.ckpt, command_line.pick_device(args.device))
    return 1 if evaluate(request, loaded).failed else 0


if __name__ == "__main__":
    command_line.run(main)
