//! What the binary says to a proxy that already runs: `wait`, `drain`, `quit`, `upgrade`. Small and blocking: it runs in hooks and
//! scripts.

use std::{
    fs,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    os::unix::{ffi::OsStringExt as _, net::UnixStream},
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use mesh_core::ports;

use crate::{admin, config::parse_duration};

/// How often readiness is asked for.
const POLL: Duration = Duration::from_millis(50);
/// How long a proxy may take for an answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Largest answer, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// Why a proxy did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum TellError {
    /// It cannot be reached.
    #[error("the proxy's admin socket {}: {error}; does the proxy run, with this --admin-socket, and as this user", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        error: io::Error,
    },
    /// It refused.
    #[error("the proxy answered {status}: {text}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        text: String,
    },
    /// A flag is wrong.
    #[error("--{flag}: {value:?} is not {expected}")]
    Flag {
        /// The flag, without its dashes.
        flag: &'static str,
        /// What was typed.
        value: String,
        /// What is wanted.
        expected: &'static str,
    },
    /// It did not become ready.
    #[error("the proxy is not ready after {within:?}: {last}")]
    NotReady {
        /// How long was waited.
        within: Duration,
        /// What it said last.
        last: String,
    },
}

/// The socket of a proxy that runs.
#[derive(Clone, Debug, clap::Args)]
pub struct Socket {
    /// The proxy's admin socket
    #[arg(long, env = "MESH_ADMIN_SOCKET", value_name = "PATH")]
    pub admin_socket: PathBuf,
}

impl Socket {
    /// Asks for something by its path.
    ///
    /// # Errors
    /// [`TellError::Socket`], [`TellError::Refused`].
    pub fn post(&self, path: &str) -> Result<(), TellError> {
        let failed = |error| TellError::Socket { path: self.admin_socket.clone(), error };
        let stream = UnixStream::connect(&self.admin_socket).map_err(failed)?;
        stream.set_read_timeout(Some(ANSWER)).map_err(failed)?;
        match ask(stream, "POST", path, &[]).map_err(failed)? {
            (200..300, _) => Ok(()),
            (status, text) => Err(TellError::Refused { status, text }),
        }
    }
}

/// Asks a running proxy to hand over to another binary.
#[derive(Clone, Debug, clap::Args)]
pub struct Upgrade {
    /// The proxy to upgrade
    #[command(flatten)]
    pub socket: Socket,
    /// The new binary [default: the file of the running one, as it is now]
    #[arg(long, value_name = "FILE")]
    pub binary: Option<PathBuf>,
    /// How long the new process may take to be ready; after that the old one goes on
    #[arg(long, default_value = "30s")]
    pub within: String,
}

impl Upgrade {
    /// Asks, waits, and prints who took over.
    ///
    /// # Errors
    /// [`TellError`].
    pub fn run(&self) -> Result<(), TellError> {
        let within = parse_duration(&self.within).ok_or_else(|| TellError::Flag {
            flag: "within",
            value: self.within.clone(),
            expected: "a duration, as in 500ms, 30s or 5m",
        })?;
        let socket = &self.socket.admin_socket;
        let failed = |error| TellError::Socket { path: socket.clone(), error };
        let mut headers = vec![(admin::WITHIN, self.within.clone().into_bytes())];
        if let Some(binary) = &self.binary {
            let wrong = |_| TellError::Flag {
                flag: "binary",
                value: binary.display().to_string(),
                expected: "a file that is there",
            };
            let path = fs::canonicalize(binary).map_err(wrong)?;
            headers.push((admin::BINARY, path.into_os_string().into_vec()));
        }
        let stream = UnixStream::connect(socket).map_err(failed)?;
        stream.set_read_timeout(Some(within + 2 * ANSWER)).map_err(failed)?;
        match ask(stream, "POST", "/upgrade", &headers).map_err(failed)? {
            (200, text) => io::stdout().write_all(format!("{text}\n").as_bytes()).map_err(failed),
            (status, text) => Err(TellError::Refused { status, text }),
        }
    }
}

