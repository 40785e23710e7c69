"""The installation: with a compiler it brings the extension, without one it says so and works all the same."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from twophase_fast import _native

ROOT = Path(__file__).parents[1]
SOURCES = ["csrc", "twophase_fast", "setup.py", "pyproject.toml", "README.md", "LICENSE"]
WIDE = sorted(path for name in ("avx*.cpp", "amx.cpp") for path in ROOT.glob(f"csrc/*/{name}"))
AMX = ROOT / "csrc/split_gram/amx.cpp"
TILE_INSTRUCTIONS = ("ldtilecfg", "tilerelease", "tilezero", "tileloadd", "tilestored", "tdpbf16ps")
BUILD_TOOLS = all(importlib.util.find_spec(name) for name in ("pip", "setuptools", "pybind11"))
needs_build_tools = pytest.mark.skipif(not BUILD_TOOLS, reason="needs pip, setuptools and pybind11 in this environment")


def copy_sources(to: Path) -> Path:
    """Copy what an installation needs, so that building leaves no trace in the working tree."""
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        elif source.exists():
            shutil.copy(source, to / name)
    return to


def install(source: Path, target: Path, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pip", "install", "-v", "--no-deps", "--no-build-isolation", "--no-index"]
    return subprocess.run(
        [*command, "--target", str(target), str(source)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )


# An editable installation of the working tree would lend its extension to the copy under test.
ALONE = "import sys\nsys.meta_path = [f for f in sys.meta_path if '__editable__' not in getattr(f, '__module__', '')]\n"


def run_installed(target: Path, program: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(target)}
    return subprocess.run(
        [sys.executable, "-c", ALONE + program],
        env=environment,
        cwd=target,
        capture_output=True,
        text=True,
        timeout=120,
    )


GRAM = "import torch\nfrom twophase_fast import ops, _native\nprint(ops.__file__, ops.gram(torch.ones(2, 3)).sum())\n"


@needs_build_tools
def test_without_a_compiler_the_installation_succeeds_and_says_what_is_missing(tmp_path):
    source, target = copy_sources(tmp_path), tmp_path / "installed"
    done = install(source, target, CXX="/bin/false", CC="/bin/false")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "twophase_fast: the C++ extension was NOT built" in done.stdout + done.stderr
    assert "install a C++17 compiler" in done.stdout + done.stderr
    assert not list(target.glob("twophase_fast/_C*"))
    finished = run_installed(target, GRAM)
    assert finished.returncode == 0, finished.stderr
    assert str(target) in finished.stdout
    assert "tensor(12.)" in finished.stdout
    assert finished.stderr.count("RuntimeWarning: twophase_fast: the C++ extension is not available") == 1


@pytest.mark.full
@needs_build_tools
def test_with_a_compiler_the_installation_brings_the_extension(tmp_path):
    source, target = copy_sources(tmp_path), tmp_path / "installed"
    done = install(source, target)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT built" not in done.stdout + done.stderr
    finished = run_installed(target, GRAM + "assert _native.missing() is None, _native.missing()")
    assert finished.returncode == 0, finished.stderr


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler here")
def test_where_there_is_a_compiler_the_extension_is_built():
    assert _native.missing() is None


def test_the_extension_is_not_linked_against_torch():
    if _native.missing() is not None or shutil.which("readelf") is None:
        pytest.skip("needs the extension and readelf")
    dynamic = subprocess.run(["readelf", "-d", _native._C.__file__], capture_output=True, text=True, check=True).stdout
    needed = [line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "(NEEDED)" in line]
    assert not any("torch" in name or "c10" in name for name in needed)
    assert not any("omp" in name and name != "libgomp.so.1" for name in needed)
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic


@functools.cache
def flags_of(name: str) -> list[str]:
    """Return the extra flags of a source file, as setup.py has them."""
    program = "import json, runpy; print(json.dumps(runpy.run_path('setup.py', run_name='flags')['FLAGS_OF_FILE']))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)[name]


def compile_wide(source: Path, made: Path, optimisation: str) -> Path:
    """Compile one file with its flags; skip where the compiler does not know AMX, as setup.py leaves the file out."""
    compiler = os.environ.get("CXX", "g++")
    command = [compiler, "-std=c++17", optimisation, f"-I{ROOT / 'csrc'}", *flags_of(source.name)]
    done = subprocess.run([*command, "-c", str(source), "-o", str(made)], capture_output=True, text=True)
    if source == AMX and done.returncode and "-mamx" in done.stderr:
        pytest.skip(f"{compiler} does not know AMX")
    assert done.returncode == 0, done.stderr
    return made


@pytest.mark.full
@needs_build_tools
@pytest.mark.parametrize("source", WIDE, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_wide_files_share_no_functions(source, tmp_path):
    """A weak symbol compiled with wide instructions could replace the baseline's and fault on a lesser processor."""
    compiler, nm = shutil.which(os.environ.get("CXX", "g++")), shutil.which("nm")
    if compiler is None or nm is None:
        pytest.skip("needs a C++ compiler and nm")
    for optimisation in ("-O0", "-O3"):
        made = compile_wide(source, tmp_path / "wide.o", optimisation)
        symbols = subprocess.run([nm, "--defined-only", str(made)], capture_output=True, text=True, check=True).stdout
        assert symbols
        assert not [line for line in symbols.splitlines() if line.split()[1] in "WVu"]


@pytest.mark.full
@needs_build_tools
def test_the_matrix_unit_is_in_the_object_code(tmp_path):
    """No processor here may have it, so the instructions are looked for where the compiler put them."""
    compiler, objdump = shutil.which(os.environ.get("CXX", "g++")), shutil.which("objdump")
    if compiler is None or objdump is None:
        pytest.skip("needs a C++ compiler and objdump")
    made = compile_wide(AMX, tmp_path / "amx.o", "-O3")
    code = subprocess.run([objdump, "-d", str(made)], capture_output=True, text=True, check=True).stdout
    found = {name: len(re.findall(rf"\t{name}\b", code)) for name in TILE_INSTRUCTIONS}
    assert all(found.values()), found
    assert found["ldtilecfg"] == found["tilerelease"] == 1
    assert "cvtne2ps2bf16" in code
