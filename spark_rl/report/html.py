"""Small pieces of HTML. Whatever comes from a run passes through `text` on its way in."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any


def text(value: Any) -> str:
    """A value as text that cannot become markup, in an element or in a quoted attribute."""
    return html.escape(str(value), quote=True)


def sql(query: str, label: str) -> str:
    """A query that unfolds, with a button that copies it."""
    code = f'<button type="button" data-copy>Copy</button><pre><code>{text(query)}</code></pre>'
    return f'<details><summary>{text(label)}</summary><div class="sql">{code}</div></details>'


def facts(values: Mapping[str, Any]) -> str:
    """Names and values, one pair a line."""
    rows = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in values.items())
    return f'<dl class="facts">{rows}</dl>'


def table(names: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """A table of text; the columns in `right` are aligned to the right. It scrolls sideways where it is too wide."""

    def cells(words: Sequence[str], tag: str) -> str:
        return "".join(
            f'<{tag} class="right">{text(word)}</{tag}>' if i in right else f"<{tag}>{text(word)}</{tag}>"
            for i, word in enumerate(words)
        )

    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    head = f"<thead><tr>{cells(names, 'th')}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def card(content: str) -> str:
    """A box."""
    return f'<div class="card">{content}</div>'
