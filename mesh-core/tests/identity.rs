//! Properties of SPIFFE IDs and of hosts as applications write them.

use mesh_core::{
    identity::{IdentityError, SpiffeId, TrustDomain},
    name::{Host, ServicePort, WorkloadRef},
    resource::ResourceName,
};
use proptest::prelude::*;

fn parse(text: &str) -> Result<SpiffeId, IdentityError> {
    text.parse()
}

proptest! {
    #[test]
    fn ids_print_as_they_were_read(domain in "[a-z0-9._-]{1,40}", path in "[A-Za-z0-9_-]{1,9}(/[A-Za-z0-9._-]{1,9}x){0,4}") {
        let text = format!("spiffe://{domain}/{path}");
        let id = parse(&text)?;
        prop_assert_eq!(id.to_string(), &*text);
        prop_assert_eq!(id.trust_domain(), domain);
        prop_assert_eq!(id.path(), format!("/{path}"));
    }

    #[test]
    fn service_accounts_come_back(namespace in "[a-z0-9-]{1,20}", account in "[a-z0-9.-]{0,20}x") {
        let domain: TrustDomain = "cluster.local".parse()?;
        let id = SpiffeId::service_account(&domain, &namespace, &account)?;
        prop_assert_eq!(id.namespace_and_account(), Some((&*namespace, &*account)));
        prop_assert!(!id.is_controller());
        prop_assert_eq!(parse(id.as_str())?, id);
    }

    /// Whatever is put into a name, no other name and not the controller's comes out.
    #[test]
    fn no_text_escapes_its_segment(namespace in "\\PC{0,20}", account in "\\PC{0,20}") {
        let domain: TrustDomain = "cluster.local".parse()?;
        if let Ok(id) = SpiffeId::service_account(&domain, &namespace, &account) {
            let parts = id.namespace_and_account();
            // "a/sa/b" can be read in one way only: names do not hold slashes.
            prop_assert!(parts.is_none() || parts == Some((&*namespace, &*account)));
        }
    }

    #[test]
    fn noise_never_panics(text in "\\PC{0,60}") {
        for text in [text.clone(), format!("spiffe://{text}"), format!("spiffe://a/{text}")] {
            if let Ok(id) = parse(&text) {
                prop_assert_eq!(id.as_str(), text);
            }
        }
    }

    #[test]
    fn names_print_as_they_were_read(ns in "[a-z]([a-z0-9-]{0,9}[a-z0-9])?", name in "[a-z]([a-z0-9-]{0,9}[a-z0-9])?", port in 1_u16..) {
        let service = ServicePort::new(&ns, &name, port);
        prop_assert_eq!(&service.to_string().parse::<ServicePort>()?, &service);
        let workload = WorkloadRef::new(&ns, &name);
        prop_assert_eq!(&workload.to_string().parse::<WorkloadRef>()?, &workload);
        for text in [format!("endpoints/{service}"), format!("destination/host/{name}.{ns}:{port}"),
                     format!("destination/addr/10.0.0.1:{port}"), format!("destination/addr/[::1]:{port}")] {
            prop_assert_eq!(text.parse::<ResourceName>()?.to_string(), text);
        }
    }

    /// All ways to write one Service name it, from its own namespace; with its namespace, from any.
    #[test]
    fn hosts_name_services(svc in "[a-z]([a-z0-9-]{0,9}[a-z0-9])?", ns in "[a-z]([a-z0-9-]{0,9}[a-z0-9])?", port in proptest::option::of(1_u16..)) {
        prop_assume!(ns != "svc");
        let suffix = port.map(|p| format!(":{p}")).unwrap_or_default();
        for (written, from) in [
            (svc.clone(), &*ns), (format!("{svc}."), &*ns), (svc.to_uppercase(), &*ns),
            (format!("{svc}.{ns}"), "elsewhere"), (format!("{svc}.{ns}.svc"), "elsewhere"),
            (format!("{svc}.{ns}.svc.mesh.test"), "elsewhere"), (format!("{svc}.{ns}.svc.mesh.test."), "elsewhere"),
        ] {
            let host: Host = format!("{written}{suffix}").parse()?;
            prop_assert_eq!(host.port, port);
            prop_assert_eq!(host.service(from, "mesh.test"), Some((&*ns, &*svc)), "{}", written);
            prop_assert_eq!(host.to_string().parse::<Host>()?, host);
        }
    }
}

#[test]
fn what_is_no_id() {
    use IdentityError::{Path, Scheme, TooLong, TrustDomain};
    let long = format!("spiffe://a/{}", "b".repeat(2048));
    let long_domain = format!("spiffe://{}/b", "a".repeat(256));
    for (text, error) in [
        ("", Scheme),
        ("https://a/b", Scheme),
        ("SPIFFE://a/b", Scheme),
        ("spiffe:/a/b", Scheme),
        ("spiffe://", Path),
        ("spiffe://a", Path),
        ("spiffe:///b", TrustDomain),
        ("spiffe://A/b", TrustDomain),
        ("spiffe://a:1/b", TrustDomain),
        ("spiffe://u@a/b", TrustDomain),
        ("spiffe://a/", Path),
        ("spiffe://a/b/", Path),
        ("spiffe://a//b", Path),
        ("spiffe://a/./b", Path),
        ("spiffe://a/b/..", Path),
        ("spiffe://a/b%20", Path),
        ("spiffe://a/b?c", Path),
        ("spiffe://a/b#c", Path),
        ("spiffe://a/b c", Path),
        ("spiffe://a/ü", Path),
        ("spiffe://a/b\n", Path),
        (&long, TooLong),
        (&long_domain, TooLong),
    ] {
        assert_eq!(parse(text), Err(error), "{text}");
    }
}

#[test]
fn the_controller_is_told_by_its_name() {
    let check = |text: &str, is: bool| assert_eq!(parse(text).map(|id| id.is_controller()), Ok(is), "{text}");
    check("spiffe://a/ns/mesh-system/sa/mesh-controller", true);
    check("spiffe://a/ns/mesh-system/sa/mesh-controller2", false);
    check("spiffe://a/ns/mesh-system/sa/x/sa/mesh-controller", false);
    check("spiffe://a/x/ns/mesh-system/sa/mesh-controller", false);
    let domain: TrustDomain = "a".parse().expect("valid");
    assert!(SpiffeId::controller(&domain).is_controller());
    assert_eq!(parse(SpiffeId::controller(&domain).as_str()), Ok(SpiffeId::controller(&domain)));
}

#[test]
fn hosts_that_name_nothing() {
    for text in [
        "", ":80", "a:", "a:0", "a:65536", "a:+80", "a b", "a..b", "-a", "a_b", ".a", "[::1]:80", "a/b",
        "a@b",
    ] {
        assert!(text.parse::<Host>().is_err(), "{text}");
    }
    for text in
        ["a.b.c", "a.b.svc.other.domain", "a.svc", "a.svc.mesh.test", "mesh.test.x.y", "a.b.c.svc.mesh.test"]
    {
        let host: Host = text.parse().expect("a host");
        let named = host.service("ns", "mesh.test");
        // "a.svc" can only mean: Service "a" in a namespace of that name, which the mesh does not guess.
        assert_eq!(named, None, "{text}");
    }
}
