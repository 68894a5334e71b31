"""Builds the one extension of fastrw: CPU code always, CUDA code too wherever a CUDA toolkit is found.

torch's stable ABI (2.11) lets one library load under every later torch, with or without CUDA.
The names of all FASTRW_* variables are in CONTRIBUTING.md.
"""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
CPU_SOURCES = sorted(str(p.relative_to(ROOT)) for p in [*ROOT.glob("csrc/*.cpp"), *ROOT.glob("csrc/cpu/*.cpp")])
SIMD_SOURCES = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("csrc/cpu/simd/*.cpp"))
CUDA_SOURCES = sorted(str(p.relative_to(ROOT)) for p in ROOT.glob("csrc/cuda/*.cu"))

# The one that is told how it was built. It sees no header of torch but its pybind11, and it alone sees those of Python:
# the other objects serve every Python.
MODULE = "csrc/module.cpp"
ASK = "import sysconfig; print(sysconfig.get_path('include')); print(sysconfig.get_config_var('EXT_SUFFIX'))"

CXX_FLAGS = ["-O3", "-std=c++20", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-Wall", "-Wno-psabi"]
NVCC_FLAGS = ["-O3", "-std=c++20", "-lineinfo", "--expt-relaxed-constexpr", "-Xcompiler", "-fPIC,-fvisibility=hidden"]
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020b000000000000"
AVX2 = ["-mavx2", "-mfma"]
LEVELS = {"baseline": []}  # how each source under csrc/cpu/simd is compiled, once a level
if platform.machine() in ("x86_64", "AMD64"):
    LEVELS |= {"avx2": AVX2, "avx512": [*AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]}


def cuda_home() -> Path | None:
    """The CUDA toolkit, found by compiler and headers: a wrapper called nvcc may lie far from them."""
    named = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    homes = [named] if named else ["/usr/local/cuda"]
    if not named and (nvcc := shutil.which("nvcc")):
        homes.append(Path(nvcc).resolve().parents[1])
    for home in map(Path, homes):
        if (home / "bin/nvcc").exists() and (home / "include/cuda_runtime.h").exists():
            return home
    return None


def chosen_cuda() -> Path | None:
    forced, home = os.environ.get("FASTRW_CUDA"), cuda_home()
    if forced not in (None, "0", "1"):
        raise SystemExit(f"setup.py: FASTRW_CUDA must be 0 or 1, got {forced}")
    if forced == "1" and home is None:
        raise SystemExit("setup.py: FASTRW_CUDA=1 needs a CUDA toolkit (nvcc and headers): set CUDA_HOME")
    return None if forced == "0" else home


def gencode(archs: str) -> list[str]:
    flags = []
    for arch in archs.replace(" ", ";").split(";"):
        number = arch.removesuffix("+PTX").replace(".", "")
        flags += ["-gencode", f"arch=compute_{number},code=sm_{number}"]
        if arch.endswith("+PTX"):
            flags += ["-gencode", f"arch=compute_{number},code=compute_{number}"]
    return flags


def said(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def up_to_date(target: Path, command: list[str]) -> bool:
    """Whether the object was made by this command and is newer than every file that its compiler says it read."""
    record, depends = target.with_suffix(".cmd"), target.with_suffix(".d")
    if not (target.exists() and depends.exists() and record.exists() and record.read_text() == shlex.join(command)):
        return False
    read = depends.read_text().replace("\\\n", " ").split(":", 1)[1].split()
    return all(os.path.exists(f) and os.path.getmtime(f) <= target.stat().st_mtime for f in read)


def compile_object(target: Path, command: list[str]) -> None:
    if up_to_date(target, command):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".cmd").unlink(missing_ok=True)
    print(shlex.join(command), flush=True)
    subprocess.run(command, check=True)
    target.with_suffix(".cmd").write_text(shlex.join(command))


class Build(build_ext):
    """Compiles what has changed, several files at once, and links one library."""

    def finalize_options(self) -> None:
        python = os.environ.get("FASTRW_PYTHON") or sys.executable
        self.include, self.suffix = said(python, "-c", ASK).splitlines()
        super().finalize_options()  # which asks for the library's name

    def get_ext_filename(self, fullname: str) -> str:
        return os.path.join(*fullname.split(".")) + self.suffix

    def run(self) -> None:
        """Nothing where the library in the source tree shall be kept, for another torch to load."""
        kept = self.inplace and os.environ.get("FASTRW_KEEP") == "1"
        if not (kept and all(Path(self.get_ext_fullpath(ext.name)).exists() for ext in self.extensions)):
            super().run()

    def build_extension(self, ext: Extension) -> None:
        self.cxx, self.cuda = shlex.split(os.environ.get("CXX", "c++")), chosen_cuda()
        objects = self.compile_objects()
        library = Path(self.get_ext_fullpath(ext.name))
        library.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([*self.cxx, "-shared", *map(str, objects), *self.link_flags(), "-o", str(library)], check=True)

    def compile_objects(self) -> list[Path]:
        import torch
        from torch.utils.cpp_extension import include_paths

        archs = os.environ.get("TORCH_CUDA_ARCH_LIST", "8.0;9.0+PTX")
        cuda = ["-DUSE_CUDA"] if self.cuda else []
        defines = [STABLE_ABI, *cuda]
        includes = [f"-I{p}" for p in include_paths()]
        facts = {
            "COMPILER": said(*self.cxx, "--version").splitlines()[0],
            "FLAGS": " ".join([*CXX_FLAGS, *defines]),
            "TORCH": torch.__version__,
        }
        if self.cuda:
            release = re.search(r"release ([\d.]+)", said(self.cuda / "bin/nvcc", "--version"))
            facts |= {"CUDA_VERSION": release[1], "CUDA_ARCHS": archs}

        told = [f"-I{self.include}", *cuda, *(f'-DFASTRW_{name}="{value}"' for name, value in facts.items())]
        cxx = [*self.cxx, *CXX_FLAGS, *includes]
        jobs = [(MODULE, f"{MODULE}{self.suffix}", [*cxx, *told])]  # (source, name of the object, command)
        jobs += [(source, source, [*cxx, *defines]) for source in CPU_SOURCES if source != MODULE]
        for source in SIMD_SOURCES:
            jobs += [(source, f"{source}.{level}", [*self.cxx, *CXX_FLAGS, *f]) for level, f in LEVELS.items()]
        for source in CUDA_SOURCES if self.cuda else []:
            nvcc = [str(self.cuda / "bin/nvcc"), *NVCC_FLAGS, *gencode(archs)]
            jobs.append((source, source, [*nvcc, *defines, *includes]))

        room = Path("build", f"objects-{platform.machine()}")  # relative: a moved tree stays built
        objects = [room / f"{name}.o" for _, name, _ in jobs]
        with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS", os.cpu_count() or 1))) as pool:
            done = []
            for (source, _, command), target in zip(jobs, objects, strict=True):
                depends = ["-MMD", "-MF", str(target.with_suffix(".d"))]
                done.append(pool.submit(compile_object, target, [*command, *depends, "-c", source, "-o", str(target)]))
            try:
                for job in as_completed(done):
                    job.result()
            finally:
                pool.shutdown(cancel_futures=True)  # one has failed: the others need not begin
        return objects

    def link_flags(self) -> list[str]:
        from torch.utils.cpp_extension import library_paths

        # all symbols are looked for on loading, not at the first call; and as needed would drop libtorch, whose
        # symbols are in the libraries that it names
        flags = ["-Wl,-z,now", "-Wl,--no-as-needed", *(f"-L{p}" for p in library_paths())]
        flags += ["-lc10", "-ltorch_cpu", "-ltorch"]
        if self.cuda:
            if any(Path(p, "libtorch_cuda.so").exists() for p in library_paths()):
                flags.append("-ltorch_cuda")
            flags += [f"-L{self.cuda / 'lib64'}", "-lcudart_static", "-lrt", "-lpthread", "-ldl"]
        return flags


setup(
    packages=[*find_packages(include=["fastrw", "fastrw.*"], exclude=["fastrw.kernels"]), "fastrw.kernels"],
    package_dir={"fastrw.kernels": "kernels"},
    ext_modules=[Extension("fastrw._C", [*CPU_SOURCES, *SIMD_SOURCES, *CUDA_SOURCES])],
    cmdclass={"build_ext": Build},
)
