"""S3 as tensorizer's users know it: its credentials, its endpoints; requests are signed here."""

from __future__ import annotations

import configparser
import datetime
import hashlib
import hmac
import io
import os
import re
import tempfile
import typing
import urllib.error
import urllib.parse
import urllib.request
import warnings
import xml.etree.ElementTree as ElementTree

from inrush._options import aws_environment
from inrush.tensorizer._http import opener, public

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EXPIRES = 6 * 3600  # seconds that a signed address holds
_TIMEOUT = 60.0  # seconds without a byte
_PART = 64 << 20  # bytes of a part of an upload
_MOST_PARTS = 10_000
_UNSIGNED: tuple[str, str] = ("", "")
# Where buckets are names of hosts and nothing else.
_VIRTUAL_HOSTS = ("cwobject.com", "cwlota.com")


class Credentials(typing.NamedTuple):
    """A key pair and, where the same place said so, an endpoint. Never printed."""

    access_key: str
    secret_key: str
    token: str | None = None
    endpoint: str | None = None
    use_https: bool | None = None

    def __repr__(self) -> str:
        return "<Credentials>"


class Account(typing.NamedTuple):
    """Credentials and where they hold."""

    credentials: Credentials
    endpoint: str  # with its scheme
    region: str

    def __repr__(self) -> str:
        return f"<Account at {self.endpoint}>"


def parse_uri(uri: str) -> tuple[str, str]:
    """Bucket and key.

    Raises
    ------
    ValueError
        If there is no bucket or no key.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme.lower() != "s3" or not bucket or not key.lstrip("/"):
        raise ValueError(f"Invalid S3 URI: {uri}: expected s3://BUCKET/KEY")
    return bucket, key.lstrip("/")


def _from_s3cfg(path: Any) -> Credentials | None:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
    except (OSError, UnicodeDecodeError, configparser.Error):
        return None
    if not parser.has_section("default"):
        return None
    values = parser["default"]
    if not values.get("access_key") or not values.get("secret_key"):
        return None
    return Credentials(
        values["access_key"],
        values["secret_key"],
        endpoint=values.get("host_base"),
        use_https=values.getboolean("use_https", fallback=None),
    )


def _aws_file(word: str, name: str) -> str:
    return aws_environment(word) or os.path.expanduser(f"~/.aws/{name}")


def _from_aws() -> Credentials | None:
    """What AWS's own tools would take: the environment, their file, and what boto3 finds."""
    access_key = aws_environment("ACCESS_KEY_ID")
    secret_key = aws_environment("SECRET_ACCESS_KEY")
    if access_key and secret_key:
        token = aws_environment("SESSION_TOKEN") or aws_environment("SECURITY_TOKEN")
        return Credentials(access_key, secret_key, token)
    parser = configparser.ConfigParser(interpolation=None)
    path = _aws_file("SHARED_CREDENTIALS_FILE", "credentials")
    try:
        parser.read(path, encoding="utf-8")
    except (UnicodeDecodeError, configparser.Error):
        raise ValueError(f"{path}: it is no file of credentials") from None
    profile = aws_environment("PROFILE") or "default"
    if parser.has_option(profile, "aws_secret_access_key"):
        values = parser[profile]
        return Credentials(
            values.get("aws_access_key_id", ""),
            values["aws_secret_access_key"],
            values.get("aws_session_token"),
        )
    try:
        import boto3
    except ImportError:
        return None
    found: Any = boto3.session.Session().get_credentials()
    if found is None:
        return None
    now = found.get_frozen_credentials()
    return Credentials(now.access_key, now.secret_key, now.token)


def find_credentials(
    access_key: str | None, secret_key: str | None, config_paths: Any
) -> Credentials:
    """Given ones, else s3cmd's, else AWS's, else none: requests are then not signed."""
    if access_key is not None and secret_key is not None:
        return Credentials(access_key, secret_key)
    for path in config_paths:
        found = _from_s3cfg(path)
        if found is not None:
            return found._replace(
                access_key=access_key or found.access_key,
                secret_key=secret_key or found.secret_key,
            )
    return _from_aws() or Credentials(*_UNSIGNED)


def configured_endpoint() -> str | None:
    """The endpoint that the environment or AWS's configuration names."""
    named = aws_environment("ENDPOINT_URL_S3") or aws_environment("ENDPOINT_URL")
    if named:
        return named
    parser = configparser.ConfigParser(interpolation=None)
    path = _aws_file("CONFIG_FILE", "config")
    profile = aws_environment("PROFILE") or "default"
    try:
        parser.read(path, encoding="utf-8")
    except (UnicodeDecodeError, configparser.Error):
        return None
    section = profile if profile == "default" else f"profile {profile}"
    nested = parser.get(section, "s3", fallback="")
    for line in nested.splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "endpoint_url":
            return value.strip()
    return parser.get(section, "endpoint_url", fallback=None)


