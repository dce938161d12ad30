from __future__ import annotations

from collections.abc import Iterator

import pytest
from decode_rig import TWINS, decoding_by, need_kernel


@pytest.fixture(scope="module", params=TWINS)
def twin(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test runs once with each way of decoding; what ``decode_rig`` decodes, it decodes so."""
    if request.param == "kernel":
        need_kernel()
    with decoding_by(request.param):
        yield request.param
