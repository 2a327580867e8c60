import json

import google_crc32c
import numpy as np
import pytest

from umemma_jax import checksums
from umemma_jax.errors import UserError


def test_files_and_bytes_have_the_same_checksum(tmp_path):
    data = np.random.default_rng(0).bytes(9_000_000)
    (tmp_path / "x").write_bytes(data)
    assert checksums.of_file(tmp_path / "x") == checksums.of_bytes(data) == f"{google_crc32c.value(data):08x}"
    assert checksums.of_bytes(b"123456789") == "e3069283"  # the check value of CRC-32C


def test_sealed_json_survives_formatting_and_nothing_else(tmp_path):
    sealed = checksums.seal({"name": "é", "numbers": [1, 0.1, 1e-7], "nested": {"b": None, "a": True}})
    again = json.loads(json.dumps(sealed, indent=3, ensure_ascii=False))
    checksums.check_sealed(again, "x.json")
    checksums.check_sealed({"name": "written before there were checksums"}, "x.json")
    with pytest.raises(UserError, match=r"^x\.json: does not match its checksum"):
        checksums.check_sealed({**again, "name": "e"}, "x.json")


def test_every_flipped_bit_of_a_sealed_json_file_is_found():
    sealed = json.dumps(checksums.seal({"files": {"a": [1, "00000000"]}, "n": 12.5})).encode()
    whole = json.loads(sealed)
    for bit in range(8 * len(sealed)):
        flipped = bytearray(sealed)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            content = json.loads(flipped)
            checksums.check_sealed(content, "x.json")
        except (ValueError, UserError):
            continue
        # Named as another field, the checksum is gone: who reads such files asks for their fields, and for no others.
        assert content == whole or checksums.FIELD not in content


def test_what_changed_in_a_folder_is_named(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_bytes(b"abc")
    (tmp_path / "b").write_bytes(b"")
    assert checksums.damaged(tmp_path) is None
    checksums.write_folder(tmp_path)
    assert checksums.damaged(tmp_path) is None
    (tmp_path / "new").write_bytes(b"not looked at")
    assert checksums.damaged(tmp_path) is None
    (tmp_path / "deep" / "a").write_bytes(b"abd")
    assert checksums.damaged(tmp_path) == "deep/a: does not match its checksum"
    (tmp_path / "deep" / "a").write_bytes(b"abcd")
    assert checksums.damaged(tmp_path) == "deep/a: has 4 bytes in place of 3"
    (tmp_path / "deep" / "a").unlink()
    assert checksums.damaged(tmp_path) == "deep/a: No such file or directory"
    (tmp_path / checksums.FILE_NAME).write_text("[" * 100_000)
    assert checksums.damaged(tmp_path) == "checksums.json: is damaged"


def test_a_folder_says_what_it_is_and_leaves_out_what_is_still_to_change(tmp_path):
    assert checksums.about(tmp_path) is None
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    checksums.write_folder(tmp_path, {"step": 3}, without=["b"])
    (tmp_path / "b").write_text("changed")
    assert checksums.damaged(tmp_path) is None
    assert checksums.about(tmp_path) == {"step": 3}
