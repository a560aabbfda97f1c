"""Errors of torch that mean that the memory of a device is used up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# What torch's allocator of the processor says; it has no exception of its own for this.
_OF_PROCESSOR = "not enough memory"


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise ``MemoryError`` where torch reports that memory is used up, and release what torch holds in reserve.

    Raises
    ------
    MemoryError
        If an evaluation inside the block needs more memory than there is.
    """
    import torch

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and _OF_PROCESSOR not in str(error):
            raise
        text = str(error).partition("\n")[0]
    else:
        return
    # Only here, because the exception holds the tensors of the evaluation.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise MemoryError(text)
