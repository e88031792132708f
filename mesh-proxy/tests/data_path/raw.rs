//! Raw HTTP/1 on both ends: a backend that reads as strictly as the RFC allows and keeps what it was sent, and a
//! client that sends bytes and reads what comes back.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use mesh_testkit::{
    net::{PATIENCE, fresh_addr},
    serve::Served,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// How long a client waits for more, once it has an answer.
const QUIET: Duration = Duration::from_millis(60);

/// One complete request as it was on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<(String, String)>,
}

impl Message {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// What arrived: complete messages, or why bytes are none.
pub(crate) type Arrived = Result<Message, String>;

/// A backend that answers 200 to every complete request.
pub(crate) struct Backend {
    seen: Arc<Mutex<Vec<Arrived>>>,
    served: Served,
}

impl Backend {
    pub(crate) async fn start() -> Self {
        Self::answering("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await
    }

    /// Answers with these bytes.
    pub(crate) async fn answering(answer: &'static str) -> Self {
        let seen = Arc::<Mutex<Vec<Arrived>>>::default();
        let all = Arc::clone(&seen);
        let served = Served::start(fresh_addr(0), move |stream, _| serve(stream, answer, Arc::clone(&all)));
        Self { seen, served: served.await }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.served.address()
    }

    /// What arrived since this was asked last.
    pub(crate) fn take(&self) -> Vec<Arrived> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

async fn serve(mut stream: TcpStream, answer: &str, seen: Arc<Mutex<Vec<Arrived>>>) {
    let mut buffer = Vec::new();
    loop {
        match parse(&buffer) {
            Ok(Some((message, length))) => {
                buffer.drain(..length);
                seen.lock().unwrap().push(Ok(message));
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            // The end of a connection amid a message is no message.
            Ok(None) => match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            },
            Err(error) => {
                let text = format!("{error}: {:?}", String::from_utf8_lossy(&buffer));
                seen.lock().unwrap().push(Err(text));
                return;
            }
        }
    }
}

/// Reads one request. None: it is not complete yet.
fn parse(bytes: &[u8]) -> Result<Option<(Message, usize)>, String> {
    let Some((line, mut rest)) = line(bytes)? else { return Ok(None) };
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return Err(format!("request line {line:?}")) };
    let target_ok = target.bytes().all(|b| b.is_ascii_graphic()) && target.starts_with(['/', '*']);
    if !target_ok || method.is_empty() || !method.bytes().all(is_token) {
        return Err(format!("request line {line:?}"));
    }
    let Some((fields, after)) = fields(rest)? else { return Ok(None) };
    rest = after;
    let mut message = Message { method: method.into(), target: target.into(), ..Message::default() };
    let all = |name: &str| -> Vec<&str> {
        fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    };
    if all("host").len() != 1 {
        return Err(format!("hosts {:?}", all("host")));
    }
    match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => {}
        ([length], []) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
            let length: usize = length.parse().map_err(|_| "length".to_owned())?;
            let Some((body, after)) = rest.split_at_checked(length) else { return Ok(None) };
            (message.body, rest) = (body.to_vec(), after);
        }
        ([], ["chunked"]) => {
            let Some((body, trailers, after)) = chunks(rest)? else { return Ok(None) };
            (message.body, message.trailers, rest) = (body, trailers, after);
        }
        framing => return Err(format!("framing {framing:?}")),
    }
    message.fields = fields;
    Ok(Some((message, bytes.len() - rest.len())))
}

type Fields = Vec<(String, String)>;
/// Body, trailers, and what comes after them.
type Chunks<'a> = Option<(Vec<u8>, Fields, &'a [u8])>;

fn chunks(mut rest: &[u8]) -> Result<Chunks<'_>, String> {
    let mut body = Vec::new();
    loop {
        let Some((size, after)) = line(rest)? else { return Ok(None) };
        if size.is_empty() || !size.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("chunk size {size:?}"));
        }
        let size = usize::from_str_radix(&size, 16).map_err(|_| format!("chunk size {size:?}"))?;
        if size == 0 {
            return Ok(fields(after)?.map(|(trailers, rest)| (body, trailers, rest)));
        }
        let Some((data, after)) = after.split_at_checked(size) else { return Ok(None) };
        body.extend_from_slice(data);
        match after {
            [b'\r', b'\n', after @ ..] => rest = after,
            [] | [b'\r'] => return Ok(None),
            _ => return Err("chunk end".to_owned()),
        }
    }
}

fn fields(mut rest: &[u8]) -> Result<Option<(Fields, &[u8])>, String> {
    let mut fields = Vec::new();
    loop {
        let Some((text, after)) = line(rest)? else { return Ok(None) };
        rest = after;
        if text.is_empty() {
            return Ok(Some((fields, rest)));
        }
        let (name, value) = text.split_once(':').ok_or_else(|| format!("field {text:?}"))?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(format!("field name {text:?}"));
        }
        fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()));
    }
}

/// A line that ends with CRLF and holds no other control character but tabs.
fn line(bytes: &[u8]) -> Result<Option<(String, &[u8])>, String> {
    let Some(end) = bytes.iter().position(|&b| b == b'\n') else { return Ok(None) };
    let (text, rest) = (&bytes[..end], &bytes[end + 1..]);
    let Some(text) = text.strip_suffix(b"\r") else { return Err("a bare LF".to_owned()) };
    if text.iter().any(|&b| b.is_ascii_control() && b != b'\t') {
        return Err(format!("a control character in {:?}", String::from_utf8_lossy(text)));
    }
    Ok(Some((text.iter().map(|&b| char::from(b)).collect(), rest)))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Sends bytes on a connection of its own and reads what comes back, until nothing more comes or the connection ends.
pub(crate) async fn send(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(to).await.unwrap();
    // It may be refused before all of it is sent.
    let _ = stream.write_all(bytes).await;
    let got = answer(&mut stream).await;
    String::from_utf8_lossy(&got).into_owned()
}

/// Reads until nothing more comes or the connection ends.
pub(crate) async fn answer(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut got = Vec::new();
    loop {
        let within = if got.is_empty() { PATIENCE } else { QUIET };
        match timeout(within, stream.read_buf(&mut got)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return got,
            Err(_) if got.is_empty() => return b"neither an answer nor an end".to_vec(),
            Err(_) => return got,
        }
    }
}
