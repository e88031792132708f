//! `install`, `upgrade` and `uninstall` where there is no cluster, or values that cannot be used: exit code 2, and what to do.

use std::{io::Write as _, path::Path, process::Output};

use crate::{
    cmd_help::shows,
    support::{command, compare},
};

const NOWHERE: &str = "\
apiVersion: v1
kind: Config
current-context: lost
contexts:
- {name: lost, context: {cluster: lost, user: lost}}
- {name: odd, context: {cluster: missing, user: lost}}
clusters:
- {name: lost, cluster: {server: \"https://127.0.0.1:1\"}}
users:
- {name: lost, user: {}}
";

/// Runs meshctl with DIR as its home, and what `kubeconfig` has as ~/.kube/config.
fn run(dir: &Path, kubeconfig: Option<&str>, args: &[&str]) -> Output {
    if let Some(text) = kubeconfig {
        std::fs::create_dir_all(dir.join(".kube")).unwrap();
        std::fs::write(dir.join(".kube/config"), text).unwrap();
    }
    command(dir, args).env("HOME", dir).output().unwrap()
}

#[track_caller]
fn check(kubeconfig: Option<&str>, args: &[&str], stderr: &str) {
    let dir = tempfile::tempdir().unwrap();
    compare(&run(dir.path(), kubeconfig, args), dir.path(), "", 2, "", &format!("{stderr}\n"));
}

#[test]
fn there_is_no_cluster() {
    for verb in ["install", "upgrade", "uninstall"] {
        check(
            None,
            &[verb],
            "error: there is no kubeconfig (DIR/.kube/config: No such file or directory (os error 2)); \
             name one with --kubeconfig, or set KUBECONFIG",
        );
        check(
            Some(NOWHERE),
            &[verb],
            "error: the cluster at https://127.0.0.1:1 does not answer (ServiceError: client error (Connect): \
             tcp connect error: Connection refused (os error 111)); is it the one that is meant? \
             `--context` names another",
        );
    }
}

#[test]
fn the_context_is_wrong() {
    check(
        Some(NOWHERE),
        &["install", "--context", "prod"],
        "error: the kubeconfig has no context \"prod\"; it has lost, odd",
    );
    check(
        Some(NOWHERE),
        &["install", "--context", "odd"],
        "error: the kubeconfig cannot be used: failed to load the cluster of context: missing",
    );
    check(
        Some(&NOWHERE.replace("current-context: lost", "current-context: ''")),
        &["install"],
        "error: the kubeconfig names no current context; name one with --context: lost, odd",
    );
}

#[test]
fn the_kubeconfig_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), Some("hello"), &["install"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(told.starts_with("error: the kubeconfig cannot be used: "), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

/// Values are looked at before any cluster is asked.
#[test]
fn values_cannot_be_used() {
    check(
        None,
        &["install", "--set", "controler.replicas=3,image.pullPolicy=always"],
        "error: the values are not what the chart takes: controler: there is no such value; did you mean controller?; \
         image.pullPolicy: \"always\" is not one of \"Always\", \"IfNotPresent\", \"Never\"; \
         charts/mesh/README.md lists them",
    );
    check(
        None,
        &["upgrade", "--set", "controller.replicas"],
        "error: --set \"controller.replicas\": there is no \"=\"; \
         write it as in controller.replicas=3 or proxy.skipOutboundPorts={25,587}",
    );
    check(
        None,
        &["install", "-f", "/nowhere/values.yaml"],
        "error: cannot read the values in /nowhere/values.yaml: No such file or directory (os error 2)",
    );
    // What fits the schema, and the controller could not read.
    for (value, told) in [
        (
            "proxy.skipOutboundCidrs={10.0.0.1/8}",
            "the defaults of injection (values under proxy): skipOutboundCidrs: \"10.0.0.1/8\": 10.0.0.1 has bits",
        ),
        (
            "proxy.skipOutboundPorts={70000-80000}",
            "the defaults of injection (values under proxy): skipOutboundPorts: \"70000-80000\": expected a port",
        ),
        ("controller.leafLifetime=5s", "controller.leafLifetime: \"5s\" is not from 10s to 90d"),
        ("controller.leafLifetime=91d", "controller.leafLifetime: \"91d\" is not from 10s to 90d"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let output = run(dir.path(), None, &["upgrade", "--set", value]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), error.lines().count()), (Some(2), 1), "{error}");
        assert!(error.contains(told), "{value}: {error}");
    }
    for (text, told) in [
        ("- a\n", "values are a mapping, as in \"controller: {replicas: 3}\""),
        ("a: 1\n---\nb: 2\n", "there is more than one document"),
    ] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let path = file.path().to_str().unwrap();
        check(None, &["install", "-f", path], &format!("error: {path}: {told}"));
    }
}

#[test]
fn manifests_are_printed_without_a_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let values = dir.path().join("values.yaml");
    std::fs::write(&values, "controller: {replicas: 2, logLevel: debug}\n").unwrap();
    let args =
        ["install", "--profile", "ha", "-f", values.to_str().unwrap(), "--set", "image.tag=9", "-o", "yaml"];
    let told = run(dir.path(), None, &args);
    let error = String::from_utf8(told.stderr).unwrap();
    assert!(error.contains("image.tag: 9 is not text"), "{error}");
    let args = [&args[..5], &["--set-string", "image.tag=9", "-o", "yaml"]].concat();
    let output = run(dir.path(), None, &args);
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("---\napiVersion: v1\nkind: Namespace\n"), "{text:.200}");
    for part in ["replicas: 2", "--log=debug", "meshctl.dev/mesh-controller:9", "kind: PodDisruptionBudget"] {
        assert!(text.contains(part), "{part}");
    }
    let mut args = args;
    args.pop();
    let list = run(dir.path(), None, &[args, vec!["json"]].concat());
    let list: serde_json::Value = serde_json::from_slice(&list.stdout).unwrap();
    let documents = text.matches("---\n").count();
    assert_eq!(list["items"].as_array().unwrap().len(), documents);
}

