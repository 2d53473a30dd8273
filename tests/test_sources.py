"""Each number of the page names file and key, and that place holds the very number."""

import html
import json
import re

import pandas as pd
import pytest

from headscope.files import read_table
from headscope.reporting import write_report
from headscope.reporting.numbers import source_of
from tests.support.synthetic import write_experiment, write_synthetic_run

pytestmark = pytest.mark.usefixtures("undrawn")
NUMBER = re.compile(r'data-run="([^"]*)" data-quantity="([^"]*)" data-value="([^"]*)"')
OF_SETTINGS = ("<header>", 'class="verdict"', '<section id="results">', '<section id="checks">')


def numbers_of(page):
    """Return kind, run, quantity and value of each number, the kind as the page's script has it."""
    text = page.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])["sources"]
    parts = re.split(r'(?=<header>|<details class="verdict"|<section id=)', text)
    rows = []
    for part in parts:
        of_setting = any(mark in part[:60] for mark in OF_SETTINGS)
        for match in NUMBER.findall(part):
            run, quantity, value = map(html.unescape, match)
            kind = "many" if of_setting and run not in data["single"] else "one"
            rows.append((kind, run, quantity, value))
    return rows, data["rules"]


def at(folder, file, key):
    """Return what a file holds under a key, or None where the key is in words."""
    if file == "table.tsv" and (match := re.fullmatch(r"row (.+), column (\w+)", key)):
        table = read_table(folder / file)
        return table.loc[table["run"] == match[1], match[2]].item()
    if not file.endswith(".json"):
        return None
    value = json.loads((folder / file).read_text(encoding="utf-8"))
    if match := re.fullmatch(r"gaps of (.+): (scores\.\w+\.\w+) × 100", key):
        named = {f"{gap['architecture']}-{gap['variant']}": gap for gap in value["gaps"]}
        value = next(gap for name, gap in named.items() if match[1].startswith(name))
        return 100 * descend(value, match[2].split("."))
    if match := re.fullmatch(r"reidentification, run (.+): (.+)", key):
        rows = [row for row in value["reidentification"] if row["run"] == match[1]]
        return descend(rows[0], match[2].split("."))
    return descend(value, key.split(".")) if re.fullmatch(r"[\w.]+", key) else None


def descend(value, names):
    for name in names:
        value = value[name]
    return value


def check(folder):
    """Hold every number whose key names one value against the record; return what was held."""
    held, (rows, rules) = set(), numbers_of(write_report(folder))
    for kind, run, quantity, shown in rows:
        file, key = source_of(f"{kind}\t{run}\t{quantity}", rules)
        assert file and key, (run, quantity)
        stored = at(folder, file, key)
        if stored is None or pd.isna(stored):
            continue
        assert float(shown) == pytest.approx(float(stored), rel=1e-14), (file, key)
        held.add((file, key))
    return held


def test_every_number_names_its_place_in_the_record(tmp_path):
    folder = write_experiment(tmp_path, width=16, epochs=2, subjects=24)
    held = check(folder)
    frozen = "tf_efficientnet_lite0-frozen-subject-seed0"
    metrics = f"runs/{frozen}/metrics.json"
    assert (metrics, "test.subject_accuracy.value") in held
    assert (metrics, "test.slice_auc.low") in held
    assert ("table.tsv", f"row {frozen}, column subject_majority") in held
    assert (
        "leakage.json",
        "gaps of tf_efficientnet_lite0-frozen: scores.slice_auc.gap × 100",
    ) in held
    assert len(held) > 100


def test_a_pooled_number_is_of_the_table_and_a_run_s_own_of_its_metrics(tmp_path):
    for seed in (0, 1):
        for fold in (0, 1, 2):
            write_synthetic_run(
                tmp_path, width=16, epochs=2, subjects=24, seed=seed, fold=(fold, 3)
            )
    held = check(tmp_path)
    assert ("table.tsv", "test_subject_accuracy") in {
        (file, key.rpartition(" ")[2]) for file, key in held
    }
    runs = {file for file, _ in held if file.endswith("metrics.json")}
    assert len(runs) == 6
