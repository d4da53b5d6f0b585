"""What is said of files, whatever is in them: short, in one line, and nothing that a terminal obeys."""


def one_line(error: Exception) -> str:
  """Returns what an error says, in one short line of letters, whatever a file made it say."""
  text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
  return printable(text[:300])


def printable(text: str) -> str:
  """Returns a text without what moves a terminal's cursor or ends its line."""
  return ''.join(letter if letter.isprintable() else '?' for letter in text)
