"""What the names of files and folders say: images that are no scans, contrasts, given subsets."""

import re
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import Final

LABELS: Final = "masks and label maps"
MAPS: Final = "probability maps and other maps made from scans"
DERIVATIVES: Final = "derivatives"
OTHER_DATA: Final = "functional, diffusion or field-map data"
AUGMENTED: Final = "augmented copies"
TEMPLATES: Final = "templates"

STEM: Final = re.compile(r"\.(nii|hdr|img|mgh|mgz|dcm|ima|jpe?g|png|tiff?)(\.gz)?$", re.IGNORECASE)
WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
LABEL_TOKEN: Final = re.compile(
    r"[a-z0-9]*(masks?|msk|seg|segs|segm|segmentations?|labelmaps?|parcellations?)\d*"
    r"|aparc\w*|aseg\w*|wmparc\w*|ribbon|ground_?truth|[a-z]{2,}labels"
)
LABEL_ENDS: Final = {
    *("gt", "truth", "label", "labels", "parc", "lesion", "annotation"),
}
MAP_TOKEN: Final = re.compile(
    r"prob(s|seg|maps?|ability)?|probtissue|posteriors?\d*|\w*posteriors\d*|pve|mixeltype|jacobian"
    r"|warp(field)?|deformation|biasfield|heatmap|thickness|fieldmap|phasediff|phase|magnitude[12]"
    r"|t[12](star)?map|mtrmap|mtr|pdmap|r[12](star)?map|b[01]map"
)
MAP_ENDS: Final = {"gm", "wm", "csf"}
SPM_MAP: Final = re.compile(r"(s?m?w?r?[cp][1-6]|i?y_|w?j_)(?=.)")
SPM_LABEL: Final = re.compile(r"w?p0(?=.)")
MASK_FOLDERS: Final = {
    *("mask", "masks", "seg", "segs", "segmentation", "segmentations", "label", "labels"),
    *("annotation", "annotations", "groundtruth", "gt", "rois"),
}
MASK_FILLERS: Final = {
    *("train", "test", "val", "tr", "ts", "brain", "lesion", "tumor", "tumour", "binary"),
    *("manual", "data", "set", "images", "ground", "truth", "predicted"),
}
BIDS_OTHER: Final = {"func", "dwi", "fmap", "perf", "meg", "eeg", "ieeg", "beh"}
# FreeSurfer's volumes that show anatomy, the best first
FREESURFER: Final = (
    *("T1", "orig", "nu", "orig_nu", "norm", "brain", "brainmask", "rawavg"),
    *("brain.finalsurfs", "antsdn.brain", "T2", "FLAIR"),
)

SUBSET: Final = {
    "train": "train|training|trn|trainval",
    "val": "val|valid|validate|validation|validating|dev|development",
    "test": "test|testing|tst|eval|evaluation|holdout|heldout",
}
SUBSET_WORDS: Final = {
    name: re.compile(f"({words})(set|data|images?|imgs?|samples?)?")
    for name, words in SUBSET.items()
}
COMPACT: Final = {"imagestr": "train", "imagests": "test", "imagesval": "val"}  # of the decathlon
FILLERS: Final = {
    *("set", "sets", "data", "dataset", "image", "images", "img", "imgs", "sample", "samples"),
    *("scan", "scans", "mri", "mr", "folder", "split", "subset", "cases", "original", "orig"),
    *("raw", "volumes", "pictures", "slices"),
}
PLANES: Final = {
    **dict.fromkeys(("axial", "ax", "axl", "transverse", "transversal", "tra"), "axial"),
    **dict.fromkeys(("coronal", "cor"), "coronal"),
    **dict.fromkeys(("sagittal", "sag"), "sagittal"),
}

