import hashlib
import http.server
import io
import tarfile
import threading
import time

import pytest

from umemma_jax.data_prep.raw import download, mnist
from umemma_jax.data_prep.raw.download import RemoteFile, fetch, registered_files, unpack
from umemma_jax.errors import UserError


@pytest.fixture
def remote(tmp_path):
    """A file behind a URL, as the registry would have it."""
    source = tmp_path / "server" / "data.gz"
    source.parent.mkdir()
    source.write_bytes(b"content" * 1000)
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    return RemoteFile(source.as_uri(), source.stat().st_size, sha256, "renamed.gz")


def test_registry_has_what_is_needed():
    assert {file.name for file in registered_files("mnist")} == {
        f"{name}.gz" for names in mnist.FILES.values() for name in names
    }
    (archive,) = registered_files("spoken_digit")
    assert archive.name == "free-spoken-digit-dataset-1.0.9.tar.gz"
    assert archive.url.startswith("https://")
    assert archive.size > 10**7
    assert len(archive.sha256) == 64


def test_downloads_once(tmp_path, remote):
    cache = tmp_path / "cache" / "deep"
    (path,) = fetch([remote], cache, otherwise="")
    assert path == cache / "renamed.gz"
    assert path.read_bytes() == b"content" * 1000
    (tmp_path / "server" / "data.gz").unlink()
    assert fetch([remote], cache, otherwise="") == [path]


def test_incomplete_file_is_downloaded_again(tmp_path, remote):
    (tmp_path / "renamed.gz").write_bytes(b"cont")
    (path,) = fetch([remote], tmp_path, otherwise="")
    assert path.read_bytes() == b"content" * 1000


def test_wrong_content(tmp_path, remote):
    wrong = RemoteFile(remote.url, remote.size, "0" * 64, remote.name)
    with pytest.raises(UserError, match=r"its SHA-256 sum is not .*: bring it"):
        fetch([wrong], tmp_path / "cache", otherwise="bring it")
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/data.gz", "http://nowhere.invalid/data.gz"])
def test_no_network(tmp_path, url):
    with pytest.raises(UserError) as error:
        fetch([RemoteFile(url, 7, "", "data.gz")], tmp_path, otherwise="bring it")
    assert str(error.value).startswith(f"{url}: cannot be downloaded to {tmp_path} (")
    assert str(error.value).endswith("): bring it")
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_there_but_wrong_is_downloaded_again(tmp_path, remote):
    (tmp_path / "renamed.gz").write_bytes(bytes(remote.size))
    (path,) = fetch([remote], tmp_path, otherwise="")
    assert path.read_bytes() == b"content" * 1000


class Harmful(http.server.BaseHTTPRequestHandler):
    """Does harm in the way that the path names."""

    def do_GET(self):
        harm = self.path.strip("/")
        self.send_response(302 if harm == "redirect" else 200)
        if harm == "redirect":
            self.send_header("Location", "file:///etc/passwd")
        if harm == "cut":
            self.send_header("Content-Length", "7000")
        self.end_headers()
        if harm == "cut":
            self.wfile.write(b"content")
        while harm == "endless":
            self.wfile.write(bytes(1 << 16))
        while harm == "slow":
            self.wfile.write(b"x")
            time.sleep(0.02)
        if harm == "silent":
            time.sleep(2)

    def log_message(self, *arguments):
        """Says nothing."""


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("redirect", "Redirection to url .file:.* is not allowed"),
        ("cut", "its SHA-256 sum is not the one"),
        ("endless", "longer than the 7000 bytes that tensorflow-datasets has"),
        ("slow", r"only \d+ bytes in \d+ s"),
        ("silent", "timed out"),
    ],
)
def test_server_that_does_harm(tmp_path, monkeypatch, harm, message):
    monkeypatch.setattr(download, "_TIMEOUT", 0.5)
    monkeypatch.setattr(download, "_GRACE", 0.2)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Harmful) as server:
        server.daemon_threads, server.handle_error = True, lambda *_: None
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        file = RemoteFile(f"http://127.0.0.1:{server.server_port}/{harm}", 7000, "0" * 64, "data.gz")
        with pytest.raises(UserError, match=rf"cannot be downloaded to .*{message}.*: bring it$") as caught:
            fetch([file], tmp_path / "cache", otherwise="bring it")
        server.shutdown()
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_folder_that_cannot_be_made(tmp_path, remote):
    (tmp_path / "cache").touch()
    with pytest.raises(UserError, match="cannot be downloaded to"):
        fetch([remote], tmp_path / "cache" / "deep", otherwise="bring it")


def write_tar(path, name):
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 5
        tar.addfile(member, io.BytesIO(b"hello"))


def test_unpacks_once(tmp_path):
    archive = tmp_path / "things-1.0.tar.gz"
    write_tar(archive, "things-1.0/recordings/a.wav")
    folder = unpack(archive)
    assert folder == tmp_path / "things-1.0"
    assert (folder / "recordings" / "a.wav").read_bytes() == b"hello"
    archive.write_bytes(b"")
    assert unpack(archive) == folder
    assert sorted(path.name for path in tmp_path.iterdir()) == ["things-1.0", "things-1.0.tar.gz"]


def test_what_a_killed_run_left_is_removed(tmp_path):
    archive = tmp_path / "things-1.0.tar.gz"
    write_tar(archive, "things-1.0/a.wav")
    (tmp_path / "things-1.0.partial-0a1b2c3d").mkdir()
    unpack(archive)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["things-1.0", "things-1.0.tar.gz"]


@pytest.mark.parametrize("fault", ["truncated", "not a tar", "other folder", "outside"])
def test_damaged_archive_leaves_nothing(tmp_path, fault):
    archive = tmp_path / "things-1.0.tar.gz"
    names = {"other folder": "things-2.0/a.wav", "outside": "../a.wav"}
    write_tar(archive, names.get(fault, "things-1.0/a.wav"))
    if fault == "truncated":
        archive.write_bytes(archive.read_bytes()[:-20])
    if fault == "not a tar":
        archive.write_bytes(b"<html>not found</html>")
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(archive)
    assert [path.name for path in tmp_path.iterdir()] == ["things-1.0.tar.gz"]
