"""A slice store → folders of pictures, as the paper fed its networks: OUT/AD/….jpg."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from PIL import Image

from headscope.cohort.layouts import find_cohort
from headscope.cohort.pseudonyms import pseudonymise_cohort
from headscope.console import track
from headscope.errors import InputError
from headscope.files import any_names, atomic_path, clear_leftovers, write_json, write_table
from headscope.slicing.spec import SliceSpec
from headscope.slicing.store import SliceSet
from headscope.slicing.write import write_slices

FORMATS: Final = {"jpeg": ".jpg", "png": ".png"}
LONGEST: Final = 180  # bytes; 255 are the most, and plane, number and a temporary mark are to come
JPEG: Final[dict[str, Any]] = {"quality": 95, "subsampling": 0}


def export_pictures(slices: SliceSet, out: Path, picture_format: str) -> pd.DataFrame:
    """Write every slice as a picture in the folder of its class; return the table of pictures.

    Names hold subject, session, plane and slice: AD/OAS1_0003_MR1_axial_slice-012.jpg. A killed
    export continues: pictures that are already written stay, and pictures.json names the slices
    that they show. pictures.tsv, which is returned, has one row per slice: path, and the columns of
    slices.tsv but for `scan`, as ids cannot always be read from names. png keeps every grey value,
    jpeg (quality 95) nearly does.
    """
    if picture_format not in FORMATS:
        raise InputError(f"Unknown format {picture_format!r}: choose {', '.join(FORMATS)}.")
    slices.check_pixels()
    table = slices.table.drop(columns="scan")
    table.insert(0, "path", _names(table, FORMATS[picture_format]))
    clear_leftovers(out)
    for name in sorted(set(table["label"])):
        (out / _plain(name)).mkdir(parents=True, exist_ok=True)
    _clear_others(out, slices.sha256, table["path"])
    for row, name in enumerate(track(table["path"], "Writing pictures", len(table))):
        if not (out / name).exists():
            with atomic_path(out / name) as temporary:
                options = JPEG if picture_format == "jpeg" else {}
                Image.fromarray(np.asarray(slices.pixels[row])).save(temporary, **options)
    write_table(out / "pictures.tsv", table)
    return table


@any_names
def slice_data(
    data: Path | str,
    out: Path | str,
    *,
    picture_format: str | None = None,
    find: Mapping[str, Any] | None = None,
    pseudonym_key: Path | str | None = None,
    workers: int | None = None,
    strict: bool = False,
    **options: Any,
) -> SliceSet:
    """Take the slices of the scans below `data` and store them in `out`, as pictures too if asked.

    Parameters
    ----------
    data, out
        The folder of scans; the folder of the store, which may hold an unfinished one.
    picture_format
        jpeg or png: pictures in class folders beside the store.
    find
        Options of `find_cohort`: label, classes, threshold, where, …
    pseudonym_key
        A key file: ids become keyed hashes.
    workers, strict
        As of `write_slices`.
    **options
        Those of `SliceSpec` by the names of settings: plane, count, size, centre, spacing_mm,
        volume, analyze_orientation, window.

    Raises
    ------
    InputError
        As `find_cohort`, `write_slices` and `export_pictures`.

    Examples
    --------
    >>> slices = hs.slice("scans", "slices", count=2, size=32, workers=1)
    >>> slices.pixels.shape, slices.class_names
    ((24, 32, 32), ['AD', 'NC'])
    """
    if picture_format not in (None, *FORMATS):
        raise InputError(f"Unknown format {picture_format!r}: choose store, {', '.join(FORMATS)}.")
    unknown = sorted(options.keys() - SliceSpec().as_settings())
    if unknown:
        raise TypeError(f"There is no option {unknown[0]!r} of slices.")
    out, spec = Path(out), SliceSpec.from_settings(options)
    cohort = find_cohort(Path(data), plane=spec.plane, need_classes=False, **(find or {}))
    if pseudonym_key is not None:
        cohort = pseudonymise_cohort(cohort, Path(pseudonym_key), out)
    slices = write_slices(cohort, out, spec, workers=workers, strict=strict)
    if picture_format is not None:
        export_pictures(slices, out, picture_format)
    return slices


def _names(table: pd.DataFrame, suffix: str) -> list[str]:
    names = [
        f"{_plain(str(row.label))}/"
        f"{_shorten(f'{_plain(str(row.subject_id))}_{_plain(str(row.session_id))}')}"
        f"_{row.plane}_slice-{row.slice_index:03d}{suffix}"
        for row in table.itertuples()
    ]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"Two slices would be written as {twice}: give subjects plainer ids.")
    return names


def _plain(text: str) -> str:
    """Keep letters and digits of any script, and characters that are safe in a name."""
    return _shorten(re.sub(r"[^\w.<>=+-]+", "-", text).strip(".") or "-")


def _shorten(name: str) -> str:
    """Return a name that file systems take, with a hash in place of what is cut."""
    if len(name.encode()) <= LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:12]
    return f"{name.encode()[: LONGEST - 13].decode(errors='ignore')}-{digest}"


def _clear_others(out: Path, sha256: str, names: pd.Series) -> None:
    """Remove pictures of other slices under the same names, and note which slices are to come."""
    mark = out / "pictures.json"
    wanted = {"slices_sha256": sha256}
    try:
        if json.loads(mark.read_text(encoding="utf-8")) == wanted:
            return
    except (FileNotFoundError, ValueError):
        pass  # not there yet, or unreadable
    for name in names:
        (out / name).unlink(missing_ok=True)
    write_json(mark, wanted)
