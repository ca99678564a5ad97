import inspect

import pytest

from loopwm import errors


def test_every_typed_error_is_caught_by_the_root_and_by_pythons_own_kind():
    kinds = {
        errors.ConfigError: ValueError,
        errors.DataError: ValueError,
        errors.EnvironmentUnsupported: TypeError,
        errors.NumericalError: ArithmeticError,
        errors.MissingExtra: ImportError,
        errors.CheckpointError: errors.StoreError,
        errors.StoreError: errors.LoopwmError,
    }
    defined = {
        c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, Exception)
    }
    assert defined == {*kinds, errors.LoopwmError}
    for error, kind in kinds.items():
        assert issubclass(error, errors.LoopwmError)
        assert issubclass(error, kind)


def test_a_missing_optional_module_names_the_command_that_installs_it():
    with pytest.raises(errors.MissingExtra, match=r'no_such_module .* pip install "loopwm\[viz\]"'):
        errors.require("no_such_module", "viz")


@pytest.mark.parametrize("fault", ["import no_such_part", "raise ImportError('no libfoo')"])
def test_a_module_that_is_there_and_broken_is_not_called_missing(tmp_path, monkeypatch, fault: str):
    (tmp_path / "half_installed.py").write_text(fault)
    monkeypatch.syspath_prepend(tmp_path)
    said = r"half_installed is needed here and cannot be imported \(.*(no_such_part|no libfoo)"
    with pytest.raises(errors.MissingExtra, match=said):
        errors.require("half_installed", "viz")
    for missing in ("no_such_module.part", "json.no_such_part"):
        with pytest.raises(errors.MissingExtra, match=f"{missing} .* is not installed"):
            errors.require(missing, "viz")


def test_an_optional_module_that_is_there_is_returned():
    assert errors.require("json", "viz").dumps([1]) == "[1]"
