//! ExternalService.

use super::{check, check_refused};

const EXTERNAL: &str = "apiVersion: meshctl.dev/v1alpha1
kind: ExternalService
metadata: {name: payments, namespace: shop}
spec:
  hosts: [api.payments.example]
  ports: [{name: http, port: 80, appProtocol: http}, {name: https, port: 443, targetPort: 8443, appProtocol: https}]
  addresses: [203.0.113.7, '2001:db8::1']
";

#[test]
fn an_external_service() {
    check(EXTERNAL, &["ExternalService shop/payments"], &[]);
    check(&EXTERNAL.replace("  addresses", "  status"), &[], &["!7 spec.status: is unknown"]);
}

#[test]
fn mistakes_in_an_external_service() {
    let bad =
        |part: &str, replacement: &str, problem: &str| check_refused(EXTERNAL, part, replacement, problem);
    bad("name: payments", "name: pay.ments", "!3 metadata.name: 63 characters");
    bad("[api.payments.example]", "[]", "!5 spec.hosts: the field is empty");
    for host in ["api", "'*.example.com'", "a.example:80", "203.0.113.7", "a b.example", "https://a.example"]
    {
        bad("api.payments.example", host, "!5 spec.hosts[0]: a host outside of the mesh");
    }
    bad("[api.payments.example]", "[a.example, A.example.]", "!5 spec.hosts[1].host: is there twice");
    bad("port: 443", "port: 80", "!6 spec.ports[1].port: is there twice");
    bad("targetPort: 8443", "targetPort: web", "!6 spec.ports[1].targetPort: write its number");
    bad("203.0.113.7", "0.0.0.0", "!7 spec.addresses[0]: can be dialled");
}
