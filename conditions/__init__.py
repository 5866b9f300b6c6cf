"""What a model can be told of a map beside its rhythm, and the format of osu-diffusion v2."""
