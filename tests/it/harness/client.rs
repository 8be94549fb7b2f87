//! A client that says exactly what it is told, keeps cookies as a browser does, and follows nothing by itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use url::Url;

use super::certificates::ca;
use super::runtime;

/// Header fields that a response through the edge may have; anything else is a leak.
const ALLOWED: [&str; 32] = [
    "accept-ranges",
    "content-encoding",
    "content-range",
    "refresh",
    "access-control-allow-origin",
    "allow",
    "cache-control",
    "clear-site-data",
    "connection",
    "content-length",
    "content-security-policy",
    "content-type",
    "cross-origin-opener-policy",
    "cross-origin-resource-policy",
    "date",
    "location",
    "referrer-policy",
    "retry-after",
    "set-cookie",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
    "x-content-type-options",
    "x-frame-options",
    "x-from-origin",
    "x-request-id",
    "etag",
    "last-modified",
    "strict-transport-security",
    "vary",
    "trailer",
    "keep-alive",
];

#[derive(Clone)]
pub struct Client {
    edge: SocketAddr,
    http2: bool,
    /// By host, then name.
    cookies: BTreeMap<(String, String), String>,
    user_agent: String,
    /// The CA that it trusts, in DER.
    ca: Vec<u8>,
}

pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: String,
    pub url: String,
}

/// A client of the edge at `edge`, speaking HTTP/1.1.
pub fn client(edge: SocketAddr) -> Client {
    Client { edge, http2: false, cookies: BTreeMap::new(), user_agent: "test/1".into(), ca: ca().der.clone() }
}

