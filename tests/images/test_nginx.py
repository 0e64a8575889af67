"""The nginx configuration of the documentation, checked by nginx and used: a large body goes through, and TLS holds."""

import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import MakeDeployment
from tests.deployment import PROTOBUF, SAMPLE_MODEL, Deployment, wait_for
from tests.images.dockerfiles import ROOT
from tests.ports import free_port

EXAMPLE = ROOT / "docs" / "examples" / "nginx-segint.conf"
FAR_OVER_THE_DEFAULT_BYTES = 8 << 20
"""nginx refuses bodies over one MiB unless it is told otherwise."""
LIMIT_BYTES = 2 << 20
WORKSTATION = "127.0.0.3"
CONFIGURATION = """
daemon off;
user root;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/segint.conf;
}}
"""


@pytest.fixture(scope="module")
def nginx() -> str:
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None or shutil.which("openssl") is None:
        pytest.skip("nginx or openssl is not installed here; Debian's packages are nginx-light and openssl")
    return program


@pytest.fixture(scope="module")
def deployment(new_deployment: MakeDeployment) -> Deployment:
    trusting = {"trusted_networks": "192.0.2.0/24", "trusted_proxies": "127.0.0.1"}
    made = new_deployment(max_body_bytes=LIMIT_BYTES, public_url="https://segint.example.org/")
    return made.start_api(
        environment={f"SEGINT_{key.upper()}": value for key, value in trusting.items()}
    ).import_sample()


@pytest.fixture(scope="module")
def proxy(nginx: str, deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of the example's nginx, which only its addresses and its certificate are put into."""
    folder, port = tmp_path_factory.mktemp("nginx"), free_port()
    subject = ("-subj", "/CN=segint.example.org", "-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", folder / "tls.key", "-out", folder / "tls.crt")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files],
        check=True,
        capture_output=True,
    )
    text = EXAMPLE.read_text(encoding="utf-8")
    text = text.replace("server 127.0.0.1:8080;", f"server 127.0.0.1:{deployment.port};")
    text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;").replace("listen [::]:443 ssl;", "")
    text = text.replace("/etc/ssl/segint/", f"{folder}/")
    (folder / "segint.conf").write_text(text, encoding="utf-8")
    configuration = folder / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder), encoding="utf-8")
    command = [nginx, "-p", str(folder), "-c", str(configuration)]
    checked = subprocess.run([*command, "-t"], capture_output=True, encoding="utf-8", check=False)
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in re.sub(r".*\"user\" directive.*", "", checked.stderr)
    trust = ssl.create_default_context(cafile=folder / "tls.crt")
    with subprocess.Popen(command) as process:
        try:
            # From another address than the proxy's own, as a workstation has.
            transport = httpx.HTTPTransport(verify=trust, local_address=WORKSTATION)
            with httpx.Client(base_url=f"https://127.0.0.1:{port}", transport=transport, timeout=30) as client:
                wait_for(lambda: answers(client), "nginx")
                yield client
        finally:
            process.terminate()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/ping").status_code == 200
    except httpx.TransportError:
        return False


def test_a_large_body_is_refused_by_the_service_and_not_by_nginx(proxy: httpx.Client, deployment: Deployment) -> None:
    # Given a token, and a body over the limits of both
    headers = {"Authorization": f"Bearer {deployment.new_token('one', 'segment')}", "Content-Type": PROTOBUF}
    # When it is posted through nginx, which ends a connection whose request was answered before all of it came
    answer = proxy.post(
        f"/api/v2/Model/{SAMPLE_MODEL}/segmentation",
        content=bytes(FAR_OVER_THE_DEFAULT_BYTES),
        headers=headers | {"Connection": "close"},
    )
    # Then the service says so, in the API's own form
    assert answer.status_code == 413
    assert "SEGINT_MAX_BODY_BYTES" in answer.text or "ErrorMessage" in answer.text
    # and what is under it reaches the service, which says what is wrong with it
    answer = proxy.post(f"/api/v2/Model/{SAMPLE_MODEL}/segmentation", content=bytes(LIMIT_BYTES - 1), headers=headers)
    assert (answer.status_code, "ErrorMessage" in answer.text) == (400, True)


def test_whose_address_it_is_is_told(proxy: httpx.Client) -> None:
    # Given a service that trusts 192.0.2.0/24 and this proxy, Then a client of another address needs a token
    assert proxy.get("/api/v2/Model/").status_code == 401
    # and cannot say that it comes from there
    assert proxy.get("/api/v2/Model/", headers={"X-Forwarded-For": "192.0.2.7"}).status_code == 401


def test_velocity_is_told_the_public_address(proxy: httpx.Client, deployment: Deployment) -> None:
    headers = {"Authorization": f"Bearer {deployment.new_token('two', 'read')}"}
    answer = proxy.get("/api/v2/VendorStatus", headers=headers)
    assert answer.json()["SegmentationServiceUrl"] == "https://segint.example.org/"


def test_the_readme_and_the_guide_show_this_configuration() -> None:
    guide = (ROOT / "docs" / "velocity.md").read_text(encoding="utf-8")
    assert "examples/nginx-segint.conf" in guide
