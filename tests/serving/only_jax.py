"""Predicts by an exported model in a process that finds no packages but JAX and what it needs.

python -m tests.serving.only_jax MODEL.stablehlo [ROWS.npz SAID.npz]

ROWS.npz has arrays as `title/tokens`, and SAID.npz gets what the model says; without them it is of one row of zeros.
"""

import sys

# What `pip install jax numpy` brings (_cyutility is SciPy's), and this project.
ALLOWED = {"jax", "jaxlib", "numpy", "scipy", "_cyutility", "ml_dtypes", "opt_einsum", "umemma_jax"}


class OnlyJax:
    """A finder of modules that knows no other packages."""

    def __init__(self, finder):
        self._finder = finder

    def find_spec(self, name, path=None, target=None):
        package = name.split(".")[0]
        known = package in ALLOWED or package in sys.stdlib_module_names or package.startswith("_sysconfigdata")
        return self._finder.find_spec(name, path, target) if known else None


def main():
    sys.meta_path[:] = map(OnlyJax, sys.meta_path)
    import numpy as np

    from umemma_jax import serving

    path, *files = sys.argv[1:]
    model = serving.load(path)
    said = model.predict(rows_of(np.load(files[0])) if files else zeros(np, model.description["inputs"]))
    if files:
        np.savez(files[1], **said)
    print(said)


def rows_of(arrays):
    inputs = {}
    for name, array in arrays.items():
        modality, _, part = name.partition("/")
        inputs.setdefault(modality, {})[part] = array
    return inputs


def zeros(np, described):
    inputs = {}
    for m, x in described.items():
        shapes = {name: [*array["shape"]] for name, array in x["arrays"].items()}
        for shape in shapes.values():
            shape[:] = [1, *(n if isinstance(n, int) else x["lengths"][0] for n in shape[1:])]
        inputs[m] = {name: np.zeros(shape, x["arrays"][name]["dtype"]) for name, shape in shapes.items()}
    return inputs


if __name__ == "__main__":
    main()
