import pytest

from hybridcsp.utils.text import printable, printable_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb\x08\x7f\x00", r"a\x0db\x08\x7f\x00"),
        ("abc\u202egpj.exe\u2066", r"abc\u202egpj.exe\u2066"),
        ("\ud800 \u2028", r"\ud800 \u2028"),
    ],
)
def test_terminal_commands_are_spelled_out(text, shown):
    assert printable(text) == shown


def test_ordinary_text_is_unchanged():
    text = "TiO₂, γ-Fe₂O₃ at 0.1 Å\n\t中文 العربية 😀 é"
    assert printable(text) == text
    assert printable_line("a\n\tb") == r"a\n\tb"
