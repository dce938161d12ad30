"""What the page is made of: all of it is served, none comes from anywhere else or makes markup of text."""

from __future__ import annotations

import re
from pathlib import Path

from collector.coordinator import page

FOLDER = Path(page.__file__).parent
FILES = page.files()


def test_every_file_of_the_folder_is_served():
    """Nothing lies about, nothing is missing."""
    served = {"index.html" if path == "/" else path[1:] for path in FILES} - {"advice.json"}
    assert served == {path.name for path in FOLDER.iterdir() if path.suffix not in {".py", ""}}


def test_what_the_files_ask_for_is_among_them():
    """By addresses relative to the page, so that it works below a path of a proxy as well."""
    asked = {
        name.removeprefix("./")
        for file in FILES.values()
        for name in re.findall(r'(?:from|href=|src=) ?"([^"#]+)"', file.body.decode())
    }
    asked |= {"advice.json"} if b'fetch("advice.json")' in FILES["/headline.js"].body else set()
    answers_of_the_collector = {"status.json", "metrics", "healthz", "readyz"}
    assert asked - answers_of_the_collector == {path[1:] for path in FILES if path != "/"}


def test_nothing_comes_from_another_host():
    """The one address is the name of SVG's namespace; what is advised is text."""
    for path, file in FILES.items():
        if path == "/advice.json":
            continue
        addresses = re.findall(r"\w+://[^\"'\s]+", file.body.decode())
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, path


def test_no_script_makes_markup_of_strings():
    """Text becomes text nodes; the browser refuses the rest, and nobody should come to rely on that."""
    for path, file in FILES.items():
        found = re.findall(
            rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser|\bon\w+=",
            file.body,
        )
        assert found == [], path
