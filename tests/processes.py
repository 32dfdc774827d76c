"""Work done in another process: as a user without rights."""

import os
import warnings
from collections.abc import Callable

NOBODY = 65534


def as_nobody(work: Callable[[], str]) -> str:
    """Return what `work` returns in a fork of this process that has no rights of root.

    A fork, because a fresh Python may lie where nobody may enter: all that `work` imports must
    be imported already.
    """
    reading, writing = os.pipe()
    # From Python 3.12 on it warns of threads that are not in the fork.
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            text = work()
        except BaseException as error:  # noqa: BLE001  a fork must not go on with the tests
            text = f"{type(error).__name__}: {error}"
        with os.fdopen(writing, "w") as file:
            file.write(text)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        text = file.read()
    os.waitpid(child, 0)
    return text
