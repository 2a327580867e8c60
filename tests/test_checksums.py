import json

import google_crc32c
import numpy as np
import pytest

from umemma_jax import checksums
from umemma_jax.errors import UserError


def crc32c(data):
    return f"{google_crc32c.value(data):08x}"


def test_check_value():
    assert checksums.of_bytes(b"123456789") == "e3069283"  # of CRC-32C


def test_a_large_file_has_a_checksum_for_each_of_its_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(checksums, "_PART", 1_000_000)
    data = np.random.default_rng(0).bytes(2_500_000)
    for name, size in (("large", len(data)), ("exact", 1_000_000), ("empty", 0)):
        (tmp_path / name).write_bytes(data[:size])
    checksums.write_folder(tmp_path)
    stated = json.loads((tmp_path / checksums.FILE_NAME).read_text())
    assert stated["files"] == {
        "empty": [0, crc32c(b"")],
        "exact": [1_000_000, crc32c(data[:1_000_000])],
        "large": [2_500_000, "".join(crc32c(data[start : start + 1_000_000]) for start in (0, 1_000_000, 2_000_000))],
    }
    assert checksums.damaged(tmp_path) is None
    for position in (0, 999_999, 1_000_000, 2_499_999):
        changed = bytearray(data)
        changed[position] ^= 1
        (tmp_path / "large").write_bytes(changed)
        assert checksums.damaged(tmp_path) == "large: does not match its checksum"


def test_folders_written_before_files_had_parts_are_read(tmp_path):
    for name, data in (("a", b"abc"), ("b", b"")):
        (tmp_path / name).write_bytes(data)
    stated = {"about": {}, "files": {"a": [3, crc32c(b"abc")], "b": [0, crc32c(b"")]}}
    (tmp_path / checksums.FILE_NAME).write_text(json.dumps(checksums.seal(stated)))
    assert checksums.damaged(tmp_path) is None
    (tmp_path / "a").write_bytes(b"abd")
    assert checksums.damaged(tmp_path) == "a: does not match its checksum"


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
