"""Raw requests and what must become of them.

A case is (name, bytes, statuses, closes): the statuses of all answers in order, 100 included, and
whether the server closes the connection afterwards (otherwise it stays open for the next request).
The body of the echo server allows 4096 bytes (BODY_MAX), deadlines are long.
"""

BODY_MAX = 4096
HEAD_MAX = 16 * 1024


def get(*lines, target=b"/x", version=b"HTTP/1.1", host=True):
    head = [b"GET " + target + b" " + version]
    if host:
        head.append(b"Host: a")
    return b"\r\n".join(head + list(lines)) + b"\r\n\r\n"


def post(body, *lines):
    return b"\r\n".join([b"POST /x HTTP/1.1", b"Host: a"] + list(lines)) + b"\r\n\r\n" + body


def chunked(body, *lines):
    return post(body, b"Transfer-Encoding: chunked", *lines)


def line(first):
    return first + b"\r\nHost: a\r\n\r\n"


def head_of(size):
    """A GET whose head has exactly that many bytes."""
    rest = get(b"X-Pad: ")
    return get(b"X-Pad: " + b"p" * (size - len(rest)))


OK = [200]
BAD = [400]

CASES = [
    # What is accepted.
    ("get", get(), OK, False),
    ("get with query", get(target=b"/x?a=1&b=%20"), OK, False),
    ("get with an absolute target", get(target=b"http://example.com:80/x?q"), OK, False),
    ("absolute target without a path", get(target=b"http://example.com"), OK, False),
    ("absolute target with a query only", get(target=b"http://example.com?q"), OK, False),
    ("absolute target, IPv6", get(target=b"http://[::1]:8420/x"), OK, False),
    ("post", post(b"hello", b"Content-Length: 5"), OK, False),
    ("post without a body", post(b""), OK, False),
    ("post, length 0", post(b"", b"Content-Length: 0"), OK, False),
    ("post, length with leading zeros", post(b"hello", b"Content-Length: 0005"), OK, False),
    ("get with a body", get(b"Content-Length: 3") + b"abc", OK, False),
    ("put", post(b"").replace(b"POST", b"PUT"), OK, False),
    ("patch", post(b"").replace(b"POST", b"PATCH"), OK, False),
    ("delete", post(b"").replace(b"POST", b"DELETE"), OK, False),
    ("options", post(b"").replace(b"POST", b"OPTIONS"), OK, False),
    ("connection close", get(b"Connection: close"), OK, True),
    ("connection close among others", get(b"Connection: x, close"), OK, True),
    ("connection close, folded case", get(b"connection: CLOSE"), OK, True),
    ("http/1.0", get(version=b"HTTP/1.0"), OK, True),
    ("http/1.0 without host", get(version=b"HTTP/1.0", host=False), OK, True),
    ("http/1.0 keep-alive", get(b"Connection: keep-alive", version=b"HTTP/1.0"), OK, False),
    ("http/1.0 with a length", b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab", OK, True),
    ("empty host", b"GET / HTTP/1.1\r\nHost:\r\n\r\n", OK, False),
    ("host with a port", b"GET / HTTP/1.1\r\nHost: [::1]:8420\r\n\r\n", OK, False),
    ("empty header value", get(b"X-A:"), OK, False),
    ("blanks around a value", get(b"X-A: \t b \t "), OK, False),
    ("no blank after the colon", get(b"X-A:b"), OK, False),
    ("obs-text in a value", get(b"X-A: \xe4\xff"), OK, False),
    ("tab in a value", get(b"X-A: a\tb"), OK, False),
    ("token of odd bytes as a name", get(b"!#$%&'*+-.^_`|~9: b"), OK, False),
    ("colons in a value", get(b"X-A: b: c"), OK, False),
    ("upgrade is ignored", get(b"Connection: upgrade", b"Upgrade: websocket"), OK, False),
    (
        "upgrade with a body is ignored",
        post(b"ab", b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 2"),
        OK,
        False,
    ),
    (
        "upgrade with a chunked body is ignored",
        chunked(b"2\r\nab\r\n0\r\n\r\n", b"Connection: upgrade", b"Upgrade: h2c"),
        OK,
        False,
    ),
    ("100 headers", get(*[b"X-%d: a" % i for i in range(99)]), OK, False),
    ("a head of 16 KiB", head_of(HEAD_MAX), OK, False),
    ("a target of 8 KiB", get(target=b"/" + b"p" * 8191), OK, False),
    (
        "a body of the maximum",
        post(b"b" * BODY_MAX, b"Content-Length: %d" % BODY_MAX),
        OK,
        False,
    ),
    ("unknown expectation is ignored", post(b"a", b"Content-Length: 1", b"Expect: x"), OK, False),
    # Chunked bodies.
    ("chunked", chunked(b"5\r\nhello\r\n0\r\n\r\n"), OK, False),
    ("chunked, folded case", post(b"0\r\n\r\n", b"transfer-encoding: CHUNKED"), OK, False),
    ("chunked, two chunks", chunked(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), OK, False),
    ("chunked, empty", chunked(b"0\r\n\r\n"), OK, False),
    (
        "chunked, hex in both cases",
        chunked(b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n"),
        OK,
        False,
    ),
    ("chunked, leading zeros", chunked(b"0005\r\nhello\r\n000\r\n\r\n"), OK, False),
    ("chunked, extension", chunked(b"5;a=b;c\r\nhello\r\n0;d\r\n\r\n"), OK, False),
    ("chunked, trailer", chunked(b"5\r\nhello\r\n0\r\nX-A: b\r\nX-B:\r\n\r\n"), OK, False),
    ("chunked, maximum", chunked(b"1000\r\n" + b"b" * 4096 + b"\r\n0\r\n\r\n"), OK, False),
    ("chunked, above the maximum", chunked(b"1001\r\n"), [413], True),
    (
        "chunked, sum above the maximum",
        chunked(b"1000\r\n" + b"b" * 4096 + b"\r\n1\r\n"),
        [413],
        True,
    ),
    ("chunked, size overflows", chunked(b"fffffffffffffffff\r\n"), [413], True),
    ("chunked, zeros without end", chunked(b"0" * 17 + b"\r\n\r\n"), BAD, True),
    ("chunked, no size", chunked(b"\r\nhello"), BAD, True),
    ("chunked, size not hex", chunked(b"g\r\n"), BAD, True),
    ("chunked, 0x", chunked(b"0x5\r\nhello\r\n0\r\n\r\n"), BAD, True),
    ("chunked, signed size", chunked(b"+5\r\nhello\r\n0\r\n\r\n"), BAD, True),
    ("chunked, negative size", chunked(b"-5\r\n"), BAD, True),
    ("chunked, blank before the size", chunked(b" 5\r\nhello\r\n0\r\n\r\n"), BAD, True),
    ("chunked, blank after the size", chunked(b"5 \r\nhello\r\n0\r\n\r\n"), BAD, True),
    ("chunked, bare LF after the size", chunked(b"5\nhello\r\n0\r\n\r\n"), BAD, True),
    ("chunked, CR and another byte after the size", chunked(b"5\rXhello\r\n0\r\n\r\n"), BAD, True),
    ("chunked, bare LF after the data", chunked(b"5\r\nhello\n0\r\n\r\n"), BAD, True),
    ("chunked, CR and another byte after the data", chunked(b"5\r\nhello\rX0\r\n\r\n"), BAD, True),
    ("chunked, two other bytes after the data", chunked(b"5\r\nhelloXY0\r\n\r\n"), BAD, True),
    ("chunked, data longer than its size", chunked(b"4\r\nhello\r\n0\r\n\r\n"), BAD, True),
    ("chunked, bare LF in an extension", chunked(b"5;a\nhello\r\n0\r\n\r\n"), BAD, True),
    ("chunked, NUL in an extension", chunked(b"5;a\0\r\nhello\r\n0\r\n\r\n"), BAD, True),
    ("chunked, long extension", chunked(b"5;" + b"a" * 257 + b"\r\n"), [431], True),
    ("chunked, bare LF at the end", chunked(b"5\r\nhello\r\n0\r\n\n"), BAD, True),
    ("chunked, CR and another byte at the end", chunked(b"0\r\n\rX"), BAD, True),
    ("chunked, bare LF ends the last chunk", chunked(b"0\n\r\n"), BAD, True),
    ("trailer ended by bare LF", chunked(b"0\r\nX-A: b\n\r\n"), BAD, True),
    ("trailer with CR", chunked(b"0\r\nX-A: b\rc\r\n\r\n"), BAD, True),
    ("folded trailer", chunked(b"0\r\nX-A: b\r\n c\r\n\r\n"), BAD, True),
    ("trailer without a name", chunked(b"0\r\n: b\r\n\r\n"), BAD, True),
    ("trailer with a blank before its colon", chunked(b"0\r\nX-A : b\r\n\r\n"), BAD, True),
    ("trailer with NUL", chunked(b"0\r\nX-A: \0\r\n\r\n"), BAD, True),
    ("trailers without end", chunked(b"0\r\nX-A: " + b"b" * 17000), [431], True),
    ("chunked body on get", get(b"Transfer-Encoding: chunked") + b"0\r\n\r\n", BAD, True),
    # Lengths and encodings.
    (
        "length and encoding",
        post(b"0\r\n\r\n", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        BAD,
        True,
    ),
    (
        "encoding and length",
        post(b"0\r\n\r\n", b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        BAD,
        True,
    ),
    ("two lengths", post(b"hello", b"Content-Length: 5", b"Content-Length: 6"), BAD, True),
    (
        "the same length twice",
        post(b"hello", b"Content-Length: 5", b"Content-Length: 5"),
        BAD,
        True,
    ),
    ("a list of lengths", post(b"hello", b"Content-Length: 5, 5"), BAD, True),
    ("empty length", post(b"", b"Content-Length:"), BAD, True),
    ("length with a plus", post(b"abc", b"Content-Length: +3"), BAD, True),
    ("negative length", post(b"", b"Content-Length: -1"), BAD, True),
    ("length with letters", post(b"", b"Content-Length: 3a"), BAD, True),
    ("length in hex", post(b"abc", b"Content-Length: 0x3"), BAD, True),
    ("length with a blank", post(b"", b"Content-Length: 1 2"), BAD, True),
    ("length overflows", post(b"", b"Content-Length: 18446744073709551617"), BAD, True),
    ("length above the maximum", post(b"", b"Content-Length: %d" % (BODY_MAX + 1)), [413], True),
    ("length of 2^64-1", post(b"", b"Content-Length: 18446744073709551615"), [413], True),
    (
        "encoding gzip, chunked",
        post(b"0\r\n\r\n", b"Transfer-Encoding: gzip, chunked"),
        [501],
        True,
    ),
    (
        "encoding chunked, gzip",
        post(b"0\r\n\r\n", b"Transfer-Encoding: chunked, gzip"),
        [501],
        True,
    ),
    ("encoding identity", post(b"", b"Transfer-Encoding: identity"), [501], True),
    ("encoding xchunked", post(b"0\r\n\r\n", b"Transfer-Encoding: xchunked"), [501], True),
    ("encoding empty", post(b"0\r\n\r\n", b"Transfer-Encoding:"), [501], True),
    ("encoding with a tail", post(b"0\r\n\r\n", b"Transfer-Encoding: chunked;a"), [501], True),
    ("encoding quoted", post(b"0\r\n\r\n", b'Transfer-Encoding: "chunked"'), [501], True),
    (
        "encoding with a vertical tab",
        post(b"0\r\n\r\n", b"Transfer-Encoding: \x0bchunked"),
        BAD,
        True,
    ),
    (
        "encoding twice",
        post(b"0\r\n\r\n", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        BAD,
        True,
    ),
    (
        "encoding twice, one hidden",
        post(b"0\r\n\r\n", b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"),
        BAD,
        True,
    ),
    (
        "encoding on http/1.0",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        BAD,
        True,
    ),
    ("encoding folded", post(b"0\r\n\r\n", b"Transfer-Encoding:\r\n chunked"), BAD, True),
    # CR and LF.
    ("a bare CR hides a header", get(b"X-Abc:\rxTransfer-Encoding: chunked"), BAD, True),
    ("CR and another byte at the end of the head", get()[:-2] + b"\rX", BAD, True),
    ("bare LF after the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", BAD, True),
    ("bare LF ends the head", b"GET / HTTP/1.1\r\nHost: a\r\n\n", BAD, True),
    ("bare LF only", b"GET / HTTP/1.1\nHost: a\n\n", BAD, True),
    ("bare LF after a value", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", BAD, True),
    ("bare CR after a value", b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", BAD, True),
    ("CR CR LF", b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", BAD, True),
    ("LF before the request line", b"\n" + get(), BAD, True),
    ("CR before the request line", b"\r" + get(), BAD, True),
    ("an empty line before the request line", b"\r\n" + get(), BAD, True),
    ("bare CR in the request line", b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", BAD, True),
    # Header names and values.
    ("blank before the colon", get(b"X-A : b"), BAD, True),
    ("tab before the colon", get(b"X-A\t: b"), BAD, True),
    ("host with a blank before the colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", BAD, True),
    ("folded header", get(b"X-A: b\r\n c"), BAD, True),
    ("header folded by a tab", get(b"X-A: b\r\n\tc"), BAD, True),
    ("first header begins with a blank", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", BAD, True),
    ("empty name", get(b": b"), BAD, True),
    ("no colon", get(b"X-A"), BAD, True),
    ("name with a blank", get(b"X A: b"), BAD, True),
    ("name with NUL", get(b"X\0A: b"), BAD, True),
    ("name with 8 bits", get(b"X-\xe4: b"), BAD, True),
    ("name with a bracket", get(b"X(A): b"), BAD, True),
    ("value with NUL", get(b"X-A: b\0c"), BAD, True),
    ("value with a control byte", get(b"X-A: b\x01c"), BAD, True),
    ("value with DEL", get(b"X-A: b\x7fc"), BAD, True),
    # Host.
    ("no host", get(host=False), BAD, True),
    ("two hosts", get(b"Host: b"), BAD, True),
    ("the same host twice", get(b"Host: a"), BAD, True),
    ("two hosts on http/1.0", get(b"Host: b", version=b"HTTP/1.0"), BAD, True),
    ("host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BAD, True),
    ("host with a user", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", BAD, True),
    ("host with a blank", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", BAD, True),
    ("a list of hosts", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", BAD, True),
    ("no headers at all", b"GET / HTTP/1.1\r\n\r\n", BAD, True),
    # Request line.
    ("http/0.9", line(b"GET /x HTTP/0.9"), [505], True),
    ("http/2.0", line(b"GET /x HTTP/2.0"), [505], True),
    ("http/1.2", line(b"GET /x HTTP/1.2"), [505], True),
    ("http/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [505], True),
    ("no version", line(b"GET /x"), BAD, True),
    ("blank and no version", line(b"GET /x "), BAD, True),
    ("version in small letters", line(b"GET /x http/1.1"), BAD, True),
    ("version with a tail", line(b"GET /x HTTP/1.1 "), BAD, True),
    ("version with too many digits", line(b"GET /x HTTP/1.10"), BAD, True),
    ("version without a minor", line(b"GET /x HTTP/1"), BAD, True),
    ("rtsp", line(b"GET /x RTSP/1.0"), BAD, True),
    ("ice", line(b"SOURCE /x ICE/1.0"), BAD, True),
    ("rtsp method", line(b"DESCRIBE /x HTTP/1.1"), [501], True),
    ("connect", line(b"CONNECT a:80 HTTP/1.1"), [501], True),
    ("trace", line(b"TRACE /x HTTP/1.1"), [501], True),
    ("unknown method", line(b"BREW /x HTTP/1.1"), [501], True),
    ("method in small letters", line(b"get /x HTTP/1.1"), [501], True),
    ("method with a bracket", line(b"G(T /x HTTP/1.1"), BAD, True),
    ("blank before the method", line(b" GET /x HTTP/1.1"), BAD, True),
    ("two blanks after the method", line(b"GET  /x HTTP/1.1"), BAD, True),
    ("tab after the method", line(b"GET\t/x HTTP/1.1"), BAD, True),
    ("two blanks after the target", line(b"GET /x  HTTP/1.1"), BAD, True),
    ("blank in the target", line(b"GET /x y HTTP/1.1"), BAD, True),
    ("tab in the target", line(b"GET /x\ty HTTP/1.1"), BAD, True),
    ("8 bits in the target", line(b"GET /\xe4 HTTP/1.1"), BAD, True),
    ("NUL in the target", line(b"GET /\0 HTTP/1.1"), BAD, True),
    ("fragment in the target", line(b"GET /x#y HTTP/1.1"), BAD, True),
    ("asterisk target", line(b"OPTIONS * HTTP/1.1"), BAD, True),
    ("target without a slash", line(b"GET x HTTP/1.1"), BAD, True),
    ("authority as the target", line(b"GET a:80 HTTP/1.1"), BAD, True),
    ("https target", line(b"GET https://a/x HTTP/1.1"), BAD, True),
    ("ftp target", line(b"GET ftp://a/x HTTP/1.1"), BAD, True),
    ("absolute target without a host", line(b"GET http:///x HTTP/1.1"), BAD, True),
    ("absolute target with a user", line(b"GET http://u@a/x HTTP/1.1"), BAD, True),
    ("method only", b"GET\r\n\r\n", BAD, True),
    ("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", BAD, True),
    ("NUL", b"\0", BAD, True),
    # Sizes.
    ("head above 16 KiB", head_of(HEAD_MAX + 1), [431], True),
    ("head without end", b"GET / HTTP/1.1\r\nX: " + b"a" * 17000, [431], True),
    ("101 headers", get(*[b"X-%d: a" % i for i in range(100)]), [431], True),
    ("a target above 8 KiB", get(target=b"/" + b"p" * 8192), [431], True),
    ("a request line without end", b"G" * 17000, [431], True),
    # After the end.
    ("bytes after connection close are dropped", get(b"Connection: close") + get(), OK, True),
    ("bytes after an error are dropped", get(b"X A: b") + get(), BAD, True),
    (
        "refused by the application",
        b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
        [401],
        True,
    ),
]
