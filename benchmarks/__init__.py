"""What benchmark.py measures: reading, sampling, training, also of the public osu-diffusion."""
