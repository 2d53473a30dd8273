"""What a run says of new scans is what it said of them when it was trained."""

import json
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

import headscope as hs
from headscope.errors import InputError, RunError
from headscope.experiment import predict as prediction
from headscope.experiment.new_scans.maps import averaging_tail, margin_maps
from headscope.experiment.new_scans.trained import pass_slices
from headscope.experiment.predict import predict
from headscope.experiment.run import run
from headscope.files import read_table
from headscope.metrics import slice_units, subject_level
from headscope.record import read_experiment
from headscope.slicing.store import open_slices
from tests.support.commands import headscope_here
from tests.support.experiments import settings, write_cohort
from tests.support.records import forget, reseal

pytestmark = pytest.mark.usefixtures("few_trees")

QUICK = {"regimes": ["finetune"], "splits": ["subject"], "epochs": 1, "seeds": [3]}
PROBABILITIES = ["probability_AD", "probability_NC"]
LOGITS = ["logit_AD", "logit_NC"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("predict") / "scans", subjects=4)


def trained(data, out, **changes):
    return read_experiment(run(settings(data, out, **(QUICK | changes))))[0]


@pytest.fixture(scope="module")
def record(data, tmp_path_factory):
    """A run whose slicing differs from the defaults in whatever it can."""
    out = tmp_path_factory.mktemp("predict") / "out"
    options = {"plane": "coronal", "centre": "volume", "spacing_mm": 16, "count": 5}
    return trained(data, out, aggregate="logits", **options)


def known(record, subject):
    table = record.predictions
    return table[table["subject_id"] == subject].reset_index(drop=True)


def test_scans_of_the_cohort_get_what_the_run_said_of_them(data, record, tmp_path):
    moved = shutil.copytree(record.path, tmp_path / "run")  # nothing beside it is needed
    files = [data / "AD" / "sub-AD1_T1w.nii.gz", data / "NC" / "sub-NC0_T1w.nii.gz"]
    found = hs.predict(moved, files)
    assert found.class_names == ["AD", "NC"] and found.run == "run"
    assert found.scans["slices"].tolist() == [5, 5]
    for file, subject in zip(files, ("sub-AD1", "sub-NC0"), strict=True):
        mine, then = found.slices[found.slices["scan"] == str(file)], known(record, subject)
        np.testing.assert_allclose(mine[PROBABILITIES], then[PROBABILITIES], atol=2e-6)
        for column in ("plane", "slice_index", "predicted"):
            assert mine[column].tolist() == then[column].tolist()
        slices = slice_units(np.zeros(5, int), then[LOGITS].to_numpy(), np.zeros(5, int))
        joined = subject_level(slices, "logits").probabilities
        whole = found.scans[found.scans["scan"] == str(file)]
        np.testing.assert_allclose(whole[PROBABILITIES], joined, atol=2e-6)


def test_one_volume_of_a_series_of_them_is_taken_as_the_run_took_it(data, tmp_path):
    for path in data.rglob("*.nii.gz"):
        scan = nib.load(path)
        volumes = np.stack([np.zeros(scan.shape), scan.get_fdata()], axis=-1).astype(np.int16)
        (tmp_path / "4d" / path.parent.name).mkdir(parents=True, exist_ok=True)
        four = nib.Nifti1Image(volumes, scan.affine)
        nib.save(four, tmp_path / "4d" / path.parent.name / path.name)
    record = trained(tmp_path / "4d", tmp_path / "out", volume=1, plane="all", count=2)
    found = predict(record.path, tmp_path / "4d" / "NC" / "sub-NC2_T1w.nii.gz")
    then = known(record, "sub-NC2")
    assert found.slices["plane"].tolist() == then["plane"].tolist()
    np.testing.assert_allclose(found.slices[PROBABILITIES], then[PROBABILITIES], atol=2e-6)


def test_a_folder_of_scans_is_each_of_them(data, record):
    found = predict(record.path, data / "AD")
    names = [str(data / "AD" / f"sub-AD{n}_T1w.nii.gz") for n in range(4)]
    assert found.scans["scan"].tolist() == names


