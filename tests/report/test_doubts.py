"""What a reader should doubt: rows that may be one classifier, logs whose radii deny their alpha."""

from dataclasses import replace

from bench.report.compared import compare_runs
from bench.report.comparison import compare
from bench.report.write import write_tables
from bench.smoothing.stats import largest_radius
from tests.support.fake_runs import make_run


def test_rows_with_the_same_counts_on_every_image_are_named():
    run = make_run(methods=["rrcm", "gaussian", "dds"], sigmas=[0.25, 0.5])
    twins = tuple(
        replace(one, method="dds") for one in run.records if (one.method, one.sigma) == ("rrcm", 0.5)
    )
    kept = tuple(one for one in run.records if (one.method, one.sigma) != ("dds", 0.5))
    tables = compare_runs([replace(run, records=kept + twins)], methods=None, sigmas=None, out=None)[0]
    [note] = [note for note in tables[0].notes if "identical" in note]
    assert note.startswith(
        "rRCM and DDS have identical counts at sigma 0.5 on all 40 images: they may be one"
    )
    named = replace(run.header, checkpoints={"rrcm/0.5": "sha", "dds/0.5": "sha"})
    [note] = [
        one for one in compare([replace(run, header=named, records=kept + twins)]).notes if "ident" in one
    ]
    assert note.endswith("on all 40 images: they are one checkpoint under one noise.")
    changed = replace(twins[7], counts_selection=((0, 99), (1, 1)))
    run = replace(run, records=(*kept, *twins[:7], changed, *twins[8:]))
    assert not any("identical" in note for note in compare([run]).notes)


def test_rows_without_counts_are_not_said_to_have_the_same():
    run = make_run(methods=["rrcm", "dds"], sigmas=[0.5])
    bare = tuple(replace(one, counts_selection=(), counts_estimation=()) for one in run.records)
    assert compare([replace(run, records=bare)]).notes == ()


def test_a_log_whose_radii_deny_its_alpha_is_warned_of_before_anything_else(tmp_path):
    run = make_run(methods=["cohen"], sigmas=[0.25, 0.5], with_costs=False)
    bare = [replace(one, counts_selection=(), counts_estimation=()) for one in run.records]
    place = next(place for place, one in enumerate(bare) if one.radius and one.sigma == 0.5)
    bare[place] = replace(bare[place], radius=1.3)  # 1,000 samples certify 1.231 at most
    logs = {"cohen/0.25": {"file": "a", "notes": []}, "cohen/0.5": {"file": "b", "notes": []}}
    run = replace(run, header=replace(run.header, logs=logs), records=tuple(bare))
    write_tables(compare([run]), tmp_path)
    for name in ("certified_accuracy.md", "acr.md", "p_lower.md"):
        notes = [line for line in (tmp_path / name).read_text().splitlines() if line.startswith("- ")]
        assert notes[0].startswith(
            "- Warning: cohen at sigma 0.5 cannot have the stated α = 0.001 and n = 1,000: 1 "
        )
        assert "sigma 0.25" not in notes[0]
    assert "α = 0.001 as stated for a log that denies it" in (tmp_path / "acr.md").read_text()


def test_a_radius_that_its_rounding_alone_lifts_above_the_largest_is_not_warned_of():
    run = make_run(methods=["cohen"], sigmas=[0.5], images=1, with_costs=False)
    bare = {"counts_selection": (), "counts_estimation": (), "label": 0, "predict": 0}
    largest = largest_radius(1000, 0.001, 0.5)
    assert round(largest, 3) > largest
    for close, expected in ((round(largest, 3), 0), (round(largest, 3) + 0.001, 1)):
        rounded = replace(run, records=(replace(run.records[0], radius=close, **bare),))
        assert len(compare([rounded]).warnings) == expected


def test_a_checkpoint_of_another_noise_level_is_named_with_every_table(tmp_path):
    run = make_run(methods=["rrcm", "dds"], sigmas=[0.5])
    used = replace(run, header=replace(run.header, training={"rrcm/0.5": {"sigma": 1.0}}))
    write_tables(compare([used]), tmp_path)
    for name in ("certified_accuracy", "cost", "p_lower"):
        assert "Trained at another noise level: rRCM at sigma 0.5 (trained at 1)." in (
            (tmp_path / f"{name}.md").read_text()
        )
