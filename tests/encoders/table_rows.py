"""Rows of a table as encoders take them, and the embeddings of their columns in PyTorch."""

import jax
import numpy as np

from tests.encoders.parity import random_variables

LEVELS = (3, 4)


def rows(number: int = 5, columns: int = 3) -> dict[str, np.ndarray]:
    """Normal numbers, a third of them missing, and one id of each of the `LEVELS`."""
    draw = np.random.default_rng(0)
    missing = draw.random((number, columns)) < 1 / 3
    return {
        "numbers": np.where(missing, 0, draw.normal(size=(number, columns))).astype(np.float32),
        "missing": missing.astype(np.float32),
        "categories": np.stack([draw.integers(0, levels, number) for levels in LEVELS], axis=1).astype(np.int32),
    }


def assert_rows_are_independent(model):
    """The features of two rows stay as they are when the others become copies of the first."""
    x = rows()
    variables = random_variables(model, x)
    others = jax.tree.map(lambda leaf: np.concatenate([leaf[:2], leaf[:1], leaf[:1], leaf[:1]]), x)
    np.testing.assert_array_equal(model.apply(variables, x)[:2], model.apply(variables, others)[:2])


def torch_tokens(params, x, encoded):
    """[B, Dn + Dc, D]; `encoded` [B, Dn, T] is what stands for the numbers."""
    import torch

    numbers = [
        torch.where(
            torch.from_numpy(x["missing"][:, [column]] > 0),
            params["numbers"]["missing"][column],
            torch.nn.functional.linear(
                torch.from_numpy(np.ascontiguousarray(encoded[:, column])),
                params["numbers"]["kernel"][column].T,
                params["numbers"]["bias"][column],
            ),
        )
        for column in range(encoded.shape[1])
    ]
    tables = torch.split(params["categories"]["levels"], LEVELS)
    ids = torch.from_numpy(x["categories"]).long()
    categories = [torch.nn.functional.embedding(ids[:, column], table) for column, table in enumerate(tables)]
    return torch.stack([*numbers, *categories], dim=1)
