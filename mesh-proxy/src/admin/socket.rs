//! The Unix socket that changes state: only the proxy's own user may open it (0600).

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::Full;
use tokio::{net::UnixListener, sync::Semaphore};

use super::{
    State,
    server::{Answer, Head, accepted, serve_one},
};
use crate::{life::Ask, logging};

/// Connections at a time.
const MAX_CONNECTIONS: usize = 4;

/// Binds the socket; one that a dead process left behind is replaced.
///
/// # Errors
/// When it cannot be bound, or something else than a socket is there.
pub(crate) fn bind_socket(path: &Path) -> io::Result<UnixListener> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::other("something that is no socket is there")),
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves the socket. Runs for ever.
pub(crate) async fn serve_socket(listener: UnixListener, state: Arc<State>) {
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&limit).acquire_owned().await else { return };
        let Ok(stream) = accepted(listener.accept().await).await else { continue };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            serve_one(stream, move |head| answer(&state, head)).await;
            drop(permit);
        });
    }
}

fn answer(state: &State, head: &Head) -> Response<Full<Bytes>> {
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
            "there are POST /drain, POST /quit, PUT /log-level?level=LEVEL and PUT /access-log?on|off",
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
