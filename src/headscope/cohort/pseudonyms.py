"""Ids replaced by keyed hashes: only the key leads from a pseudonym back to its subject."""

import hashlib
import hmac
import os
import secrets
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from headscope.cohort.layouts import Cohort
from headscope.cohort.values import Note
from headscope.errors import InputError
from headscope.files import NO_ID, TEMPORARY_NAME, any_names

KEY_BYTES: Final = 32
SHORTEST_KEY: Final = 16


@any_names
def pseudonymise_cohort(cohort: Cohort, key_file: Path, out: Path, *, write: bool = True) -> Cohort:
    """Return a cohort with the ids of subjects and sessions replaced by keyed hashes.

    A subject becomes sub- and the first 12 hexadecimal digits of HMAC-SHA256 over its id, a
    session likewise of 8 over subject and session. The column `name` is the name of a scan in
    results in place of its path, and notes that name ids are left out. Rows are sorted by the
    pseudonyms: in the order of the real ids they would tell them.

    Parameters
    ----------
    cohort : Cohort
        With the real ids.
    key_file : Path
        The key, at least 16 bytes; made if there is none.
    out : Path
        The folder of results, which must not hold the key.
    write : bool
        False: a key that there is not yet is made up and not written.

    Raises
    ------
    InputError
        The key is too short, cannot be read, or is in `out` or among the scans, with which it would
        be passed on.
    """
    check_apart(key_file, out, cohort.root)
    made_up = not (write or key_file.exists())
    key = secrets.token_bytes(KEY_BYTES) if made_up else _read_key(key_file)
    scans = cohort.scans
    pairs = list(zip(scans["subject_id"], scans["session_id"], strict=True))
    scans = scans.assign(
        subject_id=[_hash_subject(key, subject) for subject, _ in pairs],
        session_id=[f"ses-{_digest(key, 'session', *pair)[:8]}" for pair in pairs],
    )
    parts = [name for name in ("subject_id", "session_id", "slice_index") if name in scans.columns]
    rows = scans[parts].itertuples(index=False)
    scans = scans.assign(name=["/".join(map(str, row)) for row in rows])
    order = ["subject_id", "session_id", "plane", "slice_index", "name"]
    order = [name for name in order if name in scans.columns]
    notes = [note for note in cohort.notes if not note.names_ids]
    return replace(
        cohort,
        scans=scans.sort_values(order, ignore_index=True),
        notes=[*notes, Note("Ids are pseudonyms: keyed hashes of those in the data.")],
    )


def check_apart(key_file: Path, *folders: Path) -> None:
    """Refuse a key in a folder that holds what it protects, or the ids themselves (InputError)."""
    for folder in folders:
        if folder.resolve() in key_file.resolve().parents:
            raise InputError(
                f"The key {key_file} is in {folder}, and anyone who gets that folder could undo "
                "the pseudonyms: keep the key elsewhere."
            )


def _read_key(path: Path) -> bytes:
    """Return the key in `path`; where there is none, make one that only its owner may read."""
    try:
        if not path.exists():
            _make_key(path)
    except OSError as error:
        raise InputError(f"The key {path} cannot be made: {error.strerror}.") from error
    if not path.is_file():  # of a pipe nothing might ever come
        raise InputError(f"The key {path} cannot be read: it is no file.")
    try:
        key = path.read_bytes()
    except OSError as error:
        raise InputError(f"The key {path} cannot be read: {error.strerror}.") from error
    if len(key) < SHORTEST_KEY:
        raise InputError(f"The key {path} holds {len(key)} bytes: {SHORTEST_KEY} are the least.")
    return key


def _make_key(path: Path) -> None:
    """Write a key whole or not at all; one that another process made meanwhile stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=TEMPORARY_NAME, dir=path.parent)  # with mode 0600
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(name, path)
    finally:
        Path(name).unlink()


def _hash_subject(key: bytes, subject: str) -> str:
    return subject if subject == NO_ID else f"sub-{_digest(key, 'subject', subject)[:12]}"


def _digest(key: bytes, *parts: str) -> str:
    return hmac.new(
        key, "\0".join(parts).encode(errors="surrogateescape"), hashlib.sha256
    ).hexdigest()