def test_a_scan_that_is_given_twice_is_one(data, record, tmp_path):
    nib.save(nib.load(data / "AD" / "sub-AD0_T1w.nii.gz"), tmp_path / "pair.hdr")
    once = predict(record.path, [data / "AD", tmp_path / "pair.hdr"])
    again = [data / "AD", data / "AD" / "sub-AD1_T1w.nii.gz", *sorted(tmp_path.glob("pair.*"))]
    pd.testing.assert_frame_equal(predict(record.path, again).slices, once.slices)
    assert once.scans["scan"].tolist()[-1] == str(tmp_path / "pair.hdr") and len(once.scans) == 5


def test_a_folder_of_pictures_is_one_subject(data, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("AD", "NC"):
        for subject in range(4):
            folder = tmp_path / "pictures" / name / f"sub-{name}{subject}"
            folder.mkdir(parents=True)
            for number in (2, 10, 1):
                grey = rng.integers(0, 255, (40, 30), dtype=np.uint8)
                Image.fromarray(grey).save(folder / f"slice{number}.png")
    record = trained(tmp_path / "pictures", tmp_path / "out")
    found = predict(record.path, [tmp_path / "pictures" / "AD" / "sub-AD3"])
    then = known(record, "sub-AD3").sort_values("slice_index")
    mine = found.slices.sort_values("slice_index")
    assert mine["slice_index"].tolist() == then["slice_index"].tolist() == [1, 2, 10]
    np.testing.assert_allclose(mine[PROBABILITIES], then[PROBABILITIES], atol=2e-6)
    assert len(found.scans) == 1
    folder = tmp_path / "pictures" / "AD" / "sub-AD3"
    told = capsys.readouterr().err
    assert "the plane of" not in told
    # the run's own plane is a default that nobody looked at: a name cannot contradict it
    named = shutil.copy(folder / "slice1.png", tmp_path / "sub-1_1_coronal_slice-001.png")
    alone = predict(record.path, named).slices[PROBABILITIES].to_numpy()
    first = mine.loc[mine["slice_index"] == 1, PROBABILITIES].to_numpy()
    np.testing.assert_allclose(alone, first, atol=2e-6)
    with pytest.raises(InputError, match=r"trained on pictures, and .*nii\.gz is none"):
        predict(record.path, data / "AD" / "sub-AD1_T1w.nii.gz")


def write_slice(path, oriented):
    """One slice of 24 × 24 voxels: axial where its header says how it lies."""
    pixels = np.random.default_rng(0).integers(0, 500, (24, 24), dtype=np.int16)
    scan = nib.Nifti1Image(pixels[..., None] if oriented else pixels, np.diag([8, 8, 8, 1]))
    if not oriented:
        scan.set_sform(None, 0)
        scan.set_qform(None, 0)
    nib.save(scan, path)
    return path


@pytest.mark.parametrize(
    ("name", "oriented", "part"),
    [
        ("a.nii", True, "a.nii shows no coronal slices: its grid is 24×24×1, one axial slice."),
        ("OAS2_1_MR1_sag.nii", False, "the sagittal plane, and the run was trained on coronal "),
    ],
)
def test_a_slice_of_another_plane_is_refused(record, tmp_path, name, oriented, part):
    with pytest.raises(InputError, match=part):
        predict(record.path, write_slice(tmp_path / name, oriented))


def test_a_slice_that_does_not_say_how_it_lies_is_spoken_of(record, tmp_path, capsys):
    known = predict(record.path, write_slice(tmp_path / "OAS2_1_MR1_cor.nii", oriented=False))
    assert "trained on" not in capsys.readouterr().err
    found = predict(record.path, write_slice(tmp_path / "a.nii", oriented=False))
    assert found.slices["plane"].tolist() == known.slices["plane"].tolist() == ["coronal"]
    told = capsys.readouterr().err
    assert f"trained on coronal slices; the plane of {tmp_path / 'a.nii'} is unknown" in told


def test_of_a_volume_only_planes_that_the_run_knows_are_taken(data, record, tmp_path):
    """As where the run was trained on the ready slices of some planes."""
    run = shutil.copytree(record.path, tmp_path / "run")
    text = (run / "run.toml").read_text()
    (run / "run.toml").write_text(text.replace('plane = "coronal"', 'plane = "all"'))
    reseal(run)
    found = predict(run, data / "AD" / "sub-AD1_T1w.nii.gz")
    then = known(record, "sub-AD1")
    assert found.slices["plane"].tolist() == then["plane"].tolist() == ["coronal"] * 5
    np.testing.assert_allclose(found.slices[PROBABILITIES], then[PROBABILITIES], atol=2e-6)
    with pytest.raises(InputError, match="axial plane, and the run was trained on coronal slices"):
        predict(run, write_slice(tmp_path / "a.nii", oriented=True))


def test_a_folder_of_dicom_is_one_scan(tmp_path):
    pytest.importorskip("SimpleITK", reason="DICOM needs SimpleITK: pip install '.[dicom]'")
    from tests.support.dicom import volume, write_series

    for number, name in enumerate(f"{label}/sub-{label}{n}" for label in "ab" for n in range(3)):
        write_series(tmp_path / "scans" / name, volume(number), series=f"1.2.{number + 1}")
    record = trained(tmp_path / "scans", tmp_path / "out", centre="volume")
    found = predict(record.path, tmp_path / "scans" / "b" / "sub-b2")
    assert found.scans["slices"].tolist() == [4]
    then = known(record, "sub-b2")
    columns = ["probability_a", "probability_b"]
    np.testing.assert_allclose(found.slices[columns], then[columns], atol=2e-6)


def test_a_pseudonymised_run_names_no_file(data, tmp_path):
    record = trained(data, tmp_path / "out", pseudonym_key=tmp_path / "study.key", count=2)
    found = predict(record.path, data / "NC")
    assert found.scans["scan"].tolist() == ["scan 1", "scan 2", "scan 3", "scan 4"]
    assert "sub-NC" not in json.dumps(found.as_dict())


@pytest.mark.parametrize("case", ["missing", "text", "picture", "empty folder"])
def test_a_scan_that_cannot_be_read_is_one_sentence(record, tmp_path, case):
    place = tmp_path / {"text": "a.nii", "picture": "a.png"}.get(case, "nowhere")
    if case in ("text", "picture"):
        place.write_bytes(b"no scan")
    if case == "empty folder":
        place.mkdir()
    part = {
        "missing": "does not exist",
        "text": "damaged or no scan|is no NIfTI",
        "picture": "trained on scans, and .*a.png is none",
        "empty folder": "holds no scans and no pictures",
    }[case]
    with pytest.raises(InputError, match=part):
        predict(record.path, place)


def test_memory_that_does_not_suffice_is_one_sentence(data, record, monkeypatch, capsys):
    def forward(x):
        raise torch.OutOfMemoryError("CUDA out of memory")

    network = prediction.load_network(record)
    monkeypatch.setattr(network.model, "forward", forward)
    monkeypatch.setattr(prediction, "load_network", lambda *_: network)
    done = headscope_here(monkeypatch, capsys, "predict", record.path, data / "AD")
    assert done.returncode == 1 and "5 slices that pass through the network" in done.stderr


def test_what_is_no_finished_run_is_said(data, record, tmp_path):
    experiment = record.path.parents[1]
    for place, part in (
        (tmp_path, "is no run: it has no run.toml"),
        (experiment, f"is an experiment: name one of its runs.*{record.name}"),
    ):
        with pytest.raises(InputError, match=part):
            predict(place, data / "AD")
    copy = shutil.copytree(record.path, tmp_path / "copy")
    (copy / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"model\.safetensors has changed"):
        predict(copy, data / "AD")
    (copy / "model.safetensors").unlink()
    with pytest.raises(InputError, match="keeps no network"):
        predict(copy, data / "AD")
    (copy / "metrics.json").unlink()
    with pytest.raises(InputError, match="has not ended"):
        predict(copy, data / "AD")


def test_the_command_prints_a_table_or_json(data, record, monkeypatch, capsys):
    scan = data / "AD" / "sub-AD0_T1w.nii.gz"
    table = headscope_here(monkeypatch, capsys, "predict", record.path, scan)
    assert table.returncode == 0, table.stderr
    assert "Slice index" in table.stdout and "the mean of the logits" in table.stdout
    printed = json.loads(
        headscope_here(monkeypatch, capsys, "predict", record.path, scan, "--json").stdout
    )
    expected = predict(record.path, scan).as_dict()
    assert printed == expected
    assert len(expected["scans"][0]["slices"]) == 5
    sums = [sum(each["probabilities"].values()) for each in expected["scans"][0]["slices"]]
    np.testing.assert_allclose(sums, 1)
    wrong = headscope_here(monkeypatch, capsys, "predict", record.path, data / "nowhere.nii")
    assert wrong.returncode == 2 and wrong.stderr.strip().endswith("nowhere.nii does not exist.")


def test_a_scan_that_fails_does_not_cost_the_others(data, record, tmp_path, monkeypatch, capsys):
    sound = data / "AD" / "sub-AD0_T1w.nii.gz"
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(sound.read_bytes()[:500])
    prediction = predict(record.path, [bad, sound, tmp_path / "nowhere"])
    assert prediction.scans["scan"].tolist() == [str(sound)]
    assert prediction.slices["file"].unique().tolist() == [sound.name]
    assert list(prediction.failures) == [str(tmp_path / "nowhere"), str(bad)]
    assert prediction.as_dict()["failures"] == prediction.failures
    done = headscope_here(monkeypatch, capsys, "predict", record.path, bad, sound)
    assert done.returncode == 1 and "sub-AD0" in done.stdout
    assert f"{bad}: " in done.stderr and "1 of 2 scans could not be predicted" in done.stderr
    with pytest.raises(InputError, match=r"None of 2 scans can be used: .*nowhere does"):
        predict(record.path, [bad, bad.with_name("nowhere")])


def test_every_picture_has_a_row_with_its_name(data, tmp_path):
    """A picture that cannot be read costs none of the others of its subject."""
    rng = np.random.default_rng(0)
    for name in ("AD", "NC"):
        for subject in range(4):
            folder = tmp_path / "pictures" / name / f"sub-{name}{subject}"
            folder.mkdir(parents=True)
            for number in (1, 2):
                grey = rng.integers(0, 255, (40, 30), dtype=np.uint8)
                Image.fromarray(grey).save(folder / f"slice{number}.png")
    run = trained(tmp_path / "pictures", tmp_path / "out", regimes=["frozen"])
    assert "AD/sub-AD3/slice2.png" in set(run.predictions["scan"])
    folder = tmp_path / "pictures" / "AD" / "sub-AD3"
    (folder / "slice3.png").write_bytes(b"no picture")
    prediction = predict(run.path, folder)
    assert prediction.slices["file"].tolist() == ["slice1.png", "slice2.png"]
    assert list(prediction.failures) == [str(folder / "slice3.png")]


def test_a_network_of_nan_predicts_nothing(data, record, tmp_path):
    """Neither under a manifest nor, as an earlier version wrote it, without one."""
    run = shutil.copytree(record.path, tmp_path / "run")
    model = load_file(run / "model.safetensors")
    model[min(model)] = np.full_like(model[min(model)], np.nan)
    save_file(model, run / "model.safetensors")
    for make in (reseal, forget):
        make(run)
        with pytest.raises(RunError, match="gives no finite numbers: train it again"):
            predict(run, data / "AD")


def test_a_network_with_another_classifier_than_its_head_is_refused(data, record, tmp_path):
    run = shutil.copytree(record.path, tmp_path / "run")
    model = load_file(run / "model.safetensors")
    save_file(model | {"fc.weight": -model["fc.weight"]}, run / "model.safetensors")
    forget(run)
    with pytest.raises(
        InputError, match=r"another classifier in model\.safetensors than in head\.npz"
    ):
        predict(run, data / "AD")


def test_a_prediction_made_of_black_slices_says_so(record, tmp_path):
    """The run slices about the middle of the grid, where this volume holds nothing."""
    volume = np.zeros((24, 24, 24), np.int16)
    volume[4:9, 20:24, 4:9] = np.random.default_rng(0).integers(100, 200, (5, 4, 5))
    volume[10, 10, 10] = 150
    nib.save(nib.Nifti1Image(volume, np.diag([8, 8, 8, 1])), tmp_path / "a.nii.gz")
    said = hs.predict(record.path, tmp_path / "a.nii.gz")
    (note,) = said.notes
    assert "slices show nothing but one grey, in 1 of 1 scans" in note
    assert note in said.tables()[1].notes and said.as_dict()["notes"] == [note]


def test_a_scan_that_was_trained_on_is_named_with_and_without_the_slices(data, record, tmp_path):
    subject = record.predicted("train")["subject_id"].iloc[0]
    path = next(data.rglob(f"{subject}_T1w.nii.gz"))
    (warning,) = predict(record.path, path).warnings
    assert f"equal in every pixel to those of {subject}, session" in warning
    lone = shutil.copytree(record.path, tmp_path / "run")
    result = predict(lone, path)
    assert f"what it read of {subject}, session" in result.warnings[0]
    assert "is judged by its features alone" in result.notes[-1]
    tested = record.predicted("test")["subject_id"].iloc[0]
    assert predict(lone, next(data.rglob(f"{tested}_T1w.nii.gz"))).scans["distance"][0] > 0.01


def test_a_scan_unlike_those_of_training_is_said_to_be(record, tmp_path):
    volume = np.zeros((24, 24, 24), np.int16)
    volume[2:22, ::2, 2:22] = 900
    nib.save(nib.Nifti1Image(volume, np.diag([8, 8, 8, 1])), tmp_path / "a.nii.gz")
    result = predict(record.path, tmp_path / "a.nii.gz")
    assert (
        result.scans["distance"][0] > 1
        and "a prediction for others is a guess" in (result.warnings[0])
    )
    assert result.as_dict()["scans"][0]["distance"] == result.scans["distance"][0]


def test_predictions_are_written_as_a_table_or_json(data, record, tmp_path, monkeypatch, capsys):
    scans = [data / "AD" / "sub-AD0_T1w.nii.gz", data / "NC" / "sub-NC1_T1w.nii.gz"]
    expected = predict(record.path, scans)
    for name in ("p.tsv", "p.json"):
        out = tmp_path / name
        done = headscope_here(monkeypatch, capsys, "predict", record.path, *scans, "--out", out)
        assert done.returncode == 0 and done.stdout == f"Predictions: {out}\n"
        assert all(warning in done.stderr for warning in expected.warnings)
    table = read_table(tmp_path / "p.tsv")
    assert table["file"].tolist() == [scan.name for scan in scans for _ in range(5)]
    np.testing.assert_allclose(table[PROBABILITIES], expected.slices[PROBABILITIES])
    joined = table.groupby("scan")["scan_probability_AD"].first()
    np.testing.assert_allclose(joined, expected.scans.set_index("scan")["probability_AD"])
    assert json.loads((tmp_path / "p.json").read_text()) == expected.as_dict()
    done = headscope_here(
        monkeypatch, capsys, "predict", record.path, *scans, "--out", tmp_path / "p.csv"
    )
    assert done.returncode == 2 and "ends in .tsv or .json" in done.stderr


def test_maps_add_up_to_the_margin_and_are_drawn_over_the_slice(data, record, tmp_path):
    scan = data / "AD" / "sub-AD0_T1w.nii.gz"
    table = predict(record.path, scan, maps=tmp_path / "maps").slices
    pictures = sorted((tmp_path / "maps").iterdir())
    assert [path.name for path in pictures] == [
        f"0001_sub-AD0_T1w_coronal_slice-{index:03d}.png" for index in table["slice_index"]
    ]
    with Image.open(pictures[0]) as picture:
        assert picture.size == (448, 492)
    network = prediction.load_network(record)
    tail = averaging_tail(network, record)
    pixels = open_slices(record.path.parents[1] / "slices").pixels[:3]
    passed = pass_slices(network, np.asarray(pixels), record, maps=True)
    positions, classes = margin_maps(tail, passed.maps, passed.logits)
    for n, (first, second) in enumerate(classes):
        direction = np.zeros(2)
        direction[[first, second]] = 1, -1
        biases = tail.local(passed.maps[n : n + 1].astype(float), direction)[1][0]
        margin = passed.logits[n, first] - passed.logits[n, second]
        assert positions[n].sum() + biases == pytest.approx(margin, abs=1e-4)


def test_there_are_no_maps_where_positions_are_not_averaged(data, record, tmp_path, monkeypatch):
    network = replace(prediction.load_network(record), tail=("flatten", "linear:fc"))
    monkeypatch.setattr(prediction, "load_network", lambda *_: network)
    with pytest.raises(InputError, match="--maps needs a network that averages positions"):
        predict(record.path, data / "AD", maps=tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_a_volume_of_a_4d_file_can_be_named(data, record, tmp_path):
    scan = nib.load(data / "AD" / "sub-AD1_T1w.nii.gz")
    both = np.stack([np.zeros(scan.shape), scan.get_fdata()], axis=-1).astype(np.int16)
    nib.save(nib.Nifti1Image(both, scan.affine), tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="volumes"):
        predict(record.path, tmp_path / "a.nii.gz")
    table = predict(record.path, tmp_path / "a.nii.gz", volume=1).slices
    then = known(record, "sub-AD1")
    np.testing.assert_allclose(table[PROBABILITIES], then[PROBABILITIES], atol=2e-6)
