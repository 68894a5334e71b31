"""Where images come from: scikit-learn's digits, npz files, IDX files (MNIST and its kin), CIFAR's python batches."""

import gzip
import io
import pickle
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from fastrw.demo.resume import readable
from fastrw.demo.settings import DemoError


@dataclass
class Images:
    """Images [N, H, W, C] and labels [N] in 0..classes-1. Without a test set, each seed holds out its own quarter."""

    name: str
    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None

    def __post_init__(self):
        self.x, self.y = _checked(self.name, "training", self.x, self.y)
        if self.x_test is not None:
            self.x_test, self.y_test = _checked(self.name, "test", self.x_test, self.y_test)
            if self.x.shape[1:] != self.x_test.shape[1:]:
                shapes = f"{self.x.shape[1:]} and {self.x_test.shape[1:]} in {self.name}"
                raise DemoError(f"fastrw.demo: training and test images must have one shape, got {shapes}")
        if self.classes < 2:
            raise DemoError(f"fastrw.demo: labels must be of at least 2 classes, got 1 in {self.name}")

    @property
    def classes(self) -> int:
        return 1 + int(max(y.max() for y in (self.y, self.y_test) if y is not None))

    @property
    def fingerprint(self) -> int:
        """Changes when any image or label does."""
        crc = 0
        for array in (self.x, self.y, self.x_test, self.y_test):
            crc = crc if array is None else zlib.crc32(np.ascontiguousarray(array), crc)
        return crc


def load(path: str | None) -> Images:
    """The images at `path`, a file or a folder; scikit-learn's handwritten digits where it is None."""
    if path is None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        return Images("handwritten digits (scikit-learn)", digits.images, digits.target)
    place = Path(path).expanduser()
    if not place.exists():
        raise DemoError(f"fastrw.demo: --data must be a file or a folder that exists, got {path}")
    if place.suffix == ".npz":
        return _npz(place)
    folder, readers = (place, (_idx, _cifar, _only_npz)) if place.is_dir() else (place.parent, (_idx, _cifar))
    for reader in readers:
        if (images := reader(folder)) is not None:
            return images
    raise DemoError(
        "fastrw.demo: --data must hold an npz file, IDX files (train-images-idx3-ubyte, plain or .gz) or CIFAR's "
        f"python batches (data_batch_1), got {path}"
    )


def _checked(name: str, part: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y = y.reshape(-1)
    if x.ndim == 3:
        x = x[..., None]
    elif x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] not in (1, 3):
        x = x.transpose(0, 2, 3, 1)
    if x.ndim != 4 or not np.issubdtype(x.dtype, np.number):
        raise DemoError(f"fastrw.demo: {part} images must be numbers [N, H, W(, C)], got {x.shape} in {name}")
    if len(x) != len(y) or len(y) == 0:
        raise DemoError(f"fastrw.demo: each {part} image needs a label, got {len(x)} images, {len(y)} labels in {name}")
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
        raise DemoError(f"fastrw.demo: {part} labels must be whole numbers from 0 up, got {y.dtype} in {name}")
    return x, y.astype(np.int64)


def _npz(file: Path) -> Images:
    with readable(f"fastrw.demo: {file} must be a readable npz file of plain arrays"), np.load(file) as arrays:
        held = {key: arrays[key] for key in arrays.files if key.split("_")[0] in ("x", "y", "jpeg", "off")}
        keys = ", ".join(arrays.files)
    parts = []
    for split in ("train", "test"):
        if {f"jpeg_{split}", f"off_{split}"} <= held.keys():
            held[f"x_{split}"] = _decoded(held[f"jpeg_{split}"], held[f"off_{split}"], file)
        if not {f"x_{split}", f"y_{split}"} <= held.keys():
            raise DemoError(
                "fastrw.demo: an npz file must hold x_train, y_train, x_test and y_test (or jpeg_train and off_train, "
                f"jpeg_test and off_test for images kept as JPEG), got {keys} in {file}"
            )
        parts += [held[f"x_{split}"], held[f"y_{split}"]]
    return Images(file.name, *parts)


