"""Errors about given values, which name each value as the user knows it.

The code that refuses a value names its field; a command shows the flag for it, the web page its
label.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from string import Formatter


def in_words(field: str) -> str:
    """A field's name in plain words: `time_start` is "time start"."""
    return field.replace("_", " ")


class FieldError(ValueError):
    """A value that is not possible.

    `text` is a template of `str.format`: {time_start} is replaced by what the field of that name is
    called, {0} by the first of `values`, unchanged.
    """

    def __init__(self, text: str, *values: object) -> None:
        super().__init__(text, *values)
        self.text, self.values = text, values
        self.name: Callable[[str], str] = in_words

    def __str__(self) -> str:
        return Formatter().vformat(self.text, self.values, _Names(self.name))


class LostRankError(ConnectionError):
    """Another process of the same run has ended, or does not answer."""


class _Names(dict[str, str]):
    """What fields are called, asked for one by one."""

    def __init__(self, name: Callable[[str], str]) -> None:
        super().__init__()
        self.name = name

    def __missing__(self, field: str) -> str:
        return self.name(field)


@contextmanager
def naming(name: Callable[[str], str]) -> Iterator[None]:
    """In the block errors call each field what `name` returns; the innermost block counts."""
    try:
        yield
    except FieldError as error:
        if error.name is in_words:
            error.name = name
        raise
