"""Prove that every gate fails on the fault that it is there for: `python tests/gates/prove.py`.

Each fault is put into a copy of the tree. A gate must pass on the clean copy, and must fail with
the fault in it, for the stated reason. Tests, which take seconds to start, meet their faults in one
run: each must fail, and give its own reason.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PARTS = ("loopwm", "envs", "tests", "examples", "docs", "pyproject.toml", "README.md", "Makefile")

RUFF = "ruff check"
FORMAT = "ruff format --check"
LAYERS = "lint-imports --no-logo --no-cache"
TYPES = "pyright loopwm/seed.py tests/test_seed.py"  # all files would take half a minute, thrice
PYTEST = "pytest -q -p no:cacheprovider"
DOCS = "tests/test_docs.py::test_every_python_block_of_the_page_runs"
API = "tests/test_api.py::test"
STYLE = "tests/test_style.py::test"

Break = Callable[[Path], None]


@dataclass(frozen=True)
class Fault:
    """Describe one fault.

    Attributes:
        name: What is wrong.
        gate: The command or the test that must find it.
        file: The file that is changed or made.
        break_it: Puts the fault into the file.
        evidence: What the gate must say.
    """

    name: str
    gate: str
    file: str
    break_it: Break
    evidence: str


def append(text: str) -> Break:
    """Add lines at the end, making the file where there is none."""

    def break_it(file: Path) -> None:
        before = file.read_text() if file.exists() else ""
        file.write_text(before + text)

    return break_it


def replace(old: str, new: str) -> Break:
    """Replace a text that must be there."""

    def break_it(file: Path) -> None:
        before = file.read_text()
        assert before.count(old) >= 1, f"{file} no longer holds {old!r}"
        file.write_text(before.replace(old, new, 1))

    return break_it


def prepend(text: str) -> Break:
    """Add lines at the beginning."""

    def break_it(file: Path) -> None:
        file.write_text(text + file.read_text())

    return break_it


PAGE = "\n# Page\n\n```python\nimport loopwm\nloopwm.no_such_name\n```\n"
NINE = ", ".join(f"{letter}: int" for letter in "abcdefghi")
WARN = '    __import__("warnings").warn("soon gone", stacklevel=1)\n'
UNDOCUMENTED = "\n\ndef undocumented() -> None:\n    return None\n"

FAULTS = [
    Fault("an import upwards", LAYERS, "loopwm/core/halt.py",
          append("\nimport loopwm.data.store\n"), "loopwm.core.halt -> loopwm.data.store"),
    Fault("an import between siblings", LAYERS, "loopwm/train/config.py",
          append("\nimport loopwm.data.store\n"), "loopwm.train.config -> loopwm.data.store"),
    Fault("the core knows Gymnasium", LAYERS, "loopwm/core/halt.py",
          append("\nimport gymnasium\n"), "loopwm.core.halt -> gymnasium"),
    Fault("the library knows its simulators", LAYERS, "loopwm/seed.py",
          append("\nimport loopwm_envs\n"), "loopwm.seed -> loopwm_envs"),
    Fault("a new drawer, loopwm/utils", LAYERS, "loopwm/utils.py",
          append('"""Whatever."""\n'), "loopwm.utils"),
    Fault("an unused import", RUFF, "loopwm/seed.py",
          prepend("import os\n"), "F401"),
    Fault("the folder envs imported as a package", RUFF, "loopwm/seed.py",
          append("\nfrom envs import loopwm_envs\n"), "TID251"),
    Fault("a public name without a docstring", RUFF, "loopwm/seed.py",
          append(UNDOCUMENTED), "D103"),
    Fault("a library that prints", RUFF, "loopwm/seed.py",
          append('\nprint("hello")\n'), "T201"),
    Fault("the global random state", RUFF, "loopwm/seed.py",
          append("\nnp.random.seed(0)\n"), "NPY002"),
    Fault("nine arguments", RUFF, "loopwm/seed.py",
          append(f'\n\ndef nine({NINE}) -> None:\n    """Do nothing."""\n'), "PLR0913"),
    Fault("code that is not formatted", FORMAT, "loopwm/seed.py",
          append("\nx   =   1\n"), "would be reformatted"),
    Fault("a wrong type in the library", TYPES, "loopwm/seed.py",
          append('\nword: int = "zero"\n'), "reportAssignmentType"),
    Fault("a wrong type in a test", TYPES, "tests/test_seed.py",
          append('\nword: int = "zero"\n'), "reportAssignmentType"),
    Fault("a tensor of a wrong shape", "tests/test_batch.py", "loopwm/batch.py",
          replace("self.obs[:, : count + 1]", "self.obs[:, :count]"), "TypeCheckError"),
    Fault("a warning", "tests/test_errors.py", "loopwm/errors.py",
          replace("    try:\n", f"{WARN}    try:\n"), "UserWarning: soon gone"),
    Fault("a broken block in the documentation", f"{DOCS}[journal.md]",
          "docs/journal.md", append(PAGE), "no attribute 'no_such_name'"),
    Fault("torch imported with the package", f"{API}_import_loopwm_does_not_import_torch",
          "loopwm/__init__.py", append("\nimport torch\n"), "assert 'True' == 'False'"),
    Fault("a name that was not agreed",
          f"{API}_the_public_names_are_the_agreed_ones_and_not_too_many",
          "loopwm/__init__.py", append('\n__all__ += ["surprise"]\n'), "surprise"),
    Fault("a module that reads pickles",
          f"{STYLE}_the_library_runs_no_code_from_files_and_reads_no_global_random_state",
          "loopwm/seed.py", append("\nimport pickle\n"), "import pickle"),
    Fault("a file of 301 lines", f"{STYLE}_no_file_is_longer_than_three_hundred_lines",
          "loopwm/seed.py", append("# line\n" * 300), "loopwm/seed.py"),
]  # fmt: skip


def copy_tree(target: Path) -> None:
    """Copy what the gates look at."""
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.exists():
            shutil.copy(source, target / part)
    # Pyright looks for the environment beside its configuration.
    (target / ".venv").symlink_to(BIN.parent)


def run(command: str, tree: Path) -> tuple[bool, str]:
    """Run a gate in a tree; return whether it passed and what it said."""
    program, *arguments = command.split()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    environment["PYTHONPATH"] = os.pathsep.join([str(tree), str(tree / "envs")])
    result = subprocess.run(
        [BIN / program, *arguments], cwd=tree, env=environment, capture_output=True, text=True
    )
    return result.returncode == 0, result.stdout + result.stderr


def prove(faults: Sequence[Fault], command: str, tree: Path) -> list[str]:
    """Return what a gate made of each of its faults: found, missed, or found for another reason."""
    files = [tree / fault.file for fault in faults]
    before = {file: file.read_bytes() if file.exists() else None for file in files}
    for fault, file in zip(faults, files, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        fault.break_it(file)
    try:
        passed, said = run(command, tree)
    finally:
        for file, content in before.items():
            file.unlink() if content is None else file.write_bytes(content)
    return [_verdict(fault, passed, said) for fault in faults]


def _verdict(fault: Fault, passed: bool, said: str) -> str:
    if passed or (_is_test(fault) and f"FAILED {fault.gate}" not in said):
        return "MISSED"
    return "found" if fault.evidence in said else f"FAILED WITHOUT SAYING {fault.evidence!r}"


def _is_test(fault: Fault) -> bool:
    return fault.gate.startswith("tests/")


def runs() -> list[tuple[str, list[Fault]]]:
    """Return what is run, and the faults that each run is to find."""
    tests = [fault for fault in FAULTS if _is_test(fault)]
    others = [(fault.gate, [fault]) for fault in FAULTS if not _is_test(fault)]
    return [*others, (" ".join([PYTEST, *(fault.gate for fault in tests)]), tests)]


def main() -> int:
    """Print one line a fault; return the number of faults that were not found as they should."""
    wrong = 0
    clean: dict[str, bool] = {}
    print(f"{'fault':40} clean tree  with the fault  gate")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder).resolve()
        copy_tree(tree)
        for command, faults in runs():
            if command not in clean:
                clean[command], said = run(command, tree)
                if not clean[command]:
                    print(said[-2000:])
            for fault, verdict in zip(faults, prove(faults, command, tree), strict=True):
                wrong += verdict != "found" or not clean[command]
                passes = "passes" if clean[command] else "FAILS"
                print(f"{fault.name:40} {passes:11} {verdict:15} {fault.gate}", flush=True)
    print(f"{len(FAULTS) - wrong} of {len(FAULTS)} gates proven")
    return wrong


if __name__ == "__main__":
    sys.exit(min(main(), 1))
