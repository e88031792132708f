//! Every help text.

use crate::support::run;

/// Flags of all commands: they stand in full in the first test.
const COMMON: &str = "\
Controller:
      --data-dir <DIR>          Data directory of a controller on this machine [default:
                                ~/.local/state/mesh] [env: MESH_DATA_DIR]
      --view <IP:PORT>          Address of the view API, instead of what the data directory says
                                [env: MESH_VIEW]
      --view-token-file <FILE>  File that holds the view API's token [default: view-token in the
                                data directory] [env: MESH_VIEW_TOKEN_FILE]
      --timeout <TIME>          How long to wait for each answer [default: 5s]

Cluster:
      --kubeconfig <FILE>  File that says how to reach clusters [default: KUBECONFIG, else
                           ~/.kube/config]
      --context <NAME>     Which of its contexts [default: the current one]

Output:
  -o, --output <FORM>  Form of the answer [default: table] [possible values: table, json, yaml]
  -q, --quiet          Only what was asked for: no hints, no remarks
  -v, --verbose        Say more
";

#[track_caller]
pub(crate) fn shows(args: &[&str], expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), args);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    let expected = expected.strip_prefix('\n').unwrap_or(expected).replace("{COMMON}", COMMON);
    assert!(text == expected, "--- got\n{text}\n--- wanted\n{expected}\n---");
}

#[test]
fn meshctl() {
    shows(
        &["--help"],
        r#"
Looks at a running service mesh, checks it, and tries it out

Usage: meshctl [OPTIONS] <COMMAND>

Commands:
  check           Check that the mesh is well, and say what to do where it is not
  status          Show the controller, its objects and its proxies at a glance
  inspect         Show what the mesh thinks of a workload, a Service, an account, a pod or a node
  proxy-config    Show what a proxy really has
  logs            Show the log of the controllers, or of a pod's sidecar
  stat            Show traffic per Service, workload or service account
  edges           Show who calls whom
  wait            Wait until all proxies have the newest configuration
  support-bundle  Collect what helps to find out what is wrong in a cluster, without secrets
  inject          Put a proxy into the pods of Kubernetes YAML, as the controller's webhook does
  uninject        Take it out again
  install         Put the mesh into a Kubernetes cluster, and wait until it is ready
  upgrade         Bring the mesh in a cluster to this meshctl's version, and back if that fails
  uninstall       Take the mesh out of a cluster, without a trace
  demo            Try the whole mesh on this machine, without root
  completion      Print a completion script for a shell
  version         Print the versions of meshctl, of the controller and of proxies

Options:
  -h, --help     Print help
  -V, --version  Print version

Controller:
      --data-dir <DIR>          Data directory of a controller on this machine [default:
                                ~/.local/state/mesh] [env: MESH_DATA_DIR]
      --view <IP:PORT>          Address of the view API, instead of what the data directory says
                                [env: MESH_VIEW]
      --view-token-file <FILE>  File that holds the view API's token [default: view-token in the
                                data directory] [env: MESH_VIEW_TOKEN_FILE]
      --timeout <TIME>          How long to wait for each answer [default: 5s]

Cluster:
      --kubeconfig <FILE>  File that says how to reach clusters [default: KUBECONFIG, else
                           ~/.kube/config]
      --context <NAME>     Which of its contexts [default: the current one]

Output:
  -o, --output <FORM>  Form of the answer [default: table] [possible values: table, json, yaml]
  -q, --quiet          Only what was asked for: no hints, no remarks
  -v, --verbose        Say more

Examples:
  meshctl demo                      Try the whole mesh on this machine
  meshctl check                     Is anything wrong?
  meshctl edges                     Who calls whom, how well, and is it encrypted?
  meshctl inspect workload cart     What does the mesh think of it?
  meshctl install                   Put it into the cluster of the current context

Exit codes: 0 all is well; 1 what was checked is not well; 2 wrong usage, or it cannot be told.
"#,
    );
}

#[test]
fn check() {
    shows(
        &["check", "--help"],
        r#"
Check that the mesh is well, and say what to do where it is not

Usage: meshctl check [OPTIONS]

Options:
  -h, --help                   Print help
      --pre                    Check whether the mesh can be installed in the cluster
      --proxy                  Also ask each proxy in the cluster: connected, age of its
                               configuration, identity
      --source <DIR>           Check the YAML files of this directory instead of the running mesh
      --trust-domain <NAME>    Trust domain of the mesh that the files are for [default:
                               cluster.local]
      --cluster-domain <NAME>  DNS domain after `svc` in the names of its Services [default:
                               cluster.local]

{COMMON}
Examples:
  meshctl check                     The running mesh
  meshctl check --pre               Can it be installed in this cluster?
  meshctl check --proxy             Also ask every proxy in the cluster
  meshctl check --source ./mesh     Only the YAML in a directory; needs no controller
  meshctl check -o json             All checks, for a program

Exit codes: 0 no check failed (warnings are allowed); 1 a check failed; 2 it cannot be told.
"#,
    );
}

#[test]
fn status() {
    shows(
        &["status", "--help"],
        r#"
Show the controller, its objects and its proxies at a glance

Usage: meshctl status [OPTIONS]

Options:
  -h, --help  Print help

{COMMON}
Example:
  meshctl status -o json
"#,
    );
}

