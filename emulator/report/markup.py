"""HTML that cannot be unbalanced and never takes text for markup.

`Markup` is finished HTML; any other string is text and is escaped where it enters an element.
"""

import html
from collections.abc import Iterable
from typing import Final

_VOID: Final = frozenset({"meta", "br", "hr", "img", "link"})

Content = str | Iterable[str]


class Markup(str):
    """Finished HTML, put into a page as it is."""

    __slots__ = ()


def joined(parts: Content) -> Markup:
    """The parts one after the other, text escaped."""
    if isinstance(parts, str):
        parts = (parts,)
    return Markup(
        "".join(part if isinstance(part, Markup) else html.escape(part) for part in parts)
    )


def element(tag: str, content: Content = "", **attributes: str | bool | None) -> Markup:
    """An element with its end tag (none for `meta` and the like).

    An underscore at the end of an attribute's name is dropped and others become hyphens, so
    `class_="x"` and `aria_label="y"` work.  `None` and `False` leave an attribute out, `True`
    gives it no value.
    """
    opening = tag
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        opening += " " + name.rstrip("_").replace("_", "-")
        if value is not True:
            opening += f'="{html.escape(value)}"'
    if tag in _VOID:
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{joined(content)}</{tag}>")
