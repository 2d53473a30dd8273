"""A stored set of slices → folders of pictures, as the paper fed its networks: OUT/AD/….jpg."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from PIL import Image

from headscope.cohort.layouts import find_cohort
from headscope.cohort.pseudonyms import pseudonymise_cohort
from headscope.console import track
from headscope.errors import InputError
from headscope.files import atomic_path, write_json, write_table
from headscope.slicing.store import SliceSet
from headscope.slicing.write import write_slices

FORMATS: Final = {"jpeg": ".jpg", "png": ".png"}
JPEG: Final[dict[str, Any]] = {"quality": 95, "subsampling": 0}


def export_pictures(slices: SliceSet, out: Path, picture_format: str) -> pd.DataFrame:
    """Write every slice as a picture in the folder of its class; return what was written.

    Names hold subject, session, plane and slice: AD/OAS1_0003_MR1_axial_slice-012.jpg. Pictures
    of these slices that stand already are left, so a killed export goes on; pictures.json says of
    which slices they are. pictures.tsv lists them with the ids, which names alone may not give
    back. PNG keeps every grey value, JPEG (quality 95) nearly.

    Raises
    ------
    InputError
        The format is neither jpeg nor png, or two slices would get one name.
    """
    if picture_format not in FORMATS:
        raise InputError(f"Format {picture_format!r} is none: choose {', '.join(FORMATS)}.")
    table = slices.table.drop(columns="scan")
    table.insert(0, "path", _names(table, FORMATS[picture_format]))
    for name in sorted(set(table["label"])):
        (out / _plain(name)).mkdir(parents=True, exist_ok=True)
    _clear_others(out, slices.sha256, table["path"])
    for _ in track(_written(slices, out, table["path"]), "Writing pictures", len(table)):
        pass
    write_table(out / "pictures.tsv", table)
    return table


def slice_data(
    data: Path | str,
    out: Path | str,
    *,
    picture_format: str | None = None,
    find: Mapping[str, Any] | None = None,
    pseudonymise: Path | str | None = None,
    **options: Any,
) -> SliceSet:
    """Take the slices of the scans below `data` and store them in `out`, as pictures too if asked.

    find holds options of `find_cohort` (label, classes, threshold, where, …), options those of
    `write_slices` (plane, count, size, centre, spacing_mm, workers, strict, …). pseudonymise names
    a key file: ids become keyed hashes.

    Raises
    ------
    InputError
        As `find_cohort`, `write_slices` and `export_pictures`.
    """
    if picture_format not in (None, *FORMATS):
        raise InputError(f"Format {picture_format!r} is none: choose store, {', '.join(FORMATS)}.")
    out, plane = Path(out), options.get("plane", "axial")
    cohort = find_cohort(Path(data), plane=plane, need_classes=False, **(find or {}))
    if pseudonymise is not None:
        cohort = pseudonymise_cohort(cohort, Path(pseudonymise), out)
    slices = write_slices(cohort, out, **options)
    if picture_format is not None:
        export_pictures(slices, out, picture_format)
    return slices


def _names(table: pd.DataFrame, suffix: str) -> list[str]:
    names = [
        f"{_plain(row.label)}/{_plain(row.subject_id)}_{_plain(row.session_id)}"
        f"_{row.plane}_slice-{row.slice_index:03d}{suffix}"
        for row in table.itertuples()
    ]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"Two slices would be written as {twice}: give subjects plainer ids.")
    return names


def _plain(text: str) -> str:
    """Keep letters and digits of any script, and signs that are safe in a name."""
    return re.sub(r"[^\w.<>=+-]+", "-", text).strip(".") or "-"


def _clear_others(out: Path, sha256: str, names: pd.Series) -> None:
    """Remove pictures of other slices that bear the names of ours, and note whose are to come."""
    mark = out / "pictures.json"
    wanted = {"slices_sha256": sha256}
    try:
        if json.loads(mark.read_text(encoding="utf-8")) == wanted:
            return
    except (FileNotFoundError, ValueError):
        pass  # none yet, or one that says nothing
    for name in names:
        (out / name).unlink(missing_ok=True)
    write_json(mark, wanted)


def _written(slices: SliceSet, out: Path, names: pd.Series) -> Iterator[None]:
    for row, name in enumerate(names):
        path = out / name
        if not path.exists():
            picture = Image.fromarray(np.asarray(slices.pixels[row]))
            with atomic_path(path) as temporary:
                options = JPEG if path.suffix == ".jpg" else {}
                picture.save(temporary, **options)
        yield
