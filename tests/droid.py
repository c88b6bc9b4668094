"""REDbot as a program of its own: it has one event loop for a process, and warnings that are its own affair.

    python -m tests.droid < requests.json > found.json

In: a list of [method, URI, fields]. Out, for each: the status, and the notes that are worse than good of the reply and
of the requests that REDbot makes of its own accord (conditions, ranges, codings): [level, name, subject, summary].
"""

import json
import sys
from configparser import ConfigParser
from typing import Any

import thor
from redbot.resource import HttpResource

_WORSE = ("WARN", "BAD")


def main() -> None:
    """Check all of them at once, and stop when the last one is done."""
    config = ConfigParser()
    config.read_dict({"redbot": {"enable_local_access": "True"}})
    requests = json.load(sys.stdin)
    resources = [HttpResource(config["redbot"]) for _ in requests]
    left = len(resources)

    def done() -> None:
        nonlocal left
        left -= 1
        if not left:
            thor.stop()

    for resource, (method, uri, fields) in zip(resources, requests, strict=True):
        resource.set_request(uri, method, list(fields.items()))
        resource.on("check_done", done)
        resource.check()
    thor.run()
    json.dump([_found(resource) for resource in resources], sys.stdout)


def _found(resource: Any) -> dict[str, Any]:
    checks = [resource, *resource.subreqs.values()]
    notes = [note for check in checks for above in check.response.notes for note in (above, *above.subnotes)]
    worse = [note for note in notes if note.level.name in _WORSE]
    return {
        "status": resource.response.status_code,
        "complete": resource.response.complete and resource.check_done and resource.fetch_error is None,
        "notes": [[note.level.name, type(note).__name__, note.subject, str(note.summary)] for note in worse],
    }


if __name__ == "__main__":
    main()
