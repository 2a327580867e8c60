"""Predicts by an exported model in a process that finds no packages but JAX and what it needs.

python -m tests.serving.only_jax MODEL.stablehlo ROWS.npz SAID.npz

ROWS.npz has arrays as `title/tokens`; SAID.npz gets what the model says.
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

    model, rows, said = sys.argv[1:]
    inputs = {}
    for name, array in np.load(rows).items():
        modality, _, part = name.partition("/")
        inputs.setdefault(modality, {})[part] = array
    np.savez(said, **serving.load(model).predict(inputs))


if __name__ == "__main__":
    main()
