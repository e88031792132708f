//! Certificates that are issued, requests that are not answered, and an authority that survives its process.

use std::{os::unix::fs::PermissionsExt, path::PathBuf};

use mesh_core::identity::TrustDomain;
use proptest::prelude::*;
use rcgen::{BasicConstraints, KeyPair};
use x509_parser::extensions::GeneralName;

use super::*;

const LIFETIME: Duration = Duration::from_secs(24 * 3600);

fn open(dir: &Path) -> Ca {
    Ca::open(&dir.join("ca"), "cluster.local", LIFETIME).unwrap()
}

fn identity() -> SpiffeId {
    let domain: TrustDomain = "cluster.local".parse().unwrap();
    SpiffeId::service_account(&domain, "shop", "cart").unwrap()
}

fn csr(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    csr_with(&KeyPair::generate().unwrap(), change)
}

fn csr_with(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    change(&mut params);
    params.serialize_request(key).unwrap().der().to_vec()
}

#[test]
fn a_leaf_holds_the_identity_and_no_rights_beyond_it() {
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path());
    let key = KeyPair::generate().unwrap();
    let request = csr_with(&key, |params| {
        params.distinguished_name.push(DnType::CommonName, "somebody");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    });
    let leaf = ca.certify(&identity(), &request).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();

    let names = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert!(matches!(names.as_slice(), [GeneralName::URI(uri)] if *uri == identity().as_str()));
    assert_eq!(parsed.subject().iter().count(), 0, "no subject is copied");
    assert!(!parsed.basic_constraints().unwrap().unwrap().value.ca);
    let usage = parsed.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
    let extended = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.code_signing);
    assert_eq!(parsed.public_key().subject_public_key.data, key.public_key_raw());
    let life = leaf.not_after - parsed.validity().not_before.timestamp();
    assert_eq!(life, (LIFETIME + BACKDATE).as_secs() as i64);

    let (_, issuer) = x509_parser::parse_x509_certificate(&leaf.chain[1]).unwrap();
    parsed.verify_signature(Some(issuer.public_key())).unwrap();
    assert_eq!(issuer.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
    let (_, root) = x509_parser::parse_x509_certificate(ca.root()).unwrap();
    issuer.verify_signature(Some(root.public_key())).unwrap();
    let another = ca.certify(&identity(), &request).unwrap();
    assert_ne!(leaf.serial, another.serial);
}

#[test]
fn a_server_has_dns_names_and_is_no_peer() {
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path());
    let names = ["mesh-controller.mesh-system.svc".to_owned(), "x.svc.cluster.local".to_owned()];
    let (leaf, key) = ca.certify_server(&names).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&leaf.chain[0]).unwrap();
    let found = &parsed.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert!(
        matches!(found.as_slice(), [GeneralName::DNSName(a), GeneralName::DNSName(b)] if *a == names[0] && *b == names[1]),
        "{found:?}"
    );
    let extended = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && !extended.client_auth);
    assert!(!parsed.basic_constraints().unwrap().unwrap().value.ca);
    let key = KeyPair::try_from(&key).unwrap();
    assert_eq!(parsed.public_key().subject_public_key.data, key.public_key_raw());
    let (_, issuer) = x509_parser::parse_x509_certificate(&leaf.chain[1]).unwrap();
    parsed.verify_signature(Some(issuer.public_key())).unwrap();
    assert!(ca.certify_server(&["no dns name \u{e9}".to_owned()]).is_err());
}

#[test]
fn every_allowed_key_kind_works() {
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path());
    for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        ca.certify(&identity(), &csr_with(&key, |_| {})).unwrap();
    }
    let key = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    ca.certify(&identity(), &csr_with(&key, |_| {})).unwrap();
}

