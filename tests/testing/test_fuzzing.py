"""A short run of every fuzzing target; `testing/fuzzing.py` itself runs for long."""

import pytest
from fuzzing import TARGETS, run_target


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's about pickles that are damaged
@pytest.mark.parametrize("name", TARGETS)
def test_hostile_input_gives_documented_errors_alone(name: str) -> None:
    assert run_target(name, 150, 0) >= 150
