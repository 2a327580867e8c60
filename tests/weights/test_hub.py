"""What has an address on the Hugging Face Hub is fetched; a stand-in plays the Hub."""

import pathlib

import huggingface_hub
import pytest
from huggingface_hub import errors

from umemma_jax.errors import UserError
from umemma_jax.weights import hub


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """What was asked of the Hub, whose one checkpoint has weights as a pickle only."""
    calls = []

    def snapshot_download(name, revision, allow_patterns):
        calls.append((name, revision))
        if name != "owner/model":
            raise errors.LocalEntryNotFoundError("cannot find the files and outgoing traffic is not possible")
        for file in ("config.json", "pytorch_model.bin"):
            if any(pathlib.PurePath(file).match(pattern) for pattern in allow_patterns):
                (tmp_path / file).write_text("{}")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return calls


def test_a_path_is_one_already(asked):
    assert hub.local("some/folder") == pathlib.Path("some/folder")
    assert not asked


def test_pickles_are_fetched_only_where_there_is_nothing_else(asked, tmp_path):
    assert hub.local("hf://owner/model@v2") == tmp_path
    assert (tmp_path / "pytorch_model.bin").exists()
    assert asked == [("owner/model", "v2")] * 2
    asked.clear()
    (tmp_path / "model.safetensors").touch()
    hub.local("hf://owner/model")
    assert asked == [("owner/model", None)]


def test_what_cannot_be_had_is_named(asked):
    with pytest.raises(UserError, match=r"hf://owner/other: cannot be fetched \(cannot find the files"):
        hub.local("hf://owner/other")
