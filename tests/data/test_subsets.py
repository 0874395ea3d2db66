"""Certified subsets and held-out images: balanced, pinned, disjoint, counted in images."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from bench.config.names import resolve_subset
from bench.data.sets import PixelTensor, load
from bench.data.subsets import certified_subset, held_out, training_parts
from bench.errors import DataError, UsageError
from bench.types import Split, Task


def make_split(dataset: str, labels: list[int], name: str = "test") -> Split:
    """A split with these labels and 1x1 black images."""
    images = PixelTensor(torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8))
    num_classes = max(labels) + 1
    task = Task(dataset=dataset, channels=1, image_size=1, num_classes=num_classes)
    names = tuple(f"class{label}" for label in range(num_classes))
    return Split(task=task, name=name, images=images, labels=labels, class_names=names)


class TestBalanced:
    # Changing this order would certify other images than the committed records, under the same name.
    def test_first_indices_of_mnist5k_are_pinned(self) -> None:
        indices = certified_subset(load("mnist5k", "test"), "balanced", limit=10)
        assert indices == (30, 798, 954, 136, 21, 485, 133, 457, 699, 712)

    def test_every_prefix_is_balanced(self) -> None:
        split = load("mnist5k", "test")
        counts: Counter[int] = Counter(dict.fromkeys(range(10), 0))
        for index in certified_subset(split, "balanced"):
            counts[split.labels[index]] += 1
            assert max(counts.values()) - min(counts.values()) <= 1

    def test_holds_every_image_once(self) -> None:
        assert sorted(certified_subset(load("mnist5k", "test"))) == list(range(1000))

    def test_a_small_class_ends_early_and_the_others_go_on(self) -> None:
        labels = [0, 0, 0, 0, 1, 2, 2]
        order = [labels[index] for index in certified_subset(make_split("svhn", labels))]
        assert [sorted(order[:3]), sorted(order[3:5]), order[5:]] == [[0, 1, 2], [0, 2], [0, 0]]

    def test_classes_of_a_sorted_folder_are_not_taken_in_its_order(self) -> None:
        labels = sorted(list(range(100)) * 2)
        order = [labels[index] for index in certified_subset(make_split("folder", labels), limit=10)]
        assert max(order) > 20

    def test_another_data_set_has_another_order(self) -> None:
        labels = list(range(10)) * 20
        assert certified_subset(make_split("svhn", labels)) != certified_subset(make_split("mnist", labels))


class TestStandard:
    @pytest.mark.parametrize(("dataset", "stride"), [("cifar10", 20), ("cifar100", 20), ("imagenet", 100)])
    def test_is_every_kth_image_and_the_default(self, dataset: str, stride: int) -> None:
        split = make_split(dataset, [0, 1] * 500)
        assert certified_subset(split, "standard") == tuple(range(0, 1000, stride))
        assert certified_subset(split) == certified_subset(split, "standard")

    def test_is_refused_where_there_is_none(self) -> None:
        with pytest.raises(UsageError, match=r"cifar10, cifar100, imagenet, not for mnist5k; use 'balanced'"):
            certified_subset(load("mnist5k", "test"), "standard")

    def test_auto_is_balanced_elsewhere(self) -> None:
        assert [resolve_subset(name, "auto") for name in ("mnist5k", "folder", "cifar10")] == [
            "balanced",
            "balanced",
            "standard",
        ]

    def test_unknown_subset_gives_the_nearest(self) -> None:
        with pytest.raises(UsageError, match=r"unknown subset 'balance'; did you mean 'balanced'\?"):
            resolve_subset("mnist5k", "balance")

    def test_file_needs_a_path(self) -> None:
        with pytest.raises(UsageError, match="'file:' without a path, expected file:PATH"):
            resolve_subset("mnist5k", "file:")


class TestSkipAndLimit:
    def test_count_images_of_the_list_not_indices(self) -> None:
        split = make_split("cifar10", [0, 1] * 500)
        assert certified_subset(split, "standard", skip=2, limit=3) == (40, 60, 80)

    def test_chunks_make_up_the_whole(self) -> None:
        split = load("mnist5k", "test")
        chunks = [certified_subset(split, skip=skip, limit=300) for skip in range(0, 1000, 300)]
        assert sum(chunks, ()) == certified_subset(split)

    def test_skip_past_the_end_is_refused(self) -> None:
        split = make_split("cifar10", [0, 1] * 500)
        assert certified_subset(split, "standard", skip=49) == (980,)
        with pytest.raises(
            DataError, match="skip is 50, but subset 'standard' holds 50 images; use a smaller skip"
        ):
            certified_subset(split, "standard", skip=50)


class TestFile:
    def read(self, path: Path, text: str) -> tuple[int, ...]:
        path.write_text(text)
        return certified_subset(make_split("mnist", [0, 1] * 5), f"file:{path}")

    def test_keeps_the_order_of_its_lines(self, tmp_path: Path) -> None:
        assert self.read(tmp_path / "subset.txt", "9\n0\n\n3\n") == (9, 0, 3)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("1\ntwo\n", "holds 'two', expected one index per line"),
            ("1.0\n", "holds '1.0', expected one index per line"),
            ("-1\n", "holds '-1', expected one index per line"),
            ("10\n", "holds index 10, expected 0 to 9"),
            ("1\n2\n01\n", "holds index 01 more than once"),
            ("\n", "holds no index"),
        ],
    )
    def test_a_wrong_line_is_named(self, tmp_path: Path, text: str, message: str) -> None:
        with pytest.raises(DataError, match=f"subset.txt {message}"):
            self.read(tmp_path / "subset.txt", text)

    def test_an_unreadable_file_is_named(self, tmp_path: Path) -> None:
        split = make_split("mnist", [0, 1])
        with pytest.raises(DataError, match=r"absent.txt cannot be read .*name a text file of indices"):
            certified_subset(split, f"file:{tmp_path / 'absent.txt'}")
        (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
        with pytest.raises(DataError, match="binary cannot be read"):
            certified_subset(split, f"file:{tmp_path / 'binary'}")


class TestHeldOut:
    def test_parts_the_training_split(self) -> None:
        train, held = held_out(load("mnist5k", "train"), 0.1, seed=0)
        assert sorted([*train, *held]) == list(range(4000))
        assert list(train) == sorted(train)
        assert list(held) == sorted(held)

    def test_takes_the_same_share_of_each_class(self) -> None:
        split = make_split("mnist", [0] * 40 + [1] * 20 + [2] * 2, "train")
        _, held = held_out(split, 0.25, seed=0)
        assert Counter(split.labels[index] for index in held) == {0: 10, 1: 5, 2: 1}

    def test_leaves_an_image_of_each_class_for_training(self) -> None:
        train, _ = held_out(make_split("mnist", [0, 0, 1, 1], "train"), 0.99, seed=0)
        assert len(train) == 2

    def test_depends_on_the_seed_alone(self) -> None:
        split = load("mnist5k", "train")
        assert held_out(split, 0.1, 0) == held_out(split, 0.1, 0)
        assert held_out(split, 0.1, 0) != held_out(split, 0.1, 1)

    @pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
    def test_refuses_a_fraction_outside_the_unit_interval(self, fraction: float) -> None:
        with pytest.raises(DataError, match="fraction must lie between 0 and 1, got"):
            held_out(load("mnist5k", "train"), fraction, 0)

    def test_refuses_a_class_of_one(self) -> None:
        with pytest.raises(DataError, match=r"class 'class1' has 1 training image\(s\), expected 2 or more"):
            held_out(make_split("mnist", [0, 0, 1], "train"), 0.5, 0)


def test_training_never_sees_the_test_split_nor_the_certifier_the_train_split() -> None:
    with pytest.raises(DataError, match="held-out images come from the train split, got the test split"):
        held_out(load("mnist5k", "test"), 0.1, 0)
    with pytest.raises(DataError, match="certified images come from the test split, got the train split"):
        certified_subset(load("mnist5k", "train"))


def test_more_images_held_out_than_there_are_is_named_as_a_count() -> None:
    with pytest.raises(DataError, match=r"--held-out is 4000, and there are 4000 training images"):
        training_parts(load("mnist5k", "train"), 0, 4000)


@pytest.mark.parametrize("given", [{"skip": -1}, {"limit": 0}, {"limit": -2}, {"limit": 2.0}, {"skip": True}])
def test_a_subset_has_whole_numbers_of_images(given: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="expected a whole number of"):
        certified_subset(load("mnist5k", "test"), **given)


def test_a_subset_in_the_home_folder_of_nobody_is_refused() -> None:
    with pytest.raises(UsageError, match="names no user's home folder"):
        certified_subset(load("mnist5k", "test"), "file:~nobody-of-this-name/x")
