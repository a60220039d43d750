"""Text that a stranger chose, made safe to print: it is shown, and controls nothing."""

import unicodedata

_LONGEST, _END = 2000, 500  # letters of a line, and of its end
_LONGEST_PART = 300  # of what an error from elsewhere says


def printable(text: str, keep: str = "") -> str:
    r"""Return ``text`` with an escape for each character that is not seen, those of ``keep`` aside.

    These are control characters (a terminal obeys them), line ends, marks that turn the direction
    of reading, and halves of characters, which no file can hold.

    >>> print(printable("a\x1b]0;b\x07\u202ec\n"))
    a\x1b]0;b\x07\u202ec\n
    """
    if text.isprintable():
        return text
    return "".join(each if _is_seen(each) or each in keep else _escape(each) for each in text)


def one_line(text: str) -> str:
    r"""Return ``text`` printable and on one line, as an error must be; the middle may be left out.

    >>> one_line("a.png does not fit:\n\tsize mismatch\r\n")
    'a.png does not fit: size mismatch'
    >>> len(one_line("x" * 10_000))
    2000
    """
    parts = (part.strip() for part in text.splitlines())
    line = printable(" ".join(part for part in parts if part))
    if len(line) <= _LONGEST:
        return line
    return f"{line[: _LONGEST - _END - 5]} ... {line[-_END:]}"  # a remedy stands at the end


def error_line(error: BaseException) -> str:
    r"""Return what ``error`` says on one line of at most 300 letters, or else its kind.

    >>> error_line(ValueError("no such\n  split")), error_line(KeyError())
    ('no such split', 'KeyError')
    """
    text = one_line(str(error)) or type(error).__name__
    return text if len(text) <= _LONGEST_PART else f"{text[:_LONGEST_PART]}..."


def _is_seen(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def _escape(letter: str) -> str:
    return letter.encode("unicode_escape").decode()
