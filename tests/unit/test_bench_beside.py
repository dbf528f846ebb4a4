"""`python -m bench --beside`: the ratio of two revisions is taken in each round, so that a slow second slows both."""

import pytest

from bench.beside import _paired
from bench.measure import Samples


@pytest.mark.parametrize(("least", "met"), [(False, True), (True, False)])
def test_the_ratio_is_the_median_of_those_of_the_rounds(least, met):
    ours, theirs = Samples((1.0, 20.0, 3.0)), Samples((2.0, 40.0, 3.0))  # the second round was a slow one
    row = _paired("a row", "ms", ours, theirs, 0.8, least=least)
    assert (row.ratio, row.met) == (0.5, met)
