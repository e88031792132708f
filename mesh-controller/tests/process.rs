//! The binary: signals, crashes, and what it says when it cannot start.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-controller"));
    fs::create_dir_all(dir.join("source")).unwrap();
    let any = "127.0.0.1:0";
    command
        .args(["run", "--listen", any, "--view", any, "--health", any])
        .arg("--source")
        .arg(dir.join("source"))
        .arg("--data-dir")
        .arg(dir.join("data"))
        .stderr(Stdio::null());
    command
}

fn wait_ready(dir: &Path, child: &mut Child) {
    let begin = Instant::now();
    while !dir.join("data/controller.json").exists() {
        assert!(begin.elapsed() < Duration::from_secs(20), "not ready in time");
        assert_eq!(child.try_wait().unwrap(), None, "it stopped");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn terminate(mut child: Child) -> std::process::ExitStatus {
    let pid = child.id().to_string();
    Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    child.wait().unwrap()
}

#[test]
fn killed_during_its_first_start_at_any_moment_it_starts_again() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..25 {
        let dir = dir.path().join(round.to_string());
        let mut child = command(&dir).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(round * 900));
        child.kill().unwrap();
        child.wait().unwrap();

        let authority = fs::read(dir.join("data/ca/root.pem"));
        let mut child = command(&dir).spawn().unwrap();
        // A killed controller may have left its status file: wait for the new one.
        let pid = format!("\"pid\":{}", child.id());
        let begin = Instant::now();
        while !fs::read_to_string(dir.join("data/controller.json")).is_ok_and(|s| s.contains(&pid)) {
            assert!(begin.elapsed() < Duration::from_secs(20), "round {round}: not ready in time");
            assert_eq!(child.try_wait().unwrap(), None, "round {round}: it stopped");
            std::thread::sleep(Duration::from_millis(2));
        }
        if let Ok(authority) = authority {
            assert_eq!(fs::read(dir.join("data/ca/root.pem")).unwrap(), authority, "round {round}");
        }
        for file in ["ca/root.key", "ca/issuer.key", "view-token"] {
            let mode = fs::metadata(dir.join("data").join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        assert!(terminate(child).success());
        assert!(!dir.join("data/controller.json").exists());
    }
}

#[test]
fn what_keeps_it_from_starting_is_said_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let says = |extra: &[&str], wanted: &[&str]| {
        let output = command(dir).args(extra).stderr(Stdio::piped()).output().unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        for wanted in wanted {
            assert!(text.contains(wanted), "{wanted:?} is not in {text}");
        }
    };
    says(&["--view", "0.0.0.0:0"], &["--view", "loopback"]);
    says(&["--leaf-lifetime", "1s"], &["--leaf-lifetime", "10s"]);
    says(&["--leaf-lifetime", "soon"], &["24h"]);

    let mut child = command(dir).spawn().unwrap();
    wait_ready(dir, &mut child);
    let pid = child.id().to_string();
    says(&[], &["another mesh-controller", &pid, "--data-dir"]);
    assert!(terminate(child).success());

    says(&["--trust-domain", "other.example"], &["trust domain", "cluster.local"]);
    let key = dir.join("data/ca/root.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    says(&[], &["root.key", "chmod 600"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(dir.join("data"), fs::Permissions::from_mode(0o755)).unwrap();
    says(&[], &["chmod 700"]);
    fs::set_permissions(dir.join("data"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_dir_all(dir.join("source")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mesh-controller"))
        .args(["run", "--source"])
        .arg(dir.join("nowhere"))
        .arg("--data-dir")
        .arg(dir.join("data"))
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("--source"));
}
