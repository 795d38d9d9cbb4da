"""The messages that the page on troubleshooting quotes are those of the source."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
QUOTED = re.findall(r"```text\n(.*?)\n```", PAGE, re.DOTALL)


def _with_gaps(node: ast.JoinedStr) -> str:
    """The text of an f-string, with … for what it fills in."""
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
    )


def _texts() -> set[str]:
    """All texts of the package."""
    trees = [ast.parse(file.read_text()) for file in (ROOT / "src").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    plain = {str(node.value) for node in nodes if isinstance(node, ast.Constant)}
    return plain | {_with_gaps(node) for node in nodes if isinstance(node, ast.JoinedStr)}


def test_quoted_messages_are_in_the_source() -> None:
    texts = _texts()
    assert len(QUOTED) > 20
    assert [message for message in QUOTED if message not in texts] == []
