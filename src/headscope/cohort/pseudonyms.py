"""Ids replaced by keyed hashes: who holds the key can tell whose scan it was, and nobody else."""

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pandas as pd

from headscope.cohort.layouts import Cohort
from headscope.errors import InputError
from headscope.files import NO_ID

KEY_BYTES: Final = 32
SHORTEST_KEY: Final = 16
CONDITION: Final = ("Left out by '", 'Left out by "')  # of --where, which may name a subject
FILE_NAME: Final = re.compile(r"\S+\.(?:nii|hdr|img|mgh|mgz|dcm|ima|jpe?g|png|tiff?)\b", re.I)


def pseudonymised(cohort: Cohort, key_file: Path, out: Path) -> Cohort:
    """Return the cohort with the ids of subjects and sessions replaced by keyed hashes.

    A subject becomes sub- and the first 12 hexadecimal digits of HMAC-SHA256 over its id, a
    session likewise of 8 over subject and session. The column `name` is what artefacts call a scan
    in place of its path, and notes that quote an id or a file are left out. Rows are sorted by the
    pseudonyms, so that their order tells nothing either. The key is made where there is none.

    Raises
    ------
    InputError
        The key is too short or cannot be read, or lies in `out`, with which it would be passed on.
    """
    check_apart(key_file, out)
    key = _read_key(key_file)
    scans = cohort.scans
    pairs = list(zip(scans["subject_id"], scans["session_id"], strict=True))
    subjects = [_subject(key, subject) for subject, _ in pairs]
    sessions = [f"ses-{_digest(key, 'session', *pair)[:8]}" for pair in pairs]
    names = [f"{subject}/{session}" for subject, session in zip(subjects, sessions, strict=True)]
    if "slice_index" in scans.columns:
        names = [
            f"{name}/{number}" for name, number in zip(names, scans["slice_index"], strict=True)
        ]
    hidden = {*scans["path"], *scans["subject_id"], *scans["session_id"]}
    return replace(
        cohort,
        scans=_reordered(scans.assign(subject_id=subjects, session_id=sessions, name=names)),
        notes=[note for note in cohort.notes if not _quotes(note, hidden)]
        + ["Ids are pseudonyms: keyed hashes of those in the data."],
    )


def check_apart(key_file: Path, out: Path) -> None:
    """Refuse a key in the folder that holds what it protects (InputError)."""
    if key_file.resolve().is_relative_to(out.resolve()):
        raise InputError(
            f"The key {key_file} lies in {out}, and whoever gets that folder could undo the "
            "pseudonyms: keep the key elsewhere."
        )


def _read_key(path: Path) -> bytes:
    """Return the key in `path`; where there is none, make one that its owner alone may read."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        pass
    except OSError as error:
        raise InputError(f"The key {path} cannot be made: {error.strerror}.") from error
    else:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
    try:
        key = path.read_bytes()
    except OSError as error:
        raise InputError(f"The key {path} cannot be read: {error.strerror}.") from error
    if len(key) < SHORTEST_KEY:
        raise InputError(f"The key {path} holds {len(key)} bytes: {SHORTEST_KEY} are the least.")
    return key


def _subject(key: bytes, subject: str) -> str:
    return subject if subject == NO_ID else f"sub-{_digest(key, 'subject', subject)[:12]}"


def _digest(key: bytes, *parts: str) -> str:
    return hmac.new(key, "\0".join(parts).encode(), hashlib.sha256).hexdigest()


def _reordered(scans: pd.DataFrame) -> pd.DataFrame:
    """Sort by pseudonyms: rows in the order of the real ids would give them back to who knows."""
    by = ["subject_id", "session_id", "plane", "slice_index", "name"]
    return scans.sort_values([name for name in by if name in scans.columns], ignore_index=True)


def _quotes(note: str, hidden: Iterable[str]) -> bool:
    """Say whether a note holds a file's name, an example, a condition or an id of some length."""
    if ", the first " in note or note.startswith(CONDITION) or FILE_NAME.search(note):
        return True
    return any(len(name) > 2 and name in note for name in hidden)
