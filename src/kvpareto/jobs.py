"""What every job of the pipeline does around its work: a log, progress, stamps, provenance."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

from kvpareto.provenance import check_imports, codehash, provenance
from kvpareto.records import digest, file_sha256, write_json

log = logging.getLogger(__name__)


def process_start() -> datetime:
    """When this process began: importing torch is seconds of full load, and part of the job.

    Linux counts a process's start from the boot, whose own time of day it rounds down to a second.
    Stamps that are a second early make jobs overlap that did not, so the process's age is taken
    from the clock that counts from the boot as well.
    """
    created = psutil.Process().create_time()
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return datetime.fromtimestamp(created, UTC)
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - (created - psutil.boot_time())
    return datetime.now(UTC) - timedelta(seconds=age)


class CodeChangedError(RuntimeError):
    """Code was edited while a job ran, so its results belong to no version of it."""


@contextlib.contextmanager
def job(
    *,
    log_file: str,
    script: Path,
    modules: list[str],
    code_hash: str,
    inputs: Iterable[str],
    threads: int,
    output: str | Iterable[str] | None = None,
    exclusive: bool = False,
) -> Iterator[None]:
    """Run the body as one job.

    Log records go to `log_file` and to standard error. When the body succeeds, the loaded modules
    are held against the declared ones, and `output` (one or several provenance.json) is written.

    Args:
        script: the job's script; with `modules` it defines the code that the job may import.
        code_hash: hash of that code.
        inputs: files that the results depend on.
        threads: threads that the job's computation uses.
        exclusive: whether the job measures time and must run alone.

    Raises:
        UndeclaredImportError: the job used code that its `code_hash` does not cover.
    """
    Path(log_file).parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        handlers=[logging.FileHandler(log_file, mode="w"), logging.StreamHandler(sys.stderr)],
        force=True,
    )
    started = process_start()
    try:
        yield
        check_imports(script, *modules)
        if codehash(script, *modules) != code_hash:
            raise CodeChangedError(
                f"the code of {script.name} or of a module it imports was edited while the job "
                "ran; run again"
            )
    except Exception:
        log.exception("the job failed")
        raise
    if output is not None:
        root = script.resolve().parents[2]
        data_hash = digest([file_sha256(path) for path in inputs], length=16)
        record = provenance(root, code_hash, data_hash, started, threads)
        for file in [output] if isinstance(output, str) else output:
            write_json(file, record | {"exclusive": exclusive})


class RefusedError(RuntimeError):
    """What is asked for is known not to work; the message says why."""


class UnavailableError(RuntimeError):
    """What is asked for cannot run on this machine; the message says what is missing."""


def failure(error: Exception) -> tuple[str, str]:
    """Status (`refused`, `unavailable`, `oom` or `invalid`) and reason of a measurement."""
    if isinstance(error, RefusedError):
        return "refused", str(error)
    if isinstance(error, UnavailableError):
        return "unavailable", str(error)
    # The CPU's allocator raises a RuntimeError with these words, CUDA's one of its own.
    words = ("can't allocate memory", "out of memory")
    memory = isinstance(error, MemoryError) or any(word in str(error) for word in words)
    return "oom" if memory else "invalid", f"{type(error).__name__}: {error}"


def progress(what: str, every_s: float = 10.0) -> Callable[[int, int], None]:
    """A callback(done, total) that logs rate and time left, at most every `every_s` seconds."""
    started = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < every_s and done < total:
            return
        last = now
        rate = done / max(now - started, 1e-9)
        log.info("%s %d/%d  %.1f/s  %.0f s left", what, done, total, rate, (total - done) / rate)

    return report
