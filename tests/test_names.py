"""Names of files are bytes: whatever they hold, what is written and printed is plain text."""

import os

import pytest

from headscope.text import printable_name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("AD/sub-007_T1w.nii.gz", "AD/sub-007_T1w.nii.gz"),
        ("größe_κ_大.nii", "größe_κ_大.nii"),
        (os.fsdecode(b"\xe9t\xe9.nii"), r"\xe9t\xe9.nii"),
        ("a\nb\tc\r.nii", r"a\nb\tc\r.nii"),
        ("\x1b[31mred\x7f\x9b", r"\x1b[31mred\x7f\x9b"),
        ("two\u2028lines\u202egnp.nii", r"two\u2028lines\u202egnp.nii"),
        ("alone\ud812", r"alone\ud812"),
    ],
)
def test_a_name_is_one_line_of_text(name, text):
    assert printable_name(name) == text
    assert printable_name(text) == text
    text.encode()
