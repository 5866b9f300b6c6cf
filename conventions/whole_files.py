"""Writing files so that a reader, or a crash, sees all of the new file or the old one."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path`, renamed to it if the block ends without an exception.

    OSErrors of writing and renaming name `path`; the temporary file is always removed.
    """
    temporary = path.with_name(f".osu-diffusion-{secrets.token_hex(8)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # The temporary name would mean nothing to a user.
        if str(temporary) in (error.filename, error.filename2):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Writes to a temporary name beside `path` and renames: readers see all of it or nothing."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)
