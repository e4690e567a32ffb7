"""Hostile requests to the service, each as the bytes that go over the wire: from tables, so that a kind is whole.

`requests(read, publish)` gives them with their names; its arguments are tokens of these roles.
"""

from collections.abc import Iterator

# What stands in a path, a query or a form where a name is meant, as it goes over the wire.
VALUES = {
    "up": "..%2f..%2fetc%2fpasswd",
    "up twice encoded": "%252e%252e%252fetc%252fpasswd",
    "backslashes": "..%5c..%5cwindows",
    "a null": "small%00.txt",
    "a line end": "small%0d%0aX-Injected:%20yes",
    "half of a pair": "%ed%a0%80",
    "bytes that are no text": "%ff%fe%fd",
    "an overlong slash": "%c0%ae%c0%ae%c0%af",
    "a turning sign": "small%e2%80%ae",
    "longer than a file's name": "a" * 300,
    "longer than a path": "a" * 5000,
    "a dot": "%2e",
    "nothing": "%20",
    "markup": "%3cscript%3ealert(1)%3c/script%3e",
    "a template": "%7b%7b7*7%7d%7d",
    "a statement": "';DROP%20TABLE%20jobs;--",
    "a wildcard": "*",
    "a hidden folder": ".serve",
    "an option": "--debug",
    "a device": "%2fdev%2fzero",
}
GETS = (
    *("/runs/{}", "/runs/{}/rows", "/runs/{}/report", "/runs/{}/log", "/runs/{}/release.zip", "/runs/{}/events"),
    *("/ui/runs/{}", "/ui/runs/small/rows/{}", "/ui/runs/small/history/{}", "/static/{}", "/{}"),
    *("/runs/small/rows?where=variant:eq:{}", "/login?code={}", "/runs/small/rows?q={}", "/runs/small/rows?sort={}"),
    *("/runs/small/rows/export?id={}", "/runs/{}/contents", "/runs/{}/run.zip", "/ui/runs/{}/manage", "/?q={}"),
    *("/ui/runs/small/rows?add={0}&sort={0}", "/ui/runs/small/diff?a={0}&b={0}"),
)
POSTS = ("/runs/{}/cancel", "/runs/{}/resume", "/runs/{}/jobs/{}/repeat", "/teachers/{}/test")
BODIES = {
    "no JSON": b"{",
    "deep JSON": b"[" * 100_000,
    "deep objects": b'{"config":' * 20_000,
    "a huge number": b'{"name": "x", "budget": {"max_cost": 1e999}}',
    "a number of many digits": b'{"name": "x", "config": {"seed": ' + b"9" * 5000 + b"}}",
    "not a number": b'{"name": "x", "budget": {"max_cost": NaN}}',
    "half of a pair": b'{"name": "x", "config": {"release": {"title": "\\ud800"}, "seed": 1}}',
    "half of a pair as a name": b'{"name": "\\udfff"}',
    "half of a pair as a key": b'{"\\ud800": 1}',
    "a turning sign": b'{"name": "\\u202e"}',
    "a null": b'{"name": "a\\u0000b"}',
    "a line end": b'{"name": "a\\r\\nX: y"}',
    "a key twice": b'{"name": "small", "name": ".."}',
    "a list": b"[]",
    "a string": b'"x"',
    "nothing": b"",
    "bytes that are no text": b"\xff\xfe\xfa",
    "UTF-16": '{"name": "x"}'.encode("utf-16"),
    "a marked beginning": b'\xef\xbb\xbf{"name": "small"}',
    "a version with a line end": b'{"version": "1.0.0\\r\\nX: y"}',
    "a place with a line end": b'{"repo": "me/x\\r\\nX: y"}',
}
POSTED = ("/runs", "/regenerate", "/estimate", "/runs/small/release", "/runs/small/review", "/runs/small/publish")
TYPES = ("", "text/plain", "application/xml", "multipart/form-data", "application/json; charset=utf-7", "\xff/\xff")
METHODS = ("PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "OPTIONS", "HEAD", "PROPFIND", "get", "X" * 200)
HEADERS = {
    "no token": b"Authorization: Bearer ",
    "another scheme": b"Authorization: Basic YTpi",
    "a long token": b"Authorization: Bearer " + b"x" * 20_000,
    "a token of bytes": b"Authorization: Bearer \xff\xfe",
    "two tokens": b"Authorization: Bearer a\r\nAuthorization: Bearer b",
    "a long cookie": b"Cookie: saferthoughts-1=" + b"x" * 20_000,
    "odd cookies": b'Cookie: =; ;;a="\\",\xff;b',
    "many headers": b"\r\n".join(b"X-%d: y" % number for number in range(500)),
    "too much head": b"X: " + b"y" * 100_000,
    "a folded header": b"X: a\r\n b",
    "a header without a name": b": x",
    "a null in a header": b"X: a\x00b",
    "a bare line end": b"X: a\nY: b",
    "a space in a name": b"X y: z",
    "a negative length": b"Content-Length: -1",
    "a length in words": b"Content-Length: ten",
    "a length with a plus": b"Content-Length: +1",
    "a huge length": b"Content-Length: " + b"9" * 5000,
    "two lengths": b"Content-Length: 1\r\nContent-Length: 2",
    "length and chunks": b"Content-Length: 3\r\nTransfer-Encoding: chunked",
    "another encoding": b"Transfer-Encoding: gzip",
    "two encodings": b"Transfer-Encoding: chunked, chunked",
    "a wish to upgrade": b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x",
    "a wish for HTTP/2": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: x",
    "a range": b"Range: bytes=0-1,2-3," + b"4-5," * 500,
    "a range that ends first": b"Range: bytes=9-1",
    "a date": b"If-Modified-Since: \xff",
    "an encoding of the answer": b"Accept-Encoding: " + b"x;q=0," * 500,
    "where it was sent from": b"X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Host: evil.example",
    "a path of a proxy's": b"X-Original-URL: /runs\r\nX-Rewrite-URL: /runs",
    "another method": b"X-HTTP-Method-Override: DELETE",
    "part of a page": b"HX-Request: true\r\nHX-Target: rows",
    "expecting": b"Expect: 100-continue",
    "expecting what is not": b"Expect: x",
}
# Of our own making: whole requests, some of them none.
RAW = {
    "no request": b"\x00\x01\x02\x03\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 100 + b"\r\n\r\n",
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/9.9": b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "another host": b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    "a host with a name before it": b"GET /health HTTP/1.1\r\nHost: localhost:80@evil.example\r\n\r\n",
    "a whole address": b"GET http://evil.example/runs HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a file's address": b"GET file:///etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a star": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a path that is none": b"GET runs HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an empty path": b"GET  HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "bytes in a path": b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a line of spaces": b"GET" + b" " * 5000 + b"/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "slashes": b"GET " + b"/" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "dots": b"GET " + b"/.." * 5000 + b"/etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a hundred queries": b"GET /login?" + b"&" * 30_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a chunk that is none": b"POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
    "a second request behind": b"GET /login HTTP/1.1\r\nHost: localhost\r\n\r\nGET /runs HTTP/1.1\r\n\r\n",
}


def requests(read: str, publish: str) -> Iterator[tuple[str, bytes]]:
    """Every request with its name; all but the raw ones ask for the connection to be closed."""

    def made(method: str, path: str, token: str, more: bytes = b"", body: bytes | None = None) -> bytes:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += f"Authorization: Bearer {token}\r\n" if token else ""
        length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
        return head.encode("latin-1") + more + (b"\r\n" if more else b"") + length + b"\r\n" + (body or b"")

    for place in GETS:
        for name, value in VALUES.items():
            yield f"GET {place} with {name}", made("GET", place.format(value), read)
    for place in POSTS:
        for name, value in VALUES.items():
            yield f"POST {place} with {name}", made("POST", place.replace("{}", value), publish, body=b"")
    for place in POSTED:
        for name, body in BODIES.items():
            kind = b"Content-Type: application/json"
            yield f"POST {place}: {name}", made("POST", place, publish, kind, body)
    for place in ("/runs", "/login", "/ui/new"):
        for kind in TYPES:
            yield (
                f"POST {place} as {kind!a}",
                made("POST", place, publish, b"Content-Type: " + kind.encode("latin-1"), b"a=b"),
            )
    for method in METHODS:
        for place in ("/runs", "/runs/small", "/health"):
            yield f"{method} {place}", made(method, place, publish)
    for name, header in HEADERS.items():
        for method, place in (("GET", "/static/page.css"), ("POST", "/login")):
            token = "" if b"Authorization" in header else read
            whole = made(method, place, token, header)
            yield f"{method} {place} with {name}", whole + (b"0\r\n\r\n" if b"chunked" in header else b"")
    yield from RAW.items()
