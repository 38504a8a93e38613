"""Text as HTML: what comes out of a run's folder is escaped here."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from typing import Any


def capital(text: str) -> str:
    """The text with a capital first letter; nothing is escaped."""
    return text[:1].upper() + text[1:]


def prose(text: str) -> str:
    """A docstring's text: escaped, `code` as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped(text))


def cell(value: Any, form: str = "") -> str:
    """What stands in a cell of a table: a number in that format, a text escaped, or a dash."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return escaped(format(value, form)).replace("-", "−")
    return "–" if value is None else escaped(value)


def number(value: float) -> str:
    """A number to six digits."""
    return f"{value:,.6g}".replace("-", "−")


def escaped(value: Any) -> str:
    """A value as text that is no markup; what a page cannot hold of a file's name becomes "?"."""
    return html.escape(str(value).encode(errors="replace").decode())


def script_json(value: Any) -> str:
    """JSON for a script element: nothing in it ends the element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def csp_hash(text: str) -> str:
    """By which a page's content security policy allows an inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