CONTRAST: Final = re.compile(
    r"t1(w|n|c|ce|gd|post|km|wce|wc|mpr|mprage|rho)?|mprage|mpr|spgr|fspgr|bravo|unit1"
    r"|t2(w|f|flair|star|starw|tse)?|flair|pd|pdw|pdt2|swi|mra|tof|angio"
    r"|dwi|dti|adc|bold|asl|pwi|inplanet[12]|mtw?|ct|pet|fdg"
)
PROTOCOL: Final = {  # words beside a contrast that name no subject
    *PLANES,
    *("2d", "3d", "iso", "se", "tse", "fse", "gre", "tfe", "ffe", "ir", "tirm", "space", "cube"),
    *("vibe", "fs", "fatsat", "fl2d", "fl3d", "tfl", "tfl3d", "dark", "fluid"),
}
GADOLINIUM: Final = {"ce", "gd", "gad", "gadolinium", "post", "contrast"}
MODIFIERS: Final = {*GADOLINIUM, "pre", "native"}
ENHANCED: Final = {*GADOLINIUM, "t1c", "t1ce", "t1gd", "t1post", "t1km", "t1wce"}
T1: Final = ("t1", "mprage", "mpr", "spgr", "fspgr", "bravo", "unit1")


def reason_left_out(name: str, stems: Collection[str]) -> str | None:
    """Return what a file shows instead of a scan, by its path; None where no name says so.

    `stems` are the names, without suffix, of all files: SPM's c1NAME is a map where NAME is there,
    and else perhaps the first control.
    """
    path = PurePosixPath(name)
    folders = path.parts[:-1]
    stem = STEM.sub("", path.name)
    if path.suffix.lower() in (".mgz", ".mgh") and "mri" in folders:
        if any(part.startswith("fsaverage") for part in folders):
            return TEMPLATES
        return None if stem in FREESURFER or folders[-1] == "orig" else LABELS
    reason = _by_stem(stem, stems) or _by_folders(folders)
    if reason is None and "sub-" in name and BIDS_OTHER.intersection(folders):
        return OTHER_DATA
    return reason


def _by_stem(stem: str, stems: Collection[str]) -> str | None:
    tokens = tokens_of(stem)
    if any(map(LABEL_TOKEN.fullmatch, tokens)) or LABEL_ENDS.intersection(tokens[-1:]):
        return LABELS
    spm_label, spm_map = SPM_LABEL.match(stem), SPM_MAP.match(stem)
    if spm_label and stem[spm_label.end() :] in stems:
        return LABELS
    if any(map(MAP_TOKEN.fullmatch, tokens)) or MAP_ENDS.intersection(tokens[1:][-1:]):
        return MAPS
    if spm_map and stem[spm_map.end() :] in stems:
        return MAPS
    before = re.split(r"[_-]aug(mented|mentation)?(?![a-z])", stem, flags=re.IGNORECASE)[0]
    if "augmented" in tokens or (before != stem and before in stems):
        return AUGMENTED
    if re.search(r"(^|_)label-", stem):
        return MAPS
    return None


def _by_folders(folders: Collection[str]) -> str | None:
    for folder in folders:
        words = set(words_of(folder))
        if folder.lower() == "derivatives":
            return DERIVATIVES
        if words & MASK_FOLDERS and words <= MASK_FOLDERS | MASK_FILLERS:
            return LABELS
        if words & {"non", "no", "not", "without"}:
            continue
        dated = any(word.isdigit() for word in words)  # 12 Aug 2019
        if words & {"augmented", "augmentation"} or ("aug" in words and not dated):
            return AUGMENTED
    return None


def contrast_of(name: str) -> str | None:
    """Return the contrast that a path names, as t1ce or t2_flair: in its file, else its folders.

    Of several the last: PD_003_T1 is the T1 of a subject with Parkinson's disease.
    """
    path = PurePosixPath(name)
    for part in (STEM.sub("", path.name), *reversed(path.parts[:-1])):
        run = _last_run(tokens_of(re.sub(r"(?i)mp-rage", "mprage", part)))
        if run:
            return "_".join(run)
    return None


def _last_run(tokens: list[str]) -> list[str]:
    """Return the last tokens in a row that name a contrast, with what modifies them."""
    run: list[str] = []
    for token in reversed(tokens):
        if CONTRAST.fullmatch(token) or (token in MODIFIERS and not _ends(run)):
            run.insert(0, token)
        elif _ends(run):
            break
        else:
            run = []
    return run if _ends(run) else []


def _ends(run: list[str]) -> bool:
    return any(map(CONTRAST.fullmatch, run))


