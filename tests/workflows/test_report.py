"""The command ``smoothinfer report``."""

from smoothinfer.cli import main


def test_a_report_of_the_command_line_shows_the_sheet_of_examples(tmp_path, capsys):
    command = ["attack", "tests.conftest:line", "--data", "digits", "--limit", "10"]
    command += ["--attack", "fgsm", "--sigma", "0.1", "--samples", "2"]
    assert main([*command, "--out", str(tmp_path / "attack")]) == 0
    capsys.readouterr()
    given = ["report", str(tmp_path / "attack"), "--out", str(tmp_path / "report")]
    assert main([*given, "--title", "All of it"]) == 0
    page = tmp_path / "report" / "index.html"
    assert capsys.readouterr().out.split() == [str(page), str(page.with_name("sheet.html"))]
    text = page.read_text()
    assert "<title>All of it</title>" in text
    assert "data:image/webp" in text


def test_the_sheet_of_an_earlier_report_does_not_stay(tmp_path, capsys):
    command = ["evaluate", "tests.conftest:line", "--data", "digits", "--limit", "10"]
    assert main([*command, "--attack", "fgsm", "--out", str(tmp_path / "attacked")]) == 0
    assert main([*command, "--attack", "none", "--out", str(tmp_path / "clean")]) == 0
    sheet = tmp_path / "report" / "sheet.html"
    for folder in ("attacked", "clean"):
        assert main(["report", str(tmp_path / folder), "--out", str(tmp_path / "report")]) == 0
        assert sheet.exists() == (folder == "attacked")
    assert "no sheet.html: no model was measured both clean" in capsys.readouterr().out


def test_a_folder_that_is_not_there_is_refused(tmp_path, capsys):
    assert main(["report", str(tmp_path / "none"), "--out", str(tmp_path / "report")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
