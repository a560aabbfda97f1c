"""Structure files: what every reader of structures shares, and the files of no particular search code."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Broken:
    """Something in a file that is no structure: where it begins (lines count from 1), and why not."""

    file: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.reason}"
