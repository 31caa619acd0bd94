"""A few hundred broken files of the many that tools/fuzz_checkpoints.py makes."""

import json
import pickle
import random
import runpy
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[3] / "tools" / "fuzz_checkpoints.py"


def test_broken_files_are_errors():
    done = subprocess.run(
        [sys.executable, str(TOOL), "--count", "300", "--seed", "7"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"files": 300, "failures": 0}


def test_the_canary_is_alive(tmp_path):
    """Obeyed, some of the code does write the file whose absence is the proof."""
    evil = runpy.run_path(str(TOOL))["evil"]
    canary = tmp_path / "canary"
    for seed in range(40):
        opcodes = evil(random.Random(seed), str(canary))
        if opcodes.startswith((b"cbuiltins\nopen", b"cio\nopen")):
            # Without the final POP, so that the file it opens can be closed.
            pickle.loads(b"\x80\x02" + opcodes[:-1] + b".").close()
    assert canary.exists()
