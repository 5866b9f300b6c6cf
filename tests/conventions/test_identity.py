"""Fields that results do not depend on are no part of what a run is."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from conventions.identity import INDIFFERENT, identity, plain


@dataclass(frozen=True)
class Inner:
    number: int = 1
    colour: str = field(default="red", metadata=INDIFFERENT)


@dataclass(frozen=True)
class Outer:
    files: tuple[Path, ...] = (Path("a") / "b",)
    inner: Inner = field(default_factory=Inner)
    folder: Path = field(default=Path("c"), metadata=INDIFFERENT)


def test_only_what_matters_is_compared() -> None:
    one = Outer()
    other = replace(one, folder=Path("d"), inner=Inner(colour="blue"))
    assert identity(one) == identity(other) == {"files": [str(Path("a/b"))], "inner": {"number": 1}}
    assert identity(one) != identity(replace(one, inner=Inner(2)))
    assert identity(one) != identity(replace(one, files=()))


def test_it_reads_back_as_it_was_stored() -> None:
    for value in (identity(Outer()), plain(Outer())):
        assert json.loads(json.dumps(value)) == value
