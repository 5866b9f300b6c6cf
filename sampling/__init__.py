"""From a beatmap and what is asked of it to new coordinates, new difficulties and their files."""
