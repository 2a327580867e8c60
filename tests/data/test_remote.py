"""Datasets behind URLs: the same batches as from disk, few requests, and one line for whatever goes wrong."""

import http.server
import json
import pickle
import re
import shutil
import sys
import threading
from itertools import islice
from pathlib import Path

import fsspec
import jax
import numpy as np
import pytest

from benchmarks.http_server import RangeHandler, RangeServer, serving
from tests import small_run
from tests.data.conftest import make_examples, write_dataset
from umemma_jax import cli, experiment
from umemma_jax.addresses import redacted
from umemma_jax.data import remote, tfrecord
from umemma_jax.data.dataset import Dataset, DatasetWriter, open_dataset
from umemma_jax.data.incomplete import IncompleteDataset
from umemma_jax.data.pipeline import eval_batches, reading_threads, train_batches
from umemma_jax.data.remote import RemotePath, locate
from umemma_jax.data.tokenizer import load_tokenizer
from umemma_jax.errors import UserError
from umemma_jax.training import stages, train

NAMES = ("image", "audio", "table")
VOCABULARY = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nred\nblue\n"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(remote, "_PAUSES", (0.0, 0.0))


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory) -> Dataset:
    examples = make_examples(43, missing=True)
    return write_dataset(tmp_path_factory.mktemp("data") / "small", train=examples, test=make_examples(11))


@pytest.fixture
def in_memory(on_disk: Dataset) -> str:
    """The URL of a copy of the dataset in fsspec's memory, with a tokenizer."""
    files = fsspec.filesystem("memory")
    for path in on_disk.path.iterdir():
        files.pipe_file(f"/store/small/{path.name}", path.read_bytes())
    files.pipe_file("/store/small/vocab.txt", VOCABULARY.encode())
    yield "memory://store/small"
    files.store.clear()


