"""Parquet files as the library of Hugging Face writes them, of pictures of one grey level each."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def picture(level: int, side: int = 8, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), level, dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def spread(
    path: Path,
    labels: Any,
    *,
    images: list[bytes | None] | None = None,
    names: list[str] | None = None,
    columns: tuple[str, str] = ("image", "label"),
    paths: list[str | None] | None = None,
    told: bool = True,
) -> Path:
    """Write rows as the library of Hugging Face does; image i is of level 10 i, in row groups of two rows."""
    images = [picture(10 * i) for i in range(len(labels))] if images is None else images
    held = [{"bytes": one, "path": None if paths is None else paths[i]} for i, one in enumerate(images)]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({columns[0]: pa.array(held, struct), columns[1]: pa.array(labels)})
    if told:
        label = {"_type": "ClassLabel", "names": ["ant", "bee", "cat"] if names is None else names}
        features = {columns[0]: {"_type": "Image"}, columns[1]: label}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=2)
    return path
