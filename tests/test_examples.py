"""The examples run as a user would run them, with fewer steps."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, *arguments, folder):
    return subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout


def test_the_loop(tmp_path):
    printed = run("the_loop.py", "--steps", "1500", folder=tmp_path)
    normal, gamma = printed.splitlines()
    loc, scale = (float(part.split("=")[1]) for part in normal.split(")")[0].split(","))
    assert loc == pytest.approx(5.0, abs=0.05)
    assert scale == pytest.approx(5.0, abs=0.05)
    assert gamma.startswith("Gamma(")


def test_breast_cancer(tmp_path):
    printed = run("breast_cancer.py", "--output", "out.png", folder=tmp_path)
    assert (tmp_path / "out.png").stat().st_size > 10_000
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    accuracy = float(printed.split("accuracy on patients held out")[1].split()[0])
    assert accuracy > 0.93
    assert "worst area" in printed
    assert "\nreliable" in printed


def test_the_loop_in_torch_fails_as_the_readme_says(tmp_path):
    pytest.importorskip("torch")
    written, retained = run("the_loop_in_torch.py", folder=tmp_path).splitlines()
    assert "backward through the graph a second time" in written
    assert retained.endswith("q.scale is 1.0")
    assert "log_std moved to 0.00" not in retained


def test_vae(tmp_path):
    pytest.importorskip("torch")
    printed = run("vae.py", "--steps", "1000", "--output", "out.png", folder=tmp_path)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    elbo, weighted = (
        float(part.split()[-1])
        for part in printed.split("nats")[0].replace("importance-weighted", "").split(",")[-2:]
    )
    assert weighted > elbo > -140  # after all 5,000 steps about -97
