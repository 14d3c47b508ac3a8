"""The gateway for tests: the real Caddy with the project's Caddyfile, on ports of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx

from hub.embedded.process import free_port
from tests.integration.dagster_stack import process, until

ROOT = Path(__file__).resolve().parents[2]
HEADER = "X-Gateway-f00"


@dataclass(frozen=True)
class Gateway:
    """A running gateway; `url` is where its names begin, `authority` the certificate that clients trust."""

    url: str
    plain_url: str
    authority: Path
    log: Path
    config: Path
    environment: dict[str, str]

    def user(self, *arguments: str, stdin: str = "") -> str:
        """`hub gateway user …` and what `make gateway-user` does afterwards; what the command said."""
        hub = [str(Path(sys.executable).with_name("hub")), "gateway", "user", *arguments]
        done = subprocess.run(hub, env=self.environment, input=stdin, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        reload = ["caddy", "reload", "--config", str(self.config), "--adapter", "caddyfile"]
        told = subprocess.run(reload, env=self.environment, text=True, capture_output=True)
        assert told.returncode == 0, told.stderr
        return done.stdout

    def client(self, name: str | None = None, password: str = "", **headers: str) -> httpx.Client:
        """A client that trusts the gateway's authority and nobody else."""
        login = httpx.BasicAuth(name, password) if name else None
        return httpx.Client(base_url=self.url, verify=str(self.authority), auth=login, headers=headers, timeout=120)


@contextlib.contextmanager
def gateway(folder: Path, *, port: int, grafana: str, dagster: str, api: str) -> Iterator[Gateway]:
    """Caddy before these upstreams (HOST:PORT), at https://localhost:PORT."""
    plain, admin, health = free_port(), free_port(), free_port()
    users, secret = folder / "users", folder / "secrets"
    users.mkdir()
    secret.mkdir()
    (secret / "GATEWAY_LOGIN").write_text(f"header_up {HEADER} {{http.auth.user.id}}")
    text = (ROOT / "compose" / "gateway" / "Caddyfile").read_text()
    for here, there in {
        "\tskip_install_trust": f"\tskip_install_trust\n\thttp_port {plain}\n\thttps_port {port}\n\tadmin localhost:{admin}",
        "/etc/reading-hub/gateway": str(users), "/run/secrets": str(secret), "127.0.0.1:2020": f"127.0.0.1:{health}",
        "grafana:3000": grafana, "dagster-webserver:3000": dagster, "proxy:8085": api,
    }.items():  # fmt: skip
        assert here in text
        text = text.replace(here, there)
    config = folder / "Caddyfile"
    config.write_text(text)
    environment = {
        **os.environ, "GATEWAY_HOST": "localhost", "XDG_DATA_HOME": str(folder / "data"), "GATEWAY_DIR": str(users),
        "XDG_CONFIG_HOME": str(folder / "config"), "HOME": str(folder),
    }  # fmt: skip
    authority, log = folder / "data" / "caddy" / "pki" / "authorities" / "local" / "root.crt", folder / "caddy.log"
    command = ["caddy", "run", "--config", str(config), "--adapter", "caddyfile"]
    with process(command, environment, log) as running:

        def ready() -> bool:
            assert running.poll() is None, log.read_text()
            with contextlib.suppress(httpx.HTTPError, OSError):
                httpx.get(f"https://localhost:{port}/", verify=str(authority))
                return httpx.get(f"http://127.0.0.1:{health}/").is_success
            return False

        until("the gateway answers", ready)
        yield Gateway(
            f"https://localhost:{port}", f"http://localhost:{plain}", authority, log, config, environment
        )  # fmt: skip


@contextlib.contextmanager
def echo() -> Iterator[str]:
    """A server that answers with what it was asked, as JSON; HOST:PORT."""

    class Echo(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told = {"method": self.command, "path": self.path, "headers": [*self.headers.items()]}
            body = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Frame-Options", "deny")
            self.send_header("Content-Security-Policy", "default-src 'self'")
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
