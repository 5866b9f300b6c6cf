"""Remaps a beatmap: keeps its rhythm and spacing, gives every object a new position."""

from conventions import requirements_check  # (first: says what is missing)

# isort: split
import gc

if __name__ == "__main__":
    requirements_check.announce()
    gc.disable()  # what is imported stays: looking for garbage in it takes a tenth of the time

# isort: split
import argparse
import sys

from beatmaps.inputs import find_inputs, is_archive
from checkpoint import LoadedModel
from conventions import command_line
from conventions.errors import naming
from conventions.precision import amp_warning
from conventions.ranks import process_group
from models import size_name
from sampling import report
from sampling.check import check_result
from sampling.flags import NAMES, remap_parser, request_from
from sampling.loaded_models import load_models
from sampling.many_maps import Tally
from sampling.remap_files import FileRemapper
from viewer.previews import HOW_TO_WATCH


def make_parser() -> argparse.ArgumentParser:
    """The command line of sample.py."""
    return remap_parser(__doc__)


def check_model(loaded: LoadedModel, size: str | None, num_classes: int | None) -> None:
    """Checks that `--model` and `--num-classes`, if given, are those of the checkpoint."""
    config = loaded.model.config
    if size is not None and size_name(config) != size:
        raise ValueError(
            f"--model {size}: the checkpoint holds a {size_name(config)}; leave --model out"
        )
    if num_classes is not None and num_classes != config.num_classes:
        raise ValueError(
            f"--num-classes {num_classes}: the checkpoint has {config.num_classes}; "
            "leave --num-classes out"
        )


@naming(NAMES)
def main() -> int:
    args = make_parser().parse_args()
    request = request_from(args)
    if args.check is not None:
        return check_result(args.check, request)
    with process_group("gloo", minutes=14 * 24 * 60) as ranks:
        device = command_line.pick_device(args.device, ranks.local_rank)
        if warning := amp_warning(device, request.options.use_amp):
            print(f"warning: {warning}", file=sys.stderr)
        models = load_models(request, device)
        check_model(models.sampler, args.model, args.num_classes)
        paths, left_out = find_inputs(request.sources, request.output)
        command_line.check_folder(request.output)
        single = len(paths) == 1 and not left_out and not request.choice.all_difficulties
        if args.picture is None:  # only of a single map
            args.picture = single
            request = request_from(args)
        remapper = FileRemapper(models, request, vars(args))
        if not single or ranks.world_size > 1:
            return remapper.remap_files(paths, left_out, ranks)
        remapper.remap_file(paths[0], Tally(strict=True))
    print(report.how_to_play(request.choice.into_archive(is_archive(paths[0]))))
    if "html" in request.pictures.kinds:
        print(HOW_TO_WATCH)
    return 0


if __name__ == "__main__":
    gc.freeze()
    gc.enable()
    command_line.run(main)