@pytest.fixture
def serve():
    """A function that serves a folder over HTTP from a thread; gives the server."""
    pytest.importorskip("aiohttp", reason="aiohttp is not installed (extra `cloud`)")
    servers = []

    def start(folder: Path, handler=RangeHandler) -> RangeServer:
        servers.append(RangeServer(folder, handler=handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(params=["memory", "http"])
def far(request, on_disk: Dataset) -> Dataset:
    """The same dataset, behind a URL."""
    if request.param == "memory":
        return open_dataset(request.getfixturevalue("in_memory"))
    return open_dataset(request.getfixturevalue("serve")(on_disk.path).url)


def assert_same(batches, expected) -> None:
    batches, expected = list(islice(batches, 12)), list(islice(expected, 12))
    assert len(batches) == len(expected) > 0
    for a, b in zip(batches, expected, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)


# The same as from disk


@pytest.mark.parametrize("arguments", [{}, {"threads": 0}, {"threads": 3}, {"cache_bytes": 1 << 20}])
def test_training_batches_are_those_from_disk(far: Dataset, on_disk: Dataset, arguments: dict):
    expected = train_batches(on_disk, "train", NAMES, 8, seed=1, threads=0)
    assert_same(train_batches(far, "train", NAMES, 8, seed=1, **arguments), expected)


@pytest.mark.parametrize("split", ["train", "test"])
def test_evaluation_batches_are_those_from_disk(far: Dataset, on_disk: Dataset, split: str):
    assert_same(eval_batches(far, split, NAMES, 8), eval_batches(on_disk, split, NAMES, 8, threads=0))


def test_what_is_known_of_the_dataset_is_the_same(far: Dataset, on_disk: Dataset):
    assert far.info == on_disk.info
    assert far.fingerprint == on_disk.fingerprint
    jax.tree.map(np.testing.assert_array_equal, far.statistics, on_disk.statistics)
    np.testing.assert_array_equal(far.source("train").labels(), on_disk.source("train").labels())
    np.testing.assert_array_equal(far.source("train").present(NAMES), on_disk.source("train").present(NAMES))


def test_any_rows_in_any_order_some_of_them_twice(far: Dataset, on_disk: Dataset):
    rows = [3, 4, 5, 5, 4, 42, 0, 1, 1]
    assert far.source("train").records(rows) == on_disk.source("train").records(rows)
    assert far.source("train")[7] == on_disk.source("train")[7]
    with pytest.raises(IndexError):
        far.source("train").records([1, 43])


def test_an_incomplete_view_is_that_of_the_files_on_disk(far: Dataset, on_disk: Dataset):
    kept = {"train": np.random.default_rng(0).random((43, 3)) < 0.6}
    views = [IncompleteDataset(dataset, kept, NAMES) for dataset in (far, on_disk)]
    assert_same(*(train_batches(view, "train", NAMES, 8, seed=0) for view in views))


def test_a_pickled_source_reads_on(in_memory: str):
    source = open_dataset(in_memory).source("train")
    assert pickle.loads(pickle.dumps(source))[5] == source[5]


def test_a_file_url_is_a_path(on_disk: Dataset):
    assert locate(f"file://{on_disk.path}") == on_disk.path
    assert open_dataset(f"file://{on_disk.path}").path == on_disk.path


def test_what_has_no_scheme_is_a_path():
    for text in ("runs/data", "/tmp/a:b//c", "a:b"):
        assert locate(text) == Path(text)


def test_batches_from_an_s3_store_are_those_from_disk(serve, on_disk: Dataset, monkeypatch):
    """The client is the real one; the server knows no more of S3 than that an object is at /bucket/key."""
    pytest.importorskip("s3fs", reason="s3fs is not installed (extra `cloud`)")
    url = serve(on_disk.path.parent.parent).url
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": url, "anon": True})
    bucket = on_disk.path.parent.name
    dataset = open_dataset(f"s3://{bucket}/small")
    assert_same(train_batches(dataset, "train", NAMES, 8, seed=1), train_batches(on_disk, "train", NAMES, 8, seed=1))
    with pytest.raises(UserError, match=rf"^s3://{bucket}/none/dataset\.json: not found"):
        open_dataset(f"s3://{bucket}/none")


# Requests


def test_remote_data_are_read_by_several_threads(far: Dataset, on_disk: Dataset):
    assert (reading_threads(far, NAMES), reading_threads(on_disk, NAMES)) == (4, 1)


class Counting(RangeHandler):
    def do_GET(self):
        self.server.asked.append((self.path.strip("/"), self.headers.get("Range")))
        super().do_GET()


def test_small_files_are_read_once_and_only_parts_of_shards(serve, on_disk: Dataset):
    server = serve(on_disk.path, Counting)
    server.asked = []
    dataset = open_dataset(server.url)
    for _ in range(3):
        _ = dataset.source("train").labels(), dataset.source("train").present(NAMES)
        _ = dataset.source("test"), dataset.statistics, dataset.fingerprint
        dataset = IncompleteDataset(dataset, {}, NAMES)
    whole = [path for path, part in server.asked if part is None]
    shards = {shard.file for split in dataset.info.splits.values() for shard in split.shards}
    assert sorted(whole) == sorted(
        ["dataset.json", "statistics.npz", "rows.npz", *[f"{shard}.index" for shard in shards]]
    )
    assert sorted(path for path, part in server.asked if part) == sorted(shards)  # for their length


@pytest.fixture
def asked(monkeypatch) -> list[list[tuple[str, int, int]]]:
    """The ranges of each call to the store."""
    calls = []
    files = type(fsspec.filesystem("memory"))
    plain = files.cat_ranges

    def spy(self, paths, starts, ends, **options):
        calls.append(list(zip(paths, starts, ends, strict=True)))
        return plain(self, paths, starts, ends, **options)

    monkeypatch.setattr(files, "cat_ranges", spy)
    return calls


def test_all_records_of_a_batch_are_asked_for_in_one_call(in_memory: str, asked):
    batches = train_batches(open_dataset(in_memory), "train", NAMES, 8, seed=0, threads=0)
    next(batches)
    before = len(asked)
    next(batches)
    assert len(asked) == before + 1
    assert len(asked[-1]) >= 6  # neighbours may share a request


def test_records_that_follow_each_other_share_a_request(in_memory: str, asked):
    dataset = open_dataset(in_memory)
    source, shards = dataset.source("train"), dataset.info.splits["train"].shards
    assert len(shards) > 2
    source.records(range(len(source)))
    assert asked[-1] == [(f"{in_memory}/{shard.file}", 0, shard.bytes) for shard in shards]


def test_long_requests_are_divided(in_memory: str, asked, monkeypatch, on_disk: Dataset):
    monkeypatch.setattr("umemma_jax.data.shards._LARGEST_REQUEST", 500)
    source = open_dataset(in_memory).source("train")
    assert source.records(range(43)) == on_disk.source("train").records(range(43))
    sizes = [end - start for _, start, end in asked[-1]]
    assert max(sizes) <= 500 and sum(sizes) == sum(shard.bytes for shard in on_disk.info.splits["train"].shards)


def test_what_fails_once_is_asked_for_again(serve, on_disk: Dataset):
    class Flaky(RangeHandler):
        def do_GET(self):
            if self.path not in self.server.seen:
                self.server.seen.add(self.path)
                self.send_error(503)
            else:
                super().do_GET()

    server = serve(on_disk.path, Flaky)
    server.seen = set()
    batches = eval_batches(open_dataset(server.url), "train", NAMES, 8)
    assert_same(batches, eval_batches(on_disk, "train", NAMES, 8))


# Whatever goes wrong is one line


def one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_dataset_there(serve, tmp_path: Path):
    url = serve(tmp_path).url
    with pytest.raises(UserError, match=rf"^{url}/dataset\.json: not found: check the address") as caught:
        open_dataset(f"{url}/")
    one_line(caught)


def test_no_server_there(serve, tmp_path: Path):
    server = serve(tmp_path)
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=rf"^{server.url}/dataset\.json: cannot be read \(.*: check the net") as caught:
        open_dataset(server.url)
    one_line(caught)


def test_server_that_dies_in_the_middle(on_disk: Dataset):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed (extra `cloud`)")
    with serving(on_disk.path) as url:
        batches = train_batches(open_dataset(url), "train", NAMES, 8, seed=0, threads=2)
        next(batches)
    with pytest.raises(UserError, match=rf"^{url}/train-.*: cannot be read \(.*check the network") as caught:
        list(islice(batches, 20))
    one_line(caught)


def test_server_that_sends_whole_files_instead_of_parts(serve, on_disk: Dataset):
    class Whole(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=on_disk.path)

        def log_message(self, *arguments):
            pass

    url = serve(on_disk.path, Whole).url
    with pytest.raises(UserError, match=r"tfrecord: the server sends more than the 4 bytes asked for") as caught:
        open_dataset(url)
    one_line(caught)


def test_what_is_forbidden(in_memory: str, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError("Access\nDenied")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", refuse)
    with pytest.raises(UserError, match=r"cannot be read \(PermissionError: Access Denied\).* credentials"):
        open_dataset(in_memory)


def test_a_back_end_that_fails_as_a_whole(in_memory: str, monkeypatch):
    def fail(*arguments, **options):
        raise RuntimeError("no credentials")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_ranges", fail)
    with pytest.raises(UserError, match=r"cannot be read \(RuntimeError: no credentials\)"):
        open_dataset(in_memory)


def test_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"^gs://bucket/data: .* pip install 'umemma_jax\[cloud\]'") as caught:
        open_dataset("gs://bucket/data")
    one_line(caught)


def test_unknown_kind_of_url():
    with pytest.raises(UserError, match=r"^nothing://x: cannot be opened \(.*nothing.*\): check the address"):
        open_dataset("nothing://x")


def copy_of(dataset: Dataset, folder: Path) -> tuple[Path, list[str]]:
    """A copy that may be damaged, and the names of its training shards."""
    shutil.copytree(dataset.path, folder)
    return folder, [shard.file for shard in dataset.info.splits["train"].shards]


def test_missing_shard(serve, on_disk: Dataset, tmp_path: Path):
    folder, shards = copy_of(on_disk, tmp_path / "copy")
    (folder / shards[1]).unlink()
    with pytest.raises(UserError, match=f"{shards[1]}: not found"):
        open_dataset(serve(folder).url)


def test_shard_that_was_not_copied_to_its_end(in_memory: str, on_disk: Dataset):
    shard = on_disk.info.splits["train"].shards[1]
    fsspec.filesystem("memory").pipe_file(f"/store/small/{shard.file}", b"x" * (shard.bytes - 1))
    with pytest.raises(UserError, match=rf"^{in_memory}/{shard.file}: shorter than dataset\.json says: copy"):
        open_dataset(in_memory)


@pytest.mark.parametrize("index", [b"", b"nonsense", np.array([0, 20], "<u8").tobytes()])
def test_index_of_something_else(in_memory: str, on_disk: Dataset, index: bytes):
    shard = on_disk.info.splits["train"].shards[1]
    fsspec.filesystem("memory").pipe_file(f"/store/small/{shard.file}.index", index)
    with pytest.raises(UserError, match=rf"{shard.file}\.index: damaged, or of another shard: copy"):
        open_dataset(in_memory).source("train")


def test_damaged_record(in_memory: str, on_disk: Dataset):
    shard = on_disk.info.splits["train"].shards[0].file
    data = bytearray((on_disk.path / shard).read_bytes())
    data[tfrecord.load_index(on_disk.path / shard)[2] - 10] ^= 1
    fsspec.filesystem("memory").pipe_file(f"/store/small/{shard}", bytes(data))
    with pytest.raises(UserError, match=rf"^{in_memory}/{shard}: record 1 is corrupted"):
        open_dataset(in_memory).source("train").records(range(43))


def test_statistics_that_were_not_copied(in_memory: str):
    fsspec.filesystem("memory").rm("/store/small/statistics.npz")
    with pytest.raises(UserError, match=r"statistics\.npz: not found"):
        _ = open_dataset(in_memory).statistics


@pytest.mark.parametrize("url", ["gs://bucket/data", Path("gs://bucket/data"), "file:///tmp/data"])
def test_datasets_are_written_to_folders(url):
    with pytest.raises(UserError, match=r"data: datasets are written to local folders: choose one, and copy it"):
        DatasetWriter(url, name="x", description="", classes=["0"], modalities={})


# What is secret in an address


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pw@host/data", "https://***@host/data"),
        ("https://me:p@ss@host:80/data", "https://***@host:80/data"),
        ("https://token@host/data@v1", "https://***@host/data@v1"),
        ("s3://KEY:a/b+c@bucket/data", "s3://***@bucket/data"),
        ("https:/me:pw@host/data", "https:/***@host/data"),  # what pathlib leaves
        ("https://host/data?X-Amz-Signature=1&b=2", "https://host/data?***"),
        ("https://host/data?token=1: not found", "https://host/data?***: not found"),
        (
            "Error(404, url='https://host/data?token=1') at https://a:b@c",
            "Error(404, url='https://host/data?***') at https://***@c",
        ),
        ('{"dir":"https://a:b@c/d?e=f","seed":0}', '{"dir":"https://***@c/d?***","seed":0}'),
        ("https://host:8080/data@v1/x", "https://host:8080/data@v1/x"),
        ("a/b@c?d=e", "a/b@c?d=e"),
    ],
)
def test_what_is_secret_is_not_shown(text: str, shown: str):
    assert redacted(text) == shown
    assert redacted(shown) == shown


