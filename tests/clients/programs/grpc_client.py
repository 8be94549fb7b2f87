"""A gRPC client, written with grpcio: every kind of call through the edge."""

import os
import queue

import grpc

HOST, PORT = os.environ["EDGE_HOST"], os.environ["EDGE_PORT"]
COOKIE = (("cookie", os.environ["COOKIE"]),)

channel = grpc.secure_channel(
    f"127.0.0.1:{PORT}",
    grpc.ssl_channel_credentials(open(os.environ["CA"], "rb").read()),
    # The address is the edge's, the name is the application's.
    (("grpc.ssl_target_name_override", HOST), ("grpc.default_authority", f"{HOST}:{PORT}")),
)
unary, count = channel.unary_unary("/test.Echo/Unary"), channel.unary_stream("/test.Echo/Count")
total, chat = channel.stream_unary("/test.Echo/Total"), channel.stream_stream("/test.Echo/Chat")
fail, fail_late = channel.unary_unary("/test.Echo/Fail"), channel.unary_stream("/test.Echo/FailLate")
hang, hung = channel.unary_unary("/test.Echo/Hang"), channel.unary_unary("/test.Echo/Hung")
time_left = channel.unary_unary("/test.Echo/TimeLeft")
signed_in = {"metadata": COOKIE, "timeout": 20}


def failure_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("it was to fail")


def one_message():
    for message in [b"", b"hello", os.urandom(3 << 20)]:
        answer, call = unary.with_call(message, **signed_in)
        assert answer == message, len(message)
        assert dict(call.initial_metadata())["user"] == "ada"
        assert dict(call.trailing_metadata())["length"] == str(len(message))


def many_messages():
    assert list(count(b"1000", **signed_in)) == [str(number).encode() for number in range(1000)]
    assert total((os.urandom(64 << 10) for _ in range(64)), **signed_in) == str(64 * (64 << 10)).encode()


def a_conversation():
    """Each message is sent when the answer to the one before it is there, so nothing can be held back."""
    said = queue.Queue()
    answers = chat(iter(said.get, None), **signed_in)
    for number in range(100):
        said.put(str(number).encode())
        assert next(answers) == b"heard " + str(number).encode()
    said.put(None)
    assert list(answers) == [] and answers.code() == grpc.StatusCode.OK


def failures():
    error = failure_of(lambda: fail(b"x", **signed_in))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
    assert error.details() == "not in this state: x", error
    trailers = dict(error.trailing_metadata())
    assert trailers["why"] == "because" and trailers["proof-bin"] == b"\x00\xff", trailers
    answers = fail_late(b"", **signed_in)
    assert next(answers) == b"so far, so good"
    error = failure_of(lambda: next(answers))
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "and then not"), error


def deadlines():
    left = float(time_left(b"", **signed_in))
    # The client rounds it up; where none is told, a server has for ever.
    assert 0 < left < 25, left
    error = failure_of(lambda: hang(b"", metadata=COOKIE, timeout=0.5))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    assert hung(b"", **signed_in) == b"yes", "the server hears that nobody waits any more"


def strangers():
    error = failure_of(lambda: unary(b"", timeout=20))
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED, error


for part in one_message, many_messages, a_conversation, failures, deadlines, strangers:
    part()
