//! JSON lines, one per request or TCP connection, through a bounded queue to a writer thread.

use std::{
    fs::OpenOptions,
    io::{self, BufWriter, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::SystemTime,
};

use mesh_core::edge::Direction;
use serde_json::{Map, Value};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{EdgeStats, Outcome};
use crate::config::AccessLogTarget;

/// Lines that wait for the writer.
const QUEUE: usize = 512;
/// Stack of the writer, in bytes.
const STACK: usize = 128 * 1024;
/// Longest authority and path that are logged, in characters.
const MAX_TEXT: usize = 1024;

/// One line.
pub(crate) struct Entry {
    /// The proxy's side.
    pub direction: Direction,
    /// The edge; None when the call ended before one was known.
    pub edge: Option<Arc<EdgeStats>>,
    /// The other end of the accepted connection.
    pub peer: Option<SocketAddr>,
    /// Where the call was sent.
    pub upstream: Option<SocketAddr>,
    /// HTTP method; None for TCP.
    pub method: Option<http::Method>,
    /// Host as the caller wrote it.
    pub authority: Option<String>,
    /// Path without the query, for that may hold secrets.
    pub path: Option<String>,
    /// The name that the client's own TLS asked for (SNI), where bytes are carried.
    pub server_name: Option<Box<str>>,
    /// How it ended.
    pub outcome: Outcome,
}

/// Handle of the log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AccessLog {
    shared: Arc<Shared>,
}

struct Shared {
    enabled: AtomicBool,
    dropped: AtomicU64,
    queue: SyncSender<Box<(SystemTime, Entry)>>,
}

impl AccessLog {
    /// Opens the log and starts its writer.
    ///
    /// # Errors
    /// When the file cannot be opened or the thread not started.
    pub(crate) fn open(target: &AccessLogTarget) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match target {
            AccessLogTarget::Off | AccessLogTarget::Stdout => Box::new(io::stdout()),
            AccessLogTarget::File(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        };
        let (queue, lines) = sync_channel(QUEUE);
        thread::Builder::new()
            .name("access-log".to_owned())
            .stack_size(STACK)
            .spawn(move || write_all(&lines, BufWriter::new(out)))?;
        let enabled = AtomicBool::new(*target != AccessLogTarget::Off);
        Ok(Self { shared: Arc::new(Shared { enabled, dropped: AtomicU64::new(0), queue }) })
    }

    /// True when lines are wanted: ask before an [`Entry`] is made.
    pub(crate) fn enabled(&self) -> bool {
        self.shared.enabled.load(Relaxed)
    }

    /// Switches the log on or off.
    pub(crate) fn set_enabled(&self, enabled: bool) {
        self.shared.enabled.store(enabled, Relaxed);
    }

    /// Lines that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }

    /// Queues one line; drops it (counted) when the writer does not keep up.
    pub(crate) fn write(&self, entry: Entry) {
        if self.shared.queue.try_send(Box::new((SystemTime::now(), entry))).is_err() {
            self.shared.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Writes until all handles are gone; flushes whenever the queue is empty.
fn write_all(lines: &Receiver<Box<(SystemTime, Entry)>>, mut out: impl Write) {
    while let Ok(first) = lines.recv() {
        let mut next = Some(first);
        while let Some(line) = next {
            let (time, entry) = *line;
            let mut text = to_json(time, &entry).to_string();
            text.push('\n');
            // A reader that went away must not stop the proxy; the lines are lost.
            let _written = out.write_all(text.as_bytes());
            next = lines.try_recv().ok();
        }
        let _flushed = out.flush();
    }
}

fn to_json(time: SystemTime, entry: &Entry) -> Value {
    let mut line = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            line.insert(name.to_owned(), value);
        }
    };
    let text = |value: Option<&dyn ToString>| value.map(|v| Value::from(v.to_string()));
    let short = |value: &Option<String>| {
        value.as_ref().map(|v| Value::from(v.chars().take(MAX_TEXT).collect::<String>()))
    };
    put("time", OffsetDateTime::from(time).format(&Rfc3339).ok().map(Value::from));
    put("direction", Some(entry.direction.as_str().into()));
    if let Some(edge) = &entry.edge {
        let key = edge.key();
        put("source", text(key.source.as_ref().map(|v| v as _)));
        put("destination", text(key.destination.as_ref().map(|v| v as _)));
        put("service", text(key.service.as_ref().map(|v| v as _)));
        put("backend", text(key.backend.as_ref().map(|v| v as _)));
        put("workload", text(key.destination_workload.as_ref().map(|v| v as _)));
        put("rule", text(key.rule.as_ref().map(|v| v as _)));
        put("protocol", Some(key.protocol.as_str().into()));
        put("secured", Some(key.secured.into()));
    }
    put("peer", text(entry.peer.as_ref().map(|v| v as _)));
    put("upstream", text(entry.upstream.as_ref().map(|v| v as _)));
    put("method", text(entry.method.as_ref().map(|v| v as _)));
    put("authority", short(&entry.authority));
    put("path", short(&entry.path));
    put("server_name", entry.server_name.as_deref().map(Value::from));
    let outcome = &entry.outcome;
    put("status", outcome.status.map(Value::from));
    put("failed", Some(outcome.failed.into()));
    put("reason", outcome.reason.map(|reason| reason.code().into()));
    put("duration_micros", Some(outcome.micros.into()));
    put("request_bytes", Some(outcome.request_bytes.into()));
    put("response_bytes", Some(outcome.response_bytes.into()));
    put("retries", (outcome.retries > 0).then(|| outcome.retries.into()));
    Value::Object(line)
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use mesh_core::reason::Reason;

    use super::*;

    fn entry() -> Entry {
        Entry {
            direction: Direction::Inbound,
            edge: None,
            peer: Some(([127, 0, 0, 1], 4000).into()),
            upstream: None,
            method: Some(http::Method::GET),
            authority: Some("cart\n\"x\"".to_owned()),
            path: Some("/items".repeat(1000)),
            server_name: None,
            outcome: Outcome {
                status: Some(403),
                failed: true,
                reason: Some(Reason::AuthzDenied),
                micros: 12,
                request_bytes: 1,
                response_bytes: 2,
                retries: 0,
            },
        }
    }

    #[test]
    fn a_line_is_one_json_object_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::open(&AccessLogTarget::File(path.clone())).unwrap();
        assert!(log.enabled());
        log.write(entry());
        let mut text = String::new();
        for _ in 0..500 {
            text = fs::read_to_string(&path).unwrap();
            if text.ends_with('\n') {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(text.lines().count(), 1);
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["reason"], "AUTHZ_DENIED");
        assert_eq!(line["authority"], "cart\n\"x\"");
        assert_eq!(line["path"].as_str().unwrap().len(), MAX_TEXT);
        assert_eq!(line.get("upstream"), None);
    }

    #[test]
    fn a_slow_writer_costs_lines_not_memory() {
        let (queue, lines) = sync_channel(2);
        let shared = Shared { enabled: AtomicBool::new(true), dropped: AtomicU64::new(0), queue };
        let log = AccessLog { shared: Arc::new(shared) };
        for _ in 0..5 {
            log.write(entry());
        }
        assert_eq!(log.dropped(), 3);
        drop(log);
        let mut out = Vec::new();
        write_all(&lines, &mut out);
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), 2);
    }
}
