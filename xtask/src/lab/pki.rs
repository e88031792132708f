//! Keys, certificates and kubeconfigs of a cluster.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use serde_json::json;

use super::place::{API, Lab};

/// Where clients reach the API server.
const SERVER: u16 = 6443;
/// What clients call it.
const NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// Makes all of them.
pub(super) fn make(lab: &Lab) -> Result<()> {
    let pki = Pki { folder: lab.pki(), server: format!("https://{}:{SERVER}", node_ip(lab)?) };
    fs::create_dir_all(&pki.folder).with_context(|| format!("cannot make {}", pki.folder.display()))?;
    let ca = pki.authority("ca")?;
    // Who may speak for others (X-Remote-User) is not who may log in.
    let front = pki.authority("front-proxy-ca")?;

    let mut names = vec![ip(Ipv4Addr::LOCALHOST), ip(API), ip(node_ip(lab)?)];
    for name in NAMES {
        names.push(dns(name)?);
    }
    pki.certificate(&ca, "apiserver", &subject("kube-apiserver", None), names)?;
    pki.certificate(&ca, "apiserver-client", &subject("apiserver-client", Some("system:masters")), vec![])?;
    pki.certificate(&front, "front-proxy", &subject("front-proxy", None), vec![])?;

    pki.client(&ca, "admin", &subject("admin", Some("system:masters")))?;
    pki.client(&ca, "coredns", &subject("coredns", None))?;
    for component in ["kube-controller-manager", "kube-scheduler", "kube-proxy"] {
        pki.client(&ca, component, &subject(&format!("system:{component}"), None))?;
    }
    for node in lab.nodes() {
        let name = node.name();
        let subject = subject(&format!("system:node:{name}"), Some("system:nodes"));
        pki.certificate(&ca, &name, &subject, vec![dns(&name)?, ip(node.ip())])?;
        pki.kubeconfig(&name)?;
    }

    let accounts = KeyPair::generate().context("cannot make a key")?;
    pki.write("service-accounts.key", &accounts.serialize_pem())?;
    pki.write("service-accounts.pub", &accounts.public_key_pem())
}

fn node_ip(lab: &Lab) -> Result<Ipv4Addr> {
    Ok(lab.nodes().first().context("a cluster without a node")?.ip())
}

type Authority = CertifiedIssuer<'static, KeyPair>;

struct Pki {
    folder: PathBuf,
    /// Where clients reach the API server.
    server: String,
}

impl Pki {
    /// A self-signed authority: NAME.crt and NAME.key.
    fn authority(&self, name: &str) -> Result<Authority> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(&format!("lab-{name}"), None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context("cannot make a key")?;
        self.write(&format!("{name}.key"), &key.serialize_pem())?;
        let authority = CertifiedIssuer::self_signed(params, key).context("cannot sign a certificate")?;
        self.write(&format!("{name}.crt"), &authority.as_ref().pem())?;
        Ok(authority)
    }

    /// A certificate for both ends of TLS: NAME.crt and NAME.key.
    fn certificate(
        &self,
        authority: &Authority,
        name: &str,
        subject: &DistinguishedName,
        names: Vec<SanType>,
    ) -> Result<()> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject.clone();
        params.subject_alt_names = names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().context("cannot make a key")?;
        let certificate = params.signed_by(&key, authority).context("cannot sign a certificate")?;
        self.write(&format!("{name}.key"), &key.serialize_pem())?;
        self.write(&format!("{name}.crt"), &certificate.pem())
    }

    /// A certificate and a kubeconfig with it.
    fn client(&self, authority: &Authority, name: &str, subject: &DistinguishedName) -> Result<()> {
        self.certificate(authority, name, subject, vec![])?;
        self.kubeconfig(name)
    }

    /// NAME.conf, which names the files of certificate and key.
    fn kubeconfig(&self, name: &str) -> Result<()> {
        let file = |name: &str| self.folder.join(name);
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": {
                "server": self.server,
                "certificate-authority": file("ca.crt"),
            }}],
            "users": [{"name": name, "user": {
                "client-certificate": file(&format!("{name}.crt")),
                "client-key": file(&format!("{name}.key")),
            }}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}],
            "current-context": "lab",
        });
        self.write(&format!("{name}.conf"), &format!("{config:#}\n"))
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        write(&self.folder.join(name), text)
    }
}

/// The folder of the lab is root's alone.
fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Kubernetes reads the user from the common name, and groups from organisations.
fn subject(user: &str, group: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(group) = group {
        name.push(DnType::OrganizationName, group);
    }
    name.push(DnType::CommonName, user);
    name
}

fn dns(name: &str) -> Result<SanType> {
    let text = Ia5String::try_from(name.to_owned()).with_context(|| format!("`{name}` is not ASCII"))?;
    Ok(SanType::DnsName(text))
}

fn ip(address: Ipv4Addr) -> SanType {
    SanType::IpAddress(IpAddr::V4(address))
}
