"""Simple rivals of networks, and heads of scans: fits against scikit-learn, and as runs."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import headscope as hs
from headscope.analysis.results.comparisons import Difference
from headscope.analysis.retrain import train_again
from headscope.analysis.units import OVER_SCANS, read_samples
from headscope.errors import InputError
from headscope.experiment.config import make_config, parse_change
from headscope.experiment.estimate import estimate
from headscope.experiment.plan import plan_runs
from headscope.experiment.predict import predict
from headscope.experiment.run import run
from headscope.files import read_table
from headscope.grouping import divided, scans_of
from headscope.record import Setting, find_runs, read_experiment
from headscope.reporting.explanations import rivals as worded
from headscope.reporting.explanations.rivals import beats, rival_sentences, standings, unbeaten
from headscope.training.rivals import (
    STRENGTHS,
    Fitted,
    encode,
    fit_linear,
    fit_majority,
    shrink,
)
from headscope.verification.runs import run_problems
from tests.support.cohorts import write
from tests.support.experiments import settings, write_cohort
from tests.support.records import reseal

pytestmark = pytest.mark.usefixtures("few_trees")
NAME = "timm-test_resnet-frozen"


def made(classes, seed=0, count=60, width=5):
    """Features that tell the classes a little, labels and subsets."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    features = 40 + rng.normal(0, 1, (count, width)) * [1, 5, 0.1, 2, 1] + labels[:, None] * 0.5
    return features, labels, np.array(["train", "val", "test"])[np.arange(count) * 3 // count]


@pytest.mark.parametrize("classes", [2, 3])
def test_a_linear_rival_is_that_of_scikit_learn_with_the_least_validation_loss(classes):
    features, labels, subset = made(classes)
    train, val = subset == "train", subset == "val"
    models = [
        make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000, tol=1e-8)).fit(
            features[train], labels[train]
        )
        for C in STRENGTHS
    ]
    losses = [log_loss(labels[val], model.predict_proba(features[val])) for model in models]
    fitted = fit_linear(features, labels, subset, classes)
    assert fitted.strength == STRENGTHS[int(np.argmin(losses))]
    logits = fitted.logits(features).astype(float)
    expected = models[int(np.argmin(losses))].predict_log_proba(features)
    logits -= np.logaddexp.reduce(logits, axis=1, keepdims=True)
    np.testing.assert_allclose(logits, expected, atol=2e-3)
    assert fitted.weight.shape == (classes, 5)


def test_pixels_have_one_scale_and_constant_ones_no_weight():
    features, labels, subset = made(2)
    features[:, 2] = 7
    train = subset == "train"
    fitted = fit_linear(features, labels, subset, 2, one_scale=True)
    scale = np.sqrt(features[train].var(axis=0).mean())
    model = LogisticRegression(C=fitted.strength, max_iter=2000, tol=1e-8)
    model.fit((features[train] - features[train].mean(axis=0)) / scale, labels[train])
    np.testing.assert_allclose(
        fitted.weight[1] - fitted.weight[0], model.coef_[0] / scale, atol=1e-3
    )
    assert not fitted.weight[:, 2].any()


def test_what_cannot_be_fitted_leaves_the_shares_of_the_classes():
    features, labels, subset = made(3)
    no_val = fit_linear(features, labels, np.where(subset == "val", "test", subset), 3)
    assert no_val.strength is None and no_val.weight.any()
    one_class = fit_linear(features, labels * 0 + 1, subset, 3)
    assert not one_class.weight.any() and one_class.bias.argmax() == 1
    constant = fit_linear(np.ones((60, 2)), labels, subset, 3)
    np.testing.assert_allclose(np.exp(constant.bias), [7 / 20, 7 / 20, 6 / 20], rtol=1e-6)
    lacking = fit_linear(features, labels, np.where(labels == 2, "test", subset), 3)
    assert (lacking.logits(features).argmax(axis=1) < 2).all()
    assert np.isfinite(lacking.logits(features)).all()
    tied = fit_majority(np.array([1, 0]), 3)
    assert tied.logits(np.ones((2, 1))).argmax(axis=1).tolist() == [0, 0]


