"""The page and the Markdown of an audit: whatever the model is called, they are text."""

from smoothinfer.evaluation.audit.finding import Finding
from smoothinfer.evaluation.audit.runner import Audit
from smoothinfer.numerics.statistics import proportion
from smoothinfer.reporting.audit_page import print_audit, write_audit
from smoothinfer.runtime.terminal import Terminal
from tests.reporting.strangers import FILES, Skeleton

HOSTILE = "<script>alert(1)</script> | `a` [b](javascript:c)\n# \x1b]0;d\x07\ud800 [/e]"


def an_audit(word):
    finding = Finding(1, "gradients", "look", word, word, "alarm", word)
    about = FILES["audit"]["about"] | {"ball": word}
    return Audit([finding], proportion(2, 4), proportion(1, 4), about)


def test_an_audit_of_a_hostile_name_is_text_everywhere(tmp_path, capsys):
    pages = []
    for word in (HOSTILE, "word"):
        write_audit(an_audit(word), tmp_path, word, {"command": word})
        pages.append(Skeleton((tmp_path / "audit.html").read_text()).elements)
        assert (tmp_path / "audit.html").read_text().replace("\n", "").isprintable()
        markdown = (tmp_path / "audit.md").read_text()
        assert markdown.replace("\n", "").isprintable()
        assert "<script" not in markdown
        assert len(markdown.splitlines()) == 11
        print_audit(Terminal(), an_audit(word))
    assert pages[0] == pages[1]
    printed = capsys.readouterr().out
    assert printed.replace("\n", "").isprintable()
    assert "[/e]" in printed
