"""Errors name fields in the words of whoever shows them."""

import pickle

import pytest

from conventions.command_line import flag_names
from conventions.errors import FieldError, naming


def test_a_field_is_called_what_the_place_calls_it() -> None:
    for name, told in (
        (flag_names(), "--time-start 5 is after --time-end 3"),
        (flag_names(time_end="--until"), "--time-start 5 is after --until 3"),
        (str.upper, "TIME_START 5 is after TIME_END 3"),
    ):
        with pytest.raises(FieldError) as caught, naming(name):
            raise FieldError("{time_start} {0} is after {time_end} {1}", 5, 3)
        assert str(caught.value) == told


def test_without_a_place_fields_are_called_by_their_words() -> None:
    error = FieldError("{time_start} {0!r}: give ms", "x")
    assert str(error) == "time start 'x': give ms"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_the_inner_place_has_the_first_say() -> None:
    with pytest.raises(FieldError, match="--steps 0"), naming(str.upper), naming(flag_names()):
        raise FieldError("{steps} {0}", 0)


def test_braces_in_values_are_values() -> None:
    assert str(FieldError("{output} {0} is a file", "{seed} {1}")) == "output {seed} {1} is a file"


def test_other_errors_pass() -> None:
    with pytest.raises(KeyError), naming(str.upper):
        raise KeyError("x")
