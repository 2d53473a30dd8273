"""A simulated cohort of skull-stripped T1 scans with known atrophy, for demos, tests and checks.

The class changes one number alone, the severity of the atrophy; `head` turns it into a scan. All
other differences between subjects, and between the visits of a subject, are independent of it.
"""

import gzip
import io
import json
import math
from pathlib import Path
from typing import Any, Final

import joblib
import nibabel as nib
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from headscope.console import busy, track
from headscope.errors import InputError
from headscope.files import atomic_path, clear_leftovers, write_json, write_table, write_text
from headscope.simulation.confounders import KNOBS as PLANTED
from headscope.simulation.confounders import SITES, plant_confounders, shade
from headscope.simulation.head import (
    FIELD_MM,
    Atrophy,
    Template,
    draw_head,
    draw_visit,
    load_template,
    scan_head,
)

RECIPE: Final = 2  # to be raised whenever the same settings come to give other scans
NC_SEVERITY: Final = 2.0  # mean of normal ageing in units of its spread: one in forty has none
FORMATS: Final = {"nifti": ".nii.gz", "analyze": ".hdr", "nifti2": ".nii.gz", "mgh": ".mgz"}
MIXED: Final = ("nifti", "analyze")
KNOBS: Final = {  # the least and the most that still makes a head
    "spacing_mm": (1.0, 6.0),
    "repeat_share": (0.0, 1.0),
    "effect": (0.0, 6.0),
    "ventricle_mm": (0.0, 2.0),
    "thinning_mm": (0.0, 0.5),
    "medial_loss": (0.0, 0.3),
    "individuality": (0.0, 1.5),
    "noise": (0.0, 0.3),
}
README: Final = """\
SIMULATED DATA. No subject was scanned for these files.

{scans} skull-stripped T1 scans of {subjects} simulated subjects, made by headscope with seed
{seed}; all settings are in simulation.json. The anatomy is the MNI152 template that nilearn ships
(ICBM 2009a nonlinear symmetric, Fonov et al. 2011). NC is normal ageing, AD more atrophy of the
same kind: the label changes the severity alone, and the severities of the two classes overlap.

scans.tsv  path, subject_id, session_id, label (and age, site, where these were asked for)
truth.tsv  one row per scan (truth/ holds the same, scan by scan):
  severity              1 is the spread within a class; NC is 2 on average
  ventricle_ml          lateral ventricles, measured: the share of each voxel of the scan within
                        the moved ventricle wall, summed
  csf_ml, brain_ml      measured likewise: CSF; grey and white matter
  ventricle_shift_mm    by definition: the distance by which that wall moved with severity
  cortical_thinning_mm  by definition: the distance by which the pial surface receded (where the
                        template's tissue border is as steep as its median)
  medial_temporal_loss  by definition: the share lost at the centre of the hippocampus
  inborn_ventricle_mm, inborn_sulcus_mm  the same two distances by nature, not by disease
  head_scale            length of the head relative to the template
  grey_to_white, csf_to_white  intensity, white matter being 1
  noise_sd, gain        Rician noise, white matter being 1; stored value of white matter
  format                nifti (.nii.gz), analyze (.hdr and .img), nifti2 (.nii.gz) or mgh (.mgz)
"""


