import gc

import pytest

from hybridcsp.utils.garbage import collection_paused


def test_collection_is_paused_within_the_block_alone():
    with collection_paused():
        assert not gc.isenabled()
        with collection_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="broken"), collection_paused():
        raise ValueError("broken")
    assert gc.isenabled()
