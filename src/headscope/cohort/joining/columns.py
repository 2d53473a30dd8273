"""What the columns of other programs' tables hold: subjects, scans, sessions or classes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

import pandas as pd

from headscope.cohort.ids import SUBJECT
from headscope.cohort.joining.matching import FILE_SUFFIX, Matches
from headscope.cohort.labels import MOST_CLASSES
from headscope.cohort.tables import MISSING, counted, listed, numbers_in
from headscope.cohort.values import Note
from headscope.errors import InputError

Role = Literal["subject", "scan", "session", "class", "id", ""]
NAMES: Final[dict[Role, str]] = {  # without case, spaces and signs; better names first
    "subject": "subjectid subject participantid participant patientid patient ptid rid "
    "subjectlabel subjid subid subj sub pid ptno patno bidsid oasisid naccid srcsubjectid "
    "subjectkey probandid proband volunteerid caseid animalid mouseid eid anonid",
    "scan": "image imageid imagedataid imageuid imagename loniuid img imgid file filename filepath "
    "path scan scanid scanname slice sliceid picture pictureid seriesid seriesuid "
    "seriesinstanceuid sopinstanceuid uid accession accessionnumber volume",
    "session": "session sessionid ses visit visitid viscode viscode2 visitcode timepoint tp wave "
    "date acqdate scandate examdate studydate daystovisit",
    "class": "diagnosis dx group label class target category outcome researchgroup",
    "id": "id ids code no nr num number key identifier name mrid mriid",
}
ROLES: Final[dict[str, Role]] = {
    name: role for role, text in NAMES.items() for name in text.split()
}
RANKS: Final = {name: rank for rank, name in enumerate(ROLES)}
ROW_NUMBERS: Final = re.compile(r"column1|unnamed\w*|index|x|v1|rownames?|")  # of pandas and R
LIKE_SUBJECT: Final = re.compile(  # BraTS_2020_subject_ID, Patient No
    r".*(subject|participant|patient)id|(subject|participant|patient|pers[o]n)(id|no|nr|number|code)?"
)
YES_NO: Final = {*MISSING, "yes", "no", "y", "n", "true", "false", "0", "1", "patient", "control"}
CONSTANT: Final = re.compile(r"sex|gender|m/f|dob|birth|hand|race|ethnic|educ", re.IGNORECASE)


def _plain(column: str) -> str:
    return re.sub(r"[\W_]+", "", column.casefold())


def role_of(column: str) -> Role:
    """Return what a column holds by its name alone."""
    name = _plain(column)
    return ROLES.get(name, "subject" if LIKE_SUBJECT.fullmatch(name) else "")


def subject_columns(table: pd.DataFrame) -> list[str]:
    """Return the columns that are named as subjects are, the best names first.

    A column `patient` that says yes or no is none.
    """
    named = [name for name in table.columns if role_of(name) == "subject"]
    named = [name for name in named if not set(table[name].str.casefold()) <= YES_NO]
    return sorted(named, key=lambda name: RANKS.get(_plain(name), len(RANKS)))


def may_be_ids(table: pd.DataFrame, column: str) -> bool:
    """Return whether a column may hold ids: no class, no trait, and no numbers of another name.

    Numbers are ids in the first column or under a name of ids: elsewhere they may be ages.
    """
    role = role_of(column)
    values = table[column][~table[column].isin(MISSING)]
    if role == "class" or values.empty or CONSTANT.search(column):
        return False
    if not all_numbers(values):
        return True
    counts_rows = set(numbers_in(values).diff().dropna()) <= {1.0}
    named_so = ROW_NUMBERS.fullmatch(_plain(column)) is not None
    return role != "" or (column == table.columns[0] and not (counts_rows and named_so))


def all_numbers(values: pd.Series) -> bool:
    """Return whether every value of a column is a number."""
    return bool(numbers_in(values[~values.isin(MISSING)]).notna().all())


def name_files(values: pd.Series) -> bool:
    """Return whether values are names of files."""
    return any(FILE_SUFFIX.search(value) for value in values)


def choose_subject(
    path: Path, table: pd.DataFrame, matches: Mapping[str, Matches], names: Sequence[str]
) -> tuple[str | None, list[Note]]:
    """Return the column of the subjects, None where there is none, and the rule in words."""
    forms = [match and match[0] for match in map(SUBJECT.search, names)]
    named = [name for name in subject_columns(table) if name in matches]
    named = [name for name in named if not _holds_more(matches[name].in_names, forms)]
    if named:
        column: str | None = min(named, key=lambda n: (-matches[n].count, matches[n].distinct))
        why = "by its name"
    else:
        column, why = _unnamed_column(path, table, matches, names, forms)
    if column is None:
        return None, []
    check_place(path, column, matches[column])
    text = f"Subject ids come from the column {column} of {path.name}, {why}."
    notes = [Note(text, about="ids")]
    if (loose := matches[column].loose) is not None:
        text = "Ids are the same in upper and lower case, with and without leading zeros: "
        notes.append(
            Note(f"{text}{loose[0]} is {loose[1]} in a name.", names_ids=True, about="ids")
        )
    return column, notes


def check_place(path: Path, column: str, match: Matches) -> None:
    """Refuse a column whose values are at several places of the names (InputError)."""
    if match.problem:
        raise InputError(
            f"The names of the scans hold the values of the column {column!r} of {path}, but "
            f"{match.problem}: say where the id is with --subject-pattern."
        )


def _unnamed_column(
    path: Path,
    table: pd.DataFrame,
    matches: Mapping[str, Matches],
    names: Sequence[str],
    forms: Sequence[str | None],
) -> tuple[str | None, str]:
    """Choose among columns whose names do not say that they hold subjects."""
    most = max((match.count for match in matches.values()), default=0)
    rivals = [
        name
        for name, match in matches.items()
        if 0 < match.count == most
        and role_of(name) not in ("scan", "session")
        and not _name_pictures(match.in_names, names)
        and not _like_classes(table, name)
    ]
    if None not in forms:
        rivals = [name for name in rivals if one_to_one(matches[name].in_names, forms)]
        return (rivals[0], "as in the ids of known form in the names") if rivals else (None, "")
    if not rivals:
        for name, match in matches.items():
            if role_of(name) not in ("scan", "session"):
                check_place(path, name, match)
        return None, ""
    fewest = min(rivals, key=lambda name: matches[name].distinct)
    values = matches[fewest].in_names
    others = [name for name in rivals if not one_to_one(matches[name].in_names, values)]
    if others and matches[fewest].distinct <= MOST_CLASSES:
        choices = [f"{name} ({counted(matches[name].distinct, 'id')})" for name in rivals]
        raise InputError(
            f"Which column of {path} holds the subjects? The names of the scans hold the values of "
            f"{listed(choices)}: call the right one subject_id, or say where the id is with "
            "--subject-pattern."
        )
    why = f"the fewest ids of the columns in the names (not {listed(others)})"
    return fewest, why if others else "whose values the names hold"


def one_to_one(values: Sequence[str | None], others: Sequence[str | None]) -> bool:
    """Return whether two columns of ids tell the same scans apart; scans without one are free."""
    pairs = {pair for pair in zip(values, others, strict=True) if None not in pair}
    return len({a for a, _ in pairs}) == len(pairs) == len({b for _, b in pairs})


def _holds_more(values: Sequence[str | None], forms: Sequence[str | None]) -> bool:
    """Return whether values are ids of a known form with more behind them, and split subjects."""
    texts = [value for value in values if value is not None]
    longer = [match for value in texts if (match := SUBJECT.search(value)) and match[0] != value]
    return len(longer) == len(texts) > 0 and not one_to_one(values, forms)


def _name_pictures(values: Sequence[str | None], names: Sequence[str]) -> bool:
    """Return whether each value is the whole name of one picture."""
    from headscope.scans.discovery import is_picture  # the readers of scans are slow to load

    pairs = [(value, name) for value, name in zip(values, names, strict=True) if value is not None]
    return len({value for value, _ in pairs}) == len(pairs) and all(
        is_picture(name) and value == name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        for value, name in pairs
    )


def _like_classes(table: pd.DataFrame, column: str) -> bool:
    """Return whether a column groups subjects: words that repeat, or rows of different traits."""
    values = table[column][~table[column].isin(MISSING)]
    few = values.nunique() <= MOST_CLASSES and values.duplicated().any()
    words = role_of(column) != "id" and not values.str.contains(r"\d").any()
    traits = [name for name in table.columns if name != column and CONSTANT.search(name)]
    varies = bool(traits) and bool(table.groupby(column)[traits].nunique().gt(1).to_numpy().any())
    return (few and words) or varies