/// A request being put together.
pub struct Asking<'a> {
    client: &'a mut Client,
    method: &'static str,
    url: Url,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Client {
    pub fn http2(mut self) -> Self {
        self.http2 = true;
        self
    }

    pub fn user_agent(mut self, agent: &str) -> Self {
        self.user_agent = agent.into();
        self
    }

    /// Trusts the CA of a PEM file instead of the tests' own.
    pub fn trusting(mut self, pem: &std::path::Path) -> Self {
        self.ca = CertificateDer::from_pem_file(pem).unwrap().to_vec();
        self
    }

    /// From here on through another edge, as a balancer might decide.
    pub fn through(&mut self, edge: SocketAddr) -> &mut Self {
        self.edge = edge;
        self
    }

    pub fn ask(&mut self, method: &'static str, url: &str) -> Asking<'_> {
        let url = Url::parse(url).unwrap();
        Asking { client: self, method, url, fields: Vec::new(), body: Vec::new() }
    }

    /// As a script asks.
    pub fn get(&mut self, url: &str) -> Response {
        self.ask("GET", url).send()
    }

    /// As a person opens a page.
    pub fn open(&mut self, url: &str) -> Response {
        self.ask("GET", url).accept("text/html").send()
    }

    /// Opens a page and follows redirects; answers all responses on the way, the last one last.
    pub fn follow(&mut self, url: &str) -> Vec<Response> {
        let mut hops = vec![self.open(url)];
        while let Some(location) = hops.last().and_then(Response::location) {
            assert!(hops.len() < 20, "redirected round in a circle: {location}");
            let next = self.open(&location);
            hops.push(next);
        }
        hops
    }

    /// Signs out as a person does, and answers the page that is shown in the end.
    pub fn sign_out(&mut self, url: &str) -> Response {
        self.follow(url).pop().unwrap()
    }

    /// From a service's page through the login to that page again; answers every response on the way.
    pub fn sign_in(&mut self, url: &str, user: &str, password: &str) -> Vec<Response> {
        let mut hops = self.follow(url);
        let form = hops.last().unwrap();
        assert_eq!(form.status, 200, "no login form but {}: {}", form.status, form.body);
        let sent = self.fill_in(form, user, password);
        assert_eq!(sent.status, 303, "{}", sent.body);
        let next = sent.location().unwrap();
        hops.push(sent);
        hops.extend(self.follow(&next));
        hops
    }

    /// Fills in a login form and sends it.
    pub fn fill_in(&mut self, form: &Response, user: &str, password: &str) -> Response {
        let fields = ["csrf", "redirectURL", "state"].map(|name| (name, form.form_field(name)));
        let mut sent: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        sent.extend([("username", user), ("password", password)]);
        let url = Url::parse(&form.url).unwrap().join("/login").unwrap();
        self.post_form(url.as_str(), &sent)
    }

    pub fn post_form(&mut self, url: &str, fields: &[(&str, &str)]) -> Response {
        let body: String = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.ask("POST", url)
            .accept("text/html")
            .field("content-type", "application/x-www-form-urlencoded")
            .body(body)
            .send()
    }

    pub fn cookie(&self, host: &str, name: &str) -> Option<&str> {
        self.cookies.get(&(host.to_owned(), name.to_owned())).map(String::as_str)
    }

    pub fn set_cookie(&mut self, host: &str, name: &str, value: &str) {
        self.cookies.insert((host.into(), name.into()), value.into());
    }

    /// The same browser, with the same cookies, now finds the edge elsewhere.
    pub fn move_to(&mut self, edge: SocketAddr) {
        self.edge = edge;
    }

    pub fn forget_cookies(&mut self) {
        self.cookies.clear();
    }

    pub fn forget_cookie(&mut self, host: &str, name: &str) {
        self.cookies.remove(&(host.to_owned(), name.to_owned()));
    }

    /// The Cookie field that goes to a host.
    pub fn cookie_field(&self, host: &str) -> String {
        let of_host = self.cookies.iter().filter(|((of, _), _)| *of == host);
        of_host.map(|((_, name), value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// Takes the cookies of a response that another client was given.
    pub fn receive(&mut self, response: &Response) {
        let host = Url::parse(&response.url).unwrap().host_str().unwrap().to_owned();
        self.keep(&host, &response.headers);
    }

    fn keep(&mut self, host: &str, headers: &HeaderMap) {
        for value in headers.get_all("set-cookie") {
            let text = value.to_str().unwrap();
            let (name, rest) = text.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            if text.contains("Max-Age=0") {
                self.forget_cookie(host, name);
            } else {
                self.set_cookie(host, name, value);
            }
        }
    }
}

impl Asking<'_> {
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.into(), value.into()));
        self
    }

    pub fn accept(self, value: &str) -> Self {
        self.field("accept", value)
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub fn send(self) -> Response {
        let host = self.url.host_str().unwrap().to_owned();
        let cookies = self.client.cookie_field(&host);
        let mut fields = self.fields;
        fields.push(("user-agent".into(), self.client.user_agent.clone()));
        if !cookies.is_empty() {
            fields.push(("cookie".into(), cookies));
        }
        let response = runtime()
            .block_on(exchange(self.client, self.method, &self.url, &fields, self.body))
            .unwrap_or_else(|error| panic!("{} {}: {error}", self.method, self.url));
        response.hold_against_the_list();
        self.client.keep(&host, &response.headers);
        response
    }
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn location(&self) -> Option<String> {
        self.header("location").map(str::to_owned)
    }

    /// A parameter of the Location's query.
    pub fn location_parameter(&self, name: &str) -> Option<String> {
        let location = Url::parse(&self.location()?).unwrap();
        location.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned())
    }

    /// Where the Location leads, without its query.
    pub fn location_path(&self) -> Option<String> {
        Some(self.location()?.split('?').next().unwrap().to_owned())
    }

    pub fn set_cookies(&self) -> Vec<&str> {
        self.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect()
    }

    pub fn set_cookie(&self, name: &str) -> Option<&str> {
        self.set_cookies().into_iter().find(|cookie| cookie.starts_with(&format!("{name}=")))
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    /// The value of a hidden field of a form.
    pub fn form_field(&self, name: &str) -> String {
        let mark = format!("name=\"{name}\" value=\"");
        let at = self.body.find(&mark).unwrap_or_else(|| panic!("no field {name} in {}", self.body)) + mark.len();
        let text = self.body[at..].split('"').next().unwrap();
        text.replace("&#38;", "&").replace("&amp;", "&").replace("&#34;", "\"")
    }

    fn hold_against_the_list(&self) {
        for name in self.headers.keys() {
            assert!(ALLOWED.contains(&name.as_str()), "{}: a response header that nobody allowed: {name}", self.url);
        }
    }
}

/// TLS to the edge under a server name.
pub async fn connect(edge: SocketAddr, name: &str, alpn: &[&[u8]]) -> Result<TlsStream<TcpStream>, std::io::Error> {
    connect_trusting(&ca().der, edge, name, alpn).await
}

/// The same, with bytes before the handshake, as a balancer sends them.
pub async fn connect_after(bytes: &[u8], edge: SocketAddr, name: &str) -> Result<TlsStream<TcpStream>, std::io::Error> {
    let mut socket = TcpStream::connect(edge).await?;
    tokio::io::AsyncWriteExt::write_all(&mut socket, bytes).await?;
    let config = trusting(&ca().der, &[b"http/1.1"]);
    TlsConnector::from(config).connect(ServerName::try_from(name.to_owned()).unwrap(), socket).await
}

async fn connect_trusting(
    ca: &[u8],
    edge: SocketAddr,
    name: &str,
    alpn: &[&[u8]],
) -> Result<TlsStream<TcpStream>, std::io::Error> {
    let config = trusting(ca, alpn);
    let socket = TcpStream::connect(edge).await?;
    TlsConnector::from(config).connect(ServerName::try_from(name.to_owned()).unwrap(), socket).await
}

fn trusting(ca: &[u8], alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca.to_vec())).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

