"""Text as HTML: what comes out of a run's folder is escaped here."""

from __future__ import annotations

import html
import json
import re
from typing import Any


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def language(text: str) -> str:
    return " lang=zh" if any("\u4e00" <= c <= "\u9fff" for c in text) else ""


def prose(text: str) -> str:
    """A docstring's text: escaped, `code` as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped(text))


def cell(value: Any, form: str = "") -> str:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return escaped(format(value, form)).replace("-", "−")
    return "–" if value is None else escaped(value)


def number(value: float) -> str:
    return f"{value:,.6g}".replace("-", "−")


def escaped(value: Any) -> str:
    return html.escape(str(value))


def script_json(value: Any) -> str:
    """JSON for a script element: nothing in it ends the element."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
