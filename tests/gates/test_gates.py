import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(580)
def test_every_gate_fails_on_the_fault_that_it_is_there_for():
    script = Path(__file__).with_name("prove.py")
    result = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
