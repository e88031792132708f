//! The two ends, which are `examples/load`: the application, and one client for each run.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::arrange::Way;
use super::cells::{Load, Traffic};

/// Address of the application.
const ADDRESS: &str = "127.9.0.10";

/// Addresses from which many connections come: one has ports for less than 30,000 to one place.
const SOURCES: &str = "127.9.0.20,127.9.0.21,127.9.0.22,127.9.0.23";

/// The application that all arrangements lead to.
pub(crate) struct Application {
    child: Child,
    /// Where it serves HTTP/1.1.
    pub(crate) http: SocketAddr,
    /// Where it serves gRPC.
    pub(crate) grpc: SocketAddr,
    /// Where it serves bytes.
    pub(crate) tcp: SocketAddr,
}

impl Application {
    /// Starts it, and waits until it serves.
    pub(crate) fn start(program: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(["serve", "--address", ADDRESS]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line).context("the application does not talk")?;
        }
        let ports: Value = serde_json::from_str(&line).context("the application does not serve")?;
        let address = |name: &str| {
            let port = ports[name].as_u64().with_context(|| format!("the application serves no {name}"))?;
            format!("{ADDRESS}:{port}").parse().context("the application has no address")
        };
        Ok(Self { http: address("http")?, grpc: address("grpc")?, tcp: address("tcp")?, child })
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a client saw.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// Requests, messages or connections that went well; of a transfer, billions of bytes.
    pub(crate) count: f64,
    /// What did not go well.
    pub(crate) failed: u64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Latencies in microseconds: p50, p99, p99.9; none of a transfer.
    pub(crate) latencies: Option<[f64; 3]>,
    /// By how much the client itself was late at the 99th percentile, in microseconds; only at a fixed rate.
    pub(crate) late: Option<f64>,
}

/// A client whose connections stand.
pub(crate) struct Client {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Client {
    /// Starts it, and waits until all its connections were answered.
    pub(crate) fn start(program: &Path, way: &Way, traffic: &Traffic, seconds: f64) -> Result<Self> {
        Self::start_with(program, way, traffic, seconds, &[])
    }

    /// As [`Client::start`], with more arguments.
    pub(crate) fn start_with(
        program: &Path,
        way: &Way,
        traffic: &Traffic,
        seconds: f64,
        more: &[&str],
    ) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(arguments(&traffic.load)).args(["--to", &way.entry.to_string(), "--host", way.host]);
        command.args(["--connections", &traffic.connections.to_string(), "--seconds", &seconds.to_string()]);
        command.args(more).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("a client without output")?);
        let mut client = Self { child, input, output };
        ensure!(client.line()?.trim() == "ready", "a client does not get ready");
        Ok(client)
    }

    /// Lets it run, and keeps its connections.
    pub(crate) fn run(&mut self) -> Result<Seen> {
        let input = self.input.as_mut().context("a client without input")?;
        input.write_all(b"go\n").and_then(|()| input.flush()).context("a client does not listen")?;
        read(&self.line()?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("cannot read what a client says")?;
        if line.is_empty() {
            bail!("a client ended ({})", self.child.wait()?);
        }
        Ok(line)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.input = None;
        let _ = self.child.wait();
    }
}

fn arguments(load: &Load) -> Vec<String> {
    let words: &[&str] = match load {
        Load::Http { bytes } => &["http", "--bytes", &bytes.to_string()],
        Load::Paced { bytes, rate } => &["paced", "--bytes", &bytes.to_string(), "--rate", &rate.to_string()],
        Load::Calls { bytes, calls } => {
            &["grpc", "--bytes", &bytes.to_string(), "--calls", &calls.to_string()]
        }
        Load::Streams { bytes } => &["grpc", "--streaming", "--bytes", &bytes.to_string()],
        Load::Down => &["tcp"],
        Load::Up => &["tcp", "--up"],
        Load::Connect => &["connect"],
        Load::Hold { opaque: false } => &["hold", "--from", SOURCES],
        Load::Hold { opaque: true } => &["hold", "--from", SOURCES, "--opaque"],
    };
    words.iter().map(ToString::to_string).collect()
}

/// Reads a client's line of JSON.
fn read(line: &str) -> Result<Seen> {
    let told: Value = serde_json::from_str(line).context("a client says something else than JSON")?;
    let number = |name: &str| told[name].as_f64();
    let count = number("requests").or_else(|| Some(number("bytes")? / 1e9));
    let latencies = || Some([number("p50_us")?, number("p99_us")?, number("p999_us")?]);
    Ok(Seen {
        count: count.context("a client does not say what it counted")?,
        failed: told["failed"].as_u64().context("a client does not say what failed")?,
        seconds: number("seconds").context("a client does not say how long it took")?,
        latencies: latencies(),
        late: number("late_p99_us"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_says_is_read() {
        let line = r#"{"requests":10,"failed":1,"seconds":2.0,"p50_us":5.0,"p99_us":9.5,"p999_us":11.0}"#;
        let seen = read(line).expect("it is understood");
        assert_eq!((seen.count, seen.failed, seen.latencies), (10.0, 1, Some([5.0, 9.5, 11.0])));
        let seen = read(r#"{"bytes":2500000000,"failed":0,"seconds":1.0}"#).expect("it is understood");
        assert_eq!((seen.count, seen.latencies), (2.5, None));
        assert!(read("ready").is_err());
    }

    #[test]
    fn loads_are_arguments() {
        assert_eq!(arguments(&Load::Calls { bytes: 64, calls: 2 }).join(" "), "grpc --bytes 64 --calls 2");
        assert_eq!(arguments(&Load::Up).join(" "), "tcp --up");
    }
}
