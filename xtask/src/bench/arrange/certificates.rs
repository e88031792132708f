//! Certificates for those pairs that have no controller.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::workspace;

/// A root, and certificates with SPIFFE IDs for both proxies, of the kind that our controller makes: ECDSA P-256.
///
/// The ID stands in the subject too, for HAProxy, which reads no URI names.
pub(super) fn make(folder: &Path) -> Result<()> {
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
        let subject = format!(r"/CN=spiffe:\/\/cluster.local\/ns\/bench\/sa\/{name}");
        let mut ask = vec!["req", "-new", "-subj", &subject, "-keyout", &key_file, "-out", &request];
        ask.extend(key);
        openssl(&ask)?;
        let lines = format!(
            "subjectAltName=critical,URI:spiffe://cluster.local/ns/bench/sa/{name}\n\
             keyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n"
        );
        std::fs::write(folder.join(&extensions), lines).context("cannot write a certificate's extensions")?;
        let sign = ["x509", "-req", "-days", "1", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial"];
        openssl(&[&sign[..], &["-in", &request, "-extfile", &extensions, "-out", &out]].concat())?;
        let read = |file: &str| std::fs::read(folder.join(file)).context("cannot read a certificate back");
        let both = [read(&out)?, read(&key_file)?].concat();
        std::fs::write(folder.join(format!("{name}-both.pem")), both)
            .context("cannot write a certificate")?;
    }
    Ok(())
}
