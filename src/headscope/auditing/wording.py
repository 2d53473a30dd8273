"""What an audit says in words: a finding for each check, made from its values."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd

from headscope.audit_record import Finding, Shortcut, SplitCheck
from headscope.auditing.crossings import Units, count_between
from headscope.auditing.duplicates import LEAST_SIDE, MOST_LISTED, Matches
from headscope.cohort.selection import GIVEN
from headscope.cohort.tables import counted, listed

NO_SUBJECTS: Final = "the pictures name no subjects"
ONE_HEAD: Final = "which likely show one head"  # of pictures: neighbouring slices, or two visits
KINDS: Final = {
    "identical": ("Identical {scans}", "equal in every pixel"),
    "copy": ("Copied {scans}", "copies that were turned, compressed or brightened"),
    "alike": ("One head, two {ids}", "likely of one subject, scanned twice"),
    "shared": ("Slices in several scans", "with slices that are equal in every pixel"),
}
COMPARED: Final = ("copy", "alike")  # kinds that a comparison in detail finds
MOST_SPLITS: Final = 3  # that a sentence names one by one


def match_findings(
    matches: Matches, scans: pd.DataFrame, units: Units, splits: Sequence[SplitCheck], unit: str
) -> list[Finding]:
    """Return a finding for each kind of duplicate: how many pairs, and what they cross."""
    groups: dict[str, Sequence[tuple[int, ...]]] = {
        "identical": matches.groups,
        "copy": [(m.first, m.second) for m in matches.pairs if m.kind == "copy"],
        "alike": [(m.first, m.second) for m in matches.pairs if m.kind == "alike"],
        "shared": matches.shared,
    }
    findings = [_match_finding(kind, groups[kind], scans, units, splits, unit) for kind in KINDS]
    if matches.compared:
        return findings
    small = f"slices of fewer than {LEAST_SIDE} pixels are too small to tell heads apart"
    return [
        replace(finding, level="not checked", text=small) if finding.kind in COMPARED else finding
        for finding in findings
    ]


def _match_finding(
    kind: str,
    groups: Sequence[tuple[int, ...]],
    scans: pd.DataFrame,
    units: Units,
    splits: Sequence[SplitCheck],
    unit: str,
) -> Finding:
    pictures = unit == "pictures"
    word = "picture" if pictures else "scan"
    title, how = KINDS[kind]
    if pictures and kind == "alike":
        how = ONE_HEAD
    check = title.format(scans=f"{word}s", ids=word + "s" if pictures else "ids")
    pairs = sum(len(members) * (len(members) - 1) // 2 for members in groups)
    if not pairs:
        return Finding(kind, "", check, "fine", f"none among {counted(len(scans), word)}")
    counts = {
        "pairs": pairs,
        "between_subjects": count_between(groups, units.subject),
        "between_classes": count_between(groups, np.unique(scans["label"], return_inverse=True)[1]),
    }
    between = [] if pictures else [f"{counts['between_subjects']} between subjects"]
    between.append(f"{counts['between_classes']} between classes")
    names = scans["scan"].to_numpy(str)[list(groups[0][:2])]
    many = f"{counted(pairs, 'pair')} of {word}s"
    text = f"{many}, {how}: {', '.join(between)}{_crossing_words(kind, splits)}"
    apart = counts["between_subjects"]
    if pictures and splits:  # without ids all pairs are of two: those that cross a split matter
        apart = max(split.crossing[kind] for split in splits)
    serious = apart or (counts["between_classes"] and kind != "shared")
    level = "serious" if serious else "notice"
    return Finding(kind, "", check, level, f"{text}, as {' and '.join(names)}", counts)


def _crossing_words(kind: str, splits: Sequence[SplitCheck]) -> str:
    """Say how many pairs cross each split; of many splits, from how many to how many."""
    if not splits:
        return ""
    if len(splits) > MOST_SPLITS:
        crossing = [split.crossing[kind] for split in splits]
        low, high = min(crossing), max(crossing)
        many = str(low) if low == high else f"{low} to {high}"
        return f", {many} between subsets of each of {len(splits)} splits"
    named = [f"{split.crossing[kind]} between subsets of {_part(split)}" for split in splits]
    return f", {', '.join(named)}"


def _part(split: SplitCheck) -> str:
    """Return what a sentence calls a split: one of no file is what the folders of the data give."""
    return "the given partition" if split.name == GIVEN else split.name


def label_finding(conflicts: dict[str, list[str]], named: bool) -> Finding:
    """Say which subjects have several labels; `named` tells whether all slices name a subject."""
    check = "Labels of a subject"
    if not named:
        return Finding("labels", "", check, "not checked", NO_SUBJECTS)
    if not conflicts:
        return Finding("labels", "", check, "fine", "every subject has one")
    first = next(iter(conflicts))
    text = (
        f"{counted(len(conflicts), 'subject')} in several classes, as {first} in "
        f"{' and '.join(conflicts[first])}: right if they changed between visits, else one is wrong"
    )
    return Finding("labels", "", check, "serious", text, {"subjects": len(conflicts)})


def split_findings(splits: Sequence[SplitCheck], unit: str) -> list[Finding]:
    """Say of each split which subjects, or which duplicates, are on both sides of it."""
    if not splits:
        return [Finding("split", "", "Splits", "not checked", "there are none yet")]
    return [_split_finding(split, unit) for split in splits]


def _split_finding(split: SplitCheck, unit: str) -> Finding:
    level, text = _ids_words(split)
    counts = {
        "shared": len(split.shared),
        "duplicated": split.duplicated,
        "equal_slices": split.equal_slices,
    }
    duplicates = duplicate_words(split, unit)
    if duplicates:
        both = "but" if level == "fine" else "and"
        level, text = "serious", f"{text}, {both} {duplicates}"
    return Finding("split", split.name, f"Split {split.name}", level, text, counts)


def _ids_words(split: SplitCheck) -> tuple[str, str]:
    """Return level and words of what the ids alone say of a split."""
    if not split.subjects:
        return "not checked", NO_SUBJECTS
    if not split.shared and split.inferred:
        return "fine", f"none of {split.subjects} subjects inferred from pixels is in two subsets"
    if not split.shared:
        return "fine", f"no id of {split.subjects} subjects is in two subsets"
    shared, are = len(split.shared), "is" if len(split.shared) == 1 else "are"
    if split.unit == "slice":
        by = "the given partition has it" if split.name.startswith("given") else None
        how = "inferred subjects" if split.inferred else "subjects"
        return "notice", (
            f"{shared} of {split.subjects} {how} {are} in several subsets, as "
            f"{by or 'a split by slice intends'}: its accuracy says nothing about new subjects"
        )
    names = listed(split.shared[:5])
    return "serious", f"{counted(shared, 'subject')} {are} in several subsets: {names}"


def duplicate_words(split: SplitCheck, unit: str) -> str:
    """Say how many of the tested have a duplicate in training; nothing where none has."""
    if not split.duplicated:
        return ""
    have = "has" if split.duplicated == 1 else "have"
    under = "" if unit == "pictures" else " under another id"
    return f"{split.duplicated} of {split.tested} test {unit} {have} a duplicate in training{under}"


def shortcut_finding(shortcut: Shortcut) -> Finding:
    """Say how well a family of facts alone tells the label."""
    check = f"Shortcut: {shortcut.family}"
    if shortcut.auc is None:
        level = "fine" if shortcut.outcome == "constant" else "not checked"
        return Finding("shortcut", shortcut.family, check, level, shortcut.note)
    text = f"AUC {shortcut.auc:.2f} ({shortcut.low:.2f} to {shortcut.high:.2f})"
    if not shortcut.raised:
        level, text = "fine", f"{text}, which {shortcut.beside_chance()}"
    elif shortcut.serious:
        level, text = "serious", f"{text}: it tells the label"
    else:
        level, text = "notice", f"{text}, which anatomy can explain"
    return Finding("shortcut", shortcut.family, check, level, text)


def note_matches(matches: Matches, named: bool) -> list[str]:
    """Return what limits the search for duplicates."""
    notes = []
    pairs = len(matches.pairs) + sum(len(m) * (len(m) - 1) // 2 for m in matches.groups)
    pairs -= sum(match.kind == "identical" for match in matches.pairs)
    if pairs > MOST_LISTED:
        notes.append(f"Of {pairs} pairs the first {MOST_LISTED} are listed; all are counted.")
    if matches.visits:
        recognised = sum(match.kind != "" for match in matches.visits)
        notes.append(
            f"Pairs of scans known to be of one subject that are recognised as one head: "
            f"{recognised} of {len(matches.visits)}. About that share of subjects under two ids "
            "would be found."
        )
    if not named:
        notes.append("Without subject ids each picture counts as a subject of its own.")
    if matches.cut:
        notes.append(
            "More pairs of scans resemble each other than could be compared in detail: those of "
            "each scan that are most alike were."
        )
    return notes
