"""The web page: drop a beatmap, choose a part and a style, see the result play beside it."""

from conventions import requirements_check  # (first: says what is missing)

if __name__ == "__main__":
    requirements_check.announce()

# isort: split
import argparse
import os
import re
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from conventions import command_line
from conventions.bundled import DEFAULT_MODEL, EXAMPLE
from conventions.errors import naming
from sampling.flags import NAMES, add_expert_flags
from sampling.loaded_models import load_models
from sampling.request import RemapRequest

POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""What the page may load: from here alone. Gradio's scripts are inline and use eval."""


FETCHING = re.compile("/(file=https?:|proxy=)", re.IGNORECASE)
"""Paths of Gradio's that would have the server fetch an address for whoever asks."""


class Guard:
    """Sends the content security policy with every answer; refuses to fetch addresses."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [(b"content-security-policy", POLICY.encode())]
                headers.append((b"referrer-policy", b"no-referrer"))
                message = message | {"headers": [*message["headers"], *headers]}
            await send(message)

        if scope["type"] == "http" and FETCHING.search(scope["path"]):
            await sending({"type": "http.response.start", "status": 403, "headers": []})
            await sending({"type": "http.response.body"})
        else:
            await self.app(scope, receive, sending)


def make_parser() -> argparse.ArgumentParser:
    """The command line of app.py."""
    parser = argparse.ArgumentParser(
        usage="python app.py [flags]",
        description=__doc__,
        formatter_class=command_line.HelpFormatter,
    )
    add = parser.add_argument
    add("--ckpt", type=Path, default=DEFAULT_MODEL, help="model: as sample.py takes it")
    add_expert_flags(add)
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: the whole network")
    add("--port", type=int, help="port to listen on; default: 7860, or the next free one")
    add(
        "--share",
        action=command_line.BooleanFlag,
        default=False,
        help="a public link through gradio.live",
    )
    add("--device", default="auto", help="cuda (also for AMD's ROCm), mps, cpu, or auto")
    add("--max-upload-mb", type=int, default=100, help="of one file")
    return parser


def check_address(host: str, port: int | None) -> None:
    """Refuses what this computer cannot listen on: ValueError."""
    if port is not None and not 1 <= port <= 65535:
        raise ValueError(f"--port {port}: give a number from 1 to 65535")
    try:
        family = socket.getaddrinfo(host, 0)[0][0]
        socket.create_server((host, 0), family=family).close()
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"--host {host}: this computer cannot listen there ({reason}): give one of its own "
            "addresses, or leave --host out"
        ) from error


def main() -> int:
    args = make_parser().parse_args()
    if find_spec("gradio") is None:
        raise ValueError("app.py needs gradio: python -m pip install -r requirements-app.txt")
    if args.max_upload_mb < 1:
        raise ValueError(f"--max-upload-mb {args.max_upload_mb}: give at least 1")
    check_address(args.host, args.port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that files are removed then too
    with tempfile.TemporaryDirectory(prefix="osu-diffusion-", ignore_cleanup_errors=True) as folder:
        serve(command_line.options_of(Service, args), Path(folder).resolve())
    return 0


@dataclass(frozen=True)
class Service:
    """What is served, and to whom: the flags of app.py."""

    ckpt: Path
    expert_ckpt: Path | None
    expert_below: float | None
    max_noise_step: int | None
    host: str
    port: int | None
    share: bool
    device: str
    max_upload_mb: int


def base_request(service: Service) -> RemapRequest:
    """The models that parsed flags name; the page says the rest."""
    return RemapRequest(
        model=service.ckpt,
        expert=service.expert_ckpt,
        expert_below=service.expert_below,
        max_noise_step=service.max_noise_step,
    )


def serve(service: Service, folder: Path) -> None:
    """Serves the page until it is interrupted; all files are in `folder`."""
    with naming(NAMES):
        base = base_request(service)
        models = load_models(base, command_line.pick_device(service.device))
    # Gradio reads these when it is imported.
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "GRADIO_TEMP_DIR": str(folder),
    }
    import gradio as gr
    from starlette.middleware import Middleware

    from web.controls import CSS, Page
    from web.sessions import Sessions

    blocks = Page(Sessions(models, folder), EXAMPLE, base).blocks
    theme = gr.themes.Default(
        primary_hue="sky",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(body_text_color_subdued="*neutral_500", block_info_text_color="*neutral_500")
    _, local, public = blocks.queue(default_concurrency_limit=4, max_size=64).launch(
        server_name=service.host,
        server_port=service.port,
        share=service.share,
        max_file_size=f"{service.max_upload_mb}mb",
        theme=theme,
        css_paths=CSS,
        app_kwargs={"middleware": [Middleware(Guard)]},
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        pwa=False,
        prevent_thread_lock=True,
        quiet=True,
    )
    print(f"osu-diffusion is at {public or local} (Ctrl-C ends it)", flush=True)
    try:
        blocks.block_thread()
    finally:
        blocks.close(verbose=False)


if __name__ == "__main__":
    command_line.run(main)