def test_covariates_become_numbers():
    table = pd.DataFrame(
        {
            "age": [70, np.nan, 60, 62, 99],
            "sex": ["F", "M", np.nan, "F", "X"],
            "site": [1, 2, 2, 1, 3],
            "empty": [np.nan, np.nan, np.nan, np.nan, 4],
        }
    )
    features, names = encode(table, np.array([True, True, True, True, False]))
    columns = dict(zip(names, features.T.tolist(), strict=True))
    assert columns["age"] == [70, 62, 60, 62, 99] and columns["age missing"] == [0, 1, 0, 0, 0]
    assert "empty" not in columns and "site missing" not in columns
    oracle = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    oracle.fit([["F"], ["M"]])
    of_sex = np.column_stack([columns["sex=F"], columns["sex=M"]])
    np.testing.assert_array_equal(of_sex, oracle.transform([[s] for s in "FM-FX"]))
    assert columns["sex missing"] == [0, 0, 1, 0, 0]
    assert columns["site=1"] == [1, 0, 0, 1, 0] and columns["site=2"] == [0, 1, 1, 0, 0]
    assert encode(table[["empty"]], np.arange(5) < 4)[0].shape == (5, 0)


def test_slices_are_shrunk_to_means_of_areas():
    pixels = np.random.default_rng(0).integers(0, 256, (3, 96, 64), dtype=np.uint8)
    means = pixels.reshape(3, 32, 3, 32, 2).mean(axis=(2, 4)).reshape(3, -1)
    assert np.abs(shrink(pixels).astype(float) - means).max() <= 0.5
    assert shrink(pixels[:, :20, :20]).shape == (3, 1024)


def test_scans_are_sessions_within_their_subset():
    table = pd.DataFrame(
        {
            "subject_id": ["s1", "s2", "s1", "s1", "s2"],
            "session_id": list("aaaba"),
            "label": ["AD", "NC", "AD", "AD", "NC"],
            "scan": list("vwxyz"),
        }
    )
    subset = np.array(["train", "test", "train", "train", "val"])
    scans = scans_of(table, subset)
    assert scans.of_slice.tolist() == [0, 1, 0, 2, 3] and scans.first.tolist() == [0, 1, 3, 4]
    assert divided(table, subset) == 1
    values = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    expected = pd.DataFrame(values).groupby(scans.of_slice).mean().to_numpy()
    np.testing.assert_allclose(scans.mean(values), expected, rtol=1e-6)
    nameless = table.assign(subject_id="unknown")
    assert len(scans_of(nameless, subset).first) == 5 and divided(nameless, subset) == 0


@pytest.fixture(scope="module")
def rivalled(tmp_path_factory):
    """An experiment with rivals, and a head of slices beside one of scans, under both splits."""
    folder = tmp_path_factory.mktemp("rivals")
    data = write_cohort(folder / "data", subjects=8)
    rows = [
        f"{name}{n},{name},{60 + n + 10 * (name == 'AD')},{'FM'[n % 2]}"
        for name in ("AD", "NC")
        for n in range(8)
    ]
    rows[3] = rows[3].removesuffix("M")
    (data / "participants.csv").write_text("\n".join(["subject,dx,age,sex", *rows]) + "\n")
    heads = [{"regime": "frozen"}, {"regime": "frozen", "unit": "scan"}]
    options = {"label": "dx", "rivals": ["majority", "covariates", "pixels"], "epochs": 3}
    config = settings(data, folder / "out", rows=heads, **options)
    run(config)
    return config


