"""Public data, laid out as a cohort: the OASIS maps that nilearn distributes.

nilearn downloads them (or finds them where an earlier call put them); here they are given their
labels and a `scans.tsv`.
"""

import os
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from headscope.cohort.tables import counted
from headscope.console import track
from headscope.errors import InputError
from headscope.files import atomic_path, write_table, write_text

TISSUES: Final = {"grey": "gray_matter_maps", "white": "white_matter_maps"}
COLUMNS: Final = {"age": "age", "mf": "sex", "mmse": "mmse", "cdr": "cdr"}
MOST_SUBJECTS: Final = 403

OASIS_TERMS: Final = """\
OASIS-1 (Marcus et al. 2007, J Cogn Neurosci 19:1498), maps of grey and white matter in MNI space,
as nilearn distributes them from www.nitrc.org: 403 subjects.

The data are shared under the OASIS Data Use Agreement, https://sites.wustl.edu/oasisbrains:
you make no attempt to identify a participant, you pass the data on only under the same terms,
you acknowledge OASIS in what you publish, and you keep to the rules of your own institution.
"""

README: Final = """\
OASIS-1, maps of {tissue} matter (SPM8 with DARTEL, modulated, MNI space), fetched through nilearn.

scans.tsv  path, subject_id, session_id, label, age, sex, mmse, cdr
           label: AD where the clinical dementia rating (CDR) is above 0, NC where it is 0, n/a
           where the subject was not rated; these are left out by 'headscope run'
terms.txt  the data use agreement that you have agreed to
"""


def fetch_oasis_vbm(
    out: Path | str,
    *,
    accept_terms: bool,
    subjects: int | None = None,
    tissue: str = "grey",
    data_dir: Path | str | None = None,
) -> Path:
    """Lay out nilearn's OASIS maps as a cohort in `out`; return it.

    nilearn looks for the files in data_dir, NILEARN_SHARED_DATA, NILEARN_DATA and ~/nilearn_data,
    in a folder `oasis1`, and downloads what is missing.

    Parameters
    ----------
    out
        A new or empty folder, or that of an earlier call.
    accept_terms
        The user accepts `OASIS_TERMS`.
    subjects
        The first so many of 403.
    tissue
        grey or white.
    data_dir
        Where nilearn looks first.

    Raises
    ------
    InputError
        The terms are not accepted, a choice is unknown, `out` holds something else, or the files
        are neither there nor can be downloaded.

    Examples
    --------
    >>> hs.fetch("oasis", accept_terms=False)
    Traceback (most recent call last):
        ...
    headscope.errors.InputError: Nothing is fetched before its terms are accepted ...
    """
    out = Path(out)
    _check(out, accept_terms, subjects, tissue)
    oasis = _fetch(subjects, data_dir)
    maps = [Path(str(name)) for name in oasis[TISSUES[tissue]]]
    table = _table(maps, pd.DataFrame(oasis["ext_vars"]))
    (out / "scans").mkdir(parents=True, exist_ok=True)
    for source, name in track(zip(maps, table["path"], strict=True), "Laying out", len(maps)):
        _place(source, out / name)
    terms = Path(str(oasis["data_usage_agreement"]))
    write_text(out / "terms.txt", terms.read_text(encoding="utf-8", errors="replace"))
    write_text(out / "README.txt", README.format(tissue=tissue))
    write_table(out / "scans.tsv", table)
    return out


def _check(out: Path, accept_terms: bool, subjects: int | None, tissue: str) -> None:
    if not accept_terms:
        raise InputError(
            "Nothing is fetched before its terms are accepted (--accept-terms, accept_terms=True)."
        )
    if tissue not in TISSUES:
        raise InputError(f"Unknown tissue {tissue!r}: choose {' or '.join(TISSUES)}.")
    if subjects is not None and not 1 <= subjects <= MOST_SUBJECTS:
        raise InputError(f"There are 1 to {MOST_SUBJECTS} subjects, not {subjects}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        readme = out / "README.txt"
        ours = readme.is_file() and readme.read_text(encoding="utf-8").startswith("OASIS-1, maps")
        if not ours:
            raise InputError(f"{out} holds something else: choose another folder.")


def _fetch(subjects: int | None, data_dir: Path | str | None) -> dict[str, Any]:
    """Ask nilearn for the maps; say in one sentence what to do where there is no network."""
    from nilearn import datasets  # slow to import

    try:
        return datasets.fetch_oasis_vbm(n_subjects=subjects, data_dir=data_dir, verbose=0)
    except OSError as error:  # of requests' errors too
        places = ", ".join(str(place) for place in datasets.get_data_dirs(data_dir=data_dir))
        raise InputError(
            f"The OASIS maps could not be fetched ({_brief(error)}): connect to the network, or "
            "fetch them with nilearn on a machine that is (nilearn.datasets.fetch_oasis_vbm()), "
            "copy its folder 'oasis1' here, and name the folder that holds it with --data-dir or "
            f"NILEARN_DATA. Looked in: {places}."
        ) from error


def _brief(error: OSError) -> str:
    """Return the kind of error and, of a long message, its first words."""
    text = str(error).split("\n", 1)[0]
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__


def _table(maps: list[Path], facts: pd.DataFrame) -> pd.DataFrame:
    """Return scans.tsv: ids from the names of the maps, labels from the CDR."""
    # OAS1_0001_MR1 of mwrc1OAS1_0001_MR1_mpr_anon_fslswapdim_bet.nii.gz
    session = pd.Series(["OAS1" + path.name.split("OAS1", 1)[-1][:9] for path in maps], dtype=str)
    facts = facts.assign(id=facts["id"].astype(str)).set_index("id")
    unknown = session[~session.isin(facts.index)]
    if len(unknown):
        raise InputError(
            f"The table of OASIS lacks {counted(len(unknown), 'session')}, the first "
            f"{unknown.iloc[0]}: fetch it again."
        )
    rows = facts.loc[session.tolist()]
    cdr = pd.to_numeric(rows["cdr"], errors="coerce").to_numpy(float)
    table = pd.DataFrame(
        {
            "path": [f"scans/{name}.nii{''.join(p.suffixes[-1:]) if p.suffix == '.gz' else ''}"
                     for name, p in zip(session, maps, strict=True)],
            "subject_id": session.str.slice(0, 9),
            "session_id": session.str.slice(10),
            "label": np.where(np.isnan(cdr), "n/a", np.where(cdr > 0, "AD", "NC")),
        }
    )  # fmt: skip
    return table.assign(
        **{ours: rows[theirs].to_numpy() for theirs, ours in COLUMNS.items() if theirs in rows}
    )


def _place(source: Path, target: Path) -> None:
    """Link a file, which takes no room, or copy it where links cannot be made."""
    if target.exists():
        return
    try:
        os.link(source, target)
    except OSError:  # another file system
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
