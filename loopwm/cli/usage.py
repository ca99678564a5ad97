"""From words to a command: the list of commands, their help, and one line for each mistake."""

import inspect
import io
import re
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import Annotated, Any, Protocol, Union, runtime_checkable

import tyro

import loopwm
from loopwm.cli.agent import AgentEvaluate, AgentTrain
from loopwm.cli.arc import ExportArc, ImportArc, ListArc, TrainArc
from loopwm.cli.certify import Certify
from loopwm.cli.collect import Collect
from loopwm.cli.compare import Compare
from loopwm.cli.evaluate import Evaluate
from loopwm.cli.imagine import Imagine
from loopwm.cli.policies import ListPolicies, TrainPolicies
from loopwm.cli.studies import Bench, BenchArc, BenchPlan, Demo, Results
from loopwm.cli.thinking import EvaluateArc, ShowArc, SolveArc
from loopwm.cli.train import Train
from loopwm.errors import ConfigError, remedy

PROGRAM = "loopwm"
COMMANDS: dict[str, type[Any]] = {
    "demo": Demo,
    "collect": Collect,
    "train": Train,
    "evaluate": Evaluate,
    "imagine": Imagine,
    "certify": Certify,
    "compare": Compare,
    "bench": Bench,
    "bench plan": BenchPlan,
    "bench arc": BenchArc,
    "results": Results,
    "agent train": AgentTrain,
    "agent evaluate": AgentEvaluate,
    "policies train": TrainPolicies,
    "policies list": ListPolicies,
    "arc train": TrainArc,
    "arc list": ListArc,
    "arc evaluate": EvaluateArc,
    "arc solve": SolveArc,
    "arc show": ShowArc,
    "arc import": ImportArc,
    "arc export": ExportArc,
}
_GROUPS = {
    "agent": "Train an agent in a real environment by imagining it, or evaluate trained ones.",
    "policies": "Train the policies of the standard mixture, or list those that ship.",
    "arc": "Teach reasoners puzzles and ARC; evaluate, ask, show, import and export them.",
}
_ABOUT = """Looped world models of real environments: collect, train, evaluate, imagine.

Examples:
  loopwm demo
  loopwm collect Hopper-v5 --steps 100000 --out data/hopper
  loopwm train data/hopper --out runs/hopper
  loopwm evaluate runs/hopper data/hopper
  loopwm imagine runs/hopper data/hopper --out figures/hopper

Every command has --help; --traceback shows where an error was noticed."""
_STYLE = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
_BOX = str.maketrans("", "", "╭╮╰╯│─")


@runtime_checkable
class Command(Protocol):
    """Do what the command line asked for."""

    def run(self) -> None:
        """Do it, and say on stdout what came out."""
        ...


def parse(words: Sequence[str]) -> Command:
    """Read a command line.

    Args:
        words: What stands behind the program's name.

    Returns:
        The command with its options.

    Raises:
        ConfigError: If the words make no command; the message is one line.
        SystemExit: With code 0 after help or the version.
    """
    if list(words) == ["--version"]:
        sys.stdout.write(f"{PROGRAM} {loopwm.__version__}\n")
        raise SystemExit(0)
    for count in (2, 1):
        kind = COMMANDS.get(" ".join(words[:count]))
        if kind is not None and len(words) >= count:
            program = " ".join([PROGRAM, *words[:count]])
            return _read(kind, words[count:], program, _text(kind))
    group = words[0] if words and words[0] in _GROUPS else ""
    rest = words[1:] if group else words
    choices = _choices(group)
    if rest and rest[0] not in ("-h", "--help"):
        meant = remedy(rest[0], choices, "commands")
        raise ConfigError(f"there is no command {' '.join([PROGRAM, group, rest[0]])!r}; {meant}")
    about = _GROUPS.get(group, _ABOUT)
    return _read(_union(choices), ["--help"], f"{PROGRAM} {group}".strip(), about)


def _read(kind: Any, words: Sequence[str], program: str, about: str) -> Command:
    complaint = io.StringIO()
    try:
        with redirect_stderr(complaint):
            return tyro.cli(kind, args=words, prog=program, description=about, config=_STYLE)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
    raise ConfigError(f"{_one_line(complaint.getvalue())}; see: {program} --help")


def _choices(group: str) -> dict[str, tuple[type[Any], str]]:
    """Return the commands of a group, or all single commands and groups, with what they do."""
    prefix = f"{group} " if group else ""
    choices = {
        name.removeprefix(prefix): (kind, _text(kind).split("\n")[0])
        for name, kind in COMMANDS.items()
        if name.startswith(prefix) and " " not in name.removeprefix(prefix)
    }
    return choices if group else choices | {name: (_Group, _GROUPS[name]) for name in _GROUPS}


def _union(choices: dict[str, tuple[type[Any], str]]) -> Any:
    kinds = tuple(
        Annotated[kind, tyro.conf.subcommand(name, description=about)]
        for name, (kind, about) in choices.items()
    )
    return Union[kinds]  # noqa: UP007 - the choices are known at run time only


class _Group:
    """Stand for a group of commands in the list of all."""


def _text(kind: type[Any]) -> str:
    """Return the docstring of a command without what it says about single options."""
    return inspect.cleandoc(kind.__doc__ or "").split("\nArgs:")[0].strip()


def _one_line(box: str) -> str:
    """Reduce what tyro draws in a box to its reason and its suggestions."""
    lines = [line.translate(_BOX).rstrip() for line in box.splitlines()[1:]]
    text = "\n".join("" if set(line.strip()) <= {"-"} else line for line in lines)
    paragraphs = [part.split("\n") for part in text.strip("\n").split("\n\n")]
    reason = _reason(paragraphs[0])
    for paragraph in paragraphs[1:]:
        if "Perhaps you meant" in paragraph[0]:
            words = [line.split() for line in paragraph[1:]]
            close = dict.fromkeys(each[0] for each in words if each and each[0].startswith("--"))
            reason += f"; did you mean {' or '.join(close)}?" if close else ""
    return reason


def _reason(paragraph: list[str]) -> str:
    option = re.match(r"Missing value for argument '(.+?)'", paragraph[0].strip())
    if option is not None:
        return f"{option[1]} needs a value"
    if "Missing" not in paragraph[0]:
        return " ".join(" ".join(paragraph).split()).removesuffix(".")
    # The help of an option stands further in than its name.
    indents = [len(line) - len(line.lstrip()) for line in paragraph]
    names = [
        line.strip()
        for line, indent in zip(paragraph, indents, strict=True)
        if indent == min(indents[1:], default=0)
    ]
    return f"missing: {', '.join(names)}"
