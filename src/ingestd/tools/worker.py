"""The program that a worker process runs: one library that must not run inside the service.

It is started by its path and imports nothing of ingestd, so that it starts quickly. It reads requests from standard
input and writes answers to standard output, one JSON value a line: first what it is, then for every list of paths a
list of answers, in the same order. It ends when its input does.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

Answer = dict[str, Any]


def siegfried() -> tuple[Answer, Callable[[list[str]], list[Answer]]]:
    """Identify formats with pygfried, which holds the interpreter's lock for as long as it computes."""
    import pygfried

    first = pygfried.identify_many([os.devnull])
    hello = {"version": first["siegfried"], "signature": first["identifiers"][0]["details"]}

    def answer(paths: list[str]) -> list[Answer]:
        return [dict(file) for file in pygfried.identify_many(paths)["files"]]

    return hello, answer


def mediainfo() -> tuple[Answer, Callable[[list[str]], list[Answer]]]:
    """Describe media with libmediainfo, which may crash on what it does not expect."""
    from pymediainfo import MediaInfo

    # The numbered files of a folder are files, not frames of one film.
    options = {"Language": "raw", "File_TestContinuousFileNames": "0", "File_TestDirectory": "0"}
    version = MediaInfo._get_library()[2]  # noqa: SLF001  the library says it nowhere else

    def one(path: str) -> Answer:
        folder, name = os.path.split(path)
        try:
            # From within its folder the file has no other name than its own: no path of this server is written down.
            os.chdir(folder)
            return {"xml": MediaInfo.parse(name, output="XML", mediainfo_options=options)}
        except (OSError, RuntimeError, ValueError) as error:
            return {"error": getattr(error, "strerror", None) or str(error) or type(error).__name__}

    return {"version": version}, lambda paths: [one(path) for path in paths]


def main(task: str) -> None:
    # Whatever a library prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    hello, answer = {"siegfried": siegfried, "mediainfo": mediainfo}[task]()
    print(json.dumps(hello), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
