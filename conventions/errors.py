"""Errors of values that somebody gave, told in the words of the place where they were given.

What refuses a value names its field; a command says the flag for it, the web page its label.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from string import Formatter


def in_words(field: str) -> str:
    """A field's name for those who have no other: `time_start` is the time start."""
    return field.replace("_", " ")


class FieldError(ValueError):
    """A value that cannot be.

    `text` is a template of `str.format`: {time_start} stands for what the field of that name is
    called, {0} for the first of `values`, which are shown as they are.
    """

    def __init__(self, text: str, *values: object) -> None:
        super().__init__(text, *values)
        self.text, self.values = text, values
        self.name: Callable[[str], str] = in_words

    def __str__(self) -> str:
        return Formatter().vformat(self.text, self.values, _Names(self.name))


class _Names(dict[str, str]):
    """What fields are called, asked for one by one."""

    def __init__(self, name: Callable[[str], str]) -> None:
        super().__init__()
        self.name = name

    def __missing__(self, field: str) -> str:
        return self.name(field)


@contextmanager
def naming(name: Callable[[str], str]) -> Iterator[None]:
    """In the block errors call each field what `name` says; of two blocks the inner one."""
    try:
        yield
    except FieldError as error:
        if error.name is in_words:
            error.name = name
        raise
