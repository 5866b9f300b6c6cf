"""Web pages in one file, which need no network and are forbidden to use one."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{{policy}}">
<title>{{title}}</title>
<style>
{{style}}
</style>
</head>
"""


def fill_page(
    body: Path, style: Path, scripts: Iterable[Path], title: str, data: Any, policy: str = ""
) -> str:
    """A page: a template of its body with its style, scripts, a title and data (JSON) put in.

    The content security policy admits these scripts and styles alone, beside what `policy` adds.
    Texts in `data` are safe where the scripts write them as text.
    """
    script = "\n".join(path.read_text(encoding="utf-8") for path in scripts)
    digest = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode()
    parts = {
        "policy": f"default-src 'none'; script-src 'sha256-{digest}'; "
        f"style-src 'unsafe-inline'{policy and '; ' + policy}",
        "title": html.escape(title),
        "style": style.read_text(encoding="utf-8").strip(),
        # Within a script element only this character could end it or open a comment.
        "data": json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        "script": script,
    }
    page = HEAD + body.read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], page)