def simulate_cohort(
    out: Path | str,
    *,
    subjects: int = 80,
    seed: int = 0,
    spacing_mm: float = 2.0,
    repeat_share: float = 0.3,
    effect: float = 2.2,
    ventricle_mm: float = 1.15,
    thinning_mm: float = 0.2,
    medial_loss: float = 0.06,
    individuality: float = 1.0,
    noise: float = 0.02,
    scan_format: str = "mixed",
    age_gap: float = 0.0,
    age_effect: float = 0.0,
    site_gap: float = 0.0,
    site_bias: float = 0.0,
    workers: int | None = None,
) -> Path:
    """Write a simulated cohort of 3-D scans, half NC and half AD, into the folder `out`; return it.

    The folder holds scans/ (int16), scans.tsv (path, subject_id, session_id, label), truth.tsv (one
    row per scan: severity and its effects), truth/ (the same, scan by scan), simulation.json (the
    settings) and README.txt. The same settings give the same bytes whatever `workers`, and a second
    call makes only what is missing.

    Parameters
    ----------
    out
        An empty folder, or one in which such a cohort was begun.
    subjects, seed
        How many there are of both classes together, and the seed of all that is random.
    spacing_mm, workers
        Side of a voxel, and threads that make scans.
    effect
        (mean severity of AD - mean of NC) / spread within a class. No reader can reach a better
        subject-level AUC than Phi(effect / sqrt 2), 0.94 at 2.2.
    ventricle_mm, thinning_mm, medial_loss
        What one unit of severity does: distance by which the wall of the lateral ventricles moves
        outward, by which the pial surface recedes, and share of the medial temporal lobe lost.
    individuality
        Scales every difference between subjects, and between visits, that the class does not make.
    noise
        Standard deviation of the Rician noise's two parts; white matter is 1.
    repeat_share
        Share of the subjects with more than one session; a fifth of these have three, not two.
    scan_format
        "nifti", "analyze", "nifti2" or "mgh"; "mixed" is half NIfTI-1 and half Analyze 7.5.
    age_gap, age_effect
        Years by which AD is older, and the severity that ten years add: a planted confounder. With
        either, scans.tsv has a column age.
    site_gap, site_bias
        Share of AD at site B less that of NC, and the strength of the bias field there: the
        logarithm of how much brighter the front is. With either, scans.tsv has a column site.

    Raises
    ------
    InputError
        A setting makes no cohort, or `out` holds something else.

    Examples
    --------
    >>> cohort = hs.simulate("cohort", subjects=6, spacing_mm=6, workers=1)
    >>> len(list(cohort.glob("scans/**/*.*"))) >= 6
    True
    """
    settings = {
        "recipe": RECIPE,
        "subjects": subjects,
        "seed": seed,
        "spacing_mm": float(spacing_mm),
        "repeat_share": float(repeat_share),
        "effect": float(effect),
        "ventricle_mm": float(ventricle_mm),
        "thinning_mm": float(thinning_mm),
        "medial_loss": float(medial_loss),
        "individuality": float(individuality),
        "noise": float(noise),
        "format": scan_format,
    }
    planted = {"age_gap": age_gap, "age_effect": age_effect} if age_gap or age_effect else {}
    planted |= {"site_gap": site_gap, "site_bias": site_bias} if site_gap or site_bias else {}
    settings |= {name: float(value) for name, value in planted.items()}
    out = Path(out)
    _check(settings, workers)
    _claim(out, settings)

    plan = plan_cohort(subjects, seed, repeat_share, effect, scan_format)
    if planted:
        plan = plant_confounders(plan, seed, dict.fromkeys(PLANTED, 0.0) | planted)
    missing = [row for row in plan if not _is_written(out, row)]
    if missing:
        with busy("Loading the template"):
            template = load_template()
        threads = min(workers or min(joblib.cpu_count(), 8), len(missing))
        # nearly all of a scan is work on arrays, during which other threads run: processes would
        # import everything again, and be handed the template
        written = joblib.Parallel(threads, prefer="threads", return_as="generator_unordered")(
            joblib.delayed(_write_scan)(out, row, settings, template) for row in missing
        )
        for _ in track(written, "Simulating scans", len(plan), len(plan) - len(missing)):
            pass
    if missing or not all((out / name).exists() for name in ("scans.tsv", "truth.tsv")):
        _write_tables(out, plan, settings)
    return out


