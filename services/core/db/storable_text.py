"""Text from outside, in the form that PostgreSQL keeps."""


def storable(words: str) -> str:
    """`words` without NUL and lone surrogates, which PostgreSQL cannot keep."""
    return words.encode(errors="replace").decode().replace("\x00", "\ufffd")
