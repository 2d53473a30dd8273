"""Fetched OASIS maps lie as a cohort; nothing is fetched without consent or network in these tests.

The stand-in for nilearn returns what its fetcher returns: paths in folders of a subject each, a
table with lower-case columns in the order of the CSV, and the agreement's file.
"""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import requests
from nilearn import datasets
from sklearn.utils import Bunch
from typer.testing import CliRunner

from headscope.cli import app
from headscope.cohort.layouts import find_cohort
from headscope.errors import InputError
from headscope.files import read_table
from headscope.simulation.oasis_vbm import fetch_oasis_vbm
from headscope.slicing.spec import SliceSpec
from headscope.slicing.write import write_slices

CDR = [0.0, 0.5, np.nan, 1.0, 0.0, 2.0, np.nan, 0.0]


@pytest.fixture
def nilearn_folder(tmp_path, monkeypatch):
    """Make nilearn find eight small maps of each tissue."""
    folder = tmp_path / "nilearn_data" / "oasis1"
    rng = np.random.default_rng(0)
    names = [f"OAS1_{n:04d}_MR1" for n in (1, 2, 3, 4, 5, 6, 7, 9)]
    maps = {}
    for tissue in ("1", "2"):
        maps[tissue] = []
        for name in names:
            path = folder / name / f"mwrc{tissue}{name}_mpr_anon_fslswapdim_bet.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            volume = rng.random((8, 9, 8)).astype(np.float32)
            nib.save(nib.Nifti1Image(volume, np.diag([-20.0, 20, 20, 1])), path)
            maps[tissue].append(str(path))
    (folder / "data_usage_agreement.txt").write_text("The OASIS terms.\n")
    facts = {"id": names, "mf": ["F", "M"] * 4, "age": range(60, 68), "mmse": 29.0, "cdr": CDR}
    table = pd.DataFrame(facts, index=[0, 1, 2, 4, 5, 7, 8, 9])[::-1]

    def fetch(
        n_subjects=None, dartel_version=True, data_dir=None, url=None, resume=True, verbose=1
    ):
        return Bunch(
            gray_matter_maps=maps["1"][:n_subjects],
            white_matter_maps=maps["2"][:n_subjects],
            ext_vars=table,
            data_usage_agreement=str(folder / "data_usage_agreement.txt"),
            description="",
        )

    monkeypatch.setattr(datasets, "fetch_oasis_vbm", fetch)
    return folder


@pytest.mark.parametrize(("tissue", "number"), [("grey", 1), ("white", 2)])
def test_maps_are_laid_out_with_labels(nilearn_folder, tmp_path, tissue, number):
    out = fetch_oasis_vbm(tmp_path / "oasis", accept_terms=True, tissue=tissue)
    table = read_table(out / "scans.tsv")
    assert table["subject_id"].tolist()[:2] == ["OAS1_0001", "OAS1_0002"]
    assert table["session_id"].unique().tolist() == ["MR1"]
    assert table["label"].fillna("n/a").tolist() == [
        {0: "NC"}.get(cdr, "AD" if cdr > 0 else "n/a") for cdr in CDR
    ]
    assert table["age"].tolist() == list(range(60, 68)) and table["sex"].tolist() == ["F", "M"] * 4
    for name, path in zip(table["subject_id"] + "_MR1", table["path"], strict=True):
        source = next((nilearn_folder / name).glob(f"mwrc{number}*"))
        assert (out / path).read_bytes() == source.read_bytes()
    assert (out / "terms.txt").read_text() == "The OASIS terms.\n"


def test_the_cohort_can_be_sliced(nilearn_folder, tmp_path):
    out = fetch_oasis_vbm(tmp_path / "oasis", accept_terms=True)
    cohort = find_cohort(out)
    assert cohort.scans["label"].value_counts().to_dict() == {"AD": 3, "NC": 3}
    slices = write_slices(cohort, tmp_path / "slices", SliceSpec(count=2, size=16), workers=1)
    assert len(slices.table) == 12


def test_a_second_call_goes_on_and_a_strange_folder_is_left_alone(nilearn_folder, tmp_path):
    out = fetch_oasis_vbm(tmp_path / "oasis", accept_terms=True, subjects=4)
    assert len(read_table(out / "scans.tsv")) == 4
    fetch_oasis_vbm(out, accept_terms=True)
    assert len(read_table(out / "scans.tsv")) == 8
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else"):
        fetch_oasis_vbm(tmp_path / "other", accept_terms=True)


def test_files_are_copied_where_links_cannot_be_made(nilearn_folder, tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    out = fetch_oasis_vbm(tmp_path / "oasis", accept_terms=True)
    assert len(find_cohort(out).scans) == 6


def test_no_network_says_what_to_do(tmp_path, monkeypatch):
    def fail(**options):
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(datasets, "fetch_oasis_vbm", fail)
    with pytest.raises(InputError, match=r"connect to the network, or fetch.*--data-dir") as error:
        fetch_oasis_vbm(tmp_path / "oasis", accept_terms=True, data_dir=tmp_path / "here")
    assert str(tmp_path / "here") in str(error.value)
    assert not (tmp_path / "oasis").exists()


def test_a_table_that_lacks_a_session_is_named(nilearn_folder, tmp_path, monkeypatch):
    fetch = datasets.fetch_oasis_vbm

    def without(**options):
        found = fetch(**options)
        return Bunch(**(found | {"ext_vars": found["ext_vars"].iloc[1:]}))

    monkeypatch.setattr(datasets, "fetch_oasis_vbm", without)
    with pytest.raises(InputError, match="lacks 1 session, the first OAS1_0009_MR1"):
        fetch_oasis_vbm(tmp_path / "oasis", accept_terms=True)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"accept_terms": False}, "before its terms are accepted"),
        ({"accept_terms": True, "tissue": "bone"}, "choose grey or white"),
        ({"accept_terms": True, "subjects": 404}, "1 to 403 subjects, not 404"),
    ],
)
def test_bad_choices_are_refused_before_anything_is_fetched(tmp_path, monkeypatch, options, part):
    monkeypatch.setattr(datasets, "fetch_oasis_vbm", lambda **_: pytest.fail("fetched"))
    with pytest.raises(InputError, match=part):
        fetch_oasis_vbm(tmp_path / "oasis", **options)


def test_the_command_shows_the_terms_first(nilearn_folder, tmp_path):
    out = tmp_path / "oasis"
    refused = CliRunner().invoke(app, ["fetch", "oasis-vbm", "--out", str(out)])
    assert "Data Use Agreement" in refused.output and not out.exists()
    assert isinstance(refused.exception, InputError)
    done = CliRunner().invoke(app, ["fetch", "oasis-vbm", "--out", str(out), "--accept-terms"])
    assert done.exit_code == 0 and (out / "scans.tsv").is_file()
    assert done.output.index("Data Use Agreement") < done.output.index("Cohort:")
    other = CliRunner().invoke(app, ["fetch", "adni"])
    assert "choose oasis-vbm" in str(other.exception)
