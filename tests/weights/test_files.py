import json
import os
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from umemma_jax.data.unfinished import appearing
from umemma_jax.errors import UserError
from umemma_jax.weights import files, pickles

ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.half": np.arange(3).astype(np.float16),
    "b.brain": np.arange(4).astype(ml_dtypes.bfloat16),
    "count": np.array(7, np.int64),
    "none": np.zeros((0, 2), np.float32),
}


def assert_holds(opened, arrays):
    assert set(opened.shapes) == set(arrays)
    for name, array in arrays.items():
        found = opened.read(name)
        assert opened.shapes[name] == array.shape
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_a_safetensors_file_and_a_folder_with_one(tmp_path):
    save_file(ARRAYS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "x"}')
    for path in (tmp_path, tmp_path / "model.safetensors", str(tmp_path)):
        opened = files.open_weights(path)
        assert_holds(opened, ARRAYS)
        assert opened.config == {"model_type": "x"}
        assert set(opened.sha256()) == {"model.safetensors", "config.json"}


def test_shards_with_an_index(tmp_path):
    names = list(ARRAYS)
    shards = {"model-00001-of-00002.safetensors": names[:2], "model-00002-of-00002.safetensors": names[2:]}
    for file, part in shards.items():
        save_file({name: ARRAYS[name] for name in part}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, part in shards.items() for name in part}}))
    assert_holds(files.open_weights(tmp_path), ARRAYS)
    assert_holds(files.open_weights(index), ARRAYS)
    (tmp_path / next(iter(shards))).unlink()
    with pytest.raises(UserError, match=r"model-00001-of-00002\.safetensors: missing"):
        files.open_weights(tmp_path)


def test_what_is_written_is_read_by_safetensors_and_by_us(tmp_path):
    path = tmp_path / "x.safetensors"
    files.write_safetensors(path, list(ARRAYS), iter(ARRAYS.values()))
    assert_holds(files.open_weights(path), ARRAYS)
    for name, array in load_file(path).items():
        np.testing.assert_array_equal(array, ARRAYS[name])


def test_arrays_of_any_strides_are_written_in_order(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1)
    files.write_safetensors(tmp_path / "x.safetensors", ["t"], [array])
    np.testing.assert_array_equal(load_file(tmp_path / "x.safetensors")["t"], array)


@pytest.mark.parametrize("kept", [4, 60, -1])
def test_a_truncated_safetensors_file_is_named(tmp_path, kept):
    path = tmp_path / "model.safetensors"
    save_file(ARRAYS, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"model\.safetensors: is no whole safetensors file"):
        files.open_weights(path)


def test_a_corrupted_header_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(ARRAYS, path)
    data = bytearray(path.read_bytes())
    data[:8] = struct.pack("<Q", 2**40)
    path.write_bytes(data)
    with pytest.raises(UserError, match="is no whole safetensors file"):
        files.open_weights(path)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({}, "no weights in this folder"),
        ({"a.pt": b"", "b.pt": b""}, r"several weight files \(a.pt, b.pt\)"),
        ({"model.safetensors.index.json": b"{}"}, "has no weight_map"),
        ({"model.safetensors.index.json": b"{"}, "damaged"),
        ({"model.safetensors.index.json": b"[]"}, "no JSON object"),
    ],
)
def test_folders_without_usable_weights(tmp_path, written, message):
    for name, contents in written.items():
        (tmp_path / name).write_bytes(contents)
    with pytest.raises(UserError, match=message):
        files.open_weights(tmp_path)


def test_names_that_no_file_can_have(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        files.open_weights(tmp_path / ("x" * 300))
    index = {"weight_map": {"a": f"{'x' * 300}.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match="missing, though"):
        files.open_weights(tmp_path)
    with pytest.raises(UserError, match="cannot be written"), appearing(tmp_path / ("y" * 300)):
        pass


def test_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        files.open_weights(tmp_path / "nothing")


def test_a_tensor_in_two_files(tmp_path):
    save_file(ARRAYS, tmp_path / "a.safetensors")
    save_file(ARRAYS, tmp_path / "b.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": "a.safetensors", "a.half": "b.safetensors"}}))
    with pytest.raises(UserError, match="in two of its files"):
        files.open_weights(index)


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/x.safetensors", "a/../../x.safetensors", "x.json", "", ["x"], None, 3]
)
def test_an_index_may_name_weight_files_beside_it_alone(name, tmp_path):
    save_file(ARRAYS, tmp_path / "x.safetensors")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a.weight": name}}))
    with pytest.raises(UserError, match="which is no weight file beside it"):
        files.open_weights(folder)


def test_an_index_that_does_not_name_what_its_files_hold(tmp_path):
    save_file(ARRAYS, tmp_path / "x.safetensors")
    index = {"weight_map": {**dict.fromkeys(ARRAYS, "x.safetensors"), "lost": "x.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"does not name what its files hold \(lost\)"):
        files.open_weights(tmp_path)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json"])
@pytest.mark.parametrize(
    "contents, message",
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "is a Git-LFS pointer"),
        ("<!DOCTYPE html><html>not found</html>", "is a web page"),
    ],
)
def test_what_stands_for_a_file_is_named(name, contents, message, tmp_path):
    save_file(ARRAYS, tmp_path / "model.safetensors")
    (tmp_path / name).write_text(contents)
    path = tmp_path if name == "config.json" else tmp_path / name
    with pytest.raises(UserError, match=f"{name}: {message}"):
        files.open_weights(path)


