//! `httpGet`: as kubelet asks (pkg/probe/http): certificates are not verified, redirects are followed on the same host
//! alone, and where they lead elsewhere they are the answer.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri,
    header::{self, Entry},
    uri::PathAndQuery,
};
use http_body_util::{BodyExt as _, Empty};
use hyper::{
    body::{Body as _, Incoming},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinSet,
};
use tokio_rustls::TlsConnector;

use super::{
    connect,
    declared::{HttpGet, is_own},
};
use crate::tls::unverified;

/// Most redirects.
const MAX_REDIRECTS: usize = 10;
/// Largest head of an answer.
const MAX_HEAD: usize = 256 * 1024;
/// So much of an answer's body is read, in bytes, as kubelet does.
const MAX_BODY: u64 = 10 * 1024;

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Get {
    is_https: bool,
    path: PathAndQuery,
    headers: HeaderMap,
    host: Option<HeaderValue>,
}

impl Get {
    /// Checks what was declared.
    pub(super) fn new(declared: &HttpGet) -> Result<Self, String> {
        let is_https = match declared.scheme.as_deref().unwrap_or("HTTP") {
            scheme if scheme.eq_ignore_ascii_case("http") || scheme.is_empty() => false,
            scheme if scheme.eq_ignore_ascii_case("https") => true,
            scheme => return Err(format!("the scheme {scheme:?} is neither HTTP nor HTTPS")),
        };
        let path = escape(declared.path.as_deref().unwrap_or_default());
        let path =
            PathAndQuery::try_from(path.as_str()).map_err(|error| format!("path {path:?}: {error}"))?;
        let mut headers = HeaderMap::new();
        for item in declared.http_headers.iter().flatten() {
            let name = HeaderName::try_from(&item.name)
                .map_err(|error| format!("header {:?}: {error}", item.name))?;
            let value = HeaderValue::try_from(item.value.trim())
                .map_err(|error| format!("value of the header {name}: {error}"))?;
            headers.append(name, value);
        }
        let host = headers.remove(header::HOST).filter(|host| !host.is_empty());
        for name in [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
            headers.remove(name);
        }
        Ok(Self { is_https, path, headers, host })
    }

    fn request(
        &self,
        address: SocketAddr,
        agent: Option<&HeaderValue>,
        is_h2: bool,
    ) -> Result<Request<Empty<Bytes>>, String> {
        let wrong = |error: http::Error| format!("the request cannot be made: {error}");
        let mut headers = self.headers.clone();
        if let Some(agent) = agent {
            headers.entry(header::USER_AGENT).or_insert_with(|| agent.clone());
        }
        headers.entry(header::ACCEPT).or_insert(HeaderValue::from_static("*/*"));
        // What is declared as empty is not sent.
        for name in [header::USER_AGENT, header::ACCEPT] {
            if let Entry::Occupied(entry) = headers.entry(name)
                && entry.get().is_empty()
            {
                entry.remove();
            }
        }
        let authority = address.to_string();
        let host = match &self.host {
            Some(host) => host.clone(),
            None => HeaderValue::try_from(&authority).map_err(|error| wrong(error.into()))?,
        };
        let builder = Uri::builder().path_and_query(self.path.clone());
        let uri = if is_h2 {
            let scheme = if self.is_https { "https" } else { "http" };
            builder.scheme(scheme).authority(host.as_bytes()).build().map_err(wrong)?
        } else {
            headers.insert(header::HOST, host);
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            builder.build().map_err(wrong)?
        };
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        Ok(request)
    }

    /// Where a redirect leads. None: to somebody else, or nowhere.
    fn follow(
        &self,
        address: SocketAddr,
        response: &Response<Incoming>,
    ) -> Result<Option<(SocketAddr, Self)>, String> {
        let is_redirect = matches!(
            response.status(),
            StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT
        );
        let Some(location) = response.headers().get(header::LOCATION).filter(|_| is_redirect) else {
            return Ok(None);
        };
        let text = location.to_str().map_err(|_| "it redirects to what is no URL".to_owned())?;
        let wrong = |error: &dyn std::error::Error| format!("it redirects to {text:?}: {error}");
        let escaped = if text.contains("://") || text.starts_with("//") {
            fragmentless(text).to_owned()
        } else {
            resolve(&self.path, text)
        };
        let absolute = if escaped.starts_with("//") {
            format!("{}:{escaped}", if self.is_https { "https" } else { "http" })
        } else {
            escaped
        };
        let uri: Uri = absolute.parse().map_err(|error: http::uri::InvalidUri| wrong(&error))?;
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        let Some(host) = uri.host() else { return Ok(Some((address, Self { path, ..self.clone() }))) };
        let ip = host.trim_start_matches('[').trim_end_matches(']').parse();
        let is_https = uri.scheme_str() == Some("https");
        if ip != Ok(address.ip()) || !(is_https || uri.scheme_str() == Some("http")) {
            return Ok(None);
        }
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        if is_own(port) {
            return Err(format!("it redirects to port {port}, which is the proxy's own"));
        }
        let next = Self { is_https, path, headers: self.headers.clone(), host: None };
        Ok(Some((SocketAddr::new(address.ip(), port), next)))
    }
}

/// The last answer, on its connection.
pub(super) struct Answer {
    response: Response<Incoming>,
    is_h2: bool,
    _connection: JoinSet<()>,
}

impl Answer {
    /// Its status.
    pub(super) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// True if there is more than is ever read.
    pub(super) fn is_long(&self) -> bool {
        self.response.body().size_hint().lower() > MAX_BODY
    }

