"""The contract that `lint-imports` holds the code to is the designed one."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_contract_is_exhaustive_and_orders_the_layers_as_designed():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = contracts["contracts"][0]
    assert layers["exhaustive"]
    assert " > ".join(layers["layers"]).replace("(", "").replace(")", "") == (
        "cli > study > joint > agent > world | reason > train | data > core > "
        "stats | files | batch | seed > errors"
    )


def test_layers_that_exist_are_not_marked_as_optional():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    for layer in contracts["contracts"][0]["layers"]:
        for name in layer.split(" | "):
            exists = any((ROOT / "loopwm" / path).exists() for path in files_of(name.strip("()")))
            assert exists != name.startswith("("), f"{name}: put or remove the parentheses"


def files_of(name: str) -> tuple[str, str]:
    return f"{name}.py", f"{name}/__init__.py"
