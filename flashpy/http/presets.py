"""What the presets of a site know: names with a content hash, and fields that make a site safer. Values only (worker).

A name that is taken for hashed by mistake would be kept by browsers for a year, one that is not recognised costs a
304 now and then. So what is in doubt is not hashed: dates, versions, UUIDs, words with numbers, anything in camel case.
Of random names it knows 94 % (8 hexadecimal digits), 66 % (8 of base62), 35 % (8 of base32); the others need a rule.
"""

import re
from typing import Final

IMMUTABLE: Final = "public, max-age=31536000, immutable"
SECURE_FIELDS: Final = {
    # No guessing of types (WHATWG Fetch, "nosniff").
    "X-Content-Type-Options": "nosniff",
    # What browsers do by themselves today; older ones are told so.
    "Referrer-Policy": "strict-origin-when-cross-origin",
    # Against clickjacking; framing by the site itself goes on.
    "X-Frame-Options": "SAMEORIGIN",
}
# A year, without includeSubDomains and preload: those bind hosts that this server may know nothing of.
HSTS: Final = ("Strict-Transport-Security", "max-age=31536000")

_SEPARATOR = re.compile(r"[.\-_~]")
_LEAST, _LONGEST = 8, 64
_HEX = re.compile(r"[0-9a-f]+", re.ASCII)
_BASE62 = re.compile(r"[0-9A-Za-z]+", re.ASCII)
# All digits but perhaps a letter at either end is a number: of a build, an issue, a part.
_NUMBER = re.compile(r"[A-Za-z]?[0-9]+[A-Za-z]?", re.ASCII)
_DATE = re.compile(r"(?:19|20)[0-9]{2}[01][0-9][0-3][0-9]", re.ASCII)
_UUID = re.compile(r"(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Camel case and numbers: iOS17App, Win10x64, JavaScript. Possessive, so that a hostile name costs one pass.
_WORDS = re.compile(
    r"[a-z]{0,2}(?:[A-Z]?[a-z]{2,}+|[A-Z]{2,}+[a-z]*+|[0-9]{2,}+|[a-z](?=[0-9]{2}))++[A-Za-z0-9]?", re.ASCII
)
# Where one kind of character meets another; a capital that begins a word is no such place.
_BREAK = re.compile(r"(?<=[a-z])[A-Z]|(?<=[a-zA-Z])[0-9]|(?<=[0-9])[a-zA-Z]", re.ASCII)


def is_hashed(path: str) -> bool:
    """Whether the last segment of `path` has a content hash between separators: app.3f9a1c2b.js, index-BfE3xY2z.css."""
    name = path.rpartition("/")[2]
    parts = _SEPARATOR.split(name)[1:-1]
    return any(map(_is_hash, parts)) and not _UUID.search(name)


def _is_hash(part: str) -> bool:
    if not _LEAST <= len(part) <= _LONGEST or _NUMBER.fullmatch(part) or _DATE.match(part):
        return False
    if _HEX.fullmatch(part):
        return any(character.isdigit() for character in part) and not part.isdigit()
    if not _BASE62.fullmatch(part) or part == part.lower() or (part.isalpha() and part.isupper()):
        return False
    # Among random characters 45 of 100 neighbours are a break, among words far fewer.
    return len(_BREAK.findall(part)) * 7 >= 3 * (len(part) - 1) and not _WORDS.fullmatch(part)
