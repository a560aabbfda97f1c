import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hybridcsp.config import _OF_THE_PROBLEM, Configuration
from hybridcsp.sources.external import Command

ROOT = Path(__file__).parent.parent


def test_every_key_of_the_configuration_is_documented_with_its_default():
    text = (ROOT / "docs" / "configuration.md").read_text()
    tables = dict(re.findall(r"^## `\[(\w+)\]`\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    assert set(tables) == set(Configuration.model_fields)
    for name, field in Configuration.model_fields.items():
        documented = set(re.findall(r"^\| `(\w+)` \|", tables[name], re.MULTILINE))
        table = Command if name == "external" else field.annotation
        if dataclasses.is_dataclass(table):
            keys = {f.name for f in dataclasses.fields(table)} - set(_OF_THE_PROBLEM if name == "relaxation" else ())
        else:
            keys = set(table.model_fields)
        assert documented == keys, name


@pytest.mark.slow
def test_the_python_of_the_page_on_extending_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "extending.md").read_text(), re.DOTALL)
    assert len(blocks) > 1
    script = "\n".join(blocks) + "\nprint(search.minima(1)[0].spacegroup)"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 1 <= int(done.stdout) <= 230
