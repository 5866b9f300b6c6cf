"""What a model can know of a map besides its rhythm, and the format of osu-diffusion v2."""
