from collections import Counter

import numpy as np
import pytest

from umemma_jax.data_prep.build.prep_report import Report
from umemma_jax.data_prep.build.rows import Row
from umemma_jax.data_prep.build.splitting import NO_GROUP, check_groups, draw_folds, draw_splits, read_groups
from umemma_jax.errors import UserError

SHARES = (0.8, 0.1, 0.1)


def classes(count, names="abc"):
    return {f"row {number}": [names[number % len(names)]] for number in range(count)}


def groups_of(strata, size):
    """Neighbours share a group, so that every group has every class."""
    return {where: f"group {number // size}" for number, where in enumerate(strata)}


@pytest.mark.parametrize("seed", [0, 1])
def test_groups_never_cross_splits_which_have_about_their_shares_of_every_class(seed):
    strata = classes(1200)
    groups = groups_of(strata, 7)
    splits = draw_splits(strata, SHARES, groups, seed)
    assert splits.keys() == strata.keys()
    check_groups(splits, groups, "patient")
    for name in "abc":
        times = Counter(splits[where] for where, of_row in strata.items() if of_row == [name])
        assert [times[split] / 400 for split in ("train", "val", "test")] == pytest.approx(SHARES, abs=0.03)


def test_few_groups_fill_every_split():
    strata = classes(30)
    groups = groups_of(strata, 10)
    assert set(draw_splits(strata, SHARES, groups, 0).values()) == {"train", "val", "test"}
    with pytest.raises(UserError, match=r"--groups: 2 group\(s\) cannot fill 3 splits"):
        draw_splits(strata, SHARES, groups_of(strata, 15), 0)


def test_a_split_without_a_share_stays_empty():
    strata = classes(60)
    assert set(draw_splits(strata, (0.9, 0.1, 0.0), groups_of(strata, 2), 0).values()) == {"train", "val"}


@pytest.mark.parametrize("size", [None, 4])
def test_every_row_is_tested_on_once_and_every_fold_has_its_share_of_each_class(size):
    strata = classes(600)
    groups = None if size is None else groups_of(strata, size)
    folds = list(draw_folds(strata, 5, groups, seed=0))
    tested = Counter(where for splits in folds for where, split in splits.items() if split == "test")
    assert tested == dict.fromkeys(strata, 1)
    for splits in folds:
        counts = Counter((strata[where][0], split) for where, split in splits.items())
        for name in "abc":
            assert [counts[name, split] for split in ("train", "val", "test")] == pytest.approx([144, 16, 40], abs=8)
        if groups is not None:
            check_groups(splits, groups, "patient")


def test_folds_are_those_of_the_seed():
    first, again, other = (list(draw_folds(classes(60), 3, None, seed)) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(("count", "size"), [(1, None), (61, None), (7, 10)])
def test_more_folds_than_there_can_be(count, size):
    strata = classes(60)
    groups = None if size is None else groups_of(strata, size)
    with pytest.raises(UserError, match=rf"--folds={count}: give 2 or more, and no more than the (60 rows|6 groups)"):
        list(draw_folds(strata, count, groups, 0))


def test_classes_rarer_than_there_are_folds():
    strata = {f"row {number}": [f"class {number}"] for number in range(12)}
    folds = list(draw_folds(strata, 4, None, 0))
    assert [list(splits.values()).count("test") for splits in folds] == [3] * 4


def test_a_group_in_two_splits_is_named():
    with pytest.raises(UserError, match="c: of split test, but a with the same value of 'patient' is of train"):
        check_groups({"a": "train", "b": "test", "c": "test"}, {"a": "1", "b": "2", "c": "1"}, "patient")


def test_a_row_without_group_is_one_of_its_own():
    report = Report()
    values = [{"patient": "7"}, {}, {"patient": "?"}, {"patient": 7}]
    rows = [Row(of_row, f"row {number}") for number, of_row in enumerate(values)]
    groups = list(read_groups(rows, "patient", ("?",), report).values())
    assert len(set(groups)) == 3 and groups[0] == groups[3]
    assert report.count(NO_GROUP) == 2


def test_of_several_classes_the_rarest_is_in_proportion():
    strata = {f"row {number}": ["common", "rare"] if number % 10 == 0 else ["common"] for number in range(400)}
    for splits in draw_folds(strata, 4, None, 0):
        rare = np.mean([splits[where] == "test" for where, names in strata.items() if "rare" in names])
        assert rare == pytest.approx(0.25)
