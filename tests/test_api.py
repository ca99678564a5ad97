"""The face: a frozen list of names, each of which works, and none of which costs an import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import loopwm as lw

NAMES = {
    *("AdamW", "Bounded", "Ensemble", "FitConfig", "Fixed", "GRU", "Gaussian", "MLP", "Mean"),
    *("RSSM", "compare"),
    *("Muon", "Objective", "OutputDelta", "Prediction", "PredictionReport", "Residual"),
    *("Certificate", "Certified", "Contractive"),
    *("RolloutDataset", "Trajectory", "Untied", "WorldConfig", "WorldModel", "WorldModelLike"),
    *("Calibration", "calibrate"),
    *("CEM", "ICEM", "MPPI", "evaluate_planning"),
    *("Caution", "ImaginationEnv", "ImaginationVectorEnv"),
    *("Dyna", "MPC", "evaluate_agent", "load_agent", "train_agent"),
    *("Reasoner", "export_trm", "import_trm"),
    *("collect", "collect_standard", "depth", "evaluate", "fit", "grad", "load"),
}
TORCH_FREE = {
    *("AdamW", "Bounded", "FitConfig", "Fixed", "GRU", "Gaussian", "MLP", "Mean", "Muon"),
    *("Objective", "OutputDelta", "Residual", "Untied", "WorldConfig", "depth", "grad"),
    *("Certified", "Contractive", "Dyna", "MPC", "RSSM"),
}


def python(code: str) -> str:
    """Run `code` in a fresh interpreter and return what it prints."""
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_public_names_are_the_agreed_ones_and_not_too_many():
    assert set(lw.__all__) == NAMES
    assert len(NAMES) <= 50


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_resolves_and_is_documented(name: str):
    assert getattr(lw, name).__doc__
    assert name in dir(lw)


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'loopwm' has no attribute 'WorldConfg'"):
        _ = lw.WorldConfg  # pyright: ignore[reportAttributeAccessIssue]


def test_what_type_checkers_see_is_what_runs():
    tree = ast.parse(Path(lw.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen.keys() == NAMES
    for name, home in seen.items():
        expected = sys.modules[f"{home}.{name}"] if name in lw._MODULES else None
        assert getattr(lw, name) is (expected or getattr(sys.modules[str(home)], name))


def test_import_loopwm_does_not_import_torch():
    assert python("import sys, loopwm; print('torch' in sys.modules)") == "False"


def test_the_help_of_the_command_line_does_not_import_torch():
    code = """
import sys
from loopwm.cli import main
for words in (["--help"], ["train", "--help"]):
    try:
        main(words)
    except SystemExit as end:
        assert end.code == 0, words
print("torch" in sys.modules)
"""
    assert python(code).splitlines()[-1] == "False"


def test_configurations_do_not_import_torch():
    names = ", ".join(f"loopwm.{name}" for name in sorted(TORCH_FREE))
    code = f"import sys, loopwm; {names}; loopwm.WorldConfig(); loopwm.FitConfig()"
    assert python(f"{code}; print('torch' in sys.modules)") == "False"


def test_ball_chains_need_no_import_of_their_package():
    for first in ("import loopwm as lw", "import loopwm as lw, loopwm_envs", "import loopwm_envs"):
        code = f"{first}; import loopwm as lw; print(lw.collect('loopwm/BallChain-v0', 20))"
        assert "20 steps" in python(f"import warnings; warnings.simplefilter('error'); {code}")


def test_the_command_line_knows_ball_chains(tmp_path: Path):
    words = ["collect", "loopwm/BallChain-v0", "--steps", "20", "--out", str(tmp_path / "chains")]
    assert "20 steps" in python(f"from loopwm.cli import main; main({words})")


def test_gymnasium_finds_our_environments_by_the_name_of_the_package():
    # To make one would load torch.
    code = """
import sys, gymnasium
sys.modules["loopwm.agent.single"] = None
try:
    gymnasium.make("loopwm:loopwm/Imagination-v0")
except ImportError:
    print(gymnasium.spec("loopwm/Imagination-v0").id)
"""
    assert python(code) == "loopwm/Imagination-v0"