async fn exchange(
    client: &Client,
    method: &str,
    url: &Url,
    fields: &[(String, String)],
    body: Vec<u8>,
) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
    let Client { edge, http2, ca, .. } = client;
    let (edge, http2) = (*edge, *http2);
    let host = url.host_str().unwrap();
    let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let uri = if http2 { format!("https://{authority}{target}") } else { target.to_owned() };
    let mut request = Request::builder().method(method).uri(uri);
    if !http2 {
        request = request.header("host", &authority);
    }
    for (name, value) in fields {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(body)))?;
    let response = if url.scheme() == "http" {
        let io = TokioIo::new(TcpStream::connect(edge).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    } else if http2 {
        let io = TokioIo::new(connect_trusting(ca, edge, host, &[b"h2"]).await?);
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    } else {
        let io = TokioIo::new(connect_trusting(ca, edge, host, &[b"http/1.1"]).await?);
        let (mut sender, connection) =
            hyper::client::conn::http1::Builder::new().preserve_header_case(true).handshake(io).await?;
        tokio::spawn(connection);
        sender.send_request(request).await?
    };
    let (parts, body) = response.into_parts();
    let body = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
    Ok(Response { status: parts.status.as_u16(), headers: parts.headers, body, url: url.to_string() })
}

/// Sends bytes as they are over TLS and answers what came back until the edge closed or fell silent.
pub fn send_raw(edge: SocketAddr, name: &str, bytes: &[u8]) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    runtime().block_on(async {
        let mut stream = connect(edge, name, &[b"http/1.1"]).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(Ok(read)) =
            tokio::time::timeout(std::time::Duration::from_millis(500), stream.read(&mut chunk)).await
        {
            if read == 0 {
                break;
            }
            answer.extend_from_slice(&chunk[..read]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    })
}

/// A connection over TLS on which a test says every byte itself, when it wants to.
pub struct RawConnection(TlsStream<TcpStream>);

pub fn raw_connection(edge: SocketAddr, name: &str) -> RawConnection {
    RawConnection(runtime().block_on(connect(edge, name, &[b"http/1.1"])).unwrap())
}

impl RawConnection {
    /// Answers whether the other side still took it.
    pub fn say(&mut self, bytes: &str) -> bool {
        use tokio::io::AsyncWriteExt;
        runtime().block_on(self.0.write_all(bytes.as_bytes())).is_ok()
    }

    /// What has come by the time that `mark` has, that the edge closed, or that it was silent for so long.
    pub fn hear(&mut self, mark: &str, silence: std::time::Duration) -> String {
        use tokio::io::AsyncReadExt;
        let mut heard = Vec::new();
        let mut chunk = [0; 4096];
        runtime().block_on(async {
            while !String::from_utf8_lossy(&heard).contains(mark) {
                match tokio::time::timeout(silence, self.0.read(&mut chunk)).await {
                    Ok(Ok(read)) if read > 0 => heard.extend_from_slice(&chunk[..read]),
                    _ => break,
                }
            }
        });
        String::from_utf8_lossy(&heard).into_owned()
    }
}

/// Sends the same bytes over as many connections at the same moment, spread over the edges in turn. All
/// connections stand before the first byte is sent; answers are whole, for requests that say `Connection: close`.
pub fn send_at_once(edges: &[SocketAddr], connections: usize, name: &str, bytes: &[u8]) -> Vec<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let all_stand = Arc::new(tokio::sync::Barrier::new(connections));
    let senders: Vec<_> = (0..connections)
        .map(|at| {
            let (edge, name, bytes) = (edges[at % edges.len()], name.to_owned(), bytes.to_vec());
            let all_stand = Arc::clone(&all_stand);
            runtime().spawn(async move {
                let mut stream = connect(edge, &name, &[b"http/1.1"]).await.unwrap();
                all_stand.wait().await;
                stream.write_all(&bytes).await.unwrap();
                let mut answer = Vec::new();
                // The edge may close without TLS's farewell; what was said counts.
                stream.read_to_end(&mut answer).await.ok();
                String::from_utf8_lossy(&answer).into_owned()
            })
        })
        .collect();
    runtime().block_on(async {
        let mut answers = Vec::new();
        for sender in senders {
            answers.push(sender.await.unwrap());
        }
        answers
    })
}
