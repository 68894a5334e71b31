"""Tiny image files of every kind that is read: npz, IDX, CIFAR's batches, npz of JPEG."""

import gzip
import io
import pickle

import numpy as np


def pictures(count: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, *shape), np.uint8), np.arange(count) % 10


def write_npz(folder, *shape: int) -> None:
    (x, y), (x_test, y_test) = pictures(60, *shape), pictures(20, *shape)
    np.savez(folder / "images.npz", x_train=x, y_train=y[:, None], x_test=x_test, y_test=y_test)


def write_idx(folder, compress: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, (x, y) in (("train", pictures(60, 28, 28)), ("t10k", pictures(20, 28, 28))):
        for kind, array in (("images-idx3", x), ("labels-idx1", y.astype(np.uint8))):
            content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()
            name = f"{split}-{kind}-ubyte"
            (folder / (name + ".gz" * compress)).write_bytes(gzip.compress(content) if compress else content)


def write_cifar(folder, labels: bytes = b"labels") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    x, y = pictures(60, 32, 32, 3)
    x_test, y_test = pictures(20, 32, 32, 3)
    train_names = ("data_batch_1", "data_batch_2") if labels == b"labels" else ("train",)
    parts = [*zip(train_names, np.split(x, len(train_names)), np.split(y, len(train_names)), strict=True)]
    for name, images, targets in (*parts, ("test_batch" if len(train_names) == 2 else "test", x_test, y_test)):
        batch = {b"data": images.transpose(0, 3, 1, 2).reshape(len(images), -1), labels: targets.tolist()}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))


def write_jpeg(folder) -> np.ndarray:
    """Flat colours, which JPEG keeps nearly exactly. Returns the training images."""
    from PIL import Image

    arrays = {}
    for split, count in (("train", 60), ("test", 20)):
        x, y = pictures(count, 1, 1, 3)
        x = np.broadcast_to(x, (count, 16, 16, 3))
        files = []
        for image in x:
            Image.fromarray(np.ascontiguousarray(image)).save(buffer := io.BytesIO(), "JPEG", quality=95)
            files.append(buffer.getvalue())
        arrays |= {f"jpeg_{split}": np.frombuffer(b"".join(files), np.uint8), f"y_{split}": y}
        arrays[f"off_{split}"] = np.cumsum([0, *map(len, files)])
        arrays["kept"] = x if split == "train" else arrays["kept"]
    kept = arrays.pop("kept")
    np.savez(folder / "images.npz", **arrays)
    return kept