/// Waits until a running proxy is ready: identity, first configuration and listeners stand.
#[derive(Clone, Debug, clap::Args)]
pub struct Wait {
    /// The proxy's health port [default: port 15020 of loopback]
    #[arg(long, env = "MESH_HEALTH", value_name = "IP:PORT")]
    pub health: Option<String>,
    /// How long to wait, as in 30s
    #[arg(long, default_value = "60s")]
    pub timeout: String,
}

impl Wait {
    /// Waits.
    ///
    /// # Errors
    /// [`TellError::Flag`], [`TellError::NotReady`].
    pub fn run(&self) -> Result<(), TellError> {
        let (health, within) = (self.health()?, self.timeout()?);
        let began = Instant::now();
        loop {
            let last = match ready(health) {
                Ok((200, _)) => return Ok(()),
                Ok((status, text)) => format!("{health} answers {status}: {text}"),
                Err(error) => format!("{health}: {error}; does the proxy run"),
            };
            if began.elapsed() >= within {
                return Err(TellError::NotReady { within, last });
            }
            sleep(POLL);
        }
    }

    fn health(&self) -> Result<SocketAddr, TellError> {
        let Some(text) = &self.health else {
            return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), ports::HEALTH));
        };
        let wrong = |_| TellError::Flag { flag: "health", value: text.clone(), expected: "IP:PORT" };
        let mut address: SocketAddr = text.trim().parse().map_err(wrong)?;
        if address.ip().is_unspecified() {
            // Where it listens on all addresses it listens on loopback.
            let loopback: IpAddr = match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            };
            address.set_ip(loopback);
        }
        Ok(address)
    }

    fn timeout(&self) -> Result<Duration, TellError> {
        let expected = "a duration, as in 500ms, 30s or 5m";
        parse_duration(&self.timeout).ok_or_else(|| TellError::Flag {
            flag: "timeout",
            value: self.timeout.clone(),
            expected,
        })
    }
}

fn ready(health: SocketAddr) -> io::Result<(u16, String)> {
    let stream = TcpStream::connect_timeout(&health, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    ask(stream, "GET", "/ready", &[])
}

/// One request over a connection of its own; status and text of the answer.
fn ask(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, Vec<u8>)],
) -> io::Result<(u16, String)> {
    let mut request =
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n").into_bytes();
    for (name, value) in headers {
        request.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    request.extend(b"\r\n");
    stream.write_all(&request)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let parsed = answer.split_once("\r\n\r\n").and_then(|(head, body)| {
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        Some((status, body.trim().replace('\n', "; ")))
    });
    parsed.ok_or_else(|| io::Error::other("what answers there is no proxy"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(health: Option<&str>, expected: Result<&str, &str>) {
        let wait = Wait { health: health.map(str::to_owned), timeout: "0ms".to_owned() };
        let found = wait.health().map(|address| address.to_string()).map_err(|error| error.to_string());
        match expected {
            Ok(address) => assert_eq!(found.unwrap(), address),
            Err(part) => assert!(found.as_ref().is_err_and(|e| e.contains(part)), "{found:?}"),
        }
    }

    #[test]
    fn health_is_asked_where_it_listens() {
        check(None, Ok("127.0.0.1:15020"));
        check(Some("0.0.0.0:15020"), Ok("127.0.0.1:15020"));
        check(Some("[::]:15020"), Ok("[::1]:15020"));
        check(Some("127.20.0.3:15020"), Ok("127.20.0.3:15020"));
        check(Some("15020"), Err("IP:PORT"));
    }

    #[test]
    fn a_proxy_that_is_not_there_is_waited_for_in_vain() {
        let unused = std::net::TcpListener::bind("127.66.3.1:0").unwrap().local_addr().unwrap();
        let wait = Wait { health: Some(unused.to_string()), timeout: "100ms".to_owned() };
        let error = wait.run().unwrap_err().to_string();
        assert!(error.contains("does the proxy run"), "{error}");
        let socket = Socket { admin_socket: "/nonexistent/socket".into() };
        assert!(matches!(socket.post("/drain"), Err(TellError::Socket { .. })));
    }
}
