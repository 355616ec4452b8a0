"""Images of noise: as files, in folders by class, and in parquet tables with the Hub's schema."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image


def noise(seed: int, size: tuple[int, int] = (32, 32)) -> NDArray[np.uint8]:
    """Pixels (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def picture(seed: int, form: str = "PNG", size: tuple[int, int] = (32, 32)) -> bytes:
    """The file of an image of noise, `size` (height, width)."""
    return file_of(Image.fromarray(noise(seed, size)), form)


def file_of(image: Image.Image, form: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG."""
    check = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + check


def class_folders(root: Path, images: Mapping[str, int], seed: int = 0) -> Path:
    """A folder for each class with the given number of distinct images."""
    for name, count in images.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            seed += 1
            (root / name / f"{index:02}.png").write_bytes(picture(seed))
    return root


def cells(seeds: Sequence[int]) -> list[dict[str, object]]:
    """Cells of a parquet column of images."""
    return [{"bytes": picture(seed), "path": f"{seed}.png"} for seed in seeds]


def write_parquet(
    path: Path,
    labels: Any,
    images: Sequence[object] | None = None,
    *,
    columns: tuple[str, str] = ("image", "label"),
    classes: Sequence[str] = (),
) -> Path:
    """A parquet file; its class names are in the metadata, as `datasets` writes them."""
    images = cells(range(len(labels))) if images is None else images
    table = pa.table({columns[0]: images, columns[1]: labels})
    if classes:
        label = {"names": list(classes), "_type": "ClassLabel"}
        features = {columns[0]: {"_type": "Image"}, columns[1]: label}
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path
