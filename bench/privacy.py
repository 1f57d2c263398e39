"""What a record that is shown to everybody must not say: folders, users, hosts."""

import getpass
import re
import socket

# Absolute ones of Unix and Windows, those below a home, and relative ones of three names or more.
FOLDER = re.compile(r"(?<![\w.])(?:~|[A-Za-z]:)?[/\\][\w.~][^\s'\"]*|[\w.+-]+(?:[/\\][\w.+-]+){2,}")
ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+")


def named(text: str) -> str | None:
    """What the text names that a record must not, None if nothing."""
    for what, pattern in (("a folder", FOLDER), ("a user at a host", ADDRESS)):
        if found := pattern.search(text):
            return f"{what}: {found[0]!r}"
    return None


def without_names(text: str) -> str:
    """The text with files by their last name, and this machine's user and host by what they are."""
    text = FOLDER.sub(lambda m: re.split(r"[/\\]", m[0].rstrip("/\\"))[-1], text)
    text = ADDRESS.sub("user", text)
    for name, instead in ((_user(), "user"), (socket.gethostname(), "host")):
        if len(name) > 2:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", instead, text)
    return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # an account without a name
        return ""
