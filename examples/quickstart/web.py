"""A web server for the quickstart: a page on /, and 200 on /health."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"ok\n" if self.path == "/health" else b"Hello from a process kept running.\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        # The health check asks every few seconds: only what people ask for is worth a line.
        if self.path != "/health":
            super().log_message(format, *args)


port = int(os.environ["PORT"])
print(f"listening on http://127.0.0.1:{port}/")
ThreadingHTTPServer(("127.0.0.1", port), Page).serve_forever()
