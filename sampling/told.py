"""What models of osu-diffusion v2's kind are told of a map, and the flags that say it."""

import argparse
import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from beatmaps.osu_file import Beatmap
from beatmaps.star_rating import star_rating
from checkpoint import LoadedModel
from conditions.vocabulary import Told, Vocabulary
from conventions.bundled import DEFAULT_MODEL
from sampling.style import Progress, Request, Style, style_of_files, weighted_parts


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of experts, and of models that are told of a map."""
    part = parser.add_argument_group(
        "a second model, and what models like osu-diffusion v2 are told of the map"
    ).add_argument
    part(
        "--expert-ckpt",
        type=Path,
        metavar="FILE",
        help="a model that takes over where there is little noise, such as an osu-diffusion v2",
    )
    part(
        "--expert-below",
        type=float,
        metavar="PX",
        help="the noise from which on it does; default: what it was trained at",
    )
    part(
        "--max-noise-step",
        type=int,
        metavar="STEP",
        help="of 1000 timesteps, how many an osu-diffusion v2 was trained at; default: 100, as the "
        "published one",
    )
    part("--descriptors", nargs="+", metavar="NAME", help='user tags, such as "style/clean"')
    part(
        "--negative-descriptors",
        nargs="+",
        metavar="NAME",
        help="user tags to keep away from; needs a --cfg-scale above 1",
    )
    part("--star-rating", type=float, metavar="STARS", help="default: the map's")
    part("--circle-size", type=float, metavar="CS", help="default: the map's")


def check_flags(args: argparse.Namespace) -> None:
    """Refuses values that mean nothing and flags that would have no effect: ValueError."""
    for flag, value in (("--star-rating", args.star_rating), ("--circle-size", args.circle_size)):
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{flag} {value:g}: give a number from 0 on")
    if args.expert_below is not None and not 0 < args.expert_below < math.inf:
        raise ValueError(f"--expert-below {args.expert_below:g}: give a number above 0")
    if args.expert_below is not None and args.expert_ckpt is None:
        raise ValueError("--expert-below says when an expert takes over: give --expert-ckpt")
    if args.negative_descriptors and args.cfg_scale <= 1:
        raise ValueError(
            "--negative-descriptors works through guidance: give a --cfg-scale above 1"
        )


def check_models(models: Sequence[LoadedModel | None], args: argparse.Namespace) -> None:
    """ValueError where something is to be told and none of the models can be told it."""
    flags = ("descriptors", "negative_descriptors", "star_rating", "circle_size")
    given = [f"--{flag.replace('_', '-')}" for flag in flags if getattr(args, flag) is not None]
    if given and not any(model is not None and model.vocabulary is not None for model in models):
        raise ValueError(
            f"{given[0]}: {models[0].path.name if models[0] else 'the model'} knows beatmaps "
            "alone; models like osu-diffusion v2 are told such things (--ckpt or --expert-ckpt)"
        )


def says_style(args: argparse.Namespace) -> bool:
    """Whether descriptors are asked for, or to be kept away from."""
    return bool(args.descriptors or args.negative_descriptors)


def describe(args: argparse.Namespace) -> list[str]:
    """Words for the name of a result; none for the defaults."""
    words = [" ".join(args.descriptors)] if args.descriptors else []
    if args.negative_descriptors:
        words.append(f"without {' '.join(args.negative_descriptors)}")
    words += [f"{args.star_rating:g} stars"] if args.star_rating is not None else []
    words += [f"CS {args.circle_size:g}"] if args.circle_size is not None else []
    # Names of descriptors have slashes, names of files do not.
    words = [text.replace("/", " ") for text in words]
    return words + ([f"finished by {args.expert_ckpt.stem}"] if args.expert_ckpt else [])


def of_beatmap(beatmap: Beatmap, args: argparse.Namespace) -> Told:
    """The map's star rating and circle size, unless the flags give others."""
    stars = star_rating(beatmap.raw) if args.star_rating is None else args.star_rating
    size = beatmap.circle_size if args.circle_size is None else args.circle_size
    return Told(star_rating=stars, circle_size=size)


def style(
    loaded: LoadedModel,
    told_of: Told,
    requests: tuple[Request, Request],
    args: argparse.Namespace,
    progress: Progress,
) -> Style:
    """The embeddings of what is wanted of a map, and of what is not, of which it is `told_of`.

    Where nothing is unwanted guidance leads away from a style that is unknown.
    """
    wanted, unwanted = requests
    cache = args.output / ".cache"
    liked, disliked = (
        replace(told_of, descriptors=tuple(names or ()))
        for names in (args.descriptors, args.negative_descriptors)
    )
    return Style(
        embedding(loaded, liked, wanted, cache, progress),
        embedding(loaded, disliked, unwanted, cache, progress),
    )


def embedding(
    loaded: LoadedModel, told_of: Told, request: Request, cache: Path, progress: Progress
) -> Tensor:
    """The embedding (D,) of a map of which `told_of` is told, in the styles of a request.

    Several are mixed by their weights.
    """
    vocabulary = loaded.vocabulary
    assert vocabulary is not None
    parts: list[tuple[Tensor, float]] = []
    for text in request.ids:
        for name, weight in weighted_parts("--style-id", text, ", "):
            parts.append((embedded(loaded, as_beatmap(vocabulary, name, told_of)), weight))
    for text in request.mappers:
        for name, weight in weighted_parts("--style-mapper", text, ","):
            mapper = vocabulary.mapper_named(name, bundled_names())
            parts.append((embedded(loaded, replace(told_of, mapper=mapper)), weight))
    if request.files:
        parts.append((style_of_files(loaded, request.files, cache, progress), 1.0))
    if not parts:
        return embedded(loaded, told_of)
    total = sum(weight for _, weight in parts)
    return torch.stack([part * (weight / total) for part, weight in parts]).sum(dim=0)


def as_beatmap(vocabulary: Vocabulary, text: str, told_of: Told) -> Told:
    """`told_of` with the mapper and the descriptors of a beatmap of the training data."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"--style-id {text!r}: give beatmap IDs, which are numbers")
    known = vocabulary.of_beatmap(int(text))
    names = dict.fromkeys([*known.descriptors, *told_of.descriptors])
    return replace(told_of, beatmap=known.beatmap, mapper=known.mapper, descriptors=tuple(names))


def embedded(loaded: LoadedModel, told_of: Told) -> Tensor:
    """The embedding (D,) of what is told."""
    assert loaded.vocabulary is not None
    with torch.no_grad():
        vector = loaded.vocabulary.vector(told_of).to(loaded.device)
        return loaded.model.y_embedder(vector)[0]


def bundled_names() -> dict[int, str]:
    """Mappers' names by beatmap ID, from the bundled model's class table."""
    path = DEFAULT_MODEL.with_name(f"{DEFAULT_MODEL.stem}.classes.csv")
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {int(row["beatmap_id"]): row["creator"] for row in csv.DictReader(file)}
