"""File name to Content-Type, from an own table (worker).

The machine's mime.types would make a site look different on each host. Types are those registered
with IANA where there is one, so JavaScript is text/javascript (RFC 9239).
"""

from collections.abc import Mapping
from typing import Final

DEFAULT: Final = "application/octet-stream"

TYPES: Final[dict[str, str]] = {
    # text
    "html": "text/html",
    "htm": "text/html",
    "shtml": "text/html",
    "xhtml": "application/xhtml+xml",
    "css": "text/css",
    "js": "text/javascript",
    "mjs": "text/javascript",
    "cjs": "text/javascript",
    "txt": "text/plain",
    "text": "text/plain",
    "log": "text/plain",
    "conf": "text/plain",
    "ini": "text/plain",
    "diff": "text/plain",
    "patch": "text/plain",
    "md": "text/markdown",
    "markdown": "text/markdown",
    "csv": "text/csv",
    "tsv": "text/tab-separated-values",
    "ics": "text/calendar",
    "vcf": "text/vcard",
    "vcard": "text/vcard",
    "vtt": "text/vtt",
    "srt": "application/x-subrip",
    "rst": "text/x-rst",
    "tex": "text/x-tex",
    "c": "text/x-c",
    "h": "text/x-c",
    "cc": "text/x-c++",
    "cpp": "text/x-c++",
    "hpp": "text/x-c++",
    "py": "text/x-python",
    "rs": "text/x-rust",
    "go": "text/x-go",
    "java": "text/x-java",
    "sh": "text/x-shellscript",
    "sql": "application/sql",
    "jad": "text/vnd.sun.j2me.app-descriptor",
    "wml": "text/vnd.wap.wml",
    "htc": "text/x-component",
    "mml": "text/mathml",
    # structured data
    "json": "application/json",
    "map": "application/json",
    "json5": "application/json5",
    "jsonld": "application/ld+json",
    "geojson": "application/geo+json",
    "topojson": "application/json",
    "ndjson": "application/x-ndjson",
    "jsonl": "application/jsonl",
    "webmanifest": "application/manifest+json",
    "xml": "application/xml",
    "xsl": "application/xslt+xml",
    "xslt": "application/xslt+xml",
    "xsd": "application/xml",
    "dtd": "application/xml-dtd",
    "rss": "application/rss+xml",
    "atom": "application/atom+xml",
    "rdf": "application/rdf+xml",
    "ttl": "text/turtle",
    "gpx": "application/gpx+xml",
    "kml": "application/vnd.google-earth.kml+xml",
    "kmz": "application/vnd.google-earth.kmz",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "toml": "application/toml",
    "opml": "text/x-opml",
    # images
    "avif": "image/avif",
    "avifs": "image/avif",
    "webp": "image/webp",
    "png": "image/png",
    "apng": "image/apng",
    "gif": "image/gif",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "jpe": "image/jpeg",
    "jxl": "image/jxl",
    "jp2": "image/jp2",
    "heic": "image/heic",
    "heif": "image/heif",
    "svg": "image/svg+xml",
    "svgz": "image/svg+xml",
    "ico": "image/vnd.microsoft.icon",
    "cur": "image/vnd.microsoft.icon",
    "bmp": "image/bmp",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "wbmp": "image/vnd.wap.wbmp",
    "jng": "image/x-jng",
    "xbm": "image/x-xbitmap",
    "xpm": "image/x-xpixmap",
    "psd": "image/vnd.adobe.photoshop",
    # audio
    "mp3": "audio/mpeg",
    "mpga": "audio/mpeg",
    "m4a": "audio/mp4",
    "aac": "audio/aac",
    "ogg": "audio/ogg",
    "oga": "audio/ogg",
    "opus": "audio/ogg",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "weba": "audio/webm",
    "mid": "audio/midi",
    "midi": "audio/midi",
    "kar": "audio/midi",
    "ra": "audio/x-realaudio",
    "aif": "audio/aiff",
    "aiff": "audio/aiff",
    "au": "audio/basic",
    "mka": "audio/matroska",
    # video and streaming
    "mp4": "video/mp4",
    "m4v": "video/mp4",
    "m4s": "video/iso.segment",
    "webm": "video/webm",
    "ogv": "video/ogg",
    "mpg": "video/mpeg",
    "mpeg": "video/mpeg",
    "mov": "video/quicktime",
    "qt": "video/quicktime",
    "avi": "video/x-msvideo",
    "mkv": "video/matroska",
    "wmv": "video/x-ms-wmv",
    "asf": "video/x-ms-asf",
    "asx": "video/x-ms-asf",
    "flv": "video/x-flv",
    "mng": "video/x-mng",
    "3gp": "video/3gpp",
    "3g2": "video/3gpp2",
    "ts": "video/mp2t",
    "m2ts": "video/mp2t",
    "m3u8": "application/vnd.apple.mpegurl",
    "m3u": "audio/mpegurl",
    "mpd": "application/dash+xml",
    # fonts
    "woff": "font/woff",
    "woff2": "font/woff2",
    "ttf": "font/ttf",
    "otf": "font/otf",
    "ttc": "font/collection",
    "eot": "application/vnd.ms-fontobject",
    # programs
    "wasm": "application/wasm",
    "jar": "application/java-archive",
    "war": "application/java-archive",
    "apk": "application/vnd.android.package-archive",
    "ipa": "application/octet-stream",
    "deb": "application/vnd.debian.binary-package",
    "rpm": "application/x-rpm",
    "swf": "application/vnd.adobe.flash.movie",
    "jnlp": "application/x-java-jnlp-file",
    "appcache": "text/cache-manifest",
    "xpi": "application/x-xpinstall",
    "crx": "application/x-chrome-extension",
    "mobileconfig": "application/x-apple-aspen-config",
    "pl": "application/x-perl",
    "pm": "application/x-perl",
    "tcl": "application/x-tcl",
    # archives and compressed files
    "zip": "application/zip",
    "gz": "application/gzip",
    "tgz": "application/gzip",
    "br": "application/x-brotli",
    "zst": "application/zstd",
    "bz2": "application/x-bzip2",
    "xz": "application/x-xz",
    "lz4": "application/x-lz4",
    "7z": "application/x-7z-compressed",
    "rar": "application/vnd.rar",
    "tar": "application/x-tar",
    "sit": "application/x-stuffit",
    "hqx": "application/mac-binhex40",
    "torrent": "application/x-bittorrent",
    # documents
    "pdf": "application/pdf",
    "ps": "application/postscript",
    "eps": "application/postscript",
    "ai": "application/postscript",
    "rtf": "application/rtf",
    "epub": "application/epub+zip",
    "mobi": "application/x-mobipocket-ebook",
    "djvu": "image/vnd.djvu",
    "doc": "application/msword",
    "xls": "application/vnd.ms-excel",
    "ppt": "application/vnd.ms-powerpoint",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "odt": "application/vnd.oasis.opendocument.text",
    "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odp": "application/vnd.oasis.opendocument.presentation",
    "odg": "application/vnd.oasis.opendocument.graphics",
    # data and models
    "gltf": "model/gltf+json",
    "glb": "model/gltf-binary",
    "obj": "model/obj",
    "stl": "model/stl",
    "usdz": "model/vnd.usdz+zip",
    "sqlite": "application/vnd.sqlite3",
    "parquet": "application/vnd.apache.parquet",
    "pbf": "application/x-protobuf",
    "har": "application/json",
    # certificates and signatures
    "pem": "application/x-pem-file",
    "crt": "application/x-x509-ca-cert",
    "cer": "application/pkix-cert",
    "der": "application/x-x509-ca-cert",
    "crl": "application/pkix-crl",
    "p12": "application/x-pkcs12",
    "sig": "application/pgp-signature",
    "asc": "application/pgp-signature",
}