def region_of(endpoint: str, given: str | None) -> str:
    """The region to sign for."""
    host = urllib.parse.urlsplit(endpoint).hostname or ""
    named = re.search(r"\bs3[.-]([a-z0-9-]+)\.amazonaws\.com$", host)
    environment = aws_environment("REGION") or aws_environment("DEFAULT_REGION")
    return given or environment or (named.group(1) if named else "us-east-1")


def signed_url(
    account: Account, method: str, bucket: str, key: str, query: dict[str, str] | None = None
) -> str:
    """An address that needs no header to be allowed (AWS4-HMAC-SHA256); it expires."""
    parts = urllib.parse.urlsplit(account.endpoint)
    host, path = parts.netloc, "/" + urllib.parse.quote(key, safe="/~")
    if host.lower().endswith(_VIRTUAL_HOSTS):
        host = f"{bucket}.{host}"
    else:
        path = f"/{bucket}{path}"
    words = dict(query or {})
    secret = account.credentials.secret_key
    if account.credentials[:2] != _UNSIGNED:
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{now[:8]}/{account.region}/s3/aws4_request"
        words |= {
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": f"{account.credentials.access_key}/{scope}",
            "X-Amz-Date": now,
            "X-Amz-Expires": str(_EXPIRES),
            "X-Amz-SignedHeaders": "host",
        }
        if account.credentials.token:
            words["X-Amz-Security-Token"] = account.credentials.token
        request = "\n".join(
            [method, path, _query(words), f"host:{host}", "", "host", "UNSIGNED-PAYLOAD"]
        )
        digest = hashlib.sha256(request.encode()).hexdigest()
        signing = ("AWS4" + secret).encode()
        for part in scope.split("/"):
            signing = hmac.digest(signing, part.encode(), "sha256")
        text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}"
        words["X-Amz-Signature"] = hmac.digest(signing, text.encode(), "sha256").hex()
    return urllib.parse.urlunsplit((parts.scheme, host, path, _query(words), ""))


def _query(words: dict[str, str]) -> str:
    return "&".join(
        f"{urllib.parse.quote(name, safe='~')}={urllib.parse.quote(value, safe='~')}"
        for name, value in sorted(words.items())
    )


class Upload(io.BufferedRandom):
    """A file without a name on this machine, which becomes the object when it is closed.

    Left by an exception, or never closed, it becomes nothing.
    """

    def __init__(self, account: Account, uri: str, certificates: Any = None) -> None:
        self._bucket, self._key = parse_uri(uri)
        self._account = account
        self._certificates = certificates
        self._wanted = True
        # Unbuffered: the raw file, which this object then owns.
        file: Any = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        super().__init__(file)

    @property
    def name(self) -> str:
        """Where it goes."""
        return f"s3://{self._bucket}/{self._key}"

    def __exit__(self, *error: Any) -> None:
        self._wanted = self._wanted and error[0] is None
        self.close()

    def __del__(self) -> None:
        if not self.closed:
            self._wanted = False
            warnings.warn(
                f"{self.name} was never closed: nothing was uploaded", ResourceWarning, stacklevel=2
            )
            self.close()

    def close(self) -> None:
        """Upload it.

        Raises
        ------
        OSError
            If the server refuses; there is no object then.
        """
        if self.closed:
            return
        try:
            if self._wanted:
                self.flush()
                self._upload()
        finally:
            super().close()

    def _upload(self) -> None:
        size = self.seek(0, os.SEEK_END)
        self.seek(0)
        if size <= _PART:
            self._send("PUT", {}, self.read())
            return
        answer = ElementTree.fromstring(self._send("POST", {"uploads": ""})[0])
        name = answer.findtext("{*}UploadId") or ""
        part = max(_PART, -(-size // _MOST_PARTS))
        try:
            done = ElementTree.Element("CompleteMultipartUpload")
            for number in range(1, -(-size // part) + 1):
                words = {"partNumber": str(number), "uploadId": name}
                _, headers = self._send("PUT", words, self.read(part))
                one = ElementTree.SubElement(done, "Part")
                ElementTree.SubElement(one, "PartNumber").text = str(number)
                ElementTree.SubElement(one, "ETag").text = headers.get("ETag")
            body, _ = self._send("POST", {"uploadId": name}, ElementTree.tostring(done))
            if b"<Error" in body:  # said in a body although the status is 200
                raise OSError(f"write {self.name}: the server does not put the parts together")
        except BaseException:
            self._send("DELETE", {"uploadId": name})
            raise

    def _send(self, method: str, words: dict[str, str], data: bytes = b"") -> tuple[bytes, Any]:
        url = signed_url(self._account, method, self._bucket, self._key, words)
        request = urllib.request.Request(url, data=data or None, method=method)
        request.add_header("Content-Type", "application/octet-stream")
        if method == "PUT":
            request.data = data
        try:
            with opener(self._certificates).open(request, timeout=_TIMEOUT) as answer:
                return answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            code = re.search(rb"<Code>([A-Za-z]+)</Code>", error.read(1 << 16))
            why = code.group(1).decode() if code else error.reason
            raise OSError(f"write {public(url)}: HTTP {error.code} {why}") from None
        except urllib.error.URLError as error:
            raise OSError(f"write {public(url)}: {error.reason}") from None
