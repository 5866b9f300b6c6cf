"""What is measured of remaps: what changed, how close to real maps, and the network alone."""
