"""Build of the optional C++ extension `twophase_fast._C`; everything else is in pyproject.toml.

Sources are all `csrc/**/*.cpp`. A file's name says which instructions it may use: the baseline for all, wider ones for
`avx2.cpp`, `avx512.cpp` and `amx.cpp` only, chosen at run time; a compiler that does not know AMX builds without
`amx.cpp`. A failed build does not fail the installation: the package then
works through its reference backend.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
SOURCES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("csrc/**/*.cpp"))
HEADERS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("csrc/**/*.h"))
FLAGS = ["-O3", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unknown-pragmas"]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
AMX = [*AVX2, *AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16", "-mprefer-vector-width=512", "-ffp-contract=off"]
HEADER_NOISE = ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]  # gcc's own AVX-512 headers trip these
FLAGS_OF_FILE = {"avx2.cpp": AVX2, "avx512.cpp": AVX2 + AVX512 + HEADER_NOISE, "amx.cpp": AMX + HEADER_NOISE}
AMX_PROGRAM = """
#include <immintrin.h>
int main(int count, char**) {
  if (count > 9) _tile_dpbf16ps(0, 1, 2);
  return _mm512_cvtne2ps_pbh(_mm512_setzero_ps(), _mm512_setzero_ps())[0];
}
"""
MESSAGE = """
twophase_fast: the C++ extension was NOT built ({reason}).
The package is installed all the same and works through its slower reference backend.
To get the fast one: install a C++17 compiler (Debian: apt install g++), or set CXX to one, and install again with
    pip install -v --force-reinstall --no-deps .
"""


class BuildKernels(build_ext):
    """Compile with flags per file, OpenMP if the compiler has it, and survive a compiler that fails."""

    def build_extension(self, ext: Pybind11Extension) -> None:
        """Compile and link the extension, or say why not; the extension is optional."""
        try:
            self._prepare(ext)
            super().build_extension(ext)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            print(MESSAGE.format(reason=reason), file=sys.stderr, flush=True)

    def _prepare(self, ext: Pybind11Extension) -> None:
        if self.compiler.compiler_type != "unix":
            return
        ext.extra_compile_args += FLAGS
        if self._compiles("#include <omp.h>\nint main() { return omp_get_max_threads() < 0; }", ["-fopenmp"]):
            ext.extra_compile_args.append("-fopenmp")
            ext.extra_link_args.append("-fopenmp")
        if self._compiles(AMX_PROGRAM, AMX):
            ext.extra_compile_args.append("-DTWOPHASE_AMX")
        else:
            ext.sources = [source for source in ext.sources if Path(source).name != "amx.cpp"]
        compile_one = self.compiler._compile

        def with_flags_of_file(obj, source, extension, arguments, extra, options):
            compile_one(obj, source, extension, arguments, [*extra, *FLAGS_OF_FILE.get(Path(source).name, [])], options)

        self.compiler._compile = with_flags_of_file

    def _compiles(self, program: str, flags: list[str]) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "try.cpp")
            source.write_text(program)
            try:
                objects = self.compiler.compile([str(source)], output_dir=folder, extra_postargs=flags)
                self.compiler.link_executable(objects, str(Path(folder, "try")), extra_postargs=flags)
            except Exception:
                return False
        return True


EXTENSION = Pybind11Extension("twophase_fast._C", SOURCES, depends=HEADERS, include_dirs=["csrc"], cxx_std=17)
EXTENSION.optional = True

if __name__ == "__main__":
    with ParallelCompile():
        setup(ext_modules=[EXTENSION], cmdclass={"build_ext": BuildKernels})
