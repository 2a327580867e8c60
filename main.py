"""Train or evaluate a model that stands when a modality is missing.

python main.py --config=configs/quickstart.py
python main.py --config=configs/av_mnist.py --config.data.dir=DIR --workdir=DIR
python main.py --config=configs/av_mnist.py --config.data.dir=DIR --workdir=DIR --mode=eval
"""

import sys

from umemma_jax import command

if __name__ == "__main__":
    command.begin()

    from umemma_jax.cli import main

    main(["python main.py", *sys.argv[1:]])
