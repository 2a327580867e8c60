import numpy as np

from umemma_jax.data_prep.raw.mnist import read_mnist


def test_real_files(shared_data):
    splits = read_mnist(shared_data / "mnist")
    (train, train_labels), (test, test_labels) = splits["train"], splits["test"]
    assert train.shape == (60000, 28, 28)
    assert test.shape == (10000, 28, 28)
    # Counts per class as Yann LeCun's page and every textbook have them.
    assert np.bincount(train_labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert train_labels[:5].tolist() == [5, 0, 4, 1, 9]


def test_gz_and_unpacked_mixed(digits):
    splits = read_mnist(digits / "mnist")
    assert splits["test"][0].shape == (460, 28, 28)
    assert splits["test"][1].tolist() == [i % 10 for i in range(460)]
