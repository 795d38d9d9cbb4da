"""Text from files and names that is shown."""

from hypothesis import given
from hypothesis import strategies as st

from multistage_diffusion.text import one_line, printable


def test_control_characters_are_written_out() -> None:
    assert printable("a\x1b[31mred\x07\nb\u202ec") == "a\\x1b[31mred\\x07\\nb\\u202ec"
    assert printable("é 日本 🙂 \u200d") == "é 日本 🙂 \u200d"
    assert printable("caf\udce9.png") == "caf\N{REPLACEMENT CHARACTER}.png"
    assert one_line("two\n  lines \x1b[0m") == "two lines \\x1b[0m"


@given(st.text(st.characters()))
def test_any_text_can_be_printed_as_one_line(text: str) -> None:
    for shown in (printable(text), one_line(text)):
        assert len(shown.splitlines()) <= 1
        assert "\x1b" not in shown
        shown.encode()
