import shutil

import pytest

from tests.data_prep.raw_files import write_fsdd, write_mnist


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Folder with small `mnist` and `fsdd`; not to be changed."""
    folder = tmp_path_factory.mktemp("digits")
    write_mnist(folder / "mnist")
    write_fsdd(folder / "fsdd")
    return folder


# Of the files that render clips: their fixture `rendered` gives a raw folder, not to be changed, and its rows by split.


@pytest.fixture
def raw(tmp_path, rendered):
    """A whole copy of the raw folder, to be damaged."""
    shutil.copytree(rendered[0], tmp_path / "raw")
    return tmp_path / "raw"


@pytest.fixture
def rows(rendered):
    """Split -> rows, which may be changed."""
    return {split: list(of_split) for split, of_split in rendered[1].items()}
