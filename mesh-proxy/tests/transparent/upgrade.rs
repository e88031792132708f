//! The binaries are replaced while redirected connections come: the rules stay as they are, and no call fails.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{ChildStdout, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::{Namespace, SERVICE, SERVICE_V6, ask};

/// Upgrades of each proxy.
const ROUNDS: usize = 2;

/// Replaces both proxies again and again under calls of an application in `a`, which knows nothing of it.
pub(crate) fn under_load(a: &Namespace, b: &Namespace, sockets: &Path, as_nobody: &[&str]) {
    let mut command = a.again("load", as_nobody);
    let mut load = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut calls = Calls(BufReader::new(load.stdout.take().unwrap()));
    calls.go_on();
    let successors = Successors { sockets, of: [("client", a), ("server", b)] };
    for round in 0..ROUNDS {
        for (name, namespace) in successors.of {
            let outcome = tell(namespace, sockets, name, "upgrade");
            assert!(
                outcome.status.success(),
                "{round}: {name}: {}",
                String::from_utf8_lossy(&outcome.stderr)
            );
            calls.go_on();
        }
    }
    drop(load.stdin.take());
    let mut rest = String::new();
    calls.0.read_to_string(&mut rest).unwrap();
    assert!(load.wait().unwrap().success(), "a call failed: {rest}");
}

fn tell(namespace: &Namespace, sockets: &Path, name: &str, command: &str) -> std::process::Output {
    let mut proxy: Command = namespace.enter(&[]);
    proxy.args([env!("CARGO_BIN_EXE_mesh-proxy"), command, "--admin-socket"]);
    proxy.arg(sockets.join(format!("{name}.sock"))).output().unwrap()
}

/// The last proxies, which the test did not start itself.
struct Successors<'a> {
    sockets: &'a Path,
    of: [(&'a str, &'a Namespace); 2],
}

impl Drop for Successors<'_> {
    fn drop(&mut self) {
        for (name, namespace) in self.of {
            tell(namespace, self.sockets, name, "quit");
        }
    }
}

/// What the application says of its calls.
struct Calls(BufReader<ChildStdout>);

impl Calls {
    /// Waits until many more were answered.
    fn go_on(&mut self) {
        let mut seen = 0;
        while seen < 3 {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the application ended");
            seen += usize::from(line.starts_with("answered"));
        }
    }
}

/// The application: calls until standard input ends, and one connection that lasts.
pub(crate) fn load() {
    static STOP: AtomicBool = AtomicBool::new(false);
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        STOP.store(true, Ordering::Relaxed);
    });
    let mut lasting = TcpStream::connect("10.99.2.1:9000").unwrap();
    lasting.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut said = [0; 8];
    lasting.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"220 hi\r\n");
    let mut calls = 0;
    while !STOP.load(Ordering::Relaxed) {
        for service in [SERVICE, SERVICE_V6] {
            let answer = ask(service, "/load").unwrap_or_else(|| panic!("no answer to call {calls}"));
            assert!(answer.starts_with("HTTP/1.1 200"), "call {calls}: {answer}");
            calls += 1;
        }
        if calls % 10 == 0 {
            lasting.write_all(b"hello").unwrap();
            let mut back = [0; 5];
            lasting.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"hello", "what was open goes on");
            println!("answered {calls}");
        }
    }
}
