//! Certificates for those that have none of a controller.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::workspace;

/// What makes an ECDSA P-256 key, the kind that our controller makes.
const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/// A root, and certificates with SPIFFE IDs for both proxies.
pub(super) fn make(folder: &Path) -> Result<()> {
    let root =
        ["req", "-x509", "-days", "2", "-subj", "/CN=bench", "-keyout", "root.key", "-out", "root.pem"];
    openssl(folder, &[&root[..], &KEY].concat())?;
    for name in ["client", "server"] {
        sign(folder, name, Path::new("root"))?;
        let read = |file: String| std::fs::read(folder.join(file)).context("cannot read a certificate back");
        let both = [read(format!("{name}.pem"))?, read(format!("{name}.key"))?].concat();
        std::fs::write(folder.join(format!("{name}-both.pem")), both)
            .context("cannot write a certificate")?;
    }
    Ok(())
}

/// Makes `NAME.key`, and `NAME.pem` with the SPIFFE ID of the service account `name`, signed by `CA.pem` and `CA.key`.
///
/// The ID stands in the subject too, for HAProxy, which reads no URI names.
pub(crate) fn sign(folder: &Path, name: &str, ca: &Path) -> Result<()> {
    let (request, key_file) = (format!("{name}.csr"), format!("{name}.key"));
    let (extensions, out) = (format!("{name}.ext"), format!("{name}.pem"));
    let subject = format!(r"/CN=spiffe:\/\/cluster.local\/ns\/bench\/sa\/{name}");
    let ask = ["req", "-new", "-subj", &subject, "-keyout", &key_file, "-out", &request];
    openssl(folder, &[&ask[..], &KEY].concat())?;
    let lines = format!(
        "subjectAltName=critical,URI:spiffe://cluster.local/ns/bench/sa/{name}\n\
         keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
    );
    std::fs::write(folder.join(&extensions), lines).context("cannot write a certificate's extensions")?;
    let (ca, ca_key) = (ca.with_extension("pem"), ca.with_extension("key"));
    let (ca, ca_key) = (ca.to_string_lossy(), ca_key.to_string_lossy());
    let sign = ["x509", "-req", "-days", "1", "-CA", &ca, "-CAkey", &ca_key, "-CAserial", "serial"];
    let files = ["-CAcreateserial", "-in", &request, "-extfile", &extensions, "-out", &out];
    openssl(folder, &[&sign[..], &files].concat()).map(drop)
}

fn openssl(folder: &Path, args: &[&str]) -> Result<String> {
    let mut command = Command::new("openssl");
    workspace::output(command.args(args).current_dir(folder)).context("certificates are made by openssl")
}
