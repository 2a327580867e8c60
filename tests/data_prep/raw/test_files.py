import os
import socket

import pytest

from umemma_jax.data_prep.build.tasks import Unreadable
from umemma_jax.data_prep.raw.clips import ToClip
from umemma_jax.data_prep.raw.files import open_file
from umemma_jax.data_prep.raw.fsdd import read_recording
from umemma_jax.data_prep.raw.photos import ToJpeg
from umemma_jax.errors import UserError


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    return tmp_path / "photo.jpg"


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)


NO_FILES = {
    "No such file": lambda path: None,
    "a directory instead of a file": lambda path: path.mkdir(),
    "a pipe instead of a file": os.mkfifo,
    "a socket instead of a file": make_socket,
    "a device instead of a file": lambda path: path.symlink_to("/dev/zero"),
    "Too many levels of symbolic links": lambda path: path.symlink_to(path),
    "empty file": lambda path: path.touch(),
    "a pointer of Git LFS instead of the file": lambda path: path.write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12345\n"
    ),
}


@pytest.mark.parametrize("reason", NO_FILES)
def test_what_is_no_file_is_named_and_not_waited_for(place, reason):
    NO_FILES[reason](place)
    for read in (open_file, ToJpeg(), ToClip(0, 1)):
        with pytest.raises(Unreadable, match=reason):
            read(place)
    with pytest.raises(UserError, match=rf"photo\.jpg: {reason}"):
        read_recording(place)


def test_a_name_that_cannot_be_one(tmp_path):
    for name in ("a\0b", "a" * 300):
        with pytest.raises(Unreadable, match=r"(null|too long)"):
            open_file(tmp_path / name)


def test_a_file_is_read_from_its_beginning(place):
    place.write_bytes(b"content")
    with open_file(place) as file:
        assert file.read() == b"content"
