"""The problem, the record types that packages exchange, and the registry of plug-ins."""
