"""The environment that FINN lives in, and making it.

finn-plus 1.6.1 pins brevitas 0.13.0, which needs setuptools below 70; PyTorch 2.13 needs setuptools from 77,
and this project Brevitas from 0.13.1. No one set of packages holds them all, so FINN gets an environment of
its own, of the packages in ``requirements.txt`` beside this file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

import platformdirs

from gfb_brevitas.errors import ConfigurationError, MissingExtraError
from gfb_brevitas.files import put_in_place

PYTHON_VARIABLE = "GFB_FINN_PYTHON"
"""Environment variable that names the Python interpreter that has FINN."""

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def default_prefix() -> Path:
    """Where :func:`install_finn` puts FINN: a folder of the user's cache, one per list of packages."""
    digest = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:8]
    python = f"py{sys.version_info.major}{sys.version_info.minor}"
    return Path(platformdirs.user_cache_dir("gfb-brevitas")) / f"finn-{python}-{digest}"


def finn_python() -> Path:
    """The Python interpreter that has FINN.

    The one that the environment variable ``GFB_FINN_PYTHON`` names; else this one, if FINN can be imported
    here; else that of :func:`default_prefix`.

    Raises:
        MissingExtraError: If there is none, with the command that makes one.
        ConfigurationError: If the environment variable names no file, or one that cannot be run.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        path = Path(named)
        if not path.is_file():
            raise ConfigurationError(
                f"{PYTHON_VARIABLE} must name the Python interpreter of an environment with FINN; there is "
                f"no file {named!r}. Correct it, or unset it and run: gfb finn install"
            )
        if not os.access(path, os.X_OK):
            raise ConfigurationError(
                f"{PYTHON_VARIABLE} must name the Python interpreter of an environment with FINN; {named!r} "
                "is not a program. Correct it, or unset it and run: gfb finn install"
            )
        return path.absolute()
    if importlib.util.find_spec("finn") and importlib.util.find_spec("finn.builder"):
        return Path(sys.executable)
    managed = python_of(default_prefix())
    if managed.is_file():
        return managed
    raise MissingExtraError(
        "FINN is not installed. It gets an environment of its own, because its pinned versions do not go "
        "with this project's. Make it with: gfb finn install"
    )


def how_to_get_finn(python: Path) -> str:
    """What to do about an interpreter without FINN, as a sentence."""
    if os.environ.get(PYTHON_VARIABLE):
        return f"Let {PYTHON_VARIABLE} name a Python with FINN, or unset it and run: gfb finn install"
    folder = default_prefix()
    if python == python_of(folder):
        return f"Its environment is damaged: remove the folder {str(folder)!r} and run: gfb finn install"
    return "Make an environment with FINN: gfb finn install"


def install_finn(prefix: Path | None = None) -> Path:
    """Make an environment with FINN; one that is there already is left as it is.

    Args:
        prefix: Its folder; by default :func:`default_prefix`.

    Returns:
        Its Python interpreter.

    Raises:
        MissingExtraError: If pip fails, with the end of its output.
        ConfigurationError: If ``prefix`` holds something else, an environment without FINN too, or cannot be
            made.
    """
    prefix = (default_prefix() if prefix is None else Path(prefix)).absolute()
    python = python_of(prefix)
    try:
        if python.is_file():
            _require_packages(python, prefix)
            return python
        if prefix.exists() and (not prefix.is_dir() or any(prefix.iterdir())):
            raise ConfigurationError(
                f"FINN's environment is to be made in {str(prefix)!r}, which holds something else. Name "
                "another."
            )
        with _replacing_folder(prefix) as folder:
            venv.create(folder, with_pip=True, symlinks=os.name != "nt")
            _pip(python_of(folder), "install", "--no-deps", "--requirement", str(REQUIREMENTS))
    except OSError as error:
        raise ConfigurationError(
            f"FINN's environment cannot be made in {str(prefix)!r} ({error.strerror}). Name another folder."
        ) from error
    except subprocess.CalledProcessError as error:
        raise MissingExtraError(
            f"FINN could not be installed: this Python ({sys.executable}) makes no virtual environments; "
            "its modules venv and ensurepip are needed."
        ) from error
    return python


_LIST_MISSING = """
import importlib.metadata, sys
for line in sys.argv[1:]:
    name, _, version = line.partition("==")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != version:
        print(f"{name} {version}")
"""


def _require_packages(python: Path, prefix: Path) -> None:
    """Refuse an environment that another program made, or that is damaged."""
    lines = [line.partition(";")[0].strip() for line in REQUIREMENTS.read_text(encoding="utf-8").splitlines()]
    pinned = [line for line in lines if line and not line.startswith("#")]
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", _LIST_MISSING, *pinned],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        missing = done.stdout.split("\n")[:-1] if not done.returncode else ["a Python that runs"]
    except (OSError, subprocess.TimeoutExpired):
        missing = ["a Python that runs"]
    if missing:
        more = f" and {len(missing) - 3} more packages" if len(missing) > 3 else ""
        raise ConfigurationError(
            f"FINN's environment is to be made in {str(prefix)!r}, which holds one that lacks "
            f"{', '.join(missing[:3])}{more}. Remove that folder and run the command again, or name another."
        )


def python_of(prefix: Path) -> Path:
    """The Python interpreter of a virtual environment."""
    return prefix / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@contextmanager
def _replacing_folder(prefix: Path) -> Iterator[Path]:
    """A folder that gets its name when it is complete."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(dir=prefix.parent, prefix=f".{prefix.name}."))
    try:
        yield folder
        with suppress(OSError):  # another process may have been faster
            if prefix.is_dir():
                prefix.rmdir()
            put_in_place(folder, prefix)
        if not python_of(prefix).is_file():
            raise MissingExtraError(f"FINN could not be installed: {str(prefix)!r} cannot be written.")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingExtraError(
            f"FINN could not be installed; pip ended with {done.returncode}:\n{done.stderr.strip()[-2000:]}"
        )
