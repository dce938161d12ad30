"""Every fuzz target by its name."""

from __future__ import annotations

import targets_journal
import targets_kernel
import targets_messages
import targets_settings
import targets_storage
import targets_stream
from fuzzing import Target

MODULES = (
    *(targets_journal, targets_storage, targets_stream, targets_kernel, targets_messages, targets_settings),
)
TARGETS: dict[str, Target] = {target.name: target for module in MODULES for target in module.TARGETS}
