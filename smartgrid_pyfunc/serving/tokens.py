"""The tokens file: who may call the gateway. One line for each token, as nginx's ``map`` includes it.

``"Bearer <64 lower-case hexadecimal digits>" "client";`` Keys of a ``map`` ignore case, which costs hexadecimal digits
nothing; a token has 256 bits from the system's generator. The file is readable by its owner alone.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smartgrid_pyfunc.schema import InputError

_LINE = re.compile(r'"Bearer (?P<token>[0-9a-f]{64})" "(?P<client>[A-Za-z0-9][A-Za-z0-9._-]{0,63})";')
_CLIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ADD = "add a client: `mlflow run . -e tokens -P client=NAME`"

Tokens = dict[str, str]
"""Client by token."""


def read_tokens(path: Path) -> Tokens:
    """Return the client of each token of the file.

    Raises
    ------
    InputError
        If there is no such file, if others than its owner may read it, or for the first line that is no token.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError("a tokens file is needed", found=f"no {path}", remedy=_ADD) from None
    except UnicodeDecodeError:
        raise InputError("a tokens file must be text", place=str(path), remedy="restore it") from None
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise InputError("only its owner may read a tokens file", place=str(path), remedy=f"chmod 600 {path}")
    return _parse(text, path)


def _parse(text: str, path: Path) -> Tokens:
    tokens: Tokens = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None or found["token"] in tokens:
            # The line itself may be a secret with a typing error in it: not shown.
            rule = "a token may stand there once" if found else 'a line must be "Bearer <64 hex digits>" "client";'
            raise InputError(rule, place=f"{path}, line {number}", remedy="correct or remove the line")
        tokens[found["token"]] = found["client"]
    return tokens


def format_tokens(tokens: Tokens) -> str:
    """Return the text of a tokens file."""
    return "".join(f'"Bearer {token}" "{client}";\n' for token, client in tokens.items())


def add_token(path: Path, client: str) -> str:
    """Give `client` a token, write it to the file and return it; a client may hold several, to change without a gap.

    Raises
    ------
    InputError
        If the name is not 1 to 64 letters, digits, dots, hyphens or underscores.
    """
    if not _CLIENT.fullmatch(client):
        raise InputError("a client's name must be 1 to 64 letters, digits, dots, hyphens or underscores", found=client)
    token = secrets.token_hex(32)
    with _locked(path):
        write_private(path, format_tokens(_existing(path) | {token: client}))
    return token


def remove_tokens(path: Path, client: str, *, but_newest: bool = False) -> int:
    """Take the tokens of `client` out of the file, all or all but the one added last; return how many they were.

    Raises
    ------
    InputError
        If it has none.
    """
    with _locked(path):
        tokens = read_tokens(path)
        own = [token for token, name in tokens.items() if name == client]
        if not own:
            known = ", ".join(sorted(set(tokens.values()))) or "none"
            raise InputError("a client must have a token", found=client, remedy=f"there are: {known}")
        gone = own[:-1] if but_newest else own
        write_private(path, format_tokens({token: name for token, name in tokens.items() if token not in gone}))
    return len(gone)


def _existing(path: Path) -> Tokens:
    return read_tokens(path) if path.exists() else {}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time change the file: two clients added at once are both kept."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 as a whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as sink:
            sink.write(text)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
