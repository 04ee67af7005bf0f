"""C++ functions that are compiled when they are first needed and kept on disk.

Loops over memory need no tracing and none of PyTorch's headers: a compiler makes one in a twentieth of a
second, where ``torch.compile`` takes more than one.
"""

from __future__ import annotations

import ctypes
import getpass
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

# Rounding is as in the source, and as PyTorch's own kernels round: no fused multiply-add, no reordering.
_FLAGS = (
    "-O3",
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
)
_logger = logging.getLogger(__name__)


@cache
def native_function(source: str, name: str) -> Callable[..., None] | None:
    """The function ``name`` of a C++ source, declared ``extern "C"``; ``None`` where it cannot be compiled.

    The folder of compiled functions is that of PyTorch's (``TORCHINDUCTOR_CACHE_DIR``), or one of the
    user's in the system's folder for temporary files.
    """
    compiler = _compiler()
    if compiler is None:
        return None
    try:
        library = ctypes.CDLL(str(_compiled(compiler, source)))
    except (OSError, subprocess.SubprocessError) as error:
        detail = getattr(error, "stderr", None) or str(error)
        _logger.warning(
            "Element-wise operations on cpu run one by one: %s fails: %s", compiler, detail[-500:]
        )
        return None
    function: Callable[..., None] = getattr(library, name)
    function.restype = None  # type: ignore[attr-defined]
    return function


@cache
def _compiler() -> str | None:
    for name in ("g++", "clang++", "c++"):
        if found := shutil.which(name):
            return found
    _logger.warning(
        "Element-wise operations on cpu run one by one: they need a C++ compiler (g++ or clang++)."
    )
    return None


def _compiled(compiler: str, source: str) -> Path:
    flags = (*_FLAGS, *_machine_flags(), *_threading_flags(compiler))
    key = hashlib.sha256("\n".join((compiler, *flags, _processor(), source)).encode()).hexdigest()[:32]
    library = _folder() / f"{key}.so"
    checksum = library.with_suffix(".sha256")
    if library.exists() and checksum.exists() and checksum.read_text(encoding="ascii") == _digest(library):
        return library  # whole: running half a library ends the process without a word
    with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
        written, built = Path(scratch) / "source.cpp", Path(scratch) / "built.so"
        written.write_text(source, encoding="utf-8")
        command = [compiler, *flags, "-o", str(built), str(written)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        summed = Path(scratch) / "built.sha256"
        summed.write_text(_digest(built), encoding="ascii")
        os.replace(built, library)  # processes that compile the same do not meet half a file
        os.replace(summed, checksum)
    return library


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _folder() -> Path:
    """Only the user's own: what lies there is run."""
    named = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    parent = Path(named) if named else Path(tempfile.gettempdir()) / f"gfb_brevitas_{_user()}"
    folder = parent / "gfb_kernels"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to another user")
    return folder


def _user() -> str:
    return str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()  # an id may have no name


def _machine_flags() -> tuple[str, ...]:
    return ("-march=native",) if platform.machine() in ("x86_64", "AMD64") else ()


@cache
def _threading_flags(compiler: str) -> tuple[str, ...]:
    """OpenMP, where the compiler has it."""
    command = [compiler, "-fopenmp", "-shared", "-fPIC", "-x", "c++", os.devnull, "-o", os.devnull]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return ()
    return ("-fopenmp",)


@cache
def _processor() -> str:
    """What ``-march=native`` depends on: a folder may be shared between machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())
