//! Metadata, Namespace, ServiceAccount and Service.

use mesh_core::policy::{DefaultAction, TlsMode};

use super::{check, check_refused, parse};
use crate::object::{Object, PortName};

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop, uid: x, resourceVersion: '7', creationTimestamp: null}
spec:
  type: ClusterIP
  selector: {app: cart}
  ports:
  - {name: grpc, port: 80, targetPort: 8080, appProtocol: grpc, protocol: TCP}
  - {name: admin, port: 81, targetPort: admin}
  clusterIP: 10.0.0.1
status: {loadBalancer: {}}
";

#[test]
fn a_service() {
    check(SERVICE, &["Service shop/cart"], &[]);
    let (found, ..) = parse("f", SERVICE);
    let Object::Service(service) = &found[0].object else { panic!("a Service") };
    assert_eq!(service.ports[0].target, PortName::Number(8080));
    assert_eq!(service.ports[1].target, PortName::Name("admin".to_owned()));
    assert_eq!(service.ports[1].line, 9);
    assert_eq!(service.cluster_ips.len(), 1);
}

#[test]
fn mistakes_in_a_service_have_line_field_and_remedy() {
    let bad =
        |part: &str, replacement: &str, problem: &str| check_refused(SERVICE, part, replacement, problem);
    bad("selector:", "selectr:", "!6 spec.selectr: did you mean \"selector\"?");
    bad("{app: cart}", "{app: 7}", "!6 spec.selector[app]: 7 is not text; put it in quotes");
    bad("{app: cart}", "[app]", "!6 spec.selector: a list is not a mapping");
    bad(
        "{app: cart}",
        "{app: cart, app: b}",
        "!6 spec.selector.app: the field is there twice, first in line 6",
    );
    bad("port: 81", "port: 0", "!9 spec.ports[1].port: 0 is not a port number (1 to 65535)");
    bad("port: 81", "port: 65536", "!9 spec.ports[1].port: 65536 is not a port number");
    bad("port: 81", "port: '81'", "!9 spec.ports[1].port: remove the quotes");
    bad("port: 81", "prt: 81", "!9 spec.ports[1].prt: did you mean \"port\"?");
    bad("port: 81, ", "", "!9 spec.ports[1].port: the field is missing");
    bad("port: 81", "port: 80", "!9 spec.ports[1].port: port 80 is there twice, first in line 8");
    bad("name: admin", "name: grpc", "!9 spec.ports[1].name: name grpc is there twice");
    bad("name: admin, ", "", "!9 spec.ports[1].name: give every port a name");
    bad("targetPort: 8080", "targetPort: '8080'", "!8 spec.ports[0].targetPort: remove the quotes");
    bad("TCP", "TPC", "!8 spec.ports[0].protocol: did you mean \"TCP\"?");
    bad("10.0.0.1", "nowhere", "!10 spec.clusterIP: \"nowhere\" is not an IP address");
    bad("ClusterIP\n", "ExternalName\n", "!5 spec.type: ExternalName is not supported yet");
    bad("name: cart,", "name: Cart,", "!3 metadata.name: use a-z");
    bad("namespace: shop", "namespace: shop.x", "!3 metadata.namespace: is not a namespace");
    bad("uid: x", "colour: x", "!3 metadata.colour: the field is unknown");
    bad("status:", "sttus:", "!11 sttus: the field is unknown");
}

#[test]
fn all_mistakes_are_told_at_once() {
    let bad = SERVICE
        .replace("selector:", "selectr:")
        .replace("port: 81", "port: 0")
        .replace("name: cart,", "name: '',");
    check(
        &bad,
        &[],
        &[
            "!3 metadata.name: \"\" is not a name",
            "!9 spec.ports[1].port: 0 is not",
            "!6 spec.selectr: did you mean",
        ],
    );
}

#[test]
fn what_a_service_can_live_with() {
    check(
        &SERVICE.replace("appProtocol: grpc", "appProtocol: grcp"),
        &["Service shop/cart"],
        &["8 spec.ports[0].appProtocol: it counts as undeclared"],
    );
    check(
        &SERVICE.replace("targetPort: admin", "protocol: UDP"),
        &["Service shop/cart"],
        &["9 spec.ports[1].protocol: the mesh carries TCP only"],
    );
    check(&SERVICE.replace("10.0.0.1", "None"), &["Service shop/cart"], &[]);
}

#[test]
fn options_of_a_namespace() {
    let namespace =
        |metadata: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n{metadata}");
    let (found, ..) = parse(
        "f",
        &namespace(
            "  labels: {meshctl.dev/mtls: strict}\n  annotations: {meshctl.dev/default-policy: smi}\n",
        ),
    );
    let Object::Namespace(found) = &found[0].object else { panic!("a Namespace") };
    assert_eq!((found.default_policy, found.mtls), (Some(DefaultAction::Smi), Some(TlsMode::Strict)));
    let bad = |metadata: &str, problem: &str| check(&namespace(metadata), &[], &[problem]);
    bad(
        "  labels: {meshctl.dev/mtls: stict}\n",
        "!5 metadata.labels[meshctl.dev/mtls]: did you mean \"strict\"?",
    );
    bad(
        "  labels: {meshctl.dev/mtsl: strict}\n",
        "!5 metadata.labels[meshctl.dev/mtsl]: the option is unknown",
    );
    bad("  labels: {meshctl.dev/mtls: true}\n", "!5 metadata.labels[meshctl.dev/mtls]: true is not text");
    bad(
        "  labels: {meshctl.dev/mtls: strict}\n  annotations: {meshctl.dev/mtls: permissive}\n",
        "!6 metadata.annotations[meshctl.dev/mtls]: say different things",
    );
    bad("  namespace: x\n", "!5 metadata.namespace: a Namespace lies in no namespace");
}

#[test]
fn options_without_effect_are_refused() {
    let bad = SERVICE.replace("uid: x", "annotations: {meshctl.dev/default-policy: deny}");
    check(&bad, &[], &["!3 metadata.annotations[meshctl.dev/default-policy]: has no effect on a Service"]);
}

#[test]
fn the_controllers_account_is_reserved() {
    let account = |namespace: &str| {
        format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: mesh-controller, namespace: {namespace}}}\n"
        )
    };
    check(&account("mesh-system"), &[], &["!1 metadata.name: the controller's own identity"]);
    check(&account("shop"), &["ServiceAccount shop/mesh-controller"], &[]);
}
