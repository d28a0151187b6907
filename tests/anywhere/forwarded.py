"""What a Service serves, through `kubectl port-forward` from a free port. Run inside a container of these tests.

python3 forwarded.py KUBECTL SERVICE
"""

import re
import subprocess
import sys
import urllib.request

kubectl, service = sys.argv[1:]
with subprocess.Popen([kubectl, "port-forward", service, ":80"], stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.match(r"Forwarding from (127\.0\.0\.1:\d+) ->", line)
    try:
        assert found is not None, line
        with urllib.request.urlopen(f"http://{found.group(1)}/", timeout=20) as answer:
            print(answer.read().decode())
    finally:
        process.terminate()
