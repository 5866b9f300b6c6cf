"""The web page: its controls, what it shows, and what it does for its visitors."""