    /// Reads its body, up to a limit.
    ///
    /// # Errors
    /// When it breaks off before that.
    pub(super) async fn read(mut self) -> Result<(), String> {
        let headers = self.response.headers();
        let has_no_length = !self.is_h2
            && !headers.contains_key(header::CONTENT_LENGTH)
            && !headers.contains_key(header::TRANSFER_ENCODING);
        let mut read = 0_u64;
        while read < MAX_BODY {
            match self.response.body_mut().frame().await {
                None => break,
                Some(Ok(frame)) => read += frame.data_ref().map_or(0, |data| data.len() as u64),
                // Many servers end TLS without a word, and kubelet takes that for an end too.
                Some(Err(error)) if has_no_length && is_end(&error) => break,
                Some(Err(error)) => return Err(format!("its answer broke off: {}", chain(&error))),
            }
        }
        Ok(())
    }
}

/// True if the connection just ended.
fn is_end(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::UnexpectedEof)
}

/// Asks, and returns the last answer.
pub(super) async fn ask(
    address: SocketAddr,
    get: &Get,
    agent: Option<&HeaderValue>,
) -> Result<Answer, String> {
    let (mut address, mut get) = (address, get.clone());
    for _ in 0..MAX_REDIRECTS {
        let answer = once(address, &get, agent).await?;
        match get.follow(address, &answer.response)? {
            None => return Ok(answer),
            Some((next, asked)) => (address, get) = (next, asked),
        }
    }
    Err(format!("more than {MAX_REDIRECTS} redirects"))
}

async fn once(address: SocketAddr, get: &Get, agent: Option<&HeaderValue>) -> Result<Answer, String> {
    let stream = connect(address).await?;
    if !get.is_https {
        return send(stream, get.request(address, agent, false)?, false).await;
    }
    let config = unverified().map_err(|error| error.to_string())?;
    let name = ServerName::IpAddress(address.ip().into());
    let stream = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await;
    let stream = stream.map_err(|error| format!("TLS with {address}: {error}"))?;
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    send(stream, get.request(address, agent, is_h2)?, is_h2).await
}

/// Sends a request on a connection of its own.
async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
    is_h2: bool,
) -> Result<Answer, String> {
    let failed = |error: hyper::Error| format!("no answer: {}", chain(&error));
    let mut connection = JoinSet::new();
    let io = TokioIo::new(stream);
    let response = if is_h2 {
        let (mut sender, running) = http2::handshake(TokioExecutor::new(), io).await.map_err(failed)?;
        connection.spawn(async move { drop(running.await) });
        sender.send_request(request).await.map_err(failed)?
    } else {
        let builder = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(io);
        let (mut sender, running) = builder.await.map_err(failed)?;
        connection.spawn(async move { drop(running.await) });
        sender.send_request(request).await.map_err(failed)?
    };
    Ok(Answer { response, is_h2, _connection: connection })
}

/// hyper's errors say little without their cause.
pub(super) fn chain(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// A declared path as it is sent: from a slash on, without its fragment, and with `%` for what a request cannot hold.
fn escape(path: &str) -> String {
    let path = fragmentless(path);
    let slash = if path.starts_with('/') { "" } else { "/" };
    path.bytes().fold(slash.to_owned(), |mut out, byte| {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0..=b' ' | 0x7f.. => {
                out.push_str(&format!("%{byte:02X}"));
            }
            _ => out.push(char::from(byte)),
        }
        out
    })
}

fn fragmentless(text: &str) -> &str {
    text.split('#').next().unwrap_or_default()
}

/// A reference without a host, from where it was found (RFC 3986 section 5.2).
fn resolve(base: &PathAndQuery, reference: &str) -> String {
    let reference = fragmentless(reference);
    let path = base.path();
    let whole = match reference.chars().next() {
        None => base.as_str().to_owned(),
        Some('/') => reference.to_owned(),
        Some('?') => format!("{path}{reference}"),
        Some(_) => {
            format!("{}{reference}", path.rsplit_once('/').map_or("/", |(folder, _)| folder_of(path, folder)))
        }
    };
    let (path, query) = whole.split_once('?').map_or((&*whole, None), |(path, query)| (path, Some(query)));
    let mut parts: Vec<&str> = Vec::new();
    let ends_open = path.ends_with('/') || path.ends_with("/.") || path.ends_with("/..");
    for part in path.split('/').skip(1) {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if ends_open && parts.last().is_some_and(|part| !part.is_empty()) {
        parts.push("");
    }
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    escape(&format!("/{}{query}", parts.join("/")))
}

/// The folder of a path, with its last slash.
fn folder_of<'a>(path: &'a str, folder: &str) -> &'a str {
    path.get(..=folder.len()).unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_sent_as_they_were_declared() {
        let check = |declared: &str, sent: &str| assert_eq!(escape(declared), sent);
        check("", "/");
        check("health", "/health");
        check("/a b?q=\"x\"&y=%20#part", "/a%20b?q=%22x%22&y=%20");
        check("/ü", "/%C3%BC");
    }

    #[test]
    fn references_are_resolved() {
        let base = PathAndQuery::from_static("/a/b?x=1");
        let check = |reference: &str, path: &str| assert_eq!(resolve(&base, reference), path, "{reference}");
        check("c", "/a/c");
        check("../c?y#z", "/c?y");
        check("../../../c", "/c");
        check("./", "/a/");
        check("?y=2", "/a/b?y=2");
        check("/d/./e/..", "/d/");
        check("", "/a/b?x=1");
    }
}
