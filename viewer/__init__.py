"""What a map looks like when it is played: pictures, animations, a player in a web page."""
