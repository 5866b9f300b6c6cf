"""From collections of beatmaps to packed datasets: find, filter, read, pack, write."""