def _decoded(jpeg: np.ndarray, offsets: np.ndarray, file: Path) -> np.ndarray:
    """Image i is the JPEG jpeg[offsets[i]:offsets[i + 1]]. offsets [N + 1] -> [N, H, W, C] uint8."""
    from PIL import Image

    with readable(f"fastrw.demo: {file} must hold JPEG images of one size"):
        files = (io.BytesIO(jpeg[start:end].tobytes()) for start, end in pairwise(offsets))
        return np.stack([np.asarray(Image.open(file)) for file in files])


def _only_npz(folder: Path) -> Images | None:
    files = sorted(folder.glob("*.npz"))
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise DemoError(f"fastrw.demo: --data must name one npz file where a folder holds several, got {names}")
    return _npz(files[0]) if files else None


def _idx(folder: Path) -> Images | None:
    """The four IDX files in the folder, or below it where torchvision puts them (MNIST/raw, FashionMNIST/raw, ...)."""
    patterns = ("train-images*", "train-labels*", "t10k-images*", "t10k-labels*")
    found = {}
    for place in (folder, folder / "raw", *folder.glob("*/raw")):
        files = [min(place.glob(pattern), default=None) for pattern in patterns]  # of plain and .gz, the plain one
        if all(files):
            found[str(place.relative_to(folder.parent))] = files
    if len(found) > 1:
        raise DemoError(f"fastrw.demo: --data must hold one set of IDX files, got {', '.join(sorted(found))}")
    for name, files in found.items():
        return Images(f"IDX files in {name}", *map(_read_idx, files))
    return None


def _read_idx(file: Path) -> np.ndarray:
    """IDX: bytes 0, 0, type (8 = uint8), dimensions d; d sizes as big-endian int32; then the values."""
    with readable(f"fastrw.demo: {file} must be a readable IDX file"):
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    dimensions = content[3] if len(content) > 3 else 0
    shape = np.frombuffer(content[4 : 4 + 4 * dimensions], ">i4")
    values = content[4 + 4 * dimensions :]
    if content[:3] != b"\0\0\x08" or len(shape) != dimensions or len(values) != shape.prod():
        raise DemoError(f"fastrw.demo: {file} must be a whole IDX file of bytes, got {len(content)} bytes")
    return np.frombuffer(values, np.uint8).reshape(shape)


class _ArraysOnly(pickle.Unpickler):
    """A pickle can call anything; CIFAR's batches need these names to make an array, and no other is let through."""

    ALLOWED = ("_reconstruct", "ndarray", "dtype", "_codecs.encode", "_frombuffer")

    def find_class(self, module: str, name: str):
        if (module.split(".")[0] == "numpy" and name in self.ALLOWED) or f"{module}.{name}" in self.ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a batch of images")


def _cifar(folder: Path) -> Images | None:
    """CIFAR-10's data_batch_* and test_batch, or CIFAR-100's train and test, in the folder or one below it."""
    for place in (folder, *sorted(folder.glob("cifar*"))):
        for train, test in (("data_batch_*", "test_batch"), ("train", "test")):
            files = [sorted(file for file in place.glob(pattern) if file.is_file()) for pattern in (train, test)]
            if all(files):
                return Images(f"CIFAR batches in {place.name}", *_batches(files[0]), *_batches(files[1]))
    return None


def _batches(files: list[Path]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for file in files:
        with readable(f"fastrw.demo: {file} must be a CIFAR python batch"), file.open("rb") as opened:
            batch = _ArraysOnly(opened, encoding="bytes").load()
            images.append(batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
            labels.append(np.asarray(batch[b"labels" if b"labels" in batch else b"fine_labels"]))
    return np.concatenate(images), np.concatenate(labels)