def without_contrast(name: str) -> str:
    """Return a path without the contrasts that its parts name: the rest may name the subject.

    Words that may be something else (PD, CT) count as contrasts at the end of a name alone.
    """
    return "/".join(map(_part_without_contrast, name.split("/")))


def _part_without_contrast(part: str) -> str:
    tail = STEM.search(part)
    stem, suffix = (part[: tail.start()], tail[0]) if tail else (part, "")
    tokens = tokens_of(stem)
    run = _with_protocol(_last_run(tokens), tokens)
    if not run or (tokens[-len(run) :] != run and not _is_structural(run)):
        return part
    words = r"(?i)(?:^|[^a-z0-9]+)" + r"[^a-z0-9]+".join(run) + r"(?![a-z0-9])"
    shorter = re.sub(words, "", stem).lstrip("_.-")
    return f"{shorter}{suffix}" if shorter else part


def _with_protocol(run: list[str], tokens: list[str]) -> list[str]:
    """Return a contrast with the words of its protocol beside it, as sag of t1_mprage_sag."""
    places = [k for k in range(len(tokens)) if run and tokens[k : k + len(run)] == run]
    if not places:
        return run
    first, last = places[-1], places[-1] + len(run)
    while first > 0 and tokens[first - 1] in PROTOCOL:
        first -= 1
    while last < len(tokens) and tokens[last] in PROTOCOL:
        last += 1
    return tokens[first:last]


def any_structural(contrasts: Collection[str | None]) -> bool:
    """Return whether some contrasts are T1, T2 or FLAIR, which words hardly are by chance."""
    return any(_is_structural(contrast.split("_")) for contrast in contrasts if contrast)


def _is_structural(run: list[str]) -> bool:
    return any(token.startswith(("t1", "t2", "flair")) for token in run)


def is_contrast(wanted: str, contrasts: Collection[str]) -> set[str]:
    """Return which of `contrasts` are the wanted one: by its letters, else of its family.

    t1 is BraTS's t1n and BIDS's T1w, but not t1ce.
    """
    wanted = "_".join(tokens_of(wanted))
    if wanted in contrasts:
        return {wanted}
    return {name for name in contrasts if _family(name) == _family(wanted)}


def _family(contrast: str) -> str:
    tokens = contrast.split("_")
    if {"flair", "t2f", "t2flair"}.intersection(tokens):
        return "flair"
    if any(token.startswith(T1) for token in tokens):
        return "t1ce" if ENHANCED.intersection(tokens) else "t1"
    plain = tokens[0].removesuffix("w")
    return "t2" if plain == "t2tse" else plain


def subset_of(folder: str) -> tuple[str, tuple[str, ...]] | None:
    """Return the subset that a folder names (train, val or test), and the words beside it."""
    words = words_of(folder)
    compact = COMPACT.get("".join(words))
    if compact:
        return compact, ()
    subsets = {
        name: word
        for word in words
        for name, pattern in SUBSET_WORDS.items()
        if pattern.fullmatch(word)
    }
    if len(subsets) != 1:
        return None
    name, match = next(iter(subsets.items()))
    rest = (word for word in words if word != match and word not in FILLERS)
    return name, tuple(word for word in rest if not word.isdigit())


def plane_of(folder: str) -> str | None:
    """Return the plane that a folder names and nothing else."""
    words = {word for word in words_of(folder) if word not in FILLERS}
    return PLANES.get(words.pop()) if len(words) == 1 else None


def split_contrast(folder: str) -> tuple[str, tuple[str, ...]] | None:
    """Return the contrast that a folder names, and the words beside it."""
    tokens = [token for token in tokens_of(folder) if token not in FILLERS]
    run = _last_run(tokens)
    return ("_".join(run), tuple(token for token in tokens if token not in run)) if run else None


def says_images(folder: str) -> bool:
    """Return whether a folder says no more than that there are images in it."""
    return set(words_of(folder)) <= FILLERS


def tokens_of(text: str) -> list[str]:
    """Return the parts of a name between its marks, in lower case."""
    return [token for token in re.split(r"[^A-Za-z0-9]+", text.lower()) if token]


def words_of(text: str) -> list[str]:
    """Return the words of a name in lower case: OriginalDataset has two."""
    return [word.lower() for word in WORD.findall(text)]
