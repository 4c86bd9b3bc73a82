"""TLS, HTTP/2 and netrc, with a real server."""

import datetime
import ipaddress
import os
import shutil
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confinement import run_python, without_tls_roots
from conftest import Command, Contents
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hostile import misbehaving
from servers import nginx, program
from test_http import check

import inrush

TLS = """listen 127.0.0.1:PORT ssl http2; ssl_certificate {folder}/cert.pem;
ssl_certificate_key {folder}/key.pem; server_name localhost;"""


def write_certificate(path: Path, key_path: Path, name: str = "localhost", days: int = 2) -> None:
    """A certificate that vouches for itself, until so many days from now."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    others: list[x509.GeneralName] = [x509.DNSName(name)]
    if name == "localhost":
        others.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder(names, names, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(others), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


@pytest.fixture(autouse=True)
def nothing_of_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith(("_proxy", "ca_bundle", "ssl_cert_file", "ssl_cert_dir")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    folder = tmp_path / "tls"
    folder.mkdir()
    write_certificate(folder / "cert.pem", folder / "key.pem")
    return folder / "cert.pem"


@pytest.fixture
def served(
    sharded: tuple[Path, Contents], tmp_path: Path, certificate: Path
) -> Iterator[tuple[str, Contents]]:
    folder, contents = sharded
    lines = TLS.format(folder=certificate.parent)
    with nginx(folder.parent, tmp_path / "nginx", lines) as port:
        yield f"https://127.0.0.1:{port}/{folder.name}/", contents


def test_a_certificate_that_nobody_vouches_for_is_refused(served: tuple[str, Contents]) -> None:
    with pytest.raises(inrush.SourceError, match=r"(?i)certificate"):
        inrush.open(served[0], storage_options={"timeout": 1})


def test_roots_are_an_option(served: tuple[str, Contents], certificate: Path) -> None:
    options = {"ca_file": str(certificate)}
    check(inrush.open(served[0], storage_options=options).load(), served[1])


@pytest.mark.parametrize(
    "name", ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE"]
)
def test_roots_are_the_environments(
    served: tuple[str, Contents],
    certificate: Path,
    name: str,
    inrush_command: Command,
) -> None:
    done = inrush_command("load", served[0], "--json", **{name: str(certificate)})
    assert done.returncode == 0, done.stderr
    assert '"http"' in done.stdout


def test_an_option_wins_over_the_environment(
    served: tuple[str, Contents], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = certificate.parent / "other.pem"
    write_certificate(other, certificate.parent / "other.key", name="elsewhere")
    monkeypatch.setenv("SSL_CERT_FILE", str(other))
    with pytest.raises(inrush.SourceError, match=r"(?i)certificate"):
        inrush.open(served[0])
    options = {"ca_file": str(certificate)}
    check(inrush.open(served[0], storage_options=options).load(), served[1])


@pytest.mark.parametrize("way", ["option", "SSL_CERT_DIR"])
def test_roots_can_be_a_folder(
    served: tuple[str, Contents], certificate: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = certificate.parent / "roots"
    folder.mkdir()
    shutil.copy(certificate, folder)
    subprocess.run([program("openssl"), "rehash", str(folder)], check=True, capture_output=True)
    options = {"ca_folder": str(folder)} if way == "option" else {}
    if way != "option":
        monkeypatch.setenv(way, str(folder))
    check(inrush.open(served[0], storage_options=options).load(), served[1])


LOAD = """
import sys, zlib, inrush
for name, tensor in inrush.open(sys.argv[1]).tensors():
    print(name, zlib.crc32(memoryview(tensor).cast("B")))
"""


def loaded_elsewhere(
    served: tuple[str, Contents], before: Callable[[], None], **environment: str
) -> None:
    """The load in a process of its own gives what is served."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to hide this machine's roots")
    done = run_python(LOAD, served[0], before=before, **environment)
    assert done.returncode == 0, done.stderr
    expected = [f"{name} {zlib.crc32(data)}" for name, (_, _, data) in served[1].items()]
    assert sorted(done.stdout.splitlines()) == sorted(expected)