def plan_cohort(
    subjects: int, seed: int, repeat_share: float, effect: float, scan_format: str = "mixed"
) -> list[dict[str, Any]]:
    """Return one dictionary per scan: subject, session, label, severity, format, ids and path.

    Severity, number of sessions and file format are spread evenly within each class and in random
    order, so that neither design nor chance ties a session or a format to a class.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.where(np.arange(subjects) % 2 == 0, "NC", "AD"))
    plan: list[dict[str, Any]] = []
    for label, mean in (("AD", NC_SEVERITY + effect), ("NC", NC_SEVERITY)):
        members = rng.permutation(np.flatnonzero(labels == label))
        plan += _plan_class(rng, label, members, mean, repeat_share)
    width = max(3, len(str(subjects)))
    for row in plan:
        row["subject_id"] = f"sub-{row['subject'] + 1:0{width}d}"
        row["session_id"] = f"ses-{row['session']}"
        row["format"] = row["format"] if scan_format == "mixed" else scan_format
        suffix = FORMATS[row["format"]]
        row["path"] = f"scans/{row['subject_id']}_{row['session_id']}{suffix}"
    return sorted(plan, key=lambda row: (row["subject"], row["session"]))


def _plan_class(
    rng: np.random.Generator,
    label: str,
    members: NDArray[np.int64],
    mean: float,
    repeat_share: float,
) -> list[dict[str, Any]]:
    """Return the scans of one class, in no particular order."""
    count = len(members)
    # One draw from each of as many equal parts of the normal distribution as there are members:
    # the overlap of the classes then depends on `effect`, hardly on the seed.
    parts = (np.arange(count) + rng.uniform(0.02, 0.98, count)) / count
    severities = np.maximum(0, mean + rng.permutation(ndtri(parts)))
    repeated = round(repeat_share * count)
    sessions = np.repeat([3, 2, 1], [repeated // 5, repeated - repeated // 5, count - repeated])
    rows = []
    for subject, severity, last in zip(members, severities, rng.permutation(sessions), strict=True):
        pace = rng.uniform(0.15, 0.35)  # of severity, from one session to the next
        for session in range(1, last + 1):
            row = {"subject": int(subject), "session": session, "label": label}
            rows.append(row | {"severity": float(severity + (session - 1) * pace)})
    for place, index in enumerate(rng.permutation(len(rows))):
        rows[index]["format"] = MIXED[place % 2]
    return rows


def simulate_scan(
    template: Template, row: dict[str, Any], settings: dict[str, Any]
) -> tuple[NDArray[np.int16], dict[str, Any]]:
    """Return one scan of a plan, int16 (I, J, K) in RAS order, and the truth about it."""
    key = [settings["seed"], row["subject"] + 1]
    head = draw_head(np.random.default_rng(key), settings["individuality"])
    rng = np.random.default_rng([*key, row["session"]])
    visit = draw_visit(rng, settings["individuality"], settings["noise"])
    severity = row["severity"]
    atrophy = Atrophy(
        ventricle_mm=settings["ventricle_mm"] * severity,
        thinning_mm=settings["thinning_mm"] * severity,
        medial_temporal_loss=1 - math.exp(-settings["medial_loss"] * severity),
    )
    volume, measured = scan_head(template, head, atrophy, visit, rng, settings["spacing_mm"])
    if row.get("site") == SITES[1]:
        volume = shade(volume, settings.get("site_bias", 0.0))
    truth = {name: row[name] for name in ("subject_id", "session_id", "label", "severity")}
    truth |= measured | {
        "ventricle_shift_mm": atrophy.ventricle_mm,
        "cortical_thinning_mm": atrophy.thinning_mm,
        "medial_temporal_loss": atrophy.medial_temporal_loss,
        "inborn_ventricle_mm": head.ventricle_mm,
        "inborn_sulcus_mm": head.sulcus_mm,
        "head_scale": float(np.prod(head.scale) ** (1 / 3)),
        "grey_to_white": head.grey_to_white,
        "csf_to_white": head.csf_to_white,
        "noise_sd": visit.noise_sd,
        "gain": visit.gain,
        "format": row["format"],
    }
    return volume, truth


def _write_scan(
    out: Path, row: dict[str, Any], settings: dict[str, Any], template: Template
) -> None:
    """Make one scan; its truth is written last and marks the scan as finished."""
    volume, truth = simulate_scan(template, row, settings)
    if row["format"] == "analyze":
        write_analyze(out / row["path"], volume, settings["spacing_mm"])
    else:
        image = {"nifti": nib.Nifti1Image, "nifti2": nib.Nifti2Image, "mgh": nib.MGHImage}
        write_oriented(out / row["path"], volume, settings["spacing_mm"], image[row["format"]])
    write_json(_truth_path(out, row), truth)


def write_oriented(
    path: Path, volume: NDArray[np.int16], spacing_mm: float, image: Any = nib.Nifti1Image
) -> None:
    """Write an int16 volume in RAS order, gzipped, as `image` stores it; bytes are reproducible."""
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = FIELD_MM[:, 0]
    content = gzip.compress(image(volume, affine).to_bytes(), compresslevel=1, mtime=0)
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_analyze(path: Path, volume: NDArray[np.int16], spacing_mm: float) -> None:
    """Write an int16 volume in RAS order as an Analyze 7.5 pair; `path` is that of the header.

    Analyze stores no orientation. Readers assume that the first axis runs from right to left (LAS),
    so it is stored that way. The header is written last: where it is, the voxels are.
    """
    image = nib.AnalyzeImage(volume[::-1], np.diag([-spacing_mm, spacing_mm, spacing_mm, 1.0]))
    parts = {"image": io.BytesIO(), "header": io.BytesIO()}
    image.to_file_map({k: nib.FileHolder(fileobj=part) for k, part in parts.items()})
    for suffix, part in ((".img", parts["image"]), (".hdr", parts["header"])):
        with atomic_path(path.with_suffix(suffix)) as temporary:
            temporary.write_bytes(part.getvalue())


def _truth_path(out: Path, row: dict[str, Any]) -> Path:
    return out / "truth" / f"{row['subject_id']}_{row['session_id']}.json"


def _is_written(out: Path, row: dict[str, Any]) -> bool:
    """Whether an earlier call finished this scan."""
    files = [out / row["path"], _truth_path(out, row)]
    if row["format"] == "analyze":
        files.append(files[0].with_suffix(".img"))
    return all(file.exists() for file in files)


def _write_tables(out: Path, plan: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Write truth.tsv, README.txt and, last, scans.tsv."""
    truth = [json.loads(_truth_path(out, row).read_text(encoding="utf-8")) for row in plan]
    write_table(out / "truth.tsv", pd.DataFrame(truth))
    write_text(out / "README.txt", README.format(scans=len(plan), **settings))
    columns = ["path", "subject_id", "session_id", "label"]
    columns += [name for name in ("age", "site") if f"{name}_gap" in settings]
    write_table(out / "scans.tsv", pd.DataFrame(plan)[columns])


