"""tf.train.Example in and out of bytes, without TensorFlow.

The message types are built here, in a descriptor pool of their own: nothing generated that is tied to one protoc,
and no clash with TensorFlow's registration of the same names when both are imported.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError


def _build_example_class() -> type:
    """Declares the part of tensorflow/core/example/{feature,example}.proto that an Example consists of."""
    proto = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="umemma_jax/example.proto", package="tensorflow", syntax="proto3")

    for name, scalar in (
        ("BytesList", proto.TYPE_BYTES),
        ("FloatList", proto.TYPE_FLOAT),
        ("Int64List", proto.TYPE_INT64),
    ):
        file.message_type.add(name=name).field.add(name="value", number=1, type=scalar, label=proto.LABEL_REPEATED)

    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, type_name) in enumerate(
        (("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")), 1
    ):
        feature.field.add(
            name=name,
            number=number,
            type=proto.TYPE_MESSAGE,
            type_name=f".tensorflow.{type_name}",
            label=proto.LABEL_OPTIONAL,
            oneof_index=0,
        )

    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=proto.TYPE_STRING, label=proto.LABEL_OPTIONAL)
    entry.field.add(
        name="value",
        number=2,
        type=proto.TYPE_MESSAGE,
        type_name=".tensorflow.Feature",
        label=proto.LABEL_OPTIONAL,
    )
    features.field.add(
        name="feature",
        number=1,
        type=proto.TYPE_MESSAGE,
        type_name=".tensorflow.Features.FeatureEntry",
        label=proto.LABEL_REPEATED,
    )

    file.message_type.add(name="Example").field.add(
        name="features",
        number=1,
        type=proto.TYPE_MESSAGE,
        type_name=".tensorflow.Features",
        label=proto.LABEL_OPTIONAL,
    )

    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


_Example = _build_example_class()

Features = Mapping[str, Any]


def encode(features: Mapping[str, bytes | Sequence[bytes] | Sequence[int] | Sequence[float]]) -> bytes:
    """Serialises an Example: bytes become a bytes list, one value or several, integers an int64 list, floats a float
    list.

    Features are written in the order of their names, so equal examples are equal bytes.
    """
    example = _Example()
    for name, value in features.items():
        feature = example.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        elif value and isinstance(value[0], bytes):
            feature.bytes_list.value.extend(value)
        elif value and isinstance(value[0], float):
            feature.float_list.value.extend(value)
        else:
            feature.int64_list.value.extend(value)
    return example.SerializeToString(deterministic=True)


def decode(record: bytes) -> Features:
    """Parses an Example.

    Returns:
      A mapping from feature name to feature, for `bytes_value`, `bytes_values`, `int64_values` and `float_values`.

    Raises:
      ValueError: the bytes are no Example.
    """
    try:
        return _Example.FromString(record).features.feature
    except DecodeError as error:
        raise ValueError(f"not a tf.train.Example ({error})") from error


def bytes_value(features: Features, name: str) -> bytes | None:
    """The one value of a bytes feature, or None where the example has no such feature or an empty one."""
    feature = features.get(name)
    if feature is None:
        return None
    values = feature.bytes_list.value
    return (values[0] or None) if values else None


def bytes_values(features: Features, name: str) -> list[bytes] | None:
    """All values of a bytes feature, or None where `bytes_value` is None."""
    return None if bytes_value(features, name) is None else list(features[name].bytes_list.value)


def replaced(features: Features, name: str, value: bytes | None) -> Features:
    """The features with another value of one bytes feature; None: without it."""
    others = {key: features[key] for key in features if key != name}
    return others if value is None else {**others, name: decode(encode({name: value}))[name]}


def int64_values(features: Features, name: str) -> list[int] | None:
    """All values of an int64 feature, or None where the example has no such feature."""
    feature = features.get(name)
    return None if feature is None else list(feature.int64_list.value)


def float_values(features: Features, name: str) -> list[float] | None:
    """All values of a float feature, or None where the example has no such feature."""
    feature = features.get(name)
    return None if feature is None else list(feature.float_list.value)
