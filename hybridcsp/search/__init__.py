"""The search: ask and tell, the loop, proposing, allocation, screening and stopping."""

from hybridcsp.search.search import Search

__all__ = ["Search"]
