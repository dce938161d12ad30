"""Wheels: the kernel inside where there is a compiler, the plain collector where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
KERNEL = "collector/decoder/kernel"
PAGE = "collector/coordinator/page"
MADE_HERE = b"made in the checkout"
MADE_FOR_THE_WHEEL = b"made for the wheel\n"
COMPILER = f"""#!/bin/sh
while [ "$1" != -o ]; do shift; done
echo '{MADE_FOR_THE_WHEEL.decode().strip()}' >"$2"
"""


@pytest.fixture
def source(tmp_path) -> Path:
    """What a wheel is made from, where ``scripts/setup`` was run before."""
    if subprocess.run(
        [sys.executable, "-c", "import hatchling.build"], check=False, capture_output=True
    ).returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("hatchling is not installed")
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", "kernel.so")
    shutil.copytree(ROOT / "collector", source / "collector", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "scripts/build_hook.py"):
        (source / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    (source / KERNEL / "kernel.so").write_bytes(MADE_HERE)
    return source


@pytest.fixture
def compiler(tmp_path) -> str:
    path = tmp_path / "compiler"
    path.write_text(COMPILER)
    path.chmod(0o755)
    return str(path)


def build(source: Path, kind: str = "wheel", **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in {"CXX", "WHEEL_PLATFORM"}}
    return subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", kind],
        cwd=source,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def made(source: Path) -> Path:
    (path,) = (source / "dist").iterdir()
    return path


def contents(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.startswith(f"{KERNEL}/")}


def test_with_a_compiler_a_wheel_has_the_kernel_for_any_python(source, compiler):
    """Its own kernel, whatever was built in the checkout; and the checkout keeps its own."""
    assert build(source, CXX=compiler).returncode == 0
    wheel = made(source)
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name.endswith(f"-py3-none-{platform}.whl")
    assert contents(wheel)[f"{KERNEL}/kernel.so"] == MADE_FOR_THE_WHEEL
    assert f"{KERNEL}/kernel.cpp" in contents(wheel)
    assert (source / KERNEL / "kernel.so").read_bytes() == MADE_HERE


def test_without_a_compiler_a_wheel_is_for_every_machine_and_the_build_says_why(source, tmp_path):
    """The source is inside: whoever gets a compiler later builds in place. So is the status page."""
    done = build(source, PATH=str(tmp_path))
    assert done.returncode == 0, done.stderr
    wheel = made(source)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert f"{KERNEL}/kernel.so" not in contents(wheel)
    assert {f"{KERNEL}/kernel.cpp", f"{KERNEL}/build.py"} <= set(contents(wheel))
    with ZipFile(wheel) as archive:
        assert {f"{PAGE}/{name}" for name in os.listdir(ROOT / PAGE) if "." in name} <= set(
            archive.namelist()
        )
    assert "the plain, slower way: no C++ compiler was found" in done.stdout + done.stderr


def test_a_broken_compiler_breaks_no_installation(source):
    """It is as if there was none."""
    done = build(source, CXX="false")
    assert done.returncode == 0, done.stderr
    assert made(source).name.endswith("-py3-none-any.whl")
    assert "the compiler false failed with exit code 1" in done.stdout + done.stderr


def test_a_wheel_for_a_platform_bears_its_name(source, compiler):
    """``scripts/wheel`` compiles for other machines than this one."""
    assert build(source, CXX=compiler, WHEEL_PLATFORM="manylinux_2_17_aarch64").returncode == 0
    assert made(source).name.endswith("-py3-none-manylinux_2_17_aarch64.whl")


def test_a_wheel_for_a_platform_is_not_made_without_the_kernel(source):
    """Nobody wants to publish that by accident."""
    done = build(source, CXX="false", WHEEL_PLATFORM="manylinux_2_17_aarch64")
    assert done.returncode != 0
    assert not list((source / "dist").glob("*.whl"))


def test_a_wheel_is_made_from_a_source_distribution_too(source, compiler, tmp_path):
    """What builds the kernel is in it, what was built is not."""
    assert build(source, "sdist").returncode == 0
    with tarfile.open(made(source)) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("livestream_collector-*")
    assert not (unpacked / KERNEL / "kernel.so").exists()
    assert build(unpacked, CXX=compiler).returncode == 0
    assert contents(made(unpacked))[f"{KERNEL}/kernel.so"] == MADE_FOR_THE_WHEEL
