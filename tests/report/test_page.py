"""The page without a browser: its numbers, its pictures, and that nothing in it is taken for markup or fetched."""

import base64
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data.sets import PixelTensor
from bench.errors import DataError, UsageError
from bench.report.comparison import compare
from bench.report.figures.images import write_images
from bench.report.page import pictures as page_pictures
from bench.report.page.pictures import data_uri, draw_pictures
from bench.report.page.values import cost_points, page_values, paired_rows
from bench.report.page.write import FILE_NAME, _library, script_json, write_page
from bench.report.tables.accuracy import accuracy_frame, acr_frame
from bench.report.tables.cost import cost_frame
from bench.report.tables.paired import paired_frame, pairs_of
from bench.smoothing.noise import noise_block
from tests.support.fake_runs import make_run
from tests.support.page_runs import CLASSES, HOSTILE, IMAGES, hostile_run, picture_split


def pixels_of(uri):
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


@pytest.fixture
def split(monkeypatch):
    """The data set of the pictures, instead of a real one."""
    made = picture_split()
    monkeypatch.setattr(page_pictures, "load", lambda *args, **options: made)
    return made


def test_points_of_accuracy_against_cost_are_the_best_rows_at_their_sigmas_cost():
    run = make_run(images=15)
    run = replace(run, costs=tuple(one for one in run.costs if one.sigma != 0.25))
    comparison = compare([run])
    accuracy, costs = accuracy_frame(comparison), cost_frame(comparison).set_index(["label", "sigma"])
    for radius in (0.0, 1.25):  # at 1.25 only sigma 1 certifies anything
        best = accuracy.query(f"selection == 'best' and radius == {radius}").set_index("label")
        points = cost_points(comparison, radius)
        assert len(points) == 4
        for point in points:
            assert point["accuracy"] == 100 * best.loc[point["label"], "accuracy"]
            measured = 0.5 if point["sigma"] == "0.25" else float(point["sigma"])  # the nearest measured one
            assert point["seconds"] == costs.loc[(point["label"], measured), "seconds_per_certificate_median"]
    assert cost_points(compare([make_run(images=5, with_costs=False)]), 0.0) == []


def summary_of(*runs):
    comparison = compare(list(runs))
    frames = {
        "accuracy": accuracy_frame(comparison),
        "acr": acr_frame(comparison),
        "cost": cost_frame(comparison),
    }
    paired = paired_frame(comparison, pairs_of(comparison))
    return page_values(comparison, frames | {"paired": paired}, ())


def imported(largest, folder="log"):
    """Return a run of one imported log of one image, with this radius at sigma 0.5, n = 1,000 and alpha = 0.001."""
    run = make_run(Path(folder), methods=["cohen"], sigmas=[0.5], images=1, with_costs=False)
    record = replace(
        run.records[0],
        predict=0,
        label=0,
        radius=largest,
        counts_selection=(),
        counts_estimation=(),
        clean=None,
    )
    log = {"file": "log.tsv", "notes": ["log log.tsv: it holds no counts."]}
    unknown = {"seed": -1, "noise_block": 0, "precision": "unknown", "device_type": "unknown"}
    return replace(
        run, header=replace(run.header, logs={"cohen/0.5": log}, **unknown), records=(record,), costs=()
    )


def test_a_page_of_one_method_counts_one_and_states_its_protocol():
    summary = summary_of(make_run(methods=["rrcm"], sigmas=[0.5], images=1))["summary"]
    assert summary.startswith(
        "1 method, 1 noise level, 1 image. Every method is certified by one protocol: the same"
    )
    assert "each certificate wrong with probability 0.001 at most" in summary


def test_a_page_warns_first_of_a_log_whose_radii_deny_its_alpha_and_does_not_state_it():
    values = summary_of(imported(1.3))  # 1,000 samples certify 1.231 at most
    assert values["summary"].startswith(
        "Warning: cohen at sigma 0.5 cannot have the stated α = 0.001 and n = 1,000"
    )
    assert "wrong with probability" not in values["summary"]
    assert "under the same noise" not in values["summary"]
    facts = dict(values["runs"][0]["facts"])
    assert (facts["noise"], facts["arithmetic"]) == ("unknown", "unknown")
    assert facts["published logs"] == "cohen/0.5 log.tsv"


def test_a_log_that_its_alpha_allows_is_stated_as_such_without_a_warning():
    summary = summary_of(imported(1.23))["summary"]
    assert "Warning" not in summary
    assert "All radii are those of published logs" in summary


def test_beside_a_log_only_what_was_measured_here_is_said_to_have_one_protocol():
    measured = make_run(Path("own"), methods=["rrcm"], sigmas=[0.5], images=1)
    summary = summary_of(measured, imported(1.3))["summary"]
    assert "Radii of cohen (log) are those of published logs" in summary
    assert "Every other method is certified by one protocol" in summary


def test_runs_of_two_protocols_are_not_said_to_have_one():
    one = make_run(Path("one"), methods=["rrcm"], sigmas=[0.5])
    two = make_run(Path("two"), methods=["rrcm"], sigmas=[0.5], seed=1)
    summary = summary_of(one, replace(two, header=replace(two.header, alpha=0.01)))["summary"]
    assert "the runs differ in alpha" in summary
    assert "one protocol" not in summary


