"""Parquet files as Hugging Face spreads them: which are read, what they give, and what is said of the others."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path, PurePath
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from bench.cli import cli
from bench.data import parquet
from bench.data.sets import PixelTensor, batch, load
from bench.data.tables import split_word
from bench.errors import DataError
from bench.types import Split, Task
from tests.support.parquet import pa, picture, spread


def levels(split: Split) -> list[int]:
    x, _ = batch(split, range(len(split.labels)))
    return (x[:, 0, 0, 0] * 255).round().int().tolist()


class TestLayouts:
    @pytest.mark.parametrize(
        ("path", "word"),
        [
            ("train-00000-of-00001.parquet", "train"),
            ("data/validation-00003-of-00014-6ad52a061d95a2d9.parquet", "validation"),
            ("test/0000.parquet", "test"),
            ("plain_text/my_eval.parquet", "test"),
            ("dev.parquet", "validation"),
            ("trains.parquet", None),
            ("latest.parquet", None),
        ],
    )
    def test_a_split_is_told_by_the_name_of_the_file_or_of_its_folder(
        self, path: str, word: str | None
    ) -> None:
        assert split_word(PurePath(path)) == word

    @pytest.mark.parametrize("below", [".", "data", "plain_text"])
    def test_rows_keep_their_order_over_all_files(self, tmp_path: Path, below: str) -> None:
        spread(tmp_path / below / "test-00000-of-00002.parquet", [2, 0, 1])
        spread(tmp_path / below / "test-00001-of-00002.parquet", [1, 1], images=[picture(200), picture(210)])
        split = load("folder", "test", data_dir=tmp_path)
        assert levels(split) == [0, 10, 20, 200, 210]
        assert split.labels == (2, 0, 1, 1, 1)
        assert split.class_names == ("ant", "bee", "cat")
        assert split.task == Task(dataset="folder", channels=3, image_size=8, num_classes=3)

    def test_files_come_in_the_order_of_their_numbers(self, tmp_path: Path) -> None:
        for number in range(12):
            spread(tmp_path / f"test-{number}-of-12.parquet", [0], images=[picture(number)])
        assert levels(load("folder", "test", data_dir=tmp_path)) == list(range(12))

    def test_a_part_that_was_fetched_twice_is_refused(self, tmp_path: Path) -> None:
        for name in ("test-00000-of-00001.parquet", "test-00000-of-00001 (1).parquet"):
            spread(tmp_path / name, [0, 1])
        with pytest.raises(DataError, match="is part 00000 of 00001 once more; remove one of the two files"):
            load("folder", "test", data_dir=tmp_path)

    def test_images_read_in_any_order_are_the_same(self, tmp_path: Path) -> None:
        spread(tmp_path / "test.parquet", [0] * 7)
        split = load("folder", "test", data_dir=tmp_path)
        for index in (6, 0, 3, 1, 6):
            assert int(split.images[index].max() * 255) == 10 * index

    def test_training_images_are_decoded_once_where_they_fit_in_memory(self, tmp_path: Path) -> None:
        spread(tmp_path / "train.parquet", [0, 1, 2])
        split = load("folder", "train", data_dir=tmp_path)
        assert isinstance(split.images, PixelTensor)
        assert levels(split) == [0, 10, 20]

    def test_validation_is_the_test_split_where_there_is_no_other(self, tmp_path: Path) -> None:
        spread(tmp_path / "validation.parquet", [0, 1])
        assert load("folder", "test", data_dir=tmp_path).labels == (0, 1)
        spread(tmp_path / "test.parquet", [2])
        assert load("folder", "test", data_dir=tmp_path).labels == (2,)

    def test_a_layout_of_torchvision_beside_the_files_is_read_as_before(self, tmp_path: Path) -> None:
        spread(tmp_path / "test.parquet", [0, 1])
        for name in ("dog", "eel"):
            (tmp_path / "test" / name).mkdir(parents=True)
            (tmp_path / "test" / name / "a.png").write_bytes(picture(77))
        assert load("folder", "test", data_dir=tmp_path).class_names == ("dog", "eel")

    def test_rows_of_one_class_are_refused(self, tmp_path: Path) -> None:
        spread(tmp_path / "test.parquet", [0, 0], told=False)
        with pytest.raises(DataError, match=r"holds one class \(0\); two or more are needed"):
            load("folder", "test", data_dir=tmp_path)

    def test_columns_of_other_names_are_told_by_the_features(self, tmp_path: Path) -> None:
        spread(tmp_path / "test.parquet", [0, 1], columns=("photo", "species"))
        assert load("folder", "test", data_dir=tmp_path).labels == (0, 1)

    def test_without_features_classes_are_numbered_over_both_splits(self, tmp_path: Path) -> None:
        spread(tmp_path / "train.parquet", [0, 3], told=False)
        spread(tmp_path / "test.parquet", [0, 1], told=False)
        assert load("folder", "test", data_dir=tmp_path).class_names == ("0", "1", "2", "3")

    def test_cifar100_has_its_fine_labels(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parquet, "TEST_IMAGES", {})
        names = [f"class {number}" for number in range(100)]
        images = [picture(0, 32)]
        spread(tmp_path / "test.parquet", [99], images=images, names=names, columns=("img", "fine_label"))
        assert load("cifar100", "test", data_dir=tmp_path).labels == (99,)

    def test_digits_have_one_channel(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(parquet, "TEST_IMAGES", {})
        monkeypatch.setattr(parquet, "FIRST_LABELS", {})
        spread(tmp_path / "test.parquet", [7], images=[picture(51, 28)], told=False)
        assert torch.equal(load("mnist", "test", data_dir=tmp_path).images[0], torch.full((1, 28, 28), 0.2))

    def test_imagenet_has_the_order_of_its_tree_of_folders(self, tmp_path: Path) -> None:
        names = ["ILSVRC2012_val_00000003_n02.JPEG", "b.JPEG", "ILSVRC2012_val_00000001_n02.JPEG", "a.JPEG"]
        images = [picture(level, 300) for level in (0, 10, 20, 30)]
        spread(tmp_path / "data" / "validation.parquet", [1, 0, 1, 0], images=images, paths=names)
        split = load("imagenet", "test", data_dir=tmp_path)
        assert (split.labels, levels(split)) == ((0, 0, 1, 1), [30, 10, 20, 0])
        assert split.images[0].shape == (3, 224, 224)

    def test_the_class_in_the_name_of_a_file_does_not_change_the_order(self, tmp_path: Path) -> None:
        names = [f"n01440764_{number}_n01440764.JPEG" for number in (100, 10)]
        images = [picture(level, 256) for level in (0, 10)]
        spread(tmp_path / "train.parquet", [0, 0], images=images, paths=names)
        tree = sorted(["n01440764_100.JPEG", "n01440764_10.JPEG"])
        assert tree == ["n01440764_10.JPEG", "n01440764_100.JPEG"]
        assert levels(load("imagenet", "train", data_dir=tmp_path)) == [10, 0]


def swapped(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


class TestRefused:
    @pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all", "cut"])
    def test_what_is_no_parquet_is_named(self, tmp_path: Path, content: bytes | str) -> None:
        path = spread(tmp_path / "test.parquet", [0, 1])
        path.write_bytes(path.read_bytes()[:-40] if isinstance(content, str) else content)
        with pytest.raises(
            DataError, match=r"test.parquet cannot be read as parquet \(.*\); fetch the file again$"
        ):
            load("folder", "test", data_dir=tmp_path)

    def test_any_damage_is_a_data_error_or_leaves_the_rows_readable(self, tmp_path: Path) -> None:
        whole = spread(tmp_path / "test.parquet", [0, 1, 2]).read_bytes()
        for place in range(0, len(whole), 41):
            (tmp_path / "test.parquet").write_bytes(whole)
            swapped(tmp_path / "test.parquet", place)
            with contextlib.suppress(DataError):
                split = load("folder", "test", data_dir=tmp_path)
                batch(split, range(len(split.labels)))

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            (("text", "label"), "no column of pictures, expected image or img; its columns are text, label"),
            (
                ("img", "caption"),
                "no column of labels, expected label or fine_label or labels; its columns are img, caption",
            ),
        ],
    )
    def test_a_missing_column_is_named(self, tmp_path: Path, columns: tuple[str, str], message: str) -> None:
        spread(tmp_path / "test.parquet", [0], columns=columns, told=False)
        with pytest.raises(DataError, match=message):
            load("folder", "test", data_dir=tmp_path)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0, -1], "row 1 of .*test.parquet has label -1, expected 0 to 2 as folder has"),
            ([0, 1, 2, 3], "row 3 of .* has label 3, expected 0 to 2"),
            ([0, None], "row 1 of .* has no label; images without a class cannot be certified"),
            (["ant", "bee"], "column label of .* holds string, expected whole numbers"),
            ([0.0, 1.0], "column label of .* holds double, expected whole numbers"),
            (pa.array([], pa.int64()) if pa else [], "holds no row; fetch the file again"),
        ],
    )
    def test_labels_that_are_no_classes_are_named(self, tmp_path: Path, labels: Any, message: str) -> None:
        spread(tmp_path / "test.parquet", labels)
        with pytest.raises(DataError, match=message):
            load("folder", "test", data_dir=tmp_path)

    def test_a_wrong_label_is_named_by_the_row_of_its_file(self, tmp_path: Path) -> None:
        spread(tmp_path / "test-00000-of-00002.parquet", [0, 1, 2])
        spread(tmp_path / "test-00001-of-00002.parquet", [0, 0, 9])
        with pytest.raises(DataError, match=r"row 2 of .*test-00001-of-00002.parquet has label 9"):
            load("folder", "test", data_dir=tmp_path)

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (None, "row 1 of .*test.parquet holds no picture in column image"),
            (
                b"no picture",
                r"row 1 of .* cannot be read as an image \(cannot identify image file\); replace",
            ),
            (picture(0, 300)[:150], "row 1 of .* cannot be read as an image"),
            (picture(0, 9), "row 1 of .* is 9x9 pixels, expected 8x8"),
        ],
        ids=["none", "text", "cut", "size"],
    )
    def test_a_picture_that_cannot_be_used_is_named(
        self, tmp_path: Path, image: bytes | None, message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parquet, "LOOKED_AT", 1)
        spread(tmp_path / "test.parquet", [0, 1], images=[picture(0), image])
        split = load("folder", "test", data_dir=tmp_path)
        with pytest.raises(DataError, match=message):
            batch(split, [0, 1])

    def test_pictures_of_several_sizes_need_one_to_be_named(self, tmp_path: Path) -> None:
        spread(tmp_path / "test.parquet", [0, 1], images=[picture(0), picture(0, 16)])
        with pytest.raises(
            DataError, match=r"not squares of one size \(row 0 .* is 8x8, row 1 .* is 16x16\)"
        ):
            load("folder", "test", data_dir=tmp_path)
        assert load("folder", "test", data_dir=tmp_path, image_size=8).images[1].shape == (3, 8, 8)

    def test_a_missing_part_is_told(self, tmp_path: Path) -> None:
        spread(tmp_path / "test-00001-of-00003.parquet", [0])
        with pytest.raises(
            DataError, match=r"holds 1 of 3 files that are named like test-00001-of-00003.parquet"
        ):
            load("folder", "test", data_dir=tmp_path)

    def test_a_missing_split_is_told(self, tmp_path: Path) -> None:
        spread(tmp_path / "train.parquet", [0])
        with pytest.raises(
            DataError, match="none for the test split of imagenet, expected a name such as validation-"
        ):
            load("imagenet", "test", data_dir=tmp_path)

    def test_several_sets_in_one_folder_have_to_be_told_apart(self, tmp_path: Path) -> None:
        for folder in ("cropped", "full"):
            spread(tmp_path / folder / "test.parquet", [0])
        with pytest.raises(DataError, match=r"test files in 2 folders \(cropped, full\): name one of them"):
            load("folder", "test", data_dir=tmp_path)

    def test_splits_of_other_classes_are_refused(self, tmp_path: Path) -> None:
        spread(tmp_path / "train.parquet", [0], names=["ant", "bee"])
        spread(tmp_path / "test.parquet", [0], names=["bee", "ant"])
        with pytest.raises(DataError, match="name other classes; both need the same classes"):
            load("folder", "test", data_dir=tmp_path)

    @pytest.mark.parametrize(
        ("labels", "names", "message"),
        [
            ([3, 8, 8], list("abcdefghij"), "holds 3 test images, cifar10 has 10,000"),
            ([0] * 10_000, list("abcdefghij"), "have other classes than those of cifar10"),
            ([0, 1], list("abc"), "holds 3 classes, cifar10 has 10; take it as --dataset folder"),
        ],
        ids=["few", "other", "classes"],
    )
    def test_what_is_not_the_named_set_is_refused(
        self, tmp_path: Path, labels: list[int], names: list[str], message: str
    ) -> None:
        spread(tmp_path / "test.parquet", labels, images=[b""] * len(labels), names=names)
        with pytest.raises(DataError, match=message):
            load("cifar10", "test", data_dir=tmp_path)

    def test_imagenet_without_the_names_of_its_files_is_refused(self, tmp_path: Path) -> None:
        spread(tmp_path / "validation.parquet", [0, 1], paths=["a.JPEG", None])
        with pytest.raises(
            DataError, match=r"row 1 of .* does not name the picture's file, by which imagenet's images"
        ):
            load("imagenet", "test", data_dir=tmp_path)

    def test_without_pyarrow_the_command_says_how_to_install_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spread(tmp_path / "test.parquet", [0, 1])
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        done = CliRunner().invoke(
            cli, f"run --dataset folder --data-dir {tmp_path} --methods gaussian".split()
        )
        assert isinstance(done.exception, DataError)
        assert "pyarrow, which is missing; run `pip install 'rrcm-bench[datasets]'`" in str(done.exception)
