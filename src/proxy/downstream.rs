//! Between the gateway and a client: requests read, responses written, over HTTP/1.1 and HTTP/2.

pub mod client_conn;
pub mod h2_stream;
pub mod http1;
pub mod http2;
pub mod parse;
pub mod writer;
