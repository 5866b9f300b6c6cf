"""A beatmap and what the game makes of it: its file, archive, sliders, stacks, data points."""
