"""The values of a column ↔ the names of scans: whole ids, whatever their case and leading zeros."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from unicodedata import normalize

import pandas as pd

from headscope.cohort.ids import SESSION, session_of
from headscope.cohort.tables import MISSING

TOKEN: Final = re.compile(r"[^\W\d_]+|\d+")
FILE_SUFFIX: Final = re.compile(
    r"\.(nii|hdr|img|mgh|mgz|dcm|ima|mh[ad]|n?rrd|nhdr|jpe?g|png|tiff?|bmp|webp|gif)(\.gz)?$",
    re.IGNORECASE,
)
WHOLE: Final = re.compile(r"(\d+)[.,]0+")  # a number that a program wrote as 12.0
# what SPM and CAT put before a name: smwP01, mwp1sub-01, c1P01
PREFIX: Final = re.compile(r"(?:s\d{0,2}|m0?|w|r|n|u|a|i?y_|r?[cp]\d)+(?=[A-Z]|sub)")
BEFORE_IDS: Final = "sub subj subject participant patient pat ptid pid case id"
SUBJECT_WORDS: Final = frozenset(BEFORE_IDS.split())
COUNTERS: Final = (
    "run ses sess session visit echo acq rec rep repeat slice slc sl frame part chunk tp timepoint "
    "wave week month year day t tr inv dir split fold space res den"
)
ENTITIES: Final = frozenset(COUNTERS.split())  # a number behind one counts within a subject
Key = tuple[str, ...]
Place = tuple[int, int]  # folders above the file, and which run of letters or digits there
BEHIND_WORD: Final = (-1, 0)  # wherever a word for subjects stands before the id
Spellings = dict[int, tuple[str, str]]  # which value a row's name holds, and the name's text of it


@dataclass(frozen=True)
class Matches:
    """Which value of a column each name holds, None where it holds none.

    `problem` says why it cannot be told where the values are in the names; `loose` is an example
    of a value and a name's spelling of it that differ in case or leading zeros.
    """

    in_names: list[str | None]
    problem: str = ""
    loose: tuple[str, str] | None = None

    @property
    def count(self) -> int:
        """The number of names that hold a value."""
        return sum(value is not None for value in self.in_names)

    @property
    def distinct(self) -> int:
        """The number of values that are in names."""
        return len(set(self.in_names) - {None})


class Token(NamedTuple):
    """A run of letters or of digits in a part of a path, and whether it is glued to others."""

    text: str
    start: int
    end: int
    glued: tuple[bool, bool]


class Names:
    """The paths of scans, read once for all columns of a table.

    `tokens` has those of each part of a path (folders repeat), `places` the row and the depth of
    each part, 0 for the file, and `parts` the parts and positions where a token is. `bare` has the
    paths that a program's prefix begins, by row, without it.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        """Read the paths."""
        self.paths = paths
        self.tokens: dict[str, list[Token]] = {}
        self.places: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.parts: dict[str, list[tuple[str, int]]] = defaultdict(list)
        for row, path in enumerate(paths):
            whole = normalize("NFC", FILE_SUFFIX.sub("", path))  # macOS writes NFD
            for depth, part in enumerate(reversed(whole.split("/"))):
                self.places[part].append((row, depth))
                if part not in self.tokens:
                    self.tokens[part] = list(_tokens(part))
                    for at, token in enumerate(self.tokens[part]):
                        self.parts[token.text].append((part, at))
        bare = {row: _without_prefix(path) for row, path in enumerate(paths)}
        self.bare = {row: path for row, path in bare.items() if path is not None}


def match_values(values: Iterable[str], names: Names, *, letters: bool = True) -> Matches:
    """Return which of the values each name holds.

    A value is compared by its runs of letters and of digits, without separators, case and leading
    zeros: sub-01 is sub_1, but Subj1 is no part of Subj10. Values that are one number (with
    `letters`, or at most two letters) count at one fixed place of the names, and never behind a
    word as run or ses.
    """
    keys = _keys(values)
    matches = _match(keys, names, letters)
    rest = [row for row in names.bare if matches.in_names[row] is None]
    if rest:
        again = _match(keys, Names([names.bare[row] for row in rest]), letters)
        for row, value in zip(rest, again.in_names, strict=True):
            matches.in_names[row] = value
        problem, loose = matches.problem or again.problem, matches.loose or again.loose
        return Matches(matches.in_names, problem, loose)
    return matches


