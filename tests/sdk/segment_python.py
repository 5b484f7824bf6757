"""Sends one of each call through Segment's SDK: python segment_python.py HOST WRITE_KEY [gzip]"""

import sys

from segment.analytics.client import Client

failures = []
client = Client(
    sys.argv[2],
    host=sys.argv[1],
    gzip="gzip" in sys.argv[3:],
    max_retries=3,
    on_error=lambda error, items: failures.append(error),
)
client.track("guest", "Looked")
client.identify("u1", {"email": "ada@example.com", "plan": "pro"})
client.alias("guest", "u1")
client.track("u1", "Bought", {"price": 5.25})
client.page("u1", None, "Home", {"url": "https://shop.example.com/home"})
client.screen("u1", None, "Cart")
client.group("u1", "acme", {"name": "Acme"})
client.shutdown()
for failure in failures:
    print(failure, file=sys.stderr)
sys.exit(1 if failures else 0)
