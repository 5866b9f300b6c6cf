"""The playfield of osu!standard, in px, the unit of maps, network and pictures."""

PLAYFIELD = (512.0, 384.0)  # px
PLAYFIELD_CENTRE = (256.0, 192.0)
