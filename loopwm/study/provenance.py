"""Where a number comes from: when, with which versions, from which commit, on what machine."""

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from loopwm.data.meta import package_versions


def provenance(command: str, seeds: Sequence[int] = ()) -> dict[str, Any]:
    """Describe the circumstances of a measurement as JSON values.

    Args:
        command: What a reader types to repeat it.
        seeds: Seeds that took part.
    """
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": command,
        "seeds": list(seeds),
        "commit": commit(),
        "versions": package_versions() | {"torch": metadata.version("torch")},
        "machine": machine(),
    }


def commit(folder: Path | None = None) -> str:
    """Name the commit of the source tree, with "+" if files differ from it, or "unknown"."""
    folder = folder or Path(__file__).parent
    try:
        name = _git(folder, "rev-parse", "--short=12", "HEAD")
        dirty = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return name + "+" * bool(dirty)


def machine() -> str:
    """Describe the machine in words: processor, usable cores, memory, accelerator."""
    words = [f"{_processor()}, {len(os.sched_getaffinity(0))} cores"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    words.append(f"{memory:.0f} GiB")
    words.append(_accelerator())
    words.append(f"{platform.system()} {platform.machine()}")
    return ", ".join(words)


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _accelerator() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no accelerator"
    return torch.cuda.get_device_name(0)