#[test]
fn inspect() {
    shows(
        &["inspect", "--help"],
        r#"
Show what the mesh thinks of a workload, a Service, an account, a pod or a node

Usage: meshctl inspect [OPTIONS] <KIND> <NAME>

Arguments:
  <KIND>  What kind of thing
  <NAME>  Its name, or NAMESPACE/NAME

Options:
  -h, --help                   Print help
  -n, --namespace <NAMESPACE>  Its namespace; needed only when the name exists in several
      --window <TIME>          How far back to look for its calls [default: 30s]

{COMMON}
Kinds: workload (wl), service (svc), serviceaccount (sa); in a cluster also pod (po),
deployment (deploy), statefulset (sts), daemonset (ds), namespace (ns), node (no).

Examples:
  meshctl inspect workload cart
  meshctl inspect svc catalog -n shop
  meshctl inspect sa shop/storefront
  meshctl inspect pod shop/cart-7d4b9-x2x1       Is it in the mesh, and if not, why?
  meshctl inspect deploy cart -n shop
"#,
    );
}

#[test]
fn stat() {
    shows(
        &["stat", "--help"],
        r#"
Show traffic per Service, workload or service account

Usage: meshctl stat [OPTIONS] [KIND] [NAME]

Arguments:
  [KIND]  What to count for [default: service] [possible values: workload, service, serviceaccount]
  [NAME]  Only this one: NAME or NAMESPACE/NAME

Options:
  -h, --help                   Print help
  -n, --namespace <NAMESPACE>  Only this namespace
  -A, --all-namespaces         All namespaces (the default)
      --window <TIME>          How far back to look, at most 10m; 0 for everything since the
                               proxies' start [default: 30s]
  -w, --watch                  Show again every two seconds, until Ctrl-C

{COMMON}
A call to a Service that is split counts for the Service that was called and for
the one that took it.

Examples:
  meshctl stat                          All Services
  meshctl stat svc catalog -n shop      One Service
  meshctl stat workload --window 5m     All workloads, over five minutes
  meshctl stat sa --watch               All service accounts, again and again
"#,
    );
}

#[test]
fn edges() {
    shows(
        &["edges", "--help"],
        r#"
Show who calls whom

Usage: meshctl edges [OPTIONS]

Options:
      --from <NAME>            Only calls from this service account: NAME or NAMESPACE/NAME
  -h, --help                   Print help
      --to <NAME>              Only calls to this service account, Service or workload: NAME or
                               NAMESPACE/NAME
  -n, --namespace <NAMESPACE>  Only this namespace
  -A, --all-namespaces         All namespaces (the default)
      --window <TIME>          How far back to look, at most 10m; 0 for everything since the
                               proxies' start [default: 30s]
  -w, --watch                  Show again every two seconds, until Ctrl-C

{COMMON}
SECURED: yes = mesh TLS, and both proxies say so
         caller, callee = mesh TLS; so far only that side's proxy has reported
         no = plaintext
         - = no peer was reached

Examples:
  meshctl edges -n shop
  meshctl edges --to cart                Who calls cart?
  meshctl edges --from storefront --watch
"#,
    );
}

#[test]
fn demo() {
    shows(
        &["demo", "--help"],
        r#"
Try the whole mesh on this machine, without root

Usage: meshctl demo [OPTIONS]

Options:
  -h, --help             Print help
      --once             Run everything once, check every claim against what all parties counted,
                         and end (at most 20 s)
      --duration <TIME>  End after this long, instead of at Ctrl-C
      --dir <DIR>        Work directory, empty or new [default: a temporary one]
      --keep             Leave the work directory at the end
      --rate <N>         Requests a second [default: 100; with --once 400]
      --transparent      Every workload in a network namespace of its own, its connections led
                         through its sidecar by `mesh-proxy init`. Needs root, or user namespaces

{COMMON}
Starts mesh-controller, and a mesh-proxy beside every service of a small shop, on loopback addresses
of their own.
Ctrl-C ends all of it and leaves nothing behind.

Examples:
  meshctl demo                          Look at it until Ctrl-C
  meshctl demo --keep --dir /tmp/shop   Keep the YAML, the state and the logs
  meshctl demo --once -o json           Check that everything works, for a program
  meshctl demo --transparent            The services know of no sidecar

Exit codes: 0 all that it claims holds; 1 something does not; 2 it could not be run.
"#,
    );
}

#[test]
fn completion() {
    shows(
        &["completion", "--help"],
        r#"
Print a completion script for a shell

Usage: meshctl completion [OPTIONS] <SHELL>

Arguments:
  <SHELL>  Which shell [possible values: bash, elvish, fish, powershell, zsh]

Options:
  -h, --help  Print help

{COMMON}
Examples:
  source <(meshctl completion bash)
  meshctl completion zsh > "${fpath[1]}/_meshctl"
  meshctl completion fish > ~/.config/fish/completions/meshctl.fish
"#,
    );
}

#[test]
fn version() {
    shows(
        &["version", "--help"],
        r#"
Print the versions of meshctl, of the controller and of proxies

Usage: meshctl version [OPTIONS]

Options:
      --client  Only meshctl's own: do not ask the controller
  -h, --help    Print help

{COMMON}
Examples:
  meshctl version
  meshctl version --client -o json
"#,
    );
}
