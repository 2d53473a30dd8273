"""The chapter on the ablation ladder, and its sentence of the verdict."""

from pathlib import Path
from typing import Final

from markupsafe import Markup
from PIL import Image

from headscope.analysis.explanations.ladder import (
    COLUMNS,
    WHOLE,
    Ladder,
    SettingLadder,
    read_ladder,
)
from headscope.analysis.results.settings import choose_apart
from headscope.reporting.blocks import Block, Chapter, TableBlock, Text
from headscope.reporting.chapters.runs import bar
from headscope.reporting.explanations.explanation import Explanation
from headscope.reporting.numbers import CONFIDENCE, say
from headscope.reporting.pictures import png_source
from headscope.reporting.plots import DotRow, Dots, FigureBlock, Picture
from headscope.tables import Table

SIDE: Final = 112  # pixels of a slice on the page


def explain_by_ladder(experiment: Path, *, pictures: bool) -> Explanation:
    """Return what the ablation ladder adds, where there is one."""
    ladder = read_ladder(experiment)
    return Explanation(
        sentences=ladder_sentences(ladder), chapter=ladder_chapter(ladder, pictures=pictures)
    )


def ladder_chapter(ladder: Ladder | None, pictures: bool = True) -> Chapter | None:
    """Show what networks reach on each rung; None without a ladder."""
    if ladder is None:
        return None
    meaning = (
        "Frozen heads, trained again by the same recipe, seeds and splits on slices that keep less "
        "and less. A rung that reaches the accuracy of whole slices holds all that they were read "
        "for. It does where its accuracy is above the larger class, and its difference from whole "
        "slices, over the same subjects, is not shown to be below zero."
    )
    blocks: list[Block] = [Text(meaning), Text(*ladder.sentences, style="list")]
    if pictures and ladder.pictures:
        blocks.append(_slices(ladder))
    blocks += [_dots(setting) for setting in ladder.settings]
    blocks += [_table(ladder), Text(*ladder.notes, style="notes")]
    named = [setting.reached.title for setting in ladder.settings if setting.reached]
    result = f"reached by: {named[0]}" if named else "no rung reaches whole slices"
    if not any(setting.rungs[0].beats_majority for setting in ladder.settings):
        result = "nothing can be said"
    return Chapter("ladder", "The ablation ladder", blocks, result)


def ladder_sentences(ladder: Ladder | None) -> list[Markup]:
    """Return the verdict's sentence: of the network that validation chooses, subjects apart."""
    if ladder is None:
        return []
    apart = [setting for setting in ladder.settings if setting.full.apart]
    if not apart:
        return []
    best, *_ = choose_apart([setting.full for setting in apart])
    chosen = next(setting for setting in apart if setting.full is best)
    return [say('{} (<a href="#ladder">The ablation ladder</a>.)', chosen.sentence)]


def _slices(ladder: Ladder) -> FigureBlock:
    pictures = []
    for name, pixels in ladder.pictures.items():
        image = Image.fromarray(pixels).resize((SIDE, SIDE))
        title = ladder.titles[name]
        pictures.append(Picture(png_source(image), f"A test slice, {title}.", SIDE, SIDE))
    titles = "; ".join(ladder.titles[name] for name in ladder.pictures)
    return FigureBlock("rungs", pictures, f"One test slice on each rung: {titles}.")


def _dots(setting: SettingLadder) -> Dots:
    """Set the accuracy of each rung in a row, beside what the larger class alone gives."""
    rows = []
    for rung in setting.rungs:
        reaches = rung.name == WHOLE or (rung.beats_majority and rung.level_with_whole)
        mark = bar(rung.accuracy, hollow=not reaches)
        rows.append(DotRow(rung.title, "", [mark], 100 * rung.majority))
    caption = (
        f"{setting.network}, {setting.full.split} split: test accuracy on each rung with its "
        f"{CONFIDENCE} interval. Dashed is what the larger class alone gives; hollow marks are not "
        "shown to reach whole slices."
    )
    return Dots(rows, caption, key="ladder")


def _table(ladder: Ladder) -> TableBlock:
    rows = [[s.network, s.full.split, *row] for s in ladder.settings for row in s.rows()]
    table = Table("The rungs in numbers.", ("Network", "Split", *COLUMNS), rows)
    return TableBlock("ladder", table)
