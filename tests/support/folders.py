"""Folders of empty files for what reads names alone, and what a cohort says of them."""


def touch(folder, *names):
    """Make empty files below a folder; return it."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def texts(cohort):
    """Return the notes of a cohort as text."""
    return [note.text for note in cohort.notes]
