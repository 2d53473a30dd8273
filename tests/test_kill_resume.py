import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_byte_identical(tmp_path):
    """The short form of bench/kill_resume.py, which has twenty kills and a real network."""
    command = [sys.executable, "bench/kill_resume.py", "--kills", "3", "--epochs", "3"]
    command += ["--architecture", "timm/test_resnet", "--regimes", "finetune,lp-ft"]
    command += ["--subjects", "12", "--out", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all 6 files byte-identical" in done.stdout
    assert done.stdout.count("\nkill ") == 3
