"""What the tests of sweeps share."""

import subprocess

import pytest

from rankscope.sweep import job

COUNTING = ("test_run", "test_run_killed")
"""Modules whose tasks count the batches that they draw, or end the process."""


@pytest.fixture(autouse=True)
def no_trial_step(request, monkeypatch):
    """Without the step before a run, all batches are those of trainings."""
    if request.module.__name__ in COUNTING:
        monkeypatch.setattr(job, "run_one_step", lambda *arguments: None)


@pytest.fixture
def log(tmp_path):
    return str(tmp_path / "log")


@pytest.fixture
def mount(tmp_path):
    """mount(options): mount a small tmpfs at the returned path; skipped where that is not allowed."""
    mounted = []

    def mount(options):
        target = tmp_path / "mounted"
        target.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(target)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting a file system needs root")
        mounted.append(target)
        return target

    yield mount
    for target in mounted:
        subprocess.run(["umount", "--lazy", str(target)], check=True)
