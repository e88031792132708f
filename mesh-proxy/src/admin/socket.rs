//! The Unix socket that changes state: only the proxy's own user may open it (0600).

use std::{
    ffi::OsStr,
    fs, io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use http_body_util::Full;
use tokio::sync::{Semaphore, oneshot};

use super::{
    State, read,
    server::{Answer, Head, accepted, serve_one},
};
use crate::{config::parse_duration, life::Ask, logging, upgrade};

/// Connections at a time.
const MAX_CONNECTIONS: usize = 4;
/// Path of the binary to upgrade to.
pub(crate) const BINARY: &str = "mesh-binary";
/// How long the new process may take to be ready, as in 30s.
pub(crate) const WITHIN: &str = "mesh-within";
/// Bounds of that.
const MIN_WITHIN: Duration = Duration::from_millis(100);
const MAX_WITHIN: Duration = Duration::from_secs(600);

/// Binds the socket; one that a dead process left behind is replaced.
///
/// # Errors
/// When it cannot be bound, or something else than a socket is there.
pub(super) fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("something that is no socket is there")),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves the socket. Runs for ever.
pub(super) async fn serve_socket(listener: tokio::net::UnixListener, state: Arc<State>) {
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
        let Ok((stream, _)) = accepted(listener.accept().await).await else { continue };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let answer = |head| {
                let state = Arc::clone(&state);
                async move { Some(answer(&state, &head).await) }
            };
            serve_one(stream, answer).await;
            drop(permit);
        });
    }
}

async fn answer(state: &State, head: &Head) -> Response<Full<Bytes>> {
    let query = head.uri.query().unwrap_or_default();
    let answer = match (&head.method, head.uri.path()) {
        (&Method::POST, "/drain") => {
            ask(state, Ask::Drain);
            Answer::text(202, "draining")
        }
        (&Method::POST, "/quit") => {
            ask(state, Ask::Quit);
            Answer::text(202, "ending")
        }
        (&Method::POST, "/upgrade") => upgrade(state, &head.headers).await,
        (&Method::GET, "/status") => read(state, head),
        (&Method::PUT, "/log-level") => match query.strip_prefix("level=") {
            Some(level) => match logging::set_level(level) {
                Ok(()) => Answer::text(200, level),
                Err(error) => Answer::text(400, &error.to_string()),
            },
            None => Answer::text(400, "say which: /log-level?level=debug"),
        },
        (&Method::PUT, "/access-log") => match query {
            "on" | "off" => {
                state.access_log.set_enabled(query == "on");
                Answer::text(200, query)
            }
            _ => Answer::text(400, "say which: /access-log?on or /access-log?off"),
        },
        _ => Answer::text(
            404,
            "there are GET /status, POST /drain, /quit and /upgrade, PUT /log-level?level=LEVEL and PUT /access-log?on|off",
        ),
    };
    answer.into_response()
}

/// What was asked before and goes further stands.
fn ask(state: &State, what: Ask) {
    state.ask.send_if_modified(|asked| {
        let further = what > *asked;
        *asked = what.max(*asked);
        further
    });
}

/// Answers when the other process has taken over, or has failed to.
async fn upgrade(state: &State, headers: &HeaderMap) -> Answer {
    let binary = headers.get(BINARY).map(|path| PathBuf::from(OsStr::from_bytes(path.as_bytes())));
    if binary.as_ref().is_some_and(|path| !path.is_absolute()) {
        return Answer::text(400, "the binary's path must be absolute");
    }
    let within = match headers.get(WITHIN).map(|text| text.to_str().ok().and_then(parse_duration)) {
        None => upgrade::WITHIN,
        Some(Some(within)) if (MIN_WITHIN..=MAX_WITHIN).contains(&within) => within,
        Some(_) => return Answer::text(400, "the time for an upgrade is 100ms to 10m"),
    };
    let (reply, answer) = oneshot::channel();
    if state.upgrade.try_send(upgrade::Request { binary, within, reply: Some(reply) }).is_err() {
        return Answer::text(409, "another upgrade runs, or the proxy ends");
    }
    match answer.await {
        Ok(Ok(text)) => Answer::text(200, &text),
        Ok(Err(error)) => Answer::text(500, &error),
        Err(_) => Answer::text(503, "the proxy ends"),
    }
}
