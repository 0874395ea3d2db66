"""Trees of image files: layouts, geometry, and the messages for what is missing or broken."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.config.methods import BUILT_IN
from bench.config.run import RunConfig, validate
from bench.data import folders
from bench.data.folders import read_image
from bench.data.sets import batch, load
from bench.errors import DataError, UsageError
from bench.types import Task


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def two_classes(folder: Path, pixels: np.ndarray, name: str = "a.png") -> None:
    """Write an image into class ant, and another of its shape into class bee."""
    write_image(folder / "ant" / name, pixels)
    write_image(folder / "bee" / name, np.zeros_like(pixels))


def grey(level: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), level)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with train/ and test/: classes ant (3 images in test) and bee (1)."""
    for part in ("train", "test"):
        for name, level in (("ant/b.png", 51), ("ant/a.png", 102), ("ant/deep/c.png", 0), ("bee/d.png", 255)):
            write_image(tmp_path / part / name, grey(level if part == "test" else 10))
    return tmp_path


def test_classes_and_files_come_in_the_order_of_their_names(tree: Path) -> None:
    split = load("folder", "test", data_dir=tree, image_size=8)
    x, label = batch(split, range(4))
    assert split.class_names == ("ant", "bee")
    assert label.tolist() == [0, 0, 0, 1]
    assert torch.allclose(x[:, 0, 0, 0], torch.tensor([0.4, 0.2, 0.0, 1.0]))
    assert split.task == Task(dataset="folder", channels=3, image_size=8, num_classes=2)


def test_train_is_another_folder_than_test(tree: Path) -> None:
    x, _ = batch(load("folder", "train", data_dir=tree, image_size=8), [0])
    assert torch.allclose(x, torch.full((1, 3, 8, 8), 10 / 255))


def test_folder_may_call_its_test_split_val(tree: Path) -> None:
    (tree / "test").rename(tree / "val")
    assert len(load("folder", "test", data_dir=tree).labels) == 4


def test_a_tree_without_splits_is_all_test(tree: Path) -> None:
    assert len(load("folder", "test", data_dir=tree / "test").labels) == 4


def test_hidden_folders_are_no_classes(tree: Path) -> None:
    (tree / "test" / ".ipynb_checkpoints").mkdir()
    assert load("folder", "test", data_dir=tree).class_names == ("ant", "bee")


def test_short_side_is_resized_and_the_middle_is_kept(tmp_path: Path) -> None:
    # 32 x 64, black left and right quarters around a white middle: at side 16 only the middle remains.
    pixels = grey(0, 32, 64)
    pixels[:, 16:48] = 255
    two_classes(tmp_path, pixels)
    x = load("folder", "test", data_dir=tmp_path, image_size=16).images[0]
    assert x.shape == (3, 16, 16)
    assert x.dtype == torch.float32
    assert torch.equal(x[:, :, 1:-1], torch.ones(3, 16, 14))


def test_imagenet_is_resized_to_256_and_cropped_to_224(tmp_path: Path) -> None:
    # A border of 16 of 256 pixels is black: the centre crop of 224 just leaves it out.
    pixels = grey(255, 256, 256)
    pixels[:16] = pixels[-16:] = 0
    pixels[:, :16] = pixels[:, -16:] = 0
    two_classes(tmp_path / "val", pixels)
    split = load("imagenet", "test", data_dir=tmp_path)
    assert torch.equal(split.images[0], torch.ones(3, 224, 224))
    assert split.task == Task(dataset="imagenet", channels=3, image_size=224, num_classes=2)


def test_imagenet_at_256_keeps_the_whole_resized_side(tmp_path: Path) -> None:
    pixels = grey(255, 512, 512)
    pixels[:, 256:] = 0
    two_classes(tmp_path / "val", pixels)
    split = load("imagenet", "test", data_dir=tmp_path, image_size=256)
    assert split.task.image_size == 256
    assert split.images[0].shape == (3, 256, 256)
    assert split.images[0][0].sum() == pytest.approx(
        256 * 128, abs=256
    )  # half is white, the edge in between apart


def test_grey_images_get_three_equal_channels(tmp_path: Path) -> None:
    two_classes(tmp_path, np.arange(64).reshape(8, 8))
    x = load("folder", "test", data_dir=tmp_path, image_size=8).images[0]
    assert torch.equal(x, torch.arange(64).reshape(1, 8, 8).repeat(3, 1, 1).float() / 255)


@pytest.mark.parametrize("content", [b"", b"not an image", "cut"])
def test_an_unreadable_image_is_named(tree: Path, content: bytes | str) -> None:
    path = tree / "test" / "bee" / "d.png"
    write_image(path, np.random.default_rng(0).integers(0, 256, (64, 64, 3)))
    path.write_bytes(path.read_bytes()[:900] if isinstance(content, str) else content)
    split = load("folder", "test", data_dir=tree, image_size=8)
    with pytest.raises(
        DataError, match=r"bee/d.png cannot be read as an image .*; replace or remove the file"
    ):
        batch(split, [3])


