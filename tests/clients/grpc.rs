//! gRPC as its users have it: grpcio on both sides, HTTP/2 without TLS behind the edge.

use crate::scene::{application, run, scene};

/// One message each way, many one way, many both ways, errors in trailers, deadlines, and a call without a session.
#[test]
fn every_kind_of_call_passes_with_its_messages_statuses_and_deadlines() {
    let application = application("grpc_server.py");
    let scene = scene("/test.Echo", application.address, ", protocol: h2c");
    run(&mut scene.client("grpc_client.py", &scene.cookie()));
}
