"""Places of a map that somebody should look at, which pictures and the player mark."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Mark:
    """One place to look at.

    `at` is what osu!'s editor takes when it is pasted, such as "00:12:345 (3,4) - "; `index` is the
    object that is marked. `share` of the objects of real maps are as odd; `in_source` says that the
    map that was remapped had the same there.
    """

    at: str
    index: int
    kind: str
    text: str
    share: float
    in_source: bool

    def to_dict(self) -> dict[str, Any]:
        """The mark as JSON has it."""
        return asdict(self)
