"""What a path that does not exist may mean."""

import unicodedata

import pytest

from umemma_jax.data_prep.raw.near import below, near


@pytest.fixture
def folder(tmp_path):
    for name in ("img/Cat 1.JPG", "img/caf\u00e9.png", "img/deep/er/dog.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("img/cat 1.jpg", "img/Cat 1.JPG"),
        ("IMG/Cat 1", "img/Cat 1.JPG"),
        ("img\\Cat 1.jpeg", "img/Cat 1.JPG"),
        ("'img/Cat 1.JPG'", "img/Cat 1.JPG"),
        (unicodedata.normalize("NFD", "img/caf\u00e9.png"), "img/caf\u00e9.png"),
        ("img/bird.jpg", None),
        ("img", None),
        ("", None),
        ("img/" + "x" * 300, None),
        ("nul\0", None),
    ],
)
def test_near(folder, given, meant):
    assert near(folder, given) == (folder / meant if meant else None)


def test_below(folder):
    for given in ("dog.jpg", "old/place/DOG.png", "C:\\data\\dog.jpg", "/elsewhere/dog.jpg"):
        assert near(folder, given) is None
        assert below(folder, given) == folder / "img/deep/er/dog.jpg"
    assert below(folder, "bird.jpg") is None
