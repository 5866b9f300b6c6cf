"""A training run: its options, its steps and losses, its folder, what is watched of it."""