class Guarded(RangeHandler):
    """Answers those only who know the password and the token."""

    def do_GET(self):
        if self.headers.get("Authorization") == "Basic bWU6cHc=" and self.path.endswith("?token=t0"):
            super().do_GET()
        else:
            self.send_error(403)


def test_a_run_needs_what_is_secret_and_keeps_none_of_it(serve, tmp_path: Path, capsys):
    small_run.write_dataset(tmp_path / "small")
    address = serve(tmp_path / "small", Guarded).url.removeprefix("http://")
    url = f"http://me:pw@{address}?token=t0"
    config = small_run.get_config(url)
    built = experiment.build(config)
    assert_same(built.batches("test"), experiment.build(small_run.get_config(tmp_path / "small")).batches("test"))
    for _ in range(2):  # claimed, and found to be the same
        train.claim_workdir(config, built.fingerprints, tmp_path / "run")
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["config"]["data"]["dir"] == f"http://***@{address}?***"
    assert str(built.dataset.path) == f"http://***@{address}"
    for wrong in (f"http://me:pW@{address}?token=t0", f"http://me:pw@{address}?token=t1"):
        assert cli.run(["main.py", "--config=configs/quickstart.py", f"--config.data.dir={wrong}"]) == 1
        said = capsys.readouterr().err
        assert "dataset.json: cannot be read" in said and not {"pw", "pW", "t0", "t1"} & set(re.split(r"\W+", said))


