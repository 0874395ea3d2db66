"""The batches of a training: each image once an epoch, the same with and without threads, and the time they take."""

import dataclasses
import threading
from contextlib import closing

import pytest
import torch
from PIL import Image

from bench.commands.progress import training_detail
from bench.data.sets import load
from bench.errors import DataError, EngineError
from bench.training.batches import AHEAD, Loader, Progress, in_unit_range
from bench.training.loop import fit
from tests.support.spread_work import stamped
from tests.support.tiny import image_tree, job
from tests.training.test_loop import RECIPE, Rising, stopped_at, weights


def test_an_epoch_shows_each_image_once_in_another_order(tmp_path):
    work = job(tmp_path)
    loader = Loader(work, 4)
    epochs = [[loader.batch(4 * epoch + step).x for step in range(4)] for epoch in range(2)]
    first, second = (torch.cat(batches).flatten(1) for batches in epochs)
    assert not torch.equal(first, second)
    for epoch in (first, second):
        assert torch.equal(epoch.sum(1).sort().values, first.sum(1).sort().values)
        assert len(torch.unique(epoch, dim=0)) == 16


@pytest.fixture
def tree(tmp_path):
    """A job on image files in folders."""
    data = load("folder", "train", data_dir=image_tree(tmp_path / "data"), image_size=8)
    return job(tmp_path, split=data, train_indices=torch.arange(7))


def test_threads_read_the_same_batches_from_any_step_on(tree):
    alone = Loader(tree, 3)
    with closing(Loader(dataclasses.replace(tree, workers=3), 3)) as threaded:
        for step in (1, 2, 3, 4):
            ours, theirs = threaded.batch(step), alone.batch(step)
            assert torch.equal(ours.x, theirs.x)
            assert torch.equal(ours.labels, theirs.labels)
            assert torch.equal(
                torch.rand(3, generator=ours.generator), torch.rand(3, generator=theirs.generator)
            )


def test_files_are_read_by_threads_and_images_in_memory_only_where_they_are_prepared(tree, tmp_path):
    in_memory = job(tmp_path)
    for work, prepare, has_threads in (
        (tree, None, True),
        (in_memory, None, False),
        (in_memory, stamped, True),
    ):
        with closing(Loader(dataclasses.replace(work, workers=None), 3, prepare=prepare)) as loader:
            assert (loader.pool is not None) == has_threads


def test_images_cross_to_the_device_as_bytes(tree):
    assert tree.split.images.bytes_at(0).dtype == torch.uint8
    assert torch.equal(in_unit_range(tree.split.images.bytes_at(0)), tree.split.images[0])


def test_batches_are_read_ahead_by_as_many_threads_as_asked(tmp_path):
    everyone, seen = threading.Barrier(3, timeout=60), []

    class Images:
        """Gives out no image before three are asked for at once."""

        def __getitem__(self, index):
            everyone.wait()
            seen.append(index)
            return torch.zeros(1, 8, 8)

    work = job(tmp_path, workers=3)
    work = dataclasses.replace(work, split=dataclasses.replace(work.split, images=Images()))
    loader = Loader(work, 3)
    loader.batch(0)
    loader.pool.shutdown()
    assert len(seen) == 3 * (1 + AHEAD)


def test_an_unreadable_file_is_named_by_the_batch_that_needs_it(tree):
    for path in tree.split.images.paths:
        path.write_bytes(b"no image")
    loader = Loader(dataclasses.replace(tree, workers=2), 3)
    with closing(loader), pytest.raises(DataError, match="cannot be read as an image"):
        loader.batch(0)


def test_images_are_prepared_alike_by_processes_and_without_them(tree, tmp_path):
    plain, alone = Loader(tree, 3), Loader(tree, 3, prepare=stamped)
    with closing(Loader(dataclasses.replace(tree, workers=2), 3, prepare=stamped)) as spread:
        batches = [spread.batch(step) for step in (1, 2)]
    for step, ours in zip((1, 2), batches, strict=True):
        theirs, before = alone.batch(step), plain.batch(step)
        assert torch.equal(ours.x, theirs.x)
        assert torch.equal(ours.labels, before.labels)
        assert torch.equal(ours.x.flatten(1)[:, 1:], before.x.flatten(1)[:, 1:])
    stamps = {float(image.flatten()[0]) for step in range(6) for image in alone.batch(step).x}
    assert len(stamps) >= 8  # of 18 draws of 256; fewer have probability below 1e-9


def test_a_training_has_its_images_prepared_and_resumes_with_the_same(tree, tmp_path):
    class Prepared(Rising):
        """Its batches are those that the processes prepare."""

        prepare = staticmethod(stamped)

    def trained(kind, name, **changes):
        work = dataclasses.replace(
            tree, held_out_indices=tree.train_indices, workspace=tmp_path / name, **changes
        )
        return weights(
            fit("stage", kind(work, features=192), dataclasses.replace(RECIPE, batch_size=3), work)
        )

    with pytest.raises(KeyboardInterrupt):
        trained(Prepared, "resumed", report=stopped_at(5))
    whole = trained(Prepared, "whole")
    assert torch.equal(trained(Prepared, "resumed"), whole)
    assert not torch.equal(trained(Rising, "plain"), whole)


def test_a_process_that_dies_over_an_image_ends_the_training_in_words(tree):
    Image.new("RGB", (8, 8), "white").save(tree.split.images.paths[0])
    loader = Loader(dataclasses.replace(tree, workers=1), 7, prepare=stamped)
    with (
        closing(loader),
        pytest.raises(EngineError, match="prepares training images has died"),
    ):
        loader.batch(0)


def test_waiting_is_the_share_of_the_time_from_one_step_to_the_next(tmp_path):
    times = iter([0.0, 1.0, 4.0, 7.0, 8.0, 9.0])  # waits of 1, 3 and 1 s in steps of 4 and 4 s
    loader = Loader(job(tmp_path), 4, clock=lambda: next(times))
    shares = []
    for step in range(3):
        loader.batch(step)
        shares.append(loader.waiting())
    assert shares == [0.0, 1 / 4, (1 + 3) / 8]


@pytest.mark.parametrize(
    ("waiting", "said"), [(0.19, ""), (0.45, ", 45% of the time waits for images: raise --workers")]
)
def test_display_says_when_the_loader_sets_the_pace(waiting, said):
    progress = Progress(stage="s", step=1, max_steps=9, loss=1.0, seconds=1.0, score=None, waiting=waiting)
    assert ", ".join(training_detail(progress)) == f"loss 1.000{said}"
