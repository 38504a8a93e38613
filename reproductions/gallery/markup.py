"""Text as HTML: what comes out of a run's folder is escaped here."""

from __future__ import annotations

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
    """A value as text that is no markup."""
    return html.escape(str(value))


def script_json(value: Any) -> str:
    """JSON for a script element: nothing in it ends the element."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
