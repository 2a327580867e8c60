"""README and the pages of the site, and the code that stands on them."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in (README, *sorted(DOCS.glob("*.md")))}


def blocks(text, language):
    """The fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def prose(text):
    """The text without its fenced blocks."""
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


def sentences(text):
    """What is said in running text, of 40 letters or more, without headings, tables and marks of emphasis."""
    lines = [line.lstrip("-> ") for line in prose(text).splitlines() if not line.startswith(("#", "|", "!", ":::"))]
    found = re.split(r"(?<=[.:;!?])\s+|\n\n+", re.sub(r"[*`]", "", "\n".join(lines)))
    return {sentence for part in found if len(sentence := " ".join(part.split())) >= 40}


def commands(text):
    """Every `python main.py ...`, `python -m MODULE ...` and `umemma COMMAND ...`, in blocks and in running text."""
    lines = [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose(text))]
    found = []
    for line in lines:
        line = re.sub(r"\[(--[^]|]*)(\|[^]]*)?\]", r"\1", line)  # [--option=this|that]
        found += re.findall(r"\b((?:python main\.py|python -m [\w.]+|umemma [a-z]+)(?: [^#>&|\"]*)?)", line)
    return [" ".join(command.split()) for command in found]
