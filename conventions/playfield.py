"""The playfield of osu!standard, which maps, the network and pictures all measure in."""

PLAYFIELD = (512.0, 384.0)  # px
PLAYFIELD_CENTRE = (256.0, 192.0)
