"""Traces of real steps."""

import jax
import jax.numpy as jnp
import pytest

from umemma_jax.training.profile import Profile


def take(folder, steps, stage_steps):
    """Numbers of the steps that were annotated, of a stage of so many steps."""
    annotated = []
    with Profile(folder, steps, stage_steps) as profile:
        for number in range(1, stage_steps + 1):
            context = profile.step(number)
            if isinstance(context, jax.profiler.StepTraceAnnotation):
                annotated.append(number)
            with context:
                value = jnp.ones(3) + number
            profile.taken(number, value)
    return annotated


def traces(folder):
    return [path.name for path in folder.rglob("*.xplane.pb")]


@pytest.mark.parametrize(
    ("stage_steps", "expected"), [(20, [6, 7, 8]), (8, [6, 7, 8]), (4, [2, 3, 4]), (2, [1, 2])], ids=str
)
def test_the_steps_after_the_unsteady_ones_are_traced(tmp_path, stage_steps, expected):
    assert take(tmp_path, 3, stage_steps) == expected
    assert len(traces(tmp_path)) == 1


def test_nothing_is_traced_by_default(tmp_path):
    assert take(tmp_path, 0, 20) == []
    assert list(tmp_path.iterdir()) == []
