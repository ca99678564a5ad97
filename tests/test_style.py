"""What the style guide in CONTRIBUTING.md asks for and no linter checks."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = sorted([*(ROOT / "loopwm").rglob("*.py"), *(ROOT / "envs").rglob("*.py")])
SOURCES = [*LIBRARY, *sorted((ROOT / "examples").rglob("*.py"))]

MAX_FILE = 300
MAX_FUNCTION = 60
LONG_FUNCTION = 40
LONG_SHARE = 0.02
DRAWERS = {"utils", "util", "common", "helpers", "helper", "misc", "base", "manager", "tools"}

PICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
# Asks whether a task can be sent to another process of its own, and reads nothing.
MAY_PICKLE = {"loopwm/data/parallel.py"}
# Published weights are files of torch.save; to write one runs nothing.
MAY_SAVE = {"loopwm/reason/convert.py"}
# Each either runs code that a file brings, or is pickle under another name.
UNSAFE_CALLS = {
    *("eval", "exec", "torch.load", "torch.save", "yaml.load"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler"),
}
UNSAFE_KEYWORDS = {("weights_only", False), ("allow_pickle", True)}
GLOBAL_STATE = {"torch.manual_seed", "torch.seed", "np.random.seed", "random.seed"}
FILTERS = {"warnings.filterwarnings", "warnings.simplefilter", "warnings.catch_warnings"}
SAMPLERS = {
    f"torch.{name}"
    for name in ("bernoulli", "multinomial", "normal", "poisson", "rand", "randint", "randn")
} | {"torch.randperm"}
SAMPLERS_OF_THE_GLOBAL_STATE = {"torch.rand_like", "torch.randn_like", "torch.randint_like"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Fault(NamedTuple):
    file: str
    line: int
    what: str


def trees(files: list[Path]) -> Iterator[tuple[str, ast.Module]]:
    for file in files:
        yield str(file.relative_to(ROOT)), ast.parse(file.read_text(encoding="utf-8"))


def functions(files: list[Path]) -> Iterator[tuple[str, Function, int]]:
    """Yield every function with its file and its length without the docstring."""
    for name, tree in trees(files):
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield name, node, code_lines(node)


def code_lines(node: Function) -> int:
    length = (node.end_lineno or 0) - node.lineno + 1
    if ast.get_docstring(node) is not None:
        documentation = node.body[0]
        length -= (documentation.end_lineno or 0) - documentation.lineno + 1
    return length


def unsafe(files: list[Path]) -> list[Fault]:
    return [
        Fault(file, line, what)
        for file, tree in trees(files)
        for line, what in faults(tree)
        if not (what == "import pickle" and file in MAY_PICKLE)
        and not (what == "torch.save" and file in MAY_SAVE)
    ]


def faults(node: ast.AST, forked: bool = False) -> Iterator[tuple[int, str]]:
    """Yield line and fault of each node; a forked random state may be seeded."""
    if isinstance(node, ast.With):
        forked |= any("fork_rng" in ast.unparse(item) for item in node.items)
    for what in faults_of(node):
        if not (forked and what in GLOBAL_STATE):
            yield getattr(node, "lineno", 0), what
    for child in ast.iter_child_nodes(node):
        yield from faults(child, forked)


def faults_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
    else:
        names = []
    yield from (f"import {name}" for name in names if name.split(".")[0] in PICKLES)
    if isinstance(node, ast.Call):
        yield from faults_of_call(node)


def faults_of_call(node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    keywords = {
        (k.arg or "", k.value.value) for k in node.keywords if isinstance(k.value, ast.Constant)
    }
    safe = called == "torch.load" and ("weights_only", True) in keywords
    unsafe_calls = UNSAFE_CALLS | GLOBAL_STATE | FILTERS | SAMPLERS_OF_THE_GLOBAL_STATE
    if called in unsafe_calls and not safe:
        yield called
    if called in SAMPLERS and "generator" not in {k.arg for k in node.keywords}:
        yield f"{called} without a generator"
    yield from (f"{name}={value}" for name, value in keywords & UNSAFE_KEYWORDS)


def documented(node: ast.AST) -> str:
    assert isinstance(node, Function | ast.ClassDef)
    return ast.get_docstring(node) or ""


def arguments(node: Function) -> list[str]:
    given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return [a.arg for a in given if a.arg not in {"self", "cls"}]


def fields(node: ast.ClassDef) -> list[str]:
    """Return the fields of a dataclass, none for another class."""
    if not any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        return []
    return [
        s.target.id
        for s in node.body
        if isinstance(s, ast.AnnAssign) and isinstance(s.target, ast.Name)
    ]


def public(tree: ast.Module) -> Iterator[Function | ast.ClassDef]:
    for node in tree.body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            yield node


def test_no_file_is_longer_than_three_hundred_lines():
    lengths = {str(f.relative_to(ROOT)): len(f.read_text().splitlines()) for f in SOURCES}
    assert {f: n for f, n in lengths.items() if n > MAX_FILE} == {}


def test_no_function_is_longer_than_sixty_lines():
    long = [
        Fault(f, n.lineno, n.name) for f, n, length in functions(SOURCES) if length > MAX_FUNCTION
    ]
    assert long == []


def test_at_most_one_function_in_fifty_is_longer_than_forty_lines():
    lengths = [(length, f, n.name) for f, n, length in functions(SOURCES)]
    long = [entry for entry in lengths if entry[0] > LONG_FUNCTION]
    assert len(long) <= LONG_SHARE * len(lengths), long


def test_there_is_no_drawer_for_whatever_has_no_place():
    assert [f for f in SOURCES if DRAWERS & {f.stem, f.parent.name}] == []


def test_no_module_defers_the_evaluation_of_annotations():
    # The shape checks need them evaluated.
    assert [f for f in SOURCES if "from __future__ import annotations" in f.read_text()] == []


def test_the_library_runs_no_code_from_files_and_reads_no_global_random_state():
    assert unsafe(LIBRARY) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.memory",
        "eval('1')",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.save(weights, path)",
        "load(path, weights_only=False)",
        "read(path, allow_pickle=True)",
        "yaml.load(text)",
        "torch.manual_seed(0)",
        "torch.randn(3, 4)",
        "torch.rand_like(x)",
        "warnings.simplefilter('ignore')",
    ],
)
def test_the_check_of_unsafe_code_finds(code: str):
    assert list(faults(ast.parse(code)))


def test_the_check_of_unsafe_code_lets_pass():
    code = "torch.randn(3, generator=g); model.eval(); torch.compile(f)"
    assert list(faults(ast.parse(code))) == []
    assert (
        list(faults(ast.parse("with torch.random.fork_rng([]):\n    torch.manual_seed(1)"))) == []
    )
    assert list(faults(ast.parse("torch.load(path, weights_only=True)"))) == []


def test_public_functions_document_each_of_four_or_more_arguments():
    missing = [
        Fault(file, node.lineno, f"{node.name}({name})")
        for file, tree in trees(LIBRARY)
        for node in public(tree)
        if isinstance(node, Function) and len(arguments(node)) >= 4
        for name in arguments(node)
        if f"\n    {name}: " not in documented(node)
    ]
    assert missing == []


def test_public_dataclasses_document_each_field():
    missing = [
        Fault(file, node.lineno, f"{node.name}.{name}")
        for file, tree in trees(LIBRARY)
        for node in public(tree)
        if isinstance(node, ast.ClassDef)
        for name in fields(node)
        if not name.startswith("_") and f"\n    {name}: " not in documented(node)
    ]
    assert missing == []
