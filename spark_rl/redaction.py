"""What must not be written down: strings under keys that look like credentials.

A config is stored with its run, where every reader of the tables can see it, so secrets do not belong in one: an
environment reads them from its process's environment. This is the net under that rule, not the rule.
"""

import re
from typing import Any

REDACTED = "<redacted>"

_ANYWHERE = {"password", "passwd", "passphrase", "secret", "token", "credential", "credentials", "apikey"}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def is_secret(key: str) -> bool:
    """Whether a key names a credential: `db_password`, `apiToken`, `access-key`; not `key_color` or `num_keys`.

    "key" counts as the last word only, because environments have keys that open doors.
    """
    words = [word.lower() for word in _WORD.findall(key)]
    return not _ANYWHERE.isdisjoint(words) or words[-1:] == ["key"]


def redact(value: Any) -> Any:
    """A copy of nested dicts and lists in which every non-empty string under a secret key reads `<redacted>`.

    Numbers and booleans stay: no credential is one, and `token = 3` is a count.
    """
    if isinstance(value, dict):
        return {
            key: REDACTED if isinstance(inner, str) and inner and is_secret(key) else redact(inner)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(inner) for inner in value]
    return value
