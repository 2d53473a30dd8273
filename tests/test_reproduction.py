"""docs/reproduction.md holds what bench/results/reproduction has, and what follows from it."""

import importlib.util
import sys
import tomllib
from math import nan
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location(
    "reproduction_page", ROOT / "bench" / "reproduction_page.py"
)
assert spec is not None and spec.loader is not None
page = importlib.util.module_from_spec(spec)
sys.modules["reproduction_page"] = page  # where its dataclasses look for their module
spec.loader.exec_module(page)
COMMON = ("count", "ratio", "schedule", "drop_every", "drop_factor", "momentum", "weight_decay",
          "batch_size")  # fmt: skip
CLAIMS = {claim.key: claim for claim in page.CLAIMS}


def measures(claim, *rows):
    """Return rows of measures.tsv from (compared, split, value, low, high, more)."""
    return pd.DataFrame([
        {"claim": claim, "compared": compared, "split": split, "experiment": "nichart-few",
         "architecture": f"network{k}", "value": value, "low": low, "high": high} | dict(*more)
        for k, (compared, split, value, low, high, *more) in enumerate(rows)
    ])  # fmt: skip


def both(compared, apart, mixed):
    """Return two rows under each split: values with their intervals."""
    return 2 * ((compared, "subject", *apart), (compared, "slice", *mixed))


UP, DOWN, OPEN = (0.2, 0.1, 0.3), (-0.2, -0.3, -0.1), (0.0, -0.1, 0.1)


def test_the_page_is_what_its_files_say():
    text = page.PAGE.read_text("utf-8")
    assert page.render(text, page.read_results()) == text
    assert {name for _, name, _ in page.MARKED.findall(text)} == page.SECTIONS.keys()


def test_a_number_changed_by_hand_is_noticed():
    text = page.PAGE.read_text("utf-8")
    changed = text.replace("| 93.2 |", "| 95.2 |").replace("93.2", "95.2")
    assert changed != text == page.render(changed, page.read_results())


@pytest.mark.parametrize(
    ("apart", "mixed", "control", "verdict"),
    [
        (UP, UP, (UP, UP), "holds"),
        (UP, OPEN, (OPEN, UP), "a consequence of the training rule"),
        (OPEN, UP, (OPEN, UP), "holds only with leakage"),
        (DOWN, UP, (DOWN, UP), "holds only with leakage"),
        (OPEN, UP, (UP, OPEN), "a consequence of the training rule"),
        (DOWN, OPEN, (UP, UP), "does not hold"),
        (OPEN, OPEN, (UP, UP), "not shown"),
        ((nan, nan, nan), (nan, nan, nan), (UP, UP), "not shown"),
    ],
)
def test_a_verdict_follows_from_intervals_and_control(apart, mixed, control, verdict):
    rows = both("finetune less frozen", apart, mixed)
    rows += both("finetune less frozen-long", *control)
    assert CLAIMS["better"].verdict(measures("better", *rows)) == verdict


def test_a_claim_needs_more_than_half_and_no_contradiction():
    claim, name = CLAIMS["matches"], "scratch less finetune"
    rows = [(name, "subject", *interval) for interval in (UP, UP, OPEN)]
    assert claim.verdict(measures("matches", *rows)) == "holds"
    rows[2] = (name, "subject", -0.2, -0.3, -0.1)  # beyond the margin of 5 points
    assert claim.verdict(measures("matches", *rows)) == "not shown"
    assert claim.verdict(measures("matches", *rows[1:])) == "not shown"
    assert claim.verdict(measures("matches", rows[2], rows[2])) == "does not hold"
    assert claim.verdict(measures("matches", rows[0])) == "not shown"  # one network alone


def test_what_was_not_run_is_said_so():
    for claim in page.CLAIMS:
        assert claim.verdict(None) == claim.verdict(measures("other", *both("x", UP, UP)))
        assert claim.verdict(None) == "not yet run"
    sections = {name: section({}) for name, section in page.SECTIONS.items()}
    assert all(
        "not " in sections[name].lower()
        for name in sections.keys() - {"leakage", "state", "figures"}
    )
    assert " 0 of " in sections["state"]


def test_a_line_that_only_training_draws_is_no_finding():
    line = CLAIMS["line"]

    def verdict(*rs):
        rows = [("scratch: r", "slice", r, nan, nan, {"departs": departs}) for r, departs in rs]
        return line.verdict(measures("line", *rows))

    assert verdict((-0.9, 0), (0.1, 0)) == "a consequence of the training rule"
    assert verdict((-0.9, 1)) == "holds" and verdict((0.1, 0)) == "does not hold"


def test_location_is_asked_of_networks_that_flatten():
    def verdict(*changes):
        rows = [
            ("frozen: change of the decision", "slice", change, nan, nan, {"averages": averages})
            for change, averages in changes
        ]
        return CLAIMS["location"].verdict(measures("location", *rows))

    assert verdict((1.2, 0), (0.9, 0), (0.0, 1)) == "does not hold"
    assert verdict((1.2, 0), (0.0, 1)) == "not shown"
    assert verdict((0.01, 0), (0.02, 0), (0.0, 1)) == "holds" and verdict((0.0, 1)) == "not yet run"


def test_the_settings_are_those_of_the_paper():
    paper = tomllib.loads((ROOT / "src/headscope/experiment/paper.toml").read_text("utf-8"))
    stands = {name: network for network, (pretrained, scratch) in page.STANDS.items()
              for name in (*pretrained, scratch)}  # fmt: skip
    networks = {"ResNet-101": "resnet101", "GoogLeNet": "googlenet", "VGG-19": "vgg19"}
    wanted = {
        (row["architecture"], row.get("name", row["regime"])): (row["epochs"], row["learning_rate"])
        for row in paper["rows"]
    }
    for network, regime, epochs, *_ in page.PAPER:
        name = {page.FROZEN: "frozen", page.FINE: "finetune", page.FEW: "scratch-few",
                page.MANY: "scratch-many"}[regime]  # fmt: skip
        assert wanted[networks[network], name][0] == epochs
    files = {file for experiment in page.EXPERIMENTS.values() for file in experiment.files}
    assert files == {path.stem for path in page.SETTINGS.glob("*.toml")}
    for file in files:
        settings = tomllib.loads((page.SETTINGS / f"{file}.toml").read_text("utf-8"))
        assert {name: settings[name] for name in COMMON} == {name: paper[name] for name in COMMON}
        assert settings["splits"] == ["subject", "slice"]
        for row in settings["rows"]:
            if row.get("name") != "frozen-long":
                few = "-few" if file.endswith("few") else "-many"
                name = row["regime"] + few * (row["regime"] == "scratch")
                given = row["epochs"], row["learning_rate"]
                assert given == wanted[networks[stands[row["architecture"]]], name]


def test_a_network_of_one_class_is_compared_with_nothing():
    rows = measures("matches", *both("scratch less finetune", UP, UP))
    table = {"architecture": "network0", "split": "subject", "name": ["scratch", "finetune"]}
    results = {"nichart-few": pd.DataFrame(table | {"one_class_runs": [0, 1]})}
    lost = [page._compares_constant(row, results) for row in rows.to_dict("records")]
    assert lost == [True, False, False, False]
