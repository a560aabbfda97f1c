"""Files, text and the operating system, for every other part of the package; nothing here knows about crystals."""
