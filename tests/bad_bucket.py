"""Buckets that misbehave: a proxy before a real S3 server that hangs, slows, cuts and lies, and a small S3 server of our own
for what a real one cannot be talked into: no conditional writes, expired credentials, another clock."""
import hashlib
import http.client
import http.server
import re
import socket
import threading
import time
import urllib.parse


class Proxy:
    """Forwards to a port of this machine. `mode`, which may be changed at any time:
    pass     as it is
    refuse   every connection is closed at once
    hang     connections are taken, and nothing is answered
    slow     every answer is `delay_s` late
    cut      answers end after `cut_after` bytes
    lie      one bit of the body of each answer to a GET of more than 1,000 bytes is another one
    `fired` counts how often the mode did something."""

    def __init__(self, box, port, delay_s=0.4, cut_after=700):
        self.target = port
        self.mode = "pass"
        self.delay_s = delay_s
        self.cut_after = cut_after
        self.fired = 0
        self._open = set()
        self._lock = threading.Lock()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._socket.getsockname()[1]
        self._ended = False
        threading.Thread(target=self._accept, daemon=True).start()
        box.on_close(self.close)

    def url(self, bucket, prefix):
        return f"s3://{bucket}/{prefix}?endpoint=http://127.0.0.1:{self.port}"

    def set(self, mode):
        """Connections of before are cut, so that the mode holds for everything from here on."""
        self.mode = mode
        self.fired = 0
        with self._lock:
            for connection in list(self._open):
                _shut(connection)

    def close(self):
        self._ended = True
        self.set("refuse")
        self._socket.close()

    def _accept(self):
        while not self._ended:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            if self.mode == "refuse":
                self.fired += 1
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        server = None
        try:
            with self._lock:
                self._open.add(client)
            if self.mode == "hang":
                self.fired += 1
                while client.recv(65536):
                    pass
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            with self._lock:
                self._open.add(server)
            state = {"method": b""}
            up = threading.Thread(target=self._up, args=(client, server, state), daemon=True)
            up.start()
            self._down(client, server, state)
        except OSError:
            pass
        finally:
            for connection in (client, server):
                if connection is not None:
                    with self._lock:
                        self._open.discard(connection)
                    _shut(connection)
                    connection.close()

    def _up(self, client, server, state):
        try:
            while data := client.recv(1 << 16):
                match = re.match(rb"(GET|PUT|POST|DELETE|HEAD) /", data)
                if match:
                    state["method"] = match.group(1)
                    state["sent"] = 0
                server.sendall(data)
        except OSError:
            pass
        _shut(server)

    def _down(self, client, server, state):
        while data := server.recv(1 << 16):
            if self.mode == "hang":
                self.fired += 1
                continue
            if self.mode == "slow" and data.startswith(b"HTTP/"):
                self.fired += 1
                time.sleep(self.delay_s)
            if self.mode == "cut":
                already = state.get("sent", 0)
                if already + len(data) > self.cut_after:
                    self.fired += 1
                    client.sendall(data[:max(0, self.cut_after - already)])
                    return
                state["sent"] = already + len(data)
            if self.mode == "lie" and state["method"] == b"GET" and len(data) > 2000:
                self.fired += 1
                middle = len(data) - 500  # in the body: heads are shorter
                data = data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1:]
            client.sendall(data)


def _shut(connection):
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