# What shrinks, beside text, XML and JSON by any name.
_COMPRESSIBLE: Final = frozenset(
    (
        "application/javascript",
        "application/json",
        "application/jsonl",
        "application/json5",
        "application/postscript",
        "application/rtf",
        "application/sql",
        "application/toml",
        "application/vnd.ms-fontobject",
        "application/wasm",
        "application/x-ndjson",
        "application/x-subrip",
        "application/xml",
        "application/xml-dtd",
        "application/yaml",
        "application/vnd.apple.mpegurl",
        "font/otf",
        "font/ttf",
        "image/bmp",
        "image/vnd.microsoft.icon",
        "image/x-xbitmap",
        "model/gltf-binary",
        "model/obj",
        "model/stl",
    )
)

# Text by another name. JSON is not here: it is UTF-8 and has no charset parameter (RFC 8259).
_TEXTUAL: Final = frozenset(
    (
        "application/javascript",
        "application/sql",
        "application/x-subrip",
        "application/xml",
        "application/xml-dtd",
    )
)


def extension(path: bytes) -> str:
    """The extension of a path's last segment, in lower case, without its dot; "" if it has none."""
    stem, _, suffix = path.rpartition(b"/")[2].rpartition(b".")
    return suffix.decode("latin-1").lower() if stem else ""


def content_type(path: bytes, overrides: Mapping[str, str], charset: str) -> bytes:
    """The Content-Type of a file (RFC 9110, section 8.3).

    `overrides` maps lower-case extensions without a dot to types and goes before the table. The
    charset, when not empty, is added to textual types that do not name one.
    """
    suffix = extension(path)
    kind = overrides.get(suffix) or TYPES.get(suffix, DEFAULT)
    if charset and _is_text(kind):
        kind = f"{kind}; charset={charset}"
    return kind.encode("latin-1")


def compressible(kind: bytes) -> bool:
    """Whether files of a Content-Type mostly shrink when they are compressed; pictures and archives do not."""
    bare = _bare(kind.decode("latin-1"))
    return bare.startswith("text/") or bare.endswith(("+xml", "+json")) or bare in _COMPRESSIBLE


def _bare(kind: str) -> str:
    """A media type without its parameters, in lower case."""
    return kind.partition(";")[0].rstrip().lower()


def _is_text(kind: str) -> bool:
    bare = _bare(kind)
    if "charset=" in kind.lower():
        return False
    return bare.startswith("text/") or bare.endswith("+xml") or bare in _TEXTUAL
