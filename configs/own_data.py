"""Your own data: trains on any prepared dataset, with an encoder from scratch for each kind of modality.

python -m data_prep.table --table=DATA.csv --image=photo --text=title --label=category --out=DATA
python main.py --config=configs/own_data.py:DATA --workdir=DIR

The argument is the dataset's folder and, after a comma, the method: `late_fusion`, `ume`, `augmentation` or `ume_mma`
(the default). What is chosen, and why, stands in umemma_jax/presets.py. To start from pre-trained encoders instead,
write a recipe of your own that names them: see docs/encoders.md.
"""

from ml_collections import ConfigDict

from umemma_jax import presets


def get_config(argument: str) -> ConfigDict:
    """The recipe for one dataset and method."""
    folder, _, method = argument.partition(",")
    return presets.small(folder, method or "ume_mma")
