"""Reads a page every few seconds: it needs the web server of the quickstart."""

import os
import time
import urllib.request

url = os.environ["URL"]
while True:
    with urllib.request.urlopen(url, timeout=5) as page:
        print(f"read {len(page.read())} bytes from {url}")
    time.sleep(5)
