"""What makes two runs the same: the fields of their options on which their results depend."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

INDIFFERENT = {"identity": False}
"""`metadata` of a field on which results do not depend."""


def plain(value: Any) -> Any:
    """A value in JSON types; a dataclass becomes a dict of all its fields."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def identity(options: Any) -> dict[str, Any]:
    """The fields of a dataclass on which results depend, in JSON types; nested ones likewise."""
    found: dict[str, Any] = {}
    for field in fields(options):
        if field.metadata.get("identity", True):
            value = getattr(options, field.name)
            nested = is_dataclass(value) and not isinstance(value, type)
            found[field.name] = identity(value) if nested else plain(value)
    return found
