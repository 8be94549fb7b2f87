//! The applications of the demonstration: each shows the request as an application behind the edge receives it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Response, header};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::listener::connection_slots::{ConnectionSlots, IdleGrace};
use crate::listener::serve;
use crate::listener::{self, ListenerContext, ListenerKind};
use crate::metrics::Metrics;
use crate::server::StartError;

/// Running applications; they stop when this is dropped.
pub struct Applications {
    addresses: Vec<(&'static str, SocketAddr)>,
    _closing: watch::Sender<bool>,
    _runtime: Runtime,
}

struct Application {
    name: &'static str,
}

impl serve::HttpHandler for Application {}

impl Applications {
    pub fn start(names: &[&'static str]) -> Result<Self, StartError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("demo-application")
            .enable_all()
            .build()
            .map_err(StartError::Runtime)?;
        let (closing, closed) = watch::channel(false);
        let metrics = Arc::new(Metrics::new("demo").map_err(StartError::Metrics)?);
        let mut addresses = Vec::new();
        for name in names {
            let _inside = runtime.enter();
            let bound = listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), false)?;
            addresses.push((*name, bound.address));
            let service = ListenerContext {
                name: "application",
                slots: Arc::new(ConnectionSlots::new(1024, IdleGrace::CLIENTS)),
                metrics: Arc::clone(&metrics),
                handshake: Duration::from_secs(5),
                kind: ListenerKind::Internal,
                public_port: None,
                drain: Arc::default(),
                closing: closed.clone(),
            };
            runtime.spawn(listener::serve(bound, service, None, Arc::new(Application { name })));
        }
        Ok(Self { addresses, _closing: closing, _runtime: runtime })
    }

    pub fn addresses(&self) -> &[(&'static str, SocketAddr)] {
        &self.addresses
    }
}

#[async_trait]
impl ServeHttp for Application {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        let mut rows = String::new();
        for (name, value) in &request.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            rows.push_str(&format!("<tr><th>{}<td>{}\n", escape(name.as_str()), escape(&value)));
        }
        let user =
            request.headers.get("x-forwarded-user").and_then(|user| user.to_str().ok()).unwrap_or("not signed in");
        let body = format!(
            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
             <title>{name}</title><style>body{{font:16px system-ui;margin:2rem auto;max-width:50rem;padding:0 1rem}}\
             th{{text-align:left;padding-right:1rem;font-weight:600}}td{{word-break:break-all}}</style>\
             <h1>{name}</h1><p>You are <strong id=user>{}</strong>, and requested <code id=path>{}</code>.\
             <p><a href='/.sentry/logout'>Sign out</a><h2>The request that this application received</h2><table>{rows}</table>",
            escape(user),
            escape(&request.uri.to_string()),
            name = self.name,
        );
        let mut response = Response::new(body.into_bytes());
        let length = response.body().len();
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        let html = header::HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, html);
        response
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}
