"""``python -m hybridcsp``."""

from hybridcsp.cli import main

main()
