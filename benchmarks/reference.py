"""Times sampling steps of a checkout of the public osu-diffusion; `benchmark.py` runs it.

It needs a process of its own, because that checkout's modules have the names of ours. Nothing of
it is changed: its model with a given checkpoint, its diffusion, its sampling loop, set up as its
`sample.py` does without a style: a batch of two for guidance, the whole map under one mask.
"""

import argparse
import json
import sys
import time
from importlib import import_module
from pathlib import Path

import torch

NUM_CLASSES = 52_670
SEQ_LEN = 128
STEPS = 250  # its defaults
CONTEXT = 144


def time_steps(checkout: Path, checkpoint: Path, points: int, timed: int) -> float:
    """Median seconds of a step after the first one, for a map of so many data points."""
    sys.path[0] = str(checkout)
    models, diffusion = import_module("models"), import_module("diffusion")
    torch.set_grad_enabled(False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = models.DiT_models["DiT-B"](num_classes=NUM_CLASSES, context_size=CONTEXT).to(device)
    model.load_state_dict(torch.load(checkpoint, map_location=device, weights_only=True)["ema"])
    model.eval()
    place = torch.arange(points, device=device)
    ahead = place[None, :] - place[:, None]  # key - query; True in the mask hides a key
    hidden = (ahead <= -SEQ_LEN) | (ahead > SEQ_LEN)
    noise = torch.randn(1, 2, points, device=device).repeat(2, 1, 1)
    arguments = {
        "o": 150.0 * place[None].repeat(2, 1),
        "c": torch.rand(1, CONTEXT, points, device=device).repeat(2, 1, 1),
        "y": torch.full((2,), NUM_CLASSES, device=device),
        "cfg_scale": 1.0,
        "attn_mask": hidden,
    }
    loop = diffusion.create_diffusion(
        str(STEPS), noise_schedule="squaredcos_cap_v2"
    ).p_sample_loop_progressive(
        model.forward_with_cfg,
        noise.shape,
        noise,
        clip_denoised=True,
        model_kwargs=arguments,
        device=device,
    )
    seconds = []
    for _ in range(timed + 1):
        started = time.perf_counter()
        next(loop)["sample"].cpu()
        seconds.append(time.perf_counter() - started)
    return float(torch.tensor(seconds[1:]).median())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--points", type=int, required=True)
    parser.add_argument("--timed", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    seconds = time_steps(args.checkout, args.checkpoint, args.points, args.timed)
    print(json.dumps({"seconds_a_step": seconds, "steps": STEPS}))


if __name__ == "__main__":
    main()