def test_sixteen_bit_images_are_refused_not_clipped(tmp_path: Path) -> None:
    two_classes(tmp_path, grey(0))
    Image.fromarray(np.full((8, 8), 40000, dtype=np.uint16)).save(tmp_path / "ant" / "a.png")
    with pytest.raises(DataError, match=r"a.png has more than 8 bits a channel \(mode I;16\)"):
        load("folder", "test", data_dir=tmp_path).images[0]


def test_a_class_without_images_is_named(tree: Path) -> None:
    (tree / "test" / "bee" / "d.png").rename(tree / "test" / "bee" / "d.txt")
    with pytest.raises(
        DataError, match=r"test/bee holds no image \(1 of 2 class folders hold none\); add images"
    ):
        load("folder", "test", data_dir=tree)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no class folder; sort its images into one folder per class"):
        load("folder", "test", data_dir=tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="absent is not a folder; name the one that holds folder with --data-dir"
    ):
        load("folder", "test", data_dir=tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "remedy"), [("imagenet", "--data-dir or IMAGENET_DIR"), ("folder", "--data-dir")]
)
def test_no_folder_says_how_to_name_it(name: str, remedy: str) -> None:
    with pytest.raises(
        DataError, match=f"{name} needs the folder that holds its images; name it with {remedy}$"
    ):
        load(name, "test")


def test_train_and_test_need_the_same_classes(tree: Path) -> None:
    # Otherwise label 1 would be another class in each.
    write_image(tree / "test" / "auk" / "a.png", grey(0))
    for split in ("train", "test"):
        with pytest.raises(DataError, match=r"class folder 'auk' is in only one of .*train and .*test"):
            load("folder", split, data_dir=tree)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("imagenet", "test", "has no folder val, which imagenet needs for its test split"),
        ("folder", "test", "has no folder test or val, which folder needs for its test split"),
        ("imagenet", "train", "has no folder train, which imagenet needs for its train split"),
    ],
)
def test_a_missing_split_is_named(tmp_path: Path, name: str, split: str, message: str) -> None:
    write_image(tmp_path / ("train" if split == "test" else "val") / "ant" / "a.png", grey(0))
    with pytest.raises(DataError, match=message):
        load(name, split, data_dir=tmp_path)  # type: ignore[arg-type]


