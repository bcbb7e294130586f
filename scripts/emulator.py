"""Moto's server, in which DynamoDB does one thing at a time.

Moto takes a transaction back by putting copies of whole tables back, without a lock: what others wrote meanwhile is lost.
The real DynamoDB isolates transactions. Usage: emulator.py -H HOST -p PORT
"""

import argparse
import os
import threading

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import run_simple

one_at_a_time = threading.Lock()


def isolated(app):
    def answer(environ, start_response):
        if environ.get("HTTP_X_AMZ_TARGET", "").startswith("DynamoDB"):
            with one_at_a_time:
                return app(environ, start_response)
        return app(environ, start_response)

    return answer


arguments = argparse.ArgumentParser()
arguments.add_argument("-H", dest="host", default="127.0.0.1")
arguments.add_argument("-p", dest="port", type=int, default=5000)
arguments = arguments.parse_args()

# Addresses that it tells have it.
os.environ["MOTO_PORT"] = str(arguments.port)
moto = DomainDispatcherApplication(create_backend_app)
# As moto's own server does: a thread for each connection, so that nobody waits for somebody's long poll.
run_simple(
    arguments.host,
    arguments.port,
    isolated(moto),
    threaded=True,
    request_handler=MotoRequestHandler,
)
