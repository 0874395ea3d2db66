"""Every file of records that was ever committed is read, and written again with the same values."""

import json
from pathlib import Path

import pytest

from bench.checks import audit_log
from bench.cost import records as cost
from bench.records.codec import RUN

RESULTS = Path(__file__).parents[2] / "results"
CODECS = {"header": RUN, "cost-header": cost.CODEC, "effort": audit_log.CODEC}


pytestmark = pytest.mark.skipif(not RESULTS.is_dir(), reason="a source distribution holds no results")


ADDED = {"clean", "images", "session", "duel", "group", "warming", "watts", "temperature", "clock_mhz"}
"""Fields of lines that older files lack."""


def test_committed_files_are_read_and_written_with_the_same_values():
    files = [*sorted(RESULTS.rglob("*.jsonl")), Path(__file__).parent / "old" / "records.jsonl"]
    assert len(files) >= 5
    for path in files:
        first, *others = path.read_bytes().splitlines(keepends=True)
        values = json.loads(first)
        codec = CODECS[values["kind"]]
        again = json.loads(codec.encode(codec.decode_header(first, path)))
        if values["schema_version"] == 1:
            values |= {
                name: names[values[name]]
                for name, names in codec.renamed.items()
                if values.get(name) in names
            }
        assert again == {name: again[name] for name in codec.added if name in again} | values
        for line, item in zip(others, codec.decode_all([others], path), strict=True):
            again, values = json.loads(codec.encode(item)), json.loads(line)
            assert {name: again[name] for name in values} == values
            assert again.keys() - values.keys() <= ADDED
