"""The Python environment that the local Triton runs in: a folder of its own, made once, used by all.

Triton's stub starts Python isolated (PYTHONPATH is not read) and finds its packages by the `python3`
that comes first on PATH, so the folder is a virtual environment. Its NumPy is 1.26: under NumPy 2 the
stub sends empty tensors. Versions and hashes are in `requirements/triton.lock`.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from enginehouse.errors import MachineError

ENV_DIR = "ENGINEHOUSE_TRITON_ENV"
MINIMUM_GLIBC = (2, 35)
PYTHONS = ((3, 11), (3, 12))
_ROOT = Path(__file__).resolve().parents[2]
_LOCK_FILE = _ROOT / "requirements" / "triton.lock"
_STAMP = "complete"
_STANDARD_LIB_DIRS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something cannot run on this machine, and what the operator can do."""

    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class TritonEnvironment:
    """A finished environment on disk."""

    directory: Path

    @property
    def binary(self) -> Path:
        return self._package / "tritonserver" / "bin" / "tritonserver"

    @property
    def backends(self) -> Path:
        """Link farm of Triton's backends, with the stub of this Python beside the Python backend."""
        return self.directory / "backends"

    @property
    def bin(self) -> Path:
        """Folder that must come first on PATH."""
        return self.directory / "bin"

    @property
    def site_packages(self) -> Path:
        return self.directory / "lib" / _python_name() / "site-packages"

    @property
    def _package(self) -> Path:
        return self.site_packages / "pytriton"


def default_directory() -> Path:
    """`$ENGINEHOUSE_TRITON_ENV`, else `.triton` beside the packages."""
    named = os.environ.get(ENV_DIR)
    return Path(named).resolve() if named else _ROOT / ".triton"


def check_triton() -> Problem | None:
    """None when the local Triton can run under this Python on this machine."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        machine = f"{sys.platform} on {platform.machine()}"
        return Problem(
            f"the local Triton exists for Linux on x86_64 only, this is {machine}",
            "register a Triton of your own, or run on such a machine",
        )
    return _check_glibc() or _check_python()


def _check_glibc() -> Problem | None:
    name, version = platform.libc_ver()
    found = tuple(int(part) for part in version.split(".")[:2]) if name == "glibc" else (0, 0)
    if found >= MINIMUM_GLIBC:
        return None
    has = f"{name or 'another C library'} {version}".strip()
    return Problem(
        f"the local Triton needs glibc 2.35 or newer, this machine has {has}",
        "use Debian 12, Ubuntu 22.04 or newer",
    )


def _check_python() -> Problem | None:
    if sys.version_info[:2] not in PYTHONS:
        return Problem(
            f"the local Triton is tried with Python 3.11 and 3.12, this is {platform.python_version()}",
            "make the virtual environment with Python 3.11 or 3.12",
        )
    if libpython() is None:
        return Problem(
            f"this Python ({sys.base_prefix}) has no shared libpython, which Triton's Python backend loads",
            f"apt install lib{_python_name()}, or use a Python built with --enable-shared "
            "(`uv python install` gives one)",
        )
    return None


def libpython() -> Path | None:
    """The shared library of this Python, as Triton's stub asks for it; None when there is none."""
    soname = f"lib{_python_name()}.so.1.0"
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    folders = [sysconfig.get_config_var("LIBDIR"), str(Path(sys.base_prefix) / "lib")]
    if Path(sys.base_prefix) in (Path("/usr"), Path("/usr/local")):
        folders += [f"{folder}/{multiarch}" for folder in _STANDARD_LIB_DIRS] + list(_STANDARD_LIB_DIRS)
    for folder in folders:
        if folder and (Path(folder) / soname).is_file():
            return Path(folder) / soname
    return None


async def ensure_environment(
    directory: Path | None = None, progress: Progress = lambda _: None
) -> TritonEnvironment:
    """Makes the environment unless it is there, complete and of the lock's versions.

    Takes about 15 s and 250 MB the first time. Safe to call from several processes at once: one
    builds, the others wait. Raises MachineError when this machine cannot run it, or pip fails.
    """
    return await asyncio.to_thread(_ensure, directory or default_directory(), progress)


def _ensure(directory: Path, progress: Progress) -> TritonEnvironment:
    problem = check_triton()
    if problem is not None:
        raise MachineError(problem.message, problem.remedy)
    environment, stamp = TritonEnvironment(directory), _stamp()
    if _is_complete(directory, stamp):
        return environment
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _build_lock(directory, progress):
        if not _is_complete(directory, stamp):
            _build(directory, stamp, progress)
    return environment


def _is_complete(directory: Path, stamp: str) -> bool:
    path = directory / _STAMP
    return path.is_file() and path.read_text(encoding="utf-8") == stamp


def _stamp() -> str:
    """Changes with the lock and with the Python that the stub has to fit."""
    digest = hashlib.sha256(_LOCK_FILE.read_bytes()).hexdigest()
    return f"{digest} {platform.python_version()} {sys.base_prefix}\n"


@contextmanager
def _build_lock(directory: Path, progress: Progress) -> Iterator[None]:
    """Locks the parent folder itself: it is there before us and stays after us."""
    descriptor = os.open(directory.parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another process that is installing Triton")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _build(directory: Path, stamp: str, progress: Progress) -> None:
    """Builds beside the final place and renames, so that a half-made environment is never seen."""
    with tempfile.TemporaryDirectory(prefix=f"{directory.name}-", dir=directory.parent) as scratch:
        made = TritonEnvironment(Path(scratch) / "env")
        progress("installing Triton Inference Server (a 55 MB wheel, once)")
        _run([sys.executable, "-m", "venv", "--without-pip", "--symlinks", str(made.directory)])
        _run(_install_command(made.directory))
        _link_backends(made)
        (made.directory / _STAMP).write_text(stamp, encoding="utf-8")
        if directory.exists():
            directory.rename(Path(scratch) / "old")
        made.directory.rename(directory)
    progress("Triton Inference Server is installed")


def _install_command(directory: Path) -> list[str]:
    python = str(directory / "bin" / "python3")
    options = ["--no-deps", "--require-hashes", "-r", str(_LOCK_FILE)]
    if importlib.util.find_spec("pip") is not None:
        quiet = ["--quiet", "--disable-pip-version-check", "--no-compile"]
        return [sys.executable, "-m", "pip", "--python", python, "install", *quiet, *options]
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise MachineError(
            "neither pip nor uv is there to install Triton with", f"{sys.executable} -m ensurepip"
        )
    return [uv, "pip", "install", "--quiet", "--python", python, *options]


def _link_backends(made: TritonEnvironment) -> None:
    """Links are relative, so that they survive the rename."""
    server = made.binary.parents[1]
    folder = made.backends / "python"
    folder.mkdir(parents=True)
    stub = (
        server / "python_backend_stubs" / _python_name().removeprefix("python") / "triton_python_backend_stub"
    )
    if not stub.is_file():
        raise MachineError(f"this Triton has no stub for {_python_name()}", "use Python 3.11 or 3.12")
    stub.chmod(0o755)
    made.binary.chmod(0o755)
    for target in [*(server / "backends" / "python").iterdir(), stub]:
        (folder / target.name).symlink_to(os.path.relpath(target, folder))


def _run(command: list[str]) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = "\n".join(f"  {line}" for line in done.stderr.splitlines()[-8:])
        raise MachineError(
            f"installing Triton failed: `{' '.join(command[:5])} …` ended with status {done.returncode}",
            f"it said:\n{tail}",
        )


def _python_name() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"
