import pytest

from tests.data_prep.raw_files import write_fsdd, write_mnist


@pytest.fixture(scope="session")
def raw(tmp_path_factory):
    """Folder with small `mnist` and `fsdd`; not to be changed."""
    folder = tmp_path_factory.mktemp("raw")
    write_mnist(folder / "mnist")
    write_fsdd(folder / "fsdd")
    return folder