def _check(settings: dict[str, Any], workers: int | None) -> None:
    """Refuse settings that make no cohort."""
    for name, least, most in (("subjects", 6, 100_000), ("seed", 0, 2**32 - 1)):
        if not isinstance(settings[name], int) or not least <= settings[name] <= most:
            raise InputError(
                f"{name} of a simulated cohort must be a whole number of at least {least} and at "
                f"most {most}, not {settings[name]!r}."
            )
    for name, (low, high) in (KNOBS | PLANTED).items():
        if name not in settings:
            continue
        if not low <= settings[name] <= high:  # a NaN fails too
            raise InputError(
                f"{name} of a simulated cohort must be between {low} and {high}, "
                f"not {settings[name]}."
            )
    if settings["format"] not in (*FORMATS, "mixed"):
        raise InputError(
            f"Unknown format {settings['format']!r}: choose mixed, {', '.join(FORMATS)}."
        )
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, not {workers}.")


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Make `out` the home of this cohort, or refuse where it holds something else."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; a simulated cohort needs a folder.")
    clear_leftovers(out)
    record = out / "simulation.json"
    if not record.exists():
        names = sorted(path.name for path in out.iterdir() if path.exists()) if out.exists() else []
        if names:
            raise InputError(
                f"{out} holds {names[0]} but no simulation.json, so it is no simulated cohort to "
                "continue; choose another folder."
            )
        write_json(record, settings)
        return
    try:
        stored = dict(json.loads(record.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{record} is no JSON file; remove {out} or choose another folder."
        ) from error
    for name in dict.fromkeys([*settings, *stored]):
        value = settings.get(name)
        if stored.get(name) != value:
            raise InputError(
                f"{out} holds a simulated cohort with {name} {stored.get(name)}, not {value}; "
                "choose another folder, or remove that one."
            )