# Tokenizers


@pytest.mark.parametrize("name", ["", "/vocab.txt"])
def test_tokenizer(in_memory: str, tmp_path: Path, name: str):
    (tmp_path / "vocab.txt").write_text(VOCABULARY)
    ours, expected = load_tokenizer(f"{in_memory}{name}"), load_tokenizer(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, ours.encode(["blue red"], 6), expected.encode(["blue red"], 6))
    assert ours.fingerprint == expected.fingerprint


def test_no_tokenizer_there(in_memory: str):
    with pytest.raises(UserError, match=r"small/none: no tokenizer here"):
        load_tokenizer(f"{in_memory}/none")
    assert not (locate(in_memory) / "tokenizer.json").exists()
    assert isinstance(locate(in_memory), RemotePath)


# In a run


@pytest.mark.parametrize("changes", [{}, {"missing__eta__rate": 0.5}, {"missing__stand_in": "mean"}])
def test_a_run_takes_the_same_batches_from_a_url(serve, tmp_path: Path, changes: dict):
    folder = tmp_path / "small"
    small_run.write_dataset(folder, missing_share=0.3)
    far, near = (
        experiment.build(small_run.get_config(place, data__cache_megabytes=0, **changes))
        for place in (serve(folder).url, folder)
    )
    assert far.fingerprints == near.fingerprints  # so a workdir may go on with either
    jax.tree.map(np.testing.assert_array_equal, far.means, near.means)
    for stage in stages.STAGES:
        assert_same(stages.training_batches(far, stage), stages.training_batches(near, stage))
    assert_same(far.batches("test"), near.batches("test"))


def test_a_url_is_not_prepared(in_memory: str, capsys):
    url = f"{in_memory}/none"
    assert cli.run(["main.py", "--config=configs/quickstart.py", f"--config.data.dir={url}"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {url}/dataset.json: not found: ")