def test_rivals_are_runs_beside_the_networks(rivalled, capfd):
    out = rivalled.out
    runs = {one.name: one for one in read_experiment(out, rivals=True)}
    rivals = [one.setting for one in runs.values() if one.is_rival]
    assert len(rivals) == 6 and {one.regime for one in rivals} == {"rival"}
    assert len(read_experiment(out)) == 4 and len(find_runs(out).rivals) == 6
    assert hs.verify(out).whole and hs.verify(out).runs == 10
    # what they reach is what their features give
    covariates = runs["covariates-rival-subject-seed0"]
    ages = covariates.features["features"][:, covariates.settings["covariates"].index("age")]
    assert ages.min() == 60 and covariates.settings["covariates"][1:] == [
        "sex=F", "sex=M", "sex missing"
    ]  # fmt: skip
    assert covariates.score("test", "subject_auc") == 1.0
    pixels = runs["pixels-rival-subject-seed0"]
    table, logits = pixels.predictions, pixels.features["logits"]
    scan = (table["subject_id"] == table["subject_id"].iloc[0]).to_numpy()
    head = Fitted(pixels.head["weight"], pixels.head["bias"])
    mean = pixels.features["features"][scan].mean(axis=0, keepdims=True)
    np.testing.assert_allclose(head.logits(mean)[0], logits[scan].mean(axis=0), atol=1e-4)
    # a second start leaves them; other covariates are other settings
    capfd.readouterr()
    run(rivalled)
    assert capfd.readouterr().err.count("already finished") == 4
    with pytest.raises(InputError, match="no network: it predicts no new scans"):
        predict(pixels.path, rivalled.data / "participants.csv")


def test_a_changed_rival_is_left_out_and_other_covariates_are_refused(rivalled, tmp_path):
    out = shutil.copytree(rivalled.out, tmp_path / "out")
    changed = rivalled.model_copy(update={"out": out})
    # seconds that differ by the rounding of a reader are no change
    path = out / "runs" / "majority-rival-subject-seed0"
    metrics = json.loads((path / "metrics.json").read_text())
    metrics["train_seconds"] = json.loads((path / "history.jsonl").read_text())["seconds"] - 1e-12
    (path / "metrics.json").write_text(json.dumps(metrics))
    assert run_problems(reseal(path)) == []
    table = out / "runs" / "pixels-rival-subject-seed0" / "predictions.tsv"
    table.write_text(table.read_text().replace("NC", "AD"))
    assert "pixels-rival-subject-seed0" in find_runs(out).left_out
    data = (rivalled.data / "participants.csv").read_text()
    (rivalled.data / "participants.csv").write_text(data.replace("61", "51"))
    try:
        with pytest.raises(InputError, match=r"covariates-rival-.* begun with other settings"):
            run(changed)
    finally:
        (rivalled.data / "participants.csv").write_text(data)


def test_page_tables_and_comparisons_hold_the_rivals(rivalled, undrawn):
    page = hs.report(rivalled.out).read_text()
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", page))
    assert "What is no network reaches on the same subjects" in text
    assert "age and sex 100.0%" in text and "It is not shown to beat" in text
    assert re.search(r"2 networks is shown to beat .{0,200}age and sex", text)
    table = read_table(rivalled.out / "table.tsv")
    assert table["architecture"].tolist()[-6:] == [
        name for name in ("majority", "covariates", "pixels") for _ in range(2)
    ]
    assert set(table["name"][:4]) == {"frozen", "frozen-scan"}
    compared = hs.compare_runs(read_experiment(rivalled.out, rivals=True))
    alone = hs.compare_runs(read_experiment(rivalled.out))
    # p of networks is not corrected for rivals
    pd.testing.assert_frame_equal(compared.table[: len(alone.rows)], alone.table)
    assert [(row.first, row.second) for row in compared.rivals if row.split == "subject"] == [
        (head, rival)
        for head in ("frozen-scan", "frozen")
        for rival in ("covariates", "majority", "pixels")
    ]
    assert hs.verify(rivalled.out).whole


