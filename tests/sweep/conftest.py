"""What the tests of sweeps share."""

import subprocess

import pytest


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
