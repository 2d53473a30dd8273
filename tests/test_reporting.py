"""The page shows the record's numbers, needs nothing but itself, and a browser shows it whole."""

import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from headscope.analysis import (
    analyse_head,
    analyse_pair,
    setting_results,
)
from headscope.analysis.leakage.split_gap import Gap, GapScore
from headscope.analysis.leakage.stored import stored_leakage
from headscope.analysis.representation.collapse import analyse_collapse
from headscope.analysis.representation.features import analyse_features
from headscope.analysis.results.calibration import analyse_calibration
from headscope.analysis.results.comparisons import compare_runs
from headscope.errors import InputError
from headscope.figures import plot_history
from headscope.files import write_json
from headscope.record import Run, read_experiment, write_failures
from headscope.reporting import render, write_report
from headscope.reporting.blocks import ABOVE, Chapter, TableBlock, Text, letter_of, refer
from headscope.reporting.numbers import number
from headscope.reporting.verdict import _claimed
from headscope.supplement.export import save_figure
from headscope.tables import Table
from headscope.text import probability, significant
from tests.support.records import reseal
from tests.support.synthetic import write_experiment, write_synthetic_run

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(2)>', "a & $b")


class Page(HTMLParser):
    """Reads back what the page shows: its numbers, and everything that it would load."""

    def __init__(self, text):
        super().__init__()
        self.numbers, self.tags, self.loads = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        known = dict(attributes)
        self.tags.append((tag, known))
        self.loads += [value for name, value in attributes if name in ("src", "href", "srcset")]
        if "data-quantity" in known:
            self.numbers.append(known)

    def find(self, run, quantity):
        return [
            each["data-value"]
            for each in self.numbers
            if (each["data-run"], each["data-quantity"]) == (run, quantity)
        ]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    folder = write_experiment(tmp_path_factory.mktemp("report") / "demo", width=96)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A page with every chapter, of few rows, for what takes long by the size of a page."""
    runs = [{"split": split, "width": 16} for split in ("subject", "slice")]
    folder = write_experiment(tmp_path_factory.mktemp("small") / "demo", runs)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(experiment):
    return Page((experiment / "report.html").read_text(encoding="utf-8"))


def shrinkage(run: Run) -> float:
    """Momentum SGD on the row sum, written once more from the definition."""
    known, s, velocity = run.settings, 1.0, 0.0
    for rate in run.history["learning_rate"]:
        for _ in range(known["steps_per_epoch"]):
            velocity = known["momentum"] * velocity + known["weight_decay"] * s
            s -= rate * known["head_learning_rate"] * velocity
    return s


def recomputed(run: Run) -> dict[str, float]:
    """Every number of the weights section, from head.npz, run.toml and history.jsonl alone."""
    with np.load(run.path / "head.npz") as head:
        x, y = head["weight"].astype(np.float64)
        initial = head["initial_weight"].astype(np.float64).sum(axis=0)
    s, d = x + y, x - y
    kept = shrinkage(run) * initial
    r = np.corrcoef(x, y)[0, 1]
    axis = np.linalg.eigh(np.cov(x, y))[1][:, -1]
    null = (np.var(kept) - np.var(d)) / (np.var(kept) + np.var(d))
    analysis = analyse_pair(run)  # its interval has an oracle of its own, in test_weights
    known = {
        "residual_low": analysis.residual_low,
        "residual_high": analysis.residual_high,
        "feature_count": len(x),
        "r": r,
        "r_null": null,
        "spearman": stats.spearmanr(x, y).statistic,
        "slope": np.polyfit(x, y, 1)[0],
        "orthogonal_slope": axis[1] / axis[0],
        "residual": r - null,
        "r_conserved": np.corrcoef(kept + d, kept - d)[0, 1],
        "shuffles": 999,
        "displacement_ratio": np.sqrt(np.var(d) / np.var(s)),
        "row_sum_drift": np.abs(s - kept).max(),
        "shrinkage": shrinkage(run),
        "sum_variance": np.var(s, ddof=1),
        "difference_variance": np.var(d, ddof=1),
        "sum_difference_covariance": np.cov(s, d)[0, 1],
        "mu": x.mean(),
        "sigma": x.std(ddof=1),
    }
    z, n = (x - x.mean()) / x.std(ddof=1), len(x)
    rss = [np.sum((y - np.polyval(np.polyfit(z, y, k), z)) ** 2) for k in range(5)]
    for k in range(1, 5):
        free = n - k - 1
        known |= {
            f"fit{k}.residual_norm": np.sqrt(rss[k]),
            f"fit{k}.r2": 1 - rss[k] / rss[0],
            f"fit{k}.adjusted_r2": 1 - (rss[k] / free) / (rss[0] / (n - 1)),
            f"fit{k}.bic": n * (np.log(2 * np.pi * rss[k] / n) + 1) + (k + 1) * np.log(n),
            f"fit{k}.f": (rss[k - 1] - rss[k]) / (rss[k] / free),
            f"fit{k}.coefficients": np.polyfit(z, y, k),
        }
        # those of the shuffles have an oracle of their own, in test_relation
        names = ("shuffled_f_median", "shuffled_f_high", "shuffled_p")
        known |= {f"fit{k}.{name}": getattr(analysis.fits[k - 1], name) for name in names}
    return known


def test_numbers_of_the_weights_are_recomputed_from_the_record(experiment, page):
    for run in read_experiment(experiment):
        for quantity, value in recomputed(run).items():
            shown = page.find(run.name, quantity)
            assert len(shown) == 1, (run.name, quantity)
            parts = [float(part) for part in shown[0].split()]
            np.testing.assert_allclose(parts, value, rtol=1e-9, atol=1e-9, err_msg=quantity)


def test_no_number_of_the_weights_is_left_unchecked(experiment, page):
    run = read_experiment(experiment)[0]
    checked = set(recomputed(run))
    shown = {each["data-quantity"] for each in page.numbers if "data-pair" in each}
    shown = {quantity.removeprefix("fig3.") for quantity in shown}
    pair = analyse_head(run).pairs[0]
    for name in ("r", "r_null", "displacement_ratio"):
        assert page.find(run.name, f"fig3.{name}") == [repr(getattr(pair, name))]
    assert shown - {"abs_residual"} <= checked


def test_slice_accuracy_is_recomputed_from_the_logits(experiment, page):
    for run in read_experiment(experiment):
        with np.load(run.path / "features.npz") as stored:
            test = stored["subset"] == "test"
            right = stored["logits"][test].argmax(axis=1) == stored["label"][test]
        for shown in page.find(run.name, "test_slice_accuracy"):
            assert float(shown) == pytest.approx(right.mean(), abs=1e-12)
        assert page.find(run.name, "test_slices") == [str(int(test.sum()))]


def test_figures_of_the_table_are_those_of_the_metrics(experiment, page):
    for run in read_experiment(experiment):
        for name in ("slice_accuracy", "subject_accuracy", "slice_auc", "subject_auc"):
            for part, suffix in (("value", ""), ("low", "_low"), ("high", "_high")):
                shown = page.find(run.name, f"test_{name}{suffix}")
                stored = run.metrics["test"][name][part]
                assert set(map(float, shown)) == (set() if stored is None else {stored})
        assert page.find(run.name, "train_seconds") == [repr(run.metrics["train_seconds"])]


def test_numbers_of_the_chapters_are_those_of_the_analyses(experiment, page):
    runs = read_experiment(experiment)
    for run in runs:
        analyses = {
            "logits.test.silhouette": analyse_features(run).logits.silhouette,
            "features.test.effective_rank": analyse_features(run).features.effective_rank,
            "test.nc1": analyse_collapse(run, "test").nc1,
            "train.nc3": analyse_collapse(run, "train").nc3,
            "temperature": analyse_calibration(run).temperature,
            "row.AD.sd": analyse_head(run).rows[1].sd,
            "test_subject_mcc": run.metrics["test"]["subject_mcc"]["value"],
        }
        for quantity, value in analyses.items():
            assert page.find(run.name, quantity) == [repr(value)], (run.name, quantity)
    for row in compare_runs(runs).rows:
        pair = f"{row.first} | {row.second} | {row.split}"
        shown = page.find(pair, "difference.subject_accuracy")
        assert shown == [repr(100 * row.subject_accuracy.value)]
    for test in stored_leakage(experiment).reidentification:
        shown = page.find(test.run, "linear_subject.accuracy")
        assert shown == [repr(test.linear_subject.accuracy)]


def test_features_that_carry_a_class_are_those_of_the_test_slices(experiment, page):
    for run in read_experiment(experiment):
        stored, k = run.features, run.class_names.index("AD")
        mine = (stored["subset"] == "test") & (stored["label"] == k)
        share = run.head["weight"][k] * stored["features"][mine].mean(axis=0, dtype=np.float64)
        j = int(np.abs(share).argmax())
        (shown,) = page.find(run.name, f"carrier.AD.{j}.contribution")
        assert float(shown) == pytest.approx(share[j], rel=1e-6)


def test_thresholds_name_the_class_and_rows_the_distance(experiment, page):
    assert "a subject&#39;s probability of AD" in words_of(
        experiment / "report.html", "calibration"
    )
    for run in read_experiment(experiment):
        for row in analyse_head(run).rows:
            assert page.find(run.name, f"row.{row.class_name}.ks") == [repr(row.ks)]


def test_counts_of_the_cohort_are_those_of_the_predictions(experiment, page):
    run = next(run for run in read_experiment(experiment) if "slice" in run.name)
    for (subset, label), rows in run.predictions.groupby(["subset", "label"]):
        assert page.find(run.name, f"slices.{subset}.{label}") == [str(len(rows))]
        people = str(rows["subject_id"].nunique())
        assert page.find(run.name, f"subjects.{subset}.{label}") == [people]


def test_verdict_names_subjects_interval_and_the_leakage_gap(experiment, page):
    words = verdict_of(experiment / "report.html")
    assert "subjects never seen in training" in words
    assert "95% interval" in words
    runs = {run.name: run for run in read_experiment(experiment)}
    claim, honest = (
        runs[f"tf_efficientnet_lite0-frozen-{split}-seed0"].metrics["test"]["slice_accuracy"]
        for split in ("slice", "subject")
    )
    gap = 100 * (claim["value"] - honest["value"])
    (found,) = stored_leakage(experiment).gaps
    low = found.scores["slice_accuracy"].low
    kind = "a leakage gap" if low > 0 else "a difference, not told from none,"
    kind = kind if gap > 0 else "no gap, but a difference"
    assert f"{kind} of {gap:.1f} points".replace("-", "−") in words
    shown = page.find("tf_efficientnet_lite0-frozen", "gap.slice_accuracy")
    assert shown and [float(value) for value in shown] == pytest.approx([gap] * len(shown))
    chosen = max(
        (run for run in runs.values() if "subject" in run.name),
        key=lambda run: run.metrics["val"]["subject_auc"]["value"],
    )
    assert f"({chosen.settings['regime']}) predicted the class of" in words
    assert "for all gives" in words


def verdict_of(page_path):
    """The words of the verdict, without the tags."""
    return words_of(page_path, "verdict")


def words_of(page_path, section):
    """The words of a section of the page, without the tags."""
    text = page_path.read_text(encoding="utf-8")
    start = text.index(f'id="{section}"')
    ends = [text.find(mark, start) for mark in ("<section", '<details class="chapter"')]
    end = min((end for end in ends if end > 0), default=len(text))
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", text[start:end]))


@pytest.mark.usefixtures("undrawn")
def test_a_verdict_of_noise_says_no_better_than_chance(tmp_path):
    write_synthetic_run(tmp_path, width=8, epochs=1, signal=0.0)
    words = verdict_of(write_report(tmp_path))
    assert "no better than chance (p = " in words


@pytest.mark.usefixtures("undrawn")
def test_a_verdict_of_a_strong_signal_says_above_chance(tmp_path):
    write_synthetic_run(tmp_path, width=64, subjects=60, signal=7.0)
    words = verdict_of(write_report(tmp_path))
    assert "no better than chance" not in words
    assert ", better than chance (p &lt; 0.001, labels permuted among subjects)." in words


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("signals", "told"), [((2.6, 2.6), False), ((0.0, 9.0), True)])
def test_a_verdict_tells_rivals_apart_only_where_the_subjects_do(tmp_path, signals, told):
    for regime, signal in zip(("frozen", "finetune"), signals, strict=True):
        write_synthetic_run(
            tmp_path, regime=regime, signal=signal, width=64, subjects=90, same_split=True
        )
    words = verdict_of(write_report(tmp_path))
    assert ("cannot be told apart from" in words) is not told
    assert ("By subject accuracy it is better than frozen" in words) is told


@pytest.mark.usefixtures("undrawn")
def test_failed_runs_are_named_beside_the_table(tmp_path):
    write_synthetic_run(tmp_path, width=8, epochs=1)
    write_failures(tmp_path, {"vgg19-frozen": "The weights <are> missing."})
    path = write_report(tmp_path)
    words = words_of(path, "results")
    assert "1 of 2 runs failed" in words_of(path, "top")
    assert "1 of the planned runs failed" in words
    assert "vgg19-frozen: The weights &lt;are&gt; missing." in words


@pytest.mark.parametrize(
    ("gap", "low", "high", "words"),
    [
        (
            0.2,
            0.1,
            0.3,
            "a leakage gap of 20.0 points (95% interval 10.0 to 30.0, of these networks).",
        ),
        (0.2, -0.1, 0.5, "a difference, not told from none, of 20.0 points (95% interval −10.0"),
        (-0.1, -0.2, 0.1, "no gap, but a difference of −10.0 points (95%"),
        (0.2, np.nan, np.nan, "a difference of 20.0 points, whose interval cannot be told."),
    ],
)
def test_a_verdict_calls_leakage_what_its_interval_carries(gap, low, high, words):
    figure = GapScore((0.5,), (0.5 + gap,), gap, low, high)
    found = Gap("net", "frozen", (0,), 30, {"slice_accuracy": figure})
    said = re.sub(
        r"<[^>]*>", "", _claimed(SimpleNamespace(architecture="net", name="frozen"), [found])
    )
    assert words in said


def gap_of(variant, gap, low, high, constant=((False, False),)):
    figure = GapScore((0.5,), (0.5 + gap,), gap, low, high)
    return Gap("net", variant, (0,), 30, {"slice_accuracy": figure}, constant)


def test_a_verdict_looks_at_every_gap_and_at_none_beside_a_constant():
    """The chosen setting has no gap, another has one of 27 points; two constants have none."""
    chosen = SimpleNamespace(architecture="net", name="frozen")
    plain, wide = gap_of("frozen", -0.1, -0.2, 0.1), gap_of("scratch", 0.27, 0.2, 0.35)
    constants = gap_of("frozen", 0.14, np.nan, np.nan, ((True, True),))
    said = [
        re.sub(r"<[^>]*>", "", _claimed(chosen, gaps))
        for gaps in ([plain, wide], [constants, wide], [constants], [plain, constants])
    ]
    assert "net (frozen) would have claimed" in said[0] and "no gap, but a difference" in said[0]
    assert "Of the 2 settings measured under both splits, 1 shows a leakage gap" in said[0]
    assert "most clearly net (scratch): 27.0 points (95% interval 20.0 to 35.0" in said[0]
    assert said[1].startswith("Of net (frozen) no gap can be measured")
    assert "14" not in said[1] and "net (scratch) would have claimed" in said[1]
    assert "there is no gap to be measured" in said[2] and "points" not in said[2]
    assert "settings measured" not in said[3]


@pytest.mark.usefixtures("undrawn")
def test_the_page_says_what_makes_a_subject_and_what_lies_between_seeds(tmp_path):
    for seed in (0, 1):
        for regime in ("frozen", "finetune"):
            write_synthetic_run(
                tmp_path, regime=regime, width=8, epochs=1, seed=seed, same_split=True
            )
    for path in tmp_path.glob("runs/*/run.toml"):
        more = 'weights_sha256 = "0a"\nslicing = { of = "scans", count = 30 }\n'
        path.write_text(path.read_text() + more)
        reseal(path.parent)
    for seed in (0, 1):  # without a file of weights each seed draws a backbone of its own
        write_synthetic_run(tmp_path, architecture="alexnet", width=8, epochs=1, seed=seed)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    result = next(
        result for result in setting_results(read_experiment(tmp_path))
        if (result.architecture, result.name) == ("tf_efficientnet_lite0", "frozen")
    )  # fmt: skip
    shown = page.find(result.key, "test_slice_accuracy")
    assert {float(value) for value in shown} == {result.scores["slice_accuracy"].value}
    assert "of scans, count 30" in words_of(tmp_path / "report.html", "settings")
    results = words_of(tmp_path / "report.html", "results")
    assert "probability is the mean over its slices" in results
    results = words_of(tmp_path / "report.html", "scores")
    assert "of the AUC: bootstrap over subjects; both corrected" in results
    assert "DeLong" not in results
    # Frozen rows are compared between seeds, of which feature j is the same; no others are.
    first, second = (run.head["weight"] for run in read_experiment(tmp_path)
                     if "weights_sha256" in run.settings
                     and run.settings["regime"] == "frozen")  # fmt: skip
    for k, name in enumerate(("NC", "AD")):
        for what, part in (("row", np.eye(2)), ("learned", np.eye(2) - 0.5)):
            (shown,) = page.find(
                "tf_efficientnet_lite0/frozen, subject split", f"between_seeds.{name}.{what}"
            )
            expected = np.corrcoef(part[k] @ first, part[k] @ second)[0, 1]
            assert float(shown) == pytest.approx(expected, abs=1e-6)
    known = {each["data-run"] for each in page.numbers if "between_seeds" in each["data-quantity"]}
    assert known == {"tf_efficientnet_lite0/frozen, subject split"}


@pytest.mark.usefixtures("undrawn")
def test_several_classes_are_not_told_that_training_forces_their_correlation(tmp_path):
    write_synthetic_run(tmp_path, width=300, class_names=("NC", "MCI", "AD"))
    words = words_of(write_report(tmp_path), "weights")
    assert "nothing about MRI" not in words
    assert "training forces no correlation of two rows" in words and "of 3 pairs" in words
    assert "than in heads retrained on labels permuted by subject" in words
    assert "along the falling diagonal" not in words


@pytest.mark.usefixtures("undrawn")
def test_a_verdict_counts_many_rivals(tmp_path):
    for k in range(5):
        write_synthetic_run(tmp_path, width=8, epochs=1, name=f"row{k}", same_split=True)
    words = verdict_of(write_report(tmp_path))
    assert "cannot be told apart from any of the 4 others" in words


def test_a_verdict_without_a_mixed_split_says_that_its_claim_is_not_known(tmp_path):
    write_synthetic_run(tmp_path, width=8, epochs=1)
    assert "was not measured" in verdict_of(write_report(tmp_path))


@pytest.mark.usefixtures("undrawn")
def test_verdict_tells_a_head_that_departs_from_one_that_sgd_trained(tmp_path):
    run = write_synthetic_run(tmp_path, width=512)
    words = words_of(write_report(tmp_path), "weights")
    assert "is the one that the training rule forces" in words
    assert "departs from the one" not in words
    with np.load(run.path / "head.npz") as stored:
        head = dict(stored)
    head["weight"] = head["weight"] - 0.8 * head["weight"].mean(axis=0)  # a fifth of the row sum
    np.savez(run.path / "head.npz", **head)
    reseal(run.path)
    words = words_of(write_report(tmp_path), "weights")
    assert "departs from the one that the training rule forces" in words
    assert f"The sum of the rows moved in {run.name}" in words


@pytest.mark.usefixtures("undrawn")
def test_folds_are_counted_apart_and_pooled(tmp_path):
    runs = [
        write_synthetic_run(tmp_path, width=32, fold=(k, 3), regime=regime, signal=signal)
        for k in range(3)
        for regime, signal in (("frozen", 6.0), ("scratch", 0.5))
    ]
    page_path = write_report(tmp_path)
    page, words = Page(page_path.read_text(encoding="utf-8")), verdict_of(page_path)
    for k, run in enumerate(runs[::2]):
        rows = run.predictions[run.predictions["subset"] == "test"]
        for label, part in rows.groupby("label"):
            people = str(part["subject_id"].nunique())
            assert page.find(run.name, f"subjects.test.{label}") == [people]
        assert f"subject, fold {k} of 3, seed 0" in page_path.read_text(encoding="utf-8")
    tests = pd.concat(run.predictions[run.predictions["subset"] == "test"] for run in runs[::2])
    assert tests["subject_id"].nunique() == 30
    right = tests["label"] == tests["predicted"]
    by_subject = tests.groupby("subject_id")
    says_ad = by_subject["probability_AD"].mean() > 0.5
    people_right = (says_ad == (by_subject["label"].first() == "AD")).mean()
    setting = "tf_efficientnet_lite0-frozen-subject"
    slices, people = (set(page.find(setting, f"test_{name}_accuracy")) for name in
                      ("slice", "subject"))  # fmt: skip
    assert [float(value) for value in slices] == [pytest.approx(right.mean(), abs=1e-12)]
    assert [float(value) for value in people] == [pytest.approx(people_right, abs=1e-12)]
    assert "Pooled over the tests of 3 folds (30 subjects never seen in training)" in words
    assert "of the 2 settings that keep subjects apart and ran on the same splits" in words
    assert "over seeds" not in words


@pytest.mark.usefixtures("undrawn")
def test_validation_is_never_compared_between_seeds(tmp_path):
    for seed in (0, 1):
        write_synthetic_run(tmp_path, width=8, epochs=1, seed=seed)
    write_synthetic_run(tmp_path, width=8, epochs=1, regime="scratch", signal=9.0)  # seed 0 alone
    words = verdict_of(write_report(tmp_path))
    assert "On average over 2 seeds" in words and "(frozen) predicted the class" in words


@pytest.mark.usefixtures("undrawn")
def test_settings_on_different_splits_are_not_ranked(tmp_path):
    for seed, regime in enumerate(("frozen", "scratch")):
        write_synthetic_run(tmp_path, width=8, epochs=1, seed=seed, regime=regime)
    words = verdict_of(write_report(tmp_path))
    assert "(frozen) predicted the class" in words and "It has the highest" not in words


def test_page_loads_nothing(page, experiment):
    assert page.loads
    for load in page.loads:
        assert load.startswith(("data:", "#")), load[:80]
    assert not [tag for tag, _ in page.tags if tag in {"iframe", "object", "embed"}]
    scripts = [known for tag, known in page.tags if tag == "script"]
    assert scripts == [{"type": "application/json", "id": "data"}, {}]  # data, and our own
    text = (experiment / "report.html").read_text(encoding="utf-8")
    css = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in css and "@import" not in css
    assert "https://" not in text and "http://" not in text


def test_every_picture_has_words(page):
    pictures = [known for tag, known in page.tags if tag == "img"]
    assert len(pictures) == 4 + 4
    for known in pictures:
        assert len(known["alt"]) > 40
        assert known["src"].startswith("data:image/png;base64,")
    drawn = [known for tag, known in page.tags if tag == "svg"]
    assert len(drawn) > 20
    assert all("aria-label" in known or "aria-hidden" in known or known.get("y") for known in drawn)


def test_contents_lead_to_sections(page):
    ids = {known["id"] for _, known in page.tags if "id" in known}
    links = {known["href"] for tag, known in page.tags if tag == "a" and "download" not in known}
    assert links and links <= {f"#{name}" for name in ids}


@pytest.mark.usefixtures("undrawn")
def test_simulated_cohorts_are_announced_and_real_ones_are_not(experiment, tmp_path):
    banner = "The cohort is simulated:"
    assert banner in (experiment / "report.html").read_text(encoding="utf-8")
    write_synthetic_run(tmp_path, width=8, epochs=1, simulated=False)
    assert banner not in write_report(tmp_path).read_text(encoding="utf-8")


def test_tables_and_figures_lie_beside_the_page(experiment):
    table = pd.read_csv(experiment / "table.tsv", sep="\t")
    assert len(table) == 4
    assert (experiment / "table.md").read_text(encoding="utf-8").startswith("| Network |")
    assert not (experiment / "figures").exists()  # the page draws, `headscope figures` writes


@pytest.mark.usefixtures("undrawn")
def test_frozen_runs_show_their_certificate(experiment, tmp_path):
    text = (experiment / "report.html").read_text(encoding="utf-8")
    assert text.count(">identical, to the bit<") == 2
    assert "2 of 2 identical, to the bit" in text
    run = write_synthetic_run(tmp_path, width=8, epochs=1)
    path = run.path / "metrics.json"
    path.write_text(path.read_text().replace('"identical": true', '"identical": false'))
    reseal(run.path)
    assert "this run was not frozen" in write_report(tmp_path).read_text(encoding="utf-8")


@pytest.mark.usefixtures("undrawn")
def test_hostile_names_stay_text(tmp_path):
    write_synthetic_run(
        tmp_path, width=16, epochs=2, class_names=HOSTILE, subject_prefix="<i>sub</i>-"
    )
    text = write_report(tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert not [tag for tag, _ in page.tags if tag == "i"]
    assert len([tag for tag, _ in page.tags if tag == "script"]) == 2
    assert not [known for _, known in page.tags if "onerror" in known]


@pytest.mark.usefixtures("undrawn")
def test_three_classes_show_all_pairs_and_each_number_once(tmp_path):
    run = write_synthetic_run(tmp_path, width=24, class_names=("NC", "MCI", "AD"))
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    for pair in ((0, 1), (0, 2), (1, 2)):
        shown = {
            each["data-quantity"]: float(each["data-value"])
            for each in page.numbers
            if each.get("data-pair") == f"{pair[0]},{pair[1]}" and " " not in each["data-value"]
        }
        weight = run.head["weight"].astype(float)
        expected = np.corrcoef(weight[pair[0]], weight[pair[1]])[0, 1]
        assert shown["r"] == pytest.approx(expected, abs=1e-12)
        assert shown["r_null"] == analyse_pair(run, pair).r_null


@pytest.mark.usefixtures("undrawn")
def test_fourteen_classes_are_told_from_chance_and_shown_class_by_class(tmp_path):
    names = [f"class{k:02d}" for k in range(14)]
    run = write_synthetic_run(tmp_path, width=200, class_names=names, subjects=112, signal=4.0)
    path = write_report(tmp_path)
    page, test = Page(path.read_text(encoding="utf-8")), run.metrics["test"]
    assert "mean of 14 classes each against the rest, is" in verdict_of(path)
    assert ", better than chance (p " in verdict_of(path)
    table = np.array(test["slice_confusion"])
    np.fill_diagonal(table, 0)
    shown = {
        each["data-quantity"]: each["data-value"]
        for each in page.numbers
        if each["data-quantity"].startswith(("confusion.", "class."))
    }
    counts = [int(n) for key, n in shown.items() if key.endswith(".slices") and "confusion" in key]
    assert counts == sorted(table.ravel().tolist(), reverse=True)[: len(counts)]
    assert 0 < len(counts) <= 10
    for k, name in enumerate(names):
        for level in ("slice", "subject"):
            expected = test[f"{level}_per_class"][name]["auc"]["value"]
            assert float(shown[f"class.{name}.{level}_auc"]) == expected
        assert int(shown[f"class.{name}.slices"]) == sum(test["slice_confusion"][k])
    words = words_of(path, "weights")
    assert "The distribution of each row" in words and "of five classes at most" in words
    assert "Here are 14 classes" in words and "go towards −1/13" in words
    assert "The first 10 of 14 rows are shown." in words
    assert "chosen on validation too" not in words_of(path, "calibration")


@pytest.mark.usefixtures("undrawn")
def test_a_class_with_one_tested_subject_or_none_is_named(tmp_path):
    names = ("NC", "MCI", "AD", "FTD", "DLB")
    run = write_synthetic_run(tmp_path, width=24, epochs=1, class_names=names, subjects=21)
    metrics = run.metrics
    assert np.sum(metrics["test"]["subject_confusion"], axis=1).tolist() == [1] * 5
    for level in ("slice", "subject"):
        metrics["test"][f"{level}_confusion"][3] = [0] * 5
    write_json(run.path / "metrics.json", metrics)
    reseal(run.path)
    path = write_report(tmp_path)
    words = words_of(path, "scores")
    assert "has a single subject of NC, MCI, AD, DLB: how subjects" in words
    assert "has no slices of FTD: no mean" in words
    assert "no better than chance (p = " in verdict_of(path)
    assert "(no interval can be given)" in verdict_of(path)


@pytest.mark.usefixtures("undrawn")
def test_seeds_and_rows_of_the_same_regime_stand_side_by_side(tmp_path):
    for seed in (0, 1):
        write_synthetic_run(tmp_path, width=8, epochs=1, seed=seed, architecture="timm/tiny")
    write_synthetic_run(tmp_path, width=8, epochs=2, architecture="timm/tiny", name="frozen-long")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "seeds 0, 1" in text
    assert "frozen-long <small>frozen</small>" in text


@pytest.mark.usefixtures("undrawn")
def test_a_record_without_an_initial_head_says_what_the_null_rests_on(tmp_path):
    write_synthetic_run(tmp_path, width=32, epochs=2, record_initial=False)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "observed row sum" in text
    assert "No initial head is recorded" in text
    assert "undefined" in text


@pytest.mark.usefixtures("undrawn")
def test_runs_that_all_mix_subjects_give_no_honest_number(tmp_path):
    write_synthetic_run(tmp_path, width=8, epochs=1, split="slice")
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "none of these accuracies says how the network would do on new subjects" in text


def test_the_same_record_gives_the_same_bytes(tmp_path):
    write_synthetic_run(tmp_path, width=16, epochs=2)
    first = write_report(tmp_path).read_bytes()
    assert write_report(tmp_path).read_bytes() == first


def test_save_figure_writes_both_formats_and_leaves_no_scraps(tmp_path, experiment):
    figure = plot_history(read_experiment(experiment)[0].history)
    svg = save_figure(figure, tmp_path / "resnet50.v1")
    assert svg == tmp_path / "resnet50.v1.svg"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "resnet50.v1.png",
        "resnet50.v1.svg",
    ]
    assert svg.read_text(encoding="utf-8").startswith("<?xml")


@pytest.mark.usefixtures("undrawn")
def test_no_experiment_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="is no experiment"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.0123456, "0.0123"),
        (-0.98, "−0.980"),
        (1.46e-7, "1.46 × 10⁻⁷"),
        (12345.6, "12,346"),
        (float("nan"), "undefined"),
        (float("-inf"), "−∞"),
    ],
)
def test_numbers_are_set_with_three_digits(value, text):
    assert significant(value) == text


def test_numbers_carry_their_whole_value():
    cell = number(1 / 3, 'a"run', "r", "correlation", (0, 1))
    assert 'data-value="0.3333333333333333"' in cell and ">0.3333<" in cell
    assert 'data-run="a&#34;run"' in cell and 'data-pair="0,1"' in cell
    assert ">0.0000<" in number(-1e-9, "run", "r", "correlation")
    assert probability(1e-9) == "< 0.001"


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 800, 390])
def test_a_browser_shows_the_page_whole(browser, experiment, width):
    complaints = []
    view = browser.new_page(viewport={"width": width, "height": 900})
    view.on("console", lambda message: complaints.append(message.text))
    view.on("pageerror", lambda error: complaints.append(str(error)))
    requests = []
    view.on("request", lambda request: requests.append(request.url))
    view.goto((experiment / "report.html").as_uri())
    view.wait_for_load_state("load")
    overflow = view.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    sizes = view.evaluate(
        "[...document.querySelectorAll('img, svg')].map(each => [each.naturalWidth ?? 1,"
        " each.getBoundingClientRect().width, each.getBoundingClientRect().height])"
    )
    shades = view.evaluate("[...document.querySelectorAll('.box')].map("
                           "each => getComputedStyle(each).backgroundAttachment)")  # fmt: skip
    scripted = view.evaluate("document.querySelectorAll('figure.scatter canvas').length")
    view.emulate_media(media="print")
    printed = view.evaluate("[...document.querySelectorAll('.box')].map("
                            "each => getComputedStyle(each).backgroundImage)")  # fmt: skip
    # a button in the head of a table is not repeated on the table's next page, plain text is
    titles = view.evaluate("[...document.querySelectorAll('thead .sort')].map("
                           "each => getComputedStyle(each).display)")  # fmt: skip
    view.close()
    assert set(titles) == {"contents"}
    assert scripted == 8  # the policy lets the page's own script run
    assert set(shades) == {"local, local, scroll, scroll"}
    assert set(printed) == {"none"}
    assert complaints == []
    assert [url[:5] for url in requests if not url.startswith("data:")] == ["file:"]
    assert overflow <= 0
    assert len(sizes) > 9
    assert all(min(size) > 0 for size in sizes)


def test_figures_and_tables_are_numbered_as_they_stand_and_links_name_them(experiment):
    text = (experiment / "report.html").read_text(encoding="utf-8")
    ids = re.findall(r' id="((?:figure|table)-[\w-]+)"', text)
    assert len(ids) == len(set(ids)) > 20
    for kind in ("Figure", "Table"):
        labels = re.findall(rf"<b>{kind} (\d+)([a-z]*)\.</b>", text)
        first = list(dict.fromkeys(int(n) for n, _ in labels))
        assert first == list(range(1, len(first) + 1))
        for count in first:
            letters = [letter for n, letter in labels if int(n) == count]
            assert letters == ([""] if len(letters) == 1 else list("abcdefgh"[: len(letters)]))
    links = re.findall(r'<a href="#((?:figure|table)-[\w-]+)">(.*?)</a>', text)
    assert {"figure-fig3", "table-results", "figure-fig2"} <= {name for name, _ in links}
    for name, shown in links:
        place = text.index(f' id="{name}"')
        assert re.search(r"<b>((?:Figure|Table) \d+)", text[place:])[1] == shown


def test_a_cell_above_reaches_down_and_a_letter_follows_z():
    table = Table("t", ("Split", "Subset"), [["a", "x"], [ABOVE, "y"], ["b", "z"]])
    first, second, third = TableBlock("t", table).body
    assert [cell.rows for cell in first] == [2, 1] and len(second) == 1
    assert "last" in third[0].style and "last" not in first[0].style
    assert [letter_of(k) for k in (0, 25, 26, 52)] == ["a", "z", "aa", "ba"]


def test_a_reference_to_what_is_not_on_the_page_is_an_error():
    chapters = [Chapter("c", "C", [Text(refer("table-nowhere"))])]
    with pytest.raises(KeyError, match="table-nowhere"):
        render.render_page(render.Page("n", "k", "t", "l", [], chapters, "f"))


def test_a_page_may_load_nothing():
    html = render.render_page(render.Page("x", "k", "t", "l", ["<script>1</script>"], [], "f"))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert f'http-equiv="Content-Security-Policy" content="{policy}' in html
    assert html.index("Content-Security-Policy") < html.index("<style")
    assert "<script" not in html


@pytest.mark.browser
@pytest.mark.parametrize(
    ("scheme", "widths"), [("light", (390, 1280)), ("dark", (768, 1920))], ids=["light", "dark"]
)
def test_axe_finds_nothing_serious_and_the_page_answers_pointer_and_keys(
    browser, small, scheme, widths
):
    experiment = small
    axe = pytest.importorskip("axe_playwright_python.base").AXE_SCRIPT
    context = browser.new_context(bypass_csp=True, color_scheme=scheme)
    view = context.new_page()
    view.goto((experiment / "report.html").as_uri())
    view.evaluate(axe)
    wrong = []
    for width in widths:
        view.set_viewport_size({"width": width, "height": 800})
        for opened in ("false", "true"):
            view.evaluate(f"document.querySelectorAll('details').forEach(d => d.open = {opened})")
            found = view.evaluate(
                "axe.run({resultTypes: ['violations']}).then(result => result.violations)"
            )
            wrong += [(rule["id"], rule["nodes"][0]["html"][:100]) for rule in found
                      if rule["impact"] in ("serious", "critical")]  # fmt: skip
    figure = view.locator("figure.scatter[data-kind=logits]").first
    run = Run(experiment / "runs" / str(figure.get_attribute("data-run")))
    canvas = figure.locator("canvas")
    canvas.focus()
    view.keyboard.press("ArrowRight")
    shown = view.locator(".tip").inner_text()
    view.keyboard.press("Escape")
    hidden = view.locator(".tip").is_hidden()
    view.locator("#table-results button", has_text="Copy LaTeX").click()
    view.wait_for_function("document.documentElement.dataset.copied")
    latex = view.evaluate("document.documentElement.dataset.copied")
    view.evaluate("document.documentElement.dataset.copied = ''")
    view.locator("#table-results button", has_text="Copy TSV").click()
    view.wait_for_function("document.documentElement.dataset.copied")
    copied = view.evaluate("document.documentElement.dataset.copied")
    subject = str(run.predicted("test")["subject_id"].iloc[0])
    view.goto(f"{(experiment / 'report.html').as_uri()}#subject={subject}")
    view.reload()
    strip = view.locator("#strip").inner_text()
    context.close()
    assert wrong == []
    first = run.features["logits"][run.features["subset"] == "test"]
    least = first[first[:, 0].argmin()]
    assert f"logits {least[0]:.2f}, {least[1]:.2f}" in shown and hidden
    assert strip.startswith(f"{subject}: 12 test slices")
    table = pd.read_csv(experiment / "table.tsv", sep="\t")
    rows = [line.split("\t") for line in copied.splitlines()][1:]
    for row, stored in zip(rows, table.to_dict("records"), strict=True):
        assert float(row[6]) == stored["test_slice_accuracy"]
        assert float(row[7]) == stored["test_subject_accuracy"]
    body = [line for line in latex.splitlines() if line.count(" & ") > 5][1:]
    for line, stored in zip(body, table.to_dict("records"), strict=True):
        cells = line.split(" & ")
        low, high = (f"{100 * stored[f'test_slice_accuracy_{end}']:.1f}" for end in ("low", "high"))
        value = f"{100 * stored['test_slice_accuracy']:.1f}"
        assert cells[6] == f"{value} {low}--{high}"