#[test]
fn help_of_install() {
    shows(
        &["install", "--help"],
        r#"
Put the mesh into a Kubernetes cluster, and wait until it is ready

Usage: meshctl install [OPTIONS]

Options:
  -h, --help                    Print help
      --profile <NAME>          A set of values to begin with [possible values: demo, ha, minimal]
  -f, --values <FILE>           File of values (YAML), as for Helm; can be repeated
      --set <NAME=VALUE>        A value, as in controller.replicas=3; can be repeated
      --set-string <NAME=TEXT>  A value that is text, whatever it looks like
      --dry-run                 Only show what would be done, as the API server says
      --within <TIME>           How long to wait until the mesh is ready [default: 2m]
      --beside-others           Install although another mesh is there

{COMMON}
Examples:
  meshctl install                                  As the chart has it
  meshctl install --profile ha --dry-run           What would be done
  meshctl install -f values.yaml --set proxy.logLevel=warn
  meshctl install -o yaml | kubectl apply -f -     Without asking the cluster

Values: charts/mesh/README.md. What is there already is completed, or changed to what is asked for:
values of the installation stay, with those that are typed on top.

Exit codes: 0 the mesh is ready; 1 it cannot be installed, or does not get ready; 2 wrong usage
or values, or the cluster cannot be asked.
"#,
    );
}

#[test]
fn help_of_upgrade() {
    shows(
        &["upgrade", "--help"],
        r#"
Bring the mesh in a cluster to this meshctl's version, and back if that fails

Usage: meshctl upgrade [OPTIONS]

Options:
  -h, --help                    Print help
      --profile <NAME>          A set of values to begin with [possible values: demo, ha, minimal]
  -f, --values <FILE>           File of values (YAML), as for Helm; can be repeated
      --set <NAME=VALUE>        A value, as in controller.replicas=3; can be repeated
      --set-string <NAME=TEXT>  A value that is text, whatever it looks like
      --reset-values            Begin with the chart's defaults instead of the values of the
                                installation
      --dry-run                 Only show what would be done, as the API server says
      --within <TIME>           How long to wait until the new controller is ready; then the earlier
                                one comes back [default: 2m]
      --force                   Upgrade over more than one minor version, or to an earlier one, or
                                away from proxies

{COMMON}
Examples:
  meshctl upgrade --dry-run                        What would be done
  meshctl upgrade                                  To this meshctl's version
  meshctl upgrade --set controller.replicas=3      To another value

Values of the installation stay, with those that are typed on top.

Exit codes: 0 the mesh is ready; 1 it is not upgraded: it is as it was, or the command says how it
stands; 2 wrong usage or values, or the cluster cannot be asked.
"#,
    );
}

#[test]
fn help_of_uninstall() {
    shows(
        &["uninstall", "--help"],
        r#"
Take the mesh out of a cluster, without a trace

Usage: meshctl uninstall [OPTIONS]

Options:
      --force          Also while pods have sidecars, or objects of the mesh's kinds would go
  -h, --help           Print help
      --keep-crds      Leave the mesh's kinds, and the objects of them
      --dry-run        Only show what would be deleted
      --within <TIME>  How long to wait until all is gone [default: 2m]

{COMMON}
Examples:
  meshctl uninstall --dry-run                      What would be deleted
  meshctl uninstall

The mesh's keys go with it: what is installed later has another authority.

Exit codes: 0 nothing of the mesh is there; 1 it is refused, or not all is gone; 2 wrong usage, or
the cluster cannot be asked.
"#,
    );
}
