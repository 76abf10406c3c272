"""Errors of tracking and registry, and text without secrets; imports nothing heavy, so that scripts answer at once."""

from __future__ import annotations

import re

_MASK = "***"
# Everything between :// and the last @ of the authority; a password may itself hold @ or, after a colon, a slash.
_USER_INFO = re.compile(r"(?<=://)(?:[^/\s'\"]*|[^/\s:@'\"]*:(?!\d+(?:/|\s))[^\s'\"]*)@")
_SECRET = r"(?:password|passwd|pwd|token|secret|signature|credential|api[_-]?key|access[_-]?key)[\w-]*"
_NAMED_SECRET = re.compile(rf"(?i)({_SECRET}=|--[\w-]*{_SECRET}\s+)[^\s&;'\"]+")


class LifecycleError(RuntimeError):
    """Tracking or registry could not do what was asked; the message is one sentence with what to do."""


class PromotionRefused(LifecycleError):
    """A version has not shown that it is better than its baseline."""


def mask_secrets(text: str) -> str:
    """Return `text` with user names, passwords and tokens of URLs and ``password=…`` pairs replaced by ``***``."""
    return _NAMED_SECRET.sub(rf"\g<1>{_MASK}", _USER_INFO.sub(f"{_MASK}@", text))