def test_the_plan_counts_rivals_without_epochs(rivalled, tmp_path):
    plan = estimate(rivalled.model_copy(update={"out": tmp_path / "new"}))
    rows = plan.runs[plan.runs["regime"] == "rival"]
    assert len(rows) == 6 and (rows["seconds"] < 10).all() and (rows["epochs"] == 0).all()
    assert estimate(rivalled).runs["finished"].all()


def test_a_head_of_scans_trains_on_their_means(rivalled):
    runs = {one.name: one for one in read_experiment(rivalled.out)}
    for split in ("subject", "slice"):
        head = runs[f"{NAME}-scan-{split}-seed0"]
        assert head.setting.unit == "scan" and head.settings["aggregate"] == "logits"
        weight, bias = train_again(head, head.features["label"][:, None])
        np.testing.assert_allclose(weight[0], head.head["weight"], atol=1e-5)
        np.testing.assert_allclose(bias[0], head.head["bias"], atol=1e-5)
    slices = runs[f"{NAME}-subject-seed0"]
    assert not np.allclose(slices.head["weight"], weight[0])
    head = runs[f"{NAME}-scan-subject-seed0"]
    assert slices.settings["steps_per_epoch"] == 4 and head.settings["steps_per_epoch"] == 1
    # analyses are over scans, and the null of Fig. 3 holds
    analysis = hs.analyse_features(head)
    assert analysis.slices == analysis.subjects and OVER_SCANS in analysis.notes
    samples = read_samples(head, examples=True)
    scores = samples.features @ head.head["weight"].T + head.head["bias"]
    np.testing.assert_allclose(samples.logits, scores, atol=1e-4)
    pair = hs.analyse_pair(head)
    assert abs(pair.residual) < 1e-4
    # a new scan: the logits of its mean features
    predicted = predict(head.path, rivalled.data / "AD" / "sub-AD0_T1w.nii.gz")
    assert predicted.aggregate == "logits" and len(predicted.scans) == 1


def test_pictures_without_ids_and_three_classes_have_rivals(tmp_path, capfd):
    data = write(tmp_path / "data", ["A", "B", "C"] * 4, slices=1)
    for n, path in enumerate(sorted(data.rglob("*.png"))):
        path.rename(path.with_name(f"{'xyz'[n % 3]}{n}.png"))
    rows = [{"regime": "frozen", "unit": "scan"}]
    every = ["majority", "covariates", "pixels"]
    run(settings(data, tmp_path / "out", rows=rows, splits=["slice"], rivals=every))
    assert "'covariates' is left out" in " ".join(capfd.readouterr().err.split())
    runs = read_experiment(tmp_path / "out", rivals=True)
    assert [one.name.partition("-")[0] for one in runs] == ["timm", "majority", "pixels"]
    assert hs.verify(tmp_path / "out").whole


def test_settings_of_rivals_and_units(tmp_path):
    assert make_config(data="x").rivals == ("majority", "covariates", "pixels")
    for text in ("rivals=none", "rivals=[]"):
        assert make_config(data="x", **dict([parse_change(text)])).rivals == ()
    assert make_config(data="x", **dict([parse_change("rivals=pixels")])).rivals == ("pixels",)
    with pytest.raises(InputError, match=r"rivals.*'majority', 'covariates' or 'pixels'"):
        make_config(data="x", rivals=["pixel"])
    with pytest.raises(InputError, match=r"unit.*'slice' or 'scan'"):
        make_config(data="x", unit="volume")
    with pytest.raises(InputError, match="the regime 'finetune' trains the backbone on slices"):
        plan_runs(make_config(data="x", unit="scan", regimes=["frozen", "finetune"]))
    rows = [{"regime": "frozen-adabn", "unit": "scan"}, {"regime": "finetune"}]
    plans = plan_runs(make_config(data="x", rows=rows))
    assert [plan.setting.unit for plan in plans] == ["scan", "slice"]
    assert "frozen-adabn-scan-" in plans[0].name


