import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.slow
def test_commands_killed_at_random_moments_leave_the_same_bytes_and_nothing_else(tmp_path):
    """The short form of bench/kill_resume.py, which kills a hundred times and draws figures."""
    command = [sys.executable, "bench/kill_resume.py", "--kills", "4", "--at-once", "1"]
    command += ["--short", "--epochs", "2", "--regimes", "lp-ft", "--workers", "1"]
    command += ["--subjects", "8", "--out", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no traceback, nothing left, all" in done.stdout
    assert done.stdout.count("\nkill ") == 4
