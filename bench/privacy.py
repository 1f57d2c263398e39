"""Finds and removes folders, users and hosts, which a public record must not contain."""

import getpass
import re
import socket

# Absolute paths of Unix and Windows, paths below a home, relative paths of three or more names.
FOLDER = re.compile(r"(?<![\w.])(?:~|[A-Za-z]:)?[/\\][\w.~][^\s'\"]*|[\w.+-]+(?:[/\\][\w.+-]+){2,}")
ADDRESS = re.compile(r"[\w.+-]+@[\w.-]+")


def first_private_name(text: str) -> str | None:
    """The first forbidden name in the text, or None."""
    for what, pattern in (("a folder", FOLDER), ("a user at a host", ADDRESS)):
        if found := pattern.search(text):
            return f"{what}: {found[0]!r}"
    return None


def without_private_names(text: str) -> str:
    """The text with paths reduced to file names, and without this machine's user and host."""
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
