"""tf.train.Example, against TensorFlow.

`golden.tfrecord` was written by TensorFlow 2.21: `EXAMPLES` as `tf.train.Example`, each with
`SerializeToString(deterministic=True)`, through `tf.io.TFRecordWriter`.
"""

from pathlib import Path

import numpy as np
import pytest

from umemma_jax.data import example, tfrecord

GOLDEN = Path(__file__).with_name("golden.tfrecord")
EXAMPLES = [
    {
        "id": b"first",
        "label": [7],
        "image": bytes(range(12)),
        "audio": np.array([0, 1, -1, 32767, -32768], "<i2").tobytes(),
    },
    {"id": "zweites-ä".encode(), "label": [], "image": bytes([255] * 12)},
    {"id": b"third", "label": [0, 3, 300], "audio": np.arange(100, dtype="<i2").tobytes()},
]


def test_our_file_is_the_one_that_tensorflow_writes(tmp_path: Path):
    writer = tfrecord.RecordWriter(tmp_path / "ours.tfrecord")
    for features in EXAMPLES:
        writer.write(example.encode(features))
    writer.close()
    assert writer.path.read_bytes() == GOLDEN.read_bytes()


def test_we_read_what_tensorflow_has_written():
    offsets = tfrecord._scan(GOLDEN, GOLDEN.stat().st_size)  # load_index would leave an index in the repository
    assert len(offsets) - 1 == len(EXAMPLES)
    with open(GOLDEN, "rb") as file:
        for number, expected in enumerate(EXAMPLES):
            start, end = offsets[number : number + 2]
            record = tfrecord.read_record(file.fileno(), GOLDEN, number, start, end)
            features = example.decode(record)
            assert set(features) == set(expected)
            assert example.int64_values(features, "label") == expected["label"]
            for name in ("id", "image", "audio"):
                assert example.bytes_value(features, name) == expected.get(name)


def test_order_of_features_does_not_matter():
    features = EXAMPLES[0]
    backwards = dict(reversed(features.items()))
    assert example.encode(backwards) == example.encode(features)


def test_tensorflow_datasets_reads_our_examples():
    proto = pytest.importorskip("tensorflow_datasets.proto").tf_example_pb2
    parsed = proto.Example.FromString(example.encode(EXAMPLES[2])).features.feature
    assert list(parsed["label"].int64_list.value) == [0, 3, 300]
    assert list(parsed["audio"].bytes_list.value) == [EXAMPLES[2]["audio"]]


def test_several_values_of_one_feature():
    frames = [b"first", b"", b"third"]
    record = example.encode({"frames": frames, "one": b"value"})
    features = example.decode(record)
    assert example.bytes_values(features, "frames") == frames
    assert example.bytes_value(features, "frames") == b"first"
    assert example.bytes_values(features, "one") == [b"value"]
    proto = pytest.importorskip("tensorflow_datasets.proto").tf_example_pb2
    parsed = proto.Example.FromString(record).features.feature
    assert list(parsed["frames"].bytes_list.value) == frames


def test_absent_and_empty_features():
    features = example.decode(example.encode({"empty": b"", "none": []}))
    for name in ("absent", "empty", "none"):
        assert example.bytes_values(features, name) is None
    assert example.bytes_value(features, "absent") is None
    assert example.bytes_value(features, "empty") is None
    assert example.int64_values(features, "absent") is None
    assert example.int64_values(features, "none") == []
    assert "absent" not in features  # looking does not add


def test_what_is_no_example():
    with pytest.raises(ValueError, match=r"not a tf\.train\.Example"):
        example.decode(b"\xff\xff\xff")
