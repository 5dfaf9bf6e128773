"""Cameras that send JPEG pictures over HTTP: an endless answer (MJPEG), or one picture for each request."""

from __future__ import annotations

import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Protocol

from lego_core.errors import LegoError

from lego_client.sources.addresses import shown, without_credentials
from lego_client.sources.jpeg_stream import JpegSplitter

TIMEOUT_S = 8.0
_CHUNK = 64 * 1024
_LIKE_JPEG = (b"--", b"\xff\xd8\xff")  # what an answer of pictures begins with, whatever its content type says


class Unreachable(LegoError):
    """No picture came, and trying again may help."""


class _Response(Protocol):
    status: int
    headers: http.client.HTTPMessage

    def read1(self, n: int = -1) -> bytes: ...

    def close(self) -> None: ...


class HttpCamera:
    """One answer of a camera.

    Attributes:
        has_pictures: Whether it consists of JPEG pictures; if not, it may be a video in another format.
        single: Whether it is one picture, so that the next must be asked for.
    """

    def __init__(self, address: str) -> None:
        """Asks for it.

        Raises:
            Unreachable: The camera does not answer, or says that it cannot now.
            LegoError: It refuses, or serves something that is no video.
        """
        self._name = shown(address)
        self._response = _ask(address, self._name)
        self._first = self._read()
        kind = self._response.headers.get_content_type()
        self.single = kind.startswith("image/")
        self.has_pictures = self.single or kind.startswith("multipart/") or self._first.lstrip().startswith(_LIKE_JPEG)
        if not self.has_pictures and kind in ("text/html", "application/json", "application/xhtml+xml"):
            self.close()
            raise LegoError(
                f"{self._name} serves a page ({kind}) and no video; give the address of the stream itself, which the "
                "camera's page or manual names"
            )

    def pictures(self) -> Iterator[bytes]:
        """Yields picture after picture, undecoded, until the answer ends.

        Raises:
            Unreachable: It breaks off, or brings no whole picture in time.
        """
        splitter = JpegSplitter()
        data, heard = self._first, time.monotonic()
        while data:
            for picture in splitter.feed(data):
                heard = time.monotonic()
                yield picture
            if time.monotonic() - heard > TIMEOUT_S:
                raise Unreachable(f"{self._name} sends data but no whole picture; check the camera and the network")
            data = self._read()

    def close(self) -> None:
        """Ends the connection."""
        self._response.close()

    def _read(self) -> bytes:
        try:
            return self._response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise Unreachable(f"{self._name} broke off ({error}); check the network and the camera") from error


def _ask(address: str, name: str) -> _Response:
    bare, user, password = without_credentials(address)
    known = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if user or password:
        known.add_password(None, bare, user, password)
    opener = urllib.request.build_opener(
        urllib.request.HTTPBasicAuthHandler(known), urllib.request.HTTPDigestAuthHandler(known)
    )
    try:
        response: _Response = opener.open(bare, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        raise _refusal(error.code, name, bool(user or password)) from None
    except (ValueError, http.client.InvalidURL):  # its words would show a part of a password
        raise LegoError(
            f"{name} is no address that can be asked; write special characters of a password as %40 (@), %2F (/) and "
            "%3A (:)"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise LegoError(
                f"{name} shows a certificate that nobody known vouches for ({reason.verify_message}); let "
                "SSL_CERT_FILE name the authority's PEM file"
            ) from None
        why = getattr(reason, "strerror", None) or reason
        raise Unreachable(f"no video at {name} ({why}); check the address and that the stream is on") from None
    return response


def _refusal(status: int, name: str, had_password: bool) -> LegoError:
    match status:
        case 401 | 403 if had_password:
            return LegoError(f"{name} does not take this user name and password (HTTP {status}); check them")
        case 401 | 403:
            return LegoError(
                f"{name} asks for a password (HTTP {status}); write http://USER:PASSWORD@..., in LEGO_SOURCE rather "
                "than on the command line, where others can read it"
            )
        case 404 | 410:
            return LegoError(f"no video at {name} (HTTP {status}); check the part of the address after the host")
        case _:
            return Unreachable(f"no video at {name} now (HTTP {status}); check that the stream is on")
