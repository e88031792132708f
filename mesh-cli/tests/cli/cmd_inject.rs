//! `meshctl inject` and `uninject`: by hand, without a cluster.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use crate::{
    cmd_help::shows,
    support::{command, run},
};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/inject").join(name)
}

/// Runs meshctl with a text for its standard input.
fn piped(args: &[&str], input: &str) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path(), args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that refuses its flags does not read.
    let _unread = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What makes the paths of probes unknown to others.
fn nonces(text: &str) -> BTreeSet<String> {
    let after = text.split("path: /probe/").skip(1);
    after
        .map(|rest| rest.split('/').next().unwrap().to_owned())
        .inspect(|n| assert_eq!(n.len(), 32))
        .collect()
}

#[track_caller]
fn check(name: &str, flags: &[&str], golden: &str, warnings: &[&str]) {
    let path = file(name);
    let args = [&["inject", "-f", path.to_str().unwrap(), "--proxy-image", "proxy:1"][..], flags].concat();
    let output = run(Path::new("/nonexistent"), &args);
    let (found, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{errors}");
    let expected = fs::read_to_string(file(golden)).unwrap();
    let nonces = nonces(&found);
    let plain = nonces.iter().fold(found.clone(), |text, nonce| text.replace(nonce, "NONCE"));
    assert_eq!(plain, expected.replace("VERSION", env!("CARGO_PKG_VERSION")), "{name}");
    let other = text(&run(Path::new("/nonexistent"), &args).stdout);
    assert!(nonces.iter().all(|nonce| !other.contains(nonce)), "nobody can know {nonces:?}");
    assert_eq!(errors.lines().count(), warnings.len(), "{errors}");
    for (line, warning) in errors.lines().zip(warnings) {
        assert!(line.contains(warning), "{line}");
    }
    // By hand again it is the same, and it can be taken out.
    let again = piped(&["inject", "-f", "-"], &found);
    assert_eq!(text(&again.stdout), found);
    let out = piped(&["uninject", "-f", "-"], &found);
    let objects = |text: &str| -> Vec<serde_json::Value> {
        mesh_k8s::documents(text).iter().map(|d| serde_saphyr::from_str(d.text).unwrap()).collect()
    };
    assert_eq!(objects(&text(&out.stdout)), objects(&fs::read_to_string(path).unwrap()));
}

#[test]
fn pods_are_written_as_they_have_always_been() {
    check("web.yaml", &[], "web.native.yaml", &[]);
    check("web.yaml", &["--server-version", "1.28"], "web.classic.yaml", &[]);
    let warning = ["DaemonSet agent gets no proxy: it is on the host's network"];
    check("jobs.yaml", &["--controller", "ctl:15010"], "jobs.native.yaml", &warning);
}

#[test]
fn nothing_is_written_if_anything_is_refused() {
    let good = fs::read_to_string(file("jobs.yaml")).unwrap();
    let bad = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, annotations: {meshctl.dev/log-level: loud}}\n\
               spec: {securityContext: {runAsUser: 1337}, containers: [{name: a}]}\n";
    let output = piped(&["inject", "-f", "-"], &format!("{good}---\n{bad}"));
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(2), String::new()));
    let errors = text(&output.stderr);
    assert!(errors.contains("Pod p: spec.securityContext.runAsUser: 1337 is the proxy's user"), "{errors}");
    assert!(
        errors.contains("metadata.annotations[meshctl.dev/log-level]: \"loud\" is not known"),
        "{errors}"
    );

    let broken = piped(&["inject", "-f", "-"], "kind: A\n---\na: [\n");
    assert_eq!((broken.status.code(), text(&broken.stdout)), (Some(2), String::new()));
    assert!(text(&broken.stderr).contains("stdin:"), "{}", text(&broken.stderr));
}

#[test]
fn wrong_flags_and_files_are_told() {
    let refused = |args: &[&str], expected: &str| {
        let output = piped(&[&["inject", "-f", "-"], args].concat(), "kind: A\n");
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    };
    refused(&["--proxy-log-level", "loud"], "logLevel: \"loud\"");
    refused(&["--controller", "here"], "controller: \"here\" is not HOST:PORT");
    refused(&["--server-version", "new"], "expected a version of Kubernetes");
    refused(&["--config", "/nonexistent"], "cannot read /nonexistent");
    refused(&["-f", "/nonexistent"], "cannot read /nonexistent");
    let config = tempfile::NamedTempFile::new().unwrap();
    fs::write(config.path(), "proxyImages: x\n").unwrap();
    refused(&["--config", config.path().to_str().unwrap()], "proxyImages");
}

#[test]
fn help_of_inject() {
    shows(
        &["inject", "--help"],
        r#"
Put a proxy into the pods of Kubernetes YAML, as the controller's webhook does

Usage: meshctl inject [OPTIONS] --file <FILE>

Options:
  -f, --file <FILE>                YAML file; - for standard input. Can be repeated
  -h, --help                       Print help
      --config <FILE>              Defaults of injection: what stands in the ConfigMap mesh-config
                                   under inject.yaml
      --proxy-image <IMAGE>        Image of the proxy
      --controller <HOST:PORT>     Where proxies find the controller
      --proxy-log-level <LEVEL>    What proxies log
      --trust-domain <NAME>        Trust domain of the mesh
      --native-sidecars <WHETHER>  Whether proxies are native sidecars; auto: where the cluster has
                                   them [possible values: auto, true, false]
      --server-version <VERSION>   Version of the cluster, as in 1.28 [default: a recent one]

{COMMON}
Changes Pods, Deployments, DaemonSets, StatefulSets, ReplicaSets, Jobs, CronJobs
and Lists of them; everything else, and the order, stays. Nothing is written if
anything is refused. docs/injection.md has the annotations.

Examples:
  meshctl inject -f app.yaml | kubectl apply -f -
  kubectl get deploy web -o yaml | meshctl inject -f - | kubectl apply -f -
  meshctl inject -f app.yaml --config inject.yaml --server-version 1.28
"#,
    );
}

#[test]
fn help_of_uninject() {
    shows(
        &["uninject", "--help"],
        r#"
Take it out again

Usage: meshctl uninject [OPTIONS] --file <FILE>

Options:
  -f, --file <FILE>  YAML file; - for standard input. Can be repeated
  -h, --help         Print help

{COMMON}
Example:
  kubectl get deploy web -o yaml | meshctl uninject -f - | kubectl apply -f -
"#,
    );
}
