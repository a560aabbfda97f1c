"""The search: its public class, the loop, proposing, allocation, screening and stopping."""

from hybridcsp.search.search import Search

__all__ = ["Search"]