def match_files(values: Iterable[str], names: Names) -> Matches:
    """Return which of a column's files each path is: by its whole path, else by its file name."""
    files = {
        value: FILE_SUFFIX.sub("", value.replace("\\", "/")).casefold() for value in set(values)
    }
    paths = [FILE_SUFFIX.sub("", path).casefold() for path in names.paths]
    for depth in (0, 1):
        ends = {value: file.rsplit("/", 1)[-1] if depth else file for value, file in files.items()}
        of_end = {end: value for value, end in ends.items()}
        asked = [path.rsplit("/", 1)[-1] if depth else path for path in paths]
        if len(of_end) == len(ends) and any(path in of_end for path in asked):
            return Matches([of_end.get(path) for path in asked])
    return Matches([None] * len(paths))


def match_sessions(values: Iterable[str], names: Names) -> Matches:
    """Return which of a column's sessions each name holds: ses-02, visit 2 and 2 are the same."""
    sessions = [session_of(path) if SESSION.search(path) else "" for path in names.paths]
    if not any(sessions):
        return match_values(values, names, letters=False)  # bl and sc are visits
    by_key = {_bare_session(value): value for value in set(values) - set(MISSING)}
    return Matches([by_key.get(_bare_session(text)) if text else None for text in sessions])


def rename_ids(values: pd.Series, folders: Sequence[str], prefix: str) -> pd.Series:
    """Return a table's ids as the folders spell them (sub-1 and SUB-01 are sub-01), else as given.

    prefix is sub- or ses-, which a table may leave out.
    """
    match = match_sessions if prefix == "ses-" else match_values
    in_folders = match(values, Names(folders)).in_names
    pairs = zip(in_folders, folders, strict=True)
    spelled = {value: folder for value, folder in pairs if value is not None}
    return values.map(lambda value: spelled.get(value) or prefix + value.removeprefix(prefix))


def _bare_session(text: str) -> Key:
    tokens = map(_normal, TOKEN.findall(text))
    return tuple(token for token in tokens if token not in {*ENTITIES, "mr", "d", "v"})


def _keys(values: Iterable[str]) -> dict[Key, set[str]]:
    """Return the values by what they compare by, with and without sub- at their beginning."""
    keys: dict[Key, set[str]] = defaultdict(set)
    short: dict[Key, set[str]] = defaultdict(set)
    for value in set(values) - set(MISSING):
        key = match_key(value)
        if key:
            keys[key].add(value)
            if key[0] in SUBJECT_WORDS and len(key) > 1:
                short[key[1:]].add(value)
    return keys | {key: ids for key, ids in short.items() if key not in keys}


def match_key(value: str | None) -> Key:
    """Return what a value compares by: its runs of letters and of digits."""
    text = normalize("NFC", value or "")
    whole = WHOLE.fullmatch(text)
    return tuple(map(_normal, TOKEN.findall(whole[1] if whole else text)))


def _normal(token: str) -> str:
    return token.casefold().lstrip("0") or "0"


def _tokens(part: str) -> Iterator[Token]:
    for match in TOKEN.finditer(part):
        start, end = match.span()
        glued = part[max(start - 1, 0) : start].isalnum(), part[end : end + 1].isalnum()
        yield Token(_normal(match[0]), start, end, glued)


def _without_prefix(name: str) -> str | None:
    folder, slash, stem = name.rpartition("/")
    prefix = PREFIX.match(stem)
    return folder + slash + stem[prefix.end() :] if prefix else None


def _weak(key: Key, letters: bool) -> bool:
    """Return whether a value is too common in names to count wherever it is."""
    return len(key) == 1 and (key[0].isdigit() or (letters and len(key[0]) <= 2))


