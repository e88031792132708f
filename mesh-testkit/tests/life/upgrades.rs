//! The binary is replaced under load: nothing fails, nothing is left behind, and a bad binary changes nothing.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use crate::{
    common::{PATIENCE, Sidecar, binary, eventually, get},
    load::Load,
    stage::{Stage, echoes, is_ready, signal_to},
};

/// Processes that the test did not start itself, but caused to start.
#[derive(Default)]
struct Successors(Vec<u32>);

impl Drop for Successors {
    fn drop(&mut self) {
        for pid in self.0.iter().filter(|pid| runs(**pid)) {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    }
}

/// Whether a process runs; one that nobody has waited for yet does not.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// Process id and generation of the proxy that answers at the admin port.
async fn answers(sidecar: &Sidecar) -> Option<(u32, u64)> {
    let reply = get(sidecar.at(mesh_core::ports::ADMIN), "localhost", "/status").await?;
    let status: serde_json::Value = serde_json::from_slice(&reply.body).ok()?;
    Some((u32::try_from(status["pid"].as_u64()?).ok()?, status["generation"].as_u64()?))
}

async fn upgrade(socket: &Path, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(binary("mesh-proxy"));
    command.args(["upgrade", "--admin-socket"]).arg(socket).args(arguments);
    command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("mesh-proxy")
}

#[tokio::test]
async fn five_upgrades_of_each_side_lose_nothing() {
    let mut stage = Stage::start().await;
    let copy = stage.mesh.path("another-binary");
    fs::copy(binary("mesh-proxy"), &copy).expect("a copy");
    let mut successors = Successors::default();
    let mut long = Vec::new();
    let load = Load::start(stage.client.outbound(), 4);
    for round in 0..5 {
        let mut stream = stage.bytes().await;
        assert!(echoes(&mut stream).await, "round {round}");
        long.push(stream);
        for (name, sidecar) in [("client", &stage.client), ("catalog", &stage.server)] {
            let (before, generation) = answers(sidecar).await.expect("status");
            let requests = load.requests();
            if round == 3 {
                signal_to(before, "USR2");
            } else {
                let with = copy.to_string_lossy();
                let arguments: &[&str] = if round == 2 { &["--binary", &with] } else { &[] };
                let output = upgrade(&stage.socket(name), arguments).await;
                assert!(
                    output.status.success(),
                    "round {round}, {name}: {output:?}\n{}",
                    sidecar.process.log()
                );
            }
            let taken = async || answers(sidecar).await.is_some_and(|(_, now)| now == generation + 1);
            assert!(eventually(PATIENCE, taken).await, "round {round}, {name}:\n{}", sidecar.process.log());
            successors.0.push(answers(sidecar).await.expect("status").0);
            assert!(is_ready(sidecar).await, "round {round}, {name}");
            let served = async || load.requests() > requests + 100;
            assert!(eventually(PATIENCE, served).await, "round {round}, {name}: nothing is served");
            for stream in &mut long {
                assert!(echoes(stream).await, "round {round}, {name}: what ran does not go on");
            }
        }
    }
    let failed = load.stop().await;
    assert!(failed.is_empty(), "{failed:?}");
    // What held the old ones was bytes.
    assert!(stage.client.process.is_running());
    drop(long);
    let (client, server) = (&mut stage.client, &mut stage.server);
    for sidecar in [client, server] {
        assert!(sidecar.process.ended_within(PATIENCE).await, "the first stays:\n{}", sidecar.process.log());
    }
    let newest =
        [answers(&stage.client).await.expect("status").0, answers(&stage.server).await.expect("status").0];
    let gone = async || successors.0.iter().filter(|pid| runs(**pid)).copied().eq(newest);
    assert!(eventually(PATIENCE, gone).await, "{:?} without {newest:?}", successors.0);
    assert_eq!(stage.client.get("catalog", "/").await.status, http::StatusCode::OK);
    // The last ones end as any proxy does.
    for name in ["client", "catalog"] {
        assert!(stage.tell(name, "quit").await.status.success());
    }
    let none = async || !successors.0.iter().any(|pid| runs(*pid));
    assert!(eventually(PATIENCE, none).await, "{:?}", successors.0);
}

fn script(path: PathBuf, text: &[u8]) -> PathBuf {
    fs::write(&path, text).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    path
}

#[tokio::test]
async fn a_binary_that_fails_changes_nothing() {
    let mut stage = Stage::start().await;
    let load = Load::start(stage.client.outbound(), 2);
    let before = answers(&stage.client).await.expect("status");
    let pid_file = stage.mesh.path("pid");
    let hangs = format!("#!/bin/sh\necho $$ > {}\nexec sleep 600\n", pid_file.display());
    let cases: [(&str, &[u8], &str); 4] = [
        ("exits", b"#!/bin/sh\nexit 3\n", "exit status: 3"),
        ("hangs", hangs.as_bytes(), "was not ready within 700ms"),
        ("closes", b"#!/bin/sh\nexec sleep 600 <&-\n", "ended before it was ready"),
        ("garbage", b"\x7fELF and nothing else", "cannot start"),
    ];
    for (name, text, expected) in cases {
        let binary = script(stage.mesh.path(name), text);
        let arguments = ["--within", "700ms", "--binary", &binary.to_string_lossy()];
        let output = upgrade(&stage.socket("client"), &arguments).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{name}: {said}");
        assert_eq!(answers(&stage.client).await, Some(before), "{name}");
        assert!(is_ready(&stage.client).await, "{name}");
    }
    let hung: u32 = fs::read_to_string(pid_file).expect("it started").trim().parse().expect("a pid");
    assert!(!runs(hung), "what hangs is killed");
    // The right binary, at a moment at which it cannot become ready: it says what is missing.
    stage.mesh.kill_controller();
    let output = upgrade(&stage.socket("client"), &["--within", "1500ms"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("no configuration yet for workload test/client"),
        "{said}"
    );
    assert_eq!(answers(&stage.client).await, Some(before));
    let output = upgrade(&stage.socket("client"), &["--binary", "/nonexistent"]).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("a file that is there"), "{output:?}");
    let failed = load.stop().await;
    assert!(failed.is_empty(), "{failed:?}");
}

/// The service manager hears when the proxy is ready, which process is the main one, and that it ends.
#[tokio::test]
async fn the_service_manager_follows_the_main_process() {
    let mut stage = Stage::start().await;
    stage.client.process.kill();
    let path = stage.mesh.path("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let heard = || {
        let mut heard = [0; 256];
        let length = manager.recv(&mut heard).expect("a datagram");
        String::from_utf8_lossy(&heard[..length]).trim().to_owned()
    };
    let ip = stage.client.outbound().ip();
    let mut command = stage.mesh.proxy_command("test/client", "client", ip);
    command.arg("--admin-socket").arg(stage.socket("client")).env("NOTIFY_SOCKET", &path);
    stage.client = stage.mesh.sidecar(command, "test/client", ip);
    assert_eq!(heard(), "READY=1");
    stage.client.await_ready().await;
    let output = upgrade(&stage.socket("client"), &[]).await;
    assert!(output.status.success(), "{output:?}");
    let (pid, _) = answers(&stage.client).await.expect("status");
    let _successors = Successors(vec![pid]);
    let both = [heard(), heard()];
    assert!(both.contains(&format!("MAINPID={pid}")), "{both:?}");
    assert!(both.contains(&"READY=1".to_owned()), "{both:?}");
    assert!(stage.client.process.ended_within(PATIENCE).await, "the first one stays");
    signal_to(pid, "TERM");
    assert_eq!(heard(), "STOPPING=1");
    assert!(eventually(PATIENCE, async || !runs(pid)).await);
}
