"""Every script in examples/ runs as it stands, and so does the README's Python."""

import re
import subprocess
import sys
from pathlib import Path

import ase.db
import pytest

ROOT = Path(__file__).parent.parent
#: Arguments for scripts that would take minutes.
SHORT = {"five_lines.py": ["4"]}


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_example(script, tmp_path):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), *SHORT.get(script, [])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    (database,) = tmp_path.glob("*/search.db")
    assert ase.db.connect(database).count("event=relaxed") > 0


def test_the_five_lines_of_the_readme_are_the_example():
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    example = (ROOT / "examples" / "five_lines.py").read_text()
    assert [line for line in code.splitlines() if "run(" not in line and line not in example.splitlines()] == []


def test_every_link_in_the_documentation_leads_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
