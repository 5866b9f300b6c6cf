"""A beatmap and how the game reads it: its file, archive, sliders, stacks, data points."""
