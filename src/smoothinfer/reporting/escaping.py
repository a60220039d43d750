"""Text in Markdown and LaTeX: whatever a name or a cell holds, it is read as itself.

HTML needs nothing of the kind: the page is made of `markupsafe.Markup`, which escapes what is put
into it.
"""

import re

from smoothinfer.runtime.printable import printable

_LATEX = {"\\": r"\textbackslash{}", **{sign: f"\\{sign}" for sign in "&%$#_{}"}}
_LATEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}"}
_LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}"}
# After the end of a line of a table these would be options of "\\" and "\midrule".
_LATEX |= {sign: f"{{{sign}}}" for sign in "[]*"}
# Every dialect knows these escapes; of others some know a backslash, and all a reference.
_MARKDOWN = {sign: f"\\{sign}" for sign in "\\`*[]"} | {sign: f"&#{ord(sign)};" for sign in "|~$"}
_MARKDOWN |= {"<": "&lt;", ">": "&gt;"}
_REFERENCE = re.compile(r"&(?=#?\w+;)")  # elsewhere an ampersand is itself


def escape_latex(text: str) -> str:
    r"""Return ``text`` on one line, with LaTeX's special characters escaped.

    >>> print(escape_latex("50 % of a_b"))
    50 \% of a\_b
    """
    return "".join(_LATEX.get(letter, letter) for letter in _joined(text))


def escape_markdown(text: str) -> str:
    """Return ``text`` on one line, with all escaped that Markdown, its tables or HTML would obey.

    Underscores within words mean nothing and stay.

    >>> escape_markdown("top_two <b> & &lt;")
    'top_two &lt;b&gt; & &amp;lt;'
    """
    parts = _REFERENCE.split(_joined(text))
    text = "&amp;".join("".join(_MARKDOWN.get(each, each) for each in part) for part in parts)
    return re.sub(r"(?<!\w)_+|_+(?!\w)", lambda run: r"\_" * len(run[0]), text)


def paragraph(text: str) -> str:
    """Return ``text`` as a paragraph in Markdown: it begins no heading and no list.

    >>> paragraph("# of images")
    '\\\\# of images'
    """
    return re.sub(r"^([#+=-])", r"\\\1", escape_markdown(text))


def code_block(text: str, language: str) -> str:
    """Return ``text`` as a block of code in Markdown, which nothing in it can end.

    >>> print(code_block("ls", "bash"))
    ```bash
    ls
    ```
    """
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{printable(text, keep=chr(10))}\n{fence}"


def _joined(text: str) -> str:
    return printable(" ".join(text.split()))
