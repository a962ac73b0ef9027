"""What the process leaves behind is for its user alone: files, folders and what a crash writes."""

from __future__ import annotations

import logging
import os
import resource
from pathlib import Path

log = logging.getLogger(__name__)
# set by systemd, whose UMask= rules then
SUPERVISED_VARIABLE = "INVOCATION_ID"
_CORE_FILTER = Path("/proc/self/coredump_filter")


def keep_private() -> None:
    """New files are 0600 and new folders 0700; a crash writes no memory, in which passwords and tokens stand.

    Children inherit all of it. The stacks that the watchdog's end shows in the log need no core file.
    """
    if SUPERVISED_VARIABLE not in os.environ:
        os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    try:
        # for systems that hand cores to a program whatever the limit is: such a core has no memory in it
        _CORE_FILTER.write_text("0", encoding="utf-8")
    except OSError as error:
        log.debug("%s cannot be written (%s)", _CORE_FILTER, error.strerror)
