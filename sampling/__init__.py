"""From a beatmap and a request to new coordinates, new difficulties and their files."""