#[test]
fn requests_for_more_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path());
    let check = |what: &str, request: &[u8], expected: &str| {
        let error = ca.certify(&identity(), request).err().unwrap_or_else(|| panic!("{what} was accepted"));
        let shown = format!("{error:?}");
        assert!(shown.starts_with(expected), "{what}: {shown}");
    };
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());

    check("CA", &csr(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), "CaRights");
    check("keyCertSign", &csr(|p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign]), "CaRights");
    let other = "spiffe://cluster.local/ns/shop/sa/catalog";
    check("another's", &csr(|p| p.subject_alt_names = vec![uri(other)]), "OtherName");
    let two = csr(|p| p.subject_alt_names = vec![uri(identity().as_str()), uri(other)]);
    check("own and another's", &two, "OtherName");
    let dns = csr(|p| p.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())]);
    check("a DNS name", &dns, "OtherName");
    ca.certify(&identity(), &csr(|p| p.subject_alt_names = vec![uri(identity().as_str())])).unwrap();

    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    check("P-521", &csr_with(&p521, |_| {}), "Algorithm");

    let good = csr(|_| {});
    check("nothing", &[], "Malformed");
    check("garbage", &[0x30; 300], "Malformed");
    check("huge", &vec![0x30; csr::MAX_CSR_BYTES + 1], "TooLarge");
    check("trailing bytes", &[good.clone(), vec![0]].concat(), "Malformed");
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    check("wrong signature", &forged, "Signature");
    for length in 0..good.len() {
        assert!(ca.certify(&identity(), &good[..length]).is_err(), "cut at {length}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_bytes_panic_and_no_flipped_bit_yields_another_key(
        noise in proptest::collection::vec(any::<u8>(), 0..600),
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        prop_assert!(public_key(&noise, &identity()).is_err());
        let mut request = csr(|_| {});
        let good = public_key(&request, &identity()).unwrap();
        let at = at.index(request.len());
        request[at] ^= 1 << bit;
        // A few bits of the envelope are not signed and not looked at; what is used is.
        if let Ok(key) = public_key(&request, &identity()) {
            prop_assert_eq!(key, good);
        }
    }
}

#[test]
fn a_restart_finds_the_same_authority_and_a_crash_leaves_none_half_made() {
    let dir = tempfile::tempdir().unwrap();
    let staging = dir.path().join("ca.new");
    std::fs::create_dir(&staging).unwrap();
    std::fs::write(staging.join("root.key"), "half").unwrap();
    let first = open(dir.path()).root_sha256();
    assert!(!staging.exists());
    assert_eq!(open(dir.path()).root_sha256(), first);

    // A crash between the issuer's key and its certificate: a new issuer, the same root.
    let other = KeyPair::generate().unwrap().serialize_pem();
    let key_path = dir.path().join("ca/issuer.key");
    data_write(&key_path, &other);
    let ca = open(dir.path());
    assert_eq!(ca.root_sha256(), first);
    ca.certify(&identity(), &csr(|_| {})).unwrap();
}

#[test]
fn what_does_not_belong_there_is_refused_with_a_remedy() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path());
    let error = Ca::open(&dir.path().join("ca"), "other.example", LIFETIME).err().unwrap().to_string();
    assert!(error.contains("trust domain \"cluster.local\""), "{error}");

    let key: PathBuf = dir.path().join("ca/root.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = Ca::open(&dir.path().join("ca"), "cluster.local", LIFETIME).err().unwrap().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    data_write(&key, "no key");
    let error = Ca::open(&dir.path().join("ca"), "cluster.local", LIFETIME).err().unwrap().to_string();
    assert!(error.contains("root.key") && error.contains("backup"), "{error}");
}

#[tokio::test]
async fn the_issuer_is_renewed_after_two_thirds_of_its_life() {
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path());
    let now = SystemTime::now();
    let days = |days: u64| now + Duration::from_secs(days * 86_400);
    assert!(!ca.renew_issuer(days(200)).await.unwrap());
    let before = ca.certify(&identity(), &csr(|_| {})).unwrap().chain[1].clone();
    assert!(ca.renew_issuer(days(250)).await.unwrap());
    let after = ca.certify(&identity(), &csr(|_| {})).unwrap().chain[1].clone();
    assert_ne!(before, after);
    let half = renew_after(unix(now) + 1000, now).as_secs();
    assert!((440..=560).contains(&half), "{half}");
}

fn data_write(path: &Path, text: &str) {
    crate::data_dir::write_atomic(path, crate::data_dir::PRIVATE, text.as_bytes()).unwrap();
}