class Result:
    """What the words ask of a setting."""

    apart = True

    def __init__(self, architecture, name, subjects=None):
        self.architecture, self.name, self.split, self.key = architecture, name, "subject", name
        setting = Setting(architecture, name, name, "subject", 0, subjects=subjects)
        self.runs = [SimpleNamespace(setting=setting, settings={})]
        self.scores = {"subject_accuracy": SimpleNamespace(value=0.6)}


def test_each_network_stands_beside_the_rivals_of_its_own_subjects():
    ways = ("inferred-strict", "inferred-loose")
    networks = [Result("net", f"frozen-{way}", way) for way in ways]
    rivals = [Result("pixels", f"rival-{way}", way) for way in ways]
    rows = [
        SimpleNamespace(
            split="subject", first=network.name, second="pixels",
            subject_accuracy=Difference(0.1, low, 0.2, "bootstrap over subjects", 0.5, p_holm),
            pairs=2,
        )
        for network, low, p_holm in zip(networks, (0.05, 0.01), (0.04, 0.06), strict=True)
    ]  # fmt: skip
    placed = standings(networks, rivals, SimpleNamespace(rivals=rows))
    assert [[*place.networks] for place in placed] == [[network] for network in networks]
    assert not unbeaten(placed, networks[0])
    assert "32 × 32 pixels (inferred-loose)" in unbeaten(placed, networks[1])
    (words,) = rival_sentences(placed)
    assert words.count("The network is not shown to beat") == 1
    assert "Every network" not in words
    # its interval alone would show it, and the table corrects for both pairs
    assert "p = 0.060</span> after Holm's correction for 2 pairs" in words
    assert rival_sentences(placed[:1])[0].endswith("beat each of them by subject accuracy.")


def test_the_verdict_names_the_rivals_of_its_own_split_alone(monkeypatch):
    networks, rivals = ([Result(*names) for _ in "ab"] for names in (("net", "a"), ("pixels", "b")))
    for side in (networks, rivals):
        side[1].split = "site"
    rivals[0].scores = {"subject_accuracy": SimpleNamespace(value=0.9)}
    rows = [
        SimpleNamespace(
            split=split, first="a", second="pixels", pairs=1,
            subject_accuracy=Difference(0.1, -0.1, 0.2, "bootstrap over subjects", 0.5, 0.5),
        )
        for split in ("subject", "site")
    ]  # fmt: skip
    monkeypatch.setattr(worded, "choose_apart", lambda apart: (networks[1], "AUC", 1))
    (words,) = worded.explain_by_rivals(networks, rivals, SimpleNamespace(rivals=rows)).sentences
    assert "60.0" in words
    assert "90.0" not in words  # that of other subjects, under the other split
    assert words.count("32 × 32 pixels") == 2
    # nor those of subjects that were inferred otherwise
    networks, rivals = (
        [Result(*names, way) for way in ("inferred-loose", "inferred-strict")]
        for names in (("net", "a"), ("pixels", "b"))
    )
    monkeypatch.setattr(worded, "choose_apart", lambda apart: (networks[0], "AUC", 1))
    (words,) = worded.explain_by_rivals(networks, rivals, SimpleNamespace(rivals=rows)).sentences
    assert "inferred-loose" in words and "inferred-strict" not in words


@pytest.mark.parametrize(
    ("value", "low", "p", "p_holm", "expected"),
    [
        (0.2, 0.05, 0.01, 0.02, True),
        (0.2, 0.05, 0.02, 0.08, False),
        (-0.2, -0.3, 0.01, 0.01, False),
        (0.5, np.nan, 0.01, 0.01, True),
        (0.5, np.nan, 0.01, 0.2, False),
        (np.nan, np.nan, np.nan, np.nan, False),
    ],
)
def test_a_network_beats_a_rival_by_the_corrected_p_of_the_table(value, low, p, p_holm, expected):
    assert beats(Difference(value, low, 1.0, "McNemar's exact test", p, p_holm)) == expected