def test_short_side_geometry_halves_by_means_then_resizes_bicubically(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).integers(0, 256, (90, 140, 3), dtype=np.uint8)
    Image.fromarray(whole).save(tmp_path / "a.png")

    def read(crop: int) -> np.ndarray:
        x = read_image(tmp_path / "a.png", resize=256, crop=crop, geometry="short-side")
        return 255 * x.permute(1, 2, 0).numpy()

    halved = whole.astype(float).reshape(45, 2, 70, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(read(45), halved[:, 12:57], atol=1.01)
    bicubic = Image.fromarray(halved.round().astype(np.uint8)).resize((47, 30), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(read(30), np.asarray(bicubic)[:, 8:38], atol=3.01)


def test_geometry_reaches_imagenet_and_its_header_and_is_refused_elsewhere(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_image(tmp_path / part / "n01" / "a.png", grey(100, 300, 400))
        write_image(tmp_path / part / "n02" / "b.png", grey(100, 300, 400))
    split = load("imagenet", "test", data_dir=tmp_path, geometry="short-side")
    assert split.images.geometry == "short-side"
    assert split.images[0].shape == (3, 224, 224)
    with pytest.raises(UsageError, match="geometry is short-side, but only 'imagenet' takes it"):
        validate(RunConfig(geometry="short-side"), tuple(BUILT_IN))


def test_images_of_one_size_are_taken_as_they_are(tmp_path: Path) -> None:
    for part, name in (("train", "ant"), ("test", "ant"), ("test", "bee"), ("train", "bee")):
        write_image(tmp_path / part / name / "a.png", np.full((32, 32, 3), 7))
    for part in ("train", "test"):
        split = load("folder", part, data_dir=tmp_path)  # type: ignore[arg-type]
        assert (split.task.image_size, split.images[0].shape) == (32, (3, 32, 32))
        assert split.images[0].unique().tolist() == pytest.approx([7 / 255])


@pytest.mark.parametrize("shape", [(16, 16, 3), (32, 16, 3)], ids=["another size", "no square"])
def test_images_of_several_sizes_need_one_to_be_named(tmp_path: Path, shape: tuple[int, ...]) -> None:
    two_classes(tmp_path / "test", np.zeros((32, 32, 3)))
    write_image(tmp_path / "test" / "ant" / "b.png", np.zeros(shape))
    with pytest.raises(
        DataError, match=r"not squares of one size \(.*a.png is 32x32, .*b.png is .*: give --image-size"
    ):
        load("folder", "test", data_dir=tmp_path)
    assert load("folder", "test", data_dir=tmp_path, image_size=16).task.image_size == 16


def test_hidden_files_and_folders_are_no_images(tree: Path) -> None:
    before = load("folder", "test", data_dir=tree).labels
    for name in ("ant/.thumb.png", "ant/.cache/deep/x.png", "bee/._d.png"):
        write_image(tree / "test" / name, grey(7, height=5, width=9))
    assert load("folder", "test", data_dir=tree).labels == before


@pytest.mark.parametrize("linked", ["test", "test/ant"])
def test_images_behind_links_keep_their_own_size(tree: Path, linked: str) -> None:
    shutil.rmtree(tree / "train")
    elsewhere = tree.with_name(f"{tree.name}-elsewhere")
    (tree / linked).rename(elsewhere)
    (tree / linked).symlink_to(elsewhere)
    split = load("folder", "test", data_dir=tree)
    assert (split.task.image_size, split.labels, split.images[0].shape) == (8, (0, 0, 0, 1), (3, 8, 8))


def test_images_without_a_size_need_one_to_be_named(tree: Path) -> None:
    for path in tree.rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(
        DataError, match=r"of one size \(none can be read, such as .*a.png\): give --image-size"
    ):
        load("folder", "test", data_dir=tree)


@pytest.mark.parametrize("target", [".", "..", "../../test/bee", "deep"])
def test_a_folder_that_a_link_leads_to_again_is_refused_at_once(tree: Path, target: str) -> None:
    for number in range(60):  # there are 2^60 paths through links of a folder to itself
        (tree / "test" / "ant" / f"s{number}").symlink_to(target)
    with pytest.raises(DataError, match=r"/.* leads to /.*, whose images would count twice; remove the link"):
        load("folder", "test", data_dir=tree, image_size=8)


@pytest.mark.parametrize(
    ("link", "target", "message"),
    [
        ("ant/z.png", "a.png", "test/ant/z.png leads to .*test/ant/a.png, which would"),
        ("bee/z.png", "../ant/deep/c.png", "test/bee/z.png leads to .*test/ant/deep/c.png, which would"),
        ("bee/a.png", "../../store/x.png", "test/bee/a.png leads to .*test/ant/x.png, which would"),
    ],
)
def test_an_image_that_a_link_leads_to_again_is_refused(
    tree: Path, link: str, target: str, message: str
) -> None:
    write_image(tree / "store" / "x.png", grey(3))
    (tree / "test" / "ant" / "x.png").symlink_to("../../store/x.png")
    (tree / "test" / "bee" / "gone.png").symlink_to("nowhere.png")  # told when it is read
    assert len(load("folder", "test", data_dir=tree, image_size=8).labels) == 6
    (tree / "test" / link).symlink_to(target)
    with pytest.raises(DataError, match=f"{message} count twice; remove the link"):
        load("folder", "test", data_dir=tree, image_size=8)


def test_a_folder_that_cannot_be_read_is_refused(tree: Path, monkeypatch) -> None:
    def refuse(folder: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(
        DataError, match=r"test/ant cannot be read \(Permission denied\); mend that, or remove"
    ):
        folders._samples(tree / "test", ["ant"])


def test_a_tree_of_one_class_is_refused(tree: Path) -> None:
    for part in ("train", "test"):
        shutil.rmtree(tree / part / "bee")
    with pytest.raises(DataError, match=r"test holds one class folder \(ant\); two or more are needed"):
        load("folder", "test", data_dir=tree)


def test_an_image_of_another_size_is_refused_where_no_size_was_asked_for(tree: Path, monkeypatch) -> None:
    monkeypatch.setattr(folders, "LOOKED_AT", 1)
    write_image(tree / "test" / "bee" / "z.png", grey(7, height=5, width=9))
    split = load("folder", "test", data_dir=tree)
    with pytest.raises(DataError, match=r"z.png is 9x5 pixels, expected 8x8; resize it, or .* --image-size"):
        split.images[len(split.labels) - 1]
    assert load("folder", "test", data_dir=tree, image_size=8).images[len(split.labels) - 1].shape == (
        3,
        8,
        8,
    )


@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "testing")])
def test_folders_named_like_splits_are_no_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        two_classes(tmp_path / name, grey(1))
    with pytest.raises(
        DataError, match=r"are named like splits, not classes: call the folders of the splits"
    ):
        load("folder", "test", data_dir=tmp_path)


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    for name in ("valid", "invalid"):
        write_image(tmp_path / name / "a.png", grey(1))
    assert load("folder", "test", data_dir=tmp_path).class_names == ("invalid", "valid")
