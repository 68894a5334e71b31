"""The papers' experiments: the images of a folder are found in every format, and a folder without them is refused."""

import builtins

import numpy as np
import pytest

from bench.papers import sources
from bench.papers.sources import PapersError
from tests.image_files import pictures, write_cifar, write_idx, write_jpeg, write_npz


@pytest.fixture(autouse=True)
def forget():
    sources.images.cache_clear()
    yield
    sources.images.cache_clear()


def test_digits_stand_in_where_there_is_no_folder():
    assert len(sources.images("mnist", None).y) == 1797
    counts = np.bincount(sources.images("ham10000", None).y)
    assert counts.max() > 20 * counts.min() > 0


@pytest.mark.parametrize("name", ["mnist", "cifar10", "cifar100", "ham10000"])
def test_npz_is_found_by_its_name(tmp_path, name):
    write_npz(tmp_path, 28, 28)
    (tmp_path / "images.npz").rename(tmp_path / f"{name}_28.npz")
    (tmp_path / "other.npz").write_bytes(b"not read")
    assert np.array_equal(sources.images(name, str(tmp_path)).x[..., 0], pictures(60, 28, 28)[0])


def test_jpeg_npz_is_found(tmp_path):
    kept = write_jpeg(tmp_path)
    (tmp_path / "images.npz").rename(tmp_path / "cifar10_jpeg.npz")
    assert np.abs(sources.images("cifar10", str(tmp_path)).x.astype(int) - kept).max() <= 3


@pytest.mark.parametrize("below", [".", "MNIST/raw", "mnist"])
@pytest.mark.parametrize("compress", [False, True])
def test_idx_is_found_where_torchvision_puts_it(tmp_path, below, compress):
    write_idx(tmp_path / below, compress)
    assert len(sources.images("mnist", str(tmp_path)).x_test) == 20


@pytest.mark.parametrize("name, below, labels", [
    ("cifar10", ".", b"labels"), ("cifar10", "cifar-10-batches-py", b"labels"),
    ("cifar100", "cifar-100-python", b"fine_labels"),
])  # fmt: skip
def test_cifar_batches_are_found(tmp_path, name, below, labels):
    write_cifar(tmp_path / below, labels)
    assert np.array_equal(sources.images(name, str(tmp_path)).x, pictures(60, 32, 32, 3)[0])


def test_one_folder_holds_them_all(tmp_path):
    write_idx(tmp_path / "MNIST" / "raw")
    write_cifar(tmp_path / "cifar-10-batches-py")
    write_cifar(tmp_path / "cifar-100-python", b"fine_labels")
    shapes = {name: sources.images(name, str(tmp_path)).x.shape[1:] for name in ("mnist", "cifar10", "cifar100")}
    assert shapes == {"mnist": (28, 28, 1), "cifar10": (32, 32, 3), "cifar100": (32, 32, 3)}


def test_file_is_taken_as_it_is(tmp_path):
    write_npz(tmp_path, 32, 32, 3)
    assert len(sources.images("cifar10", str(tmp_path / "images.npz")).y) == 60


def test_missing_images_are_told(tmp_path):
    with pytest.raises(PapersError, match=r"--data must hold mnist\*.npz or one of the folders MNIST"):
        sources.images("mnist", str(tmp_path))
    with pytest.raises(PapersError, match="--data must be a file or a folder that exists"):
        sources.images("mnist", str(tmp_path / "nowhere"))
    for name in ("mnist_a.npz", "mnist_b.npz"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(PapersError, match="--data must hold one file"):
        sources.images("mnist", str(tmp_path))


def test_broken_file_is_told(tmp_path):
    (tmp_path / "mnist.npz").write_bytes(b"not an npz")
    with pytest.raises(PapersError, match=r"fastrw\.papers: .* must be a readable npz file"):
        sources.images("mnist", str(tmp_path))


def test_download_asks_torchvision(tmp_path, monkeypatch):
    def fetch(name, folder):
        write_idx(folder / "MNIST" / "raw")

    monkeypatch.setattr(sources, "_fetch", fetch)
    assert len(sources.images("mnist", str(tmp_path / "new"), True).y) == 60


def test_download_without_torchvision_is_told(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("torchvision"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(PapersError, match="--download needs torchvision"):
        sources.images("mnist", str(tmp_path), True)
    with pytest.raises(PapersError, match="--download knows MNIST and CIFAR only"):
        sources.images("ham10000", str(tmp_path), True)