def test_paired_rows_hold_the_frame():
    run = make_run(images=15, methods=["rrcm", "dds"])
    comparison = compare([run])
    frame = paired_frame(comparison, pairs_of(comparison))
    rows = paired_rows(frame)
    assert [row["difference"]["value"] for row in rows] == list(frame["difference"])
    assert [row["p_holm"]["value"] for row in rows] == list(frame["p_holm"])


def test_a_script_element_is_ended_by_no_text_in_its_json():
    values = {"</script>": ["<!--", "&lt;", "\u2028", HOSTILE]}
    text = script_json(values)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == values


def test_names_from_data_stand_in_the_page_as_json_text_alone(tmp_path, split):
    text = write_page(compare([hostile_run(tmp_path)]), tmp_path).read_text()
    assert HOSTILE not in text
    assert CLASSES[0] not in text
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1])
    assert data["labels"][0]["name"] == HOSTILE
    assert tuple(data["classes"]) == CLASSES


def test_the_page_names_nothing_to_fetch_and_forbids_fetching(tmp_path, split):
    text = write_page(compare([hostile_run(tmp_path)]), tmp_path).read_text()
    markup = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", text, flags=re.DOTALL)
    targets = re.findall(r'(?:src|href)="([^"]*)"', markup)
    assert targets
    assert all(target.startswith(("#", "data:")) for target in targets)
    assert "default-src 'none'" in markup
    assert not re.findall(r"url\((?!data:)", text.split("</style>")[0])


def test_a_title_from_data_is_escaped(tmp_path, split):
    run = hostile_run(tmp_path)
    run = replace(run, header=replace(run.header, dataset=HOSTILE))
    assert HOSTILE not in write_page(compare([run]), tmp_path).read_text()


def test_without_the_plotting_library_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bokeh.resources", None)
    with pytest.raises(UsageError, match=r"Bokeh, which is not installed: pip install 'rrcm-bench\[html\]'"):
        write_page(compare([make_run(images=2)]), tmp_path)
    assert not (tmp_path / FILE_NAME).exists()


def test_pictures_are_the_images_and_their_first_noisy_copies(split):
    header = make_run(images=IMAGES).header
    pictures = draw_pictures(header, [0.25])
    assert set(pictures.clean) == set(header.indices)
    index = header.indices[3]
    x = split.images[index]
    assert np.array_equal(pixels_of(pictures.clean[index]), np.round(x[0].numpy() * 255))
    noise = noise_block(0, index, "selection", 0, (1, 28, 28), x.device)[0]
    expected = (x + 0.25 * noise).clamp(0, 1)[0].numpy() * 255
    assert np.array_equal(pixels_of(pictures.noisy[index, 0.25]), np.round(expected))
    assert "the first that the certifier drew" in pictures.note


def test_pictures_end_with_the_budget_and_the_note_says_how_many_there_are(split):
    header = make_run(images=IMAGES).header
    one = len(data_uri(split.images[header.indices[0]]))
    pictures = draw_pictures(replace(header, seed=-1), [0.25], budget=5 * one // 2)
    assert list(pictures.clean) == list(header.indices[:2])
    assert pictures.noisy == {}
    assert pictures.note.startswith(f"Pictures of 2 of {IMAGES} images. No noisy pictures: the seed")


def test_noise_of_another_version_is_said_to_be_another(split):
    header = replace(make_run(images=2).header, noise_version=1)
    assert "not the certifier's own, which version 1 of the noise gave" in draw_pictures(header, [0.25]).note


def test_large_pictures_are_jpeg():
    assert data_uri(picture_split().images[0].expand(3, 28, 28).repeat(1, 4, 4)).startswith("data:image/jpeg")


def test_missing_or_other_data_leave_the_page_without_pictures_and_say_why(split, monkeypatch):
    header = make_run(images=IMAGES).header
    other = draw_pictures(replace(header, image_shape=(3, 32, 32)), [0.25])
    assert (other.clean, other.note) == ({}, "No pictures: the data found are not those that were certified.")

    def missing(*args, **options):
        raise DataError("no data here")

    monkeypatch.setattr(page_pictures, "load", missing)
    assert draw_pictures(header, [0.25]).note == "No pictures: no data here."


def test_example_images_are_drawn_clean_and_at_every_sigma(tmp_path, split):
    header = make_run(images=IMAGES).header
    paths = write_images(header, [0.25, 1.0], tmp_path)
    assert [path.name for path in paths] == ["images.png", "images.pdf"]
    with pytest.raises(DataError, match="holds no seed"):
        write_images(replace(header, seed=-1), [0.25], tmp_path)
    with pytest.raises(DataError, match=r"version 1 of the noise, .* draws version 2: certify it again"):
        write_images(replace(header, noise_version=1), [0.25], tmp_path)
    with pytest.raises(DataError, match="not those that were certified"):
        write_images(replace(header, image_shape=(3, 32, 32)), [0.25], tmp_path)


def test_a_page_weighs_a_megabyte_beside_the_plotting_library(tmp_path, monkeypatch):
    pixels = torch.randint(0, 256, (6000, 1, 28, 28), generator=torch.Generator().manual_seed(0))
    made = replace(picture_split(), images=PixelTensor(pixels.to(torch.uint8)), labels=(0,) * len(pixels))
    monkeypatch.setattr(page_pictures, "load", lambda *args, **options: made)
    page = write_page(compare([make_run(images=300)]), tmp_path).read_text()
    assert 600_000 < len(page) - len(_library()) <= 1_000_000
    assert 50 < page.count("data:image/png") < 1200  # what room there is goes to pictures