class Meddler:
    """Before a real S3 server as well, but it understands HTTP, and so meddles with what is asked for. `mode`:
    pass     as it is
    busy     one request a second is admitted; the others are told 503 SlowDown and 429 in turn
    flip     one bit of each object of data is another one when it comes to the server
    short    only half of it comes there
    forget   it never comes there; the answer is 200, with an ETag that says nothing of the bytes
    `fired` counts how often the mode did something."""

    def __init__(self, box, port):
        self.target = port
        self.mode = "pass"
        self.fired = 0
        self._lock = threading.Lock()
        self._next = 0.0
        meddler = self

        class Handler(_Handler):
            def do_GET(self):
                meddler._answer(self)

            do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        box.on_close(self.server.shutdown)

    def url(self, bucket, prefix):
        return f"s3://{bucket}/{prefix}?endpoint=http://127.0.0.1:{self.port}"

    def set(self, mode):
        self.mode = mode
        self.fired = 0

    def _answer(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        answer = self._meddle(request, body)
        if not isinstance(answer, tuple):
            answer = self._forward(request, answer)
        request.answer(*answer)

    def _meddle(self, request, body):
        """The body to be passed on, or the answer."""
        data = request.command == "PUT" and "/d/" in request.path and body
        with self._lock:
            if self.mode == "busy":
                now = time.monotonic()
                if now >= self._next:
                    self._next = now + 1
                    return body
                self.fired += 1
                return _error(503, "SlowDown", "Please reduce your request rate.") if self.fired % 2 else _error(
                    429, "TooManyRequests", "Please reduce your request rate.")
            if self.mode == "pass" or not data:
                return body
            self.fired += 1
        if self.mode == "flip":
            middle = len(body) // 2
            return body[:middle] + bytes([body[middle] ^ 0x10]) + body[middle + 1:]
        if self.mode == "short":
            return body[:len(body) // 2]
        return 200, {"ETag": '"forgotten-1"'}, b""

    def _forward(self, request, body):
        server = http.client.HTTPConnection("127.0.0.1", self.target, timeout=60)
        try:
            server.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() not in ("content-length", "connection", "expect"):
                    server.putheader(name, value)
            server.putheader("Content-Length", str(len(body)))
            server.endheaders(body)
            reply = server.getresponse()
            kept = {n: v for n, v in reply.getheaders() if n.lower() not in ("connection", "transfer-encoding")}
            return reply.status, kept, reply.read()
        finally:
            server.close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, headers, body):
        self.send_response_only(status) if "Date" in headers else self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name in headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a client that went away


class FakeS3:
    """Objects in memory. `conditional`: whether If-Match and If-None-Match are looked at. `refuse`: None, or (status,
    code, message) for every request. `clock_off_s`: what its Date says, compared with ours; requests signed with a time
    that differs by more than 15 minutes are refused, as S3 does."""

    def __init__(self, box, conditional=True):
        self.objects = {}
        self.conditional = conditional
        self.refuse = None
        self.clock_off_s = 0
        self.refused = 0
        self.ignored = 0  # conditions
        fake = self

        class Handler(_Handler):
            def date_time_string(self, timestamp=None):
                return super().date_time_string((timestamp or time.time()) + fake.clock_off_s)

            def do_GET(self):
                fake._answer(self)

            do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

        self.lock = threading.Lock()
        self.server = _Server(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        box.on_close(self.server.shutdown)

    def url(self, prefix="ns"):
        return f"s3://bucket/{prefix}?endpoint=http://127.0.0.1:{self.port}"

    environment = {"AWS_ACCESS_KEY_ID": "AKIDFAKE", "AWS_SECRET_ACCESS_KEY": "a-secret-that-nobody-may-see",
                   "AWS_SESSION_TOKEN": "a-token-that-nobody-may-see", "AWS_REGION": "us-east-1"}

    def _answer(self, request):
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length)
        path, _, query = request.path.partition("?")
        key = urllib.parse.unquote(path)
        with self.lock:
            answer = self._decide(request, key, query, body)
        request.answer(*answer)

    def _decide(self, request, key, query, body):
        if self.refuse:
            self.refused += 1
            return _error(*self.refuse)
        signed = request.headers.get("x-amz-date")
        if signed:
            import calendar
            then = calendar.timegm(time.strptime(signed, "%Y%m%dT%H%M%SZ"))
            if abs(then - (time.time() + self.clock_off_s)) > 900:
                self.refused += 1
                return _error(403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.")
        if "aws-chunked" in (request.headers.get("Content-Encoding") or ""):
            body = _unchunk(body)
        method = request.command
        if method == "PUT":
            old = self.objects.get(key)
            for_absent = request.headers.get("If-None-Match") == "*"
            for_etag = request.headers.get("If-Match")
            if for_absent or for_etag:
                if not self.conditional:
                    self.ignored += 1
                elif (for_absent and old) or (for_etag and (not old or old[1] != for_etag)):
                    return _error(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
            etag = '"' + hashlib.md5(body).hexdigest() + '"'
            self.objects[key] = (body, etag)
            return 200, {"ETag": etag}, b""
        if method == "POST" and query.startswith("delete"):
            for name in re.findall(rb"<Key>(.*?)</Key>", body):
                bucket = key.split("/")[1]
                self.objects.pop(f"/{bucket}/{name.decode()}", None)
            return 200, {}, b'<?xml version="1.0"?><DeleteResult></DeleteResult>'
        if method == "DELETE":
            self.objects.pop(key, None)
            return 204, {}, b""
        found = self.objects.get(key)
        if found is None:
            return _error(404, "NoSuchKey", "The specified key does not exist.")
        content, etag = found
        match = re.match(r"bytes=(\d+)-(\d*)", request.headers.get("Range") or "")
        if not match:
            return 200, {"ETag": etag}, content
        first = int(match.group(1))
        last = min(int(match.group(2) or len(content) - 1), len(content) - 1)
        return 206, {"ETag": etag, "Content-Range": f"bytes {first}-{last}/{len(content)}"}, content[first:last + 1]


def _unchunk(body):
    out = b""
    while body:
        line, _, body = body.partition(b"\r\n")
        size = int(line.split(b";")[0], 16)
        if size == 0:
            break
        out += body[:size]
        body = body[size + 2:]
    return out


def _error(status, code, message):
    return status, {"Content-Type": "application/xml"}, (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>').encode()