def _match(keys: dict[Key, set[str]], names: Names, letters: bool) -> Matches:
    """Find the values in the names, strong ones wherever they are, weak ones at one place."""
    strong: dict[Place, Spellings] = defaultdict(dict)
    weak: dict[Place, Spellings] = defaultdict(dict)
    lengths: dict[str, set[int]] = defaultdict(set)
    for key in keys:
        lengths[key[0]].add(len(key))
    longest_first = {text: sorted(counts, reverse=True) for text, counts in lengths.items()}
    common = {key for key in keys if _weak(key, letters)}
    for row, place, key, text in _runs(names, longest_first, keys, common):
        ids = keys[key] if len(keys[key]) == 1 else keys[key] & {text}
        if ids:
            (weak if key in common else strong)[place].setdefault(row, (next(iter(ids)), text))
    chosen, problem = _one_place(weak, len(set().union(*keys.values())))
    spellings: Spellings = {}
    for rows in sorted(strong.values(), key=len, reverse=True):
        for row, spelling in rows.items():
            if spellings.setdefault(row, spelling)[0] != spelling[0]:
                texts = f"{spellings[row][1]!r} and {spelling[1]!r}"
                problem = problem or f"one name holds two of its values, {texts}"
    if chosen is not None:
        spellings = weak[chosen] | spellings
    spellings = _of_one_spelling(spellings)
    in_order = (spellings[row] for row in sorted(spellings))
    loose = next((pair for pair in in_order if _differ(*pair)), None)
    values = [spellings[row][0] if row in spellings else None for row in range(len(names.paths))]
    return Matches(values, problem, loose)


def _runs(
    names: Names, lengths: dict[str, list[int]], keys: dict[Key, set[str]], common: set[Key]
) -> Iterator[tuple[int, Place, Key, str]]:
    """Yield the values in the names: row, place, what each compares by, and its text."""
    for first in sorted(lengths):
        for part, at in names.parts.get(first, ()):
            tokens = names.tokens[part]
            runs = (tokens[at : at + length] for length in lengths[first])
            for run in runs:
                key = tuple(token.text for token in run)
                glued = run[-1].glued[1] or (run[0].glued[0] and not first.isdigit())
                word = tokens[at - 1].text if at else ""
                if key not in keys or glued or (key in common and word in ENTITIES):
                    continue
                lettered = key in common and run[0].glued[0] and len(keys[key]) == 1
                start = tokens[at - 1].start if lettered else run[0].start  # P001 beside C001
                for row, depth in names.places[part]:
                    place = BEHIND_WORD if word in SUBJECT_WORDS else (depth, at)
                    yield row, place, key, part[start : run[-1].end]
                break


def _one_place(places: dict[Place, Spellings], ids: int) -> tuple[Place | None, str]:
    """Return the place of weak values in the names, and why none can be chosen.

    A place that always holds the same value is none (the 3 of 3T). The place in most names is
    taken, unless another holds different values and more of them; of two in as many names, one
    that holds all values of the table wins.
    """
    sizes = {
        place: (len(rows), len({value for value, _ in rows.values()}))
        for place, rows in places.items()
    }
    sizes = {place: size for place, size in sizes.items() if size[1] > 1 or size[0] == 1}
    if not sizes:
        return None, ""
    best = max(sizes, key=lambda place: (sizes[place][0], place == BEHIND_WORD, sizes[place][1]))
    if best == BEHIND_WORD:
        return best, ""
    count, distinct = sizes[best]
    for place, size in sizes.items():
        here, there = places[best], places[place]
        differ = [row for row in here.keys() & there.keys() if here[row][0] != there[row][0]]
        tied = size[0] == count and (distinct < ids or size[1] == distinct)
        if differ and (tied or size[1] > distinct):
            texts = f"{here[differ[0]][1]!r} and {there[differ[0]][1]!r}"
            return None, f"its values are at several places of the names, as {texts} in one of them"
    several = [text for text in _texts_of(places[best]).values() if len(text) > 1]
    if several and not all(map(str.isdigit, several[0])):
        return None, f"the same value is in several, as {' and '.join(sorted(several[0]))}"
    return best, ""


def _of_one_spelling(spellings: Spellings) -> Spellings:
    """Where several names spell a value differently (P1, p1), only its exact spelling counts."""
    texts = _texts_of(spellings)
    return {
        row: (value, text)
        for row, (value, text) in spellings.items()
        if len(texts[value]) == 1 or not _differ(value, text)
    }


def _texts_of(spellings: Spellings) -> dict[str, set[str]]:
    """Return how names spell each value, separators aside."""
    texts: dict[str, set[str]] = defaultdict(set)
    for value, text in spellings.values():
        texts[value].add(_plain(text))
    return texts


def _plain(text: str) -> str:
    return "".join(TOKEN.findall(text))


def _differ(value: str, text: str) -> bool:
    """Return whether two spellings of an id differ in more than separators and sub-."""
    plain, other = _plain(value), _plain(text)
    return plain != other and not (plain.startswith("sub") and plain.endswith(other))
