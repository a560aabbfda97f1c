"""Structure files: reading, writing and export."""
