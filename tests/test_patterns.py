import numpy as np
import pytest

from umemma_jax import patterns
from umemma_jax.errors import UserError

NAMES = ("image", "audio")


def test_all_patterns_are_the_non_empty_subsets_complete_first():
    found = patterns.all_patterns(3)
    assert len({tuple(p) for p in found}) == len(found) == 7
    assert found[0].all() and found.any(axis=1).all()
    assert patterns.pattern_names(NAMES) == ["image+audio", "image", "audio"]


def test_a_name_is_parsed_in_any_order_of_its_modalities():
    assert patterns.parse_pattern("audio+image", NAMES, "here") == (True, True)
    assert patterns.parse_pattern("audio", NAMES, "here") == (False, True)


@pytest.mark.parametrize("name", ["", "video", "image+", "image+image", "image,audio"])
def test_a_name_of_no_pattern_is_refused(name):
    with pytest.raises(UserError, match=r"here: unknown pattern '.*', join some of image, audio by \+"):
        patterns.parse_pattern(name, NAMES, "here")


@pytest.mark.parametrize("modalities", [1, 2, 3, 6])
def test_every_subset_has_the_number_of_its_pattern_and_the_empty_one_none(modalities):
    found = patterns.all_patterns(modalities)
    np.testing.assert_array_equal(patterns.pattern_numbers(found), np.arange(len(found)))
    assert patterns.pattern_numbers(np.zeros(modalities, bool)) == -1
