"""A dataset of tensorflow-datasets, made from nothing."""

import io

import numpy as np
import tensorflow_datasets as tfds

from tests.data_prep.raw_photos import photo_bytes

SIZES = {"train": 20, "validation": 4, "test": 6, "extra": 2}


class TinyPairs(tfds.core.GeneratorBasedBuilder):
    """Photos, titles and whatever else a feature can be."""

    url_infos = {}  # noqa: RUF012 - nothing to download; looking for it would need importlib_resources
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        labels = tfds.features.ClassLabel(names=["odd", "even"])
        features = {
            "number": tfds.features.Scalar(np.int64),
            "photo": tfds.features.Image(shape=(None, None, 3)),
            "title": tfds.features.Text(),
            "clip": tfds.features.Tensor(shape=(None,), dtype=np.float32),
            "box": {"corners": tfds.features.Tensor(shape=(2, 2), dtype=np.float32)},
            "kind": labels,
            "kinds": tfds.features.Sequence(labels),
            "word": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        ends = np.cumsum(list(SIZES.values())).tolist()
        return {split: self._rows(end - size, end) for (split, size), end in zip(SIZES.items(), ends, strict=True)}

    def _generate_examples(self):
        raise NotImplementedError

    def _rows(self, start, end):
        for number in range(start, end):
            yield number, row(number)


def row(number):
    """The example of a number: 3 has a photo that is none, 4 no title, 5 no label."""
    return {
        "number": number,
        "photo": io.BytesIO(photo_bytes(number) if number != 3 else b"no photo"),
        "title": f"Number {number}" if number != 4 else "",
        "clip": np.arange(number + 1, dtype=np.float32) / 64,
        "box": {"corners": np.full((2, 2), number, np.float32)},
        "kind": (number + 1) % 2 if number != 5 else -1,
        "kinds": [0, 1][: number % 3],
        "word": "odd" if number % 2 else "even",
    }
