"""Radii of a run's tables when its folder is extended by commands that name radii, or name none."""

import dataclasses

from bench.config.radii import chosen_radii
from bench.records.file import RecordsFile
from tests.records.test_file import HEADER, UNSURE, record


def test_radii_that_nobody_named_give_way_to_those_of_a_run_and_grow_with_its_sigmas(tmp_path):
    def header(sigma, radii=None):
        made = dataclasses.replace(HEADER, sigmas=(sigma,), n=1000)
        return dataclasses.replace(made, radii=radii or chosen_radii(made, (sigma,)))

    def radii_of(name, first, *then):
        for one in (first, *then):
            with RecordsFile.create_or_resume(tmp_path / name, one) as file:
                if one is first:
                    file.append(record(sigma=first.sigmas[0], n=1000, **UNSURE))
                held = file.run.header.radii
        return held

    chosen = chosen_radii(header(0.25), (0.25, 1.0))
    assert radii_of("up", header(0.25), header(1.0)) == radii_of("down", header(1.0), header(0.25)) == chosen
    assert radii_of("named", header(1.0, (0.0, 0.7)), header(1.0), header(0.25)) == (0.0, 0.7)
    assert radii_of("again", header(1.0), header(1.0, (0.0, 0.7))) == (0.0, 0.7)
