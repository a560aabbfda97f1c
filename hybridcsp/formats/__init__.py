"""Other codes' files: one file for each code."""
