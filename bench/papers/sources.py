"""Where an experiment's images come from: a given folder, torchvision's download, or scikit-learn's digits."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from fastrw.demo.data import Images, load
from fastrw.demo.noise import thin
from fastrw.demo.settings import DemoError

# name -> (pattern of npz files, folders that hold IDX files or CIFAR batches, torchvision's class)
NAMES = {
    "mnist": ("mnist*.npz", ("MNIST", "MNIST/raw", "mnist"), "MNIST"),
    "cifar10": ("cifar10*.npz", ("cifar-10-batches-py", "cifar10"), "CIFAR10"),
    "cifar100": ("cifar100*.npz", ("cifar-100-python", "cifar100"), "CIFAR100"),
    "ham10000": ("ham10000*.npz", ("ham10000",), None),
}
STAND_IN_TAIL = 50  # how many times rarer the digits' last class is made than the first where they stand for HAM10000


class PapersError(ValueError):
    """An argument or a file breaks a rule. The text states the rule and what was got."""


@lru_cache(maxsize=2)  # CIFAR-10 decoded is 180 MB
def images(name: str, folder: str | None, download: bool = False) -> Images:
    """The images called `name` under `folder`; scikit-learn's digits in their place where `folder` is None, for
    HAM10000 with a long tail.

    Args:
        folder: holds an npz file (`mnist*.npz`, `cifar10*.npz`, ...; arrays or JPEG), IDX files or CIFAR's python
            batches, in it or in the folders that torchvision makes. A file is taken as it is.
        download: where nothing is found, let torchvision fetch the images into `folder`.
    Raises:
        PapersError: nothing is found, or what is found cannot be read.
    """
    if folder is None:
        digits = load(None)
        if name != "ham10000":
            return digits
        kept = thin(np.random.default_rng(0), digits.y, np.arange(len(digits.y)), digits.classes, STAND_IN_TAIL)
        return Images(digits.name + ", long tail", digits.x[kept], digits.y[kept])
    place = Path(folder).expanduser()
    try:
        if place.is_file():
            return load(str(place))
        if not place.is_dir() and not download:
            raise PapersError(f"fastrw.papers: --data must be a file or a folder that exists, got {folder}")
        if not (found := _find(name, place)) and download:
            _fetch(name, place)
            found = _find(name, place)
        if not found:
            pattern, below, _ = NAMES[name]
            wanted = f"{pattern} or one of the folders {', '.join(below)}"
            raise PapersError(f"fastrw.papers: --data must hold {wanted}, got none of them in {folder}")
        return load(str(found))
    except DemoError as error:
        raise PapersError(str(error).replace("fastrw.demo", "fastrw.papers")) from error


def _find(name: str, folder: Path) -> Path | None:
    pattern, below, _ = NAMES[name]
    files = [file for file in sorted(folder.glob(pattern)) if name != "cifar10" or "cifar100" not in file.name]
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise PapersError(f"fastrw.papers: --data must hold one file {pattern}, got {names}")
    if files:
        return files[0]
    places = [(folder / each, ("train-images*", "data_batch_1", "train", "*.npz")) for each in below]
    places.append((folder, {"mnist": ["train-images*"], "cifar10": ["data_batch_1"]}.get(name, [])))
    return next((place for place, kinds in places if any(any(place.glob(kind)) for kind in kinds)), None)


def _fetch(name: str, folder: Path) -> None:
    kind = NAMES[name][2]
    if kind is None:
        raise PapersError(f"fastrw.papers: --download knows MNIST and CIFAR only, got {name}")
    try:
        from torchvision import datasets
    except ImportError as error:
        raise PapersError("fastrw.papers: --download needs torchvision, got a Python without it") from error
    folder.mkdir(parents=True, exist_ok=True)
    getattr(datasets, kind)(str(folder), download=True)