def test_a_folder_or_a_pipe_is_no_file_of_weights(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(UserError, match="is no file"):
        files.open_weights(tmp_path)
    os.mkfifo(tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="is no file"):
        files.open_weights(tmp_path / "x.safetensors")


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "I8"])
def test_a_safetensors_file_of_small_floats(dtype, tmp_path):
    header = json.dumps({"a": {"dtype": dtype, "shape": [4], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    opened = files.open_weights(tmp_path)
    if dtype == "I8":
        assert opened.read("a").dtype == np.int8
    else:
        with pytest.raises(UserError, match=f"tensor a is {dtype}, save it as F32"):
            opened.read("a")


def test_what_fails_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="zip"), appearing(tmp_path / "x") as partial:
        files.write_safetensors(partial, ["a", "b"], [np.zeros(3, np.float32)])
    with pytest.raises(KeyError), appearing(tmp_path / "y") as partial:
        partial.mkdir()
        (partial / "file").write_text("")
        raise KeyError
    assert not list(tmp_path.iterdir())


# PyTorch's own files.


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed (extra `torch`)")


def tensors(torch):
    return {
        "a.weight": torch.arange(6.0).reshape(2, 3).T,
        "a.half": torch.arange(3).half(),
        "b.brain": torch.arange(4).bfloat16(),
        "count": torch.tensor(7),
    }


@pytest.mark.parametrize("suffix", pickles.SUFFIXES)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_pickles_of_both_forms(tmp_path, torch, suffix, zipped):
    path = tmp_path / f"x{suffix}"
    torch.save(tensors(torch), path, _use_new_zipfile_serialization=zipped)
    expected = {name: ARRAYS[name] for name in ("a.half", "b.brain", "count")}
    expected["a.weight"] = ARRAYS["a.weight"].reshape(2, 3).T
    assert_holds(files.open_weights(path), expected)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {}}},
    ],
)
def test_a_state_dict_within_a_training_checkpoint(tmp_path, torch, wrap):
    torch.save(wrap(tensors(torch)), tmp_path / "x.pt")
    assert set(files.open_weights(tmp_path).shapes) == set(tensors(torch))


def test_sharded_bin_files(tmp_path, torch):
    state = tensors(torch)
    torch.save({"a.weight": state["a.weight"]}, tmp_path / "one.bin")
    torch.save({"count": state["count"]}, tmp_path / "two.bin")
    index = {"weight_map": {"a.weight": "one.bin", "count": "two.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert set(files.open_weights(tmp_path).shapes) == {"a.weight", "count"}


class Malicious:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, torch, zipped):
    state = {**tensors(torch), "evil": Malicious(tmp_path / "was_run")}
    torch.save(state, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=r"refused, the pickle asks to run \S*open"):
        files.open_weights(tmp_path / "x.pt")
    assert not (tmp_path / "was_run").exists()


def test_a_whole_module_is_refused(tmp_path, torch):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(UserError, match=r"refused, the pickle asks to run torch\.nn\.modules\.linear\.Linear"):
        files.open_weights(tmp_path / "module.pt")


def test_a_script_is_refused_in_one_line(tmp_path, torch, recwarn):
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pt"))
    recwarn.clear()
    with pytest.raises(UserError, match="refused, a TorchScript archive holds code"):
        files.open_weights(tmp_path / "script.pt")
    assert not recwarn.list  # PyTorch would print its own below ours


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0, 50, 0.5, 0.99])
def test_truncated_pickles_are_named(tmp_path, torch, zipped, kept):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(1000)}, path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(UserError, match=r"x\.pt: cannot be read as PyTorch weights"):
        files.open_weights(path)


def test_a_flipped_byte_in_a_zipped_pickle_is_found(tmp_path, torch):
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(1000)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(bytes(2000)) + 1000] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="does not match its checksum"):
        files.open_weights(path)


def test_pickles_without_tensors(tmp_path, torch):
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(UserError, match="holds a list and no state dict"):
        files.open_weights(tmp_path / "list.pt")
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    with pytest.raises(UserError, match="holds no tensors"):
        files.open_weights(tmp_path / "epoch.pt")


def test_the_keys_are_named_where_none_is_known_to_hold_the_weights(tmp_path, torch):
    torch.save({"student": tensors(torch), "teacher": tensors(torch), "epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="holds no tensors, but student, teacher, epoch: save the weights' own"):
        files.open_weights(tmp_path / "x.pt")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda torch: torch.zeros(4).to(torch.float8_e4m3fn), "is float8_e4m3fn, save it as float32"),
        (lambda torch: torch.zeros(4).to(torch.complex64), "is complex64, save it as float32"),
        (lambda torch: torch.zeros(1).expand(10**12), "repeats its values"),
        (lambda torch: torch.zeros(4, device="meta"), "has no values"),
    ],
    ids=["float8", "complex", "expanded", "meta"],
)
def test_tensors_that_cannot_be_read_are_named(make, message, tmp_path, torch):
    torch.save({"a": make(torch)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=f"tensor a .*{message}"):
        files.open_weights(tmp_path / "x.pt").read("a")


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path, torch):
    torch.save({"a": torch.zeros(1_000_000)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(UserError, match="its archive is compressed"):
        files.open_weights(tmp_path / "bomb.pt")


def test_sparse_tensors_are_refused(tmp_path, torch):
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="tensor a is quantised or sparse"):
        files.open_weights(tmp_path / "x.pt").read("a")


def test_pickles_without_pytorch_say_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "x.pt").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(UserError, match="pip install"):
        files.open_weights(tmp_path / "x.pt")