@pytest.mark.parametrize("place", ["certs/ca-certificates.crt", "ca-bundle.pem", "cert.pem"])
def test_roots_are_where_distributions_have_them(
    served: tuple[str, Contents], certificate: Path, place: str
) -> None:
    loaded_elsewhere(served, without_tls_roots(but=(place, certificate.read_bytes())))


def test_a_machine_without_roots_has_those_of_certifi(
    served: tuple[str, Contents], certificate: Path, tmp_path: Path
) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "certifi.py").write_text(f"def where():\n    return {str(certificate)!r}\n")
    loaded_elsewhere(served, without_tls_roots(), PYTHONPATH=str(packages))


@pytest.mark.parametrize(
    ("name", "days", "reason"),
    [
        ("elsewhere.invalid", 2, "no alternative certificate subject name matches|hostname"),
        ("localhost", -1, "expired"),
    ],
)
def test_a_wrong_certificate_is_one_error(
    tmp_path: Path, name: str, days: int, reason: str
) -> None:
    write_certificate(tmp_path / "cert.pem", tmp_path / "key.pem", name=name, days=days)
    lines = TLS.format(folder=tmp_path)
    with nginx(tmp_path, tmp_path / "nginx", lines) as port:
        before = time.monotonic()
        place = rf"open https://127\.0\.0\.1:{port}/x\.safetensors: "
        with pytest.raises(inrush.SourceError, match=f"(?i){place}.*({reason})"):
            inrush.open(
                f"https://127.0.0.1:{port}/x.safetensors",
                storage_options={"ca_file": str(tmp_path / "cert.pem")},
            )
        assert time.monotonic() - before < 30  # and not until patience ends


def test_a_server_that_speaks_no_tls_is_one_error() -> None:
    with misbehaving({"x.safetensors": b"x"}) as plain:
        url = plain.url.replace("http:", "https:")
        before = time.monotonic()
        with pytest.raises(inrush.SourceError, match=r"open https://.*(SSL|TLS|HTTP)"):
            inrush.open(url + "/serves/x.safetensors")
        assert time.monotonic() - before < 30
        assert plain.connections < 10


def test_roots_that_are_not_there_are_told(served: tuple[str, Contents]) -> None:
    with pytest.raises(inrush.UsageError, match=r"TLS roots /no/such: no such file"):
        inrush.open(served[0], storage_options={"ca_file": "/no/such"})


def test_https_does_not_become_http(
    sharded: tuple[Path, Contents], tmp_path: Path, certificate: Path
) -> None:
    with misbehaving({}) as plain:
        lines = TLS.format(folder=certificate.parent) + f"return 302 {plain.url}/serves/x;"
        with nginx(tmp_path, tmp_path / "nginx", lines) as port:
            url = f"https://127.0.0.1:{port}/x.safetensors"
            with pytest.raises(inrush.SourceError, match="from https to http"):
                inrush.open(url, storage_options={"ca_file": str(certificate)})
        assert not plain.headers


def test_a_password_of_netrc_does_not_follow_a_redirect(
    sharded: tuple[Path, Contents], tmp_path: Path
) -> None:
    # Its entries are by host, and so would be good for another port of this one.
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    name = "model-00001-of-00002.safetensors"
    data = (sharded[0] / name).read_bytes()
    with misbehaving({name: data}) as home, misbehaving({name: data}) as other:
        home.target = f"{other.url}/serves/{name}"
        assert inrush.open(f"{home.url}/redirects/{name}").load()
        assert all("Authorization" in headers for headers in home.headers)
        assert other.headers
        assert not any("Authorization" in headers for headers in other.headers)


def test_a_password_is_found_in_netrc(sharded: tuple[Path, Contents], tmp_path: Path) -> None:
    folder, contents = sharded
    (tmp_path / "users").write_text("me:{PLAIN}s3cret\n")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password s3cret\n")
    lines = f"auth_basic x; auth_basic_user_file {tmp_path}/users;"
    with nginx(folder.parent, tmp_path / "nginx", lines) as port:
        check(inrush.open(f"http://127.0.0.1:{port}/{folder.name}/").load(), contents)
        (tmp_path / ".netrc").unlink()
        with pytest.raises(inrush.SourceError, match="401 Unauthorized"):
            inrush.open(f"http://127.0.0.1:{port}/{folder.name}/model.safetensors.index.json")
