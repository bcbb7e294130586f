"""Moto's server, in which DynamoDB and SQS do one thing at a time.

Moto takes a transaction back by putting copies of whole tables back, without a lock: what others wrote meanwhile is lost.
The real DynamoDB isolates transactions. And it deletes a message by putting a copy of its queue without it in the queue's
place: what was sent meanwhile is lost, too.

Whoever asks has the account 123450000001. Usage: emulator.py -H HOST -p PORT
"""

import argparse
import os
import threading
import time

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.sqs.models import SQSBackend
from werkzeug.serving import run_simple

one_at_a_time = threading.Lock()
# Sending to a queue may be a part of publishing to a topic, and moving to the dead-letter queue a part of receiving.
one_message_at_a_time = threading.RLock()
# How long somebody who waits for messages sleeps at most, until those are looked at that are visible again; seconds.
LOOK_S = 0.2


def alone(method):
    def done_alone(*arguments, **named):
        with one_message_at_a_time:
            return method(*arguments, **named)

    return done_alone


for name in ["send_message", "delete_message", "change_message_visibility"]:
    setattr(SQSBackend, name, alone(getattr(SQSBackend, name)))
receive = alone(SQSBackend.receive_message)


def wait_and_receive(backend, queue_name, count, wait_seconds_timeout, *arguments, **named):
    deadline = time.monotonic() + wait_seconds_timeout
    while True:
        messages = receive(backend, queue_name, count, 0, *arguments, **named)
        left = deadline - time.monotonic()
        if messages or left <= 0:
            return messages
        # Nobody is kept from sending meanwhile.
        backend.get_queue(queue_name).wait_for_messages(min(left, LOOK_S))


SQSBackend.receive_message = wait_and_receive


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

os.environ["MOTO_ACCOUNT_ID"] = "123450000001"
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
