"""``python -m hybridcsp``."""

from hybridcsp.cli import main

if __name__ == "__main__":  # and not where another process of ours imports it
    main()
