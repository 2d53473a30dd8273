"""The page in a browser and against the record: numbers, slices, hostile names, paper, files."""

import base64
import html
import json
import re

import numpy as np
import pandas as pd
import pytest

from headscope.files import read_table, write_json, write_table
from headscope.record import read_experiment
from headscope.reporting import write_report
from headscope.reporting.numbers import rules
from headscope.reporting.render import _as_json
from headscope.supplement.methods import methods
from headscope.supplement.prose import Facts
from headscope.supplement.study import read_study
from headscope.text import printable
from tests.support.records import reseal
from tests.support.synthetic import write_experiment, write_synthetic_run

SMALL = {"width": 16, "epochs": 2, "subjects": 24, "slices_each": 6}
SIDE = 64  # pixels of slices, and of thumbnails
LONG = "L" * 300
HOSTILE = ("<script>alert(1)</script>", "=1+1\u202e../../\"'", f"\U0001f642{LONG}")


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """Return, by name, the folder of an experiment whose report is written."""
    made = {}
    makers = {
        "demo": lambda folder: with_slices(write_experiment(folder, **SMALL)),
        "three classes": lambda folder: write_synthetic_run(
            folder, class_names=("NC", "MCI", "AD"), **SMALL
        ),
        "folds and seeds": folds_and_seeds,
        "no ids": without_ids,
        "hostile names": lambda folder: write_synthetic_run(
            folder, class_names=HOSTILE, subject_prefix="<i>s</i>&\u202e-", **SMALL
        ),
    }

    def get(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp("page") / name.replace(" ", "-")
            makers[name](made[name])
            write_report(made[name])
        return made[name]

    return get


def with_slices(folder):
    """Put beside the records slices that all differ: a light spot on a slope, each elsewhere."""
    count = len(read_experiment(folder)[0].predictions)
    across, down = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    pixels = np.empty((count, SIDE, SIDE), dtype=np.uint8)
    for n in range(count):
        x, y = 8 + n % 12 * 4, 8 + n // 12 * 4 % 48
        spot = 150 * np.exp(-((across - x) ** 2 + (down - y) ** 2) / 60)
        pixels[n] = 20 + spot + 60 * (across if n % 2 else down) / SIDE
    (folder / "slices").mkdir()
    np.save(folder / "slices" / "slices.npy", pixels)
    write_json(folder / "slices" / "slices.json", {"notes": []})


def folds_and_seeds(folder):
    for seed in (0, 1):
        for fold in (0, 1, 2):
            write_synthetic_run(folder, seed=seed, fold=(fold, 3), **SMALL)


def without_ids(folder):
    run = write_synthetic_run(folder, split="slice", **SMALL)
    write_table(run.path / "predictions.tsv", run.predictions.assign(subject_id="unknown"))
    reseal(run.path)


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


def source_of(name, patterns):
    """File and key of a number by kind, run and quantity, as the script of the page finds them."""
    for pattern, *places in patterns:
        if re.search(pattern, name):
            return [re.sub(pattern, re.sub(r"\$(\d)", r"\\g<\1>", p), name) for p in places]
    return "", ""


def check(folder):
    """Hold every number whose key names one value against the record; return what was held."""
    held, (rows, rules) = set(), numbers_of(folder / "report.html")
    for kind, run, quantity, shown in rows:
        file, key = source_of(f"{kind}\t{run}\t{quantity}", rules)
        assert file and key, (run, quantity)
        stored = at(folder, file, key)
        if stored is None or pd.isna(stored):
            continue
        assert float(shown) == pytest.approx(float(stored), rel=1e-14), (file, key)
        held.add((file, key))
    return held


def test_every_number_names_its_place_in_the_record(reported):
    held = check(reported("demo"))
    frozen = "tf_efficientnet_lite0-frozen-subject-seed0"
    metrics = f"runs/{frozen}/metrics.json"
    assert (metrics, "test.subject_accuracy.value") in held
    assert (metrics, "test.slice_auc.low") in held
    assert ("table.tsv", f"row {frozen}, column subject_majority") in held
    gap = "gaps of tf_efficientnet_lite0-frozen: scores.slice_auc.gap × 100"
    assert ("leakage.json", gap) in held
    assert len(held) > 100


def test_a_pooled_number_is_of_the_table_and_a_run_s_own_of_its_metrics(reported):
    held = check(reported("folds and seeds"))
    columns = {key.rpartition(" ")[2] for file, key in held if file == "table.tsv"}
    assert "test_subject_accuracy" in columns
    assert len({file for file, _ in held if file.endswith("metrics.json")}) == 6


@pytest.mark.parametrize(
    ("run", "quantity", "file"),
    [
        ("evaluations/ADNI/net-frozen", "subject_auc_drop_low", "evaluations/ADNI"),
        (
            "net-frozen-subject-seed0 border",
            "accuracy_low",
            "ablation/border/runs/*/predictions.tsv",
        ),
        ("audit/pair3", "detail", "audit.json"),
        ("a | b | subject", "difference.subject_auc", "runs/*/predictions.tsv"),
        ("net-frozen-subject-seed0", "row.a/b.mean", "runs/net-frozen-subject-seed0/head.npz"),
    ],
)
def test_what_is_no_value_of_a_file_names_what_it_is_computed_from(run, quantity, file):
    assert source_of(f"one\t{run}\t{quantity}", rules(["runs"]))[0] == file


def test_names_in_the_data_turn_no_writing_and_come_back_as_the_page_writes_them():
    names = ["a\u202eb", "a\\u202eb", "<\u2066\\", "é\U0001f642"]
    stored = json.loads(_as_json({"names": names}))["names"]
    assert stored == [printable(name) for name in names]


def test_the_page_holds_methods_and_tables_as_files(reported):
    folder = reported("demo")
    text = (folder / "report.html").read_text(encoding="utf-8")
    links = re.findall(r'<a href="data:text/plain;base64,([^"]*)" download="([^"]*)">', text)
    files = {name: base64.b64decode(content).decode() for content, name in links}
    for name in ("table.tsv", "table.md", "runs.tsv"):
        assert files[name] == (folder / name).read_text(encoding="utf-8")
    prose = methods(read_study(folder), Facts())
    assert files["methods.txt"] == prose.to_text()
    assert files["methods.md"] == prose.to_markdown()
    assert files["methods.tex"] == prose.to_latex()
    assert set(prose.cited) == set(re.findall(r"^@\w+{(\w+),", files["references.bib"], re.M))
    first = prose.to_text().split("\n\n")[0]
    assert html.escape(first, quote=False) in text.replace("&#39;", "'").replace("&#34;", '"')
    table = read_table(folder / "table.tsv")
    rows = [line.split(" & ") for line in files["table.tex"].splitlines() if line.count(" & ") > 5]
    assert len(rows) == 1 + len(table)
    shares = [f"{100 * value:.1f}" for value in table["test_subject_accuracy"]]
    assert all(
        any(cell.startswith(share) for cell in row)
        for share, row in zip(shares, rows[1:], strict=True)
    )


@pytest.fixture
def opened(browser, reported):
    """Return a function that opens the page of an experiment; it may say and ask for nothing."""
    said, asked, views = [], [], []

    def open_page(name, **options):
        view = browser.new_page(viewport={"width": 1280, "height": 900}, **options)
        view.on("console", lambda message: said.append(message.text))
        view.on("pageerror", lambda error: said.append(str(error)))
        view.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        view.on("request", lambda request: asked.append(request.url))
        view.goto((reported(name) / "report.html").as_uri())
        views.append(view)
        return view

    yield open_page
    for view in views:
        view.close()
    assert said == []
    assert [url for url in asked if not url.startswith(("data:", "file:"))] == []
    assert sum(url.startswith("file:") for url in asked) == len(views)


def places(data):
    """Return, by run, where on its canvas each slice of Fig. 2 stands, all panels on one axis."""

    def decode(text, kind):
        return np.frombuffer(base64.b64decode(text), dtype=kind)

    points = {run["name"]: decode(run["points"], "<f4").reshape(-1, 2) for run in data["runs"]}
    ends = [(p.min(), p.max(), 0.06 * (p.max() - p.min())) for p in points.values()]
    low, high = min(a - pad for a, _, pad in ends), max(b + pad for _, b, pad in ends)

    def place(run, side):
        scale = (side - 56) / (high - low)
        x, y = points[run].T.astype(float)
        return np.stack([46 + (x - low) * scale, 6 + (high - y) * scale], axis=1)

    rows = {run["name"]: decode(run["place"], "<i4") for run in data["runs"]}
    return place, rows


SHOWN = """canvas => {
  const small = document.createElement("canvas");
  small.width = small.height = 64;
  small.getContext("2d").drawImage(canvas, 0, 0, 64, 64);
  const data = small.getContext("2d").getImageData(0, 0, 64, 64).data;
  return [...Array(4096).keys()].map(n => data[4 * n]);
}"""


@pytest.mark.browser
def test_the_pointer_over_a_dot_shows_the_very_slice_of_the_record(opened, reported):
    folder = reported("demo")
    view = opened("demo")
    data = json.loads(view.locator("#data").text_content())
    place, rows = places(data)
    pixels = np.load(folder / "slices" / "slices.npy").astype(float)
    tested = np.unique(np.concatenate(
        [np.flatnonzero(run.features["subset"] == "test") for run in read_experiment(folder)]
    ))  # fmt: skip
    figure = view.locator("figure.scatter[data-kind=logits]").first
    run = figure.get_attribute("data-run")
    canvas = figure.locator("canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    dots = place(run, box["width"])
    for k in (0, len(dots) // 2, len(dots) - 1):
        view.mouse.move(box["x"] + dots[k][0], box["y"] + dots[k][1])
        tip = view.locator(".tip")
        at = int(tip.get_attribute("data-place"))
        nearest = np.hypot(*(dots - dots[k]).T)
        assert nearest[rows[run].tolist().index(at)] < 1  # the dot itself, or one upon it
        shown = np.array(tip.locator("canvas").evaluate(SHOWN), dtype=float).reshape(SIDE, SIDE)
        distances = np.abs(pixels - shown).mean(axis=(1, 2))
        assert distances.argmin() == tested[at] and distances.min() < 6  # WebP's loss


@pytest.mark.browser
def test_a_number_tells_value_file_and_key_to_click_and_keys(opened):
    view = opened("demo")
    number = view.locator("#results .num[data-quantity=test_subject_accuracy]").first
    number.click()
    tip = view.locator(".tip")
    run = number.get_attribute("data-run")
    lines = [number.get_attribute("data-value"), f"runs/{run}/metrics.json"]
    assert tip.inner_text().split("\n") == [*lines, "test.subject_accuracy.value"]
    view.keyboard.press("Escape")
    assert tip.is_hidden()
    view.locator("#table-results .box").focus()
    view.keyboard.press("ArrowRight")
    assert tip.inner_text().split("\n") == [
        "1", "table.tsv", f"row {run}, column runs"
    ]  # fmt: skip
    first = view.locator("h1 .num").first
    view.locator("nav a").last.focus()
    view.keyboard.press("Tab")
    assert view.evaluate("document.activeElement.dataset.quantity") == first.get_attribute(
        "data-quantity"
    )
    assert tip.inner_text().startswith(str(first.get_attribute("data-value")))


@pytest.mark.browser
def test_the_methods_are_copied_as_they_stand(opened):
    view = opened("demo")
    view.locator("#paper summary").click()
    view.locator("#paper button.copy").click()
    view.wait_for_function("document.documentElement.dataset.copied")
    copied = view.evaluate("document.documentElement.dataset.copied")
    assert copied.startswith("Data. The cohort is simulated") and "Training. Networks" in copied


@pytest.mark.browser
def test_print_is_dark_on_white_on_a_dark_screen_too(opened):
    view = opened("demo", color_scheme="dark")
    darkest = """canvas => {
      const { width, height } = canvas;
      const copy = Object.assign(document.createElement("canvas"), { width, height });
      copy.getContext("2d").drawImage(canvas, 0, 0);
      const data = copy.getContext("2d").getImageData(0, 0, width, height).data;
      let least = 255;
      for (let n = 0; n < data.length; n += 4)
        if (data[n + 3] > 250) least = Math.min(least, Math.max(data[n], data[n + 1], data[n + 2]));
      return least;
    }"""
    canvas = view.locator("figure.scatter[data-kind=weights] canvas").first
    assert canvas.evaluate(darkest) > 100
    view.emulate_media(media="print", color_scheme="dark")
    view.wait_for_timeout(50)
    assert canvas.evaluate(darkest) < 60
    view.emulate_media(media="screen", color_scheme="dark")
    view.wait_for_timeout(50)
    assert canvas.evaluate(darkest) > 100


@pytest.mark.browser
@pytest.mark.parametrize("name", ["three classes", "folds and seeds", "no ids", "hostile names"])
def test_every_kind_of_page_is_drawn_and_says_nothing_to_the_console(name, opened):
    view = opened(name)
    assert view.locator("figure.scatter canvas").count() >= 2
    view.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert view.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    canvas = view.locator("figure.scatter[data-kind=logits] canvas").first
    canvas.focus()
    view.keyboard.press("ArrowRight")
    tip = view.locator(".tip").inner_text()
    assert "predicted" in tip
    if name == "hostile names":
        words = view.locator("body").inner_text()
        assert HOSTILE[0] in words and LONG in words
        assert "=1+1\\u202e../../" in words and "\u202e" not in words + tip
        assert "<i>s</i>&" in tip and view.locator("i").count() == 0
        assert view.locator("script").count() == 2
