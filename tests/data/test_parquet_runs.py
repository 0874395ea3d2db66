"""Data sets in parquet files where they are used: by a name on the hub, in a run, from the shell and from Python."""

from __future__ import annotations

import os
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import bench
from bench.cli import cli
from bench.data.sets import batch, load
from bench.errors import DataError
from bench.records.file import check_comparable, read_run
from bench.types import Protocol
from tests.support.fake_runs import make_run
from tests.support.parquet import picture, spread

CIFAR10 = Path(os.environ.get("CIFAR10_PARQUET_DIR", Path(__file__).parents[3] / "shared" / "cifar10"))
"""A folder of CIFAR-10 in parquet files, which is not part of the project."""

needs_cifar10 = pytest.mark.skipif(not CIFAR10.is_dir(), reason=f"no CIFAR-10 in parquet files at {CIFAR10}")


class TestHub:
    """The hub itself is never asked: a stand-in gives a folder, as the hub's library does."""

    @pytest.fixture
    def asked(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        def snapshot_download(name: str, **options: Any) -> str:
            asked.append({"name": name} | options)
            if options["local_files_only"] and not (tmp_path / "data").exists():
                raise FileNotFoundError("not in\nthe cache")
            spread(tmp_path / "data" / "test-00000-of-00001.parquet", [0, 1])
            return str(tmp_path)

        module = types.SimpleNamespace(snapshot_download=snapshot_download)
        monkeypatch.setitem(sys.modules, "huggingface_hub", module)
        return asked

    def test_a_name_on_the_hub_is_fetched_once_it_may_be(self, asked: list[dict[str, Any]]) -> None:
        name = Path("hf:someone/insects")
        with pytest.raises(DataError, match=r"insects was not found \(not in the cache\); add --download"):
            load("folder", "test", data_dir=name)
        assert load("folder", "test", data_dir=name, download=True).labels == (0, 1)
        assert load("folder", "test", data_dir=name).labels == (0, 1)
        assert [one["local_files_only"] for one in asked] == [True, False, True]
        assert {(one["name"], one["repo_type"]) for one in asked} == {("someone/insects", "dataset")}

    def test_only_the_files_of_the_split_are_fetched(self, asked: list[dict[str, Any]]) -> None:
        load("folder", "test", data_dir=Path("hf:someone/insects"), download=True)
        assert not any("train" in pattern for pattern in asked[0]["allow_patterns"])

    def test_a_folder_of_several_is_named_behind_it(self, asked: list[dict[str, Any]]) -> None:
        split = load("folder", "test", data_dir=Path("hf:someone/insects/data"), download=True)
        assert split.labels == (0, 1)

    @pytest.mark.parametrize("name", ["hf:", "hf:insects", "hf:a b/c"])
    def test_no_name_is_refused(self, name: str) -> None:
        with pytest.raises(DataError, match="is no name of a data set on the hub, expected hf:OWNER/NAME"):
            load("folder", "test", data_dir=Path(name))

    def test_without_the_library_the_message_says_how_to_install_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(
            DataError, match=r"huggingface_hub, which is missing; run `pip install 'rrcm-bench\[datasets\]"
        ):
            load("folder", "test", data_dir=Path("hf:someone/insects"))


OWN_MODEL = """
import torch

def make(task, sigma):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * task.image_size**2, task.num_classes))
"""


def run_on(data: Path, out: Path, *options: str) -> Any:
    command = [
        "run",
        "--methods",
        "mine:make",
        "--sigma",
        "0.25",
        "--n",
        "16",
        "--n0",
        "4",
        "--device",
        "cpu",
    ]
    command += ["--cost-repetitions", "0", "--data-dir", str(data), "--out", str(out), *options]
    return CliRunner().invoke(cli, command)


@pytest.fixture
def own_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(OWN_MODEL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)


@pytest.mark.usefixtures("own_model")
class TestImageDigest:
    def test_a_run_goes_on_with_the_images_that_it_began_with_only(self, tmp_path: Path) -> None:
        spread(tmp_path / "data" / "test.parquet", [0, 1, 2])
        options = ("--dataset", "folder", "--limit")
        assert run_on(tmp_path / "data", tmp_path / "run", *options, "1").exit_code == 0
        assert run_on(tmp_path / "data", tmp_path / "run", *options, "2").exit_code == 0
        spread(tmp_path / "data" / "test.parquet", [0, 1, 2], images=[picture(9)] * 3)
        done = run_on(tmp_path / "data", tmp_path / "run", *options, "3")
        assert "was made under another image_digest" in str(done.exception)
        assert len(read_run(tmp_path / "run").records) == 2

    def test_a_replay_on_other_images_is_refused(self, tmp_path: Path) -> None:
        spread(tmp_path / "data" / "test.parquet", [0, 1, 2])
        assert run_on(tmp_path / "data", tmp_path / "run", "--dataset", "folder").exit_code == 0
        other = spread(tmp_path / "other" / "test.parquet", [0, 1, 2], images=[picture(9)] * 3).parent
        command = ["replay", str(tmp_path / "run"), "--index", "0", "--methods", "mine:make", "--data-dir"]
        done = CliRunner().invoke(cli, [*command, str(other)])
        assert "the data found are not those that were certified" in str(done.exception)

    def test_a_digest_that_is_unknown_agrees_with_any(self) -> None:
        known = make_run()
        known = replace(known, header=replace(known.header, image_digest="a" * 64))
        check_comparable([known, make_run()])


@needs_cifar10
@pytest.mark.usefixtures("own_model")
class TestCifar10:
    def test_the_published_subset_is_certified_from_the_shell(self, tmp_path: Path) -> None:
        done = run_on(CIFAR10, tmp_path / "run", "--preset", "cifar10", "--limit", "3")
        assert done.exit_code == 0, done.output
        found = read_run(tmp_path / "run")
        assert (found.header.subset, found.header.indices) == ("standard", (0, 20, 40))
        assert found.header.class_names[3] == "cat"
        assert [record.label for record in found.records] == [3, 7, 4]
        assert len(found.header.image_digest) == 64

    def test_it_is_certified_from_python(self) -> None:
        split = bench.load_data("cifar10", "test", data_dir=CIFAR10)
        images, labels = batch(split, range(0, 60, 20))
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32**2, 10))
        found = bench.certify_many(model, images, labels, sigma=0.25, protocol=Protocol(n0=4, n=16))
        assert found["label"].tolist() == [3, 7, 4]
