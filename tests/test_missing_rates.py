import hashlib
import itertools
import tracemalloc

import numpy as np
import pytest

from umemma_jax import missing_rates

NAMES = ("image", "audio")


@pytest.mark.parametrize("kind", [*NAMES, missing_rates.MIXED])
def test_missing_tables_are_seeded_exact_and_nested(kind):
    available = np.ones((101, 2), bool)
    tables = [missing_rates.missing_table(available, kind, rate / 10, 3, NAMES) for rate in range(11)]
    for rate, table in enumerate(tables):
        assert (~table.all(axis=1)).sum() == round(rate / 10 * 101)
        assert table.any(axis=1).all()
        np.testing.assert_array_equal(table, missing_rates.missing_table(available, kind, rate / 10, 3, NAMES))
    for fewer, more in itertools.pairwise(tables):
        assert not (more & ~fewer).any()
    assert (tables[5] != missing_rates.missing_table(available, kind, 0.5, 4, NAMES)).any()


def table_by_definition(available, kind, rate, seed, modalities):
    """The examples that the seed's permutation names first lose what the kind says, if that leaves them anything."""
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(available))
    chosen = order[: round(rate * len(available))]
    kept = available.copy()
    mixed = kind == missing_rates.MIXED
    kept[chosen, np.arange(len(chosen)) % len(modalities) if mixed else modalities.index(kind)] = False
    return np.where(kept.any(axis=1, keepdims=True), kept, available)


@pytest.mark.parametrize("names", [NAMES, ("a", "b", "c")])
@pytest.mark.parametrize("complete", [True, False])
def test_tables_are_those_of_the_definition(names, complete):
    available = np.ones((83, len(names)), bool)
    if not complete:
        available = np.random.default_rng(1).random(available.shape) < 0.6  # some rows have nothing
    rates, seeds = (0.0, 0.1, 0.35, 0.7, 1.0), 3
    tables = missing_rates.GridTables(available, rates, seeds, names)
    assert len(tables) == len(rates) * (len(names) + 1)
    for kind, rate, seed in itertools.product((*names, missing_rates.MIXED), rates, range(seeds)):
        expected = table_by_definition(available, kind, rate, seed, names)
        name = f"{kind}@{rate:g}"
        np.testing.assert_array_equal(missing_rates.missing_table(available, kind, rate, seed, names), expected)
        np.testing.assert_array_equal(tables[name][seed], expected)


def test_digests_of_the_grid_s_tables_are_those_of_earlier_reports():
    tables = missing_rates.GridTables(np.ones((450, 2), bool), (0.3, 0.7), 5, NAMES)
    assert {name: missing_rates.table_hash(table)[:16] for name, table in tables.items()} == {
        "image@0.3": "041e54886e472b04",
        "image@0.7": "3987ed62820ee12b",
        "audio@0.3": "393f2cb44cf76039",
        "audio@0.7": "1f55a397b5d2beac",
        "mixed@0.3": "296e468daab25796",
        "mixed@0.7": "f2afa8899e16769a",
    }


def test_the_grid_s_tables_are_never_in_memory_together():
    examples, seeds, rates = 100_000, 2, np.linspace(0, 1, 11)
    tables = missing_rates.GridTables(np.ones((examples, 2), bool), rates, seeds, NAMES)
    tracemalloc.start()
    for table in tables.values():
        assert table.nbytes == 2 * examples * seeds
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * table.nbytes < len(tables) * table.nbytes / 6


def test_mixed_loses_every_modality_equally_often():
    table = missing_rates.missing_table(np.ones((90, 3), bool), missing_rates.MIXED, 1.0, 0, ("a", "b", "c"))
    np.testing.assert_array_equal((~table).sum(axis=0), 30)


def test_missing_table_never_takes_the_last_modality():
    available = np.tile([True, False], (10, 1))
    np.testing.assert_array_equal(missing_rates.missing_table(available, "image", 1.0, 0, NAMES), available)


def test_table_hash_is_the_documented_one():
    table = np.array([[True, False], [True, True]])
    expected = hashlib.sha256(b"(2, 2)" + bytes([0b10110000])).hexdigest()
    assert missing_rates.table_hash(table) == expected
    assert missing_rates.table_hash(~table) != expected


# Independent losses.


def kept_at(available, counts, seed=0):
    ranks = missing_rates.independent_ranks(len(available), available.shape[1], seed)
    return missing_rates.keep_independent(available, ranks, counts)


def test_each_modality_is_lost_on_its_own_and_exactly_as_often_as_asked():
    available = np.ones((1000, 3), bool)
    kept = kept_at(available, (500, 500, 0))
    np.testing.assert_array_equal((~kept).sum(axis=0), [500, 500, 0])
    both = (~kept[:, :2]).all(axis=1).sum()
    assert abs(both - 250) < 4 * np.sqrt(1000 * 0.5**4)  # hypergeometric: four standard deviations
    np.testing.assert_array_equal(kept, kept_at(available, (500, 500, 0)))
    assert (kept != kept_at(available, (500, 500, 0), seed=1)).any()


def test_whoever_would_lose_everything_keeps_the_one_that_is_chosen_last():
    available = np.random.default_rng(0).random((200, 3)) < 0.6
    kept = kept_at(available, (200, 200, 200))
    ranks = missing_rates.independent_ranks(200, 3, 0)
    np.testing.assert_array_equal(kept.sum(axis=1), available.any(axis=1))
    assert not (kept & ~available).any()
    for row in np.flatnonzero(available.any(axis=1)):
        assert kept[row].argmax() == max(np.flatnonzero(available[row]), key=lambda m: ranks[row, m])


def test_independent_losses_are_nested_where_something_is_left():
    available = np.ones((300, 2), bool)
    fewer, more = kept_at(available, (100, 60)), kept_at(available, (150, 60))
    lost_all = (missing_rates.independent_ranks(300, 2, 0) < (150, 60)).all(axis=1)
    assert not (more & ~fewer)[~lost_all].any() and (more != fewer).any()
