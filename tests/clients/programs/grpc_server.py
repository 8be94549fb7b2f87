"""A gRPC server, written with grpcio: echoes of every kind of call. Messages are bytes as they are."""

import threading
import time
from concurrent import futures

import grpc

cancelled = threading.Semaphore(0)


def who(context):
    return dict(context.invocation_metadata()).get("x-forwarded-user", "nobody")


def unary(request, context):
    context.send_initial_metadata((("user", who(context)),))
    context.set_trailing_metadata((("length", str(len(request))),))
    return request


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def total(requests, context):
    return str(sum(len(request) for request in requests)).encode()


def chat(requests, context):
    for request in requests:
        yield b"heard " + request


def fail(request, context):
    context.set_trailing_metadata((("why", "because"), ("proof-bin", b"\x00\xff")))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not in this state: " + request.decode())


def fail_late(request, context):
    yield b"so far, so good"
    context.abort(grpc.StatusCode.DATA_LOSS, "and then not")


def hang(request, context):
    """Until the client gives up; then `hung` knows."""
    context.add_callback(cancelled.release)
    while context.is_active():
        time.sleep(0.01)
    return b""


def time_left(request, context):
    return str(context.time_remaining()).encode()


def hung(request, context):
    return b"yes" if cancelled.acquire(timeout=20) else b"no"


one, many_out, many_in, both = (
    grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler,
    grpc.stream_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler,
)
server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {
    "Unary": one(unary), "Count": many_out(count), "Total": many_in(total), "Chat": both(chat), "Fail": one(fail),
    "FailLate": many_out(fail_late), "Hang": one(hang), "Hung": one(hung), "TimeLeft": one(time_left),
}),))
print("listening on", server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
server.wait_for_termination()
